"""Die at a named place, to test that the next run repairs: `K4T_FAILPOINT=NAME[:N]` kills this process with SIGKILL
the Nth time it comes by (the first, without N). Unset, a place costs one comparison.

Places: `before:ACTION` and `after:ACTION` of every kind of step, `before:lock`, `after:lock`, `before:rollback`,
`before:record`, `after:record`.
"""

from __future__ import annotations

import itertools
import os
import signal
from threading import Lock


def _parsed(text: str) -> tuple[str, int]:
    """“after:create:2” → (“after:create”, 2)."""
    name, _, number = text.rpartition(":")
    return (name, int(number)) if number.isdigit() and ":" in name else (text, 1)


WANTED, NUMBER = _parsed(os.environ.get("K4T_FAILPOINT", ""))
_passed = itertools.count(1)
_guard = Lock()


def reach(name: str) -> None:
    """This is the place called `name`."""
    if not WANTED or name != WANTED:
        return
    with _guard:
        if next(_passed) == NUMBER:
            os.kill(os.getpid(), signal.SIGKILL)
