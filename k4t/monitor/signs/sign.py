"""What all kinds of signs share: the value, and what they look at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import median

from k4t.model.monitor import Threshold
from k4t.model.spec import Tree
from k4t.model.state import Container
from k4t.model.value import value
from k4t.monitor.facts import Facts, Host, Subject
from k4t.registrar.document import Endpoint

OK, UNKNOWN, WARNING, CRITICAL = 0, 1, 2, 3
NOTHING_CAME = ("silent", "no-route")
"""Kinds of failures: off, or cut off."""
NAMED = 4
"""So many of a kind are named in a sentence, the rest is counted."""
RUN_GRACE_S = 600.0
"""For so long, what a run is just changing is not held against the cluster."""


@value
class Sign:
    """One thing wrong, or (`severity` 0) worth knowing. `measured` in the threshold's unit, None where nothing is."""

    subject: Subject
    what: str
    severity: int
    sentence: str
    remedy: str = ""
    measured: float | None = None
    threshold: Threshold | None = None

    @property
    def key(self) -> str:
        return f"{self.subject.key}:{self.what}"


def judged(sign: Sign, threshold: Threshold) -> Iterator[Sign]:
    """A measured sign, if it is one: its severity by the threshold."""
    severity = 0 if sign.measured is None else threshold.severity(sign.measured)
    if severity:
        yield replace(sign, severity=severity, threshold=threshold)


@value
class Signs:
    """`blind`: what can't be known now, since something else is the matter: keys of subjects, or of one sign."""

    found: tuple[Sign, ...]
    blind: frozenset[str]


@dataclass
class View:
    """The facts, and what follows from them for every kind of sign."""

    facts: Facts
    tree: Tree
    firsts: dict[str, float] = field(default_factory=dict)

    @cached_property
    def running(self) -> bool:
        """Whether a run is at work, and has not been for very long."""
        ages = [self.lock_age_s(host) for host in self.facts.hosts.values()]
        return any(age_s is not None and age_s < RUN_GRACE_S for age_s in ages)

    @cached_property
    def ahead_s(self) -> float:
        """How far our own clock is ahead: when those of all others (two at least) differ from it, and not from each
        other, it is ours that is wrong. 0 when it isn't, or can't be told."""
        threshold = self.tree.monitor.threshold("clock-skew")
        readings = [
            host.reading for host in self.facts.hosts.values() if host.reading and host.subject.kind != "master"
        ]
        skews = [(one.skew_s, one.skew_doubt_s) for one in readings if one.skew_s is not None]
        if len(skews) < 2 or not all(threshold.severity(abs(skew_s) - doubt_s) for skew_s, doubt_s in skews):
            return 0.0
        apart_s = max(skew_s for skew_s, _ in skews) - min(skew_s for skew_s, _ in skews)
        if threshold.severity(apart_s - 2 * max(doubt_s for _, doubt_s in skews)):
            return 0.0
        return -median(skew_s for skew_s, _ in skews)

    @property
    def now_s(self) -> float:
        """Unix seconds, by the clock that can be believed."""
        return self.facts.at_s - self.ahead_s

    def lock_age_s(self, host: Host) -> float | None:
        """How long the cluster's lock has been held there; None when it is free, or nobody says since when."""
        reading = host.reading
        if reading is None or not reading.lock_held or reading.lock is None:
            return None
        since_s = unix_s(reading.lock.since)
        return None if since_s is None else max(0.0, self.now_s - since_s)

    @cached_property
    def failed(self) -> frozenset[str]:
        """Keys of hosts that can't be asked."""
        return frozenset(key for key, host in self.facts.hosts.items() if host.failure is not None)

    @cached_property
    def away(self) -> frozenset[str]:
        """Names of nodes whose containers can't be known, and which were not given up."""
        return frozenset(
            name for name, node in self.facts.nodes.items()
            if not node.state.reachable and not self.given_up(name) and not self.resting(name)
        )  # fmt: skip

    @cached_property
    def named(self) -> dict[tuple[str, str], frozenset[str]]:
        """By kind and group, the ids of containers that a member of it that answers names; nothing of a group of which
        none does."""
        found: dict[tuple[str, str], set[str]] = {}
        members = [("gateway", one) for one in self.facts.gateways.values()]
        members += [("dns", one) for one in self.facts.dns.values()]
        for kind, one in members:
            if one.reachable:
                ends = one.document.endpoints if one.document else ()
                found.setdefault((kind, one.group), set()).update(end.container for end in ends)
        return {group: frozenset(ids) for group, ids in found.items()}

    @cached_property
    def blind(self) -> frozenset[str]:
        things = {thing.key for key in self.failed for thing in self.facts.hosts[key].things}
        things |= {f"backup/{one.name}" for one in self.facts.targets if one.host in self.failed}
        if self.facts.off is not None and self.facts.off.genuine:
            things |= {f"backup/{one.name}" for one in self.facts.targets}
        apps = {*self.facts.desired, *self.by_app}
        if self.running:
            things |= {f"app/{name}" for name in apps}
            members = (*self.facts.gateways.values(), *self.facts.dns.values())
            things |= {f"{one.kind}/{one.name}:out-of-step" for one in members}
        if self.away:
            things |= {f"app/{name}:container-missing" for name in apps}
        return frozenset(things)

    @cached_property
    def by_app(self) -> Mapping[str, list[Container]]:
        found: dict[str, list[Container]] = {}
        for one in self.facts.containers:
            found.setdefault(one.app, []).append(one)
        return found

    @cached_property
    def by_id(self) -> Mapping[str, Container]:
        return {one.id: one for one in self.facts.containers}

    @cached_property
    def published(self) -> Mapping[str, list[Endpoint]]:
        """By app: what any gateway or DNS server sends to, each once."""
        members = (*self.facts.gateways.values(), *self.facts.dns.values())
        ends = {(end.container, end.port): end for one in members if one.document for end in one.document.endpoints}
        found: dict[str, list[Endpoint]] = {}
        for end in ends.values():
            found.setdefault(end.app, []).append(end)
        return found

    def given_up(self, node: str) -> bool:
        return node in self.tree.nodes and self.tree.nodes[node].availability == "dead"

    def resting(self, node: str) -> bool:
        """A spare node that was emptied and is off: it has nothing until it is needed."""
        found, host = self.tree.nodes.get(node), self.on(f"node/{node}")
        spare = found is not None and found.power is not None and found.power.spare and found.availability == "drained"
        failure = host.failure if host else None
        return spare and failure is not None and failure.kind in NOTHING_CAME and not failure.reached_from

    def on(self, key: str) -> Host | None:
        """The machine of a thing of the tree (“gateway/gw1”)."""
        return self.facts.hosts.get(self.facts.host_of.get(key, ""))


def unix_s(at: str) -> float | None:
    """Of a time as RFC 3339; None for what is none."""
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(at)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def listed(names: list[str] | tuple[str, ...]) -> str:
    """n1, n2, n3, n4 and 6 more."""
    shown = ", ".join(names[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown


def ago(seconds: float) -> str:
    """8 s, 5 min, 3 h, 12 d."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if abs(seconds) >= 10 else f"{seconds:.1f} s"


def sized(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.3g} TiB"
