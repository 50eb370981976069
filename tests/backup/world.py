"""A tree with two `<backup>` targets on this machine, each a directory behind a Shell; its clock is a number."""

from __future__ import annotations

from pathlib import Path

from k4t.errors import HostUnreachable
from k4t.master.backup import copy, memory
from k4t.master.backup.judge import Judged, Trust, judge
from k4t.master.backup.report import Report
from k4t.master.backup.target import ALL, Target
from k4t.master.backup.targets import TargetSpec
from k4t.master.fleet import Fleet
from k4t.model.events import Event, Note
from k4t.model.hosts import Ssh
from k4t.model.snapshot import Manifest
from k4t.tree.read import read_tree
from tests.backup.shell import CLUSTER, Shell

NOON_S = 1_795_176_000.0
"""2026-11-20T12:00:00Z"""
BACKUPS = '<backup node="n1" every="1m" keep="3"/><backup node="n2" every="1h" keep="3"/>'


class World:
    """`root` holds the tree (`db`) and, by target, the disks (`disk`). K4T_KEYS is the caller's to set."""

    def __init__(self, root: Path, backups: str = BACKUPS) -> None:
        self.root = root
        self.db = root / "db"
        self.now_s = NOON_S
        self.said: list[str] = []
        self.shells: dict[str, Shell] = {}
        self.away: set[str] = set()
        (self.db / "nodes").mkdir(parents=True, exist_ok=True)
        for number in (1, 2):
            (self.db / "nodes" / f"n{number}.xml").write_text(f'<node address="10.0.0.{number}"/>\n')
        self.backups(backups)

    def backups(self, elements: str) -> None:
        (self.db / "cluster.xml").write_text(f'<cluster name="test" id="{CLUSTER}">{elements}</cluster>\n')

    def edit(self, text: str) -> None:
        """A new app, or another image for it."""
        path = self.db / "apps" / "web" / "app.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<app><image>{text}</image></app>\n")

    def serial(self, number: int) -> None:
        (self.db / ".k4t").mkdir(exist_ok=True)
        (self.db / ".k4t" / "base").write_text(f"{number}\n")

    def disk(self, name: str) -> Path:
        return self.root / name / CLUSTER / "copies"

    def copies(self, name: str) -> list[str]:
        return sorted(path.name for path in self.disk(name).glob("*.snapshot"))

    def shell(self, name: str) -> Shell:
        """The connection that the next backup has to it; for faults."""
        if name not in self.shells or not self.shells[name].alive:
            self.shells[name] = Shell(name)
        return self.shells[name]

    def open(self, fleet: Fleet, spec: TargetSpec) -> Target:
        return Target(fleet.connection(spec.host), CLUSTER, name=spec.name, directory=str(self.disk(spec.name)))

    def backup(self, *, due: bool = False, patience_s: float = 30.0) -> Report:
        def connect(name: str, ssh: Ssh, address: str) -> Shell:
            if name in self.away:
                raise HostUnreachable("10.0.0.9:22 does not answer in 10 s", host=name)
            return self.shell(name)

        def hear(event: Event) -> None:
            if isinstance(event, Note):
                self.said.append(event.text)

        fleet = Fleet(read_tree(self.db), connect, {})
        return copy.backup(
            self.db, fleet, now_s=self.now_s, due_only=due, emit=hear, open_target=self.open, patience_s=patience_s
        )

    def judged(self, name: str) -> Judged:
        """What a reader finds there."""
        recovery = read_tree(self.db).recovery
        assert recovery is not None
        found = Target(Shell(name), CLUSTER, directory=str(self.disk(name))).look(ALL)
        return judge(found, Trust(CLUSTER, recovery.key))

    def newest(self, name: str) -> Manifest:
        found = self.judged(name).newest
        assert found is not None
        return found.manifest

    def memory(self) -> memory.Memory:
        return memory.load(self.db)

    def calls(self, name: str) -> int:
        """Round trips to it so far."""
        return len(self.shells[name].calls) if name in self.shells else 0


def words(report: Report) -> list[str]:
    return [f"{one.target} {one.result}" + (f": {one.error}" if one.error else "") for one in report.results]
