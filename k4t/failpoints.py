"""Die at a named place, to test that the next run repairs: `K4T_FAILPOINT=NAME[:N]` kills this process with SIGKILL
the Nth time it comes by (the first, without N); `NAME=stall` makes it stand still there. Unset, a place costs one look.

Places: `before:ACTION` and `after:ACTION` of every kind of step, `before:lock`, `after:lock`, `before:rollback`,
`before:record`, `after:record`; of a publication `before:` and `after:` each of observe, fence, begin, prepare, decide,
commit, verify, end, abort (see master.publication.twophase); `intent:begun`, `intent:done` of a wake, `wake:worked`
when nothing more is queued; `power:announced`, `power:going` before the machine is switched off; of copies `backup:`
begin, picture, sequence (it is given out), store, stored, confirm, confirmed, remembered, prune, pruned, part,
part-stored; `monitor:decided` (written down, not begun), `monitor:acted` (done, not written down); `restore:` made,
unpacked, carried, synced, named, aside, swapped, kept, cleared, clearing (see master.backup.swap); `recover:`
certified, placed, told; `alert:sending`, `alert:sent` (taken, not written down). `NAME=stop` stops this process there
(SIGSTOP).
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from threading import Lock

STALL_S = 60.0


def _parsed(text: str) -> tuple[str, int, str]:
    """“after:create:2” → (“after:create”, 2, “”)."""
    place, _, how = text.partition("=")
    name, _, number = place.rpartition(":")
    return (name, int(number), how) if number.isdigit() and ":" in name else (place, 1, how)


WANTED, NUMBER, HOW = _parsed(os.environ.get("K4T_FAILPOINT", ""))
_passed = itertools.count(1)
_guard = Lock()


def reach(name: str) -> None:
    """This is the place called `name`."""
    if not WANTED or name != WANTED:
        return
    if HOW == "stall":
        time.sleep(STALL_S)
        return
    with _guard:
        if next(_passed) == NUMBER:
            os.kill(os.getpid(), signal.SIGSTOP if HOW == "stop" else signal.SIGKILL)
