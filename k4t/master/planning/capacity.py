"""What containers take of a node, and what a node has left, while a plan is made. What only a step of the same plan
sets free is remembered with that step."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from k4t.master.planning.ranges import ADDRESS, ADDRESSED, Key, Ranges, ranges
from k4t.master.planning.survey import Survey
from k4t.model.app import App, Pin
from k4t.model.hosts import Node
from k4t.model.state import Facts, Observed
from k4t.model.value import value


@value
class Demand:
    """What one container takes of a node. `ports`: known ones, and its own address where that is known. `any`: kinds
    of which it takes one that its host will choose."""

    cpus: float = 0.0
    memory_bytes: int = 0
    ports: tuple[Key, ...] = ()
    any: tuple[str, ...] = ()


@value
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
    late: bool
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


def host_of(node: Node, observed: Observed, survey: Survey, pinned: frozenset[str]) -> Host:
    state = observed.nodes.get(node.name)
    facts = state.facts if state else Facts()
    cpus = node.capacity.cpus if node.capacity.cpus is not None else (facts.cpus or None)
    memory = node.capacity.memory_bytes if node.capacity.memory_bytes is not None else (facts.memory_bytes or None)
    if memory is not None:
        memory -= node.capacity.reserve_memory_bytes
    known = node.name not in survey.unknown
    late = state is not None and state.late and node.availability == "active"
    return Host(
        node=node, facts=facts, known=known, late=late, cpus=cpus, memory_bytes=memory, ranges=ranges(node, pinned)
    )  # fmt: skip


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


def parsed(resources: str) -> Demand:
    """Of a `.resources` label; one that can't be read counts as nothing."""
    try:
        value = json.loads(resources) if resources else {}
        return Demand(float(value.get("cpus") or 0), int(value.get("memory") or 0))
    except (ValueError, TypeError, AttributeError):
        return Demand()
