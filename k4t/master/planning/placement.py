"""Where a replica may run, and which of those places is best. Fast: heaps and counters, no rescanning.

Order of preference: the fewest replicas of this app (first by its `spread` labels, then by node), then the fewest
containers, then the name. What only a removal of this same plan makes free is used too; the create then comes after it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from k4t.master.planning.capacity import Demand, Freed, Host, host_of, parsed
from k4t.master.planning.plan import ResolvedImage
from k4t.master.planning.ranges import ADDRESSED, held_by, pinned_addresses
from k4t.master.planning.survey import Survey
from k4t.model.app import App
from k4t.model.spec import Tree
from k4t.model.state import Container, Observed


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
        self.hosts = {name: host_of(node, observed, survey, pinned) for name, node in sorted(desired.nodes.items())}
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
            base = self._demands.setdefault(container.resources, parsed(container.resources))
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
                if not forbids(app, image, host) and (host.late or not closed(host)):
                    domains.setdefault(tuple(host.label(label) or "" for label in by), []).append(host)
            self._pools[signature] = {domain: Pool(hosts) for domain, hosts in sorted(domains.items())}
        return self._pools[signature]


def closed(host: Host) -> str:
    """Why nothing new is placed there; "" when it may be."""
    if host.node.availability != "active":
        return host.node.availability
    if host.late:
        return "has not answered yet"
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
        """The best node that can meet the demand now. The caller takes it. None also when that may be one that is
        late: its place is kept free, and the next look decides; who is slow for a moment doesn't change who runs what.
        """
        for domain in sorted(self.domains, key=self._load) if self.by else self.domains:
            host = self._fresh(domain, wanted) or self._used(domain, wanted)
            if host is not None and host.late:
                self.take(host, wanted, self.app.name)
                return None
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


def _enemies(desired: Tree) -> Mapping[str, tuple[str, ...]]:
    """Avoiding is mutual, whoever says it."""
    found: dict[str, set[str]] = {}
    for app in desired.apps.values():
        for other in app.placement.avoid:
            if other != app.name:
                found.setdefault(app.name, set()).add(other)
                found.setdefault(other, set()).add(app.name)
    return {name: tuple(sorted(others)) for name, others in found.items()}
