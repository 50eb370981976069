"""The operator's own commands, run here: no shell, no input, a time-out, bounded output, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from typing import Dict, Sequence, Tuple

from .errors import VendorRefused

MAX_BYTES = 8 * 1024 * 1024
WORDS = 300
READ_BYTES = 65536
AFTER_EXIT_S = 0.5
"""How long output may lag behind the exit; a child in the background may hold it open for ever."""


def run(argv: Sequence[str], timeout_s: float) -> str:
    """What it said on standard output. Raises VendorRefused with its words when it can't be run, fails, says more than
    MAX_BYTES or takes too long: then it is killed with its process group."""
    try:
        process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
            start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise VendorRefused("can't run %s: %s" % (argv[0], getattr(error, "strerror", None) or error)) from error
    try:
        out, err = _collect(process, argv[0], timeout_s)
    except BaseException:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if process.returncode != 0:
        said = _last_line(err) or _last_line(out)
        ending = "exit status %d" % process.returncode if process.returncode > 0 else "signal %d" % -process.returncode
        raise VendorRefused("%s: %s" % (" ".join(argv)[:WORDS], said + " (%s)" % ending if said else ending))
    return out.decode("utf-8", "replace")


def _collect(process: "subprocess.Popen[bytes]", program: str, timeout_s: float) -> Tuple[bytes, bytes]:
    """Until both streams end and it has; or it has, and its streams are another's."""
    if process.stdout is None or process.stderr is None:
        raise ValueError("no pipes")
    found: Dict[int, bytearray] = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    out, err = found.values()
    still = list(found)
    deadline_s = time.monotonic() + timeout_s
    with process.stdout, process.stderr:
        while still:
            if process.poll() is not None:
                deadline_s = min(deadline_s, time.monotonic() + AFTER_EXIT_S)
            wait_s = deadline_s - time.monotonic()
            ready, _, _ = select.select(still, [], [], min(max(wait_s, 0), 0.05)) if wait_s > 0 else ([], [], [])
            if not ready and wait_s <= 0:
                break
            for stream in ready:
                data = os.read(stream, READ_BYTES)
                found[stream] += data
                if not data:
                    still.remove(stream)
            if len(out) + len(err) > MAX_BYTES:
                raise VendorRefused("%s says more than %d bytes" % (program, MAX_BYTES))
        try:
            process.wait(max(deadline_s - time.monotonic(), 0.001))
        except subprocess.TimeoutExpired:
            raise VendorRefused("%s took longer than %g s, and was killed" % (program, timeout_s)) from None
    return bytes(out), bytes(err)


def _last_line(data: bytes) -> str:
    lines = data.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip()[:WORDS] if lines else ""
