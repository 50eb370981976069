"""What of a check is news to one alert, and when it is told. Pure: state and this check in, state and a message out.

- A finding counts that is raised (`confirmed`), at the alert's level or worse. What is unknown is no news either way:
  it neither begins nor ends anything.
- The first news waits `group` for more, and then all of it is one message; it doesn't wait when the next check would
  come too late for that. What gets worse (warning → critical) is told at once.
- While it lasts, it is told again every `repeat`, together with all else that is open.
- Its end is told after another `group`. What ended before it was told is told once, as both: “was critical, for 50 s,
  over already”. What came back before its end was told was never away.
- So many messages an hour and no more, a few of them kept for what is critical; what is held back is in the next one.
- What the monitor did is told with it. Scaling that succeeds is no news; a failure or refusal that repeats itself is
  told once in `repeat`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import field, replace

from k4t.model.monitor import Alert
from k4t.model.value import value
from k4t.monitor.acting.action import Action, Outcome
from k4t.monitor.alerts.message import Event, Item, Message, identity, ordered
from k4t.monitor.judge import LEVELS, Finding, is_blind

HOUR_S = 3600.0
MESSAGES_PER_HOUR = 20
KEPT_FOR_CRITICAL = 5
"""Of these, what is a warning alone leaves so many."""
MAX_OPEN = 300
MAX_ENDED = 300
MAX_OUTCOMES = 100
MAX_WORDS = 300
ROUTINE = frozenset({"scale", "nodes-short", "nodes-idle"})
"""Policies whose successes are everyday business: `k4t events` has them."""
GRAVE = frozenset({"withdraw", "give-back", "dead", "back"})
"""What is done when a node is gone; all else is no more than a warning."""


@value
class State:
    """What one alert remembers. `open`: raised now, told or not (`told`: at which level, "" not yet; when). `ended`:
    over, and that is still to be told. `news_s`: since when something waits. `sent`: when messages were made in the
    last hour, at least the last. `said`: failures and refusals, and when they were told."""

    open: Mapping[str, Told] = field(default_factory=dict)
    ended: Mapping[str, Told] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] = ()
    said: Mapping[str, float] = field(default_factory=dict)
    news_s: float | None = None
    sent: tuple[float, ...] = ()
    number: int = 0
    dropped: int = 0
    held: bool = False


@value
class Told:
    item: Item
    level: str = ""
    at_s: float = 0.0

    @property
    def is_worse(self) -> bool:
        return self.level != "" and LEVELS.index(self.item.level) > LEVELS.index(self.level)


def step(
    state: State,
    findings: Iterable[Finding],
    outcomes: Iterable[Outcome],
    alert: Alert,
    now_s: float,
    *,
    blind: Collection[str] = (),
    interval_s: float | None = None,
) -> tuple[State, tuple[Message, ...]]:
    """One check more; at most one message. `blind`: of the judgement; `interval_s`: between checks, where it is
    known."""
    state = _by_clock(state, now_s)
    state, more = _seen(state, findings, alert, now_s, frozenset(blind))
    state = _done(state, outcomes, alert, now_s)
    if not (_news(state) or _repeats(state, alert, now_s)):
        return replace(state, news_s=None, held=False), ()
    state = replace(state, news_s=now_s if state.news_s is None and _news(state) else state.news_s)
    if not _is_due(state, alert, now_s, interval_s):
        return state, ()
    lately = sum(at_s > now_s - HOUR_S for at_s in state.sent)
    if lately >= MESSAGES_PER_HOUR - (0 if _is_critical(state) else KEPT_FOR_CRITICAL):
        return replace(state, held=True), ()
    return _told(state, alert, now_s, more)


def _by_clock(state: State, now_s: float) -> State:
    """A clock that was put back makes nothing wait longer."""
    open_ = {key: replace(one, at_s=min(one.at_s, now_s)) for key, one in state.open.items()}
    said = {key: min(at_s, now_s) for key, at_s in state.said.items()}
    sent = tuple(min(at_s, now_s) for at_s in state.sent if at_s > now_s - HOUR_S) or state.sent[-1:]
    return replace(
        state, open=open_, said=said, sent=sent, news_s=None if state.news_s is None else min(state.news_s, now_s)
    )


# --- what this check says --------------------------------------------------------------------------------------------


def _seen(
    state: State, findings: Iterable[Finding], alert: Alert, now_s: float, blind: frozenset[str]
) -> tuple[State, int]:
    """With what began, goes on and ended; and how many there are too many of."""
    raised = {one.key: one for one in findings if one.confirmed}
    wanted = {key: one for key, one in raised.items() if LEVELS.index(one.level) >= LEVELS.index(alert.level)}
    unknown = {key for key, one in raised.items() if one.level == "unknown"}
    open_: dict[str, Told] = {}
    ended = dict(state.ended)
    for key, told in state.open.items():
        if key in wanted:
            open_[key] = replace(told, item=_item(wanted.pop(key), told.item))
        elif key in unknown or is_blind(key, blind):
            open_[key] = replace(told, item=replace(told.item, seen=False))
        elif not told.level or alert.all_clear:
            ended[key] = replace(told, item=_over(told.item, raised.get(key), now_s))
    for key in [key for key in wanted if key in ended]:
        open_[key] = replace(ended[key], item=_item(wanted.pop(key), ended.pop(key).item))
    for key in list(wanted)[: max(0, MAX_OPEN - len(open_))]:
        open_[key] = Told(_item(wanted.pop(key), None))
    kept = dict(list(ended.items())[-MAX_ENDED:])
    return replace(state, open=open_, ended=kept, dropped=state.dropped + len(ended) - len(kept)), len(wanted)


def _item(one: Finding, before: Item | None) -> Item:
    """As it is now; the words of when it was last seen."""
    words = (
        (_clean(one.sentence), _clean(one.remedy)) if one.present or not before else (before.sentence, before.remedy)
    )
    thread = before.thread if before else ""
    return Item(one.subject.kind, one.subject.name, one.what, "begun", one.level, one.since_s, *words, thread)


def _over(item: Item, eased: Finding | None, now_s: float) -> Item:
    words = f"now {eased.level}: {_clean(eased.sentence)}" if eased and eased.level != "ok" else item.sentence
    return replace(item, ended_s=now_s, sentence=words, seen=True)


def _clean(words: str) -> str:
    """What hosts say is theirs: one line of characters that can be shown, and not too many."""
    return " ".join("".join(one if one.isprintable() else " " for one in words).split())[:MAX_WORDS]


def _done(state: State, outcomes: Iterable[Outcome], alert: Alert, now_s: float) -> State:
    """With what the monitor did, as far as this alert tells it."""
    said = {key: at_s for key, at_s in state.said.items() if now_s - at_s < alert.repeat_s}
    kept = list(state.outcomes)
    for one in outcomes:
        routine = one.action.policy in ROUTINE and one.result in ("done", "queued", "dry-run")
        if routine or (alert.level == "critical" and one.action.verb not in GRAVE):
            continue
        key = f"{one.action.policy}/{one.action.key}/{one.result}"
        if one.result in ("failed", "refused", "dry-run"):
            if key in said:
                continue
            said[key] = now_s
        kept.append(_shown(one))
    dropped = max(0, len(kept) - MAX_OUTCOMES)
    said = dict(list(said.items())[-MAX_OUTCOMES:])
    return replace(state, outcomes=tuple(kept[dropped:]), said=said, dropped=state.dropped + dropped)


def _shown(one: Outcome) -> Outcome:
    action: Action = replace(one.action, name=_clean(one.action.name), cause=_clean(one.action.cause))
    return replace(one, action=action, words=_clean(one.words))


# --- when it is told, and how ----------------------------------------------------------------------------------------


def _news(state: State) -> bool:
    return bool(state.ended or state.outcomes) or any(not one.level or one.is_worse for one in state.open.values())


def _repeats(state: State, alert: Alert, now_s: float) -> bool:
    return any(one.level and now_s - one.at_s >= alert.repeat_s for one in state.open.values())


def _is_due(state: State, alert: Alert, now_s: float, interval_s: float | None) -> bool:
    if any(one.is_worse for one in state.open.values()) or _repeats(state, alert, now_s):
        return True
    deadline_s = (now_s if state.news_s is None else state.news_s) + alert.group_s
    return now_s + max(0.0, interval_s or 0.0) > deadline_s or now_s >= deadline_s


def _is_critical(state: State) -> bool:
    return any(one.item.level == "critical" and (not one.level or one.is_worse) for one in state.open.values())


def _told(state: State, alert: Alert, now_s: float, more: int) -> tuple[State, tuple[Message, ...]]:
    """The message, and the state in which all of it is told."""
    number = state.number + 1
    name = f"{identity(alert)}.{number}.{int(now_s)}"
    repeats = _repeats(state, alert, now_s)
    items: list[Item] = []
    open_: dict[str, Told] = {}
    for key, one in state.open.items():
        event: Event = "worse" if one.is_worse else "begun" if not one.level else "still"
        if event == "still" and not repeats:
            open_[key] = one
            continue
        item = replace(one.item, event=event, thread=one.item.thread or name)
        items.append(item)
        open_[key] = Told(item, item.level, now_s)
    items += [
        replace(one.item, event="over" if one.level else "passed", thread=one.item.thread or name)
        for one in state.ended.values()
    ]
    levels = [one.item.level for one in open_.values()]
    message = Message(
        name, now_s, ordered(items), state.outcomes, levels.count("critical"), levels.count("warning"), more,
        state.dropped, state.held, first_s=now_s,
    )  # fmt: skip
    sent = (*state.sent, now_s)[-MESSAGES_PER_HOUR:]
    return State(open=open_, said=state.said, sent=sent, number=number), (message,)
