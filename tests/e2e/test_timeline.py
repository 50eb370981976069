"""A node is lost while the master is off and the monitor stands elsewhere: what happens when, and what it costs; and
what the monitor leaves alone. K4T_FULL=1: all of them, for longer."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import html5lib
import pytest

from tests.e2e.site import containers
from tests.e2e.timeline import FENCE, INTERVAL_S, MASTER, MONITOR, WATCH, Play, Timeline, copies_counted
from tests.lab import Lab
from tests.lab.hypervisor import Hypervisor
from tests.lab.processes import wait_until
from tests.load.run import Load

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
LONG = "K4T_FULL" in os.environ
RATE_PER_S = 50
LOOK_S = 6.0 if LONG else 20.0
"""A look at a host that is off waits for it, and asks others whether they reach it; the rest is for a busy machine."""
MORE = """
  <policy when="app-unhealthy" enabled="true" after="2"/>
  <policy when="disk-full" enabled="true" per-hour="1"/>"""


@pytest.fixture(scope="module")
def play() -> Iterator[Play]:
    names = {name: name for name in (MASTER, "n1", "n2", "n3")}
    with (
        Lab(name=f"time-{os.getpid()}", nodes=3, gateways=2, registry=True, extra=(MASTER, MONITOR)) as lab,
        Hypervisor(lab, names) as power,
    ):
        made = Play(lab, power)
        made.build()
        yield made


def test_a_node_that_only_lost_contact_and_cannot_be_fenced(play: Play) -> None:
    """Its containers still run, so nothing is started elsewhere: of a replica that is never to run twice there is one
    at every moment. What else serves has its place in the gateways; the master sleeps on; when the contact is back, so
    are the endpoints."""
    node = play.unfenced
    play.sleep()
    with play.watching(), copies_counted(play, "alone") as counts:
        node.cut()
        try:
            assert wait_until(partial(play.has, f"refused node {node.name}"), timeout_s=90), play.said()
            time.sleep(60 if LONG else INTERVAL_S)
        finally:
            node.restore()
        assert wait_until(partial(play.has, f"over node {node.name}"), timeout_s=90), play.said()
        assert wait_until(lambda: not any(play.withdrawn(one, node) for one in play.gateways), timeout_s=60)
    print(f"{len(counts)} looks at where it runs: {sorted(set(counts))}")
    assert set(counts) == {1}
    assert not play.master.host.is_on
    assert f"start {MASTER}" not in play.power.done


@pytest.mark.skipif(not LONG, reason="K4T_FULL=1")
def test_a_monitor_that_is_cut_off_and_too_many_nodes_at_once(play: Play) -> None:
    """It says so, and does nothing: it is rather its own network than all of them; and what two of three nodes have in
    common is nothing that a monitor should decide about."""
    play.sleep()
    before = len(play.events())
    with play.watching():
        for hosts, told in (
            ([play.monitor.host], "cluster prod"),
            (play.lab.nodes[:2], f"node {play.lab.nodes[0].name}"),
        ):
            for host in hosts:
                host.cut()
            assert wait_until(partial(play.has, f"raised {told}", before), timeout_s=90), play.said()
            time.sleep(5 * INTERVAL_S)
            for host in hosts:
                host.restore()
            assert wait_until(partial(play.has, f"over {told}", before), timeout_s=90), play.said()
    assert {one["kind"] for one in play.events()[before:]} <= {"raised", "refused", "over"}
    assert not [one.name for one in play.gateways for node in play.lab.nodes if play.withdrawn(one, node)]
    assert not play.master.host.is_on


def test_a_node_dies_under_load_while_the_master_sleeps(play: Play, tmp_path: Path) -> None:
    """Its endpoints are withdrawn within two intervals, the master is woken, fences it, starts its replicas elsewhere
    and sleeps again; lost is only what was given to it before the gateways, or the monitor, knew."""
    play.sleep()
    victim = play.victim
    found: dict[str, float] = {}
    looks: dict[str, Callable[[], bool]] = {
        **{f"withdrawn on {one.name}": partial(play.withdrawn, one, victim) for one in play.gateways},
        "the master is on": lambda: play.master.host.is_on,
        "the node is fenced": lambda: f"destroy {victim.name}" in play.power.done,
        "its replicas run elsewhere": lambda: len(play.on("web")) == 2,
        "the master is off again": lambda: "the master is on" in found and not play.master.host.is_on,
    }  # fmt: skip
    line = Timeline(looks, found)
    targets = [f"{gateway.address}:80" for gateway in play.gateways]
    with (
        play.watching(),
        Load(tmp_path / "load", targets=targets, hosts=["web.k4t.lab"], rate_per_s=RATE_PER_S) as load,
    ):
        time.sleep(30 if LONG else 2)
        died_at = line.mark("the node dies")
        victim.power_off()
        with line.watched():
            ended = wait_until(lambda: "the master is off again" in line.found, timeout_s=180)
        time.sleep(30 if LONG else 1)
    print(line.words(play.events()))
    print(load.report.words())
    assert ended, (play.said(), play.woken())
    withdrawn_at = max(at_s for what, at_s in line.found.items() if what.startswith("withdrawn"))
    assert set(line.found) == {"the node dies", *looks}
    order = ["the master is on", "the node is fenced", "its replicas run elsewhere", "the master is off again"]
    assert sorted(order, key=lambda what: line.found[what]) == order
    assert withdrawn_at < line.found["the node is fenced"]
    assert withdrawn_at - died_at <= 2 * INTERVAL_S + LOOK_S
    assert not load.report.between(0, died_at - 1).lost, load.report.first_lost()
    dying = load.report.between(died_at - 1, withdrawn_at + 1)
    after = load.report.between(withdrawn_at + 1, withdrawn_at + 3600)
    print(f"until the withdrawal: {dying.words()}\nsince then: {after.words()}")
    assert not after.lost, after.first_lost()
    assert sum(dying.lost.values()) < len(dying.samples) / 2
    shown = " ".join("".join(html5lib.HTMLParser(strict=True).parse(play.page.read_text()).itertext()).split())
    assert f"withdraw {victim.name}" in shown
    assert "The monitor acts by itself on: node-gone, node-back." in shown


@pytest.mark.skipif(not LONG, reason="K4T_FULL=1: three more boots of the master")
def test_a_node_that_was_given_up_comes_back(play: Play) -> None:
    """It is on again, with its old containers; the master is woken, cleans it, takes it back and sleeps again."""
    play.sleep()
    boots = play.power.done.count(f"start {MASTER}")
    assert play.availability(play.victim) == "dead"
    with play.watching():
        play.victim.power_on()
        assert wait_until(lambda: play.availability(play.victim) == "active", timeout_s=120), play.woken()
        assert play.off(), play.woken()
    assert play.power.done.count(f"start {MASTER}") == boots + 1
    assert len(play.on("web")) == 2


@pytest.mark.skipif(not LONG, reason="K4T_FULL=1")
def test_a_node_that_only_lost_contact_is_fenced_before_its_replica_runs_elsewhere(play: Play) -> None:
    """At no moment do two of them run: what still ran is ended by the node's own switch."""
    node = play.unfenced
    play.awake()
    play.master.node(node, inside=FENCE.format(name=node.name))
    play.sleep()
    with play.watching(), copies_counted(play, "alone") as counts:
        node.cut()
        assert wait_until(lambda: bool(play.on("alone")) and play.on("alone") != [node.name], timeout_s=180), (
            play.woken()
        )
        assert play.off(), play.woken()
        time.sleep(10)
    print(f"{len(counts)} looks at where it runs: {sorted(set(counts))}")
    assert set(counts) == {0, 1}
    assert f"destroy {node.name}" in play.power.done


@pytest.mark.skipif(not LONG, reason="K4T_FULL=1")
def test_a_node_that_still_serves_is_left_alone(play: Play, tmp_path: Path) -> None:
    """From here and from the master it is not reached, from the gateways it is: it serves on, and nothing is done."""
    play.sleep()
    node = next(host for host in play.lab.nodes if host.name in play.on("web"))
    places = [[f"{one.host.address}/32"] for one in (play.master, play.monitor)]
    targets = [f"{gateway.address}:80" for gateway in play.gateways]
    before = len(play.events())
    with (
        play.watching(),
        Load(tmp_path / "load", targets=targets, hosts=["web.k4t.lab"], rate_per_s=RATE_PER_S) as load,
    ):
        for place in places:
            node.exec(["ip", "route", "add", "blackhole", *place])
        assert wait_until(partial(play.has, f"raised node {node.name}", before), timeout_s=60), play.said()
        time.sleep(6 * INTERVAL_S)
        for place in places:
            node.exec(["ip", "route", "del", "blackhole", *place])
    print(load.report.words())
    assert not load.report.lost, load.report.first_lost()
    assert {one["kind"] for one in play.events()[before:]} <= {"raised", "refused", "over"}
    assert not play.master.host.is_on


@pytest.mark.skipif(not LONG, reason="K4T_FULL=1")
def test_a_replica_that_is_unwell_is_restarted_and_a_full_disk_pruned(play: Play) -> None:
    """The master is woken for both, and sleeps again: a new container is in the place of the one, and old images are
    gone. So often in an hour, and not oftener."""
    play.awake()
    play.master.write("monitor.xml", WATCH.format(interval_s=INTERVAL_S, full="1%", more=MORE))
    play.sleep()
    node = next(host for host in play.lab.nodes if host.name in play.on("web"))
    name = next(one for one in containers(node) if ".web." in one)
    for number in range(6):
        image = play.lab.push(f"old{number}", VER=f"old{number}")
        for host in play.lab.nodes:
            if host.is_on:
                host.docker(["pull", "-q", image])
    boots, before = play.power.done.count(f"start {MASTER}"), len(play.events())
    with play.watching():
        node.docker(["exec", name, "rm", "/dev/shm/index.html"])
        restarted = wait_until(lambda: name not in containers(node) and len(play.on("web")) == 2, timeout_s=180)
        assert restarted, play.woken()
        assert play.off(), play.woken()
        assert wait_until(partial(play.has, "over app web", before), timeout_s=60), play.said()
    assert play.power.done.count(f"start {MASTER}") - boots in (1, 2)
    pruned = [one for one in play.events()[before:] if one.get("what") == "disk-full" and one["kind"] == "queued"]
    print("\n".join(f"{one['at']} {one['words']}" for one in pruned))
    images = {host.name: host.docker(["images", "-q"]).stdout.split() for host in play.lab.nodes if host.is_on}
    print({name: len(found) for name, found in images.items()})
    assert len(pruned) == 1
    assert min(len(found) for found in images.values()) < 6
