"""What one process costs: wall time, processor time and the most memory it had, all of it, start-up included."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OUTPUT_BYTES = 4000


@dataclass(frozen=True, slots=True)
class Cost:
    """`cpu_s` is user and system time of the process and the children it waited for; `rss_bytes` its own peak."""

    wall_s: float
    cpu_s: float
    rss_bytes: int


def run(argv: Sequence[str], *, env: Mapping[str, str], log: Path, statuses: tuple[int, ...] = (0,)) -> Cost:
    """Run it to its end. Raises RuntimeError with its last words when it ends with another status."""
    with log.open("wb") as out:
        started_s = time.perf_counter()
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in statuses:
        said = log.read_bytes()[-OUTPUT_BYTES:].decode("utf-8", "replace")
        raise RuntimeError(f"{' '.join(argv)} ended with {process.returncode}:\n{said}")
    return Cost(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
