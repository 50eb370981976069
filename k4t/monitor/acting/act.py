"""Decides each round what is to be done, and does it in threads of its own: what hangs or fails holds up nothing.

What is begun is written down before it is done, and what can't be written down isn't done: limits outlive a restart.
Endpoints are taken out and given back at once, by the monitor itself; the rest is handed over to the master in one go,
and what comes while that is under way goes with the next.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from k4t import failpoints
from k4t.errors import K4tError
from k4t.master.fleet import Fleet
from k4t.model.value import value
from k4t.monitor.acting import acts, limits
from k4t.monitor.acting.action import OWN, Action, Outcome
from k4t.monitor.acting.policies import Decision, adopted, decide, settled
from k4t.monitor.check import Looked

OWN_S = 60.0
"""An endpoint is out, or given back, within this, or that has failed."""
REMIND_S = 10.0
PATIENCE_S = 3.0
"""So long a round waits for what it began, to tell of it itself."""
MAX_THREADS = 32
MAX_WAITING = 200
Wants = Callable[[Fleet, Looked, float], tuple[Action, ...]]
"""What else wants something: scaling, spare nodes. Bounded; raises K4tError alone."""


@value
class Order:
    """An action for the master, and the id of its intent, which is known before it is queued."""

    action: Action
    id: str


@value
class Handed:
    """What became of one that was handed over. `intent`: its id, where it is queued."""

    result: Literal["done", "queued", "failed"]
    words: str = ""
    intent: str = ""


@value
class Handing:
    """By order. `note`: what is worth a log line besides."""

    results: tuple[Handed, ...] = ()
    note: str = ""


class Hands(Protocol):
    """What really does it; each may take long and fail. `longest_s`: `hand_over` ends within this."""

    @property
    def longest_s(self) -> float: ...

    def pending(self) -> frozenset[str]:
        """Ids of intents from here that the master has not taken yet, as far as that is known; asks nobody."""
        ...

    def withdraw(self, looked: Looked, action: Action) -> str:
        """Take a node's endpoints out everywhere; in words what that was. Raises K4tError."""
        ...

    def give_back(self, looked: Looked, action: Action) -> str: ...

    def hand_over(self, looked: Looked, orders: Sequence[Order]) -> Handing:
        """Have the master do them, waking it; with none, have it look at what is still pending. Raises K4tError where
        nothing was handed over."""
        ...


@dataclass
class _Task:
    actions: tuple[Action, ...]
    future: Future[Handing]
    until_s: float


class Executor:
    """Does actions in threads. `clock`: seconds that only grow."""

    def __init__(self, hands: Hands, clock: Callable[[], float] = time.monotonic) -> None:
        self._hands = hands
        self._clock = clock
        self._tasks: list[_Task] = []
        self._waiting: list[Order] = []
        self.notes: list[str] = []
        self._handing: _Task | None = None
        self._looked: Looked | None = None
        self._under_way: frozenset[str] = frozenset()
        self._reminded_s = clock()

    @property
    def under_way(self) -> bool:
        return bool(self._tasks or self._waiting or self._handing)

    def begin(self, looked: Looked, orders: Iterable[Order]) -> None:
        for order in orders:
            if order.action.verb in OWN:
                self._tasks.append(self._task((order.action,), OWN_S, partial(self._own, looked, order.action)))
            elif len(self._waiting) < MAX_WAITING:
                self._waiting.append(order)
        self._looked = looked
        self._hand_over()

    def pending(self) -> frozenset[str]:
        """What waits here, or for the master."""
        return self._hands.pending() | {order.id for order in self._waiting} | self._under_way

    def ended(self, now_s: float, *, patience_s: float = 0.0, all: bool = False) -> tuple[Outcome, ...]:
        """What has ended, or is given up. Waits for what the monitor does itself; with `all` for what it handed over
        too."""
        began_s, found = self._clock(), list[Outcome]()
        while True:
            self._hand_over()
            futures = [task.future for task in (*self._tasks, *([self._handing] if self._handing and all else []))]
            left_s = max(0.0, began_s + patience_s - self._clock())
            if futures and left_s:
                wait(futures, timeout=min(left_s, 1.0))
            found += self._collected(now_s)
            if left_s <= 0.0 or not (self.under_way if all else self._tasks):
                return tuple(found)

    def _own(self, looked: Looked, action: Action) -> Handing:
        work = self._hands.withdraw if action.verb == "withdraw" else self._hands.give_back
        return Handing((Handed("done", work(looked, action)),))

    def _hand_over(self) -> None:
        """What waits, in one go; where nothing does, the master is reminded of what it has not taken yet."""
        if self._handing is not None or self._looked is None or not (self._waiting or self._reminds()):
            return
        orders, self._waiting = tuple(self._waiting), []
        self._under_way = frozenset(order.id for order in orders)
        self._reminded_s = self._clock()
        call = partial(self._hands.hand_over, self._looked, orders)
        self._handing = self._task(tuple(order.action for order in orders), self._hands.longest_s, call)

    def _reminds(self) -> bool:
        return self._clock() - self._reminded_s >= REMIND_S and bool(self._hands.pending())

    def _task(self, actions: tuple[Action, ...], longest_s: float, call: Callable[[], Handing]) -> _Task:
        future: Future[Handing] = Future()
        if sum(thread.name == THREAD for thread in threading.enumerate()) >= MAX_THREADS:
            future.set_exception(K4tError(f"{MAX_THREADS} actions are under way and don't end"))
        else:
            threading.Thread(target=_run, args=(future, call), name=THREAD, daemon=True).start()
        return _Task(actions, future, self._clock() + longest_s)

    def _collected(self, now_s: float) -> list[Outcome]:
        found: list[Outcome] = []
        for task in [*self._tasks, *([self._handing] if self._handing else [])]:
            if not task.future.done() and self._clock() < task.until_s:
                continue
            outcomes, note = _outcomes(task, now_s)
            found += outcomes
            self.notes += [note] if note else []
            if task is self._handing:
                self._handing, self._under_way = None, frozenset()
            self._tasks = [one for one in self._tasks if one is not task]
        return found


THREAD = "monitor acts"


def _run(future: Future[Handing], call: Callable[[], Handing]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - whoever collects it says so
        future.set_exception(error)


def _outcomes(task: _Task, now_s: float) -> tuple[list[Outcome], str]:
    """Of each action; and what is to be said besides."""
    error = task.future.exception() if task.future.done() else K4tError("it has not ended in time")
    if error is not None:
        words = str(error) if isinstance(error, K4tError) else f"internal error: {type(error).__name__}: {error}"
        return [Outcome(one, "failed", now_s, words) for one in task.actions], "" if task.actions else words
    handing = task.future.result()
    outcomes = [
        Outcome(one, what.result, now_s, what.words, what.intent)
        for one, what in zip(task.actions, handing.results, strict=True)
    ]
    return outcomes, handing.note


class Acting:
    """What `round.Course` acts by."""

    def __init__(self, file: Path, executor: Executor, new_id: Callable[[], str], wants: Sequence[Wants] = ()) -> None:
        self._file = file
        self._executor = executor
        self._new_id = new_id
        self.wants = wants
        memory, why = acts.load(file)
        self._memory = adopted(memory, executor.pending())
        self._notes = (f"what was done before is not known, and is counted anew: {why}",) if why else ()

    def round(self, fleet: Fleet, looked: Looked, now_s: float) -> tuple[tuple[Outcome, ...], tuple[str, ...]]:
        notes, self._notes = list(self._notes), ()
        before = self._settle(self._executor.ended(now_s))
        more = self._wanted(fleet, looked, now_s, notes)
        decision = decide(looked, self._memory, now_s, more, self._executor.pending())
        orders = self._ordered(decision)
        try:
            acts.save(self._file, self._memory)
        except K4tError as error:
            for one in decision.actions:
                self._memory = settled(self._memory, Outcome(one, "failed", now_s))
            return before, (*notes, f"nothing is done, since it can't be remembered: {error}")
        failpoints.reach("monitor:decided")
        dry = tuple(Outcome(one, "dry-run", now_s) for one in decision.actions if one.dry_run)
        self._executor.begin(looked, orders)
        done = self._settle(self._executor.ended(now_s, patience_s=PATIENCE_S))
        notes += self._saved(done)
        said, self._executor.notes = self._executor.notes, []
        return (*before, *decision.refused, *dry, *done), (*notes, *said)

    def _ordered(self, decision: Decision) -> list[Order]:
        """The ids of intents are written down with the acts: whoever goes on after this was killed knows them."""
        orders = [Order(one, self._new_id()) for one in decision.actions if not one.dry_run]
        ids = {limits.same(one.action): one.id for one in orders if one.action.verb not in OWN}
        self._memory = decision.memory
        for key, id in ids.items():
            last = self._memory.last(key)
            named = tuple(dataclasses.replace(act, intent=id) if act is last else act for act in self._memory.acts)
            self._memory = dataclasses.replace(self._memory, acts=named)
        return orders

    def finish(self, now_s: float, patience_s: float) -> tuple[Outcome, ...]:
        """Waits for all that is under way: whoever does one round alone sees its end."""
        outcomes = self._settle(self._executor.ended(now_s, patience_s=patience_s, all=True))
        self._saved(outcomes)
        return outcomes

    def _wanted(self, fleet: Fleet, looked: Looked, now_s: float, notes: list[str]) -> list[Action]:
        found: list[Action] = []
        for want in self.wants:
            try:
                found += want(fleet, looked, now_s)
            except K4tError as error:
                notes.append(str(error))
        return found

    def _settle(self, outcomes: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
        for one in outcomes:
            self._memory = settled(self._memory, one)
        return outcomes

    def _saved(self, outcomes: Sequence[Outcome]) -> tuple[str, ...]:
        failpoints.reach("monitor:acted")
        if not outcomes:
            return ()
        try:
            acts.save(self._file, self._memory)
        except K4tError as error:
            return (f"what was done is not remembered: {error}",)
        return ()
