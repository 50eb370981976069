"""The normal form of routes: what a union means, whatever the vendor. docs/routes.md says the same in words. Pure.

A vendor renders `Routing`: the sites of its http and https ports, ports of their own (L4), and the backends that all
of these lead to. Nothing is left to decide: rules stand in the order in which they are to be tried.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from .document import Check, Endpoint, Route
from .union import KeyPair, Union

ANY = "*"
USUAL = ("http", "round-robin", "none", "http1")
CERTIFICATES = "var/lib/k4t/certificates"


@dataclasses.dataclass(frozen=True, order=True)
class Pool:
    """The endpoints of one port of an app, and how they are spoken to. `protocol`: http | tcp | udp.

    `balance` is round-robin wherever there is an affinity; `upstream` is http1 wherever `protocol` isn't http, but
    for tls to a tcp port.
    """

    app: str
    port_name: str
    protocol: str = "http"
    balance: str = "round-robin"
    affinity: str = "none"
    upstream: str = "http1"

    @property
    def name(self) -> str:
        """`web.main`, or `web.main.tcp.address`: names of apps and ports hold no dot."""
        said = (self.protocol, self.balance, self.affinity, self.upstream)
        return ".".join([self.app, self.port_name, *(word for word in said if word not in USUAL)])

    @property
    def cookie(self) -> str:
        """The name of the cookie that binds a client to an endpoint (affinity cookie)."""
        return "k4t_" + self.app.replace("-", "_")


@dataclasses.dataclass(frozen=True)
class Backend:
    """A pool with its endpoints, sorted; none: 503. `check` None: endpoints are taken as healthy."""

    pool: Pool
    endpoints: Tuple[Endpoint, ...]
    check: Optional[Check]


@dataclasses.dataclass(frozen=True)
class Certificate:
    """PEM files on this host. `name` is CLUSTER/NAME; `sha256` of the chain, "" where the operator put the files."""

    name: str
    sha256: str
    chain_path: str
    key_path: str


@dataclasses.dataclass(frozen=True)
class Target:
    pool: Pool
    weight: int


@dataclasses.dataclass(frozen=True)
class Rule:
    """A path that begins with `prefix` goes to `targets` (several: by weight, request by request; sum above 0).

    `redirect` "https": 301 to the same host and path there; else 302, `redirect` is the Location. Then no targets.
    """

    prefix: str
    targets: Tuple[Target, ...] = ()
    redirect: str = ""
    strip_prefix: bool = False
    timeout_ms: int = 60000
    retries: int = 1


@dataclasses.dataclass(frozen=True)
class Site:
    """`domain`: exact, `*.x` (any number of labels before x), or `*`. `rules`: the first that fits decides; those of
    wider domains are among them. No rule fits: 404. `certificate`: on the https port only, and always there."""

    domain: str
    rules: Tuple[Rule, ...]
    certificate: Optional[Certificate] = None


@dataclasses.dataclass(frozen=True)
class Listen:
    """L4: a port of the gateway. TLS ends here where there is a certificate."""

    port: int
    pool: Pool
    timeout_ms: int
    retries: int
    certificate: Optional[Certificate] = None


@dataclasses.dataclass(frozen=True)
class Routing:
    """`http`, `https`: exact domains, then wildcards, longest first, then `*`. `listens` sorted by (port, protocol)."""

    http: Tuple[Site, ...] = ()
    https: Tuple[Site, ...] = ()
    listens: Tuple[Listen, ...] = ()
    backends: Tuple[Backend, ...] = ()

    @property
    def certificates(self) -> Tuple[Certificate, ...]:
        """Each once, sorted by name."""
        listed = [item.certificate for items in (self.https, self.listens) for item in items]
        found = {certificate.name: certificate for certificate in listed if certificate}
        return tuple(found[name] for name in sorted(found))


def routing(union: Union, root: str = "/") -> Routing:
    """`root` stands before the paths of uploaded certificates."""
    certificates = {pair.name: _certificate(pair, root) for pair in union.certificates}
    http = [route for route in union.routes if not route.listen]
    secure = [route for route in http if route.tls in certificates]
    listens = _listens([route for route in union.routes if route.listen], certificates)
    made = Routing(_sites(http, None), _sites(secure, certificates), listens)
    return dataclasses.replace(made, backends=_backends(union, made))


def decide(sites: Sequence[Site], host: str, path: str) -> Optional[Rule]:
    """The rule for a request, None for 404: the reference that vendors are compared with."""
    known = {site.domain: site for site in sites}
    wider = _wider(host.partition(":")[0].lower(), known)
    rules = known[wider[0]].rules if wider else ()
    return next((rule for rule in rules if path.startswith(rule.prefix)), None)


def certificate_paths(root: str, cluster: str, sha256: str) -> Tuple[str, str]:
    """Where an uploaded certificate stands: (chain, key)."""
    stem = os.path.join(root, CERTIFICATES, cluster, sha256)
    return stem + ".chain.pem", stem + ".key.pem"


def _certificate(pair: KeyPair, root: str) -> Certificate:
    uploaded = certificate_paths(root, pair.cluster, pair.sha256) if pair.sha256 else (pair.chain_path, pair.key_path)
    return Certificate(pair.name, pair.sha256, *uploaded)


# --- sites -----------------------------------------------------------------------------------------------------


def _sites(routes: Sequence[Route], certificates: Optional[Mapping[str, Certificate]]) -> Tuple[Site, ...]:
    """`certificates` None: those of the http port."""
    by_domain: Dict[str, List[Route]] = {}
    for route in routes:
        for domain in route.domains or (ANY,):
            by_domain.setdefault(domain.lower(), []).append(route)
    own = {domain: _rules(found, secure=certificates is not None) for domain, found in by_domain.items()}
    made = []
    for domain in sorted(own, key=_specificity):
        rules = tuple(rule for wider in _wider(domain, own) for rule in own[wider])
        certificate = certificates[min(route.tls for route in by_domain[domain])] if certificates is not None else None
        made.append(Site(domain, _reachable(rules), certificate))
    return tuple(made)


def _specificity(domain: str) -> Tuple[int, int, str]:
    """Exact domains, then wildcards, the closest first, then any."""
    kind = 2 if domain == ANY else 1 if domain.startswith("*.") else 0
    return (kind, -domain.count(".") if kind == 1 else 0, domain)


def _wider(domain: str, known: Mapping[str, object]) -> List[str]:
    """Of the known ones: `domain`, then each wildcard that covers it, the closest first, then any."""
    labels = domain.split(".")
    wildcards = ["*." + ".".join(labels[place:]) for place in range(1, len(labels))]
    return [name for name in dict.fromkeys([domain, *wildcards, ANY]) if name in known]


def _rules(routes: Iterable[Route], *, secure: bool) -> List[Rule]:
    """One a prefix, the longest first."""
    by_prefix: Dict[str, List[Route]] = {}
    for route in sorted(routes):
        by_prefix.setdefault(route.prefix, []).append(route)
    ordered = sorted(by_prefix, key=lambda prefix: (-len(prefix), prefix))
    return [_rule(by_prefix[prefix], secure=secure) for prefix in ordered]


def _rule(routes: Sequence[Route], *, secure: bool) -> Rule:
    """Of one (domain, prefix): all routes where all have a weight, else the first one that has none."""
    bare = [route for route in routes if route.weight < 0]
    chosen = bare[:1] or routes
    first = chosen[0]
    redirect = "" if secure and first.redirect == "https" else first.redirect
    if redirect:
        return Rule(first.prefix, redirect=redirect)
    nothing = not any(route.weight > 0 for route in chosen)
    targets = [Target(pool_of(route), 1 if nothing else route.weight) for route in chosen]
    return Rule(
        first.prefix,
        tuple(target for target in targets if target.weight),
        strip_prefix=first.strip_prefix and first.prefix != "/",
        timeout_ms=first.timeout_ms,
        retries=first.retries,
    )


def _reachable(rules: Iterable[Rule]) -> Tuple[Rule, ...]:
    """Without those that can't be reached, since one before them takes every path of theirs."""
    kept: Dict[str, Rule] = {}
    lengths: Set[int] = set()  # few, where prefixes may be many
    for rule in rules:
        if not any(rule.prefix[:length] in kept for length in lengths):
            kept[rule.prefix] = rule
            lengths.add(len(rule.prefix))
    return tuple(kept.values())


# --- ports of their own, backends --------------------------------------------------------------------------------


def pool_of(route: Route) -> Pool:
    protocol = route.protocol if route.listen else "http"
    plain = protocol == "udp" or (protocol == "tcp" and route.upstream == "h2c")
    affinity = "address" if route.listen and route.affinity == "cookie" else route.affinity
    balance = route.balance if affinity == "none" else "round-robin"
    return Pool(route.app, route.port_name, protocol, balance, affinity, "http1" if plain else route.upstream)


def _listens(routes: Iterable[Route], certificates: Mapping[str, Certificate]) -> Tuple[Listen, ...]:
    """One a (port, protocol). A route whose certificate isn't known is left out: never in plain text instead."""
    found: Dict[Tuple[int, str], Listen] = {}
    for route in sorted(routes):
        if not route.tls or route.tls in certificates:
            made = Listen(route.listen, pool_of(route), route.timeout_ms, route.retries, certificates.get(route.tls))
            found.setdefault((route.listen, route.protocol), made)
    return tuple(found[key] for key in sorted(found))


def _backends(union: Union, made: Routing) -> Tuple[Backend, ...]:
    """One a pool that something leads to, and one an (app, port) with endpoints that nothing leads to."""
    rules = [rule for sites in (made.http, made.https) for site in sites for rule in site.rules]
    pools = {target.pool for rule in rules for target in rule.targets} | {listen.pool for listen in made.listens}
    led_to = {(pool.app, pool.port_name) for pool in pools}
    tcp = {(e.app, e.port_name) for e in union.endpoints if e.port and e.protocol == "tcp"}
    pools |= {Pool(app, port_name) for app, port_name in tcp - led_to}
    checks = {(check.app, check.port_name): check for check in union.checks if check.kind != "none"}
    endpoints: Dict[Tuple[str, str, str], List[Endpoint]] = {}
    for endpoint in union.endpoints:
        if endpoint.port:
            endpoints.setdefault((endpoint.app, endpoint.port_name, endpoint.protocol), []).append(endpoint)
    return tuple(_backend(pool, endpoints, checks) for pool in sorted(pools))


def _backend(
    pool: Pool,
    endpoints: Mapping[Tuple[str, str, str], List[Endpoint]],
    checks: Mapping[Tuple[str, str], Check],
) -> Backend:
    udp = pool.protocol == "udp"
    found = endpoints.get((pool.app, pool.port_name, "udp" if udp else "tcp"), [])
    check = None if udp else checks.get((pool.app, pool.port_name))
    return Backend(pool, tuple(sorted(found)), check)
