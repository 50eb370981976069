"""What the monitor saw and did, an event each: what began, got worse or better, and ended; what became of its actions.
Pure. `eventlog` keeps them.

    {"at":TIME,"kind":KIND,"subject":{"kind","name"},"what":…,"level":…,"words":…}

KIND is raised, worse, better or over of a finding (`what` as in docs/monitor.md); done, queued, dry-run, refused or
failed of an action (`what` is its policy). Keys may be added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, get_args

from k4t.master.inspection.events import Happening
from k4t.model.value import value
from k4t.monitor.acting.action import Action, Outcome
from k4t.monitor.facts import Kind, Subject
from k4t.monitor.history import Entry, History
from k4t.monitor.judge import LEVELS, Judgement, is_blind

MAX_WORDS = 600
KINDS = frozenset(get_args(Kind))
GRAVE = frozenset({"raised", "worse", "failed"})


@value
class Event:
    """`at_s`: Unix seconds."""

    at_s: float
    kind: str
    subject: Subject
    what: str = ""
    level: str = ""
    words: str = ""

    @property
    def at(self) -> str:
        return datetime.fromtimestamp(self.at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def changes(before: History, judgement: Judgement, at_s: float) -> Iterator[Event]:
    """What this check raised, and what is over. `before`: as the check itself was given it."""
    after = judgement.history.entries
    said = {finding.key: finding.sentence for finding in judgement.findings if finding.present}
    for key in dict.fromkeys([*(one.key for one in judgement.findings), *before.entries]):
        old, new = before.entries.get(key, Entry()), after.get(key, Entry())
        if old.level == new.level or (key not in after and is_blind(key, judgement.blind)):
            continue
        subject, what = _split(key)
        kind = (
            "raised" if not old.level else "over" if not new.level else "worse" if new.level > old.level else "better"
        )
        words = said.get(key) or new.said or old.said
        yield Event(at_s, kind, subject, what, LEVELS[new.level or old.level], words if new.level else f"was: {words}")


def of_outcome(one: Outcome) -> Event:
    words = f"{one.action.words}: {one.action.cause}" + (f": {one.words}" if one.words else "")
    level = "critical" if one.result == "failed" else "warning" if one.result == "refused" else ""
    return Event(one.at_s, one.result, subject_of(one.action), one.action.policy, level, words)


def happenings(events: Iterable[Event]) -> Iterator[Happening]:
    """As `k4t events` shows them among the rest."""
    for one in events:
        app = one.subject.name if one.subject.kind == "app" else ""
        node = one.subject.name if one.subject.kind == "node" else ""
        level = f" {one.level}" if one.level and one.kind in GRAVE else ""
        what = f"{one.kind}{level} {one.what}".rstrip()
        yield Happening(one.at, "monitor", str(one.subject), f"{what}: {one.words}", app, node)


def subject_of(action: Action) -> Subject:
    return Subject("app" if action.verb in ("restart", "scale") else "node", action.name)


def _split(key: str) -> tuple[Subject, str]:
    place, _, what = key.rpartition(":")
    kind, _, name = place.partition("/")
    return Subject(kind, name), what  # type: ignore[arg-type]


def encode(event: Event) -> dict[str, Any]:
    found = {
        "at": event.at, "kind": event.kind, "subject": {"kind": event.subject.kind, "name": event.subject.name},
        "what": event.what, "level": event.level, "words": event.words[:MAX_WORDS],
    }  # fmt: skip
    return {key: one for key, one in found.items() if one != ""}


def decode(found: Mapping[str, Any]) -> Event:
    """Raises what a wrong shape raises."""
    kind = str(found["subject"]["kind"])
    if kind not in KINDS:
        raise ValueError(kind)
    at_s = datetime.fromisoformat(str(found["at"])).timestamp()
    texts = [str(found.get(key, "")) for key in ("what", "level", "words")]
    return Event(at_s, str(found["kind"]), Subject(kind, str(found["subject"]["name"])), *texts)  # type: ignore[arg-type]
