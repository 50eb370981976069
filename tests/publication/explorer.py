"""Every order in which the commit protocol can go: the real transitions of `coordinator` (master) and `protocol`
(participant), with a network, disks and crashes that are decided one step at a time, each way in turn.

A `World` is one moment (see `world`), and `steps` gives all that can happen next:

    a participant handles a question, and its answer arrives | the question is lost | the answer is lost | the question
    arrives later than its asker waits | a record is written | it can't be written (and stands there, or not) | a run
    is killed (its questions die with it, or arrive late) | it is started again, with the working copy's log or without
    any | a participant is replaced by a blank one

Each fault has a budget. In every world the invariants of `world.check` hold; and from every world, once faults end, one
run of any working copy brings all participants to what it wants (`healed`), whatever still arrives late after it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from k4t.master.publication import coordinator
from k4t.master.publication import transaction as tx
from k4t.registrar import protocol
from k4t.registrar.errors import Clash, NotPrepared, Overtaken
from k4t.registrar.protocol import Kept, Stamp
from tests.publication.world import (
    CONTESTED,
    Faults,
    Late,
    Run,
    Setting,
    Violation,
    World,
    at_rest,
    check,
    check_step,
    logged,
    over,
    seen_by,
    spent,
    with_run,
    without,
)

FSYNC = True
"""False, a seeded bug: COMMIT is said to stand before it does, and is gone when its run is."""


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
        rest = without(world.late, late)
        after, _ = _handle(dataclasses.replace(world, late=rest), late.cluster, late.ask, late.seen)
        yield f"{late.ask.verb} arrives late at {late.ask.member}", after
    yield from _starting(setting, world)
    if world.faults.blank:
        for member in range(setting.members):
            blank = tuple(Kept() for _ in world.kept[member])
            kept = (*world.kept[:member], blank, *world.kept[member + 1 :])
            gone = dataclasses.replace(spent(world, "blank"), kept=kept, blanked=world.blanked | {member})
            yield f"{member} is replaced", gone


def _starting(setting: Setting, world: World) -> Iterator[tuple[str, World]]:
    if not world.faults.started:
        return
    for copy in range(len(setting.copies)):
        if not any(run.copy == copy and run.state is not None for run in world.runs):
            yield f"copy {copy} starts again", _start(setting, spent(world, "started"), copy)


def _writing(setting: Setting, world: World, place: int, record: tx.Append) -> Iterator[tuple[str, World]]:
    run = dataclasses.replace(world.runs[place], writes=None)
    before = with_run(world, place, run)
    written = logged(before, run.copy, record)
    yield f"{run.id} writes {record.record}", _feed(setting, written, place, tx.Logged(ok=True))
    if world.faults.unwritable:
        for there, base in (("and it stands", written), ("", before)):
            failed = _feed(setting, spent(base, "unwritable"), place, tx.Logged(ok=False))
            yield f"{run.id} can't write {record.record} {there}", failed


def _asking(setting: Setting, world: World, place: int, ask: tx.Ask) -> Iterator[tuple[str, World]]:
    run = world.runs[place]
    quiet = with_run(world, place, dataclasses.replace(run, waits=without(run.waits, ask)))
    silence = tx.Answer(ask.member, ask.verb, "away")
    what = f"{run.id} {ask.verb} {ask.member}"
    seen = seen_by(run, ask)
    handled, answer = _handle(quiet, run.cluster, ask, seen)
    yield what, _feed(setting, handled, place, answer)
    if world.faults.lost:
        poorer = spent(quiet, "lost")
        yield f"{what}: lost", _feed(setting, poorer, place, silence)
        if handled.kept != quiet.kept:
            lost = dataclasses.replace(handled, faults=poorer.faults)
            yield f"{what}: its answer is lost", _feed(setting, lost, place, silence)
    if world.faults.late and ask.verb not in ("observe", "verify"):
        late = dataclasses.replace(spent(quiet, "late"), late=(*quiet.late, Late(run.cluster, ask, seen)))
        yield f"{what}: late", _feed(setting, late, place, silence)


def _killing(world: World, place: int) -> Iterator[tuple[str, World]]:
    run = world.runs[place]
    poorer = spent(world, "killed")
    yield f"{run.id} is killed", with_run(poorer, place, over(run))
    floating = [ask for ask in run.waits if ask.verb not in ("observe", "verify")][: world.faults.late]
    if world.faults.late and floating:
        messages = tuple(Late(run.cluster, ask, seen_by(run, ask)) for ask in floating)
        faults = dataclasses.replace(poorer.faults, late=poorer.faults.late - len(messages))
        left = dataclasses.replace(poorer, late=(*poorer.late, *messages), faults=faults)
        yield f"{run.id} is killed, its questions still fly", with_run(left, place, over(run))


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
    check_step(before, after, ask, said)
    kept = (*mine[:cluster], after, *mine[cluster + 1 :])
    changed = dataclasses.replace(world, kept=(*world.kept[:member], kept, *world.kept[member + 1 :]))
    if ask.verb == "prepare" and ask.stamp is not None:
        if said == "yes":
            changed = dataclasses.replace(changed, prepared=world.prepared | {(ask.stamp.sha256, member)})
        elif said == "refused":
            changed = dataclasses.replace(changed, dead=world.dead | {ask.stamp.sha256})
    return changed, tx.Answer(ask.member, ask.verb, said, after if ask.verb == "observe" else tx.BLANK)


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
                return _feed(setting, with_run(world, place, run), place, tx.Logged(ok=True))
            run = dataclasses.replace(run, writes=action)
        else:
            return _finished(setting, with_run(world, place, run), place, action)
    return with_run(world, place, run)


def _finished(setting: Setting, world: World, place: int, done: tx.Done) -> World:
    run = world.runs[place]
    if done.result == "published" and done.stamp is not None and len(done.holders) == setting.members:
        world = dataclasses.replace(world, acknowledged=world.acknowledged | {done.stamp.sha256})
    if done.result == "refused" and done.stamp is not None:
        world = dataclasses.replace(world, dead=world.dead | {done.stamp.sha256})
    goes_on = run.state is not None and run.state.phase == "ready" and done.result in ("ready", "published")
    if run.state is None or not goes_on or not run.left:
        return with_run(world, place, over(run))
    place_of_next = tx.issue(run.state)
    sha256 = f"c{run.cluster}.{run.id}.{place_of_next.seq}" + (CONTESTED if setting.contested else "")
    stamp = dataclasses.replace(place_of_next, sha256=sha256)
    world = dataclasses.replace(world, issued=world.issued | {(sha256, stamp.parent)})
    world = with_run(world, place, dataclasses.replace(run, left=run.left - 1))
    return _feed(setting, world, place, tx.Publish(stamp, degraded=setting.degraded))


# --- once faults end -----------------------------------------------------------------------------------------------


def healed(setting: Setting, world: World) -> None:
    """From here, with no more faults, one run of any working copy brings all members to what it wants; recovering
    twice changes what recovering once did; and nothing that arrives late undoes it. Raises Violation."""
    calm = at_rest(world)
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
            calm = at_rest(world)
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
