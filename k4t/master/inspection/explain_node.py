"""Why a node can be reached or can't, what it holds and why there, and what would help. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from k4t.errors import K4tError
from k4t.master.fleet import Fleet, at_once
from k4t.master.inspection.explain import planned, published_by, why_there
from k4t.master.inspection.explain_host import HostSaid, asked, once, stands_against
from k4t.master.planning.placement import Board, closed
from k4t.master.planning.plan import Plan, Publish
from k4t.master.planning.survey import survey
from k4t.master.run import Run
from k4t.master.vantage import vantage
from k4t.model.hosts import Node
from k4t.model.spec import Tree
from k4t.model.state import Container, Head, NodeState, Observed
from k4t.model.value import value
from k4t.node import health


@value
class Held:
    """One container of ours. `problem`: why it is not healthy, "" when it is. `published`: groups that send to it."""

    container: Container
    why: str
    problem: str
    published: tuple[str, ...]


@value
class ExplainedNode:
    """`closed`: why nothing new is placed there. What is left is None where it is not known, or without a limit.
    `sent_to`: endpoints that gateways and DNS servers have there, of a node that can't be asked: what it holds is not
    known then. `given_up`: in words, when it was declared dead and is not known to be clean."""

    node: str
    address: str
    availability: str
    reachable: bool
    problem: str
    closed: str
    arch: str
    cpus: float
    memory_bytes: int
    cpus_left: float | None
    memory_left_bytes: int | None
    port_range: tuple[int, int]
    holds: tuple[Held, ...]
    sent_to: tuple[str, ...]
    strangers: tuple[str, ...]
    jobs: tuple[str, ...]
    given_up: str
    host: HostSaid
    steps: tuple[str, ...]
    obstacles: tuple[str, ...]
    helps: tuple[str, ...]


def explain(run: Run, name: str) -> ExplainedNode:
    """`name` is a node of the tree."""
    plan, problem, observed, _ = planned(run, ())
    node, seen = run.tree.nodes[name], survey(run.tree, observed)
    state = observed.nodes.get(name) or NodeState(name, reachable=False, problem="it was not asked")
    board = Board(run.tree, observed, seen)
    place = board.hosts.get(name)
    said = asked(run.fleet, node, state.head, observed)
    steps = tuple(_steps(plan, name))

    def look(one: Container) -> Held:
        why = why_there(run.tree.apps.get(one.app), one, place, plan)
        return Held(one, why, _problem(run.fleet, node, one), tuple(sorted(published_by(observed, one))))

    holds = tuple(at_once(look, sorted(state.containers, key=lambda one: one.name)))
    helps = _helps(run.tree, node, holds if state.reachable else None, said, changes=bool(steps))
    return ExplainedNode(
        node=name, address=node.address, availability=node.availability, reachable=state.reachable,
        problem=state.problem, closed=closed(place) if place else "", arch=state.facts.arch, cpus=state.facts.cpus,
        memory_bytes=state.facts.memory_bytes, cpus_left=place.cpus if place and state.reachable else None,
        memory_left_bytes=place.memory_bytes if place and state.reachable else None, port_range=node.port_range,
        holds=holds, sent_to=() if state.reachable else tuple(_sent_to(observed, name)),
        strangers=tuple(sorted(one.name for one in state.strangers)),
        jobs=tuple(f"{one.app}/{one.job}: {one.status or one.state}" for one in state.jobs),
        given_up=_given_up(seen.head, node), host=said, steps=steps,
        obstacles=once(stands_against(plan, problem)), helps=once(helps),
    )  # fmt: skip


def _problem(fleet: Fleet, node: Node, one: Container) -> str:
    app = fleet.tree.apps.get(one.app)
    if not one.running or app is None:
        return "" if one.running else one.status or one.state
    try:
        return health.problem(vantage(fleet, node, app), one, app)
    except K4tError as error:
        return f"can't be asked: {error}"


def _steps(plan: Plan | None, name: str) -> Iterator[str]:
    """What an apply would do there, and what of it would be published or taken out."""
    for step in plan.steps if plan else ():
        work = step.work
        slots = (*work.add, *work.remove) if isinstance(work, Publish) else ()
        if step.node == name or any(slot.node == name for slot in slots):
            yield f"{step.id}  {plan.cause(step) if plan else step.cause}"


def _sent_to(observed: Observed, name: str) -> Iterator[str]:
    """Each endpoint once, with the groups that have it."""
    groups: dict[str, list[str]] = {}
    for member in (*observed.gateways.values(), *observed.dns.values()):
        for end in member.document.endpoints if member.document else ():
            if end.node == name:
                where = groups.setdefault(f"{end.app}.{end.replica} {end.ip}:{end.port}", [])
                where += [f"{member.kind}/{member.group}"] * (f"{member.kind}/{member.group}" not in where)
    yield from (f"{endpoint} ({', '.join(where)})" for endpoint, where in sorted(groups.items()))


def _given_up(head: Head | None, node: Node) -> str:
    dead = head.dead.get(node.name) if head else None
    if dead is None:
        return ""
    if dead.fenced and node.availability == "drained":
        return f"switched off at serial {dead.serial}, when nothing ran there"
    how = "it was switched off then" if dead.fenced else "nobody switched it off"
    return f"given up at serial {dead.serial}; {how}. What it had until then may only be stopped"


def _helps(tree: Tree, node: Node, holds: tuple[Held, ...] | None, said: HostSaid, *, changes: bool) -> Iterator[str]:
    """In order of what to try first. `holds` is None where that can't be asked."""
    yield from said.remedies
    if holds is None:
        yield f"k4t node check {node.name}"
        if node.availability != "dead":
            fence = "" if node.power and node.power.off else f" --allow unfenced:{node.name}, once it is surely off"
            yield f"if it does not come back: k4t node dead {node.name}{fence}; its replicas are placed elsewhere"
        return
    if node.availability in ("cordoned", "drained"):
        yield f"k4t node uncordon {node.name}, for new replicas to be placed there"
    for one in holds:
        if one.problem and one.container.app in tree.apps:
            yield f"k4t explain {one.container.app}"
    if changes:
        yield "k4t apply"
