"""Envoy v3 listeners from the normal form, the bootstrap, and what its own checker is given.

Sources: envoy.config.{listener,bootstrap}.v3, envoy.extensions.{filters,transport_sockets}. As in envoy_render all is
written as Envoy prints it back.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Iterable, List, Mapping, Sequence, Tuple

from . import envoy_render
from .envoy_render import TYPE, duration
from .routing import ANY, Certificate, Listen, Routing, Site

LISTENER = TYPE + "envoy.config.listener.v3.Listener"
MANAGER = TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = TYPE + "envoy.extensions.filters.http.router.v3.Router"
TCP_PROXY = TYPE + "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
UDP_PROXY = TYPE + "envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig"
UDP_ROUTE = TYPE + "envoy.extensions.filters.udp.udp_proxy.v3.Route"
TLS = TYPE + "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
SECRET = TYPE + "envoy.extensions.transport_sockets.tls.v3.Secret"
INSPECTOR = TYPE + "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
Value = Dict[str, Any]
Secrets = Callable[[Certificate], Value]
"""Where Envoy reads a certificate whose files the operator changes: its source."""


def source(path: str, watched: str) -> Value:
    watching = {"path": path, "watched_directory": {"path": watched}}
    return {"path_config_source": watching, "resource_api_version": "V3"}


def http(port: int, rds: Mapping[str, Any], ipv6: bool) -> Value:
    """The plain port."""
    chain = {"filters": [_manager("k4t_http", envoy_render.HTTP, rds)]}
    return _listener("k4t_http_%d" % port, port, ipv6, [chain])


def https(port: int, sites: Sequence[Site], rds: Mapping[str, Any], sds: Secrets, ipv6: bool) -> Value:
    """One filter chain a certificate: another certificate, or domain, touches the connections of that chain alone."""
    by_certificate: Dict[Certificate, List[str]] = {}
    chains = []
    for site in sites:
        assert site.certificate is not None  # noqa: S101 - so routing makes them
        if site.domain == ANY:
            chains.append(_secure_chain(site.certificate, [], rds, sds))
        else:
            by_certificate.setdefault(site.certificate, []).append(site.domain)
    named = sorted(by_certificate, key=lambda one: one.name)
    chains += [_secure_chain(certificate, sorted(by_certificate[certificate]), rds, sds) for certificate in named]
    inspector = [{"name": "envoy.filters.listener.tls_inspector", "typed_config": {"@type": INSPECTOR}}]
    return dict(_listener("k4t_https_%d" % port, port, ipv6, chains), listener_filters=inspector)


def _secure_chain(certificate: Certificate, domains: Sequence[str], rds: Mapping[str, Any], sds: Secrets) -> Value:
    made: Value = {"filter_chain_match": {"server_names": list(domains)}} if domains else {}
    made["filters"] = [_manager("k4t_https", envoy_render.HTTPS, rds)]
    return dict(made, transport_socket=_tls(certificate, sds, ["h2", "http/1.1"]))


def _tls(certificate: Certificate, sds: Secrets, alpn: Sequence[str]) -> Value:
    if certificate.sha256:
        common: Value = {"tls_certificates": [_pair(certificate)]}
    else:
        common = {"tls_certificate_sds_secret_configs": [{"name": certificate.name, "sds_config": sds(certificate)}]}
    if alpn:
        common["alpn_protocols"] = list(alpn)
    return {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": TLS, "common_tls_context": common}}


def _pair(certificate: Certificate) -> Value:
    return {
        "certificate_chain": {"filename": certificate.chain_path},
        "private_key": {"filename": certificate.key_path},
    }


def secrets(certificates: Iterable[Certificate]) -> Dict[str, Value]:
    """By name, those of the operator's own files: Envoy reads them again when they are renamed into place."""
    found = {}
    for certificate in certificates:
        if not certificate.sha256:
            watched = {"watched_directory": {"path": os.path.dirname(certificate.chain_path)}}
            pair = dict(_pair(certificate), **watched)
            found[certificate.name] = {"@type": SECRET, "name": certificate.name, "tls_certificate": pair}
    return found


def _manager(prefix: str, routes: str, rds: Mapping[str, Any]) -> Value:
    manager = {
        "@type": MANAGER,
        "stat_prefix": prefix,
        "rds": {"config_source": dict(rds), "route_config_name": routes},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
        "use_remote_address": True,
        "normalize_path": True,
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def _listener(name: str, port: int, ipv6: bool, chains: Sequence[Value]) -> Value:
    return {
        "@type": LISTENER,
        "name": name,
        "address": {"socket_address": _address(port, ipv6)},
        "filter_chains": list(chains),
    }


def _address(port: int, ipv6: bool) -> Value:
    if ipv6:
        return {"address": "::", "port_value": port, "ipv4_compat": True}
    return {"address": "0.0.0.0", "port_value": port}  # noqa: S104 - a gateway takes all in


def l4(listen: Listen, sds: Secrets, ipv6: bool) -> Value:
    return _udp(listen, ipv6) if listen.pool.protocol == "udp" else _tcp(listen, sds, ipv6)


def _tcp(listen: Listen, sds: Secrets, ipv6: bool) -> Value:
    name = "k4t_tcp_%d" % listen.port
    proxy: Value = {
        "@type": TCP_PROXY,
        "stat_prefix": name,
        "cluster": listen.pool.name,
        "idle_timeout": duration(listen.timeout_ms),
        "max_connect_attempts": listen.retries + 1,
    }
    if listen.pool.affinity == "address":
        proxy["hash_policy"] = [{"source_ip": {}}]
    chain: Value = {"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]}
    if listen.certificate:
        chain["transport_socket"] = _tls(listen.certificate, sds, [])
    return _listener(name, listen.port, ipv6, [chain])


def _udp(listen: Listen, ipv6: bool) -> Value:
    name = "k4t_udp_%d" % listen.port
    action = {"name": "route", "typed_config": {"@type": UDP_ROUTE, "cluster": listen.pool.name}}
    proxy: Value = {
        "@type": UDP_PROXY,
        "stat_prefix": name,
        "matcher": {"on_no_match": {"action": action}},
    }
    if listen.timeout_ms:
        proxy["idle_timeout"] = duration(listen.timeout_ms)
    if listen.pool.affinity == "address":
        proxy["hash_policies"] = [{"source_ip": True}]
    return {
        "@type": LISTENER,
        "name": name,
        "address": {"socket_address": dict(_address(listen.port, ipv6), protocol="UDP")},
        "listener_filters": [{"name": "envoy.filters.udp_listener.udp_proxy", "typed_config": proxy}],
    }


# --- set up once, and checked ------------------------------------------------------------------------------------


def bootstrap(name: str, admin: Tuple[str, int], lds: Mapping[str, Any], cds: Mapping[str, Any]) -> Value:
    address = {"socket_address": {"address": admin[0], "port_value": admin[1]}}
    return {
        "node": {"id": name, "cluster": "k4t"},
        "admin": {"address": address},
        "dynamic_resources": {"lds_config": lds, "cds_config": cds},
    }


def validation(
    clusters: Sequence[Mapping[str, Any]],
    routes: Sequence[Mapping[str, Any]],
    listeners: Sequence[Mapping[str, Any]],
    secrets: Mapping[str, Any],
) -> Value:
    """A bootstrap that holds the candidate in line, since `--mode validate` reads no files of a subscription."""
    named = {config["name"]: _plain(config) for config in routes}
    # Route configurations are checked in listeners of no port: it may be the operator's listener that reads them.
    managed = [_manager("k4t", name, {}) for name in named]
    spare = [_listener("check_%s" % one["typed_config"]["rds"]["route_config_name"], 0, False, [{"filters": [one]}])
             for one in managed]  # fmt: skip
    return {
        "node": {"id": "k4t", "cluster": "k4t"},
        "static_resources": {
            "listeners": [_in_line(_plain(listener), named, secrets) for listener in [*spare, *listeners]],
            "clusters": [_static(cluster) for cluster in clusters],
        },
    }


def _in_line(listener: Value, routes: Mapping[str, Any], secrets: Mapping[str, Any]) -> Value:
    """A route to an unknown cluster is refused in line, but not over RDS; every route's cluster is rendered."""
    chains = []
    for chain in listener.get("filter_chains", ()):
        filters = []
        for one in chain["filters"]:
            config = dict(one["typed_config"])
            if "rds" in config:
                config["route_config"] = routes[config.pop("rds")["route_config_name"]]
            filters.append(dict(one, typed_config=config))
        chains.append(dict(_with_pairs(chain, secrets), filters=filters))
    return dict(listener, filter_chains=chains) if chains else listener


def _with_pairs(chain: Value, secrets: Mapping[str, Any]) -> Value:
    """Its certificates in line, too."""
    socket = chain.get("transport_socket")
    if socket is None or "tls_certificate_sds_secret_configs" not in socket["typed_config"]["common_tls_context"]:
        return chain
    context = dict(socket["typed_config"]["common_tls_context"])
    names = [config["name"] for config in context.pop("tls_certificate_sds_secret_configs")]
    pairs = [dict(secrets[name]["tls_certificate"]) for name in names]
    for pair in pairs:
        del pair["watched_directory"]
    context["tls_certificates"] = pairs
    typed = dict(socket["typed_config"], common_tls_context=context)
    return dict(chain, transport_socket=dict(socket, typed_config=typed))


def _static(cluster: Mapping[str, Any]) -> Value:
    """Without endpoints: their files needn't be there yet."""
    return {key: value for key, value in cluster.items() if key not in ("@type", "type", "eds_cluster_config")}


def _plain(resource: Mapping[str, Any]) -> Value:
    return {key: value for key, value in resource.items() if key != "@type"}


def listeners(
    made: Routing, ports: Tuple[int, int], sources: Tuple[Value, Value], sds: Secrets, ipv6: bool
) -> List[Value]:
    """`ports`, `sources`: of http and https; port 0: none of ours."""
    found = [http(ports[0], sources[0], ipv6)] if ports[0] else []
    if ports[1] and made.https:
        found.append(https(ports[1], made.https, sources[1], sds, ipv6))
    return found + [l4(listen, sds, ipv6) for listen in made.listens]
