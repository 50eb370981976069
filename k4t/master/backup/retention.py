"""Which copies of a target stay. Pure; copies are told by their names, which carry order and time.

`keep` counts versions: an unchanged tree makes no new copy. `keep-daily` keeps more of the older ones, one a day.
"""

from __future__ import annotations

from collections.abc import Iterable

from k4t.model.value import value

Order = tuple[int, int, int]


@value
class Kept:
    """A copy as its name tells it. `day`: the date of its time, as text; it only tells days apart."""

    name: str
    order: Order
    day: str


def superfluous(copies: Iterable[Kept], *, keep: int, keep_daily: int, good: str) -> tuple[str, ...]:
    """The names that may go, oldest first. The `keep` newest stay; of those before them the newest of each day, for
    `keep_daily` days. `good`, the copy known to be good, always stays, whatever else claims to be newer."""
    newest_first = sorted(copies, key=lambda copy: (copy.order, copy.name), reverse=True)
    older = newest_first[max(1, keep) :]
    days: dict[str, str] = {}
    for copy in older:
        days.setdefault(copy.day, copy.name)
    daily = set(list(days.values())[:keep_daily])
    return tuple(copy.name for copy in reversed(older) if copy.name not in daily and copy.name != good)
