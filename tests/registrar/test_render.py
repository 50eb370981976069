"""What unions look like to each vendor: golden files, byte for byte. Rewrite them with K4T_GOLDEN=write."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from k4t.registrar.dnsmasq import Dnsmasq
from k4t.registrar.document import Certificate, Check, Document, Endpoint, Record, Route, make
from k4t.registrar.envoy import Envoy
from k4t.registrar.store import Holding, Withdrawal
from k4t.registrar.union import full_name, unite

pytestmark = pytest.mark.unit
GOLDEN = Path(__file__).parent / "golden"

PROD = make(
    Document(
        "aaaa1111", "prod", "gateway", "default",
        endpoints=(
            Endpoint("web", "10.0.0.1", 8080, container="c1"), Endpoint("web", "10.0.0.2", 8080, container="c2"),
            Endpoint("web", "10.0.0.2", 9000, "admin", container="c2"),
            Endpoint("game", "10.0.0.1", 27015, protocol="udp"),
            Endpoint("v6", "fd88::1", 80),
        ),
        checks=(
            Check("web", "main", "http", "/health", 200, 299, (("Host", "web.example.com"), ("X-Probe", "k4t")), 1500),
            Check("web", "admin", "tcp"), Check("v6", "main", "none"),
        ),
        routes=(
            Route("web", domains=("example.com", "*.example.com")),
            Route("web", "admin", ("example.com",), "/admin", strip_prefix=True),
            Route("web", prefix="/status", retries=0, timeout_ms=1500),
            Route("v6", domains=("six.example.com",), prefix="/a.b/"),
            Route("empty", domains=("empty.example.com",), balance="least-requests"),
        ),
    )
)  # fmt: skip
OTHER = make(
    Document(
        "bbbb2222", "other", "gateway", "default",
        endpoints=(Endpoint("web", "10.1.0.1", 8080), Endpoint("shop", "10.1.0.2", 80)),
        checks=(Check("web", "main", "tcp"),),
        routes=(Route("web", domains=("ignored.example.com",)), Route("shop", domains=("shop.example.com",))),
    )
)  # fmt: skip
NAMES = make(
    Document(
        "aaaa1111", "prod", "dns", "default",
        endpoints=(
            Endpoint("web", "10.0.0.2", 8080), Endpoint("web", "10.0.0.1", 8080), Endpoint("batch", "fd88::1", 0),
        ),
        records=(
            Record("web", "web"), Record("www.k4t.lab", "web"), Record("a.b", "web"), Record("batch", "batch"),
            Record("gone", "gone"), Record("gateways", "web", to=("10.0.0.21", "fd88::0021")), Record("k4t.lab", "web"),
        ),
    )
)  # fmt: skip


def golden(name: str, found: str) -> None:
    path = GOLDEN / name
    if os.environ.get("K4T_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(found)
    assert found == path.read_text()


def pretty(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def test_envoy_two_clusters() -> None:
    """Endpoints add up; checks and routes of the shared app come from the lowest cluster id; UDP stays out."""
    union = unite([Holding(OTHER, "t2"), Holding(PROD, "t1")])
    golden("envoy.json", pretty(Envoy("/", {}).render(union)))


EVERYTHING = make(
    Document(
        "cccc3333", "all", "gateway", "default",
        endpoints=(
            Endpoint("web", "10.0.0.1", 80), Endpoint("api", "10.0.0.2", 80), Endpoint("db", "10.0.0.3", 5432),
            Endpoint("db", "10.0.0.3", 53, "dns", "udp"),
        ),
        checks=(Check("web", "main", "http", "/up"), Check("db", "main", "tcp"), Check("db", "dns", "tcp")),
        certificates=(
            Certificate("example", "e" * 64, "2030-01-01T00:00:00Z"),
            Certificate("files", chain_path="/etc/tls/chain.pem", key_path="/etc/tls/key.pem"),
        ),
        routes=(
            Route("web", domains=("example.com", "*.example.com"), tls="example", redirect="https"),
            Route("web", domains=("example.com",), prefix="/h2", upstream="h2c", affinity="cookie", tls="example"),
            Route("web", domains=("other.org",), tls="files", upstream="tls", affinity="address", timeout_ms=0),
            Route("web", prefix="/share", weight=3, strip_prefix=True, retries=0),
            Route("api", prefix="/share", weight=1, strip_prefix=True, retries=0),
            Route("api", prefix="/old", redirect="https://elsewhere.org/50%25", tls="example"),
            Route("db", listen=5432, affinity="address", timeout_ms=3600000),
            Route("db", listen=5433, tls="files", upstream="tls"),
            Route("db", "dns", listen=53, protocol="udp", affinity="address", timeout_ms=5500),
        ),
    )
)  # fmt: skip


def test_envoy_everything() -> None:
    """Every kind of route: listeners, chains by name, clusters by how they are spoken to."""
    config = {"http": 8080, "https": 8443, "ipv6": False, "own": True}
    golden("envoy-everything.json", pretty(Envoy("/", config).render(unite([Holding(EVERYTHING, "t1")]))))


def test_envoy_nothing() -> None:
    """Without documents: no cluster, and every domain is a 404."""
    golden("envoy-empty.json", pretty(Envoy("/", {}).render(unite([]))))


def test_envoy_bootstrap() -> None:
    """What `k4t gateway install` writes."""
    config = {"name": "gw1", "binary": "/usr/bin/envoy", "admin": ["127.0.0.1", 9901], "http": 80, "own": True}
    golden("envoy-setup.json", pretty(Envoy("/", config).setup_files()))


def test_dnsmasq() -> None:
    """Names in the zone, both families, nothing for a name without endpoints."""
    (text,) = Dnsmasq("/", {}).render(unite([Holding(NAMES, "t1", "k4t.lab")])).values()
    golden("dnsmasq.hosts", text)


def test_dnsmasq_conf() -> None:
    """What `k4t dns install` writes, and what an existing dnsmasq is told to include."""
    config = {"address": "10.0.0.53", "port": 53, "zones": ["k4t.lab", "b.lab"], "own": True}
    golden("dnsmasq.conf", Dnsmasq("/", config).setup_files()["/etc/k4t/dnsmasq/dnsmasq.conf"])
    assert "hostsdir=/var/lib/k4t/dnsmasq/hosts\n" in Dnsmasq("/", config).lines()


def test_withdrawn_is_out() -> None:
    """A withdrawal names cluster, address and container; the same address of another container stays."""
    out = Withdrawal("aaaa1111", "10.0.0.1", 8080, "c1", "monitor", "dead")
    assert "10.0.0.1" not in {e.ip for e in unite([Holding(PROD, "t1")], (), [out]).endpoints if e.app == "web"}
    other = Withdrawal("aaaa1111", "10.0.0.1", 8080, "c9", "monitor", "dead")
    assert "10.0.0.1" in {e.ip for e in unite([Holding(PROD, "t1")], (), [other]).endpoints if e.app == "web"}


def test_order_does_not_matter() -> None:
    """The same documents give the same files, in whatever order they came."""
    one = Envoy("/", {}).render(unite([Holding(PROD, "t1"), Holding(OTHER, "t2")]))
    two = Envoy("/", {}).render(unite([Holding(OTHER, "t2"), Holding(PROD, "t1")]))
    assert pretty(one) == pretty(two)


@pytest.mark.parametrize(
    ("name", "zone", "full"),
    [
        ("web", "k4t.lab", "web.k4t.lab"), ("a.b", "k4t.lab", "a.b.k4t.lab"), ("web.k4t.lab", "k4t.lab", "web.k4t.lab"),
        ("k4t.lab", "k4t.lab", "k4t.lab"), ("xk4t.lab", "k4t.lab", "xk4t.lab.k4t.lab"), ("web", "", "web"),
        ("web", "k4t.lab.", "web.k4t.lab"),
    ],
)  # fmt: skip
def test_full_names(name: str, zone: str, full: str) -> None:
    """Relative to the zone, unless they end with it."""
    assert full_name(name, zone) == full
