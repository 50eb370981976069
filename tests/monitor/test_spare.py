"""Spare nodes come when replicas have no place, and go when they are not needed: on generated clusters, in a model
whose master is the real planner."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from k4t.master.planning.reconcile import reconcile
from k4t.master.power.spare import needed
from k4t.model.hosts import Power
from k4t.model.monitor import Monitor, Policy
from k4t.model.spec import Backup
from k4t.model.state import Dead, Facts, Head, NodeState, Observed, Stranger
from k4t.monitor import spare
from k4t.monitor.acting.action import Action
from k4t.monitor.check import Looked, _desired
from k4t.monitor.facts import Docker, Host, Subject
from k4t.monitor.facts import Facts as Seen
from k4t.monitor.history import NONE
from k4t.monitor.judge import Judgement
from tests.monitor.world import reading
from tests.planning import world

pytestmark = [pytest.mark.unit, pytest.mark.timeout(900)]
GIB = 1 << 30
ROUND_S = 300.0
EXAMPLES = 300 if "K4T_FULL" in os.environ else 25
SPARE = Power(on="on", off="off", spare=True)
SHORT = Policy("nodes-short", True, above_percent=90.0)
IDLE = Policy("nodes-idle", True, below_percent=60.0, idle_s=1800.0)


class World:
    """`size`: of each node in GiB. Spare ones are off in the beginning, but for those in `on`."""

    def __init__(
        self,
        nodes: Mapping[str, int],
        spares: Mapping[str, int],
        apps: Mapping[str, Mapping[str, object]],
        on: frozenset[str] = frozenset(),
        policies: tuple[Policy, ...] = (SHORT, IDLE),
    ) -> None:
        self.sizes = {**nodes, **spares}
        fields = {name: {"availability": "active" if name in {*nodes, *on} else "drained"} for name in self.sizes}
        made = world.tree({"nodes": fields, "apps": apps, "gateways": {"gw1": {}}})
        powered = {
            name: dataclasses.replace(node, power=SPARE if name in spares else None)
            for name, node in made.nodes.items()
        }
        monitor = Monitor(policies={one.when: one for one in policies})
        self.tree = dataclasses.replace(made, nodes=powered, monitor=monitor)
        self.off = {name for name in spares if name not in on}
        self.state = Observed({name: self.node(name) for name in self.sizes}, world.empty(self.tree).gateways)
        self.memory, self.now_s = spare.NONE, 1_000_000.0
        self.acted: list[str] = []
        self.apply()

    def node(self, name: str) -> NodeState:
        if name in self.off:
            return NodeState(name, False, problem="no route to host")
        return NodeState(name, True, facts=Facts("amd64", "linux", 64.0, self.sizes[name] * GIB))

    @property
    def head(self) -> Head:
        return Head(self.tree.cluster.id, 1, dead={name: Dead(1, fenced=True) for name in self.off})

    def observed(self) -> Observed:
        nodes = dict(self.state.nodes)
        first = next(name for name in nodes if nodes[name].reachable)
        nodes[first] = dataclasses.replace(nodes[first], head=self.head)
        return dataclasses.replace(self.state, nodes=nodes)

    def apply(self) -> bool:
        """What the master does; whether all has a place."""
        plan = reconcile(self.tree, self.observed(), images=world.images(self.tree))
        model = world.Model(self.tree, self.state)
        model.apply(plan)
        self.state = model.observe()
        return not (plan.unschedulable or plan.not_done)

    def scale(self, app: str, replicas: int) -> None:
        changed = dataclasses.replace(self.tree.apps[app], replicas=replicas)
        self.tree = dataclasses.replace(self.tree, apps={**self.tree.apps, app: changed})
        self.apply()

    def available(self, name: str, what: str) -> None:
        node = dataclasses.replace(self.tree.nodes[name], availability=what)  # type: ignore[arg-type]
        self.tree = dataclasses.replace(self.tree, nodes={**self.tree.nodes, name: node})

    def looked(self, *, locked: bool = False) -> Looked:
        host = Host("n1", Subject("node", "n1"), reading=reading(head=self.head, lock_held=locked))
        facts = Seen(
            self.now_s, 1.0, "prod", self.tree.cluster.id, hosts={"n1": host},
            nodes={name: Docker(state) for name, state in self.state.nodes.items()}, gateways=self.state.gateways,
            desired=_desired(self.tree, self.observed(), self.head),
        )  # fmt: skip
        return Looked(facts, Judgement((), NONE), self.tree)

    def round(self, *, locked: bool = False) -> tuple[Action, ...]:
        self.now_s += ROUND_S
        looked = self.looked(locked=locked)
        self.memory, actions = spare.decide(self.tree, looked, self.memory, self.now_s)
        self.memory = spare.decode(json.loads(json.dumps(spare.encode(self.memory))))
        return actions

    def run(self, rounds: int) -> list[str]:
        """What is done in so many rounds."""
        before = len(self.acted)
        for _ in range(rounds):
            for action in self.round():
                self.acted.append(action.words)
                self.switch(action)
        return self.acted[before:]

    def switch(self, action: Action) -> None:
        if action.verb == "node-on":
            self.off.discard(action.name)
            self.state = dataclasses.replace(
                self.state, nodes={**self.state.nodes, action.name: self.node(action.name)}
            )  # fmt: skip
            self.available(action.name, "active")
            self.apply()
            return
        before = self.state, self.tree
        self.available(action.name, "drained")
        if not self.apply():
            self.state, self.tree = before
            return
        assert not self.state.nodes[action.name].containers
        self.off.add(action.name)
        self.state = dataclasses.replace(self.state, nodes={**self.state.nodes, action.name: self.node(action.name)})


def web(replicas: int, memory: float = 1.0, **more: object) -> dict[str, object]:
    ports = [{"name": "http", "host": "auto"}]
    return {"replicas": replicas, "resources": {"memory_bytes": int(memory * GIB)}, "ports": ports, **more}


def test_one_comes_for_what_has_no_place_and_goes_when_it_is_idle() -> None:
    """A step up and down again: on once, off once, by the policy's own times; and nothing while the load stays."""
    here = World({"n1": 8, "n2": 8}, {"s1": 8}, {"web": web(8, 1.0)})
    assert here.run(20) == []
    here.scale("web", 20)
    assert [action.verb for _ in range(2) for action in here.round()] == []
    (action,) = here.round()
    assert action == Action("nodes-short", "node-on", "s1", action.cause)
    assert "web.16, web.17, web.18 and 1 more fit nowhere: " in action.cause
    assert here.run(1) == ["node-on s1"]
    assert here.run(100) == []
    here.scale("web", 8)
    idle = [len(here.run(1)) for _ in range(8)]
    assert idle == [0, 0, 0, 0, 0, 0, 1, 0]
    assert here.acted[-1] == "node-off s1"
    assert here.run(100) == []


def test_too_much_reserved_is_short_of_nodes_too() -> None:
    """Before anything has no place; and a node whose absence would be too much is not idle."""
    here = World({"n1": 10}, {"s1": 10, "s2": 10}, {"web": web(9, 1.0)})
    assert here.run(10) == []
    here.scale("web", 10)
    assert here.run(10) == ["node-on s1"]
    assert here.run(200) == []
    here.scale("web", 7)
    assert here.run(200) == []
    here.scale("web", 6)
    assert here.run(200) == ["node-off s1"]


def test_the_node_that_helps_is_chosen() -> None:
    """Not one that is too small, by what it was known to have; of those that did not come, the one of longest ago."""
    here = World({"n1": 8}, {"s1": 1, "s2": 8, "s3": 8}, {"web": web(2, 2.0)}, on=frozenset({"s1", "s2", "s3"}))
    assert sorted(here.run(200)) == ["node-off s1", "node-off s2", "node-off s3"]
    here.scale("web", 5)
    asked = [action.name for _ in range(14) for action in here.round()]
    assert [name for name, _ in groupby(asked)] == ["s2", "s3", "s2", "s3"]


@pytest.mark.parametrize("what", ["backup", "gateway", "data", "pin", "keep-nodes", "another cluster", "master"])
def test_what_is_needed_stays_on(what: str) -> None:
    """Whatever is reserved."""
    app = web(1, 1.0)
    if what == "data":
        app |= {"volumes": [{"name": "data", "target": "/data"}], "update": {"strategy": "recreate"}}
    if what == "pin":
        app |= {"placement": {"pins": [{"replica": 0, "node": "s1"}]}}
    on = frozenset({"s1"})
    here = World({"n1": 8}, {"s1": 8}, {"web": app, "api": web(1, 6.0)}, on=on)
    node = here.tree.nodes["s1"]
    cluster = here.tree.cluster
    if what == "backup":
        cluster = dataclasses.replace(cluster, backups=(Backup("s1"),))
    if what == "gateway":
        gateway = dataclasses.replace(here.tree.gateways["gw1"], address=node.address)
        here.tree = dataclasses.replace(here.tree, gateways={"gw1": gateway})
    if what == "master":
        cluster = dataclasses.replace(cluster, power=Power(host=node.address))
    here.tree = dataclasses.replace(here.tree, cluster=cluster)
    if what == "keep-nodes":
        policies = {"nodes-idle": dataclasses.replace(IDLE, keep_nodes=2)}
        here.tree = dataclasses.replace(here.tree, monitor=Monitor(policies=policies))  # type: ignore[arg-type]
    here.scale("api", 0)
    if what == "another cluster":
        state = dataclasses.replace(
            here.state.nodes["s1"], strangers=(Stranger("1", "x.y.0.1", "s1", cluster="another"),)
        )
        here.state = dataclasses.replace(here.state, nodes={**here.state.nodes, "s1": state})
    assert (needed(here.tree, "s1") != "") == (what in ("backup", "gateway", "master"))
    assert here.run(100) == []


def test_nothing_is_decided_by_what_is_not_known() -> None:
    """A node in use that can't be asked, a run under way, no tree: nothing, and what was counted is kept."""
    here = World({"n1": 4, "n2": 4}, {"s1": 8}, {"web": web(12, 1.0)})
    silent = dataclasses.replace(here.state.nodes["n2"], reachable=False, containers=())
    well = here.state
    here.state = dataclasses.replace(well, nodes={**well.nodes, "n2": silent})
    assert [here.round() for _ in range(10)] == [()] * 10
    here.state = well
    assert [here.round(locked=True) for _ in range(10)] == [()] * 10
    looked = dataclasses.replace(here.looked(), has_tree=False)
    assert spare.decide(here.tree, looked, here.memory, here.now_s) == (spare.NONE, ())
    assert here.run(3) == ["node-on s1"]


def test_a_tree_that_is_behind_the_masters_does_no_harm() -> None:
    """On another machine it may be: a spare node that runs something is in use, whatever it says."""
    here = World({"n1": 4}, {"s1": 8, "s2": 8}, {"web": web(8, 1.0)})
    old = here.tree
    assert here.run(3) == ["node-on s1"]
    for _ in range(20):
        here.now_s += ROUND_S
        looked = dataclasses.replace(here.looked(), tree=old)
        here.memory, actions = spare.decide(old, looked, here.memory, here.now_s)
        assert actions == ()


def test_each_is_off_by_default_and_may_only_say_what_it_would_do() -> None:
    """A dry run says the same node for as long as it is wanted."""
    here = World({"n1": 4}, {"s1": 8, "s2": 8}, {"web": web(8, 1.0)}, policies=())
    assert [here.round() for _ in range(10)] == [()] * 10
    dry = World(
        {"n1": 4}, {"s1": 8, "s2": 8}, {"web": web(8, 1.0)}, policies=(dataclasses.replace(SHORT, dry_run=True),)
    )
    said = [action for _ in range(30) for action in dry.round()]
    assert {(action.name, action.dry_run) for action in said} == {("s1", True)}


def test_a_memory_that_is_damaged_is_as_if_there_were_none() -> None:
    """Of any shape."""
    here = World({"n1": 4}, {"s1": 8}, {"web": web(8, 1.0)})
    here.run(2)
    good = spare.encode(here.memory)
    assert spare.decode(good) == here.memory != spare.NONE
    changes: tuple[dict[str, object], ...] = (
        {"format": 2}, {"asked": [1]}, {"facts": {"n1": [1]}}, {"failed": 3}, {"short": "x"},
        {"asked": ["reboot", "n1", "", 1.0]},
    )  # fmt: skip
    shapes: tuple[object, ...] = (None, [], {}, "x")
    for bad in (*shapes, *({**good, **change} for change in changes)):
        assert spare.decode(bad) == spare.NONE


loads = some.lists(
    some.tuples(some.integers(0, 12), some.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0])), min_size=1, max_size=3
)
nodes_of = some.lists(some.sampled_from([4, 6, 8]), min_size=1, max_size=3)


def generated(nodes: list[int], spares: list[int], load: list[tuple[int, float]], on: int) -> World:
    names = [f"s{number}" for number in range(len(spares))]
    return World(
        {f"n{number}": size for number, size in enumerate(nodes, 1)},
        dict(zip(names, spares, strict=True)),
        {f"app{number}": web(replicas, memory) for number, (replicas, memory) in enumerate(load)},
        on=frozenset(names[:on]),
    )  # fmt: skip


@settings(max_examples=EXAMPLES, deadline=None)
@given(nodes=nodes_of, spares=nodes_of, load=loads, on=some.integers(0, 3))
def test_a_constant_load_never_makes_nodes_alternate(
    nodes: list[int], spares: list[int], load: list[tuple[int, float]], on: int
) -> None:
    """Whatever was on in the beginning: each node is switched at most once each way, then all is quiet; and if there is
    a node that would give a place to what has none, it is on."""
    here = generated(nodes, spares, load, on)
    done = here.run(80)
    assert len(done) == len(set(done)), done
    assert here.run(60) == [], done
    missing = {name for name, state in here.state.nodes.items() if not state.containers and name in here.off}
    if not here.apply() and missing:
        assert not spare.decide(here.tree, here.looked(), here.memory, here.now_s)[1]


@settings(max_examples=EXAMPLES, deadline=None)
@given(nodes=nodes_of, spares=nodes_of, load=loads, more=some.integers(1, 12))
def test_a_step_up_and_down_is_followed_once(
    nodes: list[int], spares: list[int], load: list[tuple[int, float]], more: int
) -> None:
    """On at most once and off at most once each, whatever the step."""
    here = generated(nodes, spares, load, 0)
    here.run(40)
    replicas = load[0][0]
    here.scale("app0", replicas + more)
    up = here.run(60)
    assert len(up) == len(set(up)), up
    here.scale("app0", replicas)
    down = here.run(80)
    assert len(down) == len(set(down)), (up, down)
    assert here.run(40) == []
