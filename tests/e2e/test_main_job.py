"""The tree becomes running containers on two real nodes, published in a real Envoy and a real dnsmasq."""

from __future__ import annotations

import pytest

from tests.e2e.site import Site, containers, fetch
from tests.lab import Lab

pytestmark = pytest.mark.integration
ROUTED = """\
  <health interval="1s"><http port="http" path="/"/></health>
  <route port="http" domain="web.k4t.lab"/>
  <record name="web" ttl="1s"/>"""


def test_a_tree_becomes_containers_traffic_and_names(published: Site, lab: Lab) -> None:
    """apply runs one replica on each node; the page comes through Envoy from both, the name names both."""
    published.app("web", replicas=2, more=ROUTED)
    applied = published.json("apply", "--yes")
    assert applied["result"] == "done"
    assert containers(lab.host("n1")) == ["prod.web.0.1"]
    assert containers(lab.host("n2")) == ["prod.web.1.1"]
    gateway = lab.host("gw1").address
    pages = {fetch(f"http://{gateway}/", "web.k4t.lab")[1].split()[0] for _ in range(20)}
    assert len(pages) == 2
    answer = lab.host("gw1").exec(["/usr/bin/dig", "+short", f"@{gateway}", "web.k4t.lab"]).stdout.split()
    assert sorted(answer) == [lab.host("n1").address, lab.host("n2").address]


def test_a_second_apply_finds_nothing_to_do(published: Site) -> None:
    """Nothing is pending, plan's exit status says so, and the serial stays."""
    published.app("web", replicas=2, more=ROUTED)
    first = published.json("apply", "--yes")
    second = published.json("apply", "--yes")
    assert (second["result"], second["done"], second["serial"]) == ("nothing", 0, first["serial"])
    assert published.k4t("plan", "--detailed-exitcode", status=0).stdout.startswith("Nothing to do")


def test_an_apply_with_nothing_to_do_says_what_it_could_not_see(published: Site, lab: Lab) -> None:
    """A gateway that isn't set up is named though nothing is pending, for people and for programs: what it serves isn't
    known, so not all is done. Where nothing is published it is a warning."""
    published.app("web", more=ROUTED)
    published.k4t("apply", "--yes")
    published.gateway(lab.host("n2"), "edge2")
    shown = published.k4t("apply", "--yes", status=3).stdout
    assert "gateway install edge2" in shown
    assert shown.splitlines()[-1].startswith("Nothing done: what is not is named above")
    done = published.json("apply", "--yes", status=3)
    assert (done["result"], done["done"]) == ("partial", 0)
    assert any("gateway install edge2" in sentence for sentence in done["not_done"])
    other = published.db / "gateways/edge2.xml"
    other.write_text(other.read_text().replace("/>", ' group="nobody"/>'))
    assert any("gateway install edge2" in warning for warning in published.json("apply", "--yes")["warnings"])


def test_a_change_replaces_what_changed_and_only_that(published: Site, lab: Lab) -> None:
    """A changed variable gives the next generation of both replicas; another app keeps its container."""
    published.app("web", replicas=2, more=ROUTED)
    published.app("other", port=8081)
    published.k4t("apply", "--yes")
    before = [name for host in lab.nodes for name in containers(host) if ".other." in name]
    published.app("web", replicas=2, more=ROUTED + '\n  <env name="VER">2</env>')
    assert "env VER added" in published.k4t("plan", "--detailed-exitcode", status=2).stdout
    published.k4t("apply", "--yes")
    names = [name for host in lab.nodes for name in containers(host)]
    assert sorted(name for name in names if ".web." in name) == ["prod.web.0.2", "prod.web.1.2"]
    assert [name for name in names if ".other." in name] == before
    assert "version=2" in fetch(f"http://{lab.host('gw1').address}/", "web.k4t.lab")[1]


def test_an_app_gone_from_the_tree_is_removed_only_when_allowed(published: Site, lab: Lab) -> None:
    """Exit 4 names the --allow; with it the app's containers, routes and names are gone."""
    published.app("web", replicas=2, more=ROUTED)
    published.k4t("apply", "--yes")
    (published.db / "apps/web/app.xml").unlink()
    (published.db / "apps/web").rmdir()
    refused = published.k4t("apply", "--yes", status=4)
    assert "--allow remove-app:web" in refused.stderr
    assert containers(lab.host("n1"))
    published.k4t("apply", "--yes", "--allow", "remove-app:web")
    assert not containers(lab.host("n1"))
    assert not containers(lab.host("n2"))
    gateway = lab.host("gw1").address
    assert fetch(f"http://{gateway}/", "web.k4t.lab")[0] == 404
    assert not lab.host("gw1").exec(["/usr/bin/dig", "+short", f"@{gateway}", "web.k4t.lab"]).stdout.split()


def test_a_container_removed_by_hand_is_put_back_and_published_again(published: Site, lab: Lab) -> None:
    """docker rm -f on a node: the plan says so, the apply mends it."""
    published.app("web", replicas=2, more=ROUTED)
    published.k4t("apply", "--yes")
    lab.host("n1").docker(["rm", "-f", "prod.web.0.1"])
    assert "prod.web.0" in published.k4t("plan").stdout or "web.0" in published.k4t("plan").stdout
    published.k4t("apply", "--yes")
    assert len(containers(lab.host("n1"), all=False)) == 1
    pages = {fetch(f"http://{lab.host('gw1').address}/", "web.k4t.lab")[1].split()[0] for _ in range(20)}
    assert len(pages) == 2


def test_a_container_that_k4t_did_not_make_is_never_touched(site: Site, lab: Lab) -> None:
    """A stranger lives through apply, change and removal."""
    lab.host("n1").docker(["run", "-d", "--name", "stranger", lab.image, "/bin/sleep", "600"])
    site.app("web", replicas=2)
    site.k4t("apply", "--yes")
    assert "stranger" in containers(lab.host("n1"), all=False)


def test_status_is_the_json_that_programs_build_on(published: Site, lab: Lab) -> None:
    """Every key of the contract, with what is there."""
    published.app("web", replicas=2, more=ROUTED)
    published.k4t("apply", "--yes")
    seen = published.json("status")
    assert {"version", "cluster", "serial", "tree", "observed_at", "lock", "nodes", "apps", "gateways", "dns"} <= set(
        seen
    )
    assert {"transactions", "backups"} <= set(seen)
    assert [(one["name"], one["reachable"], one["container_count"]) for one in seen["nodes"]] == [
        ("n1", True, 1), ("n2", True, 1),
    ]  # fmt: skip
    web = seen["apps"][0]
    assert (web["name"], web["desired"], web["running"], web["healthy"]) == ("web", 2, 2, 2)
    assert [one["ip"] for one in web["endpoints"]] == [lab.host("n1").address, lab.host("n2").address]
    assert [(one["name"], one["in_step"]) for one in seen["gateways"] + seen["dns"]] == [("gw1", True), ("names", True)]
