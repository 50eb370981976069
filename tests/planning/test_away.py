"""What a node that left, or came back, means for a plan."""

from __future__ import annotations

import dataclasses

import pytest

from k4t.master.planning import away
from k4t.master.planning.reconcile import reconcile
from k4t.model.spec import Tree
from k4t.model.state import Container, Dead, Head, NodeState, Observed
from tests.planning import world

pytestmark = pytest.mark.unit
RECREATE = {"volumes": [{"name": "data", "target": "/data"}], "update": {"strategy": "recreate"}}


def tree(**availability: str) -> Tree:
    nodes = {name: {"availability": what} for name, what in availability.items()}
    return world.tree({"nodes": nodes, "apps": {"web": {"replicas": 2}, "api": {}, "agent": {"replicas": "per-node"}}})


def container(app: str, replica: str, node: str, revision: int = 1) -> Container:
    name = f"c.{app}.{replica}.1"
    return Container(f"id-{name}-{node}", name, node, app, replica, 1, revision, "v1:", "", "10.0.0.1")


def observed(*containers: Container, away: tuple[str, ...] = (), nodes: tuple[str, ...] = ("n1", "n2")) -> Observed:
    def state(name: str) -> NodeState:
        mine = tuple(one for one in containers if one.node == name)
        return NodeState(name, reachable=name not in away, containers=() if name in away else mine)

    return Observed(nodes={name: state(name) for name in nodes})


def test_a_node_concerns_what_it_has_and_what_could_come() -> None:
    """Its containers' apps, those with one on each node, those that lack replicas; others are left alone."""
    seen = observed(container("api", "0", "n2"), container("web", "0", "n1"), container("web", "1", "n2"))
    assert away.concerned(tree(n1="active", n2="active"), seen, "n1") == ("agent", "web")
    fewer = observed(container("web", "1", "n2"), container("api", "0", "n2"))
    assert away.concerned(tree(n1="active", n2="active"), fewer, "n1") == ("agent", "web")
    full = observed(container("web", "0", "n2"), container("web", "1", "n2"), container("api", "0", "n2"))
    assert away.concerned(tree(n1="active", n2="active"), full, "n1") == ("agent",)


def test_a_fence_counts_until_the_node_is_heard_of() -> None:
    """One that answers again is not off, whatever was done to it; one that is alive in the tree isn't either."""
    head = Head("c", 4, dead={"n1": Dead(4, fenced=True), "n2": Dead(4)})
    dead = tree(n1="dead", n2="dead", n3="active")
    everyone = ("n1", "n2", "n3")
    assert away.off(dead, observed(away=("n1", "n2"), nodes=everyone), head) == {"n1"}
    assert away.off(dead, observed(nodes=everyone), head) == set()
    assert away.off(tree(n1="active", n2="dead", n3="active"), observed(away=("n1",), nodes=everyone), head) == set()


def test_what_a_returned_node_runs_goes_first() -> None:
    """Containers of before it was given up keep it dead for one plan; newer ones are its own."""
    head = Head("c", 6, dead={"n1": Dead(5)})
    alive = tree(n1="active", n2="active")
    changed, said = away.not_yet_back(alive, observed(container("web", "0", "n1", revision=5)), head)
    assert changed.nodes["n1"].availability == "dead"
    assert "n1 was dead and still has c.web.0.1" in said[0]
    same, said = away.not_yet_back(alive, observed(container("web", "0", "n1", revision=6)), head)
    assert (same, said) == (alive, ())


def test_a_dead_node_is_remembered_until_it_is_seen_clean() -> None:
    """Declared: with the next serial. Alive in the tree but silent, or not clean: still known. Clean: forgotten."""
    head = Head("c", 6)
    dead, alive = tree(n1="dead", n2="active"), tree(n1="active", n2="active")
    declared = away.dead_nodes(dead, observed(away=("n1",)), head, fenced={"n1"})
    assert declared == {"n1": Dead(7, fenced=True)}
    later = dataclasses.replace(head, serial=9, dead=declared)
    assert away.dead_nodes(dead, observed(away=("n1",)), later, fenced=()) == declared
    assert away.dead_nodes(alive, observed(away=("n1",)), later, fenced=()) == declared
    assert away.dead_nodes(alive, observed(container("web", "0", "n1", revision=7)), later, fenced=()) == declared
    assert away.dead_nodes(alive, observed(), later, fenced=()) == {}


def test_a_node_that_was_switched_off_empty_hides_nothing() -> None:
    """A replica that is not seen is not on it, so it may begin elsewhere, also where two would be too many. It holds no
    longer when the node answers again, is no longer drained, or nobody knows that it was off."""
    head = Head("c", 4, dead={"n2": Dead(4, fenced=True), "n3": Dead(4)})
    everyone = ("n1", "n2", "n3")
    seen = observed(away=("n2", "n3"), nodes=everyone)
    drained = tree(n1="active", n2="drained", n3="drained")
    assert away.asleep(drained, seen, head) == {"n2"}
    assert away.asleep(drained, seen, None) == set()
    assert away.asleep(drained, observed(nodes=everyone), head) == set()
    assert away.asleep(tree(n1="active", n2="active", n3="active"), seen, head) == set()
    assert away.dead_nodes(drained, seen, head, fenced=()) == head.dead
    assert away.dead_nodes(drained, observed(nodes=everyone), head, fenced=()) == {}

    only = world.tree({"nodes": {"n1": {}, "n2": {"availability": "drained"}}, "apps": {"db": RECREATE}})
    for known, steps in ((head, 4), (dataclasses.replace(head, dead={}), 0)):
        nodes = {"n1": NodeState("n1", True, head=known), "n2": NodeState("n2", False, problem="no route")}
        plan = reconcile(only, Observed(nodes), images=world.images(only))
        assert (len(plan.steps), bool(plan.not_done)) == (steps, not steps)
