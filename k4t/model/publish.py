"""What is published of an app: routes on gateways, with their certificates, and records in DNS."""

from __future__ import annotations

from typing import Literal

from k4t.model.shared import NOWHERE, Where
from k4t.model.value import value


@value
class Route:
    """HTTP (`domains`, `prefix`) or L4 (`listen`, a port on the gateways). No domain means any."""

    port: str = ""
    domains: tuple[str, ...] = ()
    prefix: str = "/"
    listen: int | None = None
    tls: str = ""
    redirect: str = ""
    strip_prefix: bool = False
    weight: int | None = None
    timeout_s: float = 60.0
    retries: int = 1
    balance: Literal["round-robin", "least-requests"] = "round-robin"
    affinity: Literal["none", "cookie", "address"] = "none"
    upstream: Literal["http1", "h2c", "tls"] = "http1"
    group: str = "default"
    where: Where = NOWHERE


@value
class Record:
    """`to` empty: the app's endpoints; else literal addresses, or "addresses" for the gateways' own."""

    name: str
    type: Literal["address", "srv"] = "address"
    port: str = ""
    to: tuple[str, ...] = ()
    ttl_s: int = 30
    group: str = "default"
    where: Where = NOWHERE


def srv_name(name: str, port_name: str, protocol: str) -> str:
    """`_http._tcp.web` for port http of web (RFC 2782); a name that begins with `_` says it all itself."""
    return name if name.startswith("_") else f"_{port_name}._{protocol}.{name}"


@value
class Certificate:
    """Files in the tree (`chain`, `key_secret`) or files already on the gateways (`chain_path`, `key_path`).

    Of the chain in the tree: its hash, until when its first certificate is valid (RFC 3339 UTC), and for which names.
    """

    name: str
    chain: str = ""
    key_secret: str = ""
    chain_path: str = ""
    key_path: str = ""
    sha256: str = ""
    expires: str = ""
    domains: tuple[str, ...] = ()
    where: Where = NOWHERE
