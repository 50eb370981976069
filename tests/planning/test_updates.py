"""What must hold of updates that fail or wait, whatever the state: generated trees and observations."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t.master.planning.assess import BEYOND_STARTING
from k4t.master.planning.plan import Options, Plan, Step
from k4t.master.planning.reconcile import reconcile
from k4t.master.planning.report import as_text
from k4t.model.state import Container
from tests.planning import world
from tests.planning.test_properties import Watched, World, happened, relaxed, restarting, walk, worlds

pytestmark = pytest.mark.unit


@st.composite
def updates(draw: st.DrawFn) -> World:
    """An app of some replicas and its next image, sometimes with something that happened before."""
    nodes: dict[str, Any] = {f"node{number}": {} for number in range(1, draw(st.sampled_from([4, 3, 2, 5])) + 1)}
    ports = draw(st.sampled_from([[{"host": "auto"}], [{"container": 80}]]))
    fields: dict[str, Any] = {"replicas": draw(st.sampled_from([4, 3, 5, 2])), "ports": ports}
    if draw(st.sampled_from([True, False])):
        fields |= {"routes": [{}], "records": [{"type": "srv"}]}
    limits = draw(st.sampled_from([(1, 0), (0, 1), (1, 1), (2, 0), ("100%", 0), (0, "50%")]))
    fields["update"] = {"max_surge": limits[0], "max_unavailable": limits[1]}
    if draw(st.sampled_from([False, False, False, True])):
        fields["update"]["strategy"] = "recreate"
    hosts: dict[str, Any] = {"nodes": nodes, "gateways": {"gw1": None}, "dns": {"ns1": None}}
    before = world.tree({**hosts, "apps": {"web": fields}})
    desired = world.tree({**hosts, "apps": {"web": {**fields, "image": "web:2"}}})
    observed = world.at_rest(before)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        observed = happened(draw, desired, before, observed)
    return World(desired, observed)


def startable(model: world.Model, app: str, spec: str) -> dict[str, list[Container]]:
    """Containers of another spec that can serve, by replica, on nodes that answer and are not given up."""
    found: dict[str, list[Container]] = {}
    for one in model.containers.values():
        reachable = model.observed.nodes[one.node].reachable
        alive = model.desired.nodes[one.node].availability != "dead" and one.state not in BEYOND_STARTING
        if one.app == app and one.spec != spec and reachable and alive:
            found.setdefault(one.replica, []).append(one)
    return found


@relaxed
@given(st.one_of(updates(), updates(), worlds()), st.data())
def test_a_rollback_leads_back_to_what_served_before(one: World, data: st.DataObject) -> None:
    """Steps fail anywhere; then every replica of which an older container exists serves with that, never below the
    minimum on the way, nothing of the failed spec is left beside it, and nothing more is to do."""
    desired, observed = one.desired, one.observed
    images = world.images(desired)
    first = reconcile(desired, observed, images=images)
    model = world.Model(desired, observed)
    walk_unwatched(model, first, data)
    options = Options(failed=first.specs)
    now = model.observe()
    back = reconcile(desired, now, images=images, options=options)
    former = {app: startable(model, app, spec) for app, spec in back.held.items()}
    watched = Watched(desired, now)
    walk(watched, back, data.draw, failing=False)
    for app, spec in back.held.items():
        if desired.apps[app].stopped:
            continue
        for replica in set(former[app]) & wanted(back, watched, app):
            mine = [c for c in watched.containers.values() if (c.app, c.replica) == (app, replica)]
            assert [c.spec != spec and c.state in ("running", "restarting", "paused") for c in mine] == [True], mine
    again = reconcile(desired, watched.observe(), images=images, options=options)
    if not back.not_done or set(back.held) == set(desired.apps):
        held = [step for step in again.steps if step.app in back.held]
        assert not held or restarting(watched), as_text(again)


def walk_unwatched(model: world.Model, plan: Plan, data: st.DataObject) -> None:
    steps = [step.id for step in plan.steps if step.action != "publish"]
    model.apply(plan, fail=data.draw(st.sets(st.sampled_from(steps), max_size=3)) if steps else ())


def wanted(plan: Plan, model: world.Model, app: str) -> set[str]:
    one = model.desired.apps[app]
    if one.replicas is None:
        return {name for name, node in model.desired.nodes.items() if node.availability == "active"}
    return {str(number) for number in range(one.replicas)}


@relaxed
@given(st.one_of(updates(), updates(), worlds()), st.integers(1, 3))
def test_a_canary_is_never_exceeded(one: World, limit: int) -> None:
    """No more replicas than the limit have the new spec, at any moment, unless they had it before."""
    desired = dataclasses.replace(
        one.desired,
        apps={
            name: dataclasses.replace(app, update=dataclasses.replace(app.update, pause_after=limit))
            for name, app in one.desired.apps.items()
        },
    )
    plan = reconcile(desired, one.observed, images=world.images(desired))
    bounds = {app: max(limit, len(replicas(one, app, spec))) for app, spec in plan.paused.items()}

    class Counting(world.Model):
        def do(self, step: Step) -> bool:
            done = super().do(step)
            for app, spec in plan.paused.items():
                new = {c.replica for c in self.containers.values() if c.app == app and c.spec == spec}
                assert len(new) <= bounds[app], f"{step.id}: {new}"
            return done

    Counting(desired, one.observed).apply(plan)


def replicas(one: World, app: str, spec: str) -> set[str]:
    nodes = one.observed.nodes.values()
    return {c.replica for node in nodes for c in node.containers if c.app == app and c.spec == spec}
