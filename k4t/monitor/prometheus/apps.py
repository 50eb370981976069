"""Apps, and the gateways and DNS servers that send to them → samples. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from k4t.model.state import ParticipantState
from k4t.monitor.facts import Answer
from k4t.monitor.judge import Finding
from k4t.monitor.prometheus.exposition import Sample
from k4t.monitor.signs.apps import REMEDIES, replicas
from k4t.monitor.signs.sign import View
from k4t.monitor.tally import Tally, tallies

STATES = ("well", "unknown", *REMEDIES)
"""What may be the matter with a replica, as the signs have it."""
Groups = dict[tuple[str, str], dict[str, set[str]]]
"""By kind and group, then by app: the containers that a member which answers sends to."""


def samples(view: View) -> Iterator[Sample]:
    groups, answers = _published(view), _asked(view)
    for one in tallies(view.facts):
        yield from _app(view, one, groups)
        yield from _reached(view, one.app, answers)


def _published(view: View) -> Groups:
    found: Groups = {}
    for member in (*view.facts.gateways.values(), *view.facts.dns.values()):
        if member.reachable:
            apps = found.setdefault((member.kind, member.group), {})
            for end in member.document.endpoints if member.document else ():
                apps.setdefault(end.app, set()).add(end.container)
    return found


def _app(view: View, one: Tally, groups: Groups) -> Iterator[Sample]:
    labels = {"cluster": view.facts.cluster, "app": one.app}
    head = view.facts.head
    yield Sample("k4t_app_replicas_desired", labels, one.desired)
    yield Sample("k4t_app_replicas_running", labels, one.running)
    yield Sample("k4t_app_replicas_healthy", labels, one.healthy)
    judged = replicas(view, one.app)
    counts = Counter("well" if found is None else found.what or "unknown" for found in judged.values())
    for state in STATES if judged else ():
        yield Sample("k4t_app_replicas", {**labels, "state": state}, counts[state])
    containers = view.by_app.get(one.app, [])
    deaths = [view.facts.nodes[found.node].deaths.get(found.name, 0) for found in containers]
    yield Sample("k4t_app_recent_exits", labels, max(deaths, default=None))
    yield Sample("k4t_app_held", labels, None if head is None else float(one.app in head.held))
    for kind, group in sorted(_groups_of(view, one.app, groups)):
        named = groups.get((kind, group))
        published = None if named is None else len(named.get(one.app, ()))
        yield Sample("k4t_app_replicas_published", {**labels, "kind": kind, "group": group}, published)


def _groups_of(view: View, app: str, groups: Groups) -> set[tuple[str, str]]:
    """Groups that should send to it, and those that do."""
    found = {group for group, apps in groups.items() if app in apps}
    if tree := view.tree.apps.get(app):
        found |= {("gateway", route.group) for route in tree.routes}
        found |= {("dns", record.group) for record in tree.records if not record.to}
    return found


def _asked(view: View) -> dict[str, list[Answer]]:
    """What gateways' hosts say of each container's ports."""
    found: dict[str, list[Answer]] = {}
    for (container, _), answer in view.facts.reached.items():
        found.setdefault(container, []).append(answer)
    return found


def _reached(view: View, app: str, answers: Mapping[str, list[Answer]]) -> Iterator[Sample]:
    """Of containers that were asked, whose every port answered; nothing where none was asked."""
    labels = {"cluster": view.facts.cluster, "app": app}
    ids = {end.container for end in view.published.get(app, ())}
    asked = [answers[one] for one in ids if one in answers]
    if asked:
        reached = sum(all(one.problem == "" for one in found) for found in asked)
        yield Sample("k4t_app_replicas_reached", labels, reached)


# --- gateways and DNS servers ------------------------------------------------------------------------------------


def participants(view: View, findings: tuple[Finding, ...]) -> Iterator[Sample]:
    present = {one.key for one in findings if one.present}
    for one in (*view.facts.gateways.values(), *view.facts.dns.values()):
        yield from _participant(view, one, present)


def _participant(view: View, one: ParticipantState, present: set[str]) -> Iterator[Sample]:
    key = f"{one.kind}/{one.name}"
    labels = {"cluster": view.facts.cluster, "kind": one.kind, "participant": one.name, "group": one.group}
    host = view.on(key)
    place = {"driver": one.driver, "host": host.subject.name if host else ""}
    yield Sample("k4t_participant_info", {**labels, **place}, 1)
    if host is not None and host.reading is None:
        return  # whether it serves is as unknown as all else there
    stopped = f"{key}:{one.kind}-stopped" in present
    yield Sample("k4t_participant_up", labels, float(one.reachable))
    yield Sample("k4t_participant_serving", labels, _serving(view, one, stopped=stopped))
    if not one.reachable:
        return
    judged = one.rendered and not stopped and not view.running
    found = {
        "k4t_participant_rendered": float(one.rendered),
        "k4t_participant_in_step": float(f"{key}:out-of-step" not in present) if judged else None,
        "k4t_participant_epoch": one.epoch.number,
        "k4t_participant_seq": one.document.seq if one.document else 0,
        "k4t_participant_endpoints": len(one.document.endpoints) if one.document else 0,
        "k4t_participant_withdrawn": sum(out.cluster == view.facts.cluster_id for out in one.withdrawn),
        "k4t_participant_differences": len(one.differences),
    }
    yield from (Sample(name, labels, measured) for name, measured in found.items())


def _serving(view: View, one: ParticipantState, *, stopped: bool) -> float | None:
    """A gateway is dialled; a DNS server that can be asked has answered."""
    dialled = view.facts.serving.get(f"{one.kind}/{one.name}")
    if stopped or dialled:
        return 0.0
    return 1.0 if dialled == "" or (one.kind == "dns" and one.reachable) else None
