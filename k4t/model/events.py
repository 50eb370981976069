"""What happened, as a run tells it while it works. Whoever shows or records it subscribes with an `Emit`."""

from __future__ import annotations

from collections.abc import Callable

from k4t.model.value import value


@value
class Note:
    """A sentence for people."""

    text: str
    warning: bool = False


@value
class StepStarted:
    step: str


@value
class StepProgress:
    """`fraction` is 0…1, or None when the whole isn't known."""

    step: str
    text: str
    fraction: float | None = None


@value
class StepDone:
    step: str
    text: str = ""
    duration_s: float = 0.0


@value
class StepFailed:
    step: str
    error: str
    host: str = ""


@value
class StepSkipped:
    """Not begun, because `because` (a step's id, or a word) did not succeed."""

    step: str
    because: str


Event = Note | StepStarted | StepProgress | StepDone | StepFailed | StepSkipped
Emit = Callable[[Event], None]


def silent(event: Event) -> None:
    """An Emit that tells nobody."""
