"""An apply while it works: a line a node on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from k4t.master.planning.plan import Plan, Step
from k4t.model.events import Event, Note, StepDone, StepFailed, StepProgress, StepSkipped, StepStarted
from k4t.render.console import Console
from k4t.render.plan import describe, placed

if TYPE_CHECKING:
    from rich.progress import TaskID


class Progress(Protocol):
    def begin(self, plan: Plan) -> None: ...
    def __call__(self, event: Event) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def progress(console: Console) -> Progress:
    """Live bars where someone watches, plain lines where a log does."""
    if console.output == "table" and sys.stderr.isatty():
        return Bars(console)
    return Lines(console)


class Lines:
    """One line when a step ends; failures with the host. Quiet about what depends on a failure: the summary says."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._steps: Mapping[str, Step] = {}

    def begin(self, plan: Plan) -> None:
        self._steps = {step.id: step for step in plan.steps}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Note):
            self._console.note(("warning: " if event.warning else "") + event.text)
        elif isinstance(event, StepDone) and event.step in self._steps:
            word = f" ({event.text})" if event.text else ""
            self._console.note(f"{placed(self._steps[event.step])}{word}  {event.duration_s:.1f}s")
        elif isinstance(event, StepDone):  # of what is put back
            self._console.note(f"{event.step}  {event.duration_s:.1f}s")
        elif isinstance(event, StepFailed):
            what = placed(self._steps[event.step]) if event.step in self._steps else event.step
            self._console.note(f"failed: {what}: {event.error}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class Bars:
    """A bar a node, with the step at hand beside it; failures scroll by above."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._guard = threading.Lock()
        self._steps: dict[str, Step] = {}
        self._tasks: dict[str, TaskID] = {}

    def begin(self, plan: Plan) -> None:
        self._steps = {step.id: step for step in plan.steps}
        width = max((len(_place(step)) for step in plan.steps), default=0)
        for place in sorted({_place(step) for step in plan.steps}):
            total = sum(1 for step in plan.steps if _place(step) == place)
            self._tasks[place] = self._bars.add_task("", place=place.ljust(width), total=total)
        self._bars.start()

    def __call__(self, event: Event) -> None:
        with suppress(OSError):  # the terminal may be gone
            self._show(event)

    def _show(self, event: Event) -> None:
        if isinstance(event, Note):
            self._bars.console.print(("warning: " if event.warning else "") + event.text, markup=False)
            return
        step = self._steps.get(event.step)
        if step is None:
            return
        task = self._tasks[_place(step)]
        if isinstance(event, StepStarted):
            self._bars.update(task, description=describe(step))
        elif isinstance(event, StepProgress):
            part = "" if event.fraction is None else f" {event.fraction:.0%}"
            self._bars.update(task, description=f"{describe(step)}: {event.text}{part}")
        elif isinstance(event, StepFailed):
            self._bars.console.print(f"failed: {placed(step)}: {event.error}", style="red", markup=False)
        if isinstance(event, (StepDone, StepSkipped, StepFailed)):
            self._bars.advance(task)

    def __enter__(self) -> Self:
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        terminal = Terminal(stderr=True, no_color=not self._console.colored(sys.stderr), highlight=False)
        self._bars = RichProgress(
            TextColumn("{task.fields[place]}", style="bold"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False), console=terminal, transient=True,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._bars.stop()


def _place(step: Step) -> str:
    return step.node or "publish"
