"""What an operator ran into, by hand, on real hosts."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.e2e.site import Site
from tests.lab import Lab

pytestmark = pytest.mark.integration
ROUTE = '  <route port="http" domain="web.k4t.lab"/>'


def test_a_gateway_that_refuses_is_named_by_plan(site: Site, lab: Lab) -> None:
    """A plan that ends 77 says which host it is, and does not say that there is nothing to do."""
    site.app(more=ROUTE)
    site.gateway(lab.host("gw1"))
    known = site.home / ".ssh" / "known_hosts"
    lines = known.read_text().splitlines(keepends=True)
    known.write_text("".join(line for line in lines if lab.host("gw1").address not in line))
    said = site.k4t("plan", status=77).stdout
    assert "k4t trust gw1" in said
    assert "Nothing to do" not in said
    (site.db / "apps" / "web" / "app.xml").unlink()
    (site.db / "apps" / "web").rmdir()
    assert "gateway gw1 is unreachable" in site.k4t("plan", status=77).stdout, "also when no app wants it"


def test_a_misspelt_app_is_a_slip_of_the_pen(site: Site) -> None:
    """Naming an app that is neither in the tree nor on any host is a usage error, nothing to be permitted."""
    site.app()
    for command in (["plan", "wbe"], ["apply", "wbe", "--yes"]):
        done = site.k4t(*command, status=64)
        assert "no app 'wbe'" in done.stderr
        assert "the tree has: web" in done.stderr


def test_an_address_that_is_taken_is_not_left_in_the_tree(site: Site, lab: Lab) -> None:
    """`node add` with another node's address: 65, and the tree is as it was."""
    done = site.k4t("node", "add", "n9", lab.host("n1").address, "--yes", status=65)
    assert "n9 has the address" in done.stderr
    assert not (site.db / "nodes" / "n9.xml").exists()
    site.k4t("validate")


def test_what_is_asked_is_named_where_nobody_can_answer(site: Site, lab: Lab) -> None:
    """Without a terminal the question itself is in the message, and how to go on after `node add`."""
    known = site.home / ".ssh" / "known_hosts"
    known.write_text("")
    (site.db / "nodes" / "n2.xml").unlink()
    said = site.k4t("node", "add", "n3", lab.host("n2").address, status=64).stderr
    assert "Are these the hosts' own keys?" in said
    assert "k4t trust n3" in said


def test_an_interrupted_run_was_done_in_part(site: Site) -> None:
    """Ctrl-C: 130, and the result says that the next apply goes on, not that all failed."""
    for number in range(6):
        site.app(f"app{number}", replicas=2, port=8100 + number, more="  <depends on='app0'/>" if number else "")
    site.k4t("apply", "app0", "--yes")
    run = site.start("apply", "--yes", "-o", "json")
    assert run.stderr is not None
    next(line for line in run.stderr if "create" in line)
    run.send_signal(signal.SIGINT)
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 130
    answer = json.loads(said)
    assert answer["result"] == "partial"
    assert all("because of interrupted" not in sentence for sentence in answer["not_done"])
    site.k4t("apply", "--yes")
    assert site.json("apply")["result"] == "nothing"


def test_ps_speaks_the_language_of_the_other_commands(site: Site) -> None:
    """Replicas are numbers and times RFC 3339 in what programs read."""
    site.app()
    site.k4t("apply", "--yes")
    (one,) = site.json("ps")["containers"]
    assert one["replica"] == 0
    assert one["created"].endswith("Z")


def test_a_container_whose_check_says_no_is_named(site: Site) -> None:
    """After an update that never got healthy, plan says so instead of only "nothing to do"."""
    site.app(more='  <health interval="1s" retries="1" start-period="0s"><exec><arg>/nothing</arg></exec></health>')
    path: Path = site.db / "apps" / "web" / "app.xml"
    path.write_text(path.read_text().replace('drain="0s"', 'drain="0s" timeout="3s"'))
    site.k4t("apply", "--yes", status=1)
    assert "prod.web.0.1 on n1 is not healthy" in site.k4t("plan").stdout


def test_what_was_edited_by_hand_is_shown_before_it_is_healed(published: Site, lab: Lab) -> None:
    """A plan that heals a gateway or DNS server says which, and how it differs."""
    published.app(more=ROUTE + '\n  <record name="web" ttl="1s"/>')
    published.k4t("apply", "--yes")
    host = lab.host("gw1")
    host.exec(["sed", "-i", f"s/{lab.host('n1').address}/10.9.9.9/", "/var/lib/k4t/envoy/eds/web.http.json"])
    host.exec(["sh", "-c", "echo '10.9.9.9 web.k4t.lab' >> /var/lib/k4t/dnsmasq/hosts/k4t"])
    said = published.k4t("plan").stdout
    assert "put right gateway group default" in said
    assert "10.9.9.9:8080 is served but not published" in said
    assert "put right DNS group default" in said
    assert "web.k4t.lab gives 10.9.9.9" in said
    published.k4t("apply", "--yes")
    assert published.json("plan")["changes"] == 0


def test_status_wants_as_many_as_there_may_be(site: Site, lab: Lab) -> None:
    """An app `per-node` is wanted once on each node that may have it, not on those that may not."""
    site.app(replicas="per-node")
    site.write("nodes/n2.xml", f'<node address="{lab.host("n2").address}" availability="drained"/>\n')
    (app,) = site.json("status")["apps"]
    assert app["desired"] == 1


def test_check_sees_what_apply_would_need(site: Site, lab: Lab) -> None:
    """A login of the docker group that may not write k4t's state fails the check, not only the apply."""
    host = lab.host("n1")
    script = "useradd -m plain; usermod -aG docker plain; cp -r /root/.ssh /home/plain/; chown -R plain /home/plain"
    host.exec(["sh", "-c", script])
    site.write("nodes/n1.xml", f'<node address="{host.address}"><ssh user="plain"/></node>\n')
    said = site.k4t("node", "check", "n1", status=1).stdout
    assert "plain can't write to /var/lib" in said
    assert "sudo chown -R plain /var/lib/k4t" in said
    host.exec(["sh", "-c", "mkdir -p /var/lib/k4t && chown -R plain /var/lib/k4t"])
    site.k4t("node", "check", "n1")
    site.app()
    (site.db / "nodes" / "n2.xml").unlink()
    site.k4t("apply", "--yes")


def test_an_archive_that_is_none_is_one_line(site: Site) -> None:
    """A file that is no archive is told in one line."""
    site.app()
    path = site.db / "apps" / "web" / "app.xml"
    path.write_text(path.read_text().replace("<image>", '<image archive="web.tar">'))
    for content in (b"", b"no tar at all" * 100):
        (path.parent / "web.tar").write_bytes(content)
        said = site.k4t("plan", status=1).stderr
        assert said.count("\n") == 1
        assert "web.tar" in said
