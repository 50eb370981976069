"""A group's document from what runs: what `sync` compares with what is live. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable

from k4t.master.planning.certificates import certificates_of, certified
from k4t.master.planning.endpoints import (
    checks_of,
    dns_groups,
    endpoints_of,
    gateway_groups,
    records_of,
    routes_of,
)
from k4t.model.participant import Kind
from k4t.model.spec import Tree
from k4t.model.state import Container, Observed
from k4t.registrar import document as registrar
from k4t.registrar.document import Document, Endpoint


def derived(
    tree: Tree, of: tuple[Kind, str], live: Document | None, observed: Observed, healthy: Collection[str]
) -> Document:
    """`of`: kind and name of the group. Every healthy container of an app that it is for; what stands on a node that
    can't be asked stays as it is.

    An app's routes, checks and records stay too: what the tree says anew is for `apply` to roll out. Only those of an
    app of which nothing is live come from the tree. Raises registrar.BadDocument.
    """
    kind, group = of
    base = live or Document(tree.cluster.id, tree.cluster.name, kind, group)
    published = {endpoint.container for endpoint in base.endpoints}
    endpoints = [endpoint for endpoint in base.endpoints if _unknown(endpoint, observed)]
    for container in _serving(_apps(tree, kind, group), observed, healthy, published):
        endpoints += endpoints_of(container.app, container)
    known = {item.app for items in (base.routes, base.checks, base.records) for item in items}
    missing = [tree.apps[name] for name in sorted(_apps(tree, kind, group) - known)]
    settled = dataclasses.replace(base, name=tree.cluster.name, endpoints=tuple(endpoints))
    if kind == "dns":
        records = [record for app in missing for record in records_of(app, tree, group)]
        return registrar.make(dataclasses.replace(settled, records=(*base.records, *records)))
    routes = [route for app in missing for route in routes_of(app, group)]
    checks = [check for app in missing for check in checks_of(app, group)]
    whole = dataclasses.replace(settled, routes=(*base.routes, *routes), checks=(*base.checks, *checks))
    return registrar.make(certified(whole, base.certificates, certificates_of(tree, routes)))


def _apps(tree: Tree, kind: Kind, group: str) -> set[str]:
    groups = gateway_groups if kind == "gateway" else dns_groups
    return {app.name for app in tree.apps.values() if group in groups(app)}


def _unknown(endpoint: Endpoint, observed: Observed) -> bool:
    state = observed.nodes.get(endpoint.node)
    return state is not None and not state.reachable


def _serving(
    apps: Collection[str], observed: Observed, healthy: Collection[str], published: Collection[str]
) -> Iterable[Container]:
    """One a replica: the one that is published, else the newest generation. Between two of one replica, in the middle
    of an update, only `apply` decides."""
    found: dict[tuple[str, str, str], Container] = {}
    for state in observed.nodes.values():
        for one in state.containers:
            if one.app not in apps or not one.running or one.id not in healthy:
                continue
            place = (one.app, one.replica, one.node)
            best = found.get(place)
            if best is None or (one.id in published, one.generation) > (best.id in published, best.generation):
                found[place] = one
    return found.values()
