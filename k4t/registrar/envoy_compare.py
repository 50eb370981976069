"""What Envoy serves otherwise than it was told, one sentence each."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence

from .envoy_admin import Pair

HIDDEN = "[redacted]"


def _named(what: str, wanted: Mapping[str, Any], served: Mapping[str, Any]) -> List[str]:
    found = ["%s %s is not served" % (what, name) for name in sorted(set(wanted) - set(served))]
    found += ["%s %s is served but not published" % (what, name) for name in sorted(set(served) - set(wanted))]
    for name in sorted(set(wanted) & set(served)):
        if wanted[name] != served[name]:
            keys = sorted(k for k in {*wanted[name], *served[name]} if wanted[name].get(k) != served[name].get(k))
            found.append("%s %s is served with another %s" % (what, name, ", ".join(keys)))
    return found


def clusters(wanted: Sequence[Any], served: Mapping[str, Any]) -> List[str]:
    return _named("cluster", _by_name(wanted), served)


def listeners(wanted: Sequence[Any], served: Mapping[str, Any]) -> List[str]:
    """Of ours alone. Envoy shows no path of a private key; both sides are compared without."""
    ours = {name: _without_keys(listener) for name, listener in served.items() if name.startswith("k4t_")}
    return _named("listener", {name: _without_keys(one) for name, one in _by_name(wanted).items()}, ours)


def routes(wanted: Mapping[str, Any], served: Optional[Mapping[str, Any]]) -> List[str]:
    if served is None:
        return ["no listener of Envoy reads k4t's routes (%s)" % wanted["name"]]
    hosts = [_by_name(side.get("virtual_hosts", ())) for side in (wanted, served)]
    found = _named("routes of domain", *hosts)
    return found or ([] if dict(wanted) == dict(served) else ["the route configuration is served otherwise"])


def endpoints(name: str, wanted: Sequence[Pair], served: Sequence[Pair]) -> List[str]:
    found = ["%s: %s:%d is not served" % (name, ip, port) for ip, port in sorted(set(wanted) - set(served))]
    extra = sorted(set(served) - set(wanted))
    return found + ["%s: %s:%d is served but not published" % (name, ip, port) for ip, port in extra]


def _by_name(items: Sequence[Any]) -> Dict[str, Any]:
    return {str(item["name"]): item for item in items}


def _without_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: HIDDEN if key == "private_key" else _without_keys(item) for key, item in value.items()}
    return [_without_keys(item) for item in value] if isinstance(value, list) else value
