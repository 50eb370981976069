"""Which containers a command is about: by app, node and replica, from one look at the nodes."""

from __future__ import annotations

from k4t.errors import Unreachable, Usage, gravest
from k4t.master.fleet import Fleet, at_once
from k4t.master.observe import observe_node
from k4t.master.planning.survey import replica_key
from k4t.model.hosts import Node
from k4t.model.state import Container, NodeState
from k4t.model.value import value


@value
class Wanted:
    """Empty means any. `replica`: its number, or the node's name where apps run one a node."""

    apps: tuple[str, ...] = ()
    node: str = ""
    replica: str = ""


@value
class Chosen:
    """`containers` by app, replica, generation; `away`: nodes that might hold more and can't be asked."""

    containers: tuple[Container, ...]
    away: tuple[NodeState, ...] = ()

    @property
    def exit_status(self) -> int:
        """3 when a node could not be asked: what is shown is a part."""
        return 3 if self.away else 0


def choose(fleet: Fleet, wanted: Wanted) -> Chosen:
    """Raises Usage for a node that the tree hasn't and for an app that is nowhere; Unreachable when nobody answers."""
    tree = fleet.tree
    if wanted.node and wanted.node not in tree.nodes:
        raise Usage(f"the tree has no node {wanted.node!r}", f"it has: {', '.join(tree.nodes) or 'none'}")
    nodes = [tree.nodes[wanted.node]] if wanted.node else list(tree.nodes.values())

    def look(node: Node) -> NodeState:
        return observe_node(fleet, node)

    states = at_once(look, nodes)
    away = tuple(state for state in states if not state.reachable)
    if away and len(away) == len(states):
        raise _nobody(away)
    seen = [one for state in states for one in state.containers]
    known = {*tree.apps, *(one.app for one in seen)}
    for app in wanted.apps:
        if app not in known:
            raise Usage(f"there is no app {app!r}, in the tree or on a node", f"there is: {', '.join(sorted(known))}")
    found = [one for one in seen if fits(one, wanted)]
    return Chosen(tuple(sorted(found, key=lambda one: (one.app, replica_key(one.replica), one.generation))), away)


def fits(container: Container, wanted: Wanted) -> bool:
    if wanted.apps and container.app not in wanted.apps:
        return False
    return wanted.node in ("", container.node) and wanted.replica in ("", container.replica)


def _nobody(away: tuple[NodeState, ...]) -> Unreachable:
    worst = gravest(state.exit_status for state in away)
    said = "; ".join(f"{state.name}: {state.problem}" for state in away)
    error = Unreachable(said if len(away) == 1 else f"no node can be asked: {said}")
    error.exit_status = worst
    return error
