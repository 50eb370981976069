"""Which drivers there are. Each is loaded only when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Mapping

from .errors import BadRequest
from .vendor import Vendor

VENDORS = {
    "envoy": ("envoy", "Envoy"),
    "haproxy": ("haproxy", "HAProxy"),
    "nginx": ("nginx", "Nginx"),
    "dnsmasq": ("dnsmasq", "Dnsmasq"),
    "hosts": ("hosts", "Hosts"),
    "script": ("script", "Script"),
    "dnsscript": ("script", "DnsScript"),
}
"""Its module beside this one, and its class there."""


def make(driver: str, root: str, config: Mapping[str, Any]) -> Vendor:
    if driver not in VENDORS:
        raise BadRequest("no such driver: %r; there are %s" % (driver[:40], ", ".join(sorted(VENDORS))))
    module, name = VENDORS[driver]
    made: Vendor = getattr(import_module("." + module, __package__), name)(root, config)
    return made
