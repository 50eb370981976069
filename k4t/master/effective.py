"""What can change in place is compared by label; where that differs, the container is inspected and what it really
has decides (design.md, “On a node”)."""

from __future__ import annotations

import dataclasses

from k4t.errors import K4tError
from k4t.master.fleet import Fleet, at_once
from k4t.master.planning.specs import resources_label, resources_text
from k4t.model.state import Container, NodeState, Observed


def effective(fleet: Fleet, observed: Observed) -> Observed:
    """The same observation, with the resources that containers really have where their label is not as wanted."""
    wanted = {name: resources_label(app) for name, app in fleet.tree.apps.items()}
    differing = [
        one for state in observed.nodes.values() for one in state.containers if one.resources != wanted.get(one.app)
    ]
    differing = [one for one in differing if one.app in wanted]
    if not differing:
        return observed
    found = {one.id: one for one in at_once(lambda one: _inspected(fleet, one), differing)}
    nodes = {name: _with(state, found) for name, state in observed.nodes.items()}
    return dataclasses.replace(observed, nodes=nodes)


def _with(state: NodeState, found: dict[str, Container]) -> NodeState:
    return dataclasses.replace(state, containers=tuple(found.get(one.id, one) for one in state.containers))


def _inspected(fleet: Fleet, container: Container) -> Container:
    """As it is; as its label says, when it can't be asked or is gone."""
    from k4t.node import lifecycle

    try:
        settings = lifecycle.settings(fleet.engine(container.node), container.id)
    except K4tError:
        return container
    if settings is None:
        return container
    resources, restart = settings
    return dataclasses.replace(container, resources=resources_text(resources, restart))
