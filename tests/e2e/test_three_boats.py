"""Three clusters, three masters, six nodes, one gateway, one DNS server: the picture of the original articles. Nothing
is configured to make it so."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import wipe, wipe_node
from tests.e2e.site import Site, fetch
from tests.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
NAMES = ("one", "two", "three")
OWN = '<route domain="{0}.k4t.lab"/><record name="{0}" ttl="1s"/><health interval="1s"><http path="/"/></health>'
SHARED = OWN.format("shared")


@pytest.fixture(scope="module")
def sea() -> Iterator[Lab]:
    with Lab(name=f"boats-{os.getpid()}", nodes=6, gateways=1, registry=True) as up:
        yield up


@pytest.fixture
def boats(sea: Lab, tmp_path: Path) -> Iterator[list[Site]]:
    """A working copy a cluster, each with two nodes of its own, and the same gateway and DNS server."""
    made = []
    for number, name in enumerate(NAMES):
        (tmp_path / name).mkdir()
        site = Site(sea, tmp_path / name, name=name)
        for node in (2 * number + 1, 2 * number + 2):
            site.node(sea.host(f"n{node}"))
        site.gateway(sea.host("gw1"))
        site.dns(sea.host("gw1"))
        made.append(site)
    made[0].k4t("gateway", "install")
    made[0].k4t("dns", "install")
    yield made
    for host in sea.nodes:
        wipe_node(host)
    wipe(sea.host("gw1"))


def pages(lab: Lab, domain: str, times: int = 60) -> set[str]:
    """Who answers at the gateway under a domain."""
    return {fetch(f"http://{lab.host('gw1').address}/", domain)[1].split()[0] for _ in range(times)}


def resolved(lab: Lab, name: str) -> set[str]:
    address = lab.host("gw1").address
    return set(lab.host("gw1").exec(["/usr/bin/dig", "+short", f"@{address}", name]).stdout.split())


def endpoints(site: Site) -> set[tuple[str, str]]:
    """(ip, owner) of all that the gateway holds, as `gateway list` shows it."""
    rows = site.json("gateway", "list")["gateways"][0]["endpoints"]
    return {(row["ip"], row["owner"]) for row in rows}


def test_three_clusters_share_a_gateway_and_a_name_server(boats: list[Site], sea: Lab) -> None:
    """Each publishes its own app; users reach all six nodes through one gateway and one DNS server."""
    for site, name in zip(boats, NAMES, strict=True):
        site.app(name, replicas=2, more=OWN.format(name))
        site.k4t("apply", "--yes")
    for number, name in enumerate(NAMES):
        own = {sea.host(f"n{node}").address for node in (2 * number + 1, 2 * number + 2)}
        assert resolved(sea, f"{name}.k4t.lab") == own
        assert len(pages(sea, f"{name}.k4t.lab", 20)) == 2
    for site in boats:
        assert site.k4t("plan", "--detailed-exitcode").stdout.startswith("Nothing to do")
    owners = {owner for _, owner in endpoints(boats[0])}
    assert owners == set(NAMES)


def test_one_app_name_in_three_clusters_adds_up(boats: list[Site], sea: Lab) -> None:
    """The first cluster that joins an app of another's wants --allow join; then all six replicas answer, and a cluster
    that goes takes only its own."""
    boats[0].app("shared", replicas=2, more=SHARED)
    boats[0].k4t("apply", "--yes")
    for site in boats[1:]:
        site.app("shared", replicas=2, more=SHARED)
        refused = site.k4t("apply", "--yes", status=4)
        assert "--allow join:shared" in refused.stderr + refused.stdout
        site.k4t("apply", "--yes", "--allow", "join:shared")
    assert len(pages(sea, "shared.k4t.lab")) == 6
    assert resolved(sea, "shared.k4t.lab") == {host.address for host in sea.nodes}
    (boats[1].db / "apps/shared/app.xml").unlink()
    (boats[1].db / "apps/shared").rmdir()
    boats[1].k4t("apply", "--yes", "--allow", "remove-app:shared")
    assert resolved(sea, "shared.k4t.lab") == {sea.host(f"n{n}").address for n in (1, 2, 5, 6)}
    assert len(pages(sea, "shared.k4t.lab")) == 4
    boats[2].k4t("apply", "--yes")
    assert boats[0].k4t("plan", "--detailed-exitcode").stdout.startswith("Nothing to do")


def test_a_domain_of_another_clusters_app_is_refused(boats: list[Site], sea: Lab) -> None:
    """The owner is named, nothing of it changes, and the one who asked keeps what it had."""
    boats[0].app("shop", replicas=1, more='<route domain="shop.k4t.lab"/>')
    boats[0].k4t("apply", "--yes")
    before = pages(sea, "shop.k4t.lab", 5)
    boats[1].app("stall", replicas=1, more='<route domain="shop.k4t.lab"/>')
    refused = boats[1].k4t("apply", "--yes", status=None)
    assert refused.returncode in (1, 3), refused.stderr
    said = refused.stdout + refused.stderr
    assert "shop" in said
    assert "one" in said
    assert pages(sea, "shop.k4t.lab", 5) == before


def test_two_trees_of_one_name_are_told_apart(boats: list[Site], sea: Lab, tmp_path: Path) -> None:
    """Another tree that calls itself `one` has another id: it neither sees nor touches what the first publishes."""
    boats[0].app("web", replicas=2, more=OWN.format("web"))
    boats[0].k4t("apply", "--yes")
    (tmp_path / "twin").mkdir()
    twin = Site(sea, tmp_path / "twin", name="one")
    twin.node(sea.host("n3"))
    twin.gateway(sea.host("gw1"))
    twin.app("other", replicas=1, more='<route domain="other.k4t.lab"/>')
    twin.k4t("apply", "--yes")
    assert len(pages(sea, "web.k4t.lab", 20)) == 2
    assert len(pages(sea, "other.k4t.lab", 5)) == 1
    assert boats[0].k4t("plan", "--detailed-exitcode").stdout.startswith("Nothing to do")


def test_three_masters_at_once_lose_nothing(boats: list[Site], sea: Lab) -> None:
    """All three apply at the same moment, again and again, one app: in the end the exact union is served."""
    boats[0].app("shared", replicas=2, more=SHARED)
    boats[0].k4t("apply", "--yes")
    for site in boats[1:]:
        site.app("shared", replicas=2, more=SHARED)
        site.k4t("apply", "--yes", "--allow", "join:shared")
    problems: list[str] = []

    def master(site: Site) -> None:
        for turn in range(3):
            site.app("shared", replicas=1 + turn % 2, more=SHARED)
            done = site.k4t("apply", "--yes", status=None)
            if done.returncode:
                problems.append(f"{site.directory.name}: exit {done.returncode}: {done.stdout} {done.stderr}")
        site.app("shared", replicas=2, more=SHARED)
        site.k4t("apply", "--yes", status=None)

    threads = [threading.Thread(target=master, args=(site,)) for site in boats]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert resolved(sea, "shared.k4t.lab") == {host.address for host in sea.nodes}
    assert len(pages(sea, "shared.k4t.lab", 80)) == 6
