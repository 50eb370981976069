"""A target's host for tests: this machine's own `sh` in a directory, behind a Transport that breaks on demand."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from k4t.command import Completed
from k4t.master.backup.target import Target
from k4t.remote.fake import FakeHost, FakeTransport

CLUSTER = "k7f3q2m9"


class Shell(FakeTransport):
    """Runs every command for real; `environ` is all of its environment. `fail` breaks it, as with any fake."""

    def __init__(self, name: str = "node1") -> None:
        super().__init__(FakeHost(name))
        self.environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

    def _say(self, argv: Sequence[str], input: bytes) -> Completed:
        done = subprocess.run(list(argv), input=input, env=self.environ, capture_output=True, timeout=60, check=False)
        return Completed(done.returncode, done.stdout, done.stderr)


def target(root: Path, shell: Shell | None = None) -> Target:
    """One whose state is under `root` of this machine."""
    return Target(shell or Shell(), CLUSTER, directory=str(root / CLUSTER / "copies"))


def name(serial: int, sequence: int, *, generation: int = 1, time: str = "20261120T161500Z") -> str:
    return f"{generation:04}-{serial:06}-{sequence:07}-{time}.snapshot"
