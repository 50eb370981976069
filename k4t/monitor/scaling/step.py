"""One round of scaling: sample what is needed, decide, and say what is to be asked of the master."""

from __future__ import annotations

from k4t.master.fleet import Fleet
from k4t.monitor.action import Action
from k4t.monitor.check import Looked
from k4t.monitor.scaling.memory import Memory


def round(fleet: Fleet, looked: Looked, memory: Memory, now_s: float) -> tuple[Memory, tuple[Action, ...]]:  # noqa: ARG001
    """The memory for the next round, and actions of verb “scale”. Bounded in time; raises nothing that a host or a
    command could raise."""
    return memory, ()


def words(memory: Memory, app: str) -> str:
    """Why an app has the size that it has, as the last round saw it; "" when it was never looked at."""
    return memory.said.get(app, "")
