"""What must hold between routes, certificates and gateways of a tree. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from k4t.errors import Finding
from k4t.model.app import App
from k4t.model.hosts import Gateway
from k4t.model.publish import Certificate, Route
from k4t.tree.nearest import did_you_mean
from k4t.tree.x509 import covers

Findings = Iterator[Finding]
Placed = tuple[App, Route]
_SHARED = {
    "strip-prefix": "strip_prefix", "redirect": "redirect", "timeout": "timeout_s", "retries": "retries", "tls": "tls",
}  # fmt: skip


def check_routes(
    apps: Mapping[str, App], gateways: Iterable[Gateway], certificates: Mapping[str, Certificate]
) -> Findings:
    """Whether the groups exist is not looked at here."""
    placed = [(app, route) for app in apps.values() for route in app.routes]
    yield from _same_place(placed)
    yield from _one_certificate(placed)
    yield from _ports(placed, list(gateways))
    yield from _names(placed, certificates)


def _finding(route: Route, code: str, message: str, remedy: str) -> Finding:
    return Finding(route.where.file, route.where.line, code, message, remedy)


def _same_place(placed: Iterable[Placed]) -> Findings:
    """One place leads to one app, or is shared by weight."""
    by_place: dict[tuple[object, ...], list[Placed]] = {}
    shown: dict[tuple[object, ...], str] = {}
    for app, route in placed:
        for key, words in _places(app, route):
            by_place.setdefault(key, []).append((app, route))
            shown[key] = words
    for key, here in by_place.items():
        yield from _shared(shown[key], here)


def _places(app: App, route: Route) -> Iterable[tuple[tuple[object, ...], str]]:
    if route.listen is not None:
        port = app.port(route.port)
        protocol = port.protocol if port else "tcp"
        suffix = "/udp" if protocol == "udp" else ""
        return [((route.group, route.listen, protocol), f"port {route.listen}{suffix} of group {route.group}")]
    domains = route.domains or ("",)
    return [((route.group, domain, route.prefix), f"{domain}{route.prefix}") for domain in dict.fromkeys(domains)]


def _shared(shown: str, here: Sequence[Placed]) -> Findings:
    app, first = here[0]
    weighted = [route for _, route in here if route.weight is not None]
    if len(weighted) == len(here):
        yield from _shares(shown, here)
    elif first.listen is not None or not weighted:
        remedy = "choose another port" if first.listen else "change domain or prefix of one, or give both a weight"
        for _, route in here[1:]:
            yield _finding(route, "duplicate-route", f"{shown} already goes to {app.name} ({first.where})", remedy)
    else:
        for _, route in here:
            if route.weight is None:
                message = f"{shown} is shared by weight ({weighted[0].where}), and this route has none"
                yield _finding(route, "duplicate-route", message, "give it a weight, or change domain or prefix")


def _shares(shown: str, here: Sequence[Placed]) -> Findings:
    """All have a weight."""
    first = here[0][1]
    if not any(route.weight for _, route in here):
        yield _finding(first, "route-weight", f"the weights for {shown} add up to 0", "raise one of them")
    seen: dict[tuple[str, str], Route] = {}
    for app, route in here:
        other = seen.setdefault((app.name, route.port), route)
        if other is not route:
            yield _finding(
                route, "duplicate-route", f"{shown} already goes there ({other.where})", "remove one of them"
            )
        yield from _alike(shown, first, route)


def _alike(shown: str, first: Route, route: Route) -> Findings:
    unlike = [name for name, field in _SHARED.items() if getattr(first, field) != getattr(route, field)]
    if unlike:
        message = f"{shown} is shared with {first.where}, which says another {', '.join(unlike)}"
        yield _finding(route, "route-share", message, "say the same in both")


def _one_certificate(placed: Iterable[Placed]) -> Findings:
    shown: dict[tuple[str, str], Route] = {}
    for _, route in placed:
        for domain in route.domains or ("",) if route.tls and route.listen is None else ():
            first = shown.setdefault((route.group, domain), route)
            if first.tls != route.tls:
                message = f"{domain or 'any domain'} shows certificate {first.tls} already ({first.where})"
                yield _finding(route, "one-certificate", message, f'write tls="{first.tls}", or change the other one')


def _ports(placed: Iterable[Placed], gateways: Sequence[Gateway]) -> Findings:
    for app, route in placed:
        port = app.port(route.port)
        tcp = port is None or port.protocol == "tcp"
        for gateway in gateways:
            if gateway.group != route.group:
                continue
            if route.listen is not None and tcp and route.listen in (gateway.http, gateway.https):
                message = f"listen {route.listen} is {gateway.name}'s port for HTTP ({gateway.where})"
                yield _finding(route, "port-clash", message, "choose another port")
            if route.tls and route.listen is None and not gateway.https:
                message = f"the route has tls, and {gateway.name} has no https port ({gateway.where})"
                yield _finding(route, "no-https", message, 'write https="443" there')


def _names(placed: Iterable[Placed], certificates: Mapping[str, Certificate]) -> Findings:
    """Only said: the certificate may be renewed before it matters."""
    for _, route in placed:
        certificate = certificates.get(route.tls)
        if certificate is None or not certificate.sha256:
            continue
        stray = [domain for domain in route.domains if not covers(certificate.domains, domain)]
        if stray:
            names = ", ".join(certificate.domains) or "no name"
            message = f"certificate {route.tls} is for {names}; clients that ask for {', '.join(stray)} refuse it"
            yield _finding(route, "certificate-domain", message, "")


def check_certificates(certificates: Mapping[str, Certificate], files: set[str], known: set[str]) -> Findings:
    """`files`: what stands beside them; `known`: names of all certificates, also of those that can't be read."""
    used: set[str] = set()
    for one in certificates.values():
        where = one.where
        given = tuple(bool(part) for part in (one.chain, one.key_secret, one.chain_path, one.key_path))
        if given not in ((True, True, False, False), (False, False, True, True)):
            message = "a certificate has chain and key-secret, or chain-path and key-path"
            yield Finding(where.file, where.line, "certificate", message, "write one of the pairs")
        if one.chain:
            used.add(one.chain)
            if one.chain not in files:
                remedy = did_you_mean(one.chain, files, "put it into certificates/")
                message = f"chain {one.chain}: no such file in certificates/"
                yield Finding(where.file, where.line, "missing-file", message, remedy)
    if len(certificates) == len(known):
        for name in sorted(files - used):
            message = "no certificate names it as its chain"
            yield Finding(f"certificates/{name}", 0, "unknown-file", message, "remove it, or write its certificate")
