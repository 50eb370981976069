"""The language of nginx's configuration: words, blocks, durations. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from typing import Iterable, List, Sequence
from urllib.parse import unquote_to_bytes

from .document import Endpoint
from .routing import Backend, Certificate

FOREVER = "24d"  # what is said in milliseconds has 31 bits
CONNECT_MS = 2000
FAIL_TIMEOUT = "5s"
INDENT = "    "
MEMBERSHIP = re.compile(r"server [\d[]|zone |return 200 ")
HEAD = "# Written by k4t, and written again: what is changed here by hand is lost."


@dataclasses.dataclass(frozen=True)
class Place:
    """`run`: directory of our sockets. `own`: nobody else's nginx; `status`: where it says its generation."""

    run: str
    http: int = 80
    https: int = 443
    ipv6: bool = True
    own: bool = True
    status: str = ""

    def socket(self, name: str) -> str:
        return "unix:%s/%s.sock" % (self.run, name)


def block(head: str, lines: Iterable[str]) -> List[str]:
    return [head + " {", *(INDENT + line for line in lines), "}"]


def quoted(text: str) -> str:
    return '"%s"' % text.replace("\\", "\\\\").replace('"', '\\"')


def text_of(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"


def matter(text: str) -> str:
    """Without comments and empty lines: what nginx can tell apart."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def structure(text: str) -> str:
    """What matters, but for who serves and what follows from that: nothing that nginx could have anything against."""
    return "\n".join(line for line in matter(text).splitlines() if not MEMBERSHIP.match(line))


def generation(*texts: str) -> str:
    return hashlib.sha256("\n\n".join(matter(text) for text in texts).encode()).hexdigest()[:16]


def status_server(listen: str, said: str) -> List[str]:
    """What the running workers answer when they are asked which configuration they have."""
    lines = ["listen %s;" % listen, "access_log off;", "keepalive_timeout 0;"]
    return block("server", [*lines, *block("location = /generation", ["return 200 %s;" % said])])


def silence(timeout_ms: int) -> str:
    return "%dms" % timeout_ms if timeout_ms else FOREVER


def connect_ms(timeout_ms: int, retries: int) -> int:
    """So that all the tries fit into a short timeout."""
    return min(CONNECT_MS, max(50, timeout_ms // (retries + 1))) if timeout_ms else CONNECT_MS


def address(endpoint: Endpoint) -> str:
    return ("[%s]:%d" if ":" in endpoint.ip else "%s:%d") % (endpoint.ip, endpoint.port)


def listens(port: int, words: str, *, ipv6: bool) -> List[str]:
    made = ["listen %d%s;" % (port, words)]
    return [*made, "listen [::]:%d%s;" % (port, words)] if ipv6 else made


def certificate(found: Certificate) -> List[str]:
    lines = ["ssl_certificate %s;" % quoted(found.chain_path), "ssl_certificate_key %s;" % quoted(found.key_path)]
    return [*lines, "ssl_protocols TLSv1.2 TLSv1.3;"]


def members(backend: Backend, *, hashed: bool) -> List[str]:
    """A member that can't be connected to is left out for a moment. Only what real requests met is known, so when all
    are left out they are tried all the same (`backup`; a hashed upstream can't have any: there it takes more)."""
    found = [address(endpoint) for endpoint in backend.endpoints]
    if hashed:
        return ["server %s max_fails=3 fail_timeout=1s;" % one for one in found]
    lines = ["server %s max_fails=1 fail_timeout=%s;" % (one, FAIL_TIMEOUT) for one in found]
    return lines + ["server %s max_fails=0 backup;" % one for one in found]


def zone(name: str, backends: Sequence[Backend]) -> str:
    """Workers count together. One zone for all upstreams; 1 KiB a member is plenty."""
    count = sum(2 * len(backend.endpoints) + 2 for backend in backends)
    return "zone %s %dk;" % (name, 256 * (1 + count // 256))


def decoded(prefix: str) -> str:
    """nginx compares a decoded path."""
    return re.sub("(?:%[0-9A-Fa-f]{2})+", lambda found: _plain(found.group()), prefix)


def _plain(encoded: str) -> str:
    text = unquote_to_bytes(encoded).decode("utf-8", "replace")
    return text if text.isprintable() else encoded
