"""Envoy v3 resources from a union, as plain values in the JSON form of the protocol buffers.

Written exactly as Envoy prints them back (no default values, canonical durations), so that its config dump can be
compared whole. Sources: envoy.config.{cluster,endpoint,route,listener,bootstrap}.v3.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple

from .document import Check, Endpoint, Route
from .union import Union

TYPE = "type.googleapis.com/"
CLUSTER = TYPE + "envoy.config.cluster.v3.Cluster"
ASSIGNMENT = TYPE + "envoy.config.endpoint.v3.ClusterLoadAssignment"
ROUTES = TYPE + "envoy.config.route.v3.RouteConfiguration"
LISTENER = TYPE + "envoy.config.listener.v3.Listener"
MANAGER = TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = TYPE + "envoy.extensions.filters.http.router.v3.Router"
PREVIOUS_HOSTS = TYPE + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"

ROUTE_CONFIG = "k4t"
LIMIT = 65536  # Envoy's own 1024 connections and requests a cluster would be a silent ceiling
CONNECT_TIMEOUT_MS = 2000
AppPort = Tuple[str, str]


def cluster_name(app: str, port_name: str) -> str:
    """`web.main`: names of apps and ports hold no dot."""
    return "%s.%s" % (app, port_name)


def duration(ms: int) -> str:
    """As protobuf prints it: 0 or 3 decimals."""
    return "%ds" % (ms // 1000) if ms % 1000 == 0 else "%d.%03ds" % divmod(ms, 1000)


def clusters(union: Union, eds_path: str) -> List[Dict[str, Any]]:
    """One a (app, port name) that has TCP endpoints or an HTTP route. `eds_path` holds one %s."""
    checks = {(check.app, check.port_name): check for check in union.checks}
    routes: Dict[AppPort, List[Route]] = {}
    for route in _http(union.routes):
        routes.setdefault((route.app, route.port_name), []).append(route)
    wanted = sorted({(e.app, e.port_name) for e in _tcp(union.endpoints)} | set(routes))
    return [_cluster(key, checks.get(key), routes.get(key, []), eds_path) for key in wanted]


def _cluster(key: AppPort, check: Any, routes: Sequence[Route], eds_path: str) -> Dict[str, Any]:
    name = cluster_name(*key)
    limits = {"max_connections": LIMIT, "max_pending_requests": LIMIT, "max_requests": LIMIT}
    cluster: Dict[str, Any] = {
        "@type": CLUSTER,
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {
            "eds_config": {"path_config_source": {"path": eds_path % name}, "resource_api_version": "V3"}
        },
        "connect_timeout": duration(CONNECT_TIMEOUT_MS),
        "circuit_breakers": {"thresholds": [limits]},
        # What is withdrawn must go at once, healthy or not; better no answer than one from a dead replica; and what
        # has become healthy must get traffic before another goes (Envoy would tell its workers a second later).
        "ignore_health_on_host_removal": True,
        "common_lb_config": {"healthy_panic_threshold": {}, "update_merge_window": "0s"},
    }
    if any(route.balance == "least-requests" for route in routes):
        cluster["lb_policy"] = "LEAST_REQUEST"
    if check is not None and check.kind != "none":
        cluster["health_checks"] = [_health_check(check)]
    return cluster


def _health_check(check: Check) -> Dict[str, Any]:
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
    if host:
        probe["host"] = host[-1]
    if headers:
        probe["request_headers_to_add"] = headers
    return dict(made, http_health_check=probe)


def assignments(union: Union, names: Iterable[str]) -> Dict[str, Dict[str, Any]]:
    """Cluster name to its load assignment; empty for one without endpoints (Envoy then answers 503)."""
    listed: Dict[str, List[Dict[str, Any]]] = {name: [] for name in names}
    for endpoint in _tcp(union.endpoints):
        place = {"address": endpoint.ip, "port_value": endpoint.port}
        name = cluster_name(endpoint.app, endpoint.port_name)
        listed[name].append({"endpoint": {"address": {"socket_address": place}}})
    return {
        name: {"@type": ASSIGNMENT, "cluster_name": name, "endpoints": [{"lb_endpoints": found}] if found else []}
        for name, found in listed.items()
    }


def route_config(union: Union) -> Dict[str, Any]:
    """One virtual host a domain; what its own routes don't match goes on to wider domains' routes."""
    by_domain: Dict[str, List[Route]] = {}
    for route in _http(union.routes):
        for domain in route.domains or ("*",):
            by_domain.setdefault(domain.lower(), []).append(route)
    hosts = []
    for domain in sorted(by_domain):
        ordered = [route for wider in _wider(domain, by_domain) for route in _longest_first(by_domain[wider])]
        hosts.append({"name": domain, "domains": [domain], "routes": [_route(route) for route in ordered]})
    made: Dict[str, Any] = {"@type": ROUTES, "name": ROUTE_CONFIG, "ignore_port_in_host_matching": True}
    if hosts:
        made["virtual_hosts"] = hosts
    return made


def _wider(domain: str, known: Mapping[str, Any]) -> List[str]:
    """`domain`, then each wildcard that covers it (closest first), then any."""
    found = [domain]
    labels = domain.split(".")
    for place in range(1, len(labels)):
        wildcard = "*." + ".".join(labels[place:])
        if wildcard in known and wildcard != domain:
            found.append(wildcard)
    return [*found, "*"] if "*" in known and domain != "*" else found


def _longest_first(routes: Sequence[Route]) -> List[Route]:
    return sorted(routes, key=lambda route: (-len(route.prefix), route.prefix, route))


def _route(route: Route) -> Dict[str, Any]:
    action: Dict[str, Any] = {
        "cluster": cluster_name(route.app, route.port_name),
        "timeout": duration(route.timeout_ms),
        "upgrade_configs": [{"upgrade_type": "websocket"}],
    }
    if route.retries:
        action["retry_policy"] = {
            "retry_on": "connect-failure",
            "num_retries": route.retries,
            "retry_host_predicate": [
                {"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type": PREVIOUS_HOSTS}}
            ],
            "host_selection_retry_max_attempts": "3",
        }
    if route.strip_prefix and route.prefix != "/":
        bare = route.prefix.rstrip("/")
        action["regex_rewrite"] = {"pattern": {"regex": "^%s/?" % re.escape(bare)}, "substitution": "/"}
    return {"match": {"prefix": route.prefix}, "route": action}


def _http(routes: Iterable[Route]) -> List[Route]:
    return [route for route in routes if not route.listen]


def _tcp(endpoints: Iterable[Endpoint]) -> List[Endpoint]:
    return [endpoint for endpoint in endpoints if endpoint.port and endpoint.protocol == "tcp"]


# --- set up once -------------------------------------------------------------------------------------------


def source(path: str, watched: str) -> Dict[str, Any]:
    watching = {"path": path, "watched_directory": {"path": watched}}
    return {"path_config_source": watching, "resource_api_version": "V3"}


def listener(port: int, rds: Mapping[str, Any], ipv6: bool = True) -> Dict[str, Any]:
    manager = {
        "@type": MANAGER,
        "stat_prefix": "k4t_http",
        "rds": {"config_source": rds, "route_config_name": ROUTE_CONFIG},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
        "use_remote_address": True,
        "normalize_path": True,
    }
    address: Dict[str, Any] = {"address": "0.0.0.0", "port_value": port}  # noqa: S104 - a gateway takes all in
    if ipv6:
        address = {"address": "::", "port_value": port, "ipv4_compat": True}
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "@type": LISTENER,
        "name": "k4t_http_%d" % port,
        "address": {"socket_address": address},
        "filter_chains": [{"filters": filters}],
    }


def bootstrap(name: str, admin: Tuple[str, int], lds: Mapping[str, Any], cds: Mapping[str, Any]) -> Dict[str, Any]:
    address = {"socket_address": {"address": admin[0], "port_value": admin[1]}}
    return {
        "node": {"id": name, "cluster": "k4t"},
        "admin": {"address": address},
        "dynamic_resources": {"lds_config": lds, "cds_config": cds},
    }


def validation(clusters_: Sequence[Mapping[str, Any]], routes: Mapping[str, Any]) -> Dict[str, Any]:
    """A bootstrap that holds the candidate in line, since `--mode validate` reads no files of a subscription."""
    inline = dict(listener(0, {}))
    manager = inline["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["rds"]
    manager["route_config"] = _plain(routes)
    # A route to an unknown cluster is refused in line, but not over RDS; every route's cluster is rendered.
    return {
        "node": {"id": "k4t", "cluster": "k4t"},
        "static_resources": {"listeners": [_plain(inline)], "clusters": [_static(cluster) for cluster in clusters_]},
    }


def _static(cluster: Mapping[str, Any]) -> Dict[str, Any]:
    """Without endpoints: their files needn't be there yet."""
    return {key: value for key, value in cluster.items() if key not in ("@type", "type", "eds_cluster_config")}


def _plain(resource: Mapping[str, Any]) -> Dict[str, Any]:
    return {key: value for key, value in resource.items() if key != "@type"}
