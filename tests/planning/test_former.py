"""What the head remembers of routes, checks and records while an update is not complete."""

from __future__ import annotations

import dataclasses

import pytest

from k4t.master.planning.former import begun, documents, ended, of_then
from k4t.master.planning.plan import Plan
from k4t.master.planning.reconcile import reconcile
from k4t.model.app import HttpProbe
from k4t.model.spec import Tree
from k4t.model.state import Former, Head, Observed
from k4t.registrar.document import Route
from tests.planning import world

pytestmark = pytest.mark.unit
HEAD = Head("k7f3q2m9", 6)


def desired(image: str, domain: str, path: str = "/") -> Tree:
    app = {"image": image, "replicas": 2, "ports": [{"host": "auto"}], "routes": [{"domains": [domain]}]}
    return world.tree(
        {"nodes": {"node1": {}}, "gateways": {"gw1": {}}, "apps": {"web": {**app, "health": {"http": {"path": path}}}}}
    )


def planned(wanted: Tree, observed: Observed) -> Plan:
    return reconcile(wanted, observed, images=world.images(wanted))


def routes(former: Former) -> tuple[Route, ...]:
    return tuple(route for document in former.documents for route in document.routes)


OLD, NEW, NEWER = desired("web:1", "a.lab", "/old"), desired("web:2", "b.lab"), desired("web:3", "c.lab")


def test_an_update_that_changes_routes_remembers_those_of_before() -> None:
    """A change of routes alone does not, nor one of containers alone: nothing could be put back."""
    observed = world.at_rest(OLD)
    plan = planned(NEW, observed)
    found = begun(HEAD, plan, observed)
    assert found["web"].spec == plan.specs["web"]
    assert [route.domains for route in routes(found["web"])] == [("a.lab",)]
    for other in (desired("web:1", "b.lab", "/old"), desired("web:2", "a.lab", "/old")):
        assert begun(HEAD, planned(other, observed), observed) == {}


def test_an_update_that_goes_on_keeps_what_its_first_run_found() -> None:
    """By then the new routes may be live."""
    before = world.at_rest(OLD)
    head = dataclasses.replace(HEAD, former=begun(HEAD, planned(NEW, before), before))
    model = world.Model(NEW, before)
    plan = planned(NEW, before)
    model.apply(plan, upto=next(n for n, step in enumerate(plan.steps, 1) if step.action == "publish"))
    assert any(one.routes and one.routes[0].domains == ("b.lab",) for one in documents(model.observe()).values())
    assert begun(head, planned(NEW, model.observe()), model.observe()) == head.former


def test_another_update_goes_back_to_what_runs() -> None:
    """Where the unfinished one runs, that is its routes; where it never did, those of before it."""
    before = world.at_rest(OLD)
    head = dataclasses.replace(HEAD, former=begun(HEAD, planned(NEW, before), before))
    never = begun(head, planned(NEWER, before), before)["web"]
    assert never.spec == planned(NEWER, before).specs["web"]
    assert [route.domains for route in routes(never)] == [("a.lab",)]
    complete = world.at_rest(NEW)
    there = begun(head, planned(NEWER, complete), complete)["web"]
    assert [route.domains for route in routes(there)] == [("b.lab",)]


def test_of_an_app_that_is_removed_the_name_is_remembered() -> None:
    """DNS loses it first: how long clients may know it is told by nothing else then."""
    without = dataclasses.replace(OLD, apps={})
    observed = world.at_rest(OLD)
    found = begun(HEAD, planned(without, observed), observed)
    assert [route.domains for route in routes(found["web"])] == [("a.lab",)]


def test_it_is_forgotten_when_the_update_is_complete() -> None:
    """Not while it is held, waits, has failed in part, or when the run was about something else."""
    former = {"web": Former("v1:new")}
    plan = Plan("prod", "t", 7, scope=("web",), specs={"web": "v1:new"})
    assert ended(former, plan, ()) == {}
    assert ended(former, plan, ["web"]) == former
    assert ended(former, dataclasses.replace(plan, held={"web": "v1:new"}), ()) == former
    assert ended(former, dataclasses.replace(plan, paused={"web": "v1:new"}), ()) == former
    assert ended(former, dataclasses.replace(plan, scope=("api",)), ()) == former


def test_what_is_put_back_is_asked_for_its_health_as_it_was_then() -> None:
    """The new version's path would find nothing there. What no gateway ever checked is asked as the tree says."""
    former = Former("v1:new", tuple(documents(world.at_rest(OLD)).values()))
    asked = of_then(NEW.apps["web"], former).health
    assert asked is not None
    assert isinstance(asked.probe, HttpProbe)
    assert asked.probe.path == "/old"
    assert of_then(NEW.apps["web"], Former("v1:new")) == NEW.apps["web"]
