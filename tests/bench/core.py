"""The pure core on 1,000 nodes × 20 replicas, in a process of its own: python -m tests.bench.core APPS REPLICAS TIMES.

Prints seconds by kind of plan, as JSON. No I/O is part of it: the tree and what is observed are values.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from k4t.master.planning.plan import Plan
from k4t.master.planning.reconcile import reconcile
from k4t.model.spec import Tree
from k4t.model.state import Facts, Observed
from tests.planning import world

NODES = 1000
BIG = Facts("amd64", "linux", 64.0, 64 << 30)


def measure(apps: int, replicas: int, times: int) -> dict[str, list[float]]:
    """Wall seconds of a first plan, of one with nothing to do, and of one that changes every container."""
    desired = world.tree(_data(apps, replicas))
    nothing = world.empty(desired, BIG)
    first_s, first = _plan(desired, nothing, times)
    there = world.filled(desired, nothing, first)
    noop_s, noop = _plan(desired, there, times)
    if not noop.empty:
        raise AssertionError(f"{len(noop.steps)} steps where nothing is to be done")
    change_s, _ = _plan(world.tree(_data(apps, replicas, image="x:2")), there, times)
    return {"first": first_s, "noop": noop_s, "change": change_s}


def _plan(desired: Tree, observed: Observed, times: int) -> tuple[list[float], Plan]:
    images = world.images(desired)
    seconds = []
    for _ in range(max(1, times)):
        started_s = time.perf_counter()
        plan = reconcile(desired, observed, images=images)
        seconds.append(time.perf_counter() - started_s)
    return seconds, plan


def _data(apps: int, replicas: int, **more: Any) -> Mapping[str, Any]:
    app = {
        "replicas": replicas,
        "ports": [{"host": "auto"}],
        "routes": [{"domains": ["x.y"]}],
        "records": [{"type": "srv"}],
        "resources": {"memory_bytes": 1 << 20},
        **more,
    }
    return {
        "nodes": {f"node{number}": None for number in range(NODES)},
        "gateways": {"gw1": None},
        "dns": {"ns1": None},
        "apps": {f"app{number}": app for number in range(apps)},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(*map(int, sys.argv[1:4]))) + "\n")
