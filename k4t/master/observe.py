"""Ask every host at once what there is. What can't be asked is unknown: it comes back as unreachable, with why."""

from __future__ import annotations

import time

from k4t.errors import K4tError
from k4t.master.fleet import Fleet, at_once
from k4t.model.hosts import Node
from k4t.model.participant import Participant
from k4t.model.state import NodeState, Observed, ParticipantState
from k4t.node import observe as node_observe


def observe(fleet: Fleet) -> Observed:
    """One connection a host, one API call a node, one registrar call a participant. Raises nothing."""
    things: list[Node | Participant] = [*fleet.tree.nodes.values(), *fleet.participants.values()]
    states = at_once(lambda thing: _one(fleet, thing), things)
    members = [state for state in states if isinstance(state, ParticipantState)]
    return Observed(
        nodes={state.name: state for state in states if isinstance(state, NodeState)},
        gateways={state.name: state for state in members if state.kind == "gateway"},
        dns={state.name: state for state in members if state.kind == "dns"},
    )


def _one(fleet: Fleet, thing: Node | Participant) -> NodeState | ParticipantState:
    return observe_node(fleet, thing) if isinstance(thing, Node) else thing.observe()


def observe_node(fleet: Fleet, node: Node) -> NodeState:
    """One that hangs is waited for once in a run: the others shall not wait again at each look."""
    if node.name in fleet.hanging:
        return fleet.hanging[node.name]
    try:
        transport = fleet.transport(node)
    except K4tError as error:
        return NodeState(node.name, reachable=False, problem=error.words, exit_status=error.exit_status)
    asked_s = time.monotonic()
    state = node_observe.observe(node.name, transport, fleet.tree.cluster.id, engine=fleet.engine(node.name))
    if not state.reachable and time.monotonic() - asked_s >= node_observe.PATIENCE_S:
        fleet.hanging[node.name] = state
    return state
