"""nginx 1.22 or newer: upstreams, servers and locations from the normal form of routes. Pure.

Sources: the modules http_core, upstream, proxy, map, split_clients, realip of nginx.org/en/docs.
"""

from __future__ import annotations

import re
from typing import Dict, Iterable, List, Optional, Sequence, Tuple, TypeVar

from . import nginx_text as text
from .nginx_text import INDENT, Place, block, quoted, silence
from .routing import ANY, Backend, Pool, Routing, Rule, Site, Target

K = TypeVar("K")
CLIENT = "X-K4t-Client"
Targets = Tuple[Target, ...]

HTTP = (
    "client_max_body_size 0;",
    "client_body_timeout 1h;",
    "send_timeout 1h;",
    "large_client_header_buffers 4 32k;",
    "underscores_in_headers on;",
    "merge_slashes off;",
    "absolute_redirect off;",
    "proxy_http_version 1.1;",
    "proxy_buffering off;",
    "proxy_request_buffering off;",
    "proxy_buffer_size 32k;",
    "proxy_buffers 8 32k;",
    "proxy_redirect off;",
    "proxy_ignore_headers X-Accel-Redirect X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Charset;",
    "proxy_pass_header Date;",
    "proxy_pass_header Server;",
    "proxy_set_header Host $http_host;",
    "proxy_set_header Upgrade $k4t_upgrade;",
    "proxy_set_header Connection $k4t_connection;",
)
"""Streams in both directions, as long as the app and the client like."""
FORWARDED = (
    "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    "proxy_set_header X-Forwarded-Proto $scheme;",
)
APPS = (
    "proxy_next_upstream error timeout;",
    "proxy_ssl_protocols TLSv1.2 TLSv1.3;",
    "error_page 502 = @k4t_unavailable;",
    "error_page 504 = @k4t_late;",
)


def _upgrades(otherwise: str) -> List[str]:
    """`otherwise`: Connection for what is no WebSocket."""
    upgrade = block("map $http_upgrade $k4t_upgrade", ['default "";', "~*^websocket$ websocket;"])
    return upgrade + block("map $k4t_upgrade $k4t_connection", ['default "%s";' % otherwise, "websocket upgrade;"])


UNAVAILABLE = tuple(block("location @k4t_unavailable", ["return 503;"]))
LATE = tuple(
    block(
        "location @k4t_late", ['if ($upstream_connect_time !~ "[0-9]$") {', INDENT + "return 503;", "}", "return 504;"]
    )
)
"""No connection within the time is no answer that took too long."""


def upstream_name(pool: Pool) -> str:
    return "k4t." + pool.name


def http(made: Routing, place: Place) -> List[str]:
    """What goes into an `http` block: of the router behind our own front, or of the operator's nginx."""
    names = _Names(made)
    lines = [text.HEAD, *_upgrades(""), *names.maps(), *_upstreams(names.backends)]
    if place.own:
        trusted = ["set_real_ip_from unix:;", "real_ip_header %s;" % CLIENT]
        lines += [*HTTP, *APPS, *trusted, 'proxy_set_header %s "";' % CLIENT]
    if place.own or place.http:
        lines += _sites(made.http, names, place, secure=False)
    if made.https and (place.own or place.https):
        lines += _sites(made.https, names, place, secure=True)
    return lines


def _upstreams(backends: Sequence[Backend]) -> List[str]:
    lines: List[str] = []
    for backend in backends:
        if backend.endpoints:
            pool = backend.pool
            how = _balance(pool)
            kept = ["keepalive 64;", "keepalive_timeout 1s;"]
            members = text.members(backend, hashed=pool.affinity != "none")
            zone = text.zone("k4t_http", backends) if not lines else "zone k4t_http;"
            lines += block("upstream %s" % upstream_name(pool), [zone, *how, *members, *kept])
    return lines


def _balance(pool: Pool) -> List[str]:
    if pool.affinity == "cookie":
        return ["hash $%s consistent;" % _key(pool)]
    if pool.affinity == "address":
        return ["hash $remote_addr consistent;"]
    return ["least_conn;"] if pool.balance == "least-requests" else []


def _key(pool: Pool) -> str:
    return "key_" + pool.cookie


def _set(pool: Pool) -> str:
    return "set_" + pool.cookie


class _Names:
    """What rules share: the backends they lead to, splits by their targets, stripped prefixes, each once."""

    def __init__(self, made: Routing) -> None:
        self.rules = [rule for sites in (made.http, made.https) for site in sites for rule in site.rules]
        led_to = {target.pool for rule in self.rules for target in rule.targets}
        self.backends = [backend for backend in made.backends if backend.pool in led_to]
        self.served = {backend.pool for backend in self.backends if backend.endpoints}
        splits = sorted(
            {r.targets for r in self.rules if len(r.targets) > 1}, key=lambda ts: [(t.pool, t.weight) for t in ts]
        )
        self.splits = _numbered("k4t_split_%d", splits)
        self.strips = _numbered("k4t_strip_%d", sorted({rule.prefix for rule in self.rules if rule.strip_prefix}))

    def maps(self) -> List[str]:
        lines: List[str] = []
        for prefix, name in self.strips.items():
            fits = quoted("~^%s/?(.*)$" % re.escape(prefix.rstrip("/")))
            lines += block("map $request_uri $%s" % name, ['default "";', '%s "/$1";' % fits])
        bound = {backend.pool.cookie: backend.pool for backend in self.backends if backend.pool.affinity == "cookie"}
        for cookie, pool in sorted(bound.items()):
            given = '"%s=$request_id; Path=/; HttpOnly"' % cookie
            lines += block(
                "map $cookie_%s $%s" % (cookie, _key(pool)), ["default $cookie_%s;" % cookie, '"" $request_id;']
            )
            lines += block("map $cookie_%s $%s" % (cookie, _set(pool)), ['default "";', '"" %s;' % given])
        for targets, name in self.splits.items():
            lines += block('split_clients "$request_id" $%s' % name, self._shares(targets))
            cookies = ['"%s" $%s;' % (self.url(t.pool), _set(t.pool)) for t in targets if t.pool.affinity == "cookie"]
            lines += block("map $%s $%s_set" % (name, name), ['default "";', *cookies]) if cookies else []
        return lines

    def _shares(self, targets: Targets) -> List[str]:
        """In hundredths of a percent, as nginx counts; the largest has what the others leave."""
        total = sum(target.weight for target in targets)
        largest = max(targets, key=lambda target: target.weight)
        lines = []
        for target in targets:
            hundredths = max(1, round(10000 * target.weight / total))
            said = "*" if target is largest else "%d.%02d%%" % divmod(hundredths, 100)
            lines.append('%s "%s";' % (said, self.url(target.pool)))
        return sorted(lines, key=lambda line: line.startswith("*"))

    def url(self, pool: Pool) -> str:
        """ "" for one without endpoints."""
        scheme = "https" if pool.upstream == "tls" else "http"
        return "%s://%s" % (scheme, upstream_name(pool)) if pool in self.served else ""


def _numbered(form: str, keys: Iterable[K]) -> Dict[K, str]:
    return {key: form % place for place, key in enumerate(keys, 1)}


# --- servers -----------------------------------------------------------------------------------------------------


def _sites(sites: Sequence[Site], names: _Names, place: Place, *, secure: bool) -> List[str]:
    lines: List[str] = []
    if place.own and not any(site.domain == ANY for site in sites):
        lines += _server(Site(ANY, ()), names, place, secure=secure)
    for site in sites:
        lines += _server(site, names, place, secure=secure)
    return lines


def _server(site: Site, names: _Names, place: Place, *, secure: bool) -> List[str]:
    name = '""' if site.domain == ANY else site.domain
    lines = [*_listen(site, place, secure=secure), "server_name %s;" % name]
    if not place.own:
        lines += [*HTTP, *APPS, *FORWARDED]
        lines += text.certificate(site.certificate) if site.certificate else []
    for prefix, rule in _decoded(site.rules).items():
        lines += block("location %s" % quoted(prefix), _action(rule, names, place))
        lines += _without_slash(rule, site, names, place)
    if not any(rule.prefix == "/" for rule in site.rules):
        lines += block("location /", ["return 404;"])
    return block("server", [*lines, *UNAVAILABLE, *LATE])


def _decoded(rules: Sequence[Rule]) -> Dict[str, Rule]:
    """Of several prefixes that are one to nginx, the first."""
    found: Dict[str, Rule] = {}
    for rule in rules:
        found.setdefault(text.decoded(rule.prefix), rule)
    return found


def _listen(site: Site, place: Place, *, secure: bool) -> List[str]:
    first = " default_server" if site.domain == ANY else ""
    if place.own:
        backlog = first + " backlog=4096" if first else ""
        return ["listen %s%s;" % (place.socket("https" if secure else "http"), backlog)]
    words = " ssl http2" if secure else ""
    return text.listens(place.https if secure else place.http, words + first, ipv6=place.ipv6)


def _without_slash(rule: Rule, site: Site, names: _Names, place: Place) -> List[str]:
    """nginx would send a client from /x to /x/ by itself."""
    bare = rule.prefix[:-1]
    if not rule.prefix.endswith("/") or not bare:
        return []
    wider = next((other for other in site.rules if bare.startswith(other.prefix)), None)
    return block("location = %s" % quoted(text.decoded(bare)), _action(wider, names, place))


def _action(rule: Optional[Rule], names: _Names, place: Place) -> List[str]:
    if rule is None:
        return ["return 404;"]
    if rule.redirect == "https":
        port = "" if place.https in (0, 443) else ":%d" % place.https
        return ["return 301 https://$host%s$request_uri;" % port]
    if rule.redirect:
        return ["return 302 %s;" % quoted(rule.redirect)]
    if not any(target.pool in names.served for target in rule.targets):
        return ["return 503;"]
    return [*_guards(rule, names), *_proxy(rule, names)]


def _guards(rule: Rule, names: _Names) -> List[str]:
    lines: List[str] = []
    if rule.strip_prefix:  # a path that fits the prefix only once it is normalised
        lines += block('if ($%s = "")' % names.strips[rule.prefix], ["return 404;"])
    if any(target.pool not in names.served for target in rule.targets):
        lines += block('if ($%s = "")' % names.splits[rule.targets], ["return 503;"])
    return lines


def _proxy(rule: Rule, names: _Names) -> List[str]:
    split = names.splits.get(rule.targets)
    pool = rule.targets[0].pool
    where = "$" + split if split else names.url(pool)
    path = "$" + names.strips[rule.prefix] if rule.strip_prefix else ""
    patience = silence(rule.timeout_ms)
    lines = [
        "proxy_pass %s%s;" % (where, path),
        "proxy_connect_timeout %dms;" % text.connect_ms(rule.timeout_ms, rule.retries),
        "proxy_read_timeout %s;" % patience,
        "proxy_send_timeout %s;" % patience,
        "proxy_next_upstream_tries %d;" % (rule.retries + 1),
        # What was silent for that long was connected to: it isn't asked of another.
        "proxy_next_upstream_timeout %s;" % patience,
    ]
    bound = any(target.pool.affinity == "cookie" for target in rule.targets)
    given = "$%s_set" % split if split else "$" + _set(pool)
    return [*lines, "add_header Set-Cookie %s always;" % given] if bound else lines


# --- the front -----------------------------------------------------------------------------------------------------


def front(made: Routing, place: Place) -> List[str]:
    """Clients' connections, and TLS. It hands requests on to the router, and stays when that is loaded anew."""
    onward = ["proxy_read_timeout %s;" % text.FOREVER, "proxy_send_timeout %s;" % text.FOREVER]
    onward += ["proxy_connect_timeout 5s;", "proxy_next_upstream off;", "error_page 502 504 = @k4t_unavailable;"]
    lines = [text.HEAD, *_upgrades("close"), *HTTP, *FORWARDED, "proxy_set_header %s $remote_addr;" % CLIENT, *onward]
    if place.http:
        lines += _door(place, place.http, "http", " default_server backlog=4096", [])
    if place.https and made.https:
        if not any(site.domain == ANY for site in made.https):
            lines += _door(
                place, place.https, "https", " ssl http2 default_server backlog=4096", ["ssl_reject_handshake on;"]
            )
        for site in made.https:
            first = " default_server backlog=4096" if site.domain == ANY else ""
            named = [] if first else ["server_name %s;" % site.domain]
            pair = text.certificate(site.certificate) if site.certificate else []
            lines += _door(place, place.https, "https", " ssl http2" + first, [*named, *pair])
    return lines


def _door(place: Place, port: int, socket: str, words: str, more: Sequence[str]) -> List[str]:
    onward = block("location /", ["proxy_pass http://%s;" % place.socket(socket)])
    return block("server", [*text.listens(port, words, ipv6=place.ipv6), *more, *onward, *UNAVAILABLE])
