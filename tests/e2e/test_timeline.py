"""A node is lost while the master is off and the monitor stands elsewhere: what happens when, and what it costs.

The monitor is a process of its own on a host of its own. It looks with a login of its own, withdraws with a key that
can do only that, and asks the master for the rest with a key that is certified for intents alone; the master is a
machine that the lab's hypervisor switches, and that runs `k4t wake` when it boots.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import html5lib
import pytest

from k4t.tree.read import read_tree
from tests.e2e.site import Site, containers
from tests.lab import Host, Lab, LabError
from tests.lab.hypervisor import Hypervisor
from tests.lab.processes import wait_until
from tests.load.run import Load

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
LONG = "K4T_FULL" in os.environ
MASTER, MONITOR = "k4t-master", "monitor"
RATE_PER_S = 50
INTERVAL_S = 5.0
LOOK_S = 6.0 if LONG else 20.0
"""A look at a host that is off waits for it, and asks others whether they reach it; the rest is for a busy machine."""
CLUSTER = """\
<cluster name="prod" id="{id}" format="1">
  <ssh user="root" connect-timeout="2s"/>
  <publication when-unreachable="degrade"/>
  <power host="{master}" on="virsh -c qemu+ssh://root@10.0.0.2/system start {master}" off="systemctl poweroff"
         after-apply="off"/>
</cluster>
"""
WATCH = """\
<monitor interval="{interval_s:g}s">
  <threshold of="state" after="2" of-last="2"/>
  <threshold of="cpu" warning="never"/>
  <threshold of="load" warning="never" critical="never"/>
  <threshold of="disk" warning="98%" critical="99%"/>
  <threshold of="docker-disk" warning="{full}" critical="99%"/>
  <threshold of="memory" warning="98%" critical="99%"/>
  <threshold of="clock-skew" warning="10s"/>
  <policy when="node-gone" enabled="true" after="2" max-nodes="40%"/>
  <policy when="node-back" enabled="true" after="2"/>{more}
</monitor>
"""
MORE = """
  <policy when="app-unhealthy" enabled="true" after="2"/>
  <policy when="disk-full" enabled="true" per-hour="1"/>"""
FENCE = '<power off="virsh -c qemu+ssh://root@10.0.0.2/system destroy {name}"/>'
ROUTED = '<route domain="{0}.k4t.lab"/><record name="{0}" ttl="1s"/><health interval="1s"><http path="/"/></health>'
HANDED_ON = """\
#!/bin/sh
# The monitor's copy of the tree; production.md does it with ssh.
rm -rf {to}.new {to}.old && cp -a . {to}.new && rm -rf {to}.new/.k4t || exit 1
[ ! -e {to} ] || mv {to} {to}.old && mv {to}.new {to}
"""


class Inside(Site):
    """The program runs on a host of the lab, as its root; its tree lies where that host and the test both see it."""

    host: Host

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {"HOME": "/root", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        return {"K4T_DB": str(self.db), "NO_COLOR": "1", **kept, **(extra or {})}

    def words(self, *words: str) -> list[str]:
        return ["env", *(f"{key}={value}" for key, value in self.environment().items()), *self.argv(*words)]

    def k4t(self, *words: str, status: int | None = 0, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        done = self.host.exec(self.words(*words), check=False, timeout_s=timeout_s)
        if status is not None and done.returncode != status:
            raise AssertionError(f"k4t {' '.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """As it is when the machine goes off beneath it: nobody waits for its status."""
        return subprocess.Popen(
            [*self.host.enter(), *self.words(*words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


@dataclass
class Timeline:
    """When each of some things was first so, by one clock; they are looked at all the time."""

    looks: Mapping[str, Callable[[], bool]]
    found: dict[str, float] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def mark(self, what: str) -> float:
        self.found[what] = time.time()
        return self.found[what]

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch, name="timeline")
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.2):
            for what, look in self.looks.items():
                if what not in self.found and look():
                    self.mark(what)

    def words(self, events: list[dict[str, Any]]) -> str:
        """With what the monitor itself says, whose times are whole seconds."""
        first_s = min(self.found.values())
        rows = [(at_s - first_s, f"** {what}") for what, at_s in self.found.items()]
        for one in events:
            subject = f"{one['subject']['kind']} {one['subject']['name']}"
            at_s = datetime.fromisoformat(one["at"]).timestamp()
            rows.append(
                (at_s - first_s, f"   {one['kind']} {subject} {one.get('what', '')}: {one.get('words', '')[:150]}")
            )
        return "\n".join(f"{after_s:8.1f} s  {what}" for after_s, what in sorted(rows) if after_s > -30)


class Play:
    """The cluster; its master may be asleep, its monitor awake."""

    def __init__(self, lab: Lab, power: Hypervisor) -> None:
        self.lab, self.power = lab, power
        self.directory = lab.directory / "timeline"
        self.directory.mkdir()
        self.page = self.directory / "page.html"
        self.master, self.monitor = (self._place(name) for name in (MASTER, MONITOR))
        self.monitor.id = self.master.id
        shutil.rmtree(self.monitor.db)
        self._keys()

    def _place(self, name: str) -> Inside:
        place = Inside(self.lab, self.directory / name)
        place.host = self.lab.host(name)
        self.power.install(place.host)
        place.host.exec(["mkdir", "-p", "-m", "700", "/root/.ssh"])
        place.host.exec(["cp", str(self.lab.known_hosts), "/root/.ssh/known_hosts"])
        return place

    def _keys(self) -> None:
        """The master's opens everything; the monitor's own is let in where it looks."""
        self.master.host.exec(["install", "-m", "600", str(self.lab.key), "/root/.ssh/id_ed25519"])
        own = "/root/.ssh/id_ed25519"
        self.monitor.host.exec(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", own])
        public = self.monitor.host.exec(["cat", f"{own}.pub"]).stdout
        for host in (*self.lab.nodes, *self.gateways):
            host.exec(["tee", "-a", "/root/.ssh/authorized_keys"], input=public)

    @property
    def gateways(self) -> list[Host]:
        return [host for host in self.lab.hosts if host.name.startswith("gw")]

    def build(self) -> None:
        """From nothing to a cluster that serves, with a monitor that may ask and withdraw."""
        site = self.master
        site.write("cluster.xml", CLUSTER.format(id=site.id, master=MASTER))
        site.write("monitor.xml", WATCH.format(interval_s=INTERVAL_S, full="98%", more=""))
        for host in self.lab.nodes:
            site.node(host)
        for host in self.gateways:
            site.gateway(host)
        site.dns(self.gateways[0])
        site.write("hooks/post-apply", HANDED_ON.format(to=self.monitor.db)).chmod(0o755)
        site.k4t("gateway", "install")
        site.k4t("dns", "install")
        site.k4t("kit", "--write", str(self.directory / "kit.txt"))
        self._apps()
        self._fences()
        site.k4t("wake", "--install-service")
        self.monitor.k4t("kit", "certify", "--kit", str(self.directory / "kit.txt"), "--uses", "intents")
        (self.directory / "monitor.pub").write_text(self.monitor.k4t("monitor", "key").stdout)
        print(site.k4t("monitor", "authorize", str(self.directory / "monitor.pub"), "--yes").stdout)

    def _apps(self) -> None:
        """`web` twice, and `alone`, of which there is never to be more than one."""
        self.master.app("web", replicas=2, more=ROUTED.format("web"))
        file = self.master.app("alone", port=8081, more=ROUTED.format("alone"))
        file.write_text(file.read_text().replace('max-unavailable="100%"', 'strategy="recreate"'))
        self.master.k4t("apply", "--yes", "--stay-on")

    def _fences(self) -> None:
        """One for each node but that of `alone`; copies are on a node that no test switches off."""
        (unfenced,) = self.on("alone")
        victim, *_ = (name for name in self.on("web") if name != unfenced)
        (kept,) = {host.name for host in self.lab.nodes} - {unfenced, victim}
        self.unfenced, self.victim = self.lab.host(unfenced), self.lab.host(victim)
        for host in self.lab.nodes:
            self.master.node(host, inside="" if host.name == unfenced else FENCE.format(name=host.name))
        text = CLUSTER.format(id=self.master.id, master=MASTER)
        self.master.write(
            "cluster.xml", text.replace("</cluster>", f'  <backup node="{kept}" every="1h"/>\n</cluster>')
        )

    def sleep(self) -> None:
        if not self.master.host.is_on:
            return
        said, _ = self.master.begin("apply", "--yes", "-m", "nothing to do").communicate(timeout=120)
        assert self.off(), said

    def awake(self) -> None:
        """For somebody who wants to work there."""
        self.monitor.k4t("intent", "stay")
        self.monitor.k4t("power", "on")
        self.master.k4t("wake", "--wait", "--stay-on")

    def availability(self, node: Host) -> str:
        return read_tree(self.master.db).nodes[node.name].availability

    def off(self, timeout_s: float = 120) -> bool:
        return wait_until(lambda: not self.master.host.is_on, timeout_s=timeout_s)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """`monitor run`, which has looked twice and found all well."""
        host = self.monitor.host
        host.spawn("monitor", self.monitor.words("monitor", "run", "--page", str(self.page)))
        try:
            assert wait_until(lambda: len(self.history().get("rounds", [])) >= 2, timeout_s=60), self.said()
            yield
        finally:
            host.stop("monitor")
            print(self.said())

    def said(self) -> str:
        return self.monitor.host.log("monitor").read_text()

    def kept(self, end: str) -> str:
        path = f"/root/.local/state/k4t/monitor/{self.master.id}{end}"
        return self.monitor.host.exec(["cat", path], check=False).stdout

    def history(self) -> dict[str, Any]:
        text = self.kept(".json")
        return json.loads(text) if text else {}

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.kept(".events.jsonl").splitlines()]

    def woken(self) -> str:
        """What `k4t wake` said on the master, all times."""
        logs = sorted((self.lab.directory / "run").glob(f"{MASTER}.k4t-wake-*.log"))
        return "".join(log.read_text() for log in logs)

    def on(self, app: str) -> list[str]:
        """The nodes that run it now, of those that are on; a node may be there twice."""
        found = []
        for host in self.lab.nodes:
            try:
                found += [host.name for one in containers(host, all=False) if f".{app}." in one]
            except (LabError, subprocess.TimeoutExpired):
                continue
        return found

    def happened(self) -> list[str]:
        return [f"{one['kind']} {one['subject']['kind']} {one['subject']['name']}" for one in self.events()]

    def refused(self, node: Host) -> bool:
        return f"refused node {node.name}" in self.happened()

    def withdrawn(self, gateway: Host, node: Host) -> bool:
        script = 'grep -qs "$1" /var/lib/k4t/registrar/*/withdrawals.json'
        return gateway.exec(["sh", "-c", script, "sh", node.address], check=False).returncode == 0


@contextmanager
def copies_counted(play: Play, app: str) -> Iterator[list[int]]:
    """How many containers of an app run anywhere, again and again."""
    counts: list[int] = []
    ended = threading.Event()

    def count() -> None:
        while not ended.wait(0.3):
            counts.append(len(play.on(app)))

    thread = threading.Thread(target=count, name="copies")
    thread.start()
    try:
        yield counts
    finally:
        ended.set()
        thread.join()


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
            assert wait_until(lambda: play.refused(node), timeout_s=90), play.said()
            time.sleep(60 if LONG else INTERVAL_S)
        finally:
            node.restore()
        assert wait_until(lambda: f"over node {node.name}" in play.happened(), timeout_s=90), play.said()
        assert wait_until(lambda: not any(play.withdrawn(one, node) for one in play.gateways), timeout_s=60)
    print(f"{len(counts)} looks at where it runs: {sorted(set(counts))}")
    assert set(counts) == {1}
    assert not play.master.host.is_on
    assert f"start {MASTER}" not in play.power.done


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
        assert wait_until(lambda: f"raised node {node.name}" in play.happened()[before:], timeout_s=60), play.said()
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
        assert wait_until(lambda: "over app web" in play.happened()[before:], timeout_s=60), play.said()
    assert play.power.done.count(f"start {MASTER}") - boots in (1, 2)
    pruned = [one for one in play.events()[before:] if one.get("what") == "disk-full" and one["kind"] == "queued"]
    print("\n".join(f"{one['at']} {one['words']}" for one in pruned))
    images = {host.name: host.docker(["images", "-q"]).stdout.split() for host in play.lab.nodes if host.is_on}
    print({name: len(found) for name, found in images.items()})
    assert len(pruned) == 1
    assert min(len(found) for found in images.values()) < 6
