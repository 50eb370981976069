"""A secret in an editor: its value stands in memory only, in a file nobody else may open, and is gone afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from k4t import command
from k4t.errors import K4tError, Usage
from k4t.tree.secret_files import MAX_BYTES

MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it, mode 0700
MOUNTS = Path("/proc/mounts")


def edited(name: str, value: str) -> str:
    """What $VISUAL or $EDITOR makes of the value. Raises Usage when there is no editor, K4tError when it fails."""
    words = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    if not words.strip():
        raise Usage("no editor: VISUAL and EDITOR are not set", f"EDITOR=vi k4t secret edit {name}")
    directory = Path(tempfile.mkdtemp(prefix="k4t-", dir=_memory()))
    try:
        path = directory / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(value if not value or value.endswith("\n") else value + "\n")
        status = command.attended([*command.split(words), os.fspath(path)])
        if status:
            raise K4tError(f"the editor ended with status {status}: secret {name} is as it was", "try again")
        return _read(path, name)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _read(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 2).decode()
    except (OSError, UnicodeDecodeError):
        raise K4tError(f"what the editor left is no text: secret {name} is as it was", "secrets are text") from None


def _memory() -> Path:
    """A directory in memory: the user's own, else everybody's."""
    mounted = {fields[1] for line in _mounts() if (fields := line.split())[2:3] == ["tmpfs"]}
    own = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nowhere")
    for candidate in (own, MEMORY):
        if os.fspath(candidate) in mounted and os.access(candidate, os.W_OK | os.X_OK):
            return candidate
    raise K4tError(
        f"no file system in memory to edit on: neither XDG_RUNTIME_DIR nor {MEMORY} is a tmpfs", "use k4t secret set"
    )


def _mounts() -> list[str]:
    try:
        return MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
