"""The check itself, what it found, thresholds, and what belongs to no host alone → samples. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from k4t import __version__
from k4t.model.monitor import UNITS, Monitor, Threshold
from k4t.monitor.facts import Target
from k4t.monitor.judge import LEVELS, Finding
from k4t.monitor.prometheus.exposition import Sample
from k4t.monitor.prometheus.hosts import is_cut_off
from k4t.monitor.signs.cluster import certificate_ends
from k4t.monitor.signs.sign import View, unix_s

MAX_FINDINGS = 500
"""The worst ones; k4t_findings counts all of them."""
STATES = ("confirmed", "none", "denied", "refused")
FAMILY_OF: Mapping[str, str] = {"load": "k4t_threshold_load", "restarts": "k4t_threshold_exits"}
"""Of thresholds that have no unit."""


def check(view: View, findings: tuple[Finding, ...]) -> Iterator[Sample]:
    facts = view.facts
    labels = {"cluster": facts.cluster}
    yield Sample("k4t_cluster_info", {**labels, "id": facts.cluster_id, "version": __version__}, 1)
    yield Sample("k4t_check_timestamp_seconds", labels, round(facts.at_s, 3))
    yield Sample("k4t_check_duration_seconds", labels, round(facts.took_s, 3))
    yield Sample("k4t_monitor_cut_off", labels, float(is_cut_off(view)))
    raised = [one for one in findings if one.confirmed]
    counts = Counter(one.level for one in raised)
    yield from (Sample("k4t_findings", {**labels, "level": level}, counts[level]) for level in LEVELS)
    for one in raised[:MAX_FINDINGS]:
        of = {**labels, "kind": one.subject.kind, "name": one.subject.name, "what": one.what}
        yield Sample("k4t_finding", {**of, "level": one.level}, 1)
        yield Sample("k4t_finding_since_timestamp_seconds", of, round(one.since_s, 3))


def samples(view: View) -> Iterator[Sample]:
    facts = view.facts
    labels = {"cluster": facts.cluster}
    readings = [host.reading for host in facts.hosts.values() if host.reading is not None]
    if readings:  # else nobody has said whether it is so
        yield Sample("k4t_master_off_on_purpose", labels, float(facts.off is not None and facts.off.genuine))
        yield Sample("k4t_run_active", labels, float(view.running))
        yield Sample("k4t_lock_held", labels, float(any(one.lock_held for one in readings)))
        yield Sample("k4t_transactions_open", labels, len(facts.transactions))
    held = [since_s for one in readings if one.lock_held and one.lock and (since_s := unix_s(one.lock.since))]
    yield Sample("k4t_lock_since_timestamp_seconds", labels, _by_ours(view, min(held, default=None)))
    begun = (one.since_s or view.firsts.get(one.id) for one in facts.transactions)
    oldest_s = _by_ours(view, min(filter(None, begun), default=None))
    yield Sample("k4t_transaction_since_timestamp_seconds", labels, oldest_s)
    yield Sample("k4t_cluster_serial", labels, facts.head.serial if facts.head else None)
    for name, ends in sorted(certificate_ends(view).items()):
        yield Sample("k4t_certificate_expiry_timestamp_seconds", {**labels, "certificate": name}, unix_s(ends))
    for target in facts.targets:
        yield from _target(view, target)


def _target(view: View, one: Target) -> Iterator[Sample]:
    labels = {"cluster": view.facts.cluster, "target": one.name}
    yield Sample("k4t_backup_period_seconds", labels, one.every_s)
    yield Sample("k4t_backup_confirmed_timestamp_seconds", labels, _by_ours(view, one.confirmed_s))
    for state in STATES:
        yield Sample("k4t_backup_state", {**labels, "state": state}, float(one.state == state))
    limit = view.tree.monitor.backup_age(one.every_s)
    yield from _limits("k4t_backup_age_limit_seconds", labels, limit, 1.0)


def _by_ours(view: View, at_s: float | None) -> float | None:
    """By the monitor's clock, where that is the one that is wrong: so its age is right, compared with the check's."""
    return None if at_s is None else round(at_s + view.facts.at_s - view.now_s, 3)


def thresholds(cluster: str, monitor: Monitor) -> Iterator[Sample]:
    """As they hold now, so that alert rules name none. “never” is absent. Those of copies go with each target."""
    for of, unit in UNITS.items():
        if of in ("backup-age", "state"):
            continue
        family = {"%": "k4t_threshold_ratio", "s": "k4t_threshold_seconds"}.get(unit) or FAMILY_OF[of]
        scale = 0.01 if unit == "%" else 1.0
        yield from _limits(family, {"cluster": cluster, "of": of}, monitor.threshold(of), scale)


def _limits(family: str, labels: Mapping[str, str], one: Threshold, scale: float) -> Iterator[Sample]:
    for level, limit in (("warning", one.warning), ("critical", one.critical)):
        yield Sample(family, {**labels, "level": level}, None if limit is None else round(limit * scale, 6))
