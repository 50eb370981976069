"""The document: everything one cluster publishes to one group. Shared by k4t and the registrar, word for word.

A document travels and is stored as JSON (`to_json`/`from_json`, format 1). Its identity is `sha256` of the canonical
form (sorted keys, no white space, UTF-8); documents of one cluster are ordered by (epoch, seq). What two members of
a group are compared by is `digest`: the same hash without epoch, seq and parent.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import ipaddress
import json
import re
from typing import Any, Dict, List, Mapping, Tuple, Type, TypeVar

FORMAT = 1
MAX_BYTES = 16 * 1024 * 1024
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")
DOMAIN = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\Z")
WORD = re.compile(r"[A-Za-z0-9._:@-]{1,200}\Z")
PATH = re.compile(r"/[!-~]{0,1000}\Z")
FILE = re.compile(r"/[A-Za-z0-9._/@+-]{1,300}\Z")
REDIRECT = re.compile(r"(https?://[a-z0-9.:\[\]_-]+)?(/[A-Za-z0-9._~!&()*+,;=:@%/?#-]*)?\Z", re.IGNORECASE)
SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class BadDocument(ValueError):
    """A document that no registrar may accept: which field, what is wrong with it."""


@dataclasses.dataclass(frozen=True, order=True)
class Epoch:
    """A fence: raised by every run that writes. Ordered by number, then by the run's random id."""

    number: int
    run: str


@dataclasses.dataclass(frozen=True, order=True)
class Endpoint:
    """One healthy replica's address. `port` 0 for an app without ports (only DNS can name it)."""

    app: str
    ip: str
    port: int
    port_name: str = "main"
    protocol: str = "tcp"
    node: str = ""
    replica: str = ""
    container: str = ""


@dataclasses.dataclass(frozen=True, order=True)
class Check:
    """The active health check of (app, port name), as gateways should make it. `kind`: http | tcp | none."""

    app: str
    port_name: str
    kind: str = "tcp"
    path: str = "/"
    status_min: int = 200
    status_max: int = 399
    headers: Tuple[Tuple[str, str], ...] = ()
    interval_ms: int = 5000
    timeout_ms: int = 2000
    retries: int = 3


@dataclasses.dataclass(frozen=True, order=True)
class Route:
    """HTTP by domain and prefix, or L4 by `listen` (a port of the gateways; 0 for HTTP). No domain means any."""

    app: str
    port_name: str = "main"
    domains: Tuple[str, ...] = ()
    prefix: str = "/"
    listen: int = 0
    protocol: str = "tcp"
    tls: str = ""
    redirect: str = ""
    strip_prefix: bool = False
    weight: int = -1
    timeout_ms: int = 60000
    retries: int = 1
    balance: str = "round-robin"
    affinity: str = "none"
    upstream: str = "http1"


@dataclasses.dataclass(frozen=True, order=True)
class Record:
    """`type` address | srv. `to` empty: the app's endpoints (of `port_name` for srv); else literal addresses."""

    name: str
    app: str
    type: str = "address"
    port_name: str = ""
    to: Tuple[str, ...] = ()
    ttl_s: int = 30


@dataclasses.dataclass(frozen=True, order=True)
class Certificate:
    """What routes name in `tls`: uploaded beforehand (`sha256` of the chain's PEM text), or files that the operator
    put on the gateways (both paths). Never the key. `expires` is the chain's first certificate's, RFC 3339 UTC."""

    name: str
    sha256: str = ""
    expires: str = ""
    chain_path: str = ""
    key_path: str = ""


@dataclasses.dataclass(frozen=True)
class Document:
    """One cluster's whole say in one group. Tuples are sorted and without doubles; `check` holds it to that."""

    cluster: str
    name: str
    kind: str
    group: str
    epoch: Epoch = Epoch(0, "")
    seq: int = 0
    parent: str = ""
    endpoints: Tuple[Endpoint, ...] = ()
    checks: Tuple[Check, ...] = ()
    routes: Tuple[Route, ...] = ()
    records: Tuple[Record, ...] = ()
    certificates: Tuple[Certificate, ...] = ()

    @property
    def version(self) -> Tuple[Epoch, int]:
        return (self.epoch, self.seq)

    @functools.cached_property  # of 1,000 endpoints it takes 10 ms, and many ask
    def encoded(self) -> bytes:
        """The canonical form."""
        return canonical(to_json(self))

    @functools.cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.encoded).hexdigest()

    @functools.cached_property
    def digest(self) -> str:
        """Of what is published alone: equal on all members of a group, whatever their vendor."""
        content = to_json(self)
        for key in ("epoch", "seq", "parent", "name"):
            del content[key]
        return hashlib.sha256(canonical(content)).hexdigest()

    @property
    def empty(self) -> bool:
        return not (self.endpoints or self.routes or self.records)


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def make(document: Document) -> Document:
    """The same document with every tuple sorted and without doubles, checked. Raises BadDocument."""
    sorted_document = dataclasses.replace(
        document,
        endpoints=tuple(sorted(set(document.endpoints))),
        checks=tuple(sorted(set(document.checks))),
        routes=tuple(sorted(set(document.routes))),
        records=tuple(sorted(set(document.records))),
        certificates=tuple(sorted(set(document.certificates))),
    )
    check(sorted_document)
    return sorted_document


def to_json(document: Document) -> Dict[str, Any]:
    # `asdict` would copy every value of every item, which takes ten times as long.
    fields = {field.name: getattr(document, field.name) for field in dataclasses.fields(document)}
    for name in _LISTS:
        fields[name] = [vars(item) for item in fields[name]]
    fields["epoch"] = [document.epoch.number, document.epoch.run]
    fields["format"] = FORMAT
    if not document.certificates:
        del fields["certificates"]  # as before there were any: what is stored keeps its checksum
    # One round trip makes tuples lists, so that what is hashed is exactly what is stored.
    value: Dict[str, Any] = json.loads(json.dumps(fields))
    return value


def from_json(value: Any) -> Document:
    """Raises BadDocument for anything that `to_json` of a checked document can't have written."""
    if not isinstance(value, dict):
        raise BadDocument("a document is a JSON object")
    if value.get("format") != FORMAT:
        raise BadDocument("format %r; this registrar reads %d" % (value.get("format"), FORMAT))
    epoch = value.get("epoch")
    if not (isinstance(epoch, list) and len(epoch) == 2 and _is_count(epoch[0]) and isinstance(epoch[1], str)):
        raise BadDocument("epoch must be [number, run id]")
    plain = {key: item for key, item in value.items() if key not in ("format", "epoch", *_LISTS)}
    lists = {key: _values(kind, value.get(key, []), key) for key, kind in _LISTS.items()}
    document = _build(Document, dict(plain, epoch=Epoch(epoch[0], epoch[1]), **lists), "document")
    check(document)
    return document


_LISTS: Dict[str, Type[Any]] = {
    "endpoints": Endpoint, "checks": Check, "routes": Route, "records": Record,
    "certificates": Certificate,
}  # fmt: skip
T = TypeVar("T")


def _values(kind: Type[T], items: Any, field: str) -> Tuple[T, ...]:
    if not isinstance(items, list):
        raise BadDocument("%s must be a list" % field)
    return tuple(_build(kind, item, "%s[%d]" % (field, place)) for place, item in enumerate(items))


def _build(kind: Type[T], item: Any, place: str) -> T:
    if not isinstance(item, dict):
        raise BadDocument("%s must be an object" % place)
    known: Mapping[str, Any] = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in item:
        if key not in known:
            raise BadDocument("%s: unknown key %r" % (place, key))
    try:
        made = kind(**{key: _frozen(content) for key, content in item.items()})
    except TypeError as error:
        raise BadDocument("%s: %s" % (place, error)) from error
    for name, field in known.items():
        _check_type(getattr(made, name), str(field.type), "%s.%s" % (place, name))
    return made


def _frozen(content: Any) -> Any:
    return tuple(_frozen(part) for part in content) if isinstance(content, list) else content


def _check_type(content: Any, kind: str, place: str) -> None:
    wanted = {"str": str, "int": int, "bool": bool}.get(kind)
    if wanted is None:
        if kind.startswith("Tuple[str") and not all(isinstance(part, str) for part in content):
            raise BadDocument("%s must be a list of strings" % place)
        return
    if not isinstance(content, wanted) or (wanted is int and isinstance(content, bool)):
        raise BadDocument("%s must be %s" % (place, kind))
    if isinstance(content, str) and any(character in content for character in "\n\r\0"):
        raise BadDocument("%s holds a line break or NUL" % place)


def _is_count(content: Any) -> bool:
    return isinstance(content, int) and not isinstance(content, bool) and 0 <= content < 2**53


def check(document: Document) -> None:
    """Hold a document to its rules. Raises BadDocument naming the field."""
    _need(WORD.match(document.cluster), "cluster", document.cluster)
    _need(NAME.match(document.name), "name", document.name)
    _need(document.kind in ("gateway", "dns"), "kind", document.kind)
    _need(NAME.match(document.group), "group", document.group)
    _need(_is_count(document.seq), "seq", document.seq)
    for listed in (document.endpoints, document.checks, document.routes, document.records, document.certificates):
        _need(list(listed) == sorted(set(listed)), "order", "not sorted, or doubled")  # type: ignore[type-var]
    for endpoint in document.endpoints:
        _check_endpoint(endpoint)
    for probe in document.checks:
        _need(NAME.match(probe.app), "checks.app", probe.app)
        _need(probe.kind in ("http", "tcp", "none"), "checks.kind", probe.kind)
        _need(PATH.match(probe.path), "checks.path", probe.path)
        _need(NAME.match(probe.port_name), "checks.port_name", probe.port_name)
        for header in probe.headers:
            _need(_is_header(header), "checks.headers", header)
    for route in document.routes:
        _check_route(route)
    for record in document.records:
        _need(NAME.match(record.app), "records.app", record.app)
        _need(DOMAIN.match(record.name) and len(record.name) <= 253, "records.name", record.name)
        _need(record.type in ("address", "srv"), "records.type", record.type)
        for target in record.to:
            _need(_is_address(target), "records.to", target)
    _check_certificates(document)


def _check_endpoint(endpoint: Endpoint) -> None:
    _need(NAME.match(endpoint.app), "endpoints.app", endpoint.app)
    _need(_is_address(endpoint.ip), "endpoints.ip", endpoint.ip)
    _need(0 <= endpoint.port <= 65535, "endpoints.port", endpoint.port)
    _need(NAME.match(endpoint.port_name), "endpoints.port_name", endpoint.port_name)
    _need(endpoint.protocol in ("tcp", "udp"), "endpoints.protocol", endpoint.protocol)
    for part in (endpoint.node, endpoint.replica, endpoint.container):
        _need(part == "" or WORD.match(part), "endpoints", part)


def _check_certificates(document: Document) -> None:
    for certificate in document.certificates:
        _need(NAME.match(certificate.name), "certificates.name", certificate.name)
        _need(certificate.expires == "" or WORD.match(certificate.expires), "certificates.expires", certificate.expires)
        paths = (certificate.chain_path, certificate.key_path)
        if certificate.sha256:
            _need(SHA256.match(certificate.sha256) and paths == ("", ""), "certificates.sha256", certificate.sha256)
        else:
            _need(all(FILE.match(path) for path in paths), "certificates.chain_path", paths)
    names = [certificate.name for certificate in document.certificates]
    _need(len(names) == len(set(names)), "certificates.name", "one twice")
    for route in document.routes:
        _need(route.tls in ("", *names), "routes.tls", route.tls)


def _check_route(route: Route) -> None:
    _need(NAME.match(route.app), "routes.app", route.app)
    for domain in route.domains:
        _need(DOMAIN.match(domain) and len(domain) <= 253, "routes.domains", domain)
    _need(NAME.match(route.port_name), "routes.port_name", route.port_name)
    _need(PATH.match(route.prefix), "routes.prefix", route.prefix)
    _need(0 <= route.listen <= 65535, "routes.listen", route.listen)
    _need(route.protocol in ("tcp", "udp"), "routes.protocol", route.protocol)
    _need(-1 <= route.weight <= 1000000, "routes.weight", route.weight)
    _need(0 <= route.timeout_ms < 2**31, "routes.timeout_ms", route.timeout_ms)
    _need(0 <= route.retries <= 100, "routes.retries", route.retries)
    _need(route.balance in ("round-robin", "least-requests"), "routes.balance", route.balance)
    _need(route.affinity in ("none", "cookie", "address"), "routes.affinity", route.affinity)
    _need(route.upstream in ("http1", "h2c", "tls"), "routes.upstream", route.upstream)
    _need(route.redirect in ("", "https") or REDIRECT.match(route.redirect), "routes.redirect", route.redirect)


def _is_header(pair: Any) -> bool:
    """(name, value), neither with anything that could end its line."""
    if not (isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair)):
        return False
    return bool(re.match(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}\Z", pair[0]) and re.match(r"[ -~]{0,2000}\Z", pair[1]))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _need(truth: object, field: str, content: object) -> None:
    if not truth:
        raise BadDocument("%s: %r is not allowed" % (field, str(content)[:80]))


def clashes(mine: Document, others: List[Document]) -> List[str]:
    """What `mine` may not publish because another cluster already does: the same ip:port, or the same
    (domain, prefix) or listening port for another app. One sentence each, naming the owner."""
    found = []
    taken = {(e.ip, e.port, e.protocol): (o, e.app) for o in others for e in o.endpoints if e.port}
    for endpoint in mine.endpoints:
        owner = taken.get((endpoint.ip, endpoint.port, endpoint.protocol))
        if owner:
            found.append(
                "%s:%d of app %s is already published by cluster %s (%s) for app %s"
                % (endpoint.ip, endpoint.port, endpoint.app, owner[0].name, owner[0].cluster, owner[1])
            )
    routed = {key: (o, r.app) for o in others for r in o.routes for key in _route_keys(r)}
    for route in mine.routes:
        for key in _route_keys(route):
            holder = routed.get(key)
            if holder and holder[1] != route.app:
                found.append(
                    "route %s of app %s belongs to app %s of cluster %s (%s)"
                    % ("".join(map(str, key)), route.app, holder[1], holder[0].name, holder[0].cluster)
                )
    return found


def _route_keys(route: Route) -> List[Tuple[str, object]]:
    if route.listen:
        return [("port ", "%s%s" % (route.listen, "/udp" if route.protocol == "udp" else ""))]
    return [(domain, route.prefix) for domain in route.domains or ("*",)]
