"""The size of apps with `<scale>`: what the next head knows of it, and what is said of it. Plans: cases/size-*."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from k4t.master.planning import sizes
from k4t.master.planning.plan import Options
from k4t.master.planning.reconcile import reconcile
from k4t.model.app import App
from k4t.model.spec import Tree
from k4t.model.state import Head, Observed, Size
from tests.planning import world

pytestmark = pytest.mark.unit
WISH = Size(0, "anna", "2026-01-02T00:00:00Z", "the sale")
THEN = Size(3, "mon", "2026-01-01T00:00:00Z", "cpu 90 % of 2")


def tree(**scale: Any) -> Tree:
    hosts: dict[str, Any] = {"nodes": {"node1": None, "node2": None}, "gateways": {"gw1": None}}
    web = {"scale": {"min": 2, "max": 6, **scale}, "ports": [{"host": "auto"}], "routes": [{}]}
    return world.tree({**hosts, "apps": {"web": web, "api": {}}})


def head(**known: Size) -> Head:
    return Head(world.CLUSTER.id, 4, sizes=known)


def remembered(before: Head | None, scope: tuple[str, ...] = ("web", "api"), **asked: int) -> dict[str, Size]:
    return _remembered(world.empty(tree()), before, scope, asked)


def _remembered(
    observed: Observed, before: Head | None, scope: tuple[str, ...], asked: dict[str, int]
) -> dict[str, Size]:
    counted = sizes.sized(tree(), observed, before, asked)
    return sizes.remembered(counted, observed, before, asked=asked, scope=scope, wish=WISH)


def web(desired: Tree, observed: Observed, known: Head | None = None) -> App:
    return sizes.sized(desired, observed, known).apps["web"]


def test_what_is_asked_for_is_remembered_with_who_and_why() -> None:
    """The same number again says nothing new."""
    assert remembered(head(web=THEN), web=5) == {"web": dataclasses.replace(WISH, replicas=5)}
    assert remembered(head(web=THEN), web=3) == {"web": THEN}
    assert remembered(head(web=THEN)) == {"web": THEN}
    assert sizes.is_new(head(web=THEN), {"web": 5})
    assert sizes.is_new(head(), {"web": 3})
    assert not sizes.is_new(head(web=THEN), {"web": 3})
    assert not sizes.is_new(None, {})


def test_what_nobody_asked_for_is_remembered_once_all_nodes_have_answered() -> None:
    """So that nothing shrinks later; who asked is then nobody. An app that is not in scope is left alone, one that has
    no `<scale>` any more forgotten."""
    assert remembered(None) == {"web": Size(2, at=WISH.at)}
    assert remembered(head(api=THEN)) == {"web": Size(2, at=WISH.at)}
    assert remembered(head(web=THEN, api=THEN), ("web",)) == {"web": THEN, "api": THEN}
    whole = world.empty(tree())
    away = {**whole.nodes, "node2": dataclasses.replace(whole.nodes["node2"], reachable=False)}
    assert _remembered(dataclasses.replace(whole, nodes=away), None, ("web",), {}) == {}


def test_the_size_is_within_min_and_max_whatever_the_head_says() -> None:
    """A head may be anybody's."""
    for known, expected in ((-5, 2), (0, 2), (4, 4), (10**9, 6)):
        assert web(tree(), world.empty(tree()), head(web=Size(known))).replicas == expected


def test_without_a_head_what_runs_counts_seen_or_published() -> None:
    """Three of five were lost with their node, and are still published; a number that is missing in between counts."""
    before = world.tree({"nodes": {"node1": None, "node2": None}, "gateways": {"gw1": None}, "apps": {
        "web": {"replicas": 5, "ports": [{"host": "auto"}], "routes": [{}]}}})  # fmt: skip
    observed = world.at_rest(before)
    assert web(tree(), observed).replicas == 5
    lost = dataclasses.replace(observed.nodes["node1"], reachable=False, containers=())
    assert web(tree(), dataclasses.replace(observed, nodes={**observed.nodes, "node1": lost})).replicas == 5
    few = dataclasses.replace(observed, gateways={}, nodes={"node1": lost, "node2": observed.nodes["node2"]})
    assert web(tree(), few).replicas == 4  # 1 and 3 are seen


def test_why_it_has_its_size_is_told() -> None:
    """Who asked, when and why, within which bounds; also when the tree has changed since."""
    desired = tree()
    observed = world.empty(desired)

    def why(known: Head | None, **scale: int) -> str:
        return sizes.why(web(tree(**scale), observed, known), known)

    asked = "mon asked for 3 at 2026-01-01T00:00:00Z (cpu 90 % of 2)"
    assert why(head(web=THEN)) == f"2 to 6; {asked}"
    assert why(head(web=THEN), min=4) == f"4 to 6; {asked}, which is outside: 4 it is"
    assert why(head()) == "2 to 6; nobody has asked for a number, so what runs counts"
    first = head(web=Size(2, at="2026-01-01T00:00:00Z"))
    assert why(first) == "2 to 6; nobody has asked for another number since 2026-01-01T00:00:00Z, when it had 2"
    assert sizes.why(desired.apps["api"], head()) == ""


def test_a_plan_is_what_it_is_for_the_same_number_in_the_tree() -> None:
    """No hash of a spec changes, and no step is another one: also at rest, where there is none."""
    desired = tree()
    plain = dataclasses.replace(desired.apps["web"], scale=None, replicas=4)
    fixed = dataclasses.replace(desired, apps={**desired.apps, "web": plain})
    observed = world.at_rest(fixed)
    images = world.images(desired)
    for asked in (2, 3, 4, 6):
        one = dataclasses.replace(fixed, apps={**fixed.apps, "web": dataclasses.replace(plain, replicas=asked)})
        by_tree = reconcile(one, observed, images=images)
        by_size = reconcile(desired, observed, images=images, options=Options(sizes={"web": asked}))
        assert [step.id for step in by_size.steps] == [step.id for step in by_tree.steps]
        assert by_size.specs == by_tree.specs
        assert ("web" in by_size.sizes) == (asked != 4)
