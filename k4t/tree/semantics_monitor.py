"""monitor.xml: thresholds, policies, alerts; thresholds are held against each other and the backups' periods. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from k4t.errors import Finding
from k4t.model.monitor import (
    AFTER,
    AFTER_OF,
    CHECKS_MAX,
    DEFAULTS,
    LOWER_IS_WORSE,
    UNITS,
    Measure,
    Monitor,
    Policy,
    Threshold,
)
from k4t.model.spec import Backup
from k4t.tree import values as v
from k4t.tree.check import Item, cut
from k4t.tree.semantics_alerts import alert, check_alerts
from k4t.tree.semantics_app import finding

NEVER = "never"
OF_POLICIES: Mapping[str, tuple[str, ...]] = {
    "above": ("nodes-short",), "below": ("nodes-idle",), "for": ("nodes-idle",), "max-nodes": ("node-gone",),
    "keep-nodes": ("node-gone", "nodes-idle"),
}  # fmt: skip
LEAST_INTERVAL_S, MOST_INTERVAL_S = 1.0, 900.0
"""A check logs in everywhere; checks half an hour apart say nothing of each other."""
_TYPES = {"%": v.PERCENT, "s": v.PERIOD, "": v.DECIMAL}


def monitor(item: Item, findings: list[Finding]) -> Monitor:
    """What monitor.xml says, and what is wrong with it."""
    values: dict[str, Any] = item.values
    thresholds = [_threshold(one, findings) for one in item.all("threshold")]
    if not LEAST_INTERVAL_S <= values["interval"] <= MOST_INTERVAL_S:
        message = f'<monitor interval="{cut(item.given.get("interval", ""))}">: from 1s to 15m'
        findings.append(finding(item.where, "value", message, "a check takes what all logins take; 10s is usual"))
    return Monitor(
        values["interval"],
        {one.of: one for one in thresholds if one is not None},
        {one.when: one for one in (_policy(one, findings) for one in item.all("policy"))},
        tuple(made for one in item.all("alert") if (made := alert(one, findings)) is not None),
    )


def check_monitor(found: Monitor, backups: Iterable[Backup]) -> Iterator[Finding]:
    """What contradicts the rest of the tree, or itself."""
    yield from check_alerts(found.alerts)
    short, idle = found.policy("nodes-short"), found.policy("nodes-idle")
    if idle.below_percent >= short.above_percent:
        message = (
            f"nodes would be switched off and on again: up to {idle.below_percent:g}% is little, and "
            f"{short.above_percent:g}% too much"
        )
        where = (idle if "nodes-idle" in found.policies else short).where
        yield finding(where, "policy", message, "write a smaller below=")
    age = found.thresholds.get("backup-age")
    for backup in backups:
        place = backup.node or backup.host
        limit_s = (
            min((limit for limit in (age.warning, age.critical) if limit is not None), default=None) if age else None
        )
        if age is not None and limit_s is not None and limit_s <= backup.every_s:
            message = (
                f"a copy {limit_s:g} s old is too old, but {place} gets one every {backup.every_s:g} s ({backup.where})"
            )
            yield finding(age.where, "threshold", message, "give copies longer than their period")


def _policy(item: Item, findings: list[Finding]) -> Policy:
    values: dict[str, Any] = item.values
    for name, whens in OF_POLICIES.items():
        if item.given.get(name) and values["when"] not in whens:
            those = " and ".join(f'<policy when="{when}">' for when in whens)
            message = f"{name}= is of {those} alone"
            findings.append(finding(item.where, "policy", message, f"write it there, or take {name}= away"))
    return Policy(
        values["when"], values["enabled"], values["dry-run"], values["after"] or AFTER_OF.get(values["when"], AFTER),
        values["per-hour"],
        values["max-nodes"], values["keep-nodes"], item.where, values["above"], values["below"], values["for"],
    )  # fmt: skip


def _threshold(item: Item, findings: list[Finding]) -> Threshold | None:
    """None where it is wrong, which is then told."""
    before = len(findings)
    values: dict[str, Any] = item.values
    of = cast("Measure", values["of"])
    default = DEFAULTS[of]
    after = values["after"] or (min(default.after, values["of-last"]) if values["of-last"] else default.after)
    of_last = values["of-last"] or max(default.of_last, after)
    limits = {level: _limit(of, level, item, findings) for level in ("warning", "critical")}
    given = [level for level, text in item.given.items() if level in limits and text != NEVER]
    warning = limits["warning"] if "warning" in item.given else None if of == "backup-age" else default.warning
    critical = limits["critical"] if "critical" in item.given else None if of == "backup-age" else default.critical
    made = Threshold(of, warning, critical, after, of_last, item.where)
    if len(findings) == before:
        findings += _contradictions(made, given)
    return made if len(findings) == before else None


def _limit(of: Measure, level: str, item: Item, findings: list[Finding]) -> float | None:
    text = item.given.get(level)
    if text is None or text == NEVER:
        return None
    kind = _TYPES[UNITS[of]]
    try:
        return float(str(kind.parse(text)))
    except ValueError:
        message = f'<threshold of="{of}">: {level}="{cut(text)}" is not {kind.phrase}'
        findings.append(finding(item.where, "value", message, f"write for example {kind.example}, or {NEVER}"))
        return None


def _contradictions(made: Threshold, given: list[str]) -> Iterator[Finding]:
    name = f'<threshold of="{made.of}">'
    if made.of == "state" and given:
        message = f"{name}: {' and '.join(given)} can't be: it is right or wrong, and not measured"
        yield finding(made.where, "threshold", message, "write after= and of-last= alone")
        return
    if made.after > made.of_last:
        message = f"{name}: {made.after} checks of the last {made.of_last} can't be"
        yield finding(made.where, "threshold", message, "give of-last at least what after has")
    if made.of_last > CHECKS_MAX:
        message = f"{name}: of-last={made.of_last}, and {CHECKS_MAX} checks are remembered"
        yield finding(made.where, "threshold", message, f"write at most {CHECKS_MAX}")
    if made.warning is None or made.critical is None:
        return
    lower = made.of in LOWER_IS_WORSE
    if made.critical > made.warning if lower else made.critical < made.warning:
        whose = (
            "" if len(given) == 2 else f" (its own {'critical' if given == ['warning'] else 'warning'} is the default)"
        )
        unit = UNITS[made.of] and f" {UNITS[made.of]}"
        message = (
            f"{name}: critical at {made.critical:g}{unit} comes before the warning at {made.warning:g}{unit}{whose}"
        )
        yield finding(
            made.where, "threshold", message, f"write both, critical the {'lower' if lower else 'higher'} one"
        )
