"""What the page's parts look at, and the words and small shapes they share. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from k4t.model.monitor import Measure
from k4t.model.spec import Tree
from k4t.model.state import Container, Revision
from k4t.monitor.acting.policies import FULL, GONE, UNHEALTHY
from k4t.monitor.check import Looked
from k4t.monitor.events import Event
from k4t.monitor.facts import Facts
from k4t.monitor.judge import Finding
from k4t.monitor.page.markup import Html, element, text
from k4t.monitor.signs.sign import ago

SIGNS = {"ok": "✓", "warning": "!", "critical": "✕", "unknown": "?", "plain": "·"}
"""Beside each colour, for who can't tell them apart."""
OF_ONE_THING = frozenset({
    "gateway-away", "gateway-stopped", "dns-away", "dns-stopped", "out-of-step", "rejected-config", "withdrawn",
    "docker", "stranger",
})  # fmt: skip
"""Findings that say nothing of what else is on that machine."""
MEASURED = ("ok", "unknown", "warning", "critical")


@dataclass(frozen=True)
class Page:
    """`now_s`: when the page is written, Unix seconds. `revisions`: what was applied; `events`: what the monitor saw
    and did; both in any order. `sizing`: why an app with `<scale>` has its size, as the monitor sees it."""

    looked: Looked
    tree: Tree
    revisions: tuple[Revision, ...]
    now_s: float
    refresh_s: float
    events: tuple[Event, ...] = ()
    sizing: Mapping[str, str] = field(default_factory=dict)

    @property
    def facts(self) -> Facts:
        return self.looked.facts

    @cached_property
    def raised(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.looked.judgement.findings if one.confirmed and one.level != "ok")

    @cached_property
    def pending(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.looked.judgement.findings if not one.confirmed)

    @cached_property
    def mentioned(self) -> tuple[Finding, ...]:
        """Nothing wrong, and worth knowing."""
        return tuple(one for one in self.looked.judgement.findings if one.confirmed and one.level == "ok")

    @cached_property
    def _numbered(self) -> dict[str, list[tuple[int, Finding]]]:
        """What is raised, by subject, with its number on the page: the worst first."""
        found: dict[str, list[tuple[int, Finding]]] = {}
        for number, one in enumerate(self.raised, 1):
            found.setdefault(one.subject.key, []).append((number, one))
        return found

    def worst(self, key: str, machine: str = "") -> tuple[int, Finding] | None:
        """Of one thing, and of the machine it is on; not of what else is on that machine."""
        found = list(self._numbered.get(key, ()))
        if machine != key:
            found += [one for one in self._numbered.get(machine, ()) if one[1].what not in OF_ONE_THING]
        return min(found, key=lambda one: one[0], default=None)

    @cached_property
    def _actions(self) -> dict[tuple[str, str], Event]:
        """By subject and policy, the newest of what was done."""
        done = sorted((one for one in self.events if one.kind in ACTED), key=lambda one: one.at_s)
        return {(one.subject.key, one.what): one for one in done}

    def action(self, finding: Finding) -> Event | None:
        """What was done about it since it was seen first, and not about something else of that subject."""
        policies = [policy for policy, whats in REACTS_TO.items() if finding.what in whats]
        found = (self._actions.get((finding.subject.key, policy)) for policy in policies)
        return next((one for one in found if one is not None and one.at_s >= finding.since_s), None)

    @cached_property
    def withdrawn(self) -> dict[str, int]:
        """By node: how many of its endpoints are taken out, of the member that has most of them out."""
        found: dict[str, int] = {}
        for member in (*self.facts.gateways.values(), *self.facts.dns.values()):
            nodes = {end.container: end.node for end in (member.document.endpoints if member.document else ())}
            out = Counter(nodes[one.container] for one in member.withdrawn if one.container in nodes)
            for node, number in out.items():
                found[node] = max(found.get(node, 0), number)
        return found

    @cached_property
    def containers(self) -> dict[str, tuple[Container, ...]]:
        """By app."""
        found: dict[str, list[Container]] = {}
        for one in self.facts.containers:
            found.setdefault(one.app, []).append(one)
        return {app: tuple(them) for app, them in found.items()}

    @cached_property
    def published(self) -> dict[str, set[str]]:
        """By app: its containers that a gateway or DNS server sends to."""
        found: dict[str, set[str]] = {}
        for one in (*self.facts.gateways.values(), *self.facts.dns.values()):
            for end in one.document.endpoints if one.document else ():
                found.setdefault(end.app, set()).add(end.container)
        return found

    def level(self, of: Measure, measured: float) -> str:
        return MEASURED[self.tree.monitor.threshold(of).severity(measured)]

    def since(self, at_s: float) -> str:
        return ago(max(0.0, self.now_s - at_s))

    def container(self, one: Container) -> tuple[str, str]:
        """Its level, and how it is in words; "" when it is well."""
        if not one.running:
            return "critical", one.status or one.state
        answer = self.facts.probed.get(one.id)
        problem = "Docker's check says unhealthy" if one.health == "unhealthy" else answer.problem if answer else None
        if problem is None:
            return "unknown", "starts" if one.health == "starting" else "not asked"
        return ("critical", problem) if problem else ("ok", "")


def badge(level: str, words: str = "") -> Html:
    return element(
        "span", element("span", SIGNS[level], aria_hidden="true"), text(words or level), class_=f"badge is-{level}"
    )


REACTS_TO: Mapping[str, tuple[str, ...]] = {"node-gone": GONE, "app-unhealthy": UNHEALTHY, "disk-full": FULL}
"""By policy, the findings that it does something about."""
ACTED: Mapping[str, tuple[str, str]] = {
    "done": ("ok", "done"), "queued": ("unknown", "asked for"), "dry-run": ("plain", "dry run"),
    "refused": ("warning", "held back"), "failed": ("critical", "failed"),
}  # fmt: skip
"""What became of an action: as what it is shown."""


def acted(one: Event) -> Html:
    return badge(*ACTED.get(one.kind, ("plain", one.kind)))


def named(words: str) -> Html:
    """A name that whoever can start a container may have chosen: its letters don't turn what stands beside it."""
    return element("bdi", words)


def time(at_s: float, *, class_: str = "") -> Html:
    at = datetime.fromtimestamp(at_s, UTC)
    return element("time", f"{at:%Y-%m-%d %H:%M:%S} UTC", datetime=f"{at:%Y-%m-%dT%H:%M:%SZ}", class_=class_)


def bar(percent: float) -> Html:
    """Decoration: the figure stands beside it."""
    share = min(100.0, max(0.0, percent))
    return element(
        "svg",
        element("rect", class_="track", width="100%", height="5", rx="2.5"),
        element("rect", class_="fill", width=f"{share:.1f}%", height="5", rx="2.5") if share >= 0.5 else Html(""),
        class_="bar", aria_hidden="true",
    )  # fmt: skip


def more(left: int, what: str) -> Iterator[Html]:
    if left > 0:
        yield element("p", f"and {left} more {what}", class_="soft small")
