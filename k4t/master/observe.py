"""Ask every host at once what there is. What can't be asked is unknown: it comes back as unreachable, with why.

Or in a hurry: when most have answered, what lags behind the others is left to go on answering, and comes back as
*late* (docs/life-of-an-apply.md, “A node that lags behind”).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from k4t.errors import ConnectionLost, K4tError
from k4t.master.fleet import Fleet, begun
from k4t.model.hosts import Node
from k4t.model.state import NodeState, Observed
from k4t.node import observe as node_observe

LAG_SHARE = 0.5
LAG_FLOOR_S = 0.15
"""In a hurry, the silence after the last answer that ends the waiting: this share of the time in which all of the
answers so far have come, and no less than the floor."""
TICK_S = 0.2
NOT_YET = "has not answered yet"


def observe(fleet: Fleet, *, hurried: bool = False, needed: Collection[str] = ()) -> Observed:
    """One connection a host, one API call a node, one registrar call a participant. Raises nothing.

    `hurried`: nodes may be late, but for the `needed` ones, and never so many that the rest is not most of the hosts.
    """
    began_s = time.monotonic() if fleet.asking else fleet.began_s
    members = begun(lambda member: member.observe(), fleet.participants.values())
    asked = {node.name: node for node in fleet.tree.nodes.values() if _may_be_asked(fleet, node, hurried=hurried)}
    with_last = [(node, fleet.asking.get(name)) for name, node in asked.items()]
    questions = dict(zip(asked, begun(lambda one: _asked(fleet, *one), with_last), strict=True))
    fleet.asking.update(questions)
    needed = {*needed, *(name for name, node in fleet.tree.nodes.items() if node.availability == "dead")}
    waited_for = questions.keys() & needed if hurried else questions.keys()
    must: set[Future[Any]] = {*members, *(questions[name] for name in waited_for)}
    _wait(must, set(questions.values()) - must, began_s, lambda: _most(fleet))
    nodes = {name: _state(fleet, node, questions.get(name)) for name, node in fleet.tree.nodes.items()}
    states = [member.result() for member in members]
    return Observed(
        nodes=nodes,
        gateways={state.name: state for state in states if state.kind == "gateway"},
        dns={state.name: state for state in states if state.kind == "dns"},
    )


def observe_node(fleet: Fleet, node: Node) -> NodeState:
    """One that hangs is waited for once in a run: the others shall not wait again at each look."""
    if node.name in fleet.hanging:
        return fleet.hanging[node.name]
    try:
        transport = fleet.transport(node)
    except K4tError as error:
        return _unreachable(node, error)
    asked_s = time.monotonic()
    state = node_observe.observe(node.name, transport, fleet.tree.cluster.id, engine=fleet.engine(node.name))
    if not state.reachable and time.monotonic() - asked_s >= node_observe.PATIENCE_S:
        fleet.hanging[node.name] = state
    return state


def open_questions(fleet: Fleet) -> tuple[str, ...]:
    """Nodes that still may answer. Each question ends by its own time-outs."""
    return tuple(name for name, question in fleet.asking.items() if not question.done())


def _may_be_asked(fleet: Fleet, node: Node, *, hurried: bool) -> bool:
    if fleet.locked is not None and fleet.host_of(node).key not in fleet.locked:
        return False
    return not (hurried and node.name in open_questions(fleet))


def _asked(fleet: Fleet, node: Node, last: Future[NodeState] | None) -> NodeState:
    if last is not None:
        last.exception()  # waited for; whatever it says, it is older
    return observe_node(fleet, node)


def _state(fleet: Fleet, node: Node, question: Future[NodeState] | None) -> NodeState:
    """Of a node that was asked just now; or, without a question, that may not be asked."""
    if question is not None:
        return question.result() if question.done() else _late(node)
    if node.name in fleet.hanging:
        return fleet.hanging[node.name]
    barred = fleet.barred.get(fleet.host_of(node).key)
    if barred is not None:
        return _unreachable(node, barred)
    if node.name in open_questions(fleet):
        return _late(node)
    try:
        alive = fleet.transport(node).alive
    except K4tError as error:
        return _unreachable(node, error)
    return _late(node) if alive else _unreachable(node, ConnectionLost("the SSH connection has ended"))


def _late(node: Node) -> NodeState:
    return NodeState(node.name, reachable=False, problem=NOT_YET, exit_status=3, late=True)


def _unreachable(node: Node, error: K4tError) -> NodeState:
    return NodeState(node.name, reachable=False, problem=error.words, exit_status=error.exit_status)


def _wait(
    must: Collection[Future[Any]], may: Collection[Future[Any]], began_s: float, most: Callable[[], bool]
) -> None:
    """For all of `must`; for `may` until what has answered is most, and the rest lags behind it."""
    pending, last_s = {*must, *may}, time.monotonic()
    while pending:
        lag_s = max(LAG_FLOOR_S, LAG_SHARE * (last_s - began_s))
        left_s = last_s + lag_s - time.monotonic() if pending.isdisjoint(must) and most() else TICK_S
        if left_s <= 0:
            return
        done, pending = wait(pending, min(left_s, TICK_S), FIRST_COMPLETED)
        last_s = time.monotonic() if done else last_s


def _most(fleet: Fleet) -> bool:
    """Whether those that have answered are more than half of all machines, so that of two runs with different
    laggards both want one lock; and at least half of the nodes."""
    answered = [name for name, question in fleet.asking.items() if question.done() and question.result().reachable]
    return len(fleet.lockable()) * 2 > len(fleet.hosts) and len(answered) * 2 >= len(fleet.tree.nodes)
