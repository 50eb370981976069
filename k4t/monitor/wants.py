"""What else than policies wants something done, asked each round; what each remembers is kept for it in a file of its
own in XDG_STATE_HOME/k4t/monitor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from k4t.errors import K4tError
from k4t.master.fleet import Fleet
from k4t.monitor import history, scaling, spare
from k4t.monitor.action import Action
from k4t.monitor.check import Looked
from k4t.tree.edit import write_file

MAX_BYTES = 16 * 1024 * 1024


class Scaling:
    """Apps with `<scale>`, in CLUSTERID.samples.json."""

    def __init__(self, cluster_id: str) -> None:
        self._file = _path(cluster_id, "samples")
        self._memory = scaling.decode(_load(self._file))

    def __call__(self, fleet: Fleet, looked: Looked, now_s: float) -> tuple[Action, ...]:
        """Raises K4tError when what it saw can't be kept; nothing is scaled then."""
        before = self._memory
        self._memory, actions = scaling.round(fleet, looked, before, now_s)
        if self._memory != before:
            _save(self._file, scaling.encode(self._memory))
        return actions


class Spares:
    """Nodes with `<power spare="true">`, in CLUSTERID.spares.json."""

    def __init__(self, cluster_id: str) -> None:
        self._file = _path(cluster_id, "spares")
        self._memory = spare.decode(_load(self._file))

    def __call__(self, _: Fleet, looked: Looked, now_s: float) -> tuple[Action, ...]:
        """As Scaling."""
        before = self._memory
        self._memory, actions = spare.decide(looked.tree, looked, before, now_s)
        if self._memory != before:
            _save(self._file, spare.encode(self._memory))
        return actions


def _path(cluster_id: str, name: str) -> Path:
    return history.path(cluster_id).with_name(f"{cluster_id}.{name}.json")


def _load(file: Path) -> Any:
    """None for what can't be read, or is none."""
    try:
        return json.loads(file.read_bytes()) if file.stat().st_size <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None


def _save(file: Path, content: object) -> None:
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise K4tError(f"can't make {file.parent}: {error.strerror}") from error
    write_file(file, json.dumps(content, separators=(",", ":")).encode() + b"\n", 0o600)
