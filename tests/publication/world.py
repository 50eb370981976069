"""One moment of the commit protocol, for `explorer`: what every participant and every working copy keeps, whoever is at
work, and what must hold then.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TypeVar

from k4t.master.publication import transaction as tx
from k4t.registrar.protocol import Kept

T = TypeVar("T")
CONTESTED = "!"
"""Ends the sha256 of a document with the endpoint that two clusters want. What a document holds is in its name."""


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


# --- what becomes of one -------------------------------------------------------------------------------------------


def logged(world: World, copy: int, record: tx.Append) -> World:
    logs = (*world.logs[:copy], (*world.logs[copy], record), *world.logs[copy + 1 :])
    dead = world.dead | {record.stamp.sha256} if record.closed == "aborted" else world.dead
    return dataclasses.replace(world, logs=logs, dead=dead)


def seen_by(run: Run, ask: tx.Ask) -> str:
    """What this run saw live on that member."""
    members = run.state.members if run.state else ()
    return next((one.live.sha256 for one in members if one.name == ask.member and one.live), "")


def spent(world: World, fault: str) -> World:
    faults = dataclasses.replace(world.faults, **{fault: getattr(world.faults, fault) - 1})
    return dataclasses.replace(world, faults=faults)


def with_run(world: World, place: int, run: Run) -> World:
    return dataclasses.replace(world, runs=(*world.runs[:place], run, *world.runs[place + 1 :]))


def over(run: Run) -> Run:
    return dataclasses.replace(run, state=None, waits=(), writes=None, left=0)


def without(items: tuple[T, ...], one: T) -> tuple[T, ...]:
    place = items.index(one)
    return (*items[:place], *items[place + 1 :])


def at_rest(world: World) -> World:
    """Every run is over, and no more faults happen."""
    return dataclasses.replace(world, faults=Faults(), runs=(), late=tuple(sorted(world.late, key=repr)))


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


def check_step(before: Kept, after: Kept, ask: tx.Ask, said: tx.Said) -> None:
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
