"""Whose history the cluster's is: a working copy that was replaced by another one is fenced off.

A lineage begins when a master takes the cluster over: the first one ever, one that was restored or recovered from a
copy, or one that says `--allow rewind`. Hosts know it by the head, a working copy by `.k4t/lineage`. No clock counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from k4t.model.snapshot import Lineage
from k4t.model.state import Head


def newest(heads: Iterable[Head]) -> Lineage | None:
    """The one of the highest generation; of two (masters that took over at once, each seeing other hosts), one that is
    the same wherever it is asked."""
    found = (head.lineage for head in heads if head.lineage is not None)
    return max(found, key=lambda one: (one.generation, one.serial, one.at, one.id), default=None)


def fenced(own: Lineage | None, live: Lineage | None) -> str:
    """Why a working copy of lineage `own` may not go on where `live` is what hosts know; "" when it may.

    A copy that knows none (a clone, a CI checkout) joins the live one. One of a higher generation was restored, and the
    hosts that answer haven't heard of it yet.
    """
    if own is None or live is None or own.id == live.id or own.generation > live.generation:
        return ""
    who = f"{live.who or 'somebody'} took over"
    return f"this working copy was replaced: {who} at {live.at or 'some time'} (serial {live.serial})"


def changes_hands(own: Lineage | None, live: Lineage | None) -> bool:
    """Whether an apply that may go on makes hosts hear of another lineage, also when there is nothing else to do."""
    return own is not None and live is not None and own.id != live.id


def recorded(own: Lineage | None, live: Lineage | None, new: Lineage) -> Lineage:
    """What an apply that may go on leaves in the head and in its working copy. `new`: as one would begin now; its
    generation doesn't count."""
    if live is None:
        return own or dataclasses.replace(new, generation=1)
    if own is None or own.id == live.id:
        return live
    return own if own.generation > live.generation else dataclasses.replace(new, generation=live.generation + 1)


def taken_over(known: Iterable[Lineage | None], new: Lineage) -> Lineage:
    """The lineage of a master that takes over from all of those."""
    highest = max((one.generation for one in known if one is not None), default=0)
    return dataclasses.replace(new, generation=highest + 1)
