"""Why an app is where it is and how it is, and what would help. Looks, probes and plans; changes nothing."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from k4t.errors import K4tError, Usage
from k4t.master import decide
from k4t.master.fleet import Fleet, at_once
from k4t.master.observe import observe
from k4t.master.planning import serials, sizes
from k4t.master.planning.capacity import Host, demand, pin_of
from k4t.master.planning.placement import Board, Picker, closed, forbids
from k4t.master.planning.plan import Plan, ResolvedImage
from k4t.master.planning.survey import replica_key, survey
from k4t.master.run import Run
from k4t.master.vantage import vantage
from k4t.model.app import App
from k4t.model.spec import Tree
from k4t.model.state import Container, Head, Observed, ParticipantState
from k4t.model.value import value
from k4t.node import events, health, logs

TAIL_LINES = 10
NO_IMAGE = ResolvedImage("", "")


@value
class Insides:
    """What only an inspection tells. `exit_code` is of the last time it ended; `said` its own check's last answer."""

    exit_code: int | None = None
    restarts: int = 0
    out_of_memory: bool = False
    error: str = ""
    said: str = ""
    log: tuple[str, ...] = ()


@value
class Replica:
    """One container of the app, or a wanted replica without one (`container` is then None).

    `problem`: why it is not healthy, "" when it is. `published`: groups that send to it, as gateway/default.
    """

    replica: str
    container: Container | None
    why: str
    problem: str = ""
    insides: Insides = Insides()
    published: tuple[str, ...] = ()


@value
class Place:
    """What speaks against one more replica there; "" for nothing."""

    node: str
    runs: int
    against: str


@value
class Member:
    """A gateway or DNS server the app is published by. `trouble`: "" when it is in step."""

    kind: str
    name: str
    group: str
    trouble: str


@value
class Explained:
    """`steps`: what an apply would do, with causes. `helps`: sentences that name the command or the line to edit."""

    app: str
    image: str
    digest: str
    wanted: int
    stopped: bool
    held: str
    replicas: tuple[Replica, ...]
    places: tuple[Place, ...]
    members: tuple[Member, ...]
    steps: tuple[str, ...]
    obstacles: tuple[str, ...]
    helps: tuple[str, ...]
    size: str = ""
    """Of an app with `<scale>`: why it has as many replicas as it has."""

    @property
    def running(self) -> int:
        return sum(1 for one in self.replicas if one.container is not None and one.container.running)

    @property
    def healthy(self) -> int:
        return sum(1 for one in self.replicas if one.container is not None and not one.problem)


def explain(run: Run, name: str) -> Explained:
    """Raises Usage when there is no such app in the tree or on a node."""
    plan, problem, observed, resolved = planned(run, (name,))
    head = serials.newest(observed.heads)
    tree = sizes.sized(run.tree, observed, head)
    app = tree.apps.get(name)
    containers = sorted(_of(observed, name), key=lambda one: (replica_key(one.replica), one.generation))
    if app is None and not containers:
        raise Usage(f"there is no app {name!r}", f"the tree has: {', '.join(sorted(run.tree.apps)) or 'none'}")
    board = Board(tree, observed, survey(tree, observed))
    image = resolved.get(name, NO_IMAGE)

    def look(one: Container) -> Replica:
        why = why_there(app, one, board.hosts.get(one.node), plan)
        return _replica(run.fleet, app, one, why, tuple(sorted(published_by(observed, one))))

    replicas = tuple(at_once(look, containers))
    replicas += tuple(_missing(app, containers, observed, plan))
    members = tuple(_members(observed, name))
    obstacles = tuple(_obstacles(plan, problem, observed))
    places = tuple(_places(app, board, image)) if app is not None else ()
    found = Explained(
        app=name, image=app.image.reference if app else "", digest=image.digest, wanted=_wanted(app, tree),
        stopped=app.stopped if app else False, held=_held(plan, head, name), replicas=replicas, places=places,
        members=members, steps=tuple(f"{step.id}  {step.cause}" for step in plan.steps) if plan else (),
        obstacles=obstacles, helps=(f"k4t continue {name}",) if plan and name in plan.paused else (),
        size=sizes.why(app, head) if app else "",
    )  # fmt: skip
    return _with_helps(found, app, tree)


def planned(run: Run, apps: tuple[str, ...]) -> tuple[Plan | None, str, Observed, Mapping[str, ResolvedImage]]:
    """The plan of an apply of these apps alone (none: of all), or why none can be made; what was observed for it."""
    try:
        decision = decide.plan(run, decide.Request(apps))
    except K4tError as error:
        return None, str(error), observe(run.fleet), {}
    return decision.plan, "", decision.observed, decision.images.images


def _of(observed: Observed, name: str) -> Iterator[Container]:
    for state in observed.nodes.values():
        yield from (one for one in state.containers if one.app == name)


def _wanted(app: App | None, tree: Tree) -> int:
    if app is None or app.stopped:
        return 0
    return len(tree.nodes) if app.replicas is None else app.replicas


def _held(plan: Plan | None, head: Head | None, name: str) -> str:
    """The head remembers; the plan knows whether that spec is still the wanted one."""
    if plan is not None:
        return plan.held.get(name, "")
    return head.held.get(name, "") if head else ""


# --- replicas ----------------------------------------------------------------------------------------------


def _replica(fleet: Fleet, app: App | None, one: Container, why: str, groups: tuple[str, ...]) -> Replica:
    try:
        problem = one.state if not one.running else ""
        if app is not None and one.running:
            problem = health.problem(vantage(fleet, fleet.tree.nodes[one.node], app), one, app)
        return Replica(one.replica, one, why, problem, _insides(fleet, one, problem), groups)
    except K4tError as error:
        return Replica(one.replica, one, why, f"can't be asked: {error}", Insides(), groups)


def why_there(app: App | None, one: Container, host: Host | None, plan: Plan | None) -> str:
    """Why it is on its node, or why it is to leave it."""
    if app is None:
        return "the tree no longer has this app"
    if host is None:
        return f"the tree no longer has {one.node}"
    pending = [step for step in (plan.steps if plan else ()) if step.app == app.name and step.replica == one.replica]
    pin = pin_of(app, one.replica)
    must = forbids(app, None, host) or (host.node.availability if host.node.availability in ("drained", "dead") else "")
    if must:
        return f"must leave {one.node}: {must}"
    if pending:
        return f"an apply changes it: {pending[0].cause}"
    if pin is not None and pin.node:
        return f"pinned to {pin.node} ({app.where})"
    if app.per_node:
        return "one replica a node"
    bound = [volume.path or volume.name for volume in app.volumes if volume.binds_to_node]
    if bound:
        return f"its data is there: {', '.join(bound)}"
    return "runs there already, and may stay"


def published_by(observed: Observed, one: Container) -> set[str]:
    members = (*observed.gateways.values(), *observed.dns.values())
    return {
        f"{member.kind}/{member.group}"
        for member in members
        if member.document is not None and any(end.container == one.id for end in member.document.endpoints)
    }


def _insides(fleet: Fleet, one: Container, problem: str) -> Insides:
    engine = fleet.engine(one.node)
    found = engine.inspect(one.id) or {}
    state: dict[str, Any] = found.get("State") or {}
    restarts = int(found.get("RestartCount") or 0)
    answers = (state.get("Health") or {}).get("Log") or [{}]
    ended = not str(state.get("FinishedAt", "0001")).startswith("0001")
    exit_code = int(state.get("ExitCode") or 0) if ended else None
    if ended and state.get("Running"):  # Docker has forgotten it by now, its events haven't
        exit_code = events.last_exit(engine, fleet.tree.cluster.id, one.name)
    lines: tuple[str, ...] = ()
    if problem:
        flow = logs.begin(engine, one, tail=TAIL_LINES)
        try:
            lines = tuple(line.text for line in itertools.islice(logs.lines(flow, one), TAIL_LINES))
        finally:
            flow.close()
    return Insides(
        exit_code=exit_code,
        restarts=restarts,
        out_of_memory=bool(state.get("OOMKilled")),
        error=str(state.get("Error") or ""),
        said=str(answers[-1].get("Output", "")).strip()[-300:],
        log=lines,
    )


def _missing(
    app: App | None, containers: Iterable[Container], observed: Observed, plan: Plan | None
) -> Iterator[Replica]:
    """Wanted replicas that have no container."""
    if app is None or app.stopped:
        return
    names = list(observed.nodes) if app.replicas is None else [str(number) for number in range(app.replicas)]
    have = {one.replica for one in containers}
    unplaced = {one.replica: one.reasons for one in plan.unschedulable} if plan else {}
    for name in names:
        if name in have:
            continue
        steps = plan.steps if plan else ()
        coming = next((step for step in steps if step.replica == name and step.action == "create"), None)
        if reasons := unplaced.get(name, ()):
            why = "fits nowhere: " + "; ".join(reasons)
        elif coming is not None:
            why = f"an apply makes it on {coming.node}: {coming.cause}"
        else:
            why = "it may run on a node that can't be asked"
        yield Replica(name, None, why, "it has no container")


# --- places, members ---------------------------------------------------------------------------------------


def _places(app: App, board: Board, image: ResolvedImage) -> Iterator[Place]:
    picker = Picker(board, app, image)
    try:
        for host in board.hosts.values():
            against = closed(host) or forbids(app, image, host) or picker.lacks(host, demand(app, ""))
            yield Place(host.name, host.apps.get(app.name, 0), against)
    finally:
        picker.close()


def _members(observed: Observed, name: str) -> Iterator[Member]:
    for member in (*observed.gateways.values(), *observed.dns.values()):
        mentioned = member.document is not None and (
            any(end.app == name for end in member.document.endpoints)
            or any(route.app == name for route in member.document.routes)
        )
        if mentioned or not member.reachable:
            yield Member(member.kind, member.name, member.group, _trouble(member, observed))


def _trouble(member: ParticipantState, observed: Observed) -> str:
    if not member.reachable:
        return f"can't be asked: {member.problem}"
    peers = observed.gateways if member.kind == "gateway" else observed.dns
    newest = max(peer.document.version for peer in peers.values() if peer.group == member.group and peer.document)
    if member.document is not None and member.document.version != newest:
        return "holds an older document than its group"
    if not member.rendered:
        return "has accepted what it does not serve"
    return "; ".join(member.differences)


def _obstacles(plan: Plan | None, problem: str, observed: Observed) -> Iterator[str]:
    if problem:
        yield f"no plan can be made: {problem}"
    for state in observed.nodes.values():
        if not state.reachable:
            yield f"{state.name} can't be asked: {state.problem}"
    if plan is not None:
        yield from plan.not_done
        yield from plan.refused
        yield from (f"unsafe: {change.detail} (--allow {change.allow})" for change in plan.unsafe)
        yield from plan.warnings


# --- what would help ---------------------------------------------------------------------------------------


def _with_helps(found: Explained, app: App | None, tree: Tree) -> Explained:
    return dataclasses.replace(found, helps=tuple(dict.fromkeys((*found.helps, *_helps(found, app, tree)))))


def _helps(found: Explained, app: App | None, tree: Tree) -> Iterator[str]:
    """In order of what to try first."""
    if app is None:
        yield f"k4t apply --allow remove-app:{found.app} removes it"
        return
    for one in found.replicas:
        yield from _help_replica(found.app, app, one)
    if any(one.container is None and "fits nowhere" in one.why for one in found.replicas):
        yield from _help_places(found, app, tree)
    for member in found.members:
        if member.trouble:
            away = "can't be asked" in member.trouble
            yield (
                f"k4t {member.kind} check {member.name}" if away else f"k4t apply {found.app} puts {member.name} right"
            )
    if found.held:
        yield f"mend the app (its spec did not get healthy and is held), or k4t apply {found.app} --retry"
    elif found.steps:
        yield f"k4t apply {found.app}"


def _help_replica(name: str, app: App, one: Replica) -> Iterator[str]:
    inside = one.insides
    if not one.problem or one.container is None:
        return
    if inside.out_of_memory:
        yield f"it ran out of memory: raise <resources memory> ({app.where})"
    elif inside.exit_code or inside.restarts:
        ends = f"replica {one.replica} ends by itself (exit status {inside.exit_code})"
        yield f"{ends}: k4t logs {name} --replica {one.replica}"
    elif "refused" in one.problem:
        yield f"nothing listens where its port should be: compare <port> and <health> ({app.where}) with its log"
    else:
        yield f"k4t exec {name} --replica {one.replica} -- …, or k4t logs {name} --replica {one.replica}"


def _help_places(found: Explained, app: App, tree: Tree) -> Iterator[str]:
    for place in found.places:
        if place.against in ("cordoned", "drained"):
            yield f"k4t node uncordon {place.node}"
        elif place.against == "unreachable":
            yield f"k4t node check {place.node}"
        elif place.against.startswith("not enough"):
            yield f"lower <resources> ({app.where}), or give {place.node} more ({tree.nodes[place.node].where})"
        elif place.against.endswith("exhausted"):
            kind = "addresses" if place.against.startswith("address") else "ports"
            yield f"a wider <{kind} range> for {place.node} ({tree.nodes[place.node].where})"
        elif place.against.startswith("address "):
            yield f"another address or another node for the <pin> ({app.where})"
        elif " is not " in place.against:
            yield f"a <label> of {place.node} ({tree.nodes[place.node].where}), or another <require> ({app.where})"
        elif place.against.startswith("port "):
            yield f'another number or host="auto" for the port ({app.where})'
    yield "another node: k4t node add"
