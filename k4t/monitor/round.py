"""The story of one round: look → remember → decide → act → tell → show. `monitor run` does it again and again, `monitor
check --act` once: the same code.

Nothing here waits for long: what acts goes on in threads of its own, and what became of it is told by a later round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from k4t.errors import K4tError
from k4t.master.fleet import Fleet
from k4t.model.value import value
from k4t.monitor import check, eventlog, events, history, statefile
from k4t.monitor.acting.action import Outcome
from k4t.monitor.check import Looked
from k4t.monitor.events import Event
from k4t.monitor.history import History

if TYPE_CHECKING:
    from k4t.master.publication.redolog import LogPlace

Show = Callable[[Looked], None]
"""Writes a page or a file of values. Raises K4tError."""


class Tell(Protocol):
    """Who tells people. Returns within a second, whatever happens; notes are worth a log line."""

    def round(self, looked: Looked, outcomes: Sequence[Outcome], now_s: float) -> tuple[str, ...]: ...
    def close(self, patience_s: float) -> tuple[str, ...]: ...


class Acts(Protocol):
    """Who decides and acts. `round` returns what became of actions, this round's and earlier ones', and notes."""

    def round(self, fleet: Fleet, looked: Looked, now_s: float) -> tuple[tuple[Outcome, ...], tuple[str, ...]]: ...


@value
class Round:
    """What came of one. `notes`: what is the matter with the monitor itself."""

    looked: Looked
    events: tuple[Event, ...]
    notes: tuple[str, ...] = ()
    outcomes: tuple[Outcome, ...] = ()


@dataclass
class Course:
    """What goes on from one round to the next. `acts` None: it only looks."""

    file: Path
    log: Path
    history: History
    acts: Acts | None = None
    tell: Tell | None = None
    shows: Sequence[Show] = field(default=())

    def round(self, fleet: Fleet, log: LogPlace | None, now_s: float) -> Round:
        """Raises nothing that a host, a command or a disk could raise."""
        looked, happened, notes = self.look(fleet, log, now_s)
        outcomes: tuple[Outcome, ...] = ()
        if self.acts is not None:
            outcomes, more = self.acts.round(fleet, looked, now_s)
            notes += (*more, *self.done(outcomes))
            happened += tuple(events.of_outcome(one) for one in outcomes)
        if self.tell is not None:
            notes += self.tell.round(looked, outcomes, now_s)
        for show in self.shows:
            try:
                show(looked)
            except K4tError as error:
                notes += (str(error),)
        return Round(looked, happened, notes, outcomes)

    def done(self, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
        """Remember what became of actions; what is to be said of the remembering."""
        return _logged(self.log, [events.of_outcome(one) for one in outcomes])

    def look(
        self, fleet: Fleet, log: LogPlace | None, now_s: float, *, has_tree: bool = True
    ) -> tuple[Looked, tuple[Event, ...], tuple[str, ...]]:
        """One check that is remembered: what it saw, what of that is new, and what is to be said of the remembering."""
        looked = check.check(fleet, self.history, at_s=now_s, log=log, has_tree=has_tree)
        happened = tuple(events.changes(self.history, looked.judgement, now_s))
        notes = _logged(self.log, happened)
        self.history = looked.judgement.history
        try:
            history.save(self.file, self.history)
        except K4tError as error:
            notes += (f"the next check can't build on this one: {error}",)
        return looked, happened, notes


def course(cluster_id: str) -> Course:
    """Where it was left off."""
    file = statefile.path(cluster_id)
    return Course(file, eventlog.path(cluster_id), history.load(file))


def _logged(file: Path, happened: Sequence[Event]) -> tuple[str, ...]:
    try:
        eventlog.append(file, happened)
    except K4tError as error:
        return (f"what happened is not remembered: {error}",)
    return ()
