"""No request is lost: two replicas on two nodes behind real Envoys, an open-loop client, and everything operators do.

K4T_FULL=1 does all of it, at 500 requests a second; the full version, at least 100,000 requests, is `python -m
tests.bench --only load`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site, containers, fetch
from tests.lab import Host, Lab
from tests.load import Report
from tests.load.scenario import HOSTS, Named, Scenario

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
FULL = "K4T_FULL" in os.environ
RATE_PER_S = 500 if FULL else 200
IN_A_ROW = 20


@pytest.fixture(scope="module")
def doors() -> Iterator[Lab]:
    """Two nodes and two gateways."""
    with Lab(name=f"doors-{os.getpid()}", nodes=2, gateways=2, registry=True) as up:
        yield up


@pytest.fixture(scope="module")
def scenario(doors: Lab, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """Both apps are up; the DNS server stands beside the second gateway."""
    site = Site(doors, tmp_path_factory.mktemp("site"))
    for name in ("n1", "n2"):
        site.node(doors.host(name))
    for name in ("gw1", "gw2"):
        site.gateway(doors.host(name))
    site.dns(doors.host("gw2"))
    site.k4t("gateway", "install")
    site.k4t("dns", "install")
    made = Scenario(site, doors, [doors.host("gw1"), doors.host("gw2")], drain="2s")  # of a busy machine
    made.apply()
    return made


def show(scenario: Scenario, report: Report) -> None:
    for phase in scenario.phases(report):
        print(f"{phase.name}: {phase.ended_at - phase.began_at:.1f} s, {phase.report.words()}")
    print(f"in all: {report.words()}")


def count(lab: Lab) -> int:
    return len([name for host in lab.nodes for name in containers(host)])


def wait_until_it_serves(door: Host, timeout_s: float = 60) -> None:
    """Cut off, it has found everything unhealthy: its own checks have to pass again."""
    deadline, good = time.monotonic() + timeout_s, 0
    while good < IN_A_ROW:
        assert time.monotonic() < deadline
        good = good + 1 if all(fetch(f"http://{door.address}/", host)[0] == 200 for host in HOSTS) else 0
        time.sleep(0.02)


def test_nothing_is_lost_whatever_operators_do(scenario: Scenario, doors: Lab, tmp_path: Path) -> None:
    """New image, 2 to 4 to 2 replicas, a node drained and taken back (K4T_FULL: to 6, restart, rollback): every request
    is answered."""
    with scenario.load(tmp_path / "samples.json", rate_per_s=RATE_PER_S) as load:
        for step in scenario.steps(few=not FULL):
            step()
    show(scenario, load.report)
    assert not load.report.lost, load.report.first_lost()
    assert load.report.rate_per_s == pytest.approx(RATE_PER_S, rel=0.1)
    assert count(doors) == 4


def test_nothing_is_lost_when_a_gateway_is_cut_off_within_a_wave(
    scenario: Scenario, doors: Lab, tmp_path: Path
) -> None:
    """The other gateway answers everything. What the lost one may still send to runs on, so that it loses nothing
    either when it is back; the next run heals it and finishes."""
    lost, kept = scenario.doors
    scenario.change(image=doors.push("cut", VER="cut"))
    with scenario.load(tmp_path / "kept.json", rate_per_s=RATE_PER_S, doors=[kept]) as load:
        process = scenario.site.start("apply", "--yes", "--degraded")
        deadline = time.monotonic() + 60
        while count(doors) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        lost.cut()
        out, said = process.communicate(timeout=150)
        print(said)
        assert process.returncode == 3, out + said
        assert "gw1" in out + said
        for _ in range(2):
            scenario.apply("--degraded", status=3)
        assert count(doors) == 8
        lost.restore()
        wait_until_it_serves(lost)
        with scenario.load(tmp_path / "lost.json", rate_per_s=RATE_PER_S // 5, doors=[lost]) as other:
            scenario.apply()
    print(load.report.words(), other.report.words())
    assert not load.report.lost, load.report.first_lost()
    assert not other.report.lost, other.report.first_lost()
    assert count(doors) == 4
    assert scenario.seen(lost) == scenario.seen(kept) == {"cut"}


@pytest.fixture
def named(doors: Lab, tmp_path: Path) -> Iterator[Named]:
    """Both apps by their names alone, in a cluster of their own; the DNS server stands on the first gateway's host."""
    site = Site(doors, tmp_path, name="named")
    server = doors.host("gw1")
    site.dns(server)
    made = Named(site, doors, [server], drain="2s")
    for node in ("n1", "n2"):
        made.availability(node, "active")
    site.k4t("dns", "install")
    made.apply()
    yield made
    made.availability("n2", "active")
    for name in ("kept", "shut"):
        site.k4t("app", "remove", name, "--yes")
    for host in doors.nodes:
        host.exec(["sh", "-c", "docker network ls -q --filter name=k4t- | xargs -r docker network rm"])


def test_nothing_is_lost_by_clients_that_know_a_name_alone(named: Named, tmp_path: Path) -> None:
    """No gateway: they ask dnsmasq, use the answer for its TTL, and connect to a container's own address. New image, a
    node drained and taken back (K4T_FULL: 2 to 6 to 2 as well): every request is answered."""
    with named.load(tmp_path / "samples.json", rate_per_s=RATE_PER_S) as load:
        for step in named.steps(few=not FULL):
            step()
    show(named, load.report)
    assert not load.report.lost, load.report.first_lost()
    assert load.report.rate_per_s == pytest.approx(RATE_PER_S, rel=0.1)
