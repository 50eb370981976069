"""Gateways and DNS servers: away, stopped, out of step, refusing their configuration; what was withdrawn. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from k4t.master.planning.lag import ahead, lag
from k4t.model.participant import Kind
from k4t.model.state import Container, ParticipantState
from k4t.monitor.facts import Subject
from k4t.monitor.signs.sign import CRITICAL, OK, WARNING, Sign, View, listed
from k4t.remote.restricted import BY

PROGRAMS = {
    "envoy": ("envoy",), "haproxy": ("haproxy",), "nginx": ("nginx",), "dnsmasq": ("dnsmasq",), "rfc2136": ("named",),
    "hosts": ("coredns",),
}  # fmt: skip
"""What a driver's vendor is called among processes."""


def signs(view: View) -> Iterator[Sign]:
    kinds: tuple[tuple[Kind, Mapping[str, ParticipantState]], ...] = (
        ("gateway", view.facts.gateways), ("dns", view.facts.dns),
    )  # fmt: skip
    for kind, members in kinds:
        for state in members.values():
            if f"{kind}/{state.name}" not in view.blind:
                yield from _member(view, kind, state, members)


def _member(view: View, kind: Kind, state: ParticipantState, members: Mapping[str, ParticipantState]) -> Iterator[Sign]:
    subject = Subject(kind, state.name)
    if stopped := _stopped(view, subject, state):
        yield Sign(subject, f"{kind}-stopped", CRITICAL, stopped, f"start it; k4t {kind} check {state.name}")
    elif not state.reachable:
        yield Sign(subject, f"{kind}-away", CRITICAL, state.problem, f"k4t {kind} check {state.name}")
    elif not state.rendered:
        sentence = f"its own checker refuses what it was given: {state.problem}"
        yield Sign(subject, "rejected-config", CRITICAL, sentence, "mend the route or record it names, and k4t apply")
    elif not view.running:
        yield from _step(view, subject, state, members)
    yield from _withdrawn(view, subject, state)


def _stopped(view: View, subject: Subject, state: ParticipantState) -> str:
    """Why nobody serves there; "" when somebody does, as far as that can be told."""
    dialed = view.facts.serving.get(subject.key, "")
    host = view.on(subject.key)
    processes = host.reading.processes if host and host.reading else {}
    programs = PROGRAMS.get(state.driver, ())
    runs = not programs or not processes or any(processes.get(program, 0) for program in programs)
    unwell = dialed or not state.reachable or state.differences
    if not runs and unwell:
        return f"{' or '.join(programs)} does not run there" + (f": {dialed}" if dialed else "")
    return f"nobody takes connections there: {dialed}" if dialed else ""


def _step(
    view: View, subject: Subject, state: ParticipantState, members: Mapping[str, ParticipantState]
) -> Iterator[Sign]:
    peers = [one for one in members.values() if one.group == state.group and one.reachable]
    live = max((one.document for one in peers if one.document), key=lambda one: one.version, default=None)
    head = view.facts.head
    pinned = head.members.get(subject.key, "") if head else ""
    sync = f"k4t {subject.kind} sync, or k4t apply"
    if behind := lag(state, ahead(peers, live), pinned):
        yield Sign(subject, "out-of-step", CRITICAL, behind, sync)
    elif differences := _own_differences(view, state):
        sentence = f"serves otherwise than it was told: {listed(differences)}"
        yield Sign(subject, "out-of-step", CRITICAL, sentence, "k4t apply puts it right")
    elif missing := _against_tree(view, state):
        yield Sign(subject, "out-of-step", CRITICAL, missing, "k4t plan; k4t apply")


def _against_tree(view: View, state: ParticipantState) -> str:
    """What it holds otherwise than the tree says; "" also where the tree isn't what was applied last."""
    head = view.facts.head
    if state.document is None or head is None or not head.tree or head.tree != view.tree.sha256:
        return ""
    served = {end.app for end in state.document.endpoints}
    if gone := sorted(served - view.tree.apps.keys()):
        return f"still sends to {listed(gone)}, which the tree no longer has"
    routed = {route.app for route in state.document.routes} | {record.app for record in state.document.records}
    wanted = {
        app.name for app in view.tree.apps.values()
        for one in (app.routes if state.kind == "gateway" else app.records) if one.group == state.group
    }  # fmt: skip
    lost = sorted((wanted & served) - routed)
    return f"has no {'route' if state.kind == 'gateway' else 'record'} of {listed(lost)}" if lost else ""


def _own_differences(view: View, state: ParticipantState) -> tuple[str, ...]:
    """But for what it says of endpoints whose replica, or node, is told by itself."""
    if not state.differences:
        return ()
    dead = {f"{one.address}:{port.number}" for one in view.by_id.values() if _dead(view, one) for port in one.ports}
    dead |= {
        f"{end.ip}:{end.port}"
        for end in (state.document.endpoints if state.document else ())
        if end.node in view.away or view.given_up(end.node) or not _exists(view, end.container, end.node)
    }
    return tuple(words for words in state.differences if not any(place in words for place in dead))


def _dead(view: View, one: Container) -> bool:
    answer = view.facts.probed.get(one.id)
    return not one.running or one.health == "unhealthy" or bool(answer and answer.problem)


def _exists(view: View, container: str, node: str) -> bool:
    return node not in view.facts.nodes or container in view.by_id


def _withdrawn(view: View, subject: Subject, state: ParticipantState) -> Iterator[Sign]:
    """Taken out by somebody; not told of what is dead anyway. What the monitor took out it gives back by itself."""
    nodes = {end.container: end.node for end in (state.document.endpoints if state.document else ())}
    out = [
        one for one in state.withdrawn
        if one.cluster == view.facts.cluster_id and nodes.get(one.container, "") not in view.away
    ]  # fmt: skip
    if out:
        words = [f"{one.ip}:{one.port} by {one.by or 'somebody'} ({one.why or 'no reason given'})" for one in out]
        policy = view.tree.monitor.policy("node-gone")
        if policy.enabled and not policy.dry_run and all(one.by == BY for one in out):
            yield Sign(subject, "withdrawn", OK, f"taken out: {listed(words)}; given back when the node stays up")
        else:
            yield Sign(subject, "withdrawn", WARNING, f"taken out: {listed(words)}", "k4t apply, once it is well again")
