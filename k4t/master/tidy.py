"""Files of containers that are no more, on their nodes: one that was removed by hand is gone, but not what k4t had put
there for it, a secret perhaps."""

from __future__ import annotations

from k4t.errors import K4tError
from k4t.master.fleet import Fleet, at_once
from k4t.model.events import Emit, Note
from k4t.model.state import NodeState, Observed
from k4t.node import files


def tidy(fleet: Fleet, observed: Observed, emit: Emit) -> None:
    """Before a run makes anything new. The cluster's locks are held, so what is seen is all there is. A node where that
    fails is named: the next run does it."""
    for _ in at_once(
        lambda state: _tidy(fleet, state, emit), [one for one in observed.nodes.values() if one.reachable]
    ):
        pass


def _tidy(fleet: Fleet, state: NodeState, emit: Emit) -> None:
    cluster_id = fleet.tree.cluster.id
    names = {*(one.name for one in state.containers), *(one.name for one in state.strangers)}
    names |= {one.name for one in state.jobs}
    try:
        transport = fleet.engine(state.name).transport
        for name in files.left_behind(transport, cluster_id, names):
            files.discard(transport, cluster_id, name)
            emit(Note(f"{state.name}: {name} is no more, and its files are removed"))
    except K4tError as error:
        emit(Note(f"{state.name}: files of containers that are no more were left: {error.words}", warning=True))
