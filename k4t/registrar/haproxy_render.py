"""HAProxy's configuration from the normal form of routes. Pure.

One file holds the structure (frontends, rules, backends) and the members of each backend (its `server` lines); hosts
and prefixes stand in maps, so that a request is looked up, not tried against every rule, and so that the running
process can be asked for them. Maps and lists of certificates are named by their content: the one file that names them
is what switches. Certificates keep their names: they are renewed in the running process. Source: HAProxy 2.6
configuration manual.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from .document import Check
from .haproxy_file import GENERATION, digest, quote, with_members
from .routing import ANY, Backend, Listen, Pool, Routing, Rule, Site

CONNECT_TIMEOUT_MS = 2000
ENDLESS_MS = 24 * 86_400_000  # HAProxy's clock ends at 24.8 days
HTTP_SOCKET, HTTPS_SOCKET = "abns@k4t-http", "abns@k4t-https"


@dataclasses.dataclass(frozen=True)
class Place:
    """What the host's set-up says. Ports are 0 where there is no listener; `own`: we start this HAProxy."""

    directory: str
    http: int = 0
    https: int = 0
    ipv6: bool = True
    own: bool = True

    def path(self, *parts: str) -> str:
        return "/".join([self.directory, *parts])

    @property
    def socket(self) -> str:
        return self.path("admin.sock")


@dataclasses.dataclass(frozen=True)
class Members:
    """A backend's servers: name (ip:port) to address. `options` are said again when one is added at run time."""

    servers: Mapping[str, str]
    options: str = ""
    cookie: str = ""
    check_timeout_ms: int = 0

    @property
    def checked(self) -> bool:
        return self.options.startswith("check ")


@dataclasses.dataclass(frozen=True)
class Leads:
    """A backend of HAProxy's: it knows retries (and, on ports of their own, the time-out) for all that it leads."""

    backend: Backend
    retries: int
    timeout_ms: int

    @property
    def name(self) -> str:
        return lead_name(self.backend.pool, self.retries, self.timeout_ms)


@dataclasses.dataclass(frozen=True)
class Rendered:
    """`structure` is the configuration without servers; `files`: path to text of what it names."""

    structure: str
    members: Mapping[str, Members]
    files: Mapping[str, str]
    problems: Tuple[str, ...] = ()

    @property
    def text(self) -> str:
        return with_members(self.structure, {name: found.servers for name, found in self.members.items()})


def lead_name(pool: Pool, retries: int, timeout_ms: int) -> str:
    """`web.main`, `web.main.r0`, `db.main.tcp.t3600000`: what isn't usual is said."""
    said = [pool.name]
    if retries != 1:
        said.append("r%d" % retries)
    if pool.protocol != "http" and timeout_ms != 60000:
        said.append("t%d" % timeout_ms)
    return ".".join(said)


def app_of(backend: str) -> str:
    """`web.main` of any backend's name: the same endpoints, whatever the settings."""
    return ".".join(backend.split(".")[:2])


def render(made: Routing, place: Place, pems: Mapping[str, str]) -> Rendered:
    """`pems`: certificate's name to the text of chain and key in one."""
    files: Dict[str, str] = {}
    paths = {name: place.path("certificates", name.replace("/", ".") + ".pem") for name in pems}
    files.update({paths[name]: text for name, text in pems.items()})
    leads = _leads(made)
    members = {lead.name: _members(lead.backend) for lead in leads}
    sections = [_defaults(), *_frontends(made, place, paths, files)]
    sections += [_listen(listen, place, paths) for listen in _tcp(made.listens)]
    sections += [_backend(lead, members[lead.name]) for lead in leads]
    if not place.own:
        sections += [_inner("k4t", HTTP_SOCKET, "http"), _inner("k4t_tls", HTTPS_SOCKET, "tcp")]
    body = "\n".join("\n".join(section) + "\n" for section in sections)
    return Rendered(_global(body, place) + "\n" + body, members, files)


# --- sections ------------------------------------------------------------------------------------------------


def _global(body: str, place: Place) -> str:
    return "\n".join(
        [
            "# Written by k4t: whatever is changed here is put back.",
            "global",
            "    setenv %s %s" % (GENERATION, digest(body)),
            "    stats socket %s mode 600 level admin expose-fd listeners" % place.socket,
            "",
        ]
    )


def _defaults() -> List[str]:
    return [
        "defaults k4t",
        "    mode http",
        "    timeout connect %dms" % CONNECT_TIMEOUT_MS,
        "    timeout client 5m",
        "    timeout server 60s",
        "    timeout http-request 30s",
        "    timeout http-keep-alive 60s",
        "    option redispatch 1",
    ]


def _binds(place: Place, port: int, more: str = "") -> List[str]:
    found = ["    bind 0.0.0.0:%d%s" % (port, more)]
    return [*found, "    bind [::]:%d v6only%s" % (port, more)] if place.ipv6 else found


def _frontends(made: Routing, place: Place, pems: Mapping[str, str], files: Dict[str, str]) -> List[List[str]]:
    found = []
    if place.http or not place.own:
        binds = _binds(place, place.http) if place.own else ["    bind %s accept-proxy" % HTTP_SOCKET]
        found.append(["frontend k4t_http from k4t", *binds, *_rules(made.http, "http", place, files)])
    if made.https and (place.https or not place.own):
        crt = " ssl crt-list %s" % _crt_list(made.https, place, pems, files)
        crt += " ssl-min-ver TLSv1.2 alpn h2,http/1.1"
        if not any(site.domain == ANY for site in made.https):
            crt += " strict-sni"
        own = _binds(place, place.https, crt) if place.own else ["    bind %s accept-proxy%s" % (HTTPS_SOCKET, crt)]
        found.append(["frontend k4t_https from k4t", *own, *_rules(made.https, "https", place, files)])
    return found


def _crt_list(sites: Sequence[Site], place: Place, pems: Mapping[str, str], files: Dict[str, str]) -> str:
    """The one of `*` first: HAProxy takes it for names that no other is for.

    HAProxy's own wildcards stand for one label only. So a certificate of a wildcard is listed once more, last and
    without names: then it also serves what it is made out for.
    """
    ordered = sorted(sites, key=lambda site: site.domain != ANY)
    named = [(site, pems[site.certificate.name]) for site in ordered if site.certificate]
    lines = [path if site.domain == ANY else "%s %s" % (path, site.domain) for site, path in named]
    for site, path in named:
        if site.domain.startswith("*.") and path not in lines:
            lines.append(path)
    return _named(files, place, "maps/%s.crt-list", "\n".join(lines) + "\n")


def _rules(sites: Sequence[Site], scheme: str, place: Place, files: Dict[str, str]) -> List[str]:
    """A host becomes a site, site and path a rule: the words of its line in the map (see `_value`)."""
    hosts = [site.domain for site in sites if site.domain != ANY and not site.domain.startswith("*.")]
    wild = [site.domain for site in sites if site.domain.startswith("*.")]
    default = ",%s" % ANY if any(site.domain == ANY for site in sites) else ""
    rules = {site.domain + rule.prefix: rule for site in sites for rule in site.rules}
    maps = {
        "hosts": "".join("%s %s\n" % (host, host) for host in hosts),
        "wildcards": "".join("%s %s\n" % (domain[1:], domain) for domain in wild),
        "rules": "".join("%s %s\n" % (key, _value(rules[key])) for key in sorted(rules)),
    }
    path = {kind: _named(files, place, "maps/%s-%s-%%s.map" % (scheme, kind), text) for kind, text in maps.items()}
    host = "req.hdr(host),host_only,lower"
    # A foreign HAProxy's own side has said it already.
    proto = [] if scheme == "http" and not place.own else ["    http-request set-header X-Forwarded-Proto %s" % scheme]
    return [
        *proto,
        "    http-request set-header X-Forwarded-For '%%[req.fhdr(x-forwarded-for)], %%[src]' if %s" % FORWARDED_ONCE,
        "    http-request add-header X-Forwarded-For %%[src] unless %s" % FORWARDED_ONCE,
        "    http-request set-var(txn.path) path",
        "    http-request set-var(txn.site) %s,map_str(%s)" % (host, path["hosts"]),
        "    http-request set-var(txn.site) %s,map_end(%s%s) unless { var(txn.site) -m found }"
        % (host, path["wildcards"], default),
        "    http-request set-var(txn.rule) var(txn.site),concat(,txn.path),map_beg(%s)" % path["rules"],
        "    http-request return status 404 unless { var(txn.rule) -m found }",
        *(
            "    http-request set-var(txn.%s) \"var(txn.rule),field(%d,' ')\"" % (name, place_)
            for name, place_ in FIELDS
        ),
        "    http-request redirect code 301 location https://%%[req.hdr(host),host_only]%s%%[pathq] if "
        "{ var(txn.to) -m str =https }" % (":%d" % place.https if place.https not in (0, 443) else ""),
        "    http-request redirect code 302 location %[var(txn.strip)] if { var(txn.to) -m str =location }",
        *_strips(rules.values()),
        *_splits(rules.values()),
        "    use_backend %[var(txn.to)]",
    ]


FORWARDED_ONCE = "{ req.fhdr_cnt(x-forwarded-for) eq 1 }"
FIELDS = (("to", 1), ("timeout", 2), ("strip", 3))


def _value(rule: Rule) -> str:
    """`BACKEND TIMEOUT_MS [PREFIX TO STRIP]`, `=https`, or `=location - LOCATION`."""
    if rule.redirect:
        return "=https" if rule.redirect == "https" else "=location - %s" % rule.redirect
    value = "%s %d" % (_to(rule), rule.timeout_ms or ENDLESS_MS)
    return "%s %s" % (value, rule.prefix) if rule.strip_prefix else value


def _to(rule: Rule) -> str:
    """A backend's name, or a split's: `web.main=9/blue.main=1`."""
    shares = [(lead_name(target.pool, rule.retries, rule.timeout_ms), target.weight) for target in rule.targets]
    return shares[0][0] if len(shares) == 1 else "/".join("%s=%d" % share for share in shares)


def _strips(rules: Iterable[Rule]) -> List[str]:
    found = sorted({rule.prefix for rule in rules if rule.strip_prefix and not rule.redirect})
    return [
        "    http-request replace-path %s '/\\1' if { var(txn.strip) -m str %s }"
        % (quote("^%s/?(.*)$" % re.escape(prefix.rstrip("/"))), quote(prefix))
        for prefix in found
    ]


def _splits(rules: Iterable[Rule]) -> List[str]:
    """One throw a request; the first share that it falls into takes the request out of the split."""
    lines: List[str] = []
    for rule in sorted({_to(rule): rule for rule in rules if len(rule.targets) > 1}.items()):
        said, targets = "{ var(txn.to) -m str %s }" % rule[0], rule[1].targets
        lines.append(
            "    http-request set-var(txn.throw) rand(%d) if %s" % (sum(target.weight for target in targets), said)
        )
        below = 0
        for target in targets:
            below += target.weight
            name = lead_name(target.pool, rule[1].retries, rule[1].timeout_ms)
            lines.append(
                "    http-request set-var(txn.to) str(%s) if %s { var(txn.throw) -m int lt %d }" % (name, said, below)
            )
    return lines


def _listen(listen: Listen, place: Place, pems: Mapping[str, str]) -> List[str]:
    tls = listen.certificate
    more = " ssl crt %s ssl-min-ver TLSv1.2" % pems[tls.name] if tls else ""
    return [
        "frontend k4t_tcp_%d from k4t" % listen.port,
        "    mode tcp",
        *_binds(place, listen.port, more),
        "    timeout client %dms" % (listen.timeout_ms or ENDLESS_MS),
        "    default_backend %s" % lead_name(listen.pool, listen.retries, listen.timeout_ms),
    ]


def _inner(name: str, socket: str, mode: str) -> List[str]:
    """What a foreign HAProxy sends to: our own listener, over a socket that only this host has."""
    lines = ["backend %s from k4t" % name, "    mode %s" % mode, "    timeout server %dms" % ENDLESS_MS]
    if mode == "http":
        lines.append("    http-request set-header X-Forwarded-Proto %[ssl_fc,iif(https,http)]")
    return [*lines, "    server inner %s send-proxy-v2" % socket]


# --- backends ------------------------------------------------------------------------------------------------


def _tcp(listens: Iterable[Listen]) -> List[Listen]:
    return [listen for listen in listens if listen.pool.protocol == "tcp"]


def _leads(made: Routing) -> List[Leads]:
    """One a (pool, retries); of ports of their own also by time-out; and one a pool that nothing leads to."""
    backends = {backend.pool: backend for backend in made.backends}
    wanted = {
        (target.pool, rule.retries, 60000)
        for sites in (made.http, made.https)
        for site in sites
        for rule in site.rules
        for target in rule.targets
    }
    wanted |= {(listen.pool, listen.retries, listen.timeout_ms) for listen in _tcp(made.listens)}
    idle = set(backends) - {pool for pool, _, _ in wanted}
    wanted |= {(pool, 1, 60000) for pool in idle if pool.protocol != "udp"}
    return [Leads(backends[pool], retries, timeout_ms) for pool, retries, timeout_ms in sorted(wanted)]


def _members(backend: Backend) -> Members:
    servers = {
        "%s:%d" % (endpoint.ip, endpoint.port): address(endpoint.ip, endpoint.port) for endpoint in backend.endpoints
    }
    pool, check = backend.pool, backend.check
    said = ["check inter %dms fall %d rise 1" % (check.interval_ms, check.retries)] if check else []
    secure = "ssl verify none check-ssl" if check else "ssl verify none"
    said += {"h2c": ["proto h2"], "tls": [secure]}.get(pool.upstream, [])
    cookie = pool.cookie if pool.affinity == "cookie" else ""
    return Members(servers, " ".join(said), cookie, check.timeout_ms if check else 0)


def address(ip: str, port: int) -> str:
    return "[%s]:%d" % (ip, port) if ":" in ip else "%s:%d" % (ip, port)


def _backend(lead: Leads, members: Members) -> List[str]:
    pool, check = lead.backend.pool, lead.backend.check
    lines = ["backend %s from k4t" % lead.name]
    if pool.protocol == "http":
        lines += ["    http-request set-timeout %s var(txn.timeout)" % side for side in ("server", "tunnel")]
    else:
        lines += ["    mode tcp", "    timeout server %dms" % (lead.timeout_ms or ENDLESS_MS)]
    if pool.affinity == "address":
        lines += ["    balance source", "    hash-type consistent"]
    else:
        lines.append("    balance %s" % ("leastconn" if pool.balance == "least-requests" else "roundrobin"))
    lines.append("    retries %d" % lead.retries)
    if members.cookie:
        lines += ["    cookie %s insert indirect nocache httponly dynamic" % members.cookie]
        lines += ["    dynamic-cookie-key %s" % COOKIE_KEY]
    lines += _check(check, app_of(lead.name))
    return [*lines, ("    default-server %s" % members.options).rstrip()]


COOKIE_KEY = "k4t"
"""Cookies say a hash of the endpoint's address: the same on every gateway, and after every restart."""


def _check(check: Optional[Check], host: str) -> List[str]:
    if check is None:
        return []
    lines = ["    timeout check %dms" % check.timeout_ms]
    if check.kind != "http":
        return lines
    headers = list(check.headers)
    if not any(name.lower() == "host" for name, _ in headers):
        headers.insert(0, ("Host", host))
    said = "".join(" hdr %s %s" % (quote(name), quote(value.replace("%", "%%"))) for name, value in headers)
    return [
        *lines,
        "    option httpchk",
        "    http-check send meth GET uri %s ver HTTP/1.1%s" % (quote(check.path), said),
        "    http-check expect status %d-%d" % (check.status_min, check.status_max),
    ]


def _named(files: Dict[str, str], place: Place, pattern: str, text: str) -> str:
    path = place.path(pattern % digest(text))
    files[path] = text
    return path
