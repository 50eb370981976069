"""Ask what the load of apps with `<scale>` is now: processor time and memory by the node's control groups (by the
Engine, where they aren't found), requests as gateways count them, a command's number. Only what a `<scale>` names is
asked for, all at once, over the connections of the check. What has not answered within ANSWER_S is left out. Raises
nothing that a host or a command could raise.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any, Protocol, TypeVar, cast

from k4t import command
from k4t.errors import K4tError, StepError
from k4t.master.fleet import Fleet, at_once, begun
from k4t.model.app import App
from k4t.model.state import Container
from k4t.monitor.facts import Facts
from k4t.monitor.scaling.measure import Answers, Use, gateways_of, replicas
from k4t.node import stats, usage
from k4t.node.docker import Engine

ANSWER_S = 10.0
COMMAND_S = 8.0
USAGE_S = 4.0
ENGINE_S = 5.0
ENGINE_MAX = 24
"""So many can be asked within that time, where each question waits a second and six are asked at once."""
AT_ONCE = 64
NUMBER_MAX = 100_000

T = TypeVar("T")
Totals = Mapping[tuple[str, str], int]


class Counting(Protocol):
    """The driver of a gateway that counts requests (Capabilities.counts)."""

    def counters(self, apps: Sequence[str]) -> Totals: ...


def ask(fleet: Fleet, facts: Facts, apps: Sequence[App]) -> Answers:
    """All of these apps at once."""
    nodes = _by_node(_containers(facts, apps))
    gateways = _gateways(fleet, facts, apps)
    commanded = [app for app in apps if app.scale and app.scale.command]
    uses = begun(lambda node: _uses(fleet, node, nodes[node]), nodes, most=AT_ONCE)
    counts = begun(lambda one: _counted(one[0], one[1]), gateways.values(), most=AT_ONCE)
    numbers = begun(lambda app: _number(app, len(facts.desired[app.name])), commanded, most=AT_ONCE)
    futures: list[Future[Any]] = [*uses, *counts, *numbers]
    wait(futures, timeout=ANSWER_S)
    return Answers(
        uses={id: use for _, found in _known(nodes, uses) for id, use in found.items()},
        counted=dict(_known(gateways, counts)),
        numbers=dict(_known((app.name for app in commanded), numbers)),
    )


def _known(names: Iterable[str], futures: Iterable[Future[T | None]]) -> Iterator[tuple[str, T]]:
    for name, future in zip(names, futures, strict=True):
        found = future.result() if future.done() and future.exception() is None else None
        if found is not None:
            yield name, found


def _containers(facts: Facts, apps: Iterable[App]) -> Iterator[Container]:
    for app in apps:
        if app.scale and (app.scale.cpu_percent is not None or app.scale.memory_percent is not None):
            yield from (one.container for one in replicas(app, facts) if one.container is not None)


def _by_node(containers: Iterable[Container]) -> dict[str, list[Container]]:
    found: dict[str, list[Container]] = {}
    for one in containers:
        mine = found.setdefault(one.node, [])
        if len(mine) < usage.IDS_MAX:
            mine.append(one)
    return found


def _uses(fleet: Fleet, node: str, containers: Sequence[Container]) -> dict[str, Use] | None:
    """One command for all of them; an Engine is slower, and asked for what is left."""
    engine = fleet.engine(node)
    try:
        read = usage.read(engine.transport, [one.id for one in containers], USAGE_S)
    except StepError:
        read = {}
    found = {id: Use(one.at_s, one.cpu_s, one.memory_bytes) for id, one in read.items()}
    left = [one for one in containers if one.id not in found][:ENGINE_MAX]
    told = (one for one in at_once(lambda one: _told(engine, one), left) if one is not None)
    return found | {one.container.id: Use(one.at_s, one.cpu_s, one.memory_bytes, "engine") for one in told}


def _told(engine: Engine, container: Container) -> stats.Sample | None:
    try:
        return stats.sample(engine, container, ENGINE_S)
    except K4tError:
        return None


def _gateways(fleet: Fleet, facts: Facts, apps: Iterable[App]) -> dict[str, tuple[Counting, list[str]]]:
    """Those that answer, and what they are asked for."""
    found: dict[str, tuple[Counting, list[str]]] = {}
    for app in apps:
        for name in gateways_of(app, fleet.tree) if app.scale and app.scale.requests is not None else ():
            driver, state = fleet.participants.get(("gateway", name)), facts.gateways.get(name)
            if driver is not None and driver.capabilities.counts and state is not None and state.reachable:
                found.setdefault(name, (cast("Counting", driver), []))[1].append(app.name)
    return found


def _counted(driver: Counting, apps: Sequence[str]) -> tuple[float, Totals] | None:
    try:
        totals = driver.counters(apps)
    except K4tError:
        return None
    return time.time(), totals


def _number(app: App, size: int) -> int | None:
    """What its command prints: a whole number. It is told the app's name and its size now."""
    if app.scale is None:
        return None
    try:
        env = {**os.environ, "K4T_APP": app.name, "K4T_REPLICAS": str(size)}
        done = command.run(command.split(app.scale.command), env=env, timeout_s=COMMAND_S)
    except (K4tError, OSError):
        return None
    printed = done.stdout[:1000].strip()
    number = int(printed) if done.ok and re.fullmatch(rb"[0-9]{1,6}", printed) else None
    return None if number is None or number > NUMBER_MAX else number
