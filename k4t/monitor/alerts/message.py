"""One message to people: what began, got worse, lasts or is over, and what the monitor did. Values and words, pure.

`as_json` is what webhooks and commands get (docs/alerts.md); keys may be added, none is taken away.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from k4t.model.monitor import Alert
from k4t.model.value import value
from k4t.monitor.acting.action import Outcome
from k4t.monitor.facts import Kind, Subject
from k4t.monitor.judge import LEVELS

Event = Literal["begun", "worse", "still", "passed", "over"]
EVENTS: tuple[Event, ...] = ("worse", "begun", "passed", "over", "still")
"""In the order in which they are told."""
NAMED_FINDINGS, NAMED_ACTIONS = 20, 10
"""So many are named in one message, the rest is counted."""
SUBJECTS = ((("worse", "begun"), "{}"), (("passed",), "was {}"), (("over",), "OVER"), (("still",), "still {}"))
SUBJECT_CHARACTERS = 140
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400


@value
class Item:
    """One finding as it is told. `level`: now, of one that is over: the last. `thread`: id of the message that told it
    first. `seen` False: it can't be looked at now. `ended_s`: of `passed` and `over`."""

    kind: Kind
    name: str
    what: str
    event: Event
    level: str
    since_s: float
    sentence: str
    remedy: str = ""
    thread: str = ""
    seen: bool = True
    ended_s: float | None = None

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.name}:{self.what}"

    @property
    def thing(self) -> str:
        return f"{Subject(self.kind, self.name)}: {self.what}"

    @property
    def lasted_s(self) -> float | None:
        return None if self.ended_s is None else max(0.0, self.ended_s - self.since_s)


@value
class Message:
    """`id` stays the same however often it is tried. `critical`, `warning`: how many findings are open, `more` of them
    too many to be followed one by one. `dropped`: things that nobody was told of, being too many or too old.
    `held`: it waited for the hour's limit. `replaces`: messages that were not delivered and are told by this one;
    the first was made at `first_s` and tried `tries` times."""

    id: str
    at_s: float
    items: tuple[Item, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    critical: int = 0
    warning: int = 0
    more: int = 0
    dropped: int = 0
    held: bool = False
    replaces: tuple[str, ...] = ()
    first_s: float = 0.0
    tries: int = 0
    test: bool = False

    @property
    def level(self) -> str:
        """The worst that is open."""
        return "critical" if self.critical else "warning" if self.warning else "ok"

    @property
    def threads(self) -> tuple[str, ...]:
        """Messages that this one goes on from, the oldest first."""
        found = (*(item.thread for item in self.items if item.thread != self.id), *self.replaces)
        return tuple(one for one in dict.fromkeys(found) if one)


@value
class Sender:
    """Who tells: the cluster."""

    cluster: str
    cluster_id: str


def identity(alert: Alert) -> str:
    """What is remembered of an alert stands under this: whom it tells, and from which level on. Says nothing itself."""
    told = [list(alert.command), alert.webhook, alert.mail, alert.level]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


def ordered(items: Iterable[Item]) -> tuple[Item, ...]:
    """The most important first."""
    return tuple(
        sorted(items, key=lambda one: (EVENTS.index(one.event) > 1, -LEVELS.index(one.level), EVENTS.index(one.event)))
    )


# --- for programs ----------------------------------------------------------------------------------------------------


def as_json(message: Message, sender: Sender) -> dict[str, Any]:
    items = message.items
    return {
        "version": 1,
        "id": message_id(message, sender),
        "cluster": sender.cluster,
        "cluster_id": sender.cluster_id,
        "at": time_of(message.at_s),
        "level": message.level,
        "subject": subject(message, sender),
        "text": text(message, sender),
        "open": {"critical": message.critical, "warning": message.warning},
        "findings": [_item(one) for one in items[:NAMED_FINDINGS]],
        "actions": [_outcome(one) for one in message.outcomes[:NAMED_ACTIONS]],
        "more": {
            "findings": max(0, len(items) - NAMED_FINDINGS) + message.more,
            "actions": max(0, len(message.outcomes) - NAMED_ACTIONS),
        },
        "dropped": message.dropped,
        "in_reply_to": [f"{sender.cluster_id}.{one}" for one in message.threads],
        "tries": message.tries,
        "test": message.test,
    }


def message_id(message: Message, sender: Sender) -> str:
    return f"{sender.cluster_id}.{message.id}"


def _item(one: Item) -> dict[str, Any]:
    return {
        "event": one.event,
        "subject": {"kind": one.kind, "name": one.name},
        "what": one.what,
        "level": one.level,
        "since": time_of(one.since_s),
        "ended": None if one.ended_s is None else time_of(one.ended_s),
        "lasted_s": None if one.lasted_s is None else round(one.lasted_s),
        "seen": one.seen,
        "sentence": one.sentence,
        "remedy": one.remedy,
    }


def _outcome(one: Outcome) -> dict[str, Any]:
    action = one.action
    return {
        "policy": action.policy, "verb": action.verb, "name": action.name, "replica": action.replica,
        "replicas": action.replicas, "dry_run": action.dry_run, "result": one.result, "cause": action.cause,
        "words": one.words, "intent": one.intent, "at": time_of(one.at_s),
    }  # fmt: skip


def time_of(at_s: float) -> str:
    """RFC 3339 UTC."""
    return as_time(at_s).strftime("%Y-%m-%dT%H:%M:%SZ")


def as_time(at_s: float) -> datetime:
    """Of a clock that is out of its mind, the nearest time that has a name."""
    return datetime.fromtimestamp(min(max(at_s, 0.0), 253_402_300_799.0), UTC)


# --- for people ------------------------------------------------------------------------------------------------------


def subject(message: Message, sender: Sender) -> str:
    """One line that says the essence."""
    words = f"[{sender.cluster}] {_essence(message)}"
    words = " ".join("".join(one if one.isprintable() else " " for one in words).split())
    return words if len(words) <= SUBJECT_CHARACTERS else f"{words[: SUBJECT_CHARACTERS - 1]}…"


def _essence(message: Message) -> str:
    if message.test:
        return "test: alerts of this cluster get here"
    for events, before in SUBJECTS:
        found = [one for one in message.items if one.event in events]
        if found:
            level = max((one.level for one in found), key=LEVELS.index).upper()
            return f"{before.format(level)}: {_named(found)}"
    if message.outcomes:
        first, *others = message.outcomes
        return f"{first.result}: {first.action.words} ({first.action.policy}){_more(len(others))}"
    return f"{message.dropped} older things are no longer told"


def _named(found: list[Item]) -> str:
    first, *others = found
    if others:
        return f"{first.thing}{_more(len(others))}"
    over = f" after {lasting(first.lasted_s)}" if first.lasted_s is not None else f": {first.sentence}"
    return f"{first.thing}{over}"


def _more(count: int) -> str:
    return f" and {count} more" if count else ""


def text(message: Message, sender: Sender) -> str:
    """All of it, in lines."""
    return "\n".join(_lines(message, sender)) + "\n"


def _lines(message: Message, sender: Sender) -> Iterator[str]:
    if message.test:
        yield f"This is a test. Alerts of cluster {sender.cluster} that are sent this way get here."
    for one in message.items[:NAMED_FINDINGS]:
        yield from _said(one, message.at_s)
    yield from _counted(message)
    if message.outcomes:
        yield from [""] * bool(message.items) + ["What the monitor did:"]
        for done in message.outcomes[:NAMED_ACTIONS]:
            words = f": {done.words}" if done.words else ""
            yield f"  {done.result}: {done.action.words} ({done.action.policy}){words}"
            yield f"    because {done.action.cause}"
        if more := len(message.outcomes) - NAMED_ACTIONS:
            yield from [f"  and {more} more"] * (more > 0)
    yield ""
    yield from _about(message)
    yield f"{sender.cluster} ({sender.cluster_id}), {time_of(message.at_s)}"


def _said(one: Item, now_s: float) -> Iterator[str]:
    if one.event in ("over", "passed"):
        word = "over" if one.event == "over" else f"{one.level}, over already"
        yield f"{word.upper()}: {one.thing}, after {lasting(one.lasted_s or 0.0)} (was: {one.sentence})"
        return
    before = {"worse": "NOW ", "still": "STILL "}.get(one.event, "")
    since = f"since {time_of(one.since_s)}" + ("" if one.event == "begun" else f", for {lasting(now_s - one.since_s)}")
    unseen = "" if one.seen else "; it can't be looked at now"
    yield f"{before}{one.level.upper()}: {one.thing}: {one.sentence} ({since}{unseen})"
    if one.remedy:
        yield f"    {one.remedy}"


def _counted(message: Message) -> Iterator[str]:
    rest = message.items[NAMED_FINDINGS:]
    if rest:
        counts = Counter(one.event if one.event in ("over", "passed") else one.level for one in rest)
        yield f"and {len(rest)} more: {', '.join(f'{count} {word}' for word, count in counts.items())}"
    if message.more:
        yield f"and {message.more} more that are open, too many to follow one by one: k4t monitor check"


def _about(message: Message) -> Iterator[str]:
    if not message.test:
        yield f"Open now: {message.critical} critical, {message.warning} warning."
    if message.dropped:
        yield f"Not told: {message.dropped} things, too many or too old by now."
    if message.held:
        yield "Told late: so many messages an hour and no more."
    if message.tries:
        yield f"Told late: since {time_of(message.first_s)} it could not be delivered ({tries(message)})."


def tries(message: Message) -> str:
    return "1 try" if message.tries == 1 else f"{message.tries} tries"


def lasting(seconds: float) -> str:
    """50 s, 12 min, 3 h 20 min, 5 d 2 h."""
    whole = max(0, int(seconds))
    if whole < MINUTE_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min"
    if whole < DAY_S:
        rest = whole % HOUR_S // MINUTE_S
        return f"{whole // HOUR_S} h" + (f" {rest} min" if rest else "")
    rest = whole % DAY_S // HOUR_S
    return f"{whole // DAY_S} d" + (f" {rest} h" if rest else "")
