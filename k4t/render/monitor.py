"""What a check found: for people (the worst first, a line each), as JSON, and as a Nagios plug-in says it.

JSON (keys may be added, none is taken away; docs/monitor.md explains them) is made of `as_json` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from k4t.model.monitor import UNITS, Threshold
from k4t.model.state import ParticipantState
from k4t.monitor.acting.action import Outcome
from k4t.monitor.check import Looked
from k4t.monitor.facts import Disk, Docker, Facts, Host
from k4t.monitor.judge import Finding
from k4t.monitor.tally import tallies
from k4t.render.console import Console, age, plural

COLORS = {"critical": "red", "warning": "yellow", "unknown": "cyan", "ok": "dim"}
NAGIOS = {"ok": 0, "warning": 1, "critical": 2, "unknown": 3}
NAGIOS_NAMED = 3


def exit_status(looked: Looked) -> int:
    """0 when nothing raised is worse than ok."""
    return 0 if looked.judgement.level == "ok" else 1


# --- for people --------------------------------------------------------------------------------------------------


def lines(looked: Looked, console: Console, notes: tuple[str, ...] = ()) -> Iterator[str]:
    findings = looked.judgement.findings
    bad = [one for one in findings if one.confirmed and one.level != "ok"]
    pending = [one for one in findings if not one.confirmed]
    yield from (_line(one, looked.facts.at_s, console) for one in bad)
    if pending:
        yield from [""] * bool(bad)
        yield from [console.style("Seen, and not in enough checks yet to count:", "bold")]
        yield from (_line(one, looked.facts.at_s, console) for one in pending)
    for one in findings:
        if one.confirmed and one.level == "ok":
            yield console.style(f"          {one.subject}: {one.sentence}", "dim")
    yield from (console.style(f"! {note}", "yellow") for note in notes)
    if bad or pending:
        yield ""
    yield summary(looked, console)


def _line(one: Finding, now_s: float, console: Console) -> str:
    level = console.style(f"{one.level.upper():8}", COLORS[one.level])
    since = f" (for {age(now_s - one.since_s)})" if one.confirmed and now_s - one.since_s >= 1 else ""
    remedy = f"; {one.remedy}" if one.remedy and one.present else ""
    return f"{level}  {one.subject}: {one.what}: {one.sentence}{since}{remedy}"


def summary(looked: Looked, console: Console) -> str:
    facts, found = looked.facts, looked.judgement.findings
    raised = [one.level for one in found if one.confirmed]
    counts = [
        console.style(f"{raised.count(level)} {level}", COLORS[level])
        for level in ("critical", "warning", "unknown")
        if level in raised
    ]
    state = ", ".join(counts) or console.style("all is well", "green")
    answered = sum(1 for host in facts.hosts.values() if host.reading is not None)
    seen = [f"{answered} of {plural(len(facts.hosts), 'host')}", plural(len(tallies(facts)), "app")]
    seen += [plural(len(facts.gateways), "gateway")] if facts.gateways else []
    seen += [plural(len(facts.dns), "DNS server")] if facts.dns else []
    return f"{facts.cluster}: {state}; {', '.join(seen)} in {facts.took_s:.1f} s"


def outcome(one: Outcome, console: Console) -> str:
    """What was done, or not, and why."""
    color = {"failed": "red", "refused": "yellow"}.get(one.result, "green")
    words = f": {one.words}" if one.words else ""
    return f"{console.style(f'{one.result:8}', color)}  {one.action.words}: {one.action.cause}{words}"


# --- JSON ----------------------------------------------------------------------------------------------------------


def as_json(looked: Looked) -> dict[str, Any]:
    facts = looked.facts
    head = facts.head
    return {
        "version": 1,
        "cluster": facts.cluster,
        "id": facts.cluster_id,
        "serial": head.serial if head else 0,
        "checked_at": _time(facts.at_s),
        "took_s": round(facts.took_s, 3),
        "level": looked.judgement.level,
        "findings": [_finding(one) for one in looked.judgement.findings],
        "hosts": [_host(host) for host in facts.hosts.values()],
        "nodes": [_node(node, facts) for node in facts.nodes.values()],
        "apps": [
            {
                "name": one.app, "desired": one.desired, "running": one.running, "healthy": one.healthy,
                "published": one.published, "reached": one.reached,
            }
            for one in tallies(facts)
        ],
        "gateways": [_member(one, facts) for one in facts.gateways.values()],
        "dns": [_member(one, facts) for one in facts.dns.values()],
        "backups": [
            {
                "target": one.name, "every_s": one.every_s, "state": one.state,
                "confirmed_at": _time(one.confirmed_s) if one.confirmed_s is not None else None,
                "age_s": round(facts.at_s - one.confirmed_s, 1) if one.confirmed_s is not None else None,
            }
            for one in facts.targets
        ],
        "transactions": [{"id": one.id, "on": one.on, "state": one.state} for one in facts.transactions],
        "off_on_purpose": facts.off is not None and facts.off.genuine,
    }  # fmt: skip


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _finding(one: Finding) -> dict[str, Any]:
    return {
        "subject": {"kind": one.subject.kind, "name": one.subject.name},
        "what": one.what,
        "level": one.level,
        "confirmed": one.confirmed,
        "present": one.present,
        "since": _time(one.since_s),
        "seen": one.seen,
        "checks": one.checks,
        "value": None if one.measured is None else round(one.measured, 3),
        "threshold": _threshold(one.threshold),
        "sentence": one.sentence,
        "remedy": one.remedy,
    }


def _threshold(one: Threshold | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {
        "of": one.of, "unit": UNITS[one.of], "warning": one.warning, "critical": one.critical, "after": one.after,
        "of_last": one.of_last,
    }  # fmt: skip


def _host(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": host.name,
        "subject": {"kind": host.subject.kind, "name": host.subject.name},
        "things": [{"kind": thing.kind, "name": thing.name} for thing in host.things],
        "reachable": host.reading is not None,
        "problem": host.failure.message if host.failure else "",
    }
    reading = host.reading
    if reading is None:
        return found
    memory = reading.memory
    return found | {
        "uptime_s": reading.uptime_s,
        "load": list(reading.load) if reading.load else None,
        "cpus": reading.cpus,
        "cpu_percent": None if host.cpu_percent is None else round(host.cpu_percent, 1),
        "memory_bytes": memory.total_bytes if memory else None,
        "memory_available_bytes": memory.available_bytes if memory else None,
        "disks": [_disk(one) for one in reading.disks.values()],
        "clock_skew_s": None if reading.skew_s is None else round(reading.skew_s, 3),
        "clock_skew_doubt_s": round(reading.skew_doubt_s, 3),
        "locked": reading.lock_held,
        "lock_holder": reading.lock.words if reading.lock else None,
        "processes": dict(reading.processes),
        "serial": reading.head.serial if reading.head else None,
        "garbage": list(reading.garbage),
    }


def _disk(one: Disk) -> dict[str, Any]:
    return {
        "name": one.name, "mount": one.mount, "size_bytes": one.size_bytes, "used_bytes": one.used_bytes,
        "available_bytes": one.available_bytes, "inodes": one.inodes, "inodes_used": one.inodes_used,
        "percent": round(one.percent, 1),
    }  # fmt: skip


def _node(node: Docker, facts: Facts) -> dict[str, Any]:
    state = node.state
    return {
        "name": state.name,
        "host": facts.host_of.get(f"node/{state.name}", ""),
        "docker": state.reachable,
        "problem": state.problem,
        "containers": len(state.containers) if state.reachable else None,
        "running": sum(one.running for one in state.containers) if state.reachable else None,
        "strangers": len(state.strangers) if state.reachable else None,
        "images_bytes": node.images_bytes,
    }


def _member(one: ParticipantState, facts: Facts) -> dict[str, Any]:
    certificates = one.document.certificates if one.document else ()
    return {
        "name": one.name,
        "group": one.group,
        "driver": one.driver,
        "host": facts.host_of.get(f"{one.kind}/{one.name}", ""),
        "reachable": one.reachable,
        "serving": facts.serving.get(f"{one.kind}/{one.name}", "") == "",
        "epoch": one.epoch.number,
        "seq": one.document.seq if one.document else 0,
        "digest": one.digest,
        "rendered": one.rendered,
        "differences": list(one.differences),
        "withdrawn": sum(1 for out in one.withdrawn if out.cluster == facts.cluster_id),
        "endpoints": len(one.document.endpoints) if one.document else 0,
        "certificates": [{"name": cert.name, "expires": cert.expires} for cert in certificates],
        "problem": one.problem,
    }


def outcome_as_json(one: Outcome) -> dict[str, Any]:
    action = one.action
    return {
        "policy": action.policy, "verb": action.verb, "name": action.name, "replica": action.replica,
        "replicas": action.replicas if action.verb == "scale" else None, "cause": action.cause, "result": one.result,
        "at": _time(one.at_s), "words": one.words, "intent": one.intent,
    }  # fmt: skip


# --- Nagios --------------------------------------------------------------------------------------------------------


def nagios(looked: Looked) -> tuple[str, int]:
    """One line with performance data, and the plug-in's exit status: 0 ok, 1 warning, 2 critical, 3 unknown.
    https://nagios-plugins.org/doc/guidelines.html"""
    level = looked.judgement.level
    raised = [one for one in looked.judgement.findings if one.confirmed and one.level != "ok"]
    named = [f"{one.subject} {one.what}: {one.sentence}" for one in raised[:NAGIOS_NAMED]]
    more = f" and {len(raised) - NAGIOS_NAMED} more" if len(raised) > NAGIOS_NAMED else ""
    said = "; ".join(named) + more if named else f"{len(looked.facts.hosts)} hosts, {len(tallies(looked.facts))} apps"
    text = f"K4T {level.upper()} - {looked.facts.cluster}: {said}".replace("|", "/").replace("\n", " ")
    return f"{text[:1000]} | {' '.join(_figures(looked))}", NAGIOS[level]


def _figures(looked: Looked) -> Iterator[str]:
    facts, monitor = looked.facts, looked.tree.monitor
    hosts = [host for host in facts.hosts.values() if host.reading is not None]
    yield f"hosts={len(hosts)};;;0;{len(facts.hosts)}"
    apps = tallies(facts)
    yield f"desired={sum(one.desired or 0 for one in apps)};;;0"
    yield f"healthy={sum(one.healthy for one in apps)};;;0"
    worst: Mapping[str, list[float]] = {
        "disk": [one.percent for host in hosts if host.reading for one in host.reading.disks.values()],
        "memory": [host.reading.memory.percent for host in hosts if host.reading and host.reading.memory],
        "cpu": [host.cpu_percent for host in hosts if host.cpu_percent is not None],
    }
    for name, values in worst.items():
        threshold = monitor.threshold(name)  # type: ignore[arg-type]
        if values:
            limits = ";".join("" if one is None else f"{one:g}" for one in (threshold.warning, threshold.critical))
            yield f"{name}={max(values):.1f}%;{limits};0;100"
    yield f"time={facts.took_s:.3f}s;;;0"
