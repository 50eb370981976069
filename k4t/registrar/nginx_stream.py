"""nginx's stream module: ports of their own, TCP and UDP. Pure. Source: stream_* of nginx.org/en/docs."""

from __future__ import annotations

from typing import List, Mapping

from . import nginx_text as text
from .nginx_render import upstream_name
from .nginx_text import Place, block, silence
from .routing import Backend, Listen, Pool, Routing


def stream(made: Routing, place: Place) -> List[str]:
    """What goes into a `stream` block."""
    led_to = {listen.pool for listen in made.listens}
    backends = {backend.pool: backend for backend in made.backends if backend.pool in led_to and backend.endpoints}
    lines = [text.HEAD]
    zone = text.zone("k4t_stream", list(backends.values()))
    for pool, backend in backends.items():
        lines += block("upstream %s" % upstream_name(pool), [zone, *_balance(pool), *_members(backend)])
        zone = "zone k4t_stream;"
    for listen in made.listens:
        lines += block("server", _server(listen, backends, place))
    return lines


def _balance(pool: Pool) -> List[str]:
    if pool.affinity != "none":
        return ["hash $remote_addr consistent;"]
    return ["least_conn;"] if pool.balance == "least-requests" else []


def _members(backend: Backend) -> List[str]:
    return text.members(backend, hashed=backend.pool.affinity != "none")


def _server(listen: Listen, backends: Mapping[Pool, Backend], place: Place) -> List[str]:
    """UDP: a socket a worker, so that all packets of a client come to the same one."""
    udp = listen.pool.protocol == "udp"
    words = " udp reuseport" if udp else " ssl" if listen.certificate else ""
    lines = text.listens(listen.port, words, ipv6=place.ipv6)
    lines += text.certificate(listen.certificate) if listen.certificate else []
    if listen.pool not in backends:
        return [*lines, 'return "";']
    secured = ["proxy_ssl on;", "proxy_ssl_protocols TLSv1.2 TLSv1.3;"] if listen.pool.upstream == "tls" else []
    return [
        *lines,
        "proxy_pass %s;" % upstream_name(listen.pool),
        "proxy_connect_timeout %dms;" % text.connect_ms(listen.timeout_ms, listen.retries),
        "proxy_timeout %s;" % silence(listen.timeout_ms),
        "proxy_next_upstream on;",
        "proxy_next_upstream_tries %d;" % (listen.retries + 1),
        *secured,
    ]
