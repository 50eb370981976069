"""Takes a lab down when its owner is gone, however it went.

Run as `python -m tests.lab.reaper NAME ID` in a session of its own; standard input is a pipe that the owner holds.
End of file on it, or the end of the owner's process (a forked child may hold the pipe too), is the signal.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

from tests.lab import state
from tests.lab.root import REPOSITORY
from tests.lab.state import Spec


def start(spec: Spec) -> subprocess.Popen[bytes]:
    """The reaper of a lab; close its `stdin` to wake it."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.lab.reaper", spec.name, spec.id, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        start_new_session=True,
    )


def wait_for_owner(pid: int) -> None:
    waiter = select.poll()
    waiter.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    try:
        waiter.register(os.pidfd_open(pid), select.POLLIN)
    except ProcessLookupError:
        return
    waiter.poll()


def main(name: str, incarnation: str, owner: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wait_for_owner(owner)
    with state.locked():
        spec = state.load(name)
        # The owner has cleaned up itself, and the name may be in use again by another lab.
        if spec is not None and spec.id == incarnation:
            from tests.lab.teardown import tear_down

            tear_down(spec)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
