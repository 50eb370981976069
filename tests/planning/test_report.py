"""The plan's JSON, which other programs build on; and how fast a large plan is made."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import pytest

from k4t.master.planning.plan import Plan
from k4t.master.planning.reconcile import reconcile
from k4t.master.planning.report import to_json
from k4t.model.spec import Tree
from k4t.model.state import Facts, Observed
from tests.planning import world

BIG = Facts("amd64", "linux", 64.0, 64 << 30)
LOOSE_BOUND_S = 20.0


@pytest.mark.unit
def test_json() -> None:
    """Every key of design.md; numbered replicas are numbers; publications are merged wave by wave."""
    fields = {"ports": [{"host": "auto"}], "routes": [{}]}
    tree = world.tree({"nodes": {"node1": None}, "gateways": {"gw1": None}, "apps": {"api": fields, "web": fields}})
    made = to_json(reconcile(tree, world.empty(tree), images=world.images(tree)))
    assert json.loads(json.dumps(made)) == made
    assert {"version", "cluster", "tree", "serial", "changes", "steps", "publications"} <= set(made)
    assert {"unsafe", "unschedulable", "warnings"} <= set(made)
    steps: Any = made["steps"]
    assert steps[1] == {
        "id": "create:api.0.1@node1",
        "action": "create",
        "node": "node1",
        "app": "api",
        "replica": 0,
        "cause": "new app",
        "after": ["pull:api:1@node1"],
    }
    assert made["publications"] == [
        {
            "group": "default",
            "kind": "gateway",
            "add": [{"app": name, "replica": 0, "node": "node1", "generation": 1} for name in ("api", "web")],
            "remove": [],
        }
    ]


def large(apps: int, replicas: int, **more: object) -> Tree:
    one = {
        "replicas": replicas,
        "ports": [{"host": "auto"}],
        "routes": [{"domains": ["a.lab"]}],
        "records": [{"type": "srv"}],
        "resources": {"memory_bytes": 1 << 20},
        **more,
    }
    nodes = {f"node{number}": None for number in range(1000)}
    names = {f"app{number}": one for number in range(apps)}
    return world.tree({"nodes": nodes, "gateways": {"gw1": None}, "dns": {"ns1": None}, "apps": names})


def timed(tree: Tree, observed: Observed) -> tuple[Plan, float]:
    """CPU seconds of this process: other work on the machine doesn't count."""
    images = world.images(tree)
    began = time.process_time()
    made = reconcile(tree, observed, images=images)
    return made, time.process_time() - began


@pytest.mark.unit
def test_a_thousand_nodes() -> None:
    """20,000 replicas on 1,000 nodes are placed evenly, and not in minutes. (The bench measures it.)"""
    tree = large(20, 1000)
    made, took_s = timed(tree, world.empty(tree, BIG))
    counts: dict[str, int] = {}
    for step in made.steps:
        if step.action == "create":
            counts[step.node] = counts.get(step.node, 0) + 1
    assert set(counts.values()) == {20}
    assert took_s < LOOSE_BOUND_S


@pytest.mark.bench
@pytest.mark.parametrize(("apps", "replicas"), [(1000, 20), (20, 1000)])
def test_bench(apps: int, replicas: int) -> None:
    """First deploy, nothing to do, one at a time, all at once, gone: each at most 2 s."""
    tree = large(apps, replicas)
    first, first_s = timed(tree, world.empty(tree, BIG))
    rest = world.filled(tree, world.empty(tree, BIG), first)
    all_at_once = {"max_surge": "100%"}
    taken = {
        "first": (len(first.steps), first_s),
        "nothing": _counted(tree, rest),
        "one at a time": _counted(large(apps, replicas, image="x:2"), rest),
        "all at once": _counted(large(apps, replicas, image="x:2", update=all_at_once), rest),
        "gone": _counted(dataclasses.replace(tree, apps={}), rest),
    }
    for name, (steps, took_s) in taken.items():
        print(f"{apps} × {replicas} {name}: {steps} steps, {took_s:.2f} s")
    assert all(took_s <= 2.0 for _, took_s in taken.values()), taken


def _counted(tree: Tree, observed: Observed) -> tuple[int, float]:
    made, took_s = timed(tree, observed)
    return len(made.steps), took_s
