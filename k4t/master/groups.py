"""Groups by themselves, apart from any deployment: bring their members to what runs (`sync`), and let go of a cluster
that is gone (`takeover`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from k4t.errors import K4tError, Locked, ParticipantAway, Unreachable, Unsafe, Usage
from k4t.master.lineage import require_newest
from k4t.master.observe import observe
from k4t.master.planning import serials
from k4t.master.planning.derive import derived
from k4t.master.planning.lag import ahead, lag, replaced
from k4t.master.probing import healthy
from k4t.master.publication.account import changes
from k4t.master.record import write_heads
from k4t.model.hosts import Dns, Gateway
from k4t.model.participant import Kind
from k4t.model.spec import Safety
from k4t.model.state import Observed, ParticipantState
from k4t.model.value import value
from k4t.registrar.document import Document
from k4t.remote.lock_holder import holder_of
from k4t.tree.changes import Edit
from k4t.tree.read import read_tree

if TYPE_CHECKING:
    from k4t.master.publication.publish import Publisher
    from k4t.master.run import Run


@value
class Comparison:
    """What a group holds against what runs. `members`: (name, what is wrong with it), "" for nothing."""

    kind: Kind
    group: str
    live: Document | None
    derived: Document
    add: tuple[str, ...]
    remove: tuple[str, ...]
    members: tuple[tuple[str, str], ...]

    @property
    def differs(self) -> bool:
        return bool(self.add or self.remove or any(words for _, words in self.members))


def sync(
    run: Run,
    kind: Kind,
    names: Collection[str],
    confirm: Callable[[Sequence[Comparison]], None],
    allows: Collection[str] = (),
) -> list[str]:
    """Derive each group's document from the running containers, compare, ask, publish. A sentence about each group.

    `names`: members whose groups are meant; none for all. Raises Locked, Unsafe (exit 4) when too much would go,
    ParticipantAway, and what publishing raises.
    """
    run.copy.prepare()
    observe(run.fleet)  # the lock is taken on hosts that are connected
    with run.lock():
        told = run.publisher.recover(degraded=True)
        observed = observe(run.fleet)
        require_newest(run, serials.newest(observed.heads), allows)
        found = compare(run, kind, names, observed)
        differing = [one for one in found if one.differs]
        for one in differing:
            _check_loss(one, run.tree.cluster.safety, allows)
        confirm(found)
        told += [f"{kind} group {one.group}: in step" for one in found if not one.differs]
        told += [_publish(run, one) for one in differing]
        _pin(run, observed)
    return told


def compare(run: Run, kind: Kind, names: Collection[str], observed: Observed) -> list[Comparison]:
    """Each group that one of `names` is a member of."""
    states = observed.gateways if kind == "gateway" else observed.dns
    well = healthy(run.fleet, observed)
    pinned = _pinned(observed)
    found = []
    for group in sorted({state.group for state in states.values() if not names or state.name in names}):
        members = [state for state in states.values() if state.group == group]
        live = max((one.document for one in members if one.document), key=lambda one: one.version, default=None)
        new = derived(run.tree, (kind, group), live, observed, well)
        add, remove = changes(live, new)
        words = tuple((one.name, _wrong(one, ahead(members, live), pinned)) for one in members)
        found.append(Comparison(kind, group, live, new, add, remove, words))
    return found


def _wrong(state: ParticipantState, newest: ParticipantState | None, pinned: Mapping[str, str]) -> str:
    if not state.reachable:
        return f"does not answer: {state.problem}"
    known = pinned.get(f"{state.kind}/{state.name}", "")
    words = [lag(state, newest, known).removeprefix(f"{state.name} ") or replaced(state, known), *state.differences]
    if not state.rendered:
        words.append(state.problem or "its vendor would not take what it holds")
    return "; ".join(word for word in words if word)


def _check_loss(one: Comparison, safety: Safety, allows: Collection[str]) -> None:
    """Raises Unsafe when more endpoints would go than `<safety>` lets."""
    live = one.live.endpoints if one.live else ()
    lost = len(live) - len({*live} & {*one.derived.endpoints})
    if lost < max(1, safety.min) or lost * 100 <= safety.withdraw_percent * len(live):
        return
    if not {"withdraw", f"withdraw:{one.group}"} & {*allows}:
        words = f"{lost} of {len(live)} endpoints of {one.kind} group {one.group} would go"
        raise Unsafe(f"{words} (limit {safety.withdraw_percent:g}%)", f"--allow withdraw:{one.group}")


def _publish(run: Run, one: Comparison) -> str:
    published = run.publisher.publish(one.kind, one.group, lambda _: one.derived)
    what = f"+{len(one.add)} -{len(one.remove)}" if one.add or one.remove else "put right"
    return f"{one.kind} group {one.group}: {what} ({published.words()})"


def _pinned(observed: Observed) -> Mapping[str, str]:
    head = serials.newest(observed.heads)
    return head.members if head else {}


def _pin(run: Run, observed: Observed) -> None:
    """A replaced member is the one that the cluster knows from here on."""
    head = serials.newest(observed.heads)
    ids = {f"{one.kind}/{one.name}": one.id for one in _members(observed) if one.reachable and one.id}
    if head is not None and {**head.members, **ids} != {**head.members}:
        write_heads(run.fleet, dataclasses.replace(head, members={**head.members, **ids}), run.emit)


def _members(observed: Observed) -> Iterable[ParticipantState]:
    yield from observed.gateways.values()
    yield from observed.dns.values()


# --- a member that leaves ----------------------------------------------------------------------------------------


def retire(run: Run, member: Gateway | Dns, publisher: Publisher, *, message: str = "") -> str:
    """Its file goes, then what it holds of this cluster; a word about it. `publisher` speaks to this member alone. One
    that can't be told may go on serving what it had, and nobody will tell it any more.

    Raises Locked, InvalidTree (the tree needs it), Overtaken, VendorRefused; the tree is as it was then.
    """
    kind: Kind = "gateway" if isinstance(member, Gateway) else "dns"
    run.copy.prepare()
    observe(run.fleet)  # the lock is taken on hosts that are connected
    edit = Edit(run.directory)
    with run.lock():
        try:
            edit.file(f"{'gateways' if kind == 'gateway' else 'dns'}/{member.name}.xml", None)
            read_tree(run.directory)
            told = _emptied_there(publisher, kind, member.group, run)
        except K4tError:
            edit.undo()
            raise
        entry = {"at": run.at, "who": run.who, "message": message, "result": f"{kind} {member.name} removed"}
        run.copy.audit(entry)
    return f"removed {kind} {member.name}{told}"


def _emptied_there(publisher: Publisher, kind: Kind, group: str, run: Run) -> str:
    cluster = run.tree.cluster
    try:
        publisher.publish(kind, group, _emptied(Document(cluster.id, cluster.name, kind, group)))
    except Unreachable as error:
        return f"; it could not be told, and may still serve what it had: {error}"
    return "; it publishes nothing of this cluster any more"


# --- a cluster that is gone --------------------------------------------------------------------------------------


@value
class Estate:
    """What a cluster left on the members of one kind: its id and name, and by group what it still publishes."""

    cluster: str
    name: str
    documents: Mapping[str, Document]
    members: tuple[str, ...]

    @property
    def on(self) -> str:
        return ", ".join(self.members)


def estate(observed: Observed, kind: Kind, cluster: str) -> Estate:
    """By its name or id. Raises Usage when no member that answers knows it, or two have the name."""
    states = observed.gateways if kind == "gateway" else observed.dns
    left = [(state, other) for state in states.values() for other in state.others if not other.empty]
    mine = [(state, other) for state, other in left if cluster in (other.cluster, other.name)]
    ids = sorted({other.cluster for _, other in mine})
    if not ids:
        known = sorted({f"{other.name} ({other.cluster})" for _, other in left})
        raise Usage(f"no other cluster {cluster!r} publishes there", f"there is: {', '.join(known) or 'none'}")
    if len(ids) > 1:
        raise Usage(f"{len(ids)} clusters are called {cluster}", f"give the id: {', '.join(ids)}")
    newest: dict[str, Document] = {}
    for state, other in mine:
        if state.group not in newest or other.version > newest[state.group].version:
            newest[state.group] = other
    return Estate(ids[0], mine[0][1].name, newest, tuple(state.name for state, _ in mine))


def takeover(run: Run, kind: Kind, left: Estate, publisher: Publisher) -> list[str]:
    """Empty what a cluster publishes. `publisher` speaks for that cluster. Its own masters are fenced off: one that
    comes back finds itself overtaken, and derives anew what it runs. A sentence about each group.

    Raises Locked when one of its masters is at work now, ParticipantAway, and what publishing raises.
    """
    _check_asleep(run, left)
    told = []
    with run.lock():
        for group, document in sorted(left.documents.items()):
            published = publisher.publish(kind, group, _emptied(Document(left.cluster, left.name, kind, group)))
            count = len(document.endpoints)
            told.append(f"{kind} group {group}: {count} endpoints of {left.name} are gone ({published.words()})")
    return told


def _emptied(empty: Document) -> Callable[[Document | None], Document]:
    return lambda _: empty


def _check_asleep(run: Run, left: Estate) -> None:
    for host, transport in run.fleet.connected().items():
        try:
            holder = holder_of(transport, left.cluster)
        except K4tError as error:
            raise ParticipantAway(f"whether {left.name} is at work can't be asked: {error}") from error
        if holder is not None:
            raise Locked(
                f"cluster {left.name} is at work: {holder.words}",
                "it is not gone; let it remove what it publishes itself",
                host=str(host[0]),
            )
