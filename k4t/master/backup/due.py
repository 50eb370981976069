"""When a copy is due. Pure: `now_s` and what is remembered are passed in.

A clock only says when it is time to look; which of two copies is the newer one is never decided by it.
"""

from __future__ import annotations

from k4t.model.value import value

EARLY_S = 10.0
"""A schedule calls every minute, some seconds sooner or later: what falls due before the next call could come is done
now, or a period of one minute would take two."""
EARLY_SHARE = 0.1


@value
class Next:
    """The target that is due next, and in how many seconds."""

    name: str
    in_s: float


def is_due(last_s: float | None, every_s: float, now_s: float) -> bool:
    """`last_s`: when the newest copy was last known to be what the tree is; None: never, or forgotten. A last one that
    lies ahead (the clock was set back) says nothing. A period that was missed, or a hundred of them, is due once."""
    return last_s is None or now_s < last_s or now_s - last_s >= every_s - early_s(every_s)


def early_s(every_s: float) -> float:
    return min(EARLY_S, every_s * EARLY_SHARE)


def left_s(last_s: float | None, every_s: float, now_s: float) -> float:
    """Seconds until it is due; 0 when it is."""
    if last_s is None or is_due(last_s, every_s, now_s):
        return 0.0
    return last_s + every_s - early_s(every_s) - now_s
