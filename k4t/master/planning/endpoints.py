"""From apps and containers to what a document holds of them: endpoints, checks, routes, records."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from k4t.master.planning import certificates
from k4t.master.planning.certificates import certificates_of, certified
from k4t.master.planning.plan import Slot
from k4t.model.app import App, Health, HttpProbe, TcpProbe
from k4t.model.hosts import Node
from k4t.model.participant import Kind
from k4t.model.publish import Record, srv_name
from k4t.model.publish import Route as WantedRoute
from k4t.model.spec import Tree
from k4t.model.state import Container
from k4t.registrar import document as registrar
from k4t.registrar.document import Check, Document, Endpoint, Route

GATEWAYS_OWN = "addresses"
_Item = TypeVar("_Item", Route, Check, registrar.Record)


def gateway_groups(app: App) -> tuple[str, ...]:
    """The gateway groups that send traffic to this app."""
    return tuple(sorted({route.group for route in app.routes}))


def dns_groups(app: App) -> tuple[str, ...]:
    """The DNS groups that name this app's endpoints; records of literal addresses need none."""
    return tuple(sorted({record.group for record in app.records if not record.to}))


def endpoints_of(app: str, container: Container, second: str = "") -> tuple[Endpoint, ...]:
    """One for each port of its label; one with port 0 when it has none. () when it has no address yet. `second`: the
    same at another address."""
    if not container.address:
        return ()
    if second:
        there = dataclasses.replace(container, address=second)
        return tuple(sorted((*endpoints_of(app, container), *endpoints_of(app, there))))
    common = {"node": container.node, "replica": container.replica, "container": container.id}
    if not container.ports:
        return (Endpoint(app, container.address, 0, **common),)
    return tuple(
        sorted(
            Endpoint(app, container.address, port.number, port.name, port.protocol, **common)
            for port in container.ports
        )
    )


def second_address(nodes: Mapping[str, Node], container: Container, kind: Kind) -> str:
    """The IPv6 address of its node, for a container that has its node's IPv4 one: DNS names both, and clients choose. A
    gateway gets one endpoint a replica, or a node of both families would have twice the share."""
    node = nodes.get(container.node) if kind == "dns" else None
    return node.address6 if node is not None and container.address == node.address else ""


def routes_of(app: App, group: str) -> tuple[Route, ...]:
    return tuple(sorted(_route(app, route) for route in app.routes if route.group == group))


def checks_of(app: App, group: str) -> tuple[Check, ...]:
    """The check of every port that a route of this group leads to."""
    ports = {route.port_name for route in routes_of(app, group)}
    return tuple(sorted(_check(app, port) for port in ports))


def records_of(app: App, tree: Tree, group: str) -> tuple[registrar.Record, ...]:
    return tuple(sorted(_record(app, tree, record) for record in app.records if record.group == group))


def wanted_of(app: App, tree: Tree, kind: Kind, group: str) -> tuple[object, ...]:
    """All that `settle` sets for this app in one group: routes, certificates and checks, or records."""
    if kind == "gateway":
        routes = routes_of(app, group)
        return (*routes, *certificates_of(tree, routes), *checks_of(app, group))
    return records_of(app, tree, group)


def compose(
    live: Document | None,
    desired: Tree,
    kind: Kind,
    group: str,
    *,
    add: Iterable[tuple[Slot, Container]] = (),
    remove: Iterable[Slot] = (),
    settle: Collection[str] = (),
    restore: Collection[str] = (),
    former: Document | None = None,
) -> Document:
    """The document after one publication; epoch, seq and parent are the publisher's to set.

    Starts from the live one: what is unknown or outside this run is carried over. An added container's endpoints
    replace those it had. `restore`: apps whose routes, checks and records become what `former` holds of them.
    Raises registrar.BadDocument.
    """
    base = live or Document(desired.cluster.id, desired.cluster.name, kind, group)
    added = list(add)
    gone = _Gone(remove, [container.id for _, container in added])
    endpoints = [endpoint for endpoint in base.endpoints if endpoint not in gone]
    for slot, container in added:
        endpoints += endpoints_of(slot.app, container, second_address(desired.nodes, container, kind))
    settled = dataclasses.replace(base, name=desired.cluster.name, endpoints=tuple(endpoints))
    if former is not None:
        settled = _restore(settled, former, desired, frozenset(restore))
    return registrar.make(_settle(settled, desired, kind, group, frozenset(settle)))


class _Gone:
    """Endpoints to take out: of containers, or where the container isn't known, of a place."""

    def __init__(self, remove: Iterable[Slot], replaced: Iterable[str]) -> None:
        slots = list(remove)
        self.containers = {slot.container for slot in slots if slot.container} | set(replaced)
        self.places = {(slot.app, slot.replica, slot.node) for slot in slots if not slot.container}

    def __contains__(self, endpoint: Endpoint) -> bool:
        if endpoint.container:
            return endpoint.container in self.containers
        return (endpoint.app, endpoint.replica, endpoint.node) in self.places


def _restore(base: Document, former: Document, desired: Tree, apps: frozenset[str]) -> Document:
    def theirs(items: Iterable[_Item]) -> tuple[_Item, ...]:
        return tuple(item for item in items if item.app in apps)

    def others(items: Iterable[_Item]) -> tuple[_Item, ...]:
        return tuple(item for item in items if item.app not in apps)

    settled = dataclasses.replace(
        base,
        routes=others(base.routes) + theirs(former.routes),
        checks=others(base.checks) + theirs(former.checks),
        records=others(base.records) + theirs(former.records),
    )
    # A certificate is never put back: an older one would end sooner.
    known = certificates_of(desired, theirs(former.routes))
    return certified(settled, known, former.certificates, base.certificates)


def _settle(base: Document, desired: Tree, kind: Kind, group: str, apps: frozenset[str]) -> Document:
    if not apps:
        return base
    present = [desired.apps[name] for name in sorted(apps) if name in desired.apps]
    if kind == "dns":
        records = [record for record in base.records if record.app not in apps]
        records += [record for app in present for record in records_of(app, desired, group)]
        return dataclasses.replace(base, records=tuple(records))
    routes = [route for route in base.routes if route.app not in apps]
    checks = [check for check in base.checks if check.app not in apps]
    wanted = [route for app in present for route in routes_of(app, group)]
    checks += [check for app in present for check in checks_of(app, group)]
    settled = dataclasses.replace(base, routes=(*routes, *wanted), checks=tuple(checks))
    return certified(settled, certificates_of(desired, wanted), base.certificates)


def _route(app: App, route: WantedRoute) -> Route:
    port = app.port(route.port)
    return Route(
        app=app.name,
        port_name=port.name if port else route.port or "main",
        domains=tuple(sorted(route.domains)),
        prefix=route.prefix,
        listen=route.listen or 0,
        protocol=port.protocol if port else "tcp",
        tls=route.tls,
        redirect=route.redirect,
        strip_prefix=route.strip_prefix,
        weight=-1 if route.weight is None else route.weight,
        timeout_ms=round(route.timeout_s * 1000),
        retries=route.retries,
        balance=route.balance,
        affinity=route.affinity,
        upstream=route.upstream,
    )


def _check(app: App, port_name: str) -> Check:
    """Gateways make HTTP and TCP checks; for what only Docker can check they make sure that the port answers."""
    health = app.health
    port = app.port(port_name)
    if port is not None and port.protocol == "udp":
        return Check(app.name, port_name, "none")
    if health is None:
        return Check(app.name, port_name, "tcp")
    interval_ms, timeout_ms = round(health.interval_s * 1000), round(health.timeout_s * 1000)
    plain = Check(app.name, port_name, "tcp", interval_ms=interval_ms, timeout_ms=timeout_ms, retries=health.retries)
    if not isinstance(health.probe, HttpProbe) or not _probes(app, health, port_name):
        return plain
    low, high = health.probe.status
    headers = tuple(sorted(health.probe.headers))
    return dataclasses.replace(
        plain, kind="http", path=health.probe.path, status_min=low, status_max=high, headers=headers
    )


def _probes(app: App, health: Health, port_name: str) -> bool:
    """Whether the probe is of this port: a probe without a port means the first one."""
    if not isinstance(health.probe, HttpProbe | TcpProbe):
        return False
    port = app.port(health.probe.port)
    return port is not None and port.name == port_name


def _record(app: App, tree: Tree, record: Record) -> registrar.Record:
    port = app.port(record.port) if record.type == "srv" else None
    return registrar.Record(
        name=served_name(app, record),
        app=app.name,
        type=record.type,
        port_name=port.name if port else "",
        to=_literal(app, tree, record.to),
        ttl_s=record.ttl_s,
    )


def served_name(app: App, record: Record) -> str:
    """In the zone, as it is asked for."""
    if record.type != "srv":
        return record.name
    port = app.port(record.port)
    return srv_name(record.name, port.name if port else record.port or "main", port.protocol if port else "tcp")


def _literal(app: App, tree: Tree, to: tuple[str, ...]) -> tuple[str, ...]:
    """Literal addresses, with “addresses” standing for those of the gateways that lead to this app."""
    groups = gateway_groups(app)
    own = [gateway.address for gateway in tree.gateways.values() if gateway.group in groups]
    found = [address for address in to if address != GATEWAYS_OWN] + (own if GATEWAYS_OWN in to else [])
    return tuple(sorted(set(found)))


def by_app(document: Document) -> Mapping[str, tuple[Endpoint, ...]]:
    found: dict[str, list[Endpoint]] = {}
    for endpoint in document.endpoints:
        found.setdefault(endpoint.app, []).append(endpoint)
    return {app: tuple(endpoints) for app, endpoints in found.items()}


def settled_by_app(document: Document) -> Mapping[str, tuple[object, ...]]:
    """What `wanted_of` is compared with, of every app at once."""
    found: dict[str, list[object]] = {}
    for listed in (document.routes, document.checks, document.records):
        for item in listed:
            found.setdefault(item.app, []).append(item)
    for app, named in certificates.by_app(document).items():
        found[app] += named
    return {app: tuple(items) for app, items in found.items()}
