"""The waves of one app: what comes in together, what goes then, and never too little in service.

Promises: no wave lowers the app's availability below min(now, desired - max-unavailable); at most two generations of
a replica; never two at a time where that could mean two on the same data (`recreate`, writable node volumes).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from k4t.master.planning.assess import Assessment, Need
from k4t.master.planning.capacity import Demand, Freed, Host, demand, pin_of
from k4t.master.planning.goback import going_back, put_back
from k4t.master.planning.graph import Entry, Wave, removal_of, stop_of
from k4t.master.planning.placement import Board, Picker, closed, forbids
from k4t.master.planning.plan import Slot, Unschedulable
from k4t.master.planning.survey import slot_of
from k4t.model.state import Container

Pair = tuple[Need, Container]


@dataclass(slots=True)
class Arranged:
    """`abandoned`: replicas that would start without the data they left on another node: (replica, node). `retire`:
    stopped containers that are kept until all waves are done, so that they can be put back."""

    waves: list[Wave] = field(default_factory=list)
    unschedulable: list[Unschedulable] = field(default_factory=list)
    not_done: list[str] = field(default_factory=list)
    abandoned: list[tuple[str, str]] = field(default_factory=list)
    retire: list[Container] = field(default_factory=list)


def early(found: Assessment) -> list[tuple[Container, str]]:
    """What goes first, since nothing that serves depends on it: surplus, what stands on dead nodes, extra generations.

    Surplus stays until its successors serve where it is needed to stay above the minimum.
    """
    gone = [(container, f"{container.node} is dead") for container in found.doomed]
    later = {id(keep) for keep in going_back(found)}
    for keep in found.keeps:
        if (found.exclusive or not keep.action) and id(keep) not in later:
            gone += [(container, found.left_over) for container in keep.leftovers if not found.retains(container)]
    doomed = {container.id for container in found.doomed}
    extra = (container for need in found.needs for container in need.extra if container.id not in doomed)
    gone += [(container, "was left by an unfinished update") for container in extra]
    return gone + (found.surplus if not keeps_surplus(found) else [])


def keeps_surplus(found: Assessment) -> bool:
    running = sum(container.running for container, _ in found.surplus)
    now = found.available + running
    return bool(running) and found.available < min(now, _minimum(found))


def _minimum(found: Assessment) -> int:
    return max(0, found.desired - _unavailable(found))


def _unavailable(found: Assessment) -> int:
    allowed = found.app.update.max_unavailable.of(found.desired, round_up=False)
    return max(1, allowed) if found.app.update.strategy == "recreate" else allowed


def arrange(found: Assessment, board: Board, picker: Picker, *, start_after: tuple[str, ...]) -> Arranged:
    """`picker` is of this app; `start_after`: steps of the apps it depends on. Early removals are not in it."""
    result = Arranged()
    placer = _Placer(found, board, picker, result)
    missing = [need for need in found.needs if need.old is None]
    halted = [(need, need.old) for need in found.needs if need.old is not None and not need.old.running]
    serving = [(need, need.old) for need in found.needs if need.old is not None and need.old.running]
    before, bring = _first(found, placer, missing, halted, start_after)
    available = found.available + len(bring) - _counted_twice(found)
    late = _late(found, available)
    result.retire = [c for keep in found.keeps for c in keep.leftovers if found.retains(c)]
    if before:
        result.waves.append(Wave((), before, "does not run", flush=True))
    if bring or late:
        result.waves.append(Wave(bring, late, _cause(bring, found)))
    placer.release(late)
    put_back(found, result.waves, going_back(found), _budget(found, available))
    _replace(found, placer, serving, available=available)
    return result


def _counted_twice(found: Assessment) -> int:
    """Replicas in service whose newer container is brought in too."""
    later = {id(keep) for keep in going_back(found)}
    return sum(
        bool(keep.action) and (keep.container.running or any(c.running for c in keep.leftovers))
        for keep in found.keeps
        if id(keep) not in later
    )


def _late(found: Assessment, available: int) -> list[Container]:
    """What goes once its successors serve. Without enough of them, surplus stays: the last of the list, running."""
    later = {id(keep) for keep in going_back(found)}
    ours = [] if found.exclusive else [keep for keep in found.keeps if keep.action and id(keep) not in later]
    late = [c for keep in ours for c in keep.leftovers if not found.retains(c)]
    if not keeps_surplus(found):
        return late
    running = [container for container, _ in found.surplus if container.running]
    spared = max(0, min(found.available + len(running), _minimum(found)) - available)
    stay = {container.id for container in running[len(running) - spared :]}
    return late + [container for container, _ in found.surplus if container.id not in stay]


def _cause(bring: Sequence[Entry], found: Assessment) -> str:
    if bring:
        return bring[0].cause
    return found.surplus[0][1] if found.surplus else found.left_over


def _first(
    found: Assessment, placer: _Placer, missing: list[Need], halted: list[Pair], start_after: tuple[str, ...]
) -> tuple[list[Container], list[Entry]]:
    """All that adds to what serves. What does not run goes first; its successor waits for that alone."""
    before: list[Container] = []
    bring: list[Entry] = []
    later = {id(keep) for keep in going_back(found)}
    for keep in found.keeps:
        if keep.action and id(keep) not in later:
            gone = [c for c in keep.leftovers if not found.retains(c)]
            cleared = tuple(removal_of(c) for c in gone) if found.exclusive else ()
            slot = slot_of(keep.container)
            bring.append(Entry(slot, keep.cause, keep.container, keep.action, cleared, start_after))
    for need, old in halted:
        entry = placer.place(need, instead_of=old)
        if entry is not None:
            before.append(old)
            bring.append(_starting(entry, start_after))
    pinned = {str(pin.replica) for pin in found.app.placement.pins}
    for need in sorted(missing, key=lambda need: need.replica not in pinned) if pinned else missing:
        entry = placer.place(need)
        if entry is not None:
            bring.append(_starting(entry, start_after))
    return before, bring


def _starting(entry: Entry, start_after: tuple[str, ...]) -> Entry:
    if not start_after:
        return entry
    return dataclasses.replace(entry, start_after=start_after)


def _replace(found: Assessment, placer: _Placer, serving: list[Pair], *, available: int) -> None:
    surge = 0 if found.exclusive else found.app.update.max_surge.of(found.desired, round_up=True)
    rest = _surge(placer, serving, surge) if surge > 0 else serving
    allowed = _unavailable(found)
    budget = _budget(found, available)
    if budget > 0:
        _stop_first(placer, rest, budget)
        return
    _stop_first(placer, [pair for pair in rest if pair[0].may_stop], 1)
    for need, _ in rest:
        if not need.may_stop:
            placer.give_up(need, allowed)


def _budget(found: Assessment, available: int) -> int:
    """How many may be out of service at a time."""
    allowed = _unavailable(found)
    now = found.available + sum(container.running for container, _ in found.surplus)
    return min(allowed, available - min(now, found.desired - allowed))


def _surge(placer: _Placer, serving: list[Pair], size: int) -> list[Pair]:
    """New before old, `size` at a time. Returns the replicas that find no second place."""
    waves, rest = placer.result.waves, list[Pair]()
    entries: list[Entry] = []
    olds: list[Container] = []

    def close() -> None:
        gone = {id for old in waves[-1].out for id in (removal_of(old), stop_of(old))} if waves else set()
        if any(id in gone for entry in entries for id in entry.after):
            waves[-1].flush = True
        retire = placer.found.retiring(olds)
        waves.append(Wave(tuple(entries), tuple(olds), entries[0].cause, retire=retire))
        placer.release(olds)
        entries.clear()
        olds.clear()

    for need, old in serving:
        entry = placer.place(need)
        if entry is None:
            rest.append((need, old))
            continue
        entries.append(entry)
        olds.append(old)
        if len(entries) == size:
            close()
    if entries:
        close()
    return rest


def _stop_first(placer: _Placer, serving: list[Pair], size: int) -> None:
    """Old before new, `size` at a time: each wave brings in what the one before it made room for."""
    entries: list[Entry] = []
    olds: list[Container] = []
    previous: tuple[Entry, ...] = ()
    waves = placer.result.waves

    def close() -> None:
        nonlocal previous
        if waves:
            waves[-1].flush = True
        retire = placer.found.retiring(olds)
        waves.append(Wave(previous, tuple(olds), entries[0].cause, flush=True, retire=retire))
        previous = tuple(entries)
        entries.clear()
        olds.clear()

    for need, old in serving:
        entry = placer.place(need, instead_of=old)
        if entry is None:
            continue
        entries.append(entry)
        olds.append(old)
        if len(entries) == size:
            close()
    if entries:
        close()
    if previous:
        waves.append(Wave(previous, (), previous[0].cause))


class _Placer:
    """Finds places for the replicas of one app, and says which removals a place depends on."""

    def __init__(self, found: Assessment, board: Board, picker: Picker, result: Arranged) -> None:
        self.found, self.board, self.picker, self.result = found, board, picker, result
        self.refusal: dict[object, tuple[str, ...]] = {}
        self.unpinned = None if found.app.placement.pins else demand(found.app, "")

    def place(self, need: Need, instead_of: Container | None = None) -> Entry | None:
        """Takes the place. `instead_of`: a container that is removed before; without it, both stand for a while.
        When there is none: None, and with `instead_of` or nothing to replace, it is unschedulable."""
        app = self.found.app
        wanted = self._demand(need)
        if instead_of is not None:
            self._give_back(instead_of)
        host = self._host(need, wanted)
        if host is None:
            if instead_of is not None:
                self._take_again(instead_of)
            if (instead_of is not None or need.old is None) and not need.to:
                self.refuse(need, self._reasons(need, wanted))
            return None
        if need.bound_to and host.name != need.bound_to:
            self.result.abandoned.append((need.replica, need.bound_to))
        after = [removal_of(container) for container in need.extra]
        after += [self.found.vacated(instead_of)] if instead_of is not None else []
        after += host.waits_for(app.name, wanted)
        slot = Slot(app.name, need.replica, need.generation, host.name)
        replaced = host.instead_of(app.name, wanted)
        self.picker.take(host, wanted, f"{app.name}.{need.replica}")
        return Entry(slot, need.cause, after=tuple(dict.fromkeys(after)), instead_of=replaced)

    def release(self, containers: Sequence[Container]) -> None:
        for container in containers:
            self._give_back(container)

    def give_up(self, need: Need, allowed: int) -> None:
        """No second place for it, and its only one may not be emptied now."""
        if need.to:
            return
        label = f"{self.found.name}.{need.replica}"
        if self.found.unknown and allowed > 0:
            away = ", ".join(sorted({node for _, node in self.found.unknown if node})) or "an unreachable node"
            self.result.not_done.append(
                f"{label} stays as it is ({need.cause}): what is on {away} counts as unavailable, "
                f"and max-unavailable allows {allowed}"
            )
            return
        reasons = self._reasons(need, self._demand(need))
        self.refuse(
            need, (*reasons, 'no second place to start before it stops; max-unavailable="1" lets it stop first')
        )

    def refuse(self, need: Need, reasons: tuple[str, ...]) -> None:
        self.result.unschedulable.append(Unschedulable(self.found.name, need.replica, reasons))

    def _demand(self, need: Need) -> Demand:
        return self.unpinned or demand(self.found.app, need.replica)

    def _give_back(self, container: Container) -> None:
        host = self.board.hosts[container.node]
        stopped = stop_of(container) if self.found.retires(container) else ""
        given = self.board.demand_of(container)
        freed = Freed(container.app, given, removal_of(container), stopped, container.name)
        self.picker.give_back(host, given, freed)

    def _take_again(self, container: Container) -> None:
        host = self.board.hosts[container.node]
        self.picker.take_again(host, self.board.demand_of(container), container.name)

    def _host(self, need: Need, wants: Demand) -> Host | None:
        only = self._only(need)
        if only is not None:
            host = self.board.hosts.get(only)
            return (
                host if host is not None and not self._bars(host, need) and not self.picker.lacks(host, wants) else None
            )
        stay = self.board.hosts.get(need.old.node) if need.old is not None else None
        if stay is not None and not closed(stay) and not self._bars(stay, need) and not self.picker.lacks(stay, wants):
            return stay
        return self.picker.pick(wants)

    def _only(self, need: Need) -> str | None:
        """The one node that it may go to; None when there is a choice."""
        app = self.found.app
        if app.per_node or need.to:
            return need.to or need.replica
        pin = pin_of(app, need.replica) if app.placement.pins else None
        if pin is not None and pin.node:
            return pin.node
        if need.bound_to in self.board.hosts:
            host = self.board.hosts[need.bound_to]
            leaves = host.node.availability in ("drained", "dead") or forbids(app, self.found.image, host)
            return None if leaves else need.bound_to
        return None

    def _bars(self, host: Host, need: Need) -> str:
        """A cordoned node takes nothing new, but what belongs there may be replaced there."""
        why = closed(host)
        if why == "cordoned" and need.old is not None and need.old.node == host.name:
            why = ""
        return why or forbids(self.found.app, self.found.image, host)

    def _reasons(self, need: Need, wants: Demand) -> tuple[str, ...]:
        only = self._only(need)
        if only is not None:
            host = self.board.hosts.get(only)
            why = "is not in the tree" if host is None else self._bars(host, need) or self.picker.lacks(host, wants)
            return (f"{only}: {why or 'in use'}",)
        if wants not in self.refusal:
            self.refusal[wants] = self.picker.reasons(wants)
        return self.refusal[wants]
