"""A cluster through many rounds, without hosts: what each check sees is made up, what is decided is carried out in the
picture of the cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from k4t.model.hosts import Power
from k4t.model.monitor import Monitor, Policy
from k4t.model.spec import Tree
from k4t.model.state import Dead, Head, ParticipantState, Withdrawn
from k4t.monitor.acting import acts, policies
from k4t.monitor.acting.action import Action, Outcome
from k4t.monitor.acting.acts import Memory
from k4t.monitor.acting.policies import Decision
from k4t.monitor.check import Looked
from k4t.monitor.facts import Answer, Docker, Facts, Failure
from k4t.monitor.history import NONE, History
from k4t.monitor.judge import judge
from k4t.monitor.signs import signs
from k4t.remote.restricted import BY
from tests.monitor import clusters
from tests.monitor.world import GIB, NOW_S, away, reading, with_reading

INTERVAL_S = 10.0
SILENT = Failure("silent", "10.88.0.12:22 does not answer within 10 s")
ALL = ("node-gone", "node-back", "app-unhealthy", "disk-full", "nodes-short", "nodes-idle")


def tree(*given: Policy, nodes: int = 6, fenced: bool = True, interval_s: float = INTERVAL_S) -> Tree:
    """`nodes` nodes with a <power off>, one app with a replica on each."""
    made = clusters.tree(nodes, {"web": nodes})
    power = Power(on="virsh start n", off="virsh destroy n") if fenced else None
    return dataclasses.replace(
        made,
        nodes={name: dataclasses.replace(node, power=power) for name, node in made.nodes.items()},
        monitor=Monitor(interval_s, policies={one.when: one for one in given}),
    )


@dataclass
class Picture:
    """What is the matter now."""

    down: Mapping[str, Failure] = field(default_factory=dict)
    unwell: Mapping[str, str] = field(default_factory=dict)
    """By container's id: what its check says."""
    full: Mapping[str, int] = field(default_factory=dict)
    """By node: what images take of its disk, which is full."""
    alive: Mapping[str, str] = field(default_factory=dict)


class Course:
    """Round after round; `done` is what was carried out, with when."""

    def __init__(self, wanted: Tree) -> None:
        self.tree = wanted
        self.now_s = NOW_S
        self.history: History = NONE
        self.memory: Memory = acts.NONE
        self.out: set[str] = set()
        """Nodes whose endpoints are withdrawn."""
        self.dead: set[str] = set()
        self.done: list[tuple[float, Action]] = []
        self.fails: set[str] = set()
        """Verbs that fail."""
        self.pending: frozenset[str] = frozenset()

    def look(self, picture: Picture) -> Looked:
        found = self.facts(picture)
        known = judge(signs(found, self.tree), self.history, self.tree.monitor, self.now_s)
        self.history = known.history
        return Looked(found, known, self.tree)

    def facts(self, picture: Picture) -> Facts:
        found = dataclasses.replace(clusters.facts(self.tree), at_s=self.now_s, targets=())
        for key, host in found.hosts.items():
            if host.reading is not None:
                read = dataclasses.replace(host.reading, clock_s=self.now_s, head=self._head())
                found = dataclasses.replace(
                    found, hosts={**found.hosts, key: dataclasses.replace(host, reading=read, cpu_percent=None)}
                )
        probed = {**found.probed, **{id: Answer(words, "n") for id, words in picture.unwell.items()}}
        found = dataclasses.replace(found, probed=probed, alive=picture.alive)
        for name, images in picture.full.items():
            found = _full(found, name, images)
        for name, failure in picture.down.items():
            found = away(found, f"node/{name}", failure)
        members = {
            kind: {name: self._withdrawn(one) for name, one in states.items()}
            for kind, states in (("gateways", found.gateways), ("dns", found.dns))
        }
        return dataclasses.replace(found, gateways=members["gateways"], dns=members["dns"])

    def round(self, picture: Picture | None = None, more: Iterable[Action] = ()) -> Decision:
        """One check, and what follows from it is carried out, but for what is to fail."""
        self.now_s += INTERVAL_S
        looked = self.look(picture or Picture())
        decision = policies.decide(looked, self.memory, self.now_s, more, self.pending)
        self.memory = acts.decode(acts.encode(decision.memory))  # as it is after a restart
        for action in decision.actions:
            self._carry_out(action)
        return decision

    def rounds(self, count: int, picture: Picture | None = None) -> list[str]:
        """So many rounds; what was done, in words."""
        return [action.words for _ in range(count) for action in self.round(picture).actions]

    def _carry_out(self, action: Action) -> None:
        if action.dry_run:
            return
        failed = action.verb in self.fails
        result = "failed" if failed else "done" if action.verb in ("withdraw", "give-back") else "queued"
        self.memory = policies.settled(self.memory, Outcome(action, result, self.now_s))  # type: ignore[arg-type]
        if failed:
            return
        self.done.append((self.now_s, action))
        if action.verb == "withdraw":
            self.out.add(action.name)
        elif action.verb == "give-back":
            self.out.discard(action.name)
        elif action.verb == "dead":
            self.dead.add(action.name)
            self.out.discard(action.name)  # it ends with the documents that no longer name it
        elif action.verb == "back":
            self.dead.discard(action.name)

    def _head(self) -> Head:
        return Head(clusters.ID, 46, dead={name: Dead(45, fenced=True) for name in self.dead})

    def _withdrawn(self, state: ParticipantState) -> ParticipantState:
        ends = state.document.endpoints if state.document else ()
        if state.document is not None:  # what was given up is no longer published
            kept = tuple(end for end in ends if end.node not in self.dead)
            state = dataclasses.replace(state, document=dataclasses.replace(state.document, endpoints=kept))
        out = (Withdrawn(clusters.ID, end.ip, end.port, end.container, BY, "") for end in ends if end.node in self.out)
        return dataclasses.replace(state, withdrawn=tuple(out))


def _full(found: Facts, name: str, images: int) -> Facts:
    disk = reading().disks["docker"]
    full = dataclasses.replace(disk, used_bytes=97 * GIB, available_bytes=3 * GIB)
    changed = with_reading(found, f"node/{name}", disks={**reading().disks, "docker": full}, clock_s=found.at_s)
    node: Docker = dataclasses.replace(changed.nodes[name], images_bytes=images)
    return dataclasses.replace(changed, nodes={**changed.nodes, name: node})
