"""Signs of this check, and what the checks before it saw → findings. Pure: this is where nothing flaps.

A finding is *raised* when a sign was there in `after` of the last `of-last` checks, and it is over when it was in none
of them. What is seen and not raised yet is *pending*: shown, and no reason for an alarm. The first check, or the first
for long, has nothing to compare with: what it sees counts at once, for as long as it is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from k4t.model.monitor import CHECKS_MAX, DEFAULTS, Measure, Monitor, Threshold
from k4t.model.value import value
from k4t.monitor.facts import Facts, Subject, Ticks
from k4t.monitor.history import MAX_SAID, Entry, History, recent
from k4t.monitor.signs.sign import Sign, Signs

LEVELS = ("ok", "unknown", "warning", "critical")
MEASURE_OF: Mapping[str, Measure] = {
    "restarting": "restarts", "lock-held": "lock-age", "transaction-open": "transaction-age",
}  # fmt: skip
"""Signs that are called otherwise than what is measured of them."""


@value
class Finding:
    """`level`: what is held to be the case; of one that is pending, what was seen. `since_s`: when it was seen first.
    `seen` of the last `checks` checks saw it. `present`: this one did."""

    subject: Subject
    what: str
    level: str
    confirmed: bool
    since_s: float
    seen: int
    checks: int
    sentence: str
    remedy: str = ""
    measured: float | None = None
    threshold: Threshold | None = None
    present: bool = True

    @property
    def key(self) -> str:
        return f"{self.subject.key}:{self.what}"


@value
class Judgement:
    """`findings`: the worst first. `history` is the next check's. `blind`: keys of subjects, or of one finding, that
    can't be known now; what is missing of them is not over."""

    findings: tuple[Finding, ...]
    history: History
    blind: frozenset[str] = frozenset()

    @property
    def level(self) -> str:
        """The worst of what is raised."""
        severities = (LEVELS.index(one.level) for one in self.findings if one.confirmed)
        return LEVELS[max(severities, default=0)]


def judge(signs: Signs, history: History, monitor: Monitor, now_s: float) -> Judgement:
    """`history` as `recent` leaves it comes out one check longer; what `remembered` put into it stays."""
    before = recent(history, now_s)
    found = {sign.key: sign for sign in _worst(signs.found)}
    entries: dict[str, Entry] = {}
    findings: list[Finding] = []
    for key in dict.fromkeys([*found, *before.entries]):
        sign, old = found.get(key), before.entries.get(key, Entry())
        if sign is None and is_blind(key, signs.blind):
            entries[key] = old
            continue
        threshold = _hysteresis(key, sign, monitor)
        entry = step(old, sign.severity if sign else 0, threshold, now_s, rounds=len(before.rounds))
        entry = replace(entry, said=sign.sentence[:MAX_SAID] if sign else old.said)
        if any(entry.samples) or entry.level:
            entries[key] = entry
        if finding := _finding(key, sign, entry, threshold):
            findings.append(finding)
    rounds = (*before.rounds, now_s)[-CHECKS_MAX:]
    return Judgement(tuple(sorted(findings, key=_order)), replace(history, rounds=rounds, entries=entries), signs.blind)


def step(old: Entry, severity: int, threshold: Threshold, now_s: float, *, rounds: int) -> Entry:
    """One check more. `rounds`: how many there were before it; none: what is seen counts at once."""
    samples = (*old.samples, severity)[-threshold.of_last :]
    raised = max((level for level in (1, 2, 3) if sum(one >= level for one in samples) >= threshold.after), default=0)
    if not rounds:
        raised = severity
    proven = len(old.samples) >= threshold.after  # else it was raised by the first check alone
    held = min(old.level, max(samples) if proven else severity)
    since_s = old.since_s if any(old.samples) and any(samples) else now_s
    return Entry(samples, max(raised, held), since_s)


def remembered(history: History, facts: Facts) -> History:
    """With what the next check compares its own with: processors' ticks, and since when transactions are open."""
    ticks: dict[str, Ticks] = {
        key: host.reading.ticks for key, host in facts.hosts.items() if host.reading and host.reading.ticks
    }
    firsts = {one.id: history.firsts.get(one.id, facts.at_s) for one in facts.transactions}
    return replace(history, ticks=ticks, firsts=firsts)


def _worst(signs: Iterable[Sign]) -> list[Sign]:
    """One a key: of several (two strangers on a node) the worst, in the first's place."""
    kept: dict[str, Sign] = {}
    for sign in signs:
        before = kept.get(sign.key)
        if before is None or sign.severity > before.severity:
            kept[sign.key] = sign
    return list(kept.values())


def is_blind(key: str, blind: frozenset[str]) -> bool:
    """Whether a finding's key is one of, or of a subject of, those that can't be known."""
    return key in blind or key.rpartition(":")[0] in blind


def _hysteresis(key: str, sign: Sign | None, monitor: Monitor) -> Threshold:
    """By what the sign was measured; what is right or wrong has one of its own."""
    if sign is not None and sign.threshold is not None:
        return sign.threshold
    what = key.rpartition(":")[2]
    measure = MEASURE_OF.get(what, what)
    return monitor.threshold(measure if measure in DEFAULTS else "state")  # type: ignore[arg-type]


def _finding(key: str, sign: Sign | None, entry: Entry, threshold: Threshold) -> Finding | None:
    """None where there is nothing to say."""
    severity = sign.severity if sign else 0
    if not entry.level and not severity and sign is None:
        return None
    place, _, what = key.rpartition(":")
    kind, _, name = place.partition("/")
    subject = sign.subject if sign else Subject(kind, name)  # type: ignore[arg-type]
    common = Finding(
        subject, what, LEVELS[entry.level or severity], bool(entry.level) or not severity, entry.since_s,
        sum(map(bool, entry.samples)), len(entry.samples), "",
    )  # fmt: skip
    if sign is None:
        left = len(entry.samples) - max(place for place, one in enumerate(entry.samples) if one) - 1
        more = threshold.of_last - left
        sentence = f"no longer so; over after {more} more such {'check' if more == 1 else 'checks'} (was: {entry.said})"
        return replace(common, sentence=sentence, present=False)
    return replace(
        common, sentence=sign.sentence, remedy=sign.remedy, measured=sign.measured, threshold=sign.threshold
    )  # fmt: skip


def _order(one: Finding) -> tuple[bool, int, str, str]:
    return not one.confirmed, -LEVELS.index(one.level), one.subject.key, one.what
