"""Which drivers there are. Each is loaded only when it is asked for."""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping

from .errors import BadRequest
from .vendor import Vendor


def _envoy(root: str, config: Mapping[str, Any]) -> Vendor:
    from .envoy import Envoy

    return Envoy(root, config)


def _haproxy(root: str, config: Mapping[str, Any]) -> Vendor:
    from .haproxy import HAProxy

    return HAProxy(root, config)


def _nginx(root: str, config: Mapping[str, Any]) -> Vendor:
    from .nginx import Nginx

    return Nginx(root, config)


def _dnsmasq(root: str, config: Mapping[str, Any]) -> Vendor:
    from .dnsmasq import Dnsmasq

    return Dnsmasq(root, config)


def _hosts(root: str, config: Mapping[str, Any]) -> Vendor:
    from .hosts import Hosts

    return Hosts(root, config)


def _script(root: str, config: Mapping[str, Any]) -> Vendor:
    from .script import Script

    return Script(root, config)


def _dnsscript(root: str, config: Mapping[str, Any]) -> Vendor:
    from .script import DnsScript

    return DnsScript(root, config)


VENDORS: Dict[str, Callable[[str, Mapping[str, Any]], Vendor]] = {
    "envoy": _envoy,
    "haproxy": _haproxy,
    "nginx": _nginx,
    "dnsmasq": _dnsmasq,
    "hosts": _hosts,
    "script": _script,
    "dnsscript": _dnsscript,
}


def make(driver: str, root: str, config: Mapping[str, Any]) -> Vendor:
    try:
        return VENDORS[driver](root, config)
    except KeyError:
        raise BadRequest("no such driver: %r; there are %s" % (driver[:40], ", ".join(sorted(VENDORS)))) from None
