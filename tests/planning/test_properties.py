"""What must hold whatever the state: generated trees and observations, steps done in any order the graph allows."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k4t.master.planning.plan import Options, Plan, Publish, Step
from k4t.master.planning.reconcile import reconcile
from k4t.master.planning.report import as_text
from k4t.model.app import App, Image
from k4t.model.participant import Kind
from k4t.model.spec import Tree
from k4t.model.state import Container, Observed
from tests.planning import world

pytestmark = pytest.mark.unit
relaxed = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

PORTS: list[list[dict[str, Any]]] = [[{"host": "auto"}], [{"container": 80}], []]
SHARES = st.sampled_from([0, 1, 2, "50%", "100%"])


class World:
    def __init__(self, desired: Tree, observed: Observed) -> None:
        self.desired, self.observed = desired, observed

    def __repr__(self) -> str:
        """Short enough to see what is wrong."""
        lines = ["", "    " + as_text(reconcile(self.desired, self.observed, images=world.images(self.desired)))]
        for app in self.desired.apps.values():
            fields = {f.name: getattr(app, f.name) for f in dataclasses.fields(app)}
            lines.append(f"{app.name}: { ({n: v for n, v in fields.items() if v != getattr(PLAIN, n)}) }")
        for name, node in self.observed.nodes.items():
            lines.append(f"{name}: {self.desired.nodes[name].availability}, reachable {node.reachable}")
            lines += [
                f"    {world.label(c)} {c.image} {c.state} {[p.number for p in c.ports]}" for c in node.containers
            ]
        for state in (*self.observed.gateways.values(), *self.observed.dns.values()):
            if state.document is not None:
                lines.append(f"{state.name}: {[(e.container, e.node) for e in state.document.endpoints]}")
        return "\n".join(lines)


PLAIN = App("", Image(""))


@st.composite
def apps(draw: st.DrawFn) -> dict[str, Any]:
    ports = draw(st.sampled_from(PORTS))
    fields: dict[str, Any] = {
        "replicas": draw(st.one_of(st.integers(0, 4), st.just("per-node"))),
        "image": draw(st.sampled_from(["web:1", "web:2"])),
        "ports": ports,
        "stopped": draw(st.sampled_from([False, False, False, True])),
        "update": {"max_surge": draw(SHARES), "max_unavailable": draw(SHARES)},
    }
    if draw(st.integers(0, 4)) == 0:
        fields["update"]["strategy"] = "recreate"
    if draw(st.integers(0, 4)) == 0:
        fields["volumes"] = [{"target": "/data", "name": "data"}]
        fields["update"]["strategy"] = "recreate"
    if ports and draw(st.booleans()):
        fields["routes"] = [{"domains": [draw(st.sampled_from(["a.lab", "b.lab"]))]}]
    if ports and draw(st.booleans()):
        fields["records"] = [{"type": "srv"}]
    return fields


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A tree that was applied, another one now, and what happened to containers and hosts in between."""
    names = draw(st.sampled_from([["web"], ["web", "api"]]))
    nodes: dict[str, Any] = {f"node{number}": {} for number in range(1, draw(st.integers(1, 4)) + 1)}
    hosts: dict[str, Any] = {"nodes": nodes, "gateways": {"gw1": None}, "dns": {"ns1": None}}
    before = world.tree({**hosts, "apps": {name: draw(apps()) for name in names}})
    availability = st.sampled_from(["active", "active", "active", "cordoned", "drained", "dead"])
    later = {name: {"availability": draw(availability)} for name in nodes}
    kept = [name for name in names if draw(st.integers(0, 5))]
    desired = world.tree({**hosts, "nodes": later, "apps": {name: draw(apps()) for name in kept}})
    observed = world.at_rest(before)
    for _ in range(draw(st.integers(0, 3))):
        observed = happened(draw, desired, before, observed)
    lost = draw(st.sampled_from([None, None, *nodes]))
    if lost is not None:
        away = dataclasses.replace(observed.nodes[lost], reachable=False, containers=(), problem="no route to host")
        observed = dataclasses.replace(observed, nodes={**observed.nodes, lost: away})
    return World(desired, observed)


def happened(draw: st.DrawFn, desired: Tree, before: Tree, observed: Observed) -> Observed:
    model = world.Model(desired, observed)
    if not model.containers:
        return observed
    victim = model.containers[draw(st.sampled_from(sorted(model.containers)))]
    what = draw(st.sampled_from(["removed", "exited", "created", "dead", "newer", "unpublished", "restarting"]))
    if what == "removed":
        del model.containers[victim.id]
    elif what == "newer" and victim.app in desired.apps and not world.exclusive(before.apps[victim.app]):
        slot = dataclasses.replace(world.slot(world.label(victim)), generation=victim.generation + 1)
        state = draw(st.sampled_from(["running", "created", "exited"]))
        other = world.container_of(desired, desired.apps[victim.app], slot, state=state)
        clash = {(p.number, c.node) for c in model.containers.values() for p in c.ports}
        count = sum((c.app, c.replica) == (victim.app, victim.replica) for c in model.containers.values())
        if count < 2 and not any((port.number, other.node) in clash for port in other.ports):
            model.containers[other.id] = other
    elif what == "unpublished":
        for key, document in model.documents.items():
            rest = tuple(endpoint for endpoint in document.endpoints if endpoint.container != victim.id)
            model.documents[key] = dataclasses.replace(document, endpoints=rest)
    elif what in ("exited", "created", "dead", "restarting"):
        model.containers[victim.id] = dataclasses.replace(victim, state=what)
    return model.observe()


class Watched(world.Model):
    """The model, with what must never happen looked at after every step."""

    def __init__(self, desired: Tree, observed: Observed) -> None:
        super().__init__(desired, observed)
        self.seen = {(c.app, c.replica) for c in self.containers.values()}
        self.unknown = {name for name, state in observed.nodes.items() if not state.reachable}
        self.doubled = self._doubles()
        # Two at once of what may only be one: then one goes at once, whatever it served.
        ended = {app for app, _ in self.doubled if app in desired.apps and world.exclusive(desired.apps[app])}
        bound = [app for app in desired.apps.values() if not app.stopped and app.name not in ended]
        self.floor = {app.name: self._floor(app) for app in bound}
        self.remote = self._remote_endpoints()

    def _alive(self) -> Iterator[Container]:
        return (c for c in self.containers.values() if self.desired.nodes[c.node].availability != "dead")

    def _serving(self, name: str) -> set[str]:
        """Replicas in service: running, and where the app has routes or records, published wherever anything is."""
        app = self.desired.apps[name]
        found = set()
        for container in self._alive():
            if container.app == name and container.running and self._published(app, container):
                found.add(container.replica)
        return found

    def _published(self, app: App, container: Container) -> bool:
        kinds: tuple[Kind, Kind] = ("gateway", "dns")
        for kind in kinds:
            if not (app.routes if kind == "gateway" else app.records):
                continue
            document = self.documents.get((kind, "default"))
            if document is None or not any(e.container == container.id for e in document.endpoints):
                return False
        return True

    def _desired(self, app: App) -> int:
        if app.replicas is not None:
            return app.replicas
        return sum(
            node.availability == "active" or (node.availability == "cordoned" and (app.name, name) in self.seen)
            for name, node in self.desired.nodes.items()
        )

    def _floor(self, app: App) -> int:
        desired = self._desired(app)
        unavailable = app.update.max_unavailable.of(desired, round_up=False)
        if app.update.strategy == "recreate":
            unavailable = max(1, unavailable)
        return min(len(self._serving(app.name)), desired - unavailable)

    def _doubles(self) -> set[tuple[str, str]]:
        counts = Counter((c.app, c.replica) for c in self._alive() if c.running)
        return {key for key, count in counts.items() if count > 1}

    def _remote_endpoints(self) -> dict[Any, set[Any]]:
        dead = {name for name, node in self.desired.nodes.items() if node.availability == "dead"}
        return {
            key: {e for e in document.endpoints if e.node in self.unknown - dead}
            for key, document in self.documents.items()
        }

    def check(self, step: Step) -> None:
        for name, floor in self.floor.items():
            assert len(self._serving(name)) >= floor, f"{step.id}: {name} falls below {floor}"
        counts = Counter((c.app, c.replica) for c in self._alive())
        assert all(count <= 2 for count in counts.values()), f"{step.id}: three generations {counts}"
        for app, replica in self._doubles() - self.doubled:
            one = self.desired.apps.get(app)
            assert one is None or not world.exclusive(one), f"{step.id}: two of {app}.{replica}"
        taken = Counter((c.node, p.number) for c in self._alive() if c.running for p in c.ports if p.number < 1024)
        assert all(count == 1 for count in taken.values()), f"{step.id}: two on one port {taken}"
        now = self._remote_endpoints()
        assert all(now.get(key, set()) >= endpoints for key, endpoints in self.remote.items()), step.id


def walk(model: Watched, plan: Plan, draw: Any, *, failing: bool) -> None:
    """Every step, in an order that the graph allows; some fail, if asked for."""
    rest = {step.id: step for step in plan.steps}
    done: dict[str, bool] = {}
    while rest:
        ready = [s for s in rest.values() if not any(b in rest for b in (*s.after, *s.awaits))]
        assert ready, "the graph has a cycle"
        step = ready[draw(st.integers(0, len(ready) - 1))] if len(ready) > 1 else ready[0]
        del rest[step.id]
        good = all(done[before] for before in step.after)
        if good and failing and step.action != "publish" and draw(st.integers(0, 5)) == 0:
            good = False
        elif good and isinstance(step.work, Publish):
            good = model.publish(step, done)
        elif good:
            good = model.do(step)
        done[step.id] = good
        model.check(step)


@relaxed
@given(worlds(), st.data())
def test_any_order_is_safe_and_leads_to_rest(one: World, data: st.DataObject) -> None:
    """In any order: never below the minimum, never three generations, never two of an exclusive replica; then empty."""
    desired, observed = one.desired, one.observed
    plan = reconcile(desired, observed, images=world.images(desired))
    model = Watched(desired, observed)
    walk(model, plan, data.draw, failing=False)
    again = reconcile(desired, model.observe(), images=world.images(desired))
    if not plan.unschedulable and not plan.not_done and not restarting(model):
        assert again.empty, as_text(again)


def restarting(model: world.Model) -> bool:
    """Then every run awaits it anew, and says so."""
    return any(container.state == "restarting" for container in model.containers.values())


@relaxed
@given(worlds(), st.data())
def test_failures_are_safe_and_the_next_run_goes_on(one: World, data: st.DataObject) -> None:
    """Steps fail anywhere: nothing falls below the minimum, and the runs after it converge."""
    desired, observed = one.desired, one.observed
    images = world.images(desired)
    model = Watched(desired, observed)
    walk(model, reconcile(desired, observed, images=images), data.draw, failing=True)
    for _ in range(3):
        now = model.observe()
        model = Watched(desired, now)
        last = reconcile(desired, now, images=images)
        walk(model, last, data.draw, failing=False)
    last = reconcile(desired, model.observe(), images=images)
    assert last.empty or restarting(model), as_text(last)


@relaxed
@given(worlds())
def test_same_input_same_plan(one: World) -> None:
    """Byte for byte, and whatever order hosts were asked in."""
    desired, observed = one.desired, one.observed
    shuffled = Observed(
        nodes=dict(reversed(list(observed.nodes.items()))),
        gateways=dict(reversed(list(observed.gateways.items()))),
        dns=dict(reversed(list(observed.dns.items()))),
    )
    images = world.images(desired)
    assert as_text(reconcile(desired, observed, images=images)) == as_text(reconcile(desired, shuffled, images=images))


@relaxed
@given(worlds())
def test_out_of_scope_is_untouched(one: World) -> None:
    """A plan for one app has no step for any other, and takes nothing of another's from a document."""
    desired, observed = one.desired, one.observed
    plan = reconcile(desired, observed, images=world.images(desired), scope=["web"], options=Options())
    assert {step.app for step in plan.steps} <= {"web", ""}
    model = world.Model(desired, observed)
    before = {key: [e for e in d.endpoints if e.app != "web"] for key, d in model.documents.items()}
    model.apply(plan)
    assert before == {key: [e for e in model.documents[key].endpoints if e.app != "web"] for key in before}
