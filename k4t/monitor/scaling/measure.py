"""From what was answered, and what was answered the last time, to one app's sample. Pure.

What is counted begins anew when its process does (a container, a gateway): a counter that went back has counted from
zero. Of an endpoint that is new there is no rate yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field

from k4t.model.app import App
from k4t.model.spec import Tree
from k4t.model.state import Container
from k4t.model.value import value
from k4t.monitor.facts import Facts
from k4t.monitor.scaling.memory import NOTHING, Counted, Seen, Used
from k4t.monitor.scaling.track import Condition, Reading, Sample

LEAST_S = 0.2
"""Between two readings: of less no rate can be made."""


@value
class Use:
    """Of one container: processor time since its start, as it was read at `at_s`. `by`: whose clock and whose count it
    is; only what one source says can be compared."""

    at_s: float
    cpu_s: float
    memory_bytes: int
    by: str = "cgroup"


@value
class Answers:
    """`uses` by container id; `counted` by gateway, at its own time: by (app, ip:port); `numbers` by app, what its
    command printed. Who has not answered is missing."""

    uses: Mapping[str, Use] = field(default_factory=dict)
    counted: Mapping[str, tuple[float, Mapping[tuple[str, str], int]]] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)


@value
class Replica:
    """One that there should be. `container`: the one of it that runs."""

    condition: Condition
    container: Container | None = None


@value
class Taken:
    """`seen`: for the next time."""

    sample: Sample
    seen: Seen


def replicas(app: App, facts: Facts) -> tuple[Replica, ...]:
    """Of each replica that there should be, whether it serves."""
    found: dict[str, list[Container]] = {}
    for one in facts.containers:
        if one.app == app.name:
            found.setdefault(one.replica, []).append(one)
    away = any(not node.state.reachable for node in facts.nodes.values())
    return tuple(_replica(app, found.get(name, []), facts, away=away) for name in facts.desired.get(app.name, ()))


def _replica(app: App, containers: list[Container], facts: Facts, *, away: bool) -> Replica:
    """While one of its containers takes over from another, neither of them says what it will use."""
    running = [one for one in containers if one.running]
    if len(running) != 1:
        return Replica("unknown" if away and not containers else "absent")
    (one,) = running
    answer = facts.probed.get(one.id)
    if answer is None or answer.problem is None:
        return Replica("unknown", one)
    starting = app.health is not None and _age_s(one, facts) < app.health.start_period_s
    return Replica("absent" if answer.problem or starting else "serving", one)


def _age_s(one: Container, facts: Facts) -> float:
    """By its node's own clock."""
    host = facts.hosts.get(facts.host_of.get(f"node/{one.node}", ""))
    skew_s = host.reading.skew_s if host is not None and host.reading is not None else None
    return facts.at_s + (skew_s or 0.0) - one.created_s


def measured(app: App, tree: Tree, facts: Facts, answers: Answers, before: Seen = NOTHING, *, at_s: float) -> Taken:
    """`at_s`: now, as decisions count it."""
    found = replicas(app, facts)
    gateways = gateways_of(app, tree) if app.scale is not None and app.scale.requests is not None else ()
    counted = {name: _own(app, answers, name) for name in gateways if name in answers.counted}
    requests_s, known = _requests_s(counted, before, gateways)
    sample = Sample(
        at_s=at_s,
        size=len(found),
        readings=tuple(_reading(app, one, answers, before) for one in found),
        requests_s=requests_s,
        requests_known=known,
        command=answers.numbers.get(app.name),
    )
    ids = (one.container.id for one in found if one.container and one.container.id in answers.uses)
    used = {id: Used(answers.uses[id].at_s, answers.uses[id].cpu_s, answers.uses[id].by) for id in ids}
    return Taken(sample, Seen(used, counted))


# --- CPU and memory --------------------------------------------------------------------------------------------


def _reading(app: App, one: Replica, answers: Answers, before: Seen) -> Reading:
    use = answers.uses.get(one.container.id) if one.container else None
    if use is None or one.container is None or one.condition != "serving":
        return Reading(one.condition)
    limits = app.resources
    cpus = _cpus(before.used.get(one.container.id), use)
    return Reading(
        one.condition,
        None if cpus is None or not limits.cpus else 100.0 * cpus / limits.cpus,
        None if not limits.memory_bytes else 100.0 * use.memory_bytes / limits.memory_bytes,
    )


def _cpus(before: Used | None, now: Use) -> float | None:
    """How many processors it kept busy since."""
    if before is None or before.by != now.by or now.at_s - before.at_s < LEAST_S or now.cpu_s < before.cpu_s:
        return None
    return (now.cpu_s - before.cpu_s) / (now.at_s - before.at_s)


# --- requests --------------------------------------------------------------------------------------------------


def gateways_of(app: App, tree: Tree) -> tuple[str, ...]:
    """Those that send requests to it."""
    groups = {route.group for route in app.routes}
    return tuple(gateway.name for gateway in tree.gateways.values() if gateway.group in groups)


def _own(app: App, answers: Answers, gateway: str) -> Counted:
    at_s, totals = answers.counted[gateway]
    return Counted(at_s, {place: number for (name, place), number in totals.items() if name == app.name})


def _requests_s(now: Mapping[str, Counted], before: Seen, gateways: tuple[str, ...]) -> tuple[float | None, bool]:
    """All gateways together, and whether none is left out."""
    rates = dict(_rates(now, before))
    return (sum(rates.values()) if rates else None), all(name in rates for name in gateways)


def _rates(now: Mapping[str, Counted], before: Seen) -> Iterator[tuple[str, float]]:
    for name, counted in now.items():
        old = before.counted.get(name)
        if old is None or counted.at_s - old.at_s < LEAST_S:
            continue
        pairs = ((number, old.totals[place]) for place, number in counted.totals.items() if place in old.totals)
        yield name, sum(new - was if new >= was else new for new, was in pairs) / (counted.at_s - old.at_s)
