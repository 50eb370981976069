"""Wrong input and broken hosts: one clear message, the right exit status, nothing lost."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.site import Site, containers
from tests.lab import Lab

pytestmark = pytest.mark.integration


def one_line(text: str, *parts: str) -> None:
    """Exactly one line says it, and it says all of it."""
    lines = [line for line in text.splitlines() if all(part in line for part in parts)]
    assert len(lines) == 1, f"wanted one line with {parts} in:\n{text}"


# --- the tree ----------------------------------------------------------------------------------------------


def test_no_tree(site: Site) -> None:
    """An empty place is not an empty tree."""
    shutil.rmtree(site.db)
    one_line(site.k4t("plan", status=64).stderr, "k4t init")


def test_a_tree_that_may_not_be_read(site: Site, tmp_path: Path) -> None:
    """A directory closed to the user is named; there is no traceback."""
    site.directory.chmod(0o755)
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(0o755)
    site.db.chmod(0o700)
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *site.argv("plan")],
        env=site.environment({"HOME": "/nonexistent"}), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 64, done.stderr
    one_line(done.stderr, str(site.db), "ermission")


def test_all_errors_of_a_tree_at_once(site: Site) -> None:
    """Three files, three errors, each with file and line, in the JSON of the contract."""
    site.write("apps/web/app.xml", "<app>\n  <image>x:1</image>\n  <prot container='80'/>\n</app>\n")
    site.write("apps/db/app.xml", "<app replicas='-1'><image>x:1</image></app>\n")
    site.write("nodes/n9.xml", site.db.joinpath("nodes/n1.xml").read_text())
    found = site.json("validate", status=65)["errors"]
    assert {"file", "line", "code", "message", "remedy"} == set(found[0])
    assert [(one["file"], one["line"]) for one in found] == [
        ("apps/db/app.xml", 1), ("apps/web/app.xml", 3), ("nodes/n9.xml", 1),
    ]  # fmt: skip
    assert "port" in found[1]["remedy"] + found[1]["message"]
    for words in (("plan",), ("apply", "--yes"), ("status",)):
        assert site.k4t(*words, status=65).stderr.count("apps/web/app.xml:3:") == 1


def test_an_empty_tree_takes_nothing_away_by_itself(site: Site, lab: Lab) -> None:
    """Exit 4, also with --yes, and without a question; what another cluster or nobody made stays in any case."""
    site.app("web", replicas=2)
    site.k4t("apply", "--yes")
    shutil.rmtree(site.db / "apps" / "web")
    for words in (["apply"], ["apply", "--yes"]):
        one_line(site.k4t(*words, status=4).stderr, "--allow remove-app:web")
    assert len(containers(lab.host("n1")) + containers(lab.host("n2"))) == 2


def test_a_question_with_nobody_to_answer(site: Site, lab: Lab) -> None:
    """Without a terminal an apply says which option to give, and does nothing."""
    site.app("web", replicas=2)
    one_line(site.k4t("apply", status=64).stderr, "--yes")
    assert not containers(lab.host("n1"))


def test_usage(site: Site) -> None:
    """A command, an option and a name that there are not."""
    for words in (("bogus",), ("plan", "--bogus"), ("show", "nobody"), ("plan", "-o", "yaml")):
        assert site.k4t(*words, status=64).stderr.startswith("k4t: ")


# --- keys, logins, networks --------------------------------------------------------------------------------


def test_an_unknown_host_key(site: Site) -> None:
    """Refused with its fingerprint and the command that enrols it; after that command it is known, and nobody is asked
    about it again."""
    (site.home / ".ssh" / "known_hosts").unlink()
    refused = site.k4t("plan", status=77)
    assert "SHA256:" in refused.stderr
    assert "k4t trust" in refused.stderr
    site.k4t("trust", "--yes")
    site.k4t("plan", status=0)
    assert site.k4t("trust").stderr.count("enrolled already") == 2


def test_a_changed_host_key(site: Site, lab: Lab) -> None:
    """Both fingerprints, file and line; nothing is sent. Its neighbour is served."""
    host = lab.host("m2")
    site.node(host)
    host.new_host_key()
    refused = site.k4t("plan", status=77)
    text = refused.stderr + refused.stdout
    assert text.count("SHA256:") >= 2
    assert "known_hosts:" in text


def test_a_wrong_login(site: Site, lab: Lab) -> None:
    """User, key and host are named."""
    site.write("cluster.xml", (site.db / "cluster.xml").read_text().replace('user="root"', 'user="nobody"'))
    one_line(site.k4t("plan", status=77).stderr, "nobody", str(lab.key))


def test_nothing_listens(site: Site, lab: Lab) -> None:
    """All nodes refused: 69; one of two: what can be done is done, and exit 3 names the other."""
    site.node(lab.host("n1"), inside='<ssh port="2222"/>')
    site.node(lab.host("n2"), inside='<ssh port="2222"/>')
    assert "refuses the connection" in site.k4t("plan", status=69).stderr
    site.node(lab.host("n2"))
    site.app("web", replicas="per-node")
    done = site.json("apply", "--yes", status=3)
    assert done["result"] == "partial"
    assert any("n1" in sentence for sentence in done["not_done"])
    assert containers(lab.host("n2")) == ["prod.web.n2.1"]


def test_a_host_that_accepts_and_says_nothing(site: Site, lab: Lab) -> None:
    """Bounded: the run does not hang on it."""
    with silent_server(lab.address) as port:
        site.node(lab.host("n1"), inside=f'<ssh host="{lab.address}" port="{port}"/>')
        (site.db / "nodes" / "n2.xml").unlink()
        assert str(port) in site.k4t("plan", status=69, timeout_s=40).stderr


@contextmanager
def silent_server(address: str) -> Iterator[int]:
    """Accepts connections and never says a word."""
    with socket.create_server((address, 0)) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for connection in kept:
                connection.close()


# --- Docker ------------------------------------------------------------------------------------------------


def test_docker_stopped(site: Site, lab: Lab) -> None:
    """A node whose daemon is gone is unknown: the other is served, and it is named with what to do."""
    site.app("web", replicas="per-node")
    host = lab.host("n1")
    host.stop_docker()
    try:
        done = site.json("apply", "--yes", status=3)
    finally:
        host.start_docker()
    assert any("n1" in sentence and "ocker" in sentence for sentence in done["not_done"])
    assert containers(lab.host("n2")) == ["prod.web.n2.1"]


def test_an_image_that_is_not_there(site: Site, lab: Lab) -> None:
    """The app's line, the image, and nothing begun."""
    site.app("web", image=f"{lab.registry}/nothing:1")
    refused = site.k4t("apply", "--yes", status=1)
    one_line(refused.stderr, "apps/web/app.xml:", "nothing:1")


def test_a_port_that_is_taken(site: Site, lab: Lab) -> None:
    """Node, port, line of the tree, and who holds it."""
    host = lab.host("n1")
    pid = host.spawn("nc", ["/bin/busybox", "nc", "-ll", "-p", "8080", "-e", "/bin/busybox", "cat"], listens_on=8080)
    try:
        (site.db / "nodes" / "n2.xml").unlink()
        site.app("web", port=8080)
        failed = site.json("apply", "--yes", status=1)["failed"][0]
    finally:
        host.stop("nc")
    assert pid
    for part in ("8080", "apps/web/app.xml:", "busybox"):
        assert part in failed["error"], failed
    assert failed["host"] == "n1"


def test_a_name_held_by_a_stranger(site: Site, lab: Lab) -> None:
    """Refused and never removed."""
    (site.db / "nodes" / "n2.xml").unlink()
    lab.host("n1").docker(["create", "--name", "prod.web.0.1", lab.image, "true"])
    site.app("web")
    failed = site.json("apply", "--yes", status=1)["failed"]
    assert "prod.web.0.1" in failed[0]["error"]
    assert "not made by k4t" in failed[0]["error"]
    assert containers(lab.host("n1")) == ["prod.web.0.1"]


def test_a_container_that_crash_loops_is_never_published(published: Site, lab: Lab) -> None:
    """The tail of its log is shown, the exit status says that it failed."""
    published.app(
        "web", image=lab.push("crash", FAIL="on purpose"), more='  <route port="http" domain="web.k4t.lab"/>'
    )  # fmt: skip
    failed = published.json("apply", "--yes", status=1)["failed"]
    assert any("on purpose" in one["error"] for one in failed)
    assert published.json("status")["apps"][0]["endpoints"] == []


# --- gateways and DNS --------------------------------------------------------------------------------------


def test_the_registrar_is_missing_or_altered(published: Site, lab: Lab) -> None:
    """Each is told apart, with the command that mends it; apps that publish nothing go on."""
    host = lab.host("gw1")
    published.app("web", replicas=1, more='  <route port="http" domain="web.k4t.lab"/>')
    published.app("quiet", replicas=1, port=8099)
    path = host.exec(["sh", "-c", "ls /var/lib/k4t/registrar/bin/*.pyz"]).stdout.strip()
    host.exec(["sh", "-c", f"echo x >> {path}"])
    altered = published.json("apply", "--yes", status=None)
    assert any("gateway install gw1" in sentence for sentence in altered["not_done"]), altered
    assert any(".quiet." in name for node in lab.nodes for name in containers(node))
    assert not any(".web." in name for node in lab.nodes for name in containers(node))
    host.exec(["rm", path])
    missing = published.k4t("gateway", "check", status=1).stdout
    assert "is not installed" in missing
    host.exec(["touch", f"{path.rpartition('-')[0]}-000000000000.pyz"])  # as after an upgrade of k4t
    upgraded = (
        published.json("plan", status=None)["warnings"] + published.json("apply", "--yes", status=None)["not_done"]
    )
    about = [sentence for sentence in upgraded if "group default" in sentence]
    assert about
    assert all("of another version of k4t" in sentence and "gateway install gw1" in sentence for sentence in about)
    assert not any("unreachable" in sentence for sentence in about), about
    published.k4t("gateway", "install")
    published.k4t("apply", "--yes", status=0)


def test_dns_does_not_answer(published: Site, lab: Lab) -> None:
    """A dnsmasq that is stopped is named; nothing that serves is touched."""
    published.app("web", replicas=1, more='  <record name="web"/>')
    lab.host("gw1").exec(["sh", "-c", 'kill "$(cat /run/k4t-dnsmasq.pid)"'])
    done = published.k4t("apply", "--yes", status=None)
    assert done.returncode in (1, 3, 69), done
    assert "dnsmasq" in done.stderr + done.stdout


def test_a_hundred_thousand_attributes_do_not_hang_it(site: Site) -> None:
    """Refused quickly, by name."""
    attributes = " ".join(f'a{number}="1"' for number in range(60_000))
    site.write("apps/web/app.xml", f"<app {attributes}/>")
    assert "apps/web/app.xml" in site.k4t("validate", status=65, timeout_s=60).stdout


def test_a_fifo_in_the_tree_does_not_hang_it(site: Site) -> None:
    os.mkfifo(site.db / "nodes" / "x.xml")
    assert "nodes/x.xml" in site.k4t("validate", status=65, timeout_s=60).stdout


def test_what_a_driver_cannot_express_is_refused(published: Site, lab: Lab) -> None:
    """dnsmasq has no SRV here: the member, its driver and the line are named, and nothing is begun."""
    published.app("web", replicas=1, more='  <record name="web" type="srv"/>')
    refused = published.k4t("plan", status=65)
    one_line(refused.stderr, "apps/web/app.xml:", "names (dnsmasq)", "srv")


def test_a_secret_that_is_not_there_stops_the_run_before_it_begins(site: Site, lab: Lab) -> None:
    """The secret and its place are named; status, which needs no secret, still works."""
    site.write("secrets/token.xml", '<secret environment="K4T_TEST_TOKEN"/>\n')
    site.app("web", replicas=1, more='  <env name="TOKEN" secret="token"/>')
    one_line(site.k4t("apply", "--yes", status=1).stderr, "secret token", "K4T_TEST_TOKEN")
    assert not containers(lab.host("n1")) + containers(lab.host("n2"))
    site.k4t("status", status=0)


def test_one_image_that_is_not_there_stops_its_app_alone(site: Site, lab: Lab) -> None:
    """A wrong tag in one app: the others are deployed, the app and its line are named, exit 3."""
    site.app("good", replicas=1, port=8081)
    site.app("bad", replicas=1, image=f"{lab.registry}/nothing:1")
    done = site.json("apply", "--yes", status=3)
    assert done["result"] == "partial"
    assert any("apps/bad/app.xml:" in sentence and "nothing:1" in sentence for sentence in done["not_done"])
    assert [name for host in lab.nodes for name in containers(host)] == ["prod.good.0.1"]
    assert site.json("apply", "--yes", status=3)["done"] == 0
