"""Endpoints of a node that is gone are taken out of gateways and DNS servers at once, through their registrars, and
given back when it is there again. Reversible, needs no fence and no master. A withdrawal ends by itself with a newer
document that no longer names its container.

Of no app the last endpoint that may still serve goes: where nothing else would be left in a member, all stay there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from k4t.errors import K4tError, LoginRefused, Partial, RegistrarMismatch
from k4t.master.fleet import WITHOUT_SHELL, Fleet, begun
from k4t.model.state import ParticipantState, Withdrawn
from k4t.model.value import value
from k4t.monitor.acting import keys
from k4t.monitor.facts import Facts
from k4t.registrar.document import Endpoint
from k4t.remote import restricted
from k4t.remote.registrar import Place, RegistrarParticipant, Several

if TYPE_CHECKING:
    from k4t.monitor.check import Looked
    from k4t.remote.transport import Transport

BOUND_S = 25.0
"""For all members together. Who hasn't answered then is named, and not waited for."""
AT_ONCE = 64
WHY_CHARACTERS = 200
Verb = Literal["withdraw", "restore"]


@value
class Member:
    """A gateway or DNS server, and what is to be done there: `places` at once. `whole`: apps of which nothing else
    would be left. `unable`: why nothing can be done, "" where something can; `away`: it may be another time."""

    state: ParticipantState
    places: tuple[Place, ...] = ()
    whole: tuple[str, ...] = ()
    unable: str = ""
    away: bool = False

    @property
    def words(self) -> str:
        return f"{'DNS server' if self.state.kind == 'dns' else 'gateway'} {self.state.name}"


@value
class Plan:
    """What is to be done for one node."""

    verb: Verb
    node: str
    members: tuple[Member, ...] = ()

    @property
    def empty(self) -> bool:
        """There is nothing that could be done now; not even later, where no member is away."""
        return not any(member.places or member.away for member in self.members)


# --- to decide: pure -------------------------------------------------------------------------------------------------


def out(facts: Facts, node: str) -> Plan:
    """What is published of a node, and is not withdrawn yet."""
    return Plan("withdraw", node, tuple(_taken_out(facts, node, state) for state in _members(facts)))


def back(facts: Facts, node: str) -> Plan:
    """What the monitor has withdrawn of it, in documents that still name it."""
    return Plan("restore", node, tuple(_given_back(facts, node, state) for state in _members(facts)))


def held(facts: Facts, node: str) -> int:
    """How many endpoints of a node the monitor has out now, on all members that answer."""
    return sum(len(member.places) for member in back(facts, node).members)


def held_of(facts: Facts) -> frozenset[str]:
    """The nodes of which `held` is not 0."""
    found = set[str]()
    for state in _members(facts):
        ours = {_row(one) for one in state.withdrawn if one.cluster == facts.cluster_id and one.by == restricted.BY}
        if ours and state.document and _unable(state) is None:
            found |= {one.node for one in state.document.endpoints if _of(one) in ours}
    return frozenset(found)


def _members(facts: Facts) -> list[ParticipantState]:
    return [*facts.gateways.values(), *facts.dns.values()]


def _taken_out(facts: Facts, node: str, state: ParticipantState) -> Member:
    if (member := _unable(state)) is not None:
        return member
    document = state.document
    published = document.endpoints if document else ()
    gone = {_row(one) for one in state.withdrawn if one.cluster == facts.cluster_id}
    wanted = [one for one in published if one.node == node and _of(one) not in gone]
    left = {
        (one.app, one.port_name)
        for one in published
        if one.node != node and _of(one) not in gone and _may_serve(facts, one)
    } | {(one.app, one.port_name) for one in _others(state)}
    whole = sorted({one.app for one in wanted if (one.app, one.port_name) not in left})
    return Member(state, _places(one for one in wanted if one.app not in whole), tuple(whole))


def _given_back(facts: Facts, node: str, state: ParticipantState) -> Member:
    if (member := _unable(state)) is not None:
        return member
    ours = {_row(one) for one in state.withdrawn if one.cluster == facts.cluster_id and one.by == restricted.BY}
    published = state.document.endpoints if state.document else ()
    return Member(state, _places(one for one in published if one.node == node and _of(one) in ours))


def _unable(state: ParticipantState) -> Member | None:
    if state.driver in WITHOUT_SHELL:
        return Member(state, unable="it has no registrar, so only the master takes names out of it")
    if not state.reachable:
        return Member(state, unable=state.problem or "it can't be asked", away=True)
    return None


def _may_serve(facts: Facts, one: Endpoint) -> bool:
    """What is on a node that doesn't answer us either is nothing to rely on, unless a gateway's host reaches it."""
    reached = facts.reached.get((one.container, one.port))
    host = facts.hosts.get(facts.host_of.get(f"node/{one.node}", ""))
    return host is None or host.reading is not None or (reached is not None and reached.problem == "")


def _others(state: ParticipantState) -> Iterable[Endpoint]:
    """What this host serves that is not this cluster's."""
    gone = {(one.cluster, _row(one)) for one in state.withdrawn}
    for document in state.others:
        yield from (one for one in document.endpoints if (document.cluster, _of(one)) not in gone)
    yield from state.manual


def _row(one: Withdrawn) -> tuple[str, int, str]:
    return (one.ip, one.port, one.container)


def _of(one: Endpoint) -> tuple[str, int, str]:
    return (one.ip, one.port, one.container)


def _places(endpoints: Iterable[Endpoint]) -> tuple[Place, ...]:
    return tuple(sorted({(one.app, one.ip, one.port) for one in endpoints}))


# --- to do -----------------------------------------------------------------------------------------------------------


def withdraw(fleet: Fleet, looked: Looked, node: str, why: str) -> str:
    """Take all endpoints of a node out of everything that has a registrar: what was done, in words. Can be done twice.
    Raises Partial when some member could not be told, after all others were; each is named."""
    return _carried_out(fleet, out(looked.facts, node), why)


def give_back(fleet: Fleet, looked: Looked, node: str) -> str:
    """Give back what the monitor took out, and nobody else; as `withdraw`."""
    return _carried_out(fleet, back(looked.facts, node), "")


@value
class Done:
    """What became of one member's. `note`: what people should hear of, though it was done."""

    several: Several
    note: str = ""


def _carried_out(fleet: Fleet, plan: Plan, why: str) -> str:
    futures = begun(lambda member: _told(fleet, member, plan.verb, _one_line(why)), plan.members, most=AT_ONCE)
    wait(futures, timeout=BOUND_S)
    return said(plan, [_result(future) for future in futures])


def _result(future: Future[Done | None]) -> Done | str | None:
    """Or why it was not done."""
    if not future.done():
        return f"it has not answered within {BOUND_S:g} s"
    error = future.exception()
    return error.words if isinstance(error, K4tError) else future.result()


def _told(fleet: Fleet, member: Member, verb: Verb, why: str) -> Done | None:
    """By the restricted key where this machine has one; where that is not let in, traffic can't wait: by the ordinary
    login. Raises what either raises."""
    participant = fleet.participants[member.state.kind, member.state.name]
    if not member.places or not isinstance(participant, RegistrarParticipant):
        return None
    note = ""
    if key := keys.private_file(fleet.tree.cluster.id):
        try:
            with let_in(fleet, participant, key) as transport:
                driver, kind = participant.registrar or participant.driver, participant.kind
                args = (transport, driver, verb, member.places, why)
                return Done(restricted.several(*args, kind=kind, name=participant.name))
        except LoginRefused:
            note = f"it does not know the monitor's key: {restricted.REMEDY}"
        except RegistrarMismatch as error:
            note = f"not by the monitor's key: {error.words}"
    return Done(participant.several(verb, member.places, restricted.BY, why), note)


@contextmanager
def let_in(fleet: Fleet, member: RegistrarParticipant, key: Path) -> Iterator[Transport]:
    """A connection by the monitor's own key. Raises what connecting raises."""
    tree = fleet.tree
    host = fleet.host_of(tree.gateways[member.name] if member.kind == "gateway" else tree.dns[member.name])
    transport = fleet.afresh(host, restricted.login(host.ssh, str(key)))
    try:
        yield transport
    finally:
        transport.close()


def _one_line(text: str) -> str:
    words = "".join(one if one.isprintable() else " " for one in text)
    return words.strip()[:WHY_CHARACTERS]


# --- to tell: pure ---------------------------------------------------------------------------------------------------


def said(plan: Plan, results: Sequence[Done | str | None]) -> str:
    """In words; `results`: by member. Raises Partial where one was not told, or its vendor would not take it."""
    done = [
        words for member, result in zip(plan.members, results, strict=True) for words in _good(plan, member, result)
    ]
    notes = [
        words for member, result in zip(plan.members, results, strict=True) for words in _notes(plan, member, result)
    ]
    wrong = [words for member, result in zip(plan.members, results, strict=True) for words in _wrong(member, result)]
    if not done and not wrong:
        done = ["nothing to withdraw" if plan.verb == "withdraw" else "nothing to give back"]
    if wrong:
        raise Partial(f"endpoints of node {plan.node}: {'; '.join([*wrong, *done, *notes])}", "try again")
    return f"endpoints of node {plan.node}: {'; '.join([*done, *notes])}"


def _good(plan: Plan, member: Member, result: Done | str | None) -> Iterator[str]:
    if isinstance(result, Done) and (result.several.changed or not result.several.left):
        verb = "withdrawn from" if plan.verb == "withdraw" else "given back at"
        yield f"{result.several.changed} {verb} {member.words}"


def _wrong(member: Member, result: Done | str | None) -> Iterator[str]:
    if isinstance(result, str):
        yield f"{member.words}: {result}"
    elif isinstance(result, Done) and result.several.problem:
        yield f"{member.words} does not take it: {result.several.problem}"
    elif member.away:
        yield f"{member.words} is away: {member.unable}"


def _notes(plan: Plan, member: Member, result: Done | str | None) -> Iterator[str]:
    if isinstance(result, Done):
        several = result.several
        yield from (f"{member.words}: {one}" for one in (*several.left, several.pending, result.note) if one)
    if member.unable and not member.away and plan.verb == "withdraw":
        yield f"{member.words}: {member.unable}"
    if member.whole:
        yield f"{member.words} keeps those of {', '.join(member.whole)}: nothing else would be left there"
