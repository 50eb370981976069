"""Every order in which the commit protocol can go: the real transitions of `coordinator` (master) and `protocol`
(participant), with a network, disks and crashes that are decided one step at a time, each way in turn.

A `World` is one moment: what every participant keeps for every cluster, every run's state with the questions it waits
for, every working copy's log, and `late` messages that may still arrive. `steps` gives all that can happen next:

    a participant handles a question, and its answer arrives | the question is lost | the answer is lost | the question
    arrives later than its asker waits | a record is written | it can't be written (and stands there, or not) | a run
    is killed (its questions die with it, or arrive late) | it is started again, with the working copy's log or without
    any | a participant is replaced by a blank one

Each fault has a budget. In every world the invariants of `violations` hold; and from every world, once faults end, one
run of any working copy brings all participants to what it wants (`healed`), whatever still arrives late after it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from k4t.master.publication import coordinator
from k4t.master.publication import transaction as tx
from k4t.registrar import protocol
from k4t.registrar.errors import Clash, NotPrepared, Overtaken
from k4t.registrar.protocol import Kept, Stamp

T = TypeVar("T")
CONTESTED = "!"
"""Ends the sha256 of a document with the endpoint that two clusters want. What a document holds is in its name."""
FSYNC = True
"""False, a seeded bug: COMMIT is said to stand before it does, and is gone when its run is."""


@dataclass(frozen=True, slots=True)
class Late:
    """A question whose asker no longer waits for it."""

    cluster: int
    ask: tx.Ask
    seen: str


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one working copy. `waits`: what it asked and has no answer to; `writes`: the record it waits for.
    `state` None: it is over, or was killed. `left`: publications it still wants to make."""

    copy: int
    cluster: int
    id: str
    state: tx.State | None
    waits: tuple[tx.Ask, ...] = ()
    writes: tx.Append | None = None
    left: int = 0


@dataclass(frozen=True, slots=True)
class Faults:
    """How many more of each may happen."""

    lost: int = 0
    late: int = 0
    unwritable: int = 0
    killed: int = 0
    started: int = 0
    blank: int = 0


@dataclass(frozen=True, slots=True)
class World:
    """`kept[member][cluster]`; `logs[copy]`. `issued`: (sha256, parent). `acknowledged`: sha256 of what the whole group
    took; `dead`: of what was refused or aborted. `prepared`: (sha256, member) that once was staged. `blanked`: members
    that were replaced."""

    kept: tuple[tuple[Kept, ...], ...]
    runs: tuple[Run, ...]
    logs: tuple[tuple[tx.Append, ...], ...]
    faults: Faults
    late: tuple[Late, ...] = ()
    issued: frozenset[tuple[str, str]] = frozenset()
    acknowledged: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    prepared: frozenset[tuple[str, int]] = frozenset()
    blanked: frozenset[int] = frozenset()
    serial: int = 0


@dataclass(frozen=True, slots=True)
class Setting:
    """What is explored. `copies`: the cluster of each working copy; each begins one run of `publications`."""

    name: str
    copies: tuple[int, ...] = (0,)
    members: int = 2
    publications: int = 1
    degraded: bool = False
    contested: bool = False
    faults: Faults = field(default_factory=Faults)


class Violation(Exception):
    """An invariant doesn't hold: which, and the way there."""


# --- begin, and what can happen -------------------------------------------------------------------------------


def begin(setting: Setting) -> World:
    clusters = max(setting.copies) + 1
    blank = tuple(tuple(Kept() for _ in range(clusters)) for _ in range(setting.members))
    world = World(blank, (), tuple(() for _ in setting.copies), setting.faults)
    for copy in range(len(setting.copies)):
        world = _start(setting, world, copy)
    return world


def _start(setting: Setting, world: World, copy: int, *, only_recover: bool = False) -> World:
    """A new run; it reads its own working copy's log."""
    world = dataclasses.replace(world, serial=world.serial + 1)
    run_id = f"r{world.serial * 7 % 10}{world.serial}"  # as random as real ones: a later run's may sort first
    names = [str(member) for member in range(setting.members)]
    state = tx.start("gateway", "default", run_id, names, log=read(world.logs[copy]))
    run = Run(copy, setting.copies[copy], run_id, state, left=setting.publications)
    world = dataclasses.replace(world, runs=(*world.runs, run))
    return _feed(setting, world, len(world.runs) - 1, tx.Go(degraded=setting.degraded, only_recover=only_recover))


def read(log: tuple[tx.Append, ...]) -> tuple[int, tx.Open | None]:
    """The highest epoch, and the transaction that has no END."""
    highest = max((entry.stamp.epoch.number for entry in log), default=0)
    found: tx.Open | None = None
    for entry in log:
        found = None if entry.record == "end" else tx.Open(entry.stamp, entry.members, entry.record == "commit")
    return highest, found


def steps(setting: Setting, world: World) -> Iterator[tuple[str, World]]:
    """Everything that can happen next, in words, and the world after it."""
    for place, run in enumerate(world.runs):
        if run.state is None:
            continue
        if run.writes is not None:
            yield from _writing(setting, world, place, run.writes)
        for ask in run.waits:
            yield from _asking(setting, world, place, ask)
        if world.faults.killed:
            yield from _killing(world, place)
    for late in dict.fromkeys(world.late):
        rest = _without(world.late, late)
        after, _ = _handle(dataclasses.replace(world, late=rest), late.cluster, late.ask, late.seen)
        yield f"{late.ask.verb} arrives late at {late.ask.member}", after
    yield from _starting(setting, world)
    if world.faults.blank:
        for member in range(setting.members):
            blank = tuple(Kept() for _ in world.kept[member])
            kept = (*world.kept[:member], blank, *world.kept[member + 1 :])
            gone = dataclasses.replace(_spent(world, "blank"), kept=kept, blanked=world.blanked | {member})
            yield f"{member} is replaced", gone


def _starting(setting: Setting, world: World) -> Iterator[tuple[str, World]]:
    if not world.faults.started:
        return
    for copy in range(len(setting.copies)):
        if not any(run.copy == copy and run.state is not None for run in world.runs):
            yield f"copy {copy} starts again", _start(setting, _spent(world, "started"), copy)


def _writing(setting: Setting, world: World, place: int, record: tx.Append) -> Iterator[tuple[str, World]]:
    run = dataclasses.replace(world.runs[place], writes=None)
    before = _with_run(world, place, run)
    written = _logged(before, run.copy, record)
    yield f"{run.id} writes {record.record}", _feed(setting, written, place, tx.Logged(ok=True))
    if world.faults.unwritable:
        for there, base in (("and it stands", written), ("", before)):
            failed = _feed(setting, _spent(base, "unwritable"), place, tx.Logged(ok=False))
            yield f"{run.id} can't write {record.record} {there}", failed


def _asking(setting: Setting, world: World, place: int, ask: tx.Ask) -> Iterator[tuple[str, World]]:
    run = world.runs[place]
    quiet = _with_run(world, place, dataclasses.replace(run, waits=_without(run.waits, ask)))
    silence = tx.Answer(ask.member, ask.verb, "away")
    what = f"{run.id} {ask.verb} {ask.member}"
    seen = _seen(run, ask)
    handled, answer = _handle(quiet, run.cluster, ask, seen)
    yield what, _feed(setting, handled, place, answer)
    if world.faults.lost:
        poorer = _spent(quiet, "lost")
        yield f"{what}: lost", _feed(setting, poorer, place, silence)
        if handled.kept != quiet.kept:
            lost = dataclasses.replace(handled, faults=poorer.faults)
            yield f"{what}: its answer is lost", _feed(setting, lost, place, silence)
    if world.faults.late and ask.verb not in ("observe", "verify"):
        late = dataclasses.replace(_spent(quiet, "late"), late=(*quiet.late, Late(run.cluster, ask, seen)))
        yield f"{what}: late", _feed(setting, late, place, silence)


def _killing(world: World, place: int) -> Iterator[tuple[str, World]]:
    run = world.runs[place]
    poorer = _spent(world, "killed")
    yield f"{run.id} is killed", _with_run(poorer, place, _over(run))
    floating = [ask for ask in run.waits if ask.verb not in ("observe", "verify")][: world.faults.late]
    if world.faults.late and floating:
        messages = tuple(Late(run.cluster, ask, _seen(run, ask)) for ask in floating)
        faults = dataclasses.replace(poorer.faults, late=poorer.faults.late - len(messages))
        left = dataclasses.replace(poorer, late=(*poorer.late, *messages), faults=faults)
        yield f"{run.id} is killed, its questions still fly", _with_run(left, place, _over(run))


# --- a participant, and a run, take what comes ------------------------------------------------------------------


def _handle(world: World, cluster: int, ask: tx.Ask, seen: str) -> tuple[World, tx.Answer]:
    """What the participant makes of a question: the real transitions. Nothing of another cluster changes."""
    member = int(ask.member)
    mine = world.kept[member]
    said: tx.Said = "yes"
    after = before = mine[cluster]
    try:
        after = _transition(before, ask, seen, [kept for place, kept in enumerate(mine) if place != cluster])
    except Overtaken:
        said = "overtaken"
    except Clash:
        said = "refused"
    except NotPrepared:
        said = "lost"
    _check_step(before, after, ask, said)
    kept = (*mine[:cluster], after, *mine[cluster + 1 :])
    changed = dataclasses.replace(world, kept=(*world.kept[:member], kept, *world.kept[member + 1 :]))
    if ask.verb == "prepare" and ask.stamp is not None:
        if said == "yes":
            changed = dataclasses.replace(changed, prepared=world.prepared | {(ask.stamp.sha256, member)})
        elif said == "refused":
            changed = dataclasses.replace(changed, dead=world.dead | {ask.stamp.sha256})
    return changed, tx.Answer(ask.member, ask.verb, said, after if ask.verb == "observe" else tx.BLANK)


def _check_step(before: Kept, after: Kept, ask: tx.Ask, said: tx.Said) -> None:
    """What only a step can break."""
    if before.live and (after.live is None or after.live.version < before.live.version):
        raise Violation("a live epoch falls")
    if after.fence < before.fence:
        raise Violation("a fence falls")
    epoch = ask.stamp.epoch if ask.stamp else ask.epoch
    news = after.live != before.live or (after.staged is not None and after.staged != before.staged)
    if epoch < before.fence and news:
        raise Violation("a run that was overtaken changes something")
    again = before.live is not None and ask.stamp is not None and before.live.transaction == ask.stamp.transaction
    if ask.verb == "commit" and again and (said != "yes" or after != before):
        raise Violation("a commit can't be done twice")


def _transition(kept: Kept, ask: tx.Ask, seen: str, others: list[Kept]) -> Kept:
    if ask.verb == "fence":
        return protocol.fence(kept, ask.epoch)
    if ask.stamp is None or ask.verb in ("observe", "verify"):
        return kept
    if ask.verb == "prepare":
        contested = ask.stamp.sha256.endswith(CONTESTED)
        rivals = [one for one in protocol.rivals(others) if contested and one.sha256.endswith(CONTESTED)]
        return protocol.prepare(kept, ask.stamp, seen, [f"{one.sha256} has it" for one in rivals])
    if ask.verb == "commit":
        return protocol.commit(kept, ask.stamp.transaction, protocol.epoch_of(ask.stamp.transaction))
    return protocol.abort(kept, ask.stamp.transaction)


def _feed(setting: Setting, world: World, place: int, event: tx.Event) -> World:
    """One event for one run, and what it wants then; a run that is ready publishes, if it still wants to."""
    run = world.runs[place]
    if run.state is None:
        return world
    state, actions = coordinator.advance(run.state, event)
    run = dataclasses.replace(run, state=state)
    for action in actions:
        if isinstance(action, tx.Ask):
            run = dataclasses.replace(run, waits=(*run.waits, action))
        elif isinstance(action, tx.Append):
            if not FSYNC and action.record == "commit":  # the seeded bug: it is said to stand, and doesn't
                return _feed(setting, _with_run(world, place, run), place, tx.Logged(ok=True))
            run = dataclasses.replace(run, writes=action)
        else:
            return _finished(setting, _with_run(world, place, run), place, action)
    return _with_run(world, place, run)


def _finished(setting: Setting, world: World, place: int, done: tx.Done) -> World:
    run = world.runs[place]
    if done.result == "published" and done.stamp is not None and len(done.holders) == setting.members:
        world = dataclasses.replace(world, acknowledged=world.acknowledged | {done.stamp.sha256})
    if done.result == "refused" and done.stamp is not None:
        world = dataclasses.replace(world, dead=world.dead | {done.stamp.sha256})
    goes_on = run.state is not None and run.state.phase == "ready" and done.result in ("ready", "published")
    if run.state is None or not goes_on or not run.left:
        return _with_run(world, place, _over(run))
    place_of_next = tx.issue(run.state)
    sha256 = f"c{run.cluster}.{run.id}.{place_of_next.seq}" + (CONTESTED if setting.contested else "")
    stamp = dataclasses.replace(place_of_next, sha256=sha256)
    world = dataclasses.replace(world, issued=world.issued | {(sha256, stamp.parent)})
    world = _with_run(world, place, dataclasses.replace(run, left=run.left - 1))
    return _feed(setting, world, place, tx.Publish(stamp, degraded=setting.degraded))


# --- what must hold ----------------------------------------------------------------------------------------------


def check(setting: Setting, world: World) -> None:
    """Raises Violation. What only a step can break is checked where the step is made."""
    parents = dict(world.issued)
    for number, member in enumerate(world.kept):
        for cluster, kept in enumerate(member):
            _check_kept(world, cluster, kept, parents)
            if kept.live is not None and not setting.degraded:
                _check_all_prepared(setting, world, kept.live.sha256)
            if kept.live is not None and number not in world.blanked:
                for sha256 in world.acknowledged:
                    if sha256.startswith(f"c{cluster}.") and sha256 not in _line(kept.live.sha256, parents):
                        raise Violation("what the whole group acknowledged is lost")
            elif number not in world.blanked and any(one.startswith(f"c{cluster}.") for one in world.acknowledged):
                raise Violation("what the whole group acknowledged is lost")
        contested = [kept for kept in member if kept.live is not None and kept.live.sha256.endswith(CONTESTED)]
        if len(contested) > 1:
            raise Violation("two clusters publish one address")


def _check_kept(world: World, cluster: int, kept: Kept, parents: dict[str, str]) -> None:
    for stamp in (kept.live, kept.staged):
        if stamp is None:
            continue
        if stamp.sha256 not in parents or not stamp.sha256.startswith(f"c{cluster}."):
            raise Violation("what is live or staged is not a document that its cluster issued")
        if stamp.epoch > kept.fence:
            raise Violation("an accepted operation left the fence below its epoch")
    if kept.staged is not None and kept.staged.epoch < kept.fence:
        raise Violation("a fence leaves staged what is older")
    if kept.live is not None and kept.live.sha256 in world.dead:
        raise Violation("a refused or aborted document is live")


def _check_all_prepared(setting: Setting, world: World, sha256: str) -> None:
    """Nobody holds what not everybody was ready for: `refuse` leaves the others as they are."""
    if any((sha256, member) not in world.prepared for member in range(setting.members)):
        raise Violation("a document is live that not every member had prepared")


def _line(sha256: str, parents: dict[str, str]) -> list[str]:
    found = []
    while sha256:
        found.append(sha256)
        sha256 = parents.get(sha256, "")
    return found


def healed(setting: Setting, world: World) -> None:
    """From here, with no more faults, one run of any working copy brings all members to what it wants; recovering
    twice changes what recovering once did; and nothing that arrives late undoes it. Raises Violation."""
    calm = _calm(world)
    peaceful = dataclasses.replace(setting, publications=1, degraded=False, contested=False, faults=Faults())
    for copy, cluster in enumerate(setting.copies):
        once = _alone(peaceful, calm, copy, recover=True)
        twice = _alone(peaceful, once, copy, recover=True)
        check(setting, once)
        if (once.kept, once.logs) != (twice.kept, twice.logs):
            raise Violation("recovering twice is not recovering once")
        after = _alone(peaceful, calm, copy, recover=False)
        check(setting, after)
        live = {member[cluster].live for member in after.kept}
        newest = f"c{cluster}.{after.runs[-1].id}."
        if len({stamp.sha256 if stamp else "" for stamp in live}) != 1 or not _names(live, newest):
            raise Violation("one quiet run does not bring all members to what it wants")
        for order in itertools.permutations(after.late):
            later = after
            for late in order:
                later, _ = _handle(later, late.cluster, late.ask, late.seen)
            if [member[cluster].live for member in later.kept] != [member[cluster].live for member in after.kept]:
                raise Violation("what arrives late undoes a newer publication")


def _calm(world: World) -> World:
    """Every run is over, and no more faults happen."""
    return dataclasses.replace(world, faults=Faults(), runs=(), late=tuple(sorted(world.late, key=repr)))


def _names(live: set[Stamp | None], prefix: str) -> bool:
    return all(stamp is not None and stamp.sha256.startswith(prefix) for stamp in live)


def _alone(setting: Setting, world: World, copy: int, *, recover: bool) -> World:
    """One run without a fault, to its end."""
    world = _start(setting, world, copy, only_recover=recover)
    place = len(world.runs) - 1
    for _ in range(200):
        run = world.runs[place]
        if run.state is None:
            return world
        if run.writes is not None:
            world = next(_writing(setting, world, place, run.writes))[1]
        elif run.waits:
            world = next(_asking(setting, world, place, run.waits[0]))[1]
        else:
            raise Violation("a run waits for nothing and is not over")
    raise Violation("a run doesn't end")


# --- the search ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    worlds: int
    steps: int
    complete: bool


def explore(setting: Setting, most: int = 10_000_000) -> Found:
    """Breadth first, so that the way to a violation is a shortest one. Raises Violation with that way in words."""
    first = begin(setting)
    origin: dict[World, tuple[World | None, str]] = {_key(first): (None, "begin")}
    waiting = deque([first])
    count = 0
    calmed: set[World] = set()  # what a quiet run makes of a world doesn't depend on the runs under way
    while waiting:
        world = waiting.popleft()
        try:
            check(setting, world)
            calm = _calm(world)
            if calm not in calmed:
                calmed.add(calm)
                healed(setting, calm)
            for what, after in steps(setting, world):
                count += 1
                key = _key(after)
                if key not in origin:
                    origin[key] = (_key(world), what)
                    waiting.append(after)
        except Violation as violation:
            raise Violation(f"{violation}\n  " + "\n  ".join(_way(origin, world))) from None
        if len(origin) > most:
            return Found(len(origin), count, complete=False)
    return Found(len(origin), count, complete=True)


def _key(world: World) -> World:
    """Without what makes no difference: runs that are over, and the order of late messages."""
    alive = tuple(run for run in world.runs if run.state is not None)
    return dataclasses.replace(world, runs=alive, late=tuple(sorted(world.late, key=repr)))


def _way(origin: dict[World, tuple[World | None, str]], world: World) -> list[str]:
    words = []
    at: World | None = _key(world)
    while at is not None:
        at, what = origin[at]
        words.append(what)
    return words[::-1]


# --- small things --------------------------------------------------------------------------------------------------


def _logged(world: World, copy: int, record: tx.Append) -> World:
    logs = (*world.logs[:copy], (*world.logs[copy], record), *world.logs[copy + 1 :])
    dead = world.dead | {record.stamp.sha256} if record.closed == "aborted" else world.dead
    return dataclasses.replace(world, logs=logs, dead=dead)


def _seen(run: Run, ask: tx.Ask) -> str:
    """What this run saw live on that member."""
    members = run.state.members if run.state else ()
    return next((one.live.sha256 for one in members if one.name == ask.member and one.live), "")


def _spent(world: World, fault: str) -> World:
    faults = dataclasses.replace(world.faults, **{fault: getattr(world.faults, fault) - 1})
    return dataclasses.replace(world, faults=faults)


def _with_run(world: World, place: int, run: Run) -> World:
    return dataclasses.replace(world, runs=(*world.runs[:place], run, *world.runs[place + 1 :]))


def _over(run: Run) -> Run:
    return dataclasses.replace(run, state=None, waits=(), writes=None, left=0)


def _without(items: tuple[T, ...], one: T) -> tuple[T, ...]:
    place = items.index(one)
    return (*items[:place], *items[place + 1 :])
