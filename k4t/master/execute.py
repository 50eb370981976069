"""Run a plan's graph on a bounded pool. It decides nothing: a failed step stops what depends on it, nothing else."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from k4t.errors import Interrupted, K4tError
from k4t.master.planning.plan import Step
from k4t.model.events import Emit, Note, StepDone, StepFailed, StepSkipped, StepStarted
from k4t.model.value import value

MAX_STEPS_AT_ONCE = 128
STEPS_PER_NODE = 4
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WAITING = frozenset({"await", "wait", "drain", "publish", "job"})
"""Actions that wait for something else than the node's own work: they take no place on their node."""

Perform = Callable[[Step, frozenset[str]], str]
"""Makes a step's call; told which of the steps it `awaits` have not succeeded. Returns a word about it."""


@value
class Failure:
    step: Step
    error: K4tError


@dataclass(slots=True)
class Executed:
    """What became of a plan. `skipped` names, for each step not begun, the step (or word) that stopped it."""

    done: list[Step] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    skipped: list[tuple[Step, str]] = field(default_factory=list)
    interrupted: bool = False


class Execution:
    """One walk through one graph. A step begins when all it comes `after` have succeeded and all it `awaits` ended."""

    def __init__(
        self, steps: Sequence[Step], perform: Perform, emit: Emit, stopping: threading.Event | None = None
    ) -> None:
        self._perform = perform
        self._emit = emit
        self._steps = {step.id: step for step in steps}
        self._waits_for = {step.id: {id for id in _before(step) if id in self._steps} for step in steps}
        self._dependants: dict[str, list[str]] = {}
        for step in steps:
            for id in _before(step):
                self._dependants.setdefault(id, []).append(step.id)
        self._ready: dict[str, deque[Step]] = {}
        self._busy: dict[str, int] = {}
        self._finished: queue.SimpleQueue[tuple[Step, K4tError | None]] = queue.SimpleQueue()
        self._under_way = 0
        self._bad: dict[str, str] = {}
        self._result = Executed()
        self.stopping = stopping or threading.Event()

    def run(self) -> Executed:
        """Until every step is done, failed or skipped. Ctrl-C lets the steps at hand finish; a second one raises
        KeyboardInterrupt, and what is under way is left to itself."""
        pool = ThreadPoolExecutor(MAX_STEPS_AT_ONCE, thread_name_prefix="step")
        try:
            with interrupts(self.stopping, self._interrupted):
                for step in self._steps.values():
                    if not self._waits_for[step.id]:
                        self._queue(step)
                self._begin(pool)
                while self._under_way:
                    self._settle(*self._next())
                    self._begin(pool)
        finally:
            pool.shutdown(wait=not self._under_way, cancel_futures=True)
        self._sweep()
        return self._result

    def _interrupted(self) -> None:
        self._emit(Note("interrupted: the steps at hand are finished, then it ends; once more ends it at once"))

    def _next(self) -> tuple[Step, K4tError | None]:
        # A bounded get: a blocking one can't be interrupted by a signal on every platform.
        while True:
            try:
                return self._finished.get(timeout=1.0)
            except queue.Empty:
                continue

    def _queue(self, step: Step) -> None:
        # In order of becoming possible. Finishing a begun replica first takes 7 % longer in all: its probes then
        # compete with the starts of the others.
        self._ready.setdefault(_place(step), deque()).append(step)

    def _begin(self, pool: ThreadPoolExecutor) -> None:
        if self.stopping.is_set():
            return
        for place, waiting in self._ready.items():
            while waiting and (place == "" or self._busy.get(place, 0) < STEPS_PER_NODE):
                step = waiting.popleft()
                self._busy[place] = self._busy.get(place, 0) + 1
                self._under_way += 1
                pool.submit(self._one, step, frozenset(id for id in step.awaits if id in self._bad))

    def _one(self, step: Step, failed: frozenset[str]) -> None:
        started_s = time.monotonic()
        self._emit(StepStarted(step.id))
        error: K4tError | None = None
        try:
            word = self._perform(step, failed)
            self._emit(StepDone(step.id, word, time.monotonic() - started_s))
        except K4tError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001 - a defect in one step must not lose the account of the others
            error = K4tError(f"internal error: {type(failure).__name__}: {failure}", "report this as a defect")
            error.__cause__ = failure
        if error is not None and not isinstance(error, Interrupted):
            self._emit(StepFailed(step.id, error.message, error.host or step.node))
        self._finished.put((step, error))

    def _settle(self, step: Step, error: K4tError | None) -> None:
        self._under_way -= 1
        self._busy[_place(step)] -= 1
        if error is None:
            self._result.done.append(step)
        elif isinstance(error, Interrupted):
            self._skip(step, "interrupted")
        else:
            self._result.failed.append(Failure(step, error))
            self._bad[step.id] = step.id
        self._ended(step)

    def _ended(self, ended: Step) -> None:
        """Queue what may begin now; skip, at once and on and on, what now never may."""
        open_ends = [ended]
        while open_ends:
            last = open_ends.pop()
            for id in self._dependants.get(last.id, ()):
                step = self._steps[id]
                if id in self._bad or last.id not in self._waits_for[id]:
                    continue
                self._waits_for[id].discard(last.id)
                if last.id in self._bad and last.id in step.after:
                    self._skip(step, self._bad[last.id])
                    open_ends.append(step)
                elif not self._waits_for[id]:
                    self._queue(step)

    def _skip(self, step: Step, because: str) -> None:
        self._bad[step.id] = because
        self._result.skipped.append((step, because))
        if because != "interrupted":
            self._emit(StepSkipped(step.id, because))

    def _sweep(self) -> None:
        """Account for everything that was never begun."""
        self._result.interrupted = self.stopping.is_set()
        ended = {step.id for step in self._result.done} | set(self._bad)
        for step in self._steps.values():
            if step.id not in ended:
                self._skip(step, "interrupted")


@contextmanager
def interrupts(stopping: threading.Event, told: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Ctrl-C, the end of the terminal or of the machine set `stopping`, between two instructions of the main thread:
    nothing that is counted gets lost. The second one raises KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_number: int, _frame: object) -> None:
        if stopping.is_set():
            raise KeyboardInterrupt
        stopping.set()
        told()

    asked = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]  # nohup's SIGHUP
    before = {number: signal.signal(number, handle) for number in asked}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _before(step: Step) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*step.after, *step.awaits)))


def _place(step: Step) -> str:
    return "" if step.action in WAITING else step.node
