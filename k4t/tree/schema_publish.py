"""The table: what an app publishes, routes and records."""

from __future__ import annotations

from k4t.tree import values as v
from k4t.tree.table import attribute, element

ROUTE = element(
    "route",
    "Traffic that the gateways send to the app: HTTP by domain and prefix, or a port of their own (`listen`).",
    attribute("port", v.NAMED, "The port's name; without it the first one.", refers="port"),
    attribute("domain", v.ROUTE_DOMAINS, "Domains, separated by spaces or commas, `*.` allowed; without it any."),
    attribute("prefix", v.ROUTE_PREFIX, "The path's beginning; without it /."),
    attribute("listen", v.PORT, "A port on the gateways, instead of domain and prefix: L4."),
    attribute(
        "tls",
        v.NAMED,
        "The certificate: it is served on the https port too (L4: TLS ends there).",
        refers="certificates",
    ),
    attribute("redirect", v.REDIRECT, "Where to send the client instead: https, a path or an address."),
    attribute("strip-prefix", v.BOOLEAN, "The app doesn't see the prefix.", "false"),
    attribute("weight", v.COUNT, "Its share beside other routes of the same domain and prefix."),
    attribute("timeout", v.DURATION, "The longest silence of the app, before its answer and in it; 0s: any.", "60s"),
    attribute("retries", v.COUNT, "How often another replica is tried; connect failures only.", "1"),
    attribute("balance", v.choice("round-robin", "least-requests"), "How replicas are chosen.", "round-robin"),
    attribute(
        "affinity",
        v.choice("none", "cookie", "address"),
        "What binds a client to a replica.",
        "none",
    ),
    attribute(
        "upstream",
        v.choice("http1", "h2c", "tls"),
        "How the app is spoken to.",
        "http1",
    ),
    attribute("group", v.NAMED, "The group of gateways.", "default", refers="gateway group"),
    many=True,
)

RECORD = element(
    "record",
    "A name in DNS.",
    attribute(
        "name",
        v.RECORD_NAME,
        "The name in the zone; without it the app's. An `srv` record is asked for at `_PORT._tcp.NAME`.",
    ),
    attribute("type", v.choice("address", "srv"), "What is published.", "address"),
    attribute("port", v.NAMED, "The port's name; without it the first one.", refers="port"),
    attribute("to", v.TARGETS, "`endpoints`, `addresses` (the gateways' own), or IP addresses.", "endpoints"),
    attribute("ttl", v.SECONDS, "How long resolvers may keep it, where the driver has a TTL for each record.", "30s"),
    attribute("group", v.NAMED, "The group of DNS servers.", "default", refers="dns group"),
    many=True,
)
