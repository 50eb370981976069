"""Why a gateway or DNS server can be reached or can't, what it holds and how that differs from its group and from what
runs, and what would help. Changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from k4t.master.inspection.explain import planned
from k4t.master.inspection.explain_host import HostSaid, asked, once, stands_against
from k4t.master.planning.lag import ahead, lag, replaced
from k4t.master.planning.plan import Plan, Publish
from k4t.master.planning.survey import survey
from k4t.master.run import Run
from k4t.model.hosts import Dns, Gateway
from k4t.model.participant import Kind
from k4t.model.spec import Tree
from k4t.model.state import Observed, ParticipantState
from k4t.model.value import value
from k4t.registrar.document import Document, Endpoint, Record, Route


@value
class Sent:
    """What it holds of one app. `leads`: routes or records that lead there; `endpoints`: ip:port with replica and node;
    `absent`: replicas that run and that it does not have."""

    app: str
    leads: tuple[str, ...]
    endpoints: tuple[str, ...]
    absent: tuple[str, ...] = ()


@value
class ExplainedMember:
    """`trouble`: why it is not in step, "" when it is. `peers`: the other members, with what they hold. `others`: other
    clusters; `manual` and `withdrawn`: what was changed by hand or by the monitor, in words."""

    kind: str
    name: str
    group: str
    driver: str
    address: str
    reachable: bool
    problem: str
    trouble: str
    id: str
    epoch: int
    seq: int
    digest: str
    staged: str
    apps: tuple[Sent, ...]
    peers: tuple[str, ...]
    others: tuple[str, ...]
    manual: tuple[str, ...]
    withdrawn: tuple[str, ...]
    host: HostSaid
    steps: tuple[str, ...]
    obstacles: tuple[str, ...]
    helps: tuple[str, ...]


def explain(run: Run, kind: str, name: str) -> ExplainedMember:
    """`name` is a gateway or DNS server of the tree."""
    plan, problem, observed, _ = planned(run, ())
    thing = run.tree.gateways[name] if kind == "gateway" else run.tree.dns[name]
    seen = observed.gateways if kind == "gateway" else observed.dns
    state = seen.get(name) or ParticipantState(
        thing_kind(thing), name, thing.group, thing.driver, reachable=False, problem="it was not asked"
    )  # fmt: skip
    peers = [one for one in seen.values() if one.group == state.group and one.name != name]
    trouble = _trouble(run.tree, observed, state)
    said = asked(run.fleet, thing, state.head, observed)
    steps = tuple(_steps(plan, state))
    return ExplainedMember(
        kind=kind, name=name, group=state.group, driver=state.driver, address=thing.address,
        reachable=state.reachable, problem=state.problem, trouble=trouble, id=state.id, epoch=state.epoch.number,
        seq=state.document.seq if state.document else 0, digest=state.digest, staged=state.staged,
        apps=tuple(_apps(run.tree, observed, state, peers)) if state.reachable else (),
        peers=tuple(_peer(one) for one in peers), others=tuple(_other(one) for one in state.others),
        manual=tuple(f"{one.app} {one.ip}:{one.port}" for one in state.manual),
        withdrawn=tuple(_withdrawn(run.tree, state)), host=said, steps=steps,
        obstacles=once(stands_against(plan, problem)), helps=once(_helps(state, trouble, said, steps)),
    )  # fmt: skip


def thing_kind(thing: Gateway | Dns) -> Kind:
    return "gateway" if isinstance(thing, Gateway) else "dns"


def _trouble(tree: Tree, observed: Observed, state: ParticipantState) -> str:
    if not state.reachable:
        return "it can't be asked"
    seen = survey(tree, observed)
    group = seen.groups[state.kind, state.group]
    pinned = group.ids.get(state.name, "")
    if behind := lag(state, ahead(group.members, group.live), pinned) or replaced(state, pinned):
        return behind
    if not state.rendered:
        return f"its own checker refuses what it was given, the last good one serves: {state.problem}"
    return "; ".join(state.differences)


def _peer(one: ParticipantState) -> str:
    if not one.reachable:
        return f"{one.name} ({one.driver}) can't be asked: {one.problem}"
    held = f"epoch {one.epoch.number}, seq {one.document.seq}" if one.document else "nothing"
    return f"{one.name} ({one.driver}) holds {held}"


def _other(document: Document) -> str:
    return f"{document.name} ({document.cluster}): {len(document.endpoints)} endpoints"


def _withdrawn(tree: Tree, state: ParticipantState) -> Iterator[str]:
    for one in state.withdrawn:
        whose = "" if one.cluster == tree.cluster.id else f" of cluster {one.cluster}"
        yield f"{one.ip}:{one.port}{whose} by {one.by or 'somebody'}: {one.why or 'no reason given'}"


# --- apps ------------------------------------------------------------------------------------------------------------


def _apps(tree: Tree, observed: Observed, state: ParticipantState, peers: list[ParticipantState]) -> Iterator[Sent]:
    """Those it holds, and those that the tree publishes there."""
    document = state.document
    out = {(one.ip, one.port, one.container) for one in state.withdrawn if one.cluster == tree.cluster.id}
    endpoints = document.endpoints if document else ()
    wanted = {
        app.name for app in tree.apps.values()
        for one in (app.routes if state.kind == "gateway" else app.records) if one.group == state.group
    }  # fmt: skip
    for name in sorted(wanted | {end.app for end in endpoints}):
        mine = [end for end in endpoints if end.app == name]
        yield Sent(name, tuple(_leads(document, name)), tuple(_endpoint(end, out) for end in mine),
                   tuple(_absent(observed, name, mine, peers)))  # fmt: skip


def _endpoint(end: Endpoint, out: Collection[tuple[str, int, str]]) -> str:
    ip = f"[{end.ip}]" if ":" in end.ip else end.ip
    where = f" (replica {end.replica} on {end.node})" if end.node else ""
    return f"{ip}:{end.port}{where}" + (", withdrawn" if (end.ip, end.port, end.container) in out else "")


def _leads(document: Document | None, name: str) -> Iterator[str]:
    for route in document.routes if document else ():
        if route.app == name:
            yield _route(route)
    for record in document.records if document else ():
        if record.app == name:
            yield _record(record)


def _route(route: Route) -> str:
    if route.listen:
        return f"port {route.listen}/{route.protocol}"
    return f"{', '.join(route.domains) or 'any domain'} {route.prefix}"


def _record(record: Record) -> str:
    return f"{record.type} {record.name}" + (f" = {', '.join(record.to)}" if record.to else "")


def _absent(observed: Observed, name: str, mine: list[Endpoint], peers: list[ParticipantState]) -> Iterator[str]:
    here = {end.container for end in mine}
    elsewhere: Mapping[str, str] = {
        end.container: one.name for one in peers if one.document for end in one.document.endpoints
    }
    for node in observed.nodes.values():
        for one in node.containers:
            if one.app == name and one.running and one.id not in here:
                where = f"{elsewhere[one.id]} has it" if one.id in elsewhere else "nobody of its group has it"
                yield f"replica {one.replica} on {one.node} runs; {where}"


# --- what would help -------------------------------------------------------------------------------------------------


def _steps(plan: Plan | None, state: ParticipantState) -> Iterator[str]:
    for step in plan.steps if plan else ():
        work = step.work
        if isinstance(work, Publish) and (work.kind, work.group) == (state.kind, state.group):
            signed = (("+", work.add), ("-", work.remove))
            slots = [f"{sign}{slot.app}.{slot.replica}@{slot.node}" for sign, many in signed for slot in many]
            yield f"{step.id}  {' '.join(slots) or 'routes and records'}"


def _helps(state: ParticipantState, trouble: str, said: HostSaid, steps: tuple[str, ...]) -> Iterator[str]:
    """In order of what to try first."""
    yield from said.remedies
    if not state.reachable:
        yield f"k4t {state.kind} check {state.name}"
        yield "meanwhile k4t apply --degraded publishes to the rest of its group, and owes it the document"
        return
    if state.staged:
        yield "k4t txn list shows what waits for its commit; the next apply finishes it"
    if trouble:
        yield f"k4t {state.kind} sync, or k4t apply, puts it right"
    if state.withdrawn:
        yield "what was withdrawn comes back by k4t-registrar restore on the host, or when its replica is replaced"
    if steps and not trouble:
        yield "k4t apply"
