"""One check → the document that Zabbix takes (docs/zabbix.md “The document”). Pure.

It is smaller than `monitor check -o json` (200 hosts and 1,000 apps are 300 KB: an agent hands over no more than
512 KB), and made to be taken apart by plain paths: things are keyed by their name, and of each the level of every kind
of trouble is said, 0 too. What is not known is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from k4t.model.state import ParticipantState
from k4t.monitor.check import Looked
from k4t.monitor.facts import Disk, Docker, Facts, Host, Subject
from k4t.monitor.judge import LEVELS
from k4t.monitor.signs.cluster import certificate_ends
from k4t.monitor.signs.sign import View, unix_s
from k4t.monitor.tally import tallies
from k4t.monitor.zabbix.kinds import APP, BACKUP, CERTIFICATE, CLUSTER, HOST, MEMBER, NODE, Kinds

VERSION = 1
SAID_LINES = 10
SAID_CHARS = 2000

PLAIN = re.compile(r'[^"\\\x00-\x1f\x7f\ud800-\udfff]+')
"""Names that stand in a path as they are. A thing of another name is told among “other”."""
_UNSEEN = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

T = TypeVar("T")


def values(looked: Looked) -> dict[str, Any]:
    """Keys may be added, none is taken away."""
    return Values(looked).document()


def encode(document: Mapping[str, Any]) -> str:
    """One line."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


class Values:
    """One check, with what is raised sorted by what it is about."""

    def __init__(self, looked: Looked) -> None:
        self.looked, self.facts = looked, looked.facts
        self.raised: dict[str, dict[str, tuple[int, str]]] = {}
        """By subject's key, by what: severity, and the sentence."""
        self.told: set[tuple[str, str]] = set()
        for subject, what, severity, sentence in _raised(looked):
            self.raised.setdefault(subject, {})[what] = severity, sentence

    def document(self) -> dict[str, Any]:
        facts = self.facts
        head = facts.head
        things = {
            "hosts": {key: self._host(host) for key, host in _plain(facts.hosts)},
            "disks": dict(_plain(dict(_disks(facts)))),
            "nodes": {name: self._node(node) for name, node in _plain(facts.nodes)},
            "apps": self._apps(),
            "gateways": {name: self._member(one) for name, one in _plain(facts.gateways)},
            "dns": {name: self._member(one) for name, one in _plain(facts.dns)},
            "backups": self._backups(),
            "certificates": self._certificates(),
        }
        cluster = Subject("cluster", facts.cluster)
        return {
            "version": VERSION,
            "cluster": _clean(facts.cluster),
            "id": facts.cluster_id,
            "serial": head.serial if head else 0,
            "checked_at": round(facts.at_s),
            "took_s": round(facts.took_s, 3),
            "level": max((severity for raised in self.raised.values() for severity, _ in raised.values()), default=0),
            **self._counts(),
            "off_on_purpose": int(facts.off is not None and facts.off.genuine),
            "open_transactions": len(facts.transactions),
            **self._levels(cluster, CLUSTER),
            "cluster_said": self._said(cluster, CLUSTER),
            **self._others(),
            "found": {kind: list(_found(kind, named)) for kind, named in things.items()},
            **things,
        }

    # --- what is raised ------------------------------------------------------------------------------------------

    def _levels(self, subject: Subject, kinds: Kinds) -> dict[str, int]:
        raised = self.raised.get(subject.key, {})
        self.told.update((subject.key, what) for whats in kinds.values() for what in whats)
        return {
            name: max((raised[what][0] for what in whats if what in raised), default=0) for name, whats in kinds.items()
        }

    def _said(self, subject: Subject, kinds: Kinds) -> str:
        """A line for each; a problem picks its own."""
        whats = [what for names in kinds.values() for what in names]
        raised = self.raised.get(subject.key, {})
        return _short([f"{what}: {raised[what][1]}" for what in whats if what in raised])

    def _thing(self, subject: Subject, kinds: Kinds) -> dict[str, Any]:
        return {**self._levels(subject, kinds), "said": self._said(subject, kinds)}

    def _counts(self) -> dict[str, Any]:
        """How much of each level is raised, and the worst of it in words."""
        all_raised = [
            (-severity, subject, what, sentence)
            for subject, whats in self.raised.items()
            for what, (severity, sentence) in whats.items()
        ]
        counts: dict[str, Any] = {
            name: sum(-one[0] == LEVELS.index(name) for one in all_raised)
            for name in ("critical", "warning", "unknown")
        }
        lines = [f"{subject.replace('/', ' ', 1)}: {what}: {words}" for _, subject, what, words in sorted(all_raised)]
        return {**counts, "said": _short(lines)}

    def _others(self) -> dict[str, Any]:
        """What no thing in the document stands for: kinds of trouble that are newer than the template."""
        rest = [
            (severity, f"{subject.replace('/', ' ', 1)}: {what}: {sentence}")
            for subject, whats in sorted(self.raised.items())
            for what, (severity, sentence) in whats.items()
            if (subject, what) not in self.told
        ]
        level = max((severity for severity, _ in rest), default=0)
        return {"other": level, "other_said": _short([words for _, words in rest])}

    # --- things --------------------------------------------------------------------------------------------------

    def _host(self, host: Host) -> dict[str, Any]:
        found = {
            "name": str(host.subject), "host": host.name, "reachable": int(host.reading is not None),
            **self._thing(host.subject, HOST),
        }  # fmt: skip
        reading = host.reading
        if reading is None:
            return found
        memory = reading.memory
        return found | _known({
            "uptime_s": None if reading.uptime_s is None else round(reading.uptime_s),
            "cpus": reading.cpus,
            "cpu_percent": _rounded(host.cpu_percent, 1),
            "load1": reading.load[0] if reading.load else None,
            "load15": reading.load[2] if reading.load else None,
            "memory_bytes": memory.total_bytes if memory else None,
            "memory_available_bytes": memory.available_bytes if memory else None,
            "memory_percent": round(memory.percent, 1) if memory else None,
            "clock_skew_s": _rounded(reading.skew_s, 3),
        })  # fmt: skip

    def _node(self, node: Docker) -> dict[str, Any]:
        state = node.state
        found = {**self._thing(Subject("node", state.name), NODE), "up": int(state.reachable)}
        if not state.reachable:
            return found
        return found | _known({
            "containers": len(state.containers),
            "running": sum(one.running for one in state.containers),
            "strangers": len(state.strangers),
            "images_bytes": node.images_bytes,
        })  # fmt: skip

    def _apps(self) -> dict[str, Any]:
        return {
            name: {
                **self._thing(Subject("app", name), APP),
                **_known({"desired": one.desired}), "running": one.running, "healthy": one.healthy,
                "published": one.published, "reached": one.reached,
            }
            for name, one in _plain({one.app: one for one in tallies(self.facts)})
        }  # fmt: skip

    def _member(self, one: ParticipantState) -> dict[str, Any]:
        subject = Subject(one.kind, one.name)
        found = {**self._thing(subject, MEMBER), "reachable": int(one.reachable)}
        if not one.reachable:
            return found
        document = one.document
        return found | {
            "serving": int(self.facts.serving.get(subject.key, "") == ""),
            "seq": document.seq if document else 0,
            "endpoints": len(document.endpoints) if document else 0,
            "withdrawn_endpoints": sum(1 for out in one.withdrawn if out.cluster == self.facts.cluster_id),
        }

    def _backups(self) -> dict[str, Any]:
        return {
            name: {
                **self._thing(Subject("backup", name), BACKUP), "every_s": round(one.every_s),
                **_known({"age_s": None if one.confirmed_s is None
                          else max(0, round(self.facts.at_s - one.confirmed_s))}),
            }
            for name, one in _plain({one.name: one for one in self.facts.targets})
        }  # fmt: skip

    def _certificates(self) -> dict[str, Any]:
        ends = {
            name: end_s
            for name, expires in certificate_ends(View(self.facts, self.looked.tree)).items()
            if (end_s := unix_s(expires)) is not None
        }
        return {
            name: {
                **self._thing(Subject("certificate", name), CERTIFICATE), "expires": round(end_s),
                "left_s": round(end_s - self.facts.at_s),
            }
            for name, end_s in _plain(ends)
        }  # fmt: skip


def _raised(looked: Looked) -> Iterator[tuple[str, str, int, str]]:
    """Subject's key, what, severity and sentence. Of what this check could not see (a host that is away stands for it)
    that is what the last one saw: nothing is over because nobody can look. But a master that is off on purpose makes no
    copies, and their age says nothing."""
    judgement, off = looked.judgement, looked.facts.off
    seen = {one.key: one.sentence for one in judgement.findings}
    for key, entry in judgement.history.entries.items():
        subject, _, what = key.rpartition(":")
        silent = off is not None and off.genuine and subject.startswith("backup/") and key not in seen
        if entry.level and not silent:
            yield subject, what, entry.level, seen.get(key, entry.said)


def _found(kind: str, things: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """What discovery is told."""
    for key, thing in things.items():
        found = {"{#KEY}": key}
        if kind in ("hosts", "disks"):
            found |= {"{#NAME}": thing["name"], "{#HOST}": thing["host"]}
        if kind == "hosts":
            found["{#KIND}"] = key.partition("/")[0]
        yield found


def _disks(facts: Facts) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each file system of a host once, by the first of what of ours is on it."""
    for key, host in facts.hosts.items():
        mounts: set[str] = set()
        for disk in host.reading.disks.values() if host.reading else ():
            if disk.mount not in mounts:
                mounts.add(disk.mount)
                yield f"{key}:{disk.mount}", _disk(host.subject, disk)


def _disk(subject: Subject, one: Disk) -> dict[str, Any]:
    return {
        "name": f"{subject}: {one.mount}", "host": subject.name, "size_bytes": one.size_bytes,
        "used_bytes": one.used_bytes, "available_bytes": one.available_bytes,
        "space_percent": round(one.space_percent, 1), "inodes_percent": round(one.inodes_percent, 1),
    }  # fmt: skip


def _known(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in found.items() if one is not None}


def _rounded(number: float | None, digits: int) -> float | None:
    return None if number is None else round(number, digits)


def _plain(named: Mapping[str, T]) -> Iterator[tuple[str, T]]:
    """In order, so that discovery sees what did not change as unchanged."""
    yield from ((name, named[name]) for name in sorted(named) if PLAIN.fullmatch(name))


def _clean(text: str) -> str:
    """Without what a database or an encoding refuses."""
    return _UNSEEN.sub(" ", text)


def _short(lines: list[str]) -> str:
    """So many that somebody reads them."""
    shown = [_clean(line) for line in lines[:SAID_LINES]]
    if more := len(lines) - len(shown):
        shown.append(f"and {more} more")
    return "\n".join(shown)[:SAID_CHARS]
