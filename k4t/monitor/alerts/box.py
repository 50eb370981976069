"""What one alert was to be told and is not delivered yet. Pure.

At most two messages: the one under way, and all that came since. When the first can't be delivered both become one that
says how things stand now: an alarm and its end are one line (“over already”). So an outage of the webhook costs neither
memory nor a flood at its end.
"""

from __future__ import annotations

from dataclasses import replace

from k4t.model.value import value
from k4t.monitor.alerts.message import Item, Message, ordered
from k4t.monitor.alerts.step import State
from k4t.monitor.judge import LEVELS

BACKOFF_S, BACKOFF_MOST_S = 10.0, 900.0
MAX_AGE_S = 86400.0
"""What is over, or was done, longer ago than this is no longer told."""
MAX_ITEMS = 400
MAX_OUTCOMES = 100
MAX_REPLACED = 5
MAX_ERROR = 300


@value
class Box:
    """`first` is under way or waits until `next_s`; `second` holds what came since. `error`: why it failed last."""

    first: Message | None = None
    second: Message | None = None
    next_s: float = 0.0
    error: str = ""


def put(box: Box, message: Message, now_s: float, *, under_way: bool) -> Box:
    """With one message more; it is tried at once."""
    if box.first is None:
        return Box(message, None, now_s)
    if under_way:
        return replace(box, second=message if box.second is None else merged(box.second, message))
    return replace(box, first=merged(box.first, message), next_s=now_s)


def delivered(box: Box, now_s: float) -> Box:
    return Box(box.second, None, now_s)


def failed(box: Box, error: str, now_s: float) -> Box:
    """Waits longer each time; what came since is told with it."""
    if box.first is None:
        return box
    first = replace(box.first, tries=box.first.tries + 1)
    if box.second is not None:
        first = merged(first, box.second)
    wait_s = min(BACKOFF_MOST_S, BACKOFF_S * 2.0 ** min(first.tries - 1, 10))
    return Box(first, None, now_s + wait_s, error[:MAX_ERROR])


def must_wait(box: Box, now_s: float) -> bool:
    """Until its next try. A clock that was put back makes nobody wait for longer than that can be."""
    return 0.001 < box.next_s - now_s <= BACKOFF_MOST_S


def merged(old: Message, new: Message) -> Message:
    """One message that says what both would, as things stand now."""
    items = {one.key: one for one in old.items}
    for one in new.items:
        before = items.pop(one.key, None)
        items[one.key] = _later(before, one) if before else one
    kept, outcomes = ordered(items.values()), (*old.outcomes, *new.outcomes)
    dropped = max(0, len(kept) - MAX_ITEMS) + max(0, len(outcomes) - MAX_OUTCOMES)
    return replace(
        new,
        items=kept[:MAX_ITEMS],
        outcomes=outcomes[-MAX_OUTCOMES:],
        dropped=old.dropped + new.dropped + dropped,
        held=old.held or new.held,
        replaces=(*old.replaces, old.id)[-MAX_REPLACED:],
        first_s=old.first_s,
        tries=old.tries,
    )


def _later(before: Item, now: Item) -> Item:
    """What somebody should hear who heard neither. One who was not told of the end holds it to be open still."""
    event, over = now.event, now.event in ("over", "passed")
    if before.event in ("begun", "passed"):
        event = "passed" if over else "begun"
    elif before.event == "worse" and event == "still":
        event = "worse"
    elif before.event == "over":
        is_worse = LEVELS.index(now.level) > LEVELS.index(before.level)
        event = "over" if over else "worse" if is_worse else "still"
    thread = before.thread or now.thread
    since_s = min(before.since_s, now.since_s) if over else now.since_s
    return replace(now, event=event, thread=thread, since_s=since_s)


def fresh(message: Message, state: State, now_s: float) -> Message:
    """As it is told now: what is open has its newest words, what is over says so, what is too old is counted."""
    items = [one for item in message.items if (one := _now(item, state, now_s)) is not None]
    kept = [one for one in items if one.ended_s is None or now_s - one.ended_s <= MAX_AGE_S]
    outcomes = tuple(one for one in message.outcomes if now_s - one.at_s <= MAX_AGE_S)
    dropped = len(items) - len(kept) + len(message.outcomes) - len(outcomes)
    levels = [one.item.level for one in state.open.values()]
    return replace(
        message, items=ordered(kept), outcomes=outcomes, dropped=message.dropped + dropped,
        critical=levels.count("critical"), warning=levels.count("warning"),
    )  # fmt: skip


def _now(item: Item, state: State, now_s: float) -> Item | None:
    """None of what lasted and ended where nobody wants to hear of the end."""
    if item.ended_s is not None:
        return item
    told = state.open.get(item.key)
    if told is not None:
        return replace(told.item, event=item.event, thread=item.thread)
    if item.key in state.ended:
        return item  # the next message has its end
    return replace(item, event="passed", ended_s=now_s) if item.event == "begun" else None
