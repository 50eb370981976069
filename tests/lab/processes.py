"""Processes by pid *and* start time, so that a recycled pid is never signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab.errors import LabError

POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Process:
    """One process as the root pid namespace sees it; `started` is field 22 of /proc/PID/stat, in clock ticks."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        fields = _stat(pid)
        return None if fields is None or fields[0] in "ZX" else cls(pid, int(fields[19]))

    @classmethod
    def load(cls, path: Path) -> Process | None:
        """What `save` wrote; None when there is no such file or it is torn."""
        try:
            pid, started = path.read_text().split()
            return cls(int(pid), int(started))
        except (OSError, ValueError):
            return None

    def save(self, path: Path) -> None:
        path.write_text(f"{self.pid} {self.started}\n")

    def alive(self) -> bool:
        return Process.of(self.pid) == self

    def signal(self, number: int) -> None:
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def end(self, *, grace_s: float = 0) -> None:
        """SIGTERM, `grace_s` of patience (none without), SIGKILL; raises LabError if even that does not end it."""
        if grace_s:
            self.signal(signal.SIGTERM)
            if wait_until(lambda: not self.alive(), timeout_s=grace_s):
                return
        self.signal(signal.SIGKILL)
        if not wait_until(lambda: not self.alive(), timeout_s=20):
            raise LabError(f"process {self.pid} is still there 20 s after SIGKILL; look at /proc/{self.pid}/stack")


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def child_of(pid: int) -> int | None:
    """The first child of a process, or None."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def wait_until(condition: Callable[[], bool], *, timeout_s: float) -> bool:
    """True as soon as `condition` holds, False when it does not within `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


def run(
    argv: Sequence[str],
    *,
    input: str | None = None,  # named as in subprocess.run
    check: bool = True,
    timeout_s: float = 30,
    where: str = "here",
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run to the end, or kill the command with all its children after `timeout_s` (subprocess.TimeoutExpired).

    Raises LabError with the command's own words when it fails and `check` is set.
    """
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        env=env,
    )
    try:
        out, err = process.communicate(input, timeout=timeout_s)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    if check and process.returncode != 0:
        said = err.strip() or out.strip() or "nothing"
        raise LabError(f"{where}: `{' '.join(argv)}` ended with {process.returncode} and said: {said}")
    return subprocess.CompletedProcess(list(argv), process.returncode, out, err)


_kept: list[subprocess.Popen[bytes]] = []
_kept_lock = threading.Lock()


def keep(process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Remember a child that outlives its caller, so that it is reaped when it ends and never warned about."""
    reap()
    with _kept_lock:
        _kept.append(process)
    return process


def reap() -> None:
    """Collect the children that have ended."""
    with _kept_lock:
        _kept[:] = [process for process in _kept if process.poll() is None]
