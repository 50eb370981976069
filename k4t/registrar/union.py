"""The union of all clusters' documents, manual entries and withdrawals: what one vendor on one host should serve.

Endpoints of one app in several clusters add up; all else of a shared app is taken from the cluster with the lowest id.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, Iterable, List, Sequence, Tuple

from .document import Certificate, Check, Endpoint, Record, Route
from .store import Holding, Withdrawal


@dataclasses.dataclass(frozen=True)
class Named:
    """A record with its full name (`web.k4t.lab`)."""

    name: str
    record: Record
    cluster: str


@dataclasses.dataclass(frozen=True, order=True)
class KeyPair:
    """A cluster's certificate. `name` is CLUSTER/NAME, as its routes here say it in `tls`. Paths are "" where it was
    uploaded, `sha256` is where it wasn't."""

    name: str
    cluster: str
    sha256: str = ""
    chain_path: str = ""
    key_path: str = ""


@dataclasses.dataclass(frozen=True)
class Union:
    """Everything sorted; `endpoints` without doubles of (app, ip, port, port name)."""

    endpoints: Tuple[Endpoint, ...] = ()
    checks: Tuple[Check, ...] = ()
    routes: Tuple[Route, ...] = ()
    records: Tuple[Named, ...] = ()
    certificates: Tuple[KeyPair, ...] = ()


def unite(
    holdings: Sequence[Holding],
    manual: Iterable[Endpoint] = (),
    withdrawals: Iterable[Withdrawal] = (),
    zone: str = "",
) -> Union:
    """`zone` is the one for manual entries, which belong to no cluster."""
    ordered = sorted(holdings, key=lambda holding: holding.document.cluster)
    owner = _owners(ordered)
    gone = {(out.cluster, out.ip, out.port, out.container) for out in withdrawals}
    endpoints = {_key(entry): entry for entry in manual}
    checks: List[Check] = []
    routes: List[Route] = []
    records: List[Named] = []
    pairs: List[KeyPair] = []
    for holding in ordered:
        document = holding.document
        for endpoint in document.endpoints:
            if (document.cluster, endpoint.ip, endpoint.port, endpoint.container) not in gone:
                endpoints[_key(endpoint)] = endpoint
        checks += [check for check in document.checks if owner[check.app] == document.cluster]
        mine = [route for route in document.routes if owner[route.app] == document.cluster]
        routes += [_named(route, document.cluster) for route in mine]
        said = {route.tls for route in mine}
        pairs += [
            _pair(certificate, document.cluster) for certificate in document.certificates if certificate.name in said
        ]
        records += [
            Named(full_name(record.name, holding.zone), record, document.cluster)
            for record in document.records
            if owner[record.app] == document.cluster
        ]
    for app in sorted({entry.app for entry in manual} - {named.record.app for named in records}):
        records.append(Named(full_name(app, zone), Record(app, app), ""))
    return Union(
        tuple(endpoints[key] for key in sorted(endpoints)),
        tuple(checks),
        tuple(routes),
        tuple(sorted(records, key=lambda named: (named.name, named.record))),
        tuple(sorted(pairs)),
    )


def _named(route: Route, cluster: str) -> Route:
    """Two clusters may have certificates of one name."""
    return dataclasses.replace(route, tls="%s/%s" % (cluster, route.tls)) if route.tls else route


def _pair(certificate: Certificate, cluster: str) -> KeyPair:
    name = "%s/%s" % (cluster, certificate.name)
    return KeyPair(name, cluster, certificate.sha256, certificate.chain_path, certificate.key_path)


def _key(endpoint: Endpoint) -> Tuple[str, str, int, str]:
    return (endpoint.app, endpoint.port_name, endpoint.port, endpoint.ip)


def _owners(ordered: Sequence[Holding]) -> Dict[str, str]:
    """The cluster that decides about an app: the lowest id that says anything of it."""
    owner: Dict[str, str] = {}
    for holding in reversed(ordered):
        document = holding.document
        listed = (document.endpoints, document.checks, document.routes, document.records)
        owner.update({item.app: document.cluster for items in listed for item in items})
    return owner


def record_clashes(mine: Holding, others: Sequence[Holding]) -> List[str]:
    """Names that another cluster has for another app: one sentence each, naming the owner."""
    taken = {
        full_name(record.name, other.zone): (other.document, record.app)
        for other in others
        for record in other.document.records
    }
    found = []
    for record in mine.document.records:
        name = full_name(record.name, mine.zone)
        if name in taken and taken[name][1] != record.app:
            owner, app = taken[name]
            words = "record %s of app %s belongs to app %s of cluster %s (%s)"
            found.append(words % (name, record.app, app, owner.name, owner.cluster))
    return found


def full_name(name: str, zone: str) -> str:
    """`web` in k4t.lab is web.k4t.lab; a name that already ends in the zone (or is the zone) stays as it is."""
    name, zone = name.rstrip(".").lower(), zone.strip(".").lower()
    if not zone or name == zone or name.endswith("." + zone):
        return name
    return "%s.%s" % (name, zone)
