"""What else than policies wants something done, asked each round; what each remembers is kept for it in a file of its
own in XDG_STATE_HOME/k4t/monitor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from k4t.master.fleet import Fleet
from k4t.monitor import scaling, spare, statefile
from k4t.monitor.acting.action import Action
from k4t.monitor.check import Looked

MAX_BYTES = 16 * 1024 * 1024


class Scaling:
    """Apps with `<scale>`, in CLUSTERID.samples.json."""

    def __init__(self, cluster_id: str) -> None:
        self._file = statefile.path(cluster_id, "samples")
        self._memory = remembered(cluster_id)

    def __call__(self, fleet: Fleet, looked: Looked, now_s: float) -> tuple[Action, ...]:
        """Raises K4tError when what it saw can't be kept; nothing is scaled then."""
        before = self._memory
        self._memory, actions = scaling.round(fleet, looked, before, now_s)
        if self._memory != before:
            statefile.write(self._file, scaling.encode(self._memory))
        return actions


class Spares:
    """Nodes with `<power spare="true">`, in CLUSTERID.spares.json."""

    def __init__(self, cluster_id: str) -> None:
        self._file = statefile.path(cluster_id, "spares")
        self._memory = spare.decode(_content(self._file))

    def __call__(self, _: Fleet, looked: Looked, now_s: float) -> tuple[Action, ...]:
        """As Scaling."""
        before = self._memory
        self._memory, actions = spare.decide(looked.tree, looked, before, now_s)
        if self._memory != before:
            statefile.write(self._file, spare.encode(self._memory))
        return actions


def remembered(cluster_id: str) -> scaling.Memory:
    """What scaling has measured and decided on this machine."""
    return scaling.decode(_content(statefile.path(cluster_id, "samples")))


def _content(file: Path) -> Any:
    """None for what can't be read, or is none."""
    return statefile.read(file, lambda found: found, None, max_bytes=MAX_BYTES)[0]
