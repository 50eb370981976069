"""Apps: replicas that are missing, ending, stopped, unhealthy, out of reach or not published. Each replica is told
once, by the first of these that holds. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from k4t.model.app import App
from k4t.model.state import Container
from k4t.model.value import value
from k4t.monitor.facts import Subject
from k4t.monitor.signs.sign import CRITICAL, WARNING, Sign, View, listed

START_S = 30.0
REMEDIES = {
    "container-missing": "k4t explain {app}",
    "restarting": "k4t logs {app}",
    "container-stopped": "k4t explain {app}; k4t apply {app} starts it anew",
    "unhealthy": "k4t explain {app}",
    "endpoint-dead": "is there a firewall between the gateway and the node? k4t apply {app} publishes anew",
    "unpublished": "k4t apply {app}",
}


@value
class Trouble:
    """What is the matter with one replica."""

    what: str
    replica: str
    words: str
    deaths: int = 0


def signs(view: View) -> Iterator[Sign]:
    """Apps that only documents know count where there is no tree to say what should be."""
    known = set() if view.tree.apps else {*view.published, *view.by_app}
    for name in sorted({*view.facts.desired, *known}):
        yield from _app(view, name)
    yield from _held(view)


def _app(view: View, name: str) -> Iterator[Sign]:
    judged = replicas(view, name)
    troubles = [trouble for trouble in judged.values() if trouble is not None and trouble.what]
    yield from _told(view, name, troubles, sum(trouble is None for trouble in judged.values()), len(judged))


def replicas(view: View, name: str) -> dict[str, Trouble | None]:
    """What is the matter with each that should be there; None: it is well, `what` "": it is not known. Nothing of an
    app that should have none, or that is just being changed."""
    app = view.tree.apps.get(name)
    containers = [one for one in view.by_app.get(name, ()) if not view.given_up(one.node)]
    wanted = view.facts.desired.get(name)
    if wanted is None:
        wanted = tuple(sorted({one.replica for one in (*containers, *view.published.get(name, ()))}))
    if view.running:
        return {}
    return {
        replica: _trouble(view, app, [one for one in containers if one.replica == replica], name, replica)
        for replica in wanted
    }


def _told(view: View, name: str, troubles: list[Trouble], well: int, wanted: int) -> Iterator[Sign]:
    """One sign for each kind, of all the replicas it is about."""
    for what in dict.fromkeys(trouble.what for trouble in troubles):
        mine = [trouble for trouble in troubles if trouble.what == what]
        sentence = f"{len(mine)} of {wanted}: {listed([trouble.words for trouble in mine])}"
        severity = CRITICAL if not well else WARNING
        if not well:
            sentence += "; none is left that is well"
        sign = Sign(Subject("app", name), what, severity, sentence, REMEDIES[what].format(app=name))
        if what == "restarting":
            deaths = float(max(trouble.deaths for trouble in mine))
            threshold = view.tree.monitor.threshold("restarts")
            severity = max(severity, threshold.severity(deaths))
            sign = dataclasses.replace(sign, severity=severity, measured=deaths, threshold=threshold)
        yield sign


def _trouble(view: View, app: App | None, containers: list[Container], name: str, replica: str) -> Trouble | None:
    """None: it is well. One without a name (`what` "") is not known, or told elsewhere."""
    if not containers:
        nodes = {end.node for end in view.published.get(name, ()) if end.replica == replica}
        if not view.away and (name in view.facts.desired or nodes <= view.facts.nodes.keys()):
            return Trouble("container-missing", replica, f"replica {replica} has no container")
        return Trouble("", replica, "")
    found = [_container(view, app, one) for one in containers]
    if any(one is None for one in found):
        return _unpublished(view, app, containers, replica)
    return min((one for one in found if one is not None), key=lambda one: list(REMEDIES).index(one.what))


def _container(view: View, app: App | None, one: Container) -> Trouble | None:
    where = f"replica {one.replica} on {one.node}"
    node = view.facts.nodes[one.node]
    deaths = node.deaths.get(one.name, 0)
    restarts = view.tree.monitor.threshold("restarts")
    if one.state == "restarting" or restarts.severity(float(deaths)):
        times = f"ended {deaths} times in 10 min" if deaths else "ends again and again"
        return Trouble("restarting", one.replica, f"{where} {times} ({one.status or one.state})", max(deaths, 1))
    if not one.running:
        return Trouble("container-stopped", one.replica, f"{where} is {one.state} ({one.status})")
    if starting(view, app, one):
        return None
    answer = view.facts.probed.get(one.id)
    problem = "Docker's check says unhealthy" if one.health == "unhealthy" else answer.problem if answer else None
    if problem:
        return Trouble("unhealthy", one.replica, f"{where}: {problem}")
    for port in one.ports:
        reached = view.facts.reached.get((one.id, port.number))
        if reached is not None and reached.problem:
            words = f"{where} answers there, but not from {reached.asked_from}: {reached.problem}"
            return Trouble("endpoint-dead", one.replica, words)
    return None


def starting(view: View, app: App | None, one: Container) -> bool:
    """Whether it need not answer yet."""
    start_s = app.health.start_period_s if app and app.health else START_S
    return one.health == "starting" or _age_s(view, one) < start_s


def _age_s(view: View, one: Container) -> float:
    """By its node's own clock."""
    host = view.on(f"node/{one.node}")
    clock_s = host.reading.clock_s if host and host.reading else None
    return (clock_s if clock_s is not None else view.now_s) - one.created_s


def _unpublished(view: View, app: App | None, containers: list[Container], replica: str) -> Trouble | None:
    """Whether a group that should send to it does not."""
    if app is None:
        return None
    ids = {one.id for one in containers}
    groups = {("gateway", route.group) for route in app.routes}
    groups |= {("dns", record.group) for record in app.records if not record.to}
    for kind, group in sorted(groups):
        named = view.named.get((kind, group))
        if named is not None and ids.isdisjoint(named):
            word = "gateway" if kind == "gateway" else "DNS server"
            words = f"replica {replica} on {containers[0].node} is well, but no {word} of group {group} knows it"
            return Trouble("unpublished", replica, words)
    return None


def _held(view: View) -> Iterator[Sign]:
    head = view.facts.head
    for name, spec in sorted(head.held.items()) if head else ():
        if name in view.tree.apps:
            at = f" at serial {head.held_at[name]}" if head and name in head.held_at else ""
            sentence = f"held: spec {spec[:11]} did not get healthy{at}, and is not tried again"
            yield Sign(Subject("app", name), "held", WARNING, sentence, f"mend it, or k4t apply {name} --retry")
