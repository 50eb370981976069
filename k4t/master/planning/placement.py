"""Where a replica may run, and which of those places is best. Fast: heaps and counters, no rescanning.

Order of preference: the fewest replicas of this app (first by its `spread` labels, then by node), then the fewest
containers, then the name. What only a removal of this same plan makes free is used too; the create then comes after it.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from k4t.master.planning.plan import ResolvedImage
from k4t.master.planning.ranges import ADDRESS, ADDRESSED, Key, Ranges, held_by, pinned_addresses, ranges
from k4t.master.planning.survey import Survey
from k4t.model.app import App, Pin
from k4t.model.hosts import Node
from k4t.model.spec import Tree
from k4t.model.state import Container, Facts, Observed


@dataclass(frozen=True, slots=True)
class Demand:
    """What one container takes of a node. `ports`: known ones, and its own address where that is known. `any`: kinds
    of which it takes one that its host will choose."""

    cpus: float = 0.0
    memory_bytes: int = 0
    ports: tuple[Key, ...] = ()
    any: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Freed:
    """What a container of `app` gives back with the step `removed`, or for the same app already with `stopped` (it is
    then kept, stopped, until the update is complete: `name`)."""

    app: str
    demand: Demand
    removed: str
    stopped: str = ""
    name: str = ""


@dataclass(slots=True)
class Host:
    """A node while a plan is made: what is taken on it, and which steps of the plan give some of it back."""

    node: Node
    facts: Facts
    known: bool
    cpus: float | None
    memory_bytes: int | None
    ranges: Ranges
    ports: dict[Key, str] = field(default_factory=dict)
    sharing: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    apps: dict[str, int] = field(default_factory=dict)
    total: int = 0
    freed: list[Freed] = field(default_factory=list)
    freed_memory_bytes: int = 0
    freed_cpus: float = 0.0

    @property
    def name(self) -> str:
        return self.node.name

    def label(self, name: str) -> str | None:
        own = {"node": self.node.name, "os": self.facts.os, "arch": self.facts.arch}
        return own.get(name) or self.node.labels.get(name)

    def lacks(self, demand: Demand) -> str:
        """Why this demand can't be met now, in words; "" when it can."""
        if self.memory_bytes is not None and demand.memory_bytes and demand.memory_bytes > self.memory_bytes:
            return "not enough memory"
        if self.cpus is not None and demand.cpus and demand.cpus > self.cpus + 1e-9:
            return "not enough CPU"
        for key in demand.ports:
            if key in self.ports:
                what = f"port {key[0]}/{key[1]}" if key[0] else f"address {key[1]}"
                return f"{what} is taken by {self.ports[key]}"
            if not key[0] and (why := self.ranges.bars(key[1])):
                return why
        return self.ranges.lacks(demand.any) if demand.any else ""

    def waits_for(self, app: str, demand: Demand) -> tuple[str, ...]:
        """The removals (or stops) of this plan without which the demand could not be met."""
        if not self.freed:
            return ()
        steps: dict[str, None] = {}
        blocking = self._blocking(demand)
        steps.update(((f.stopped if f.app == app else "") or f.removed, None) for f in blocking)
        short = self.memory_bytes is not None and 0 < demand.memory_bytes > self.memory_bytes - self.freed_memory_bytes
        if short or (self.cpus is not None and 0 < demand.cpus > self.cpus - self.freed_cpus + 1e-9):
            big = [freed for freed in self.freed if freed.demand.memory_bytes or freed.demand.cpus]
            steps.update((freed.stopped or freed.removed, None) for freed in big)
        return tuple(steps)

    def instead_of(self, app: str, demand: Demand) -> tuple[str, ...]:
        """The stopped containers of the same app that keep a port or address of this demand until the update is
        complete."""
        return tuple(freed.name for freed in self._blocking(demand) if freed.stopped and freed.app == app)

    def _blocking(self, demand: Demand) -> list[Freed]:
        """Those whose ports or addresses it takes: the same ones, or any, where there would be too few."""
        if not self.freed:
            return []
        wanted, short = set(demand.ports), self.ranges.short(demand.any) if demand.any else frozenset()
        if short:
            wanted.update(k for freed in self.freed for k in freed.demand.ports if self.ranges.kind(k) in short)
        return [freed for freed in self.freed if wanted.intersection(freed.demand.ports)] if wanted else []

    def hold(self, key: Key, holder: str) -> None:
        """A port or address that somebody has."""
        if key not in self.ports:
            self.ranges.count(key, -1)
        else:  # a stopped container that is kept shares its port with its successor
            self.sharing[key] = (*self.sharing.get(key, ()), self.ports[key])
        self.ports[key] = holder

    def _let_go(self, key: Key, holder: str) -> None:
        others = list(self.sharing.get(key, ()))
        if not others:
            if self.ports.pop(key, None) is not None:
                self.ranges.count(key, 1)
            return
        if holder in others:
            others.remove(holder)
        else:
            self.ports[key] = others.pop()
        self.sharing[key] = tuple(others)

    def take(self, app: str, demand: Demand, holder: str) -> None:
        self.apps[app] = self.apps.get(app, 0) + 1
        self.total += 1
        if self.memory_bytes is not None:
            self.memory_bytes -= demand.memory_bytes
        if self.cpus is not None:
            self.cpus -= demand.cpus
        for key in demand.ports:
            self.hold(key, holder)
        self.ranges.count_any(demand.any, -1)

    def give_back(self, app: str, demand: Demand, freed: Freed | None = None) -> None:
        """`freed`: the steps after which it is free; None when it never was taken."""
        self.apps[app] = self.apps.get(app, 0) - 1
        self.total -= 1
        if self.memory_bytes is not None:
            self.memory_bytes += demand.memory_bytes
        if self.cpus is not None:
            self.cpus += demand.cpus
        for key in demand.ports:
            self._let_go(key, freed.name if freed is not None else "")
        self.ranges.count_any(demand.any, 1)
        if freed is not None:
            self.freed.append(freed)
            self.ranges.count_freed(demand.ports, 1)
            self.freed_memory_bytes += demand.memory_bytes
            self.freed_cpus += demand.cpus

    def take_again(self, app: str, demand: Demand, holder: str) -> None:
        """Undo the last `give_back`."""
        self.take(app, demand, holder)
        self.freed.pop()
        self.ranges.count_freed(demand.ports, -1)
        self.freed_memory_bytes -= demand.memory_bytes
        self.freed_cpus -= demand.cpus


class Pool:
    """Nodes that one kind of app may use, fewest containers first. Shared by all such apps; entries may be stale."""

    def __init__(self, hosts: Iterable[Host]) -> None:
        self.hosts = {host.name: host for host in hosts}
        self.heap = [(host.total, name) for name, host in self.hosts.items()]
        heapq.heapify(self.heap)

    def pop(self) -> Host | None:
        while self.heap:
            total, name = self.heap[0]
            host = self.hosts[name]
            if host.total > total:
                heapq.heapreplace(self.heap, (host.total, name))
                continue
            heapq.heappop(self.heap)
            return host
        return None

    def push(self, host: Host) -> None:
        heapq.heappush(self.heap, (host.total, host.name))


Domain = tuple[str, ...]
Signature = tuple[tuple[tuple[str, str], ...], tuple[str, ...], bool, tuple[str, ...]]


class Board:
    """All nodes, with what runs on them."""

    def __init__(self, desired: Tree, observed: Observed, survey: Survey) -> None:
        pinned = pinned_addresses(desired.apps.values())
        self.hosts = {name: _host(node, observed, survey, pinned) for name, node in sorted(desired.nodes.items())}
        self.enemies = _enemies(desired)
        self._pools: dict[Signature, dict[Domain, Pool]] = {}
        self._demands: dict[str, Demand] = {}
        for name, state in observed.nodes.items():
            host = self.hosts.get(name)
            if host is None:
                continue
            for stranger in state.strangers:
                for key in held_by(host.node, stranger):
                    host.hold(key, stranger.name)
            for container in state.containers:
                host.take(container.app, self.demand_of(container), container.name)

    def demand_of(self, container: Container) -> Demand:
        """What a container that exists takes; its ports count where its address is the node's, else the address."""
        base = self._demands.get(container.resources)
        if base is None:
            base = self._demands.setdefault(container.resources, _parsed(container.resources))
        node = self.hosts[container.node].node if container.node in self.hosts else None
        keys = held_by(node, container) if node is not None else ()
        return Demand(base.cpus, base.memory_bytes, keys) if keys else base

    def pools(self, app: App, image: ResolvedImage) -> dict[Domain, Pool]:
        """Where new replicas of such an app may go at all, split by what it spreads over."""
        by = tuple(spread.by for spread in app.placement.spread if spread.by != "node")
        signature = (app.placement.require, image.archs, app.network.mode in ADDRESSED, by)
        if signature not in self._pools:
            domains: dict[Domain, list[Host]] = {}
            for host in self.hosts.values():
                if not forbids(app, image, host) and not closed(host):
                    domains.setdefault(tuple(host.label(label) or "" for label in by), []).append(host)
            self._pools[signature] = {domain: Pool(hosts) for domain, hosts in sorted(domains.items())}
        return self._pools[signature]


def closed(host: Host) -> str:
    """Why nothing new is placed there; "" when it may be."""
    if host.node.availability != "active":
        return host.node.availability
    return "" if host.known else "unreachable"


def forbids(app: App, image: ResolvedImage | None, host: Host) -> str:
    """Why the app may never run there, whatever else does; "" when it may."""
    for label, value in app.placement.require:
        found = host.label(label)
        if found != value and not (found is None and label in ("os", "arch") and not host.known):
            return f"{label} is not {value}"
    if image is not None and image.archs and host.facts.arch and host.facts.arch not in image.archs:
        return f"image is for {', '.join(image.archs)}, not {host.facts.arch}"
    if app.network.mode in ADDRESSED and host.node.pool is None:
        return "no address range"
    return ""


def pin_of(app: App, replica: str) -> Pin | None:
    return next((pin for pin in app.placement.pins if str(pin.replica) == replica), None)


def pinned_ports(app: App, pin: Pin | None) -> dict[str, int]:
    """A pinned number is the first port's."""
    return {app.ports[0].name: pin.port} if pin and pin.port and app.ports else {}


def demand(app: App, replica: str) -> Demand:
    pin = pin_of(app, replica) if app.placement.pins else None
    pinned = pinned_ports(app, pin)
    ports: list[Key] = []
    any_of: list[str] = []
    if app.network.mode in ("host", "bridge"):
        for port in app.ports:
            number = pinned.get(port.name, port.host if isinstance(port.host, int) else None)
            if number is None and app.network.mode == "host" and port.host is None:
                number = port.container
            if number:
                ports.append((number, port.protocol))
            elif port.host == "auto":
                any_of.append(port.protocol)
    elif app.network.mode in ADDRESSED and pin is not None and pin.address:
        ports.append((0, pin.address))
    elif app.network.mode in ADDRESSED:
        any_of.append(ADDRESS)
    return Demand(app.resources.cpus or 0.0, app.resources.memory_bytes or 0, tuple(ports), tuple(any_of))


class Picker:
    """Places the replicas of one app, one after the other. `close` gives the shared pools back."""

    def __init__(self, board: Board, app: App, image: ResolvedImage) -> None:
        self.board, self.app = board, app
        self.domains = board.pools(app, image)
        self.image = image
        self.by = [spread for spread in app.placement.spread if spread.by != "node"]
        self.node_max = min((s.max for s in app.placement.spread if s.by == "node" and s.max is not None), default=None)
        self.one_a_node = any(volume.binds_to_node and not volume.shared_writers for volume in app.volumes)
        self.counts: dict[tuple[str, str], int] = {}
        self.local: dict[Domain, list[tuple[int, int, str]]] = {domain: [] for domain in self.domains}
        self.aside: list[tuple[Pool, Host]] = []
        self.refused: dict[str, Domain] = {}
        if self.by:
            for host in board.hosts.values():
                self._count(host, host.apps.get(app.name, 0))

    def lacks(self, host: Host, wanted: Demand) -> str:
        """Why one more replica can't stand there now; "" when it can."""
        if self.one_a_node and host.apps.get(self.app.name, 0) > 0:
            return f"the data of {self.app.name} there is in use"
        if self.node_max is not None and host.apps.get(self.app.name, 0) >= self.node_max:
            return f"already runs {self.node_max} (spread)"
        for spread in self.by:
            value = host.label(spread.by) or ""
            if spread.max is not None and self.counts.get((spread.by, value), 0) >= spread.max:
                return f"{spread.by} {value or '(none)'} already runs {spread.max} (spread)"
        for enemy in self.board.enemies.get(self.app.name, ()):
            if host.apps.get(enemy, 0) > 0:
                return f"avoids {enemy}"
        return host.lacks(wanted)

    def take(self, host: Host, wanted: Demand, holder: str) -> None:
        host.take(self.app.name, wanted, holder)
        self._count(host, 1)

    def give_back(self, host: Host, given: Demand, freed: Freed | None = None) -> None:
        host.give_back(self.app.name, given, freed)
        self._count(host, -1)
        domain = self.refused.pop(host.name, None)
        if domain is not None:
            heapq.heappush(self.local[domain], (host.apps.get(self.app.name, 0), host.total, host.name))

    def take_again(self, host: Host, given: Demand, holder: str) -> None:
        host.take_again(self.app.name, given, holder)
        self._count(host, 1)

    def pick(self, wanted: Demand) -> Host | None:
        """The best node that can meet the demand now. The caller takes it."""
        for domain in sorted(self.domains, key=self._load) if self.by else self.domains:
            host = self._fresh(domain, wanted) or self._used(domain, wanted)
            if host is not None:
                return host
        return None

    def close(self) -> None:
        for pool, host in self.aside:
            pool.push(host)
        self.aside.clear()

    def reasons(self, wanted: Demand) -> tuple[str, ...]:
        """“2 of 3 nodes: not enough memory”, the most frequent first."""
        counts: dict[str, int] = {}
        for host in self.board.hosts.values():
            why = closed(host) or forbids(self.app, self.image, host) or self.lacks(host, wanted) or "in use"
            counts[why] = counts.get(why, 0) + 1
        total = len(self.board.hosts)
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return tuple(f"{count} of {total} nodes: {why}" for why, count in ordered) or ("there are no nodes",)

    def _load(self, domain: Domain) -> tuple[int, ...]:
        return tuple(self.counts.get((s.by, value), 0) for s, value in zip(self.by, domain, strict=True))

    def _count(self, host: Host, change: int) -> None:
        for spread in self.by:
            key = (spread.by, host.label(spread.by) or "")
            self.counts[key] = self.counts.get(key, 0) + change

    def _fresh(self, domain: Domain, wanted: Demand) -> Host | None:
        """A node that has none of this app yet."""
        pool, used = self.domains[domain], self.local[domain]
        while (host := pool.pop()) is not None:
            self.aside.append((pool, host))
            count = host.apps.get(self.app.name, 0)
            if count > 0:
                heapq.heappush(used, (count, host.total, host.name))
            elif self.lacks(host, wanted):
                self.refused[host.name] = domain
            else:
                heapq.heappush(used, (1, host.total + 1, host.name))
                return host
        return None

    def _used(self, domain: Domain, wanted: Demand) -> Host | None:
        """The node with the fewest of this app, among those that have been looked at."""
        heap = self.local[domain]
        while heap:
            count, total, name = heap[0]
            host = self.board.hosts[name]
            now = (host.apps.get(self.app.name, 0), host.total)
            if now > (count, total):
                heapq.heapreplace(heap, (*now, name))
            elif self.lacks(host, wanted):
                heapq.heappop(heap)
                self.refused[name] = domain
            else:
                heapq.heapreplace(heap, (now[0] + 1, now[1] + 1, name))
                return host
        return None


def _host(node: Node, observed: Observed, survey: Survey, pinned: frozenset[str]) -> Host:
    state = observed.nodes.get(node.name)
    facts = state.facts if state else Facts()
    cpus = node.capacity.cpus if node.capacity.cpus is not None else (facts.cpus or None)
    memory = node.capacity.memory_bytes if node.capacity.memory_bytes is not None else (facts.memory_bytes or None)
    if memory is not None:
        memory -= node.capacity.reserve_memory_bytes
    known = node.name not in survey.unknown
    return Host(node=node, facts=facts, known=known, cpus=cpus, memory_bytes=memory, ranges=ranges(node, pinned))


def _enemies(desired: Tree) -> Mapping[str, tuple[str, ...]]:
    """Avoiding is mutual, whoever says it."""
    found: dict[str, set[str]] = {}
    for app in desired.apps.values():
        for other in app.placement.avoid:
            if other != app.name:
                found.setdefault(app.name, set()).add(other)
                found.setdefault(other, set()).add(app.name)
    return {name: tuple(sorted(others)) for name, others in found.items()}


def _parsed(resources: str) -> Demand:
    """Of a `.resources` label; one that can't be read counts as nothing."""
    try:
        value = json.loads(resources) if resources else {}
        return Demand(float(value.get("cpus") or 0), int(value.get("memory") or 0))
    except (ValueError, TypeError, AttributeError):
        return Demand()
