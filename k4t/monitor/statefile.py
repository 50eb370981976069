"""What the monitor remembers from one round to the next: small JSON files in XDG_STATE_HOME/k4t/monitor, read and
written whole. One that is lost, damaged, too large or of another format is as if there were none; what that means, and
whether it is said, is its user's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from k4t.errors import K4tError
from k4t.tree.edit import write_file

T = TypeVar("T")
MIB = 1024 * 1024


def path(cluster_id: str, what: str = "") -> Path:
    """CLUSTERID.json, or CLUSTERID.WHAT.json."""
    state = Path(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"))
    return state / "k4t" / "monitor" / (f"{cluster_id}.{what}.json" if what else f"{cluster_id}.json")


def read(file: Path, decode: Callable[[Any], T], none: T, *, max_bytes: int) -> tuple[T, str]:
    """What is there, if it can be believed; and why not, "" also where there is none yet. `decode` raises what a wrong
    shape raises."""
    try:
        if file.stat().st_size > max_bytes:
            return none, f"{file} is larger than {max_bytes // MIB} MiB"
        return decode(json.loads(file.read_bytes())), ""
    except FileNotFoundError:
        return none, ""
    except OSError as error:
        return none, f"can't read {file}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return none, f"{file} is damaged, or of another format"


def write(file: Path, content: object) -> None:
    """In one step. Raises K4tError with the path."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise K4tError(f"can't make {file.parent}: {error.strerror}") from error
    write_file(file, json.dumps(content, separators=(",", ":")).encode() + b"\n", 0o600)
