"""What routes ask of gateways that one can't do, or does otherwise: refused or warned, by line and gateway."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from k4t.errors import Finding
from k4t.model.app import App
from k4t.model.participant import Capabilities, Participant
from k4t.model.publish import Route
from k4t.model.spec import Tree


def inexpressible_routes(tree: Tree, members: Iterable[Participant]) -> Iterator[Finding]:
    """One finding for each route and gateway."""
    gateways = [member for member in members if member.kind == "gateway"]
    for app, route in _routes(tree):
        for gateway in gateways:
            lacking = _lacking(app, route, gateway.capabilities) if gateway.group == route.group else []
            if lacking:
                asked = f"the route of {app.name} asks for {_listed(lacking)}"
                message = f"{asked}, which {gateway.name} ({gateway.driver}) can't do"
                remedy = "leave it out, or route by another group of gateways"
                yield Finding(route.where.file, route.where.line, "inexpressible", message, remedy)


def _lacking(app: App, route: Route, means: Capabilities) -> list[str]:
    port = app.port(route.port)
    udp = bool(route.listen and port and port.protocol == "udp")
    asked = (
        (route.listen and not udp and not means.routes_l4, "a port of its own (listen)"),
        (udp and not means.routes_udp, "a port for udp (listen)"),
        (route.tls and not means.tls, "tls"),
        (route.redirect and not means.redirect, "redirect"),
        (route.weight is not None and not means.weight, "weight"),
        (route.strip_prefix and not means.strip_prefix, "strip-prefix"),
        (route.affinity != "none" and not means.affinity, "affinity"),
        (route.upstream == "tls" and not means.upstream_tls, 'upstream="tls"'),
        (route.upstream == "h2c" and not means.upstream_h2c, 'upstream="h2c"'),
    )
    return [word for said, word in asked if said]


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def route_warnings(tree: Tree, members: Iterable[Participant]) -> Iterator[str]:
    """Gateways that don't check by themselves, or aren't told of hosts and paths, in sentences."""
    routed = {route.group for app, route in _routes(tree) if app.ports}
    chosen = {route.group for _, route in _routes(tree) if route.domains or route.prefix != "/"}
    for gateway in members:
        if gateway.kind != "gateway" or gateway.group not in routed:
            continue
        means, who = gateway.capabilities, f"{tree.gateways[gateway.name].where}: {gateway.name} ({gateway.driver})"
        if not means.active_checks:
            yield f"{who} makes no health checks of its own: it leaves a dead replica out after requests to it failed"
        if not means.hosts_and_paths and gateway.group in chosen:
            yield f"{who} is not told of domains and prefixes of routes: they are yours to set there"


def _routes(tree: Tree) -> Iterator[tuple[App, Route]]:
    return ((app, route) for app in tree.apps.values() for route in app.routes)
