"""What else than policies wants something done, asked each round; what it remembers is kept for it in
XDG_STATE_HOME/k4t/monitor/CLUSTERID.samples.json."""

from __future__ import annotations

import json
from pathlib import Path

from k4t.errors import K4tError
from k4t.master.fleet import Fleet
from k4t.monitor import history, scaling
from k4t.monitor.action import Action
from k4t.monitor.check import Looked
from k4t.tree.edit import write_file

MAX_BYTES = 16 * 1024 * 1024


def path(cluster_id: str) -> Path:
    return history.path(cluster_id).with_name(f"{cluster_id}.samples.json")


class Scaling:
    """Apps with `<scale>`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._memory = _load(file)

    def __call__(self, fleet: Fleet, looked: Looked, now_s: float) -> tuple[Action, ...]:
        """Raises K4tError when what it saw can't be kept; nothing is scaled then."""
        before = self._memory
        self._memory, actions = scaling.round(fleet, looked, before, now_s)
        if self._memory != before:
            data = json.dumps(scaling.encode(self._memory), separators=(",", ":")).encode() + b"\n"
            try:
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise K4tError(f"can't make {self._file.parent}: {error.strerror}") from error
            write_file(self._file, data, 0o600)
        return actions


def _load(file: Path) -> scaling.Memory:
    try:
        if file.stat().st_size <= MAX_BYTES:
            return scaling.decode(json.loads(file.read_bytes()))
    except (OSError, ValueError, RecursionError):
        pass
    return scaling.NONE
