"""A cluster whose master sleeps and whose monitor stands elsewhere, for test_timeline; and what happened when.

The monitor is a process of its own on a host of its own. It looks with a login of its own, withdraws with a key that
can do only that, and asks the master for the rest with a key that is certified for intents alone; the master is a
machine that the lab's hypervisor switches, and that runs `k4t wake` when it boots.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from k4t.tree.read import read_tree
from tests.e2e.site import Site, containers
from tests.lab import Host, Lab, LabError
from tests.lab.hypervisor import Hypervisor
from tests.lab.processes import wait_until

ROOT = Path(__file__).parents[2]
MASTER, MONITOR = "k4t-master", "monitor"
INTERVAL_S = 5.0
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

    def has(self, what: str, since: int = 0) -> bool:
        """Whether an event (“raised node n1”) has come, of those after so many."""
        found = (f"{one['kind']} {one['subject']['kind']} {one['subject']['name']}" for one in self.events()[since:])
        return what in found

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
