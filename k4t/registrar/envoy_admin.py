"""Envoy's admin page: a tiny HTTP/1.1 GET (http.client costs 15 ms to import) and what is asked through it."""

from __future__ import annotations

import json
import socket
from typing import Any, Dict, List, Sequence, Set, Tuple

from .errors import VendorSilent

TIMEOUT_S = 5.0
MAX_BYTES = 256 * 1024 * 1024
Address = Tuple[str, int]
Pair = Tuple[str, int]


def get(address: Address, path: str) -> bytes:
    """The body. Raises VendorSilent."""
    try:
        with socket.create_connection(address, TIMEOUT_S) as connection:
            connection.sendall(("GET %s HTTP/1.1\r\nHost: k4t\r\nConnection: close\r\n\r\n" % path).encode())
            answer = _read_all(connection)
    except OSError as error:
        raise VendorSilent(
            "Envoy's admin page at %s:%d doesn't answer: %s" % (address[0], address[1], error)
        ) from error
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        raise VendorSilent("%s:%d answers no admin page of Envoy: %r" % (address[0], address[1], head[:80]))
    return _unchunk(body) if b"transfer-encoding: chunked" in head.lower() else body


def _read_all(connection: socket.socket) -> bytes:
    parts: List[bytes] = []
    size = 0
    while size < MAX_BYTES:
        part = connection.recv(262144)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _unchunk(body: bytes) -> bytes:
    parts: List[bytes] = []
    place = 0
    while True:
        end = body.find(b"\r\n", place)
        if end < 0:
            raise VendorSilent("Envoy's admin page was cut off")
        size = int(body[place:end].split(b";")[0], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        place = end + 2 + size + 2


def counters(address: Address) -> Dict[str, str]:
    """Every subscription's version_text and update_rejected, how many clusters and listeners are warming, and
    whether its workers have started."""
    names = "version_text|update_rejected|warming_clusters|listeners_warming|workers_started"
    text = get(address, "/stats?filter=(%s)$" % names).decode()
    pairs = (line.partition(": ") for line in text.splitlines())
    return {name: value.strip('"') for name, _, value in pairs}


def failing(address: Address, clusters: Sequence[str]) -> Set[str]:
    """Of these clusters, the hosts ("web.main: 10.0.0.1:80") that have not passed their health check.

    Envoy counts a host that it has not asked yet among those that fail.
    """
    failed: Set[str] = set()
    found = json.loads(get(address, "/clusters?format=json&filter=^(%s)$" % "|".join(clusters)))
    for cluster in found.get("cluster_statuses", ()):
        for host in cluster.get("host_statuses", ()) if cluster["name"] in clusters else ():
            place, health = host["address"]["socket_address"], host.get("health_status", {})
            if health.get("pending_active_hc") or health.get("failed_active_health_check"):
                failed.add("%s: %s:%d" % (cluster["name"], place["address"], place["port_value"]))
    return failed


def requests(address: Address, apps: Sequence[str]) -> Dict[Tuple[str, str], int]:
    """By (app, ip:port): rq_total of the host, in all clusters of the app (“web.main”, “web.main.tcp” …). On a port of
    its own it counts connections. https://www.envoyproxy.io/docs/envoy/latest/operations/admin#get--clusters"""
    totals: Dict[Tuple[str, str], int] = {}
    found = json.loads(get(address, "/clusters?format=json&filter=^(%s)[.]" % "|".join(apps)))
    for cluster in found.get("cluster_statuses", ()):
        app = str(cluster["name"]).split(".", 1)[0]
        for host in cluster.get("host_statuses", ()) if app in apps else ():
            place = host.get("address", {}).get("socket_address", {})
            key = (app, "%s:%d" % (place.get("address"), place.get("port_value", 0)))
            counted = [one for one in host.get("stats", ()) if one.get("name") == "rq_total"]
            totals[key] = totals.get(key, 0) + sum(int(one.get("value", 0)) for one in counted)
    return totals


class Dump:
    """What Envoy serves: resources by name, endpoints by cluster name; `errors`: why it refused listeners."""

    def __init__(self, address: Address) -> None:
        self.clusters: Dict[str, Any] = {}
        self.routes: Dict[str, Any] = {}
        self.listeners: Dict[str, Any] = {}
        self.endpoints: Dict[str, List[Pair]] = {}
        self.errors: List[str] = []
        for section in json.loads(get(address, "/config_dump?include_eds"))["configs"]:
            for item in section.get("dynamic_active_clusters", ()):
                self.clusters[item["cluster"]["name"]] = item["cluster"]
            for item in section.get("dynamic_route_configs", ()):
                self.routes[item["route_config"]["name"]] = item["route_config"]
            for item in section.get("dynamic_listeners", ()):
                if "error_state" in item:
                    self.errors.append(str(item["error_state"].get("details", "")))
                if "active_state" in item:
                    self.listeners[item["name"]] = item["active_state"]["listener"]
            for item in section.get("dynamic_endpoint_configs", ()):
                assignment = item["endpoint_config"]
                self.endpoints[assignment["cluster_name"]] = pairs(assignment)


def pairs(assignment: Any) -> List[Pair]:
    """(ip, port) of a load assignment, sorted."""
    found = []
    for locality in assignment.get("endpoints", ()):
        for item in locality.get("lb_endpoints", ()):
            place = item["endpoint"]["address"]["socket_address"]
            found.append((str(place["address"]), int(place["port_value"])))
    return sorted(found)
