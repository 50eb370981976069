"""What can change in place is compared by label; where that differs, the container is inspected and what it really
has decides (design.md, “On a node”)."""

from __future__ import annotations

import dataclasses

from k4t.errors import K4tError
from k4t.master.fleet import Fleet, at_once
from k4t.master.planning.specs import resources_label, resources_text
from k4t.model.app import App
from k4t.model.state import Container, NodeState, Observed


def effective(fleet: Fleet, observed: Observed) -> Observed:
    """The same observation, with the resources and files that containers really have where their labels are not as
    wanted."""
    wanted = {name: resources_label(app) for name, app in fleet.tree.apps.items()}
    ours = [one for state in observed.nodes.values() for one in state.containers if one.app in wanted]
    resized = {one.id: one for one in ours if one.resources != wanted[one.app]}
    refreshed = {one.id: one for one in ours if one.files and _may_differ(fleet.tree.apps[one.app], one)}
    differing = {**resized, **refreshed}
    if not differing:
        return observed

    def look(one: Container) -> Container:
        one = _inspected(fleet, one) if one.id in resized else one
        return _remembered(fleet, one) if one.id in refreshed else one

    found = {one.id: one for one in at_once(look, differing.values())}
    nodes = {name: _with(state, found) for name, state in observed.nodes.items()}
    return dataclasses.replace(observed, nodes=nodes)


def _with(state: NodeState, found: dict[str, Container]) -> NodeState:
    return dataclasses.replace(state, containers=tuple(found.get(one.id, one) for one in state.containers))


def _may_differ(app: App, container: Container) -> bool:
    """A secret's digest is not known yet: such a file has to be looked at."""
    told = dict(container.files)
    changing = [file for file in app.files if file.on_change != "replace" and file.target in told]
    return any(file.secret or told[file.target] != file.sha256 for file in changing)


def _remembered(fleet: Fleet, container: Container) -> Container:
    from k4t.node.refresh import remembered

    try:
        files = remembered(fleet.engine(container.node).transport, fleet.tree.cluster.id, container.name)
    except K4tError:
        return container
    return dataclasses.replace(container, files=files) if files else container


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
