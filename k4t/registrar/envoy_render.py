"""Envoy v3 clusters, endpoints and routes from the normal form, as plain values in the JSON form of the protocol
buffers. Listeners: envoy_listen.

Written exactly as Envoy prints them back (no default values, canonical durations), so that its config dump can be
compared whole. Sources: envoy.config.{cluster,endpoint,route}.v3.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, Sequence

from .document import Check
from .routing import Backend, Pool, Rule, Site

TYPE = "type.googleapis.com/"
CLUSTER = TYPE + "envoy.config.cluster.v3.Cluster"
ASSIGNMENT = TYPE + "envoy.config.endpoint.v3.ClusterLoadAssignment"
ROUTES = TYPE + "envoy.config.route.v3.RouteConfiguration"
PREVIOUS_HOSTS = TYPE + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
UPSTREAM_TLS = TYPE + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
HTTP_OPTIONS_NAME = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
HTTP_OPTIONS = TYPE + HTTP_OPTIONS_NAME

HTTP = "k4t"  # the names of the two route configurations
HTTPS = "k4t_https"
LIMIT = 65536  # Envoy's own 1024 connections and requests a cluster would be a silent ceiling
CONNECT_TIMEOUT_MS = 2000


def duration(ms: int) -> str:
    """As protobuf prints it: 0 or 3 decimals."""
    return "%ds" % (ms // 1000) if ms % 1000 == 0 else "%d.%03ds" % divmod(ms, 1000)


def clusters(backends: Iterable[Backend], eds_path: str) -> List[Dict[str, Any]]:
    """One a backend. `eds_path` holds one %s."""
    return sorted((_cluster(backend, eds_path) for backend in backends), key=lambda cluster: str(cluster["name"]))


def _cluster(backend: Backend, eds_path: str) -> Dict[str, Any]:
    pool = backend.pool
    limits = {"max_connections": LIMIT, "max_pending_requests": LIMIT, "max_requests": LIMIT}
    cluster: Dict[str, Any] = {
        "@type": CLUSTER,
        "name": pool.name,
        "type": "EDS",
        "eds_cluster_config": {
            "eds_config": {"path_config_source": {"path": eds_path % pool.name}, "resource_api_version": "V3"}
        },
        "connect_timeout": duration(CONNECT_TIMEOUT_MS),
        "circuit_breakers": {"thresholds": [limits]},
        # What is withdrawn must go at once, healthy or not; better no answer than one from a dead replica; and what
        # has become healthy must get traffic before another goes (Envoy would tell its workers a second later).
        "ignore_health_on_host_removal": True,
        "common_lb_config": {"healthy_panic_threshold": {}, "update_merge_window": "0s"},
    }
    if pool.affinity != "none":
        cluster["lb_policy"] = "RING_HASH"  # all Envoys of a group hash alike
    elif pool.balance == "least-requests":
        cluster["lb_policy"] = "LEAST_REQUEST"
    if pool.upstream == "tls":
        cluster["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": {"@type": UPSTREAM_TLS}}
    if pool.protocol == "http" and pool.upstream != "http1":
        cluster["typed_extension_protocol_options"] = {HTTP_OPTIONS_NAME: _http_options(pool.upstream)}
    if backend.check is not None:
        cluster["health_checks"] = [_health_check(backend.check, pool)]
    return cluster


def _http_options(upstream: str) -> Dict[str, Any]:
    if upstream == "h2c":
        return {"@type": HTTP_OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}}
    named = {"upstream_http_protocol_options": {"auto_sni": True}}
    return {"@type": HTTP_OPTIONS, **named, "explicit_http_config": {"http_protocol_options": {}}}


def _health_check(check: Check, pool: Pool) -> Dict[str, Any]:
    made: Dict[str, Any] = {
        "timeout": duration(check.timeout_ms),
        "interval": duration(check.interval_ms),
        "unhealthy_threshold": check.retries,
        "healthy_threshold": 1,
        "no_traffic_interval": duration(check.interval_ms),  # Envoy's own is 60 s
    }
    if check.kind == "tcp":
        return dict(made, tcp_health_check={})
    host = [value for name, value in check.headers if name.lower() == "host"]
    headers = [
        {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for name, value in check.headers
        if name.lower() != "host"
    ]
    probe: Dict[str, Any] = {
        "path": check.path,
        "expected_statuses": [{"start": str(check.status_min), "end": str(check.status_max + 1)}],
        # Without this a wrong status counts as `retries` failures at once.
        "retriable_statuses": [{"start": "100", "end": "600"}],
    }
    if pool.protocol == "http" and pool.upstream == "h2c":
        probe["codec_client_type"] = "HTTP2"
    if host:
        probe["host"] = host[-1]
    if headers:
        probe["request_headers_to_add"] = headers
    return dict(made, http_health_check=probe)


def assignments(backends: Iterable[Backend]) -> Dict[str, Dict[str, Any]]:
    """Cluster name to its load assignment; empty for one without endpoints (Envoy then answers 503)."""
    return {backend.pool.name: _assignment(backend) for backend in backends}


def _assignment(backend: Backend) -> Dict[str, Any]:
    places = dict.fromkeys((endpoint.ip, endpoint.port) for endpoint in backend.endpoints)
    listed = [{"endpoint": {"address": {"socket_address": {"address": ip, "port_value": port}}}} for ip, port in places]
    endpoints = [{"lb_endpoints": listed}] if listed else []
    return {"@type": ASSIGNMENT, "cluster_name": backend.pool.name, "endpoints": endpoints}


def route_config(name: str, sites: Sequence[Site], redirect_port: int = 0) -> Dict[str, Any]:
    """One virtual host a site. `redirect_port`: said in redirects to https; 0 where the host's name alone will do."""
    hosts = [
        {
            "name": site.domain,
            "domains": [site.domain],
            "routes": [_route(rule, redirect_port) for rule in site.rules],
        }
        for site in sorted(sites, key=lambda site: site.domain)
    ]
    made: Dict[str, Any] = {"@type": ROUTES, "name": name, "ignore_port_in_host_matching": True}
    if hosts:
        made["virtual_hosts"] = hosts
    return made


def _route(rule: Rule, redirect_port: int) -> Dict[str, Any]:
    match = {"prefix": rule.prefix}
    if rule.redirect == "https":
        to: Dict[str, Any] = {"https_redirect": True}
        return {"match": match, "redirect": dict(to, port_redirect=redirect_port) if redirect_port else to}
    if rule.redirect:
        header = {"key": "location", "value": rule.redirect.replace("%", "%%")}
        return {
            "match": match,
            "direct_response": {"status": 302},
            "response_headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
        }
    return {"match": match, "route": _action(rule)}


def _action(rule: Rule) -> Dict[str, Any]:
    pools = [target.pool for target in rule.targets]
    action: Dict[str, Any] = {
        # The longest silence, not the whole answer: an upload or a download may take its time.
        "timeout": "0s",
        "idle_timeout": duration(rule.timeout_ms),
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    }
    if len(pools) == 1:
        action["cluster"] = pools[0].name
    else:
        shares = [{"name": target.pool.name, "weight": target.weight} for target in rule.targets]
        action["weighted_clusters"] = {"clusters": shares}
    if hashes := [policy for policy in map(_hash_policy, pools) if policy]:
        action["hash_policy"] = [policy for place, policy in enumerate(hashes) if policy not in hashes[:place]]
    if rule.retries:
        action["retry_policy"] = {
            "retry_on": "connect-failure",
            "num_retries": rule.retries,
            "retry_host_predicate": [
                {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": PREVIOUS_HOSTS}}
            ],
            "host_selection_retry_max_attempts": "3",
        }
    if rule.strip_prefix:
        bare = rule.prefix.rstrip("/")
        action["regex_rewrite"] = {"pattern": {"regex": "^%s/?" % re.escape(bare)}, "substitution": "/"}
    return action


def _hash_policy(pool: Pool) -> Dict[str, Any]:
    if pool.affinity == "cookie":
        return {"cookie": {"name": pool.cookie, "ttl": "0s", "path": "/"}}
    return {"connection_properties": {"source_ip": True}} if pool.affinity == "address" else {}
