"""The normal form of routes: one meaning for every vendor."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t.registrar.document import Certificate, Check, Document, Endpoint, Route, make
from k4t.registrar.routing import Pool, Routing, Rule, Target, decide, routing
from k4t.registrar.store import Holding
from k4t.registrar.union import Union, unite
from tests.registrar.hands import ROUTES

pytestmark = pytest.mark.unit
A, B = "aaaa1111", "bbbb2222"


def normal(*routes: Route, endpoints: tuple[Endpoint, ...] = (), checks: tuple[Check, ...] = ()) -> Routing:
    return routing(Union(tuple(sorted(endpoints)), checks, tuple(sorted(routes))))


def app_for(found: Routing, host: str, path: str) -> str:
    """The app of the rule's only target, `>` and where a redirect leads, or "-" for 404."""
    rule = decide(found.http, host, path)
    if rule is None:
        return "-"
    return ">" + rule.redirect if rule.redirect else "+".join(target.pool.app for target in rule.targets)


@pytest.mark.parametrize(
    ("host", "path", "app"),
    [
        ("a.example.com", "/w/x", "exact"),
        ("A.Example.COM:8080", "/", "exact"),
        ("b.example.com", "/w/x", "wide"),
        ("b.c.example.com", "/w", "wide"),
        ("b.org.com", "/w/x/y", "wider"),
        ("b.org.com", "/w", "-"),
        ("example.com", "/w/x", "wider"),
        ("example.com", "/any", "any"),
        ("api.example.com", "/v1xy", "v1x"),
        ("api.example.com", "/v1/y", "v1"),
        ("api.example.com", "/w/x", "wide"),
        ("api.example.com", "/any/x", "any"),
        ("api.example.com", "/", "-"),
        ("elsewhere", "/anything", "any"),
        ("elsewhere", "/", "-"),
    ],
)
def test_which_route_a_request_takes(host: str, path: str, app: str) -> None:
    """Exact domain, closest wildcard, any; the longest prefix first; what doesn't match goes on to wider ones."""
    assert app_for(normal(*ROUTES), host, path) == app


def test_sites_stand_in_the_order_in_which_they_are_tried() -> None:
    """A vendor that tries one domain after the other needs no order of its own."""
    domains = [site.domain for site in normal(*ROUTES).http]
    assert domains == ["a.example.com", "api.example.com", "*.example.com", "*.com", "*"]


def test_a_rule_that_no_request_reaches_is_left_out() -> None:
    """What an exact domain takes whole leaves nothing to the wildcard."""
    site = normal(Route("any"), Route("exact", domains=("a.b",))).http[0]
    assert [rule.prefix for rule in site.rules] == ["/"]


def test_weights_split_one_rule() -> None:
    """All routes of one domain and prefix have a weight: one rule; 0 gets nothing, but where nobody gets anything."""
    found = normal(Route("blue", domains=("a.b",), weight=3), Route("green", domains=("a.b", "c.d"), weight=0))
    assert found.http[0].rules == (Rule("/", (Target(Pool("blue", "main"), 3),)),)
    assert found.http[1].rules == (Rule("/", (Target(Pool("green", "main"), 1),)),)
    both = normal(Route("blue", weight=3), Route("blue", "admin", weight=1)).http[0].rules
    assert both == (Rule("/", (Target(Pool("blue", "admin"), 1), Target(Pool("blue", "main"), 3))),)


def test_without_a_weight_there_is_no_split() -> None:
    """Validation refuses it; should it come all the same, the first route without a weight has it."""
    found = normal(Route("blue"), Route("green"), Route("amber", weight=5))
    assert app_for(found, "x", "/") == "blue"


def test_pools_tell_apart_how_an_app_is_spoken_to() -> None:
    """One app may have routes that differ in balance, affinity and upstream; an affinity leaves nothing to balance."""
    found = normal(
        Route("web", domains=("a",)),
        Route("web", domains=("b",), balance="least-requests"),
        Route("web", domains=("c",), balance="least-requests", affinity="cookie"),
        Route("web", domains=("d",), upstream="h2c"),
        Route("web", domains=("e",), timeout_ms=1, retries=0, strip_prefix=True),
        Route("web", listen=5000, upstream="h2c", affinity="cookie"),
        Route("web", "dns", listen=53, protocol="udp", upstream="tls"),
    )
    assert [backend.pool.name for backend in found.backends] == [
        "web.dns.udp", "web.main.least-requests", "web.main.cookie", "web.main.h2c", "web.main",
        "web.main.tcp.address",
    ]  # fmt: skip
    assert Pool("my-app", "main").cookie == "k4t_my_app"


def test_backends_hold_their_endpoints_and_checks() -> None:
    """Each pool has its port's endpoints; UDP has no check; a port that nothing leads to is a backend too."""
    tcp, udp = Endpoint("web", "10.0.0.1", 80), Endpoint("web", "10.0.0.1", 53, "dns", "udp")
    bare, nowhere = Endpoint("manual", "10.0.0.2", 80), Endpoint("batch", "10.0.0.3", 0)
    check = Check("web", "main")
    found = normal(
        Route("web"),
        Route("web", "dns", listen=53, protocol="udp"),
        Route("gone", domains=("a.b",)),
        endpoints=(tcp, udp, bare, nowhere),
        checks=(check, Check("web", "dns"), Check("gone", "main", "none")),
    )
    assert [(b.pool.name, b.endpoints, b.check) for b in found.backends] == [
        ("gone.main", (), None),
        ("manual.main", (bare,), None),
        ("web.dns.udp", (udp,), None),
        ("web.main", (tcp,), check),
    ]


def secured(cluster: str, **more: object) -> Holding:
    routes = (
        Route("web", domains=("example.com",), tls="example", redirect="https"),
        Route("web", domains=("example.com",), prefix="/plain"),
        Route("web", domains=("*.example.com",), tls="example", prefix="/w"),
        Route("web", "raw", listen=8883, tls="files"),
        Route("web", "raw", listen=1883, timeout_ms=5000, retries=3),
    )
    certificates = (
        Certificate("example", "e" * 64, "2027-01-01T00:00:00Z"),
        Certificate("files", chain_path="/etc/tls/chain.pem", key_path="/etc/tls/key.pem"),
        Certificate("unused", "f" * 64),
    )
    made = Document(cluster, "prod", "gateway", "default", routes=routes, certificates=certificates)
    return Holding(make(dataclasses.replace(made, **more)), "t")  # type: ignore[arg-type]


def test_the_https_port_has_the_routes_with_tls() -> None:
    """By SNI and domain, each with its certificate's files; `redirect` https is for the plain port alone."""
    found = routing(unite([secured(A)]), "/root")
    assert [(site.domain, [(r.prefix, r.redirect) for r in site.rules]) for site in found.http] == [
        ("example.com", [("/plain", ""), ("/", "https")]),
        ("*.example.com", [("/w", "")]),
    ]
    assert [(site.domain, [(r.prefix, r.redirect) for r in site.rules]) for site in found.https] == [
        ("example.com", [("/", "")]),
        ("*.example.com", [("/w", "")]),
    ]
    certificate = found.https[0].certificate
    assert certificate is not None
    assert certificate.chain_path == f"/root/var/lib/k4t/certificates/{A}/{'e' * 64}.chain.pem"
    assert certificate.key_path == f"/root/var/lib/k4t/certificates/{A}/{'e' * 64}.key.pem"
    assert [(one.port, one.timeout_ms, one.retries, bool(one.certificate)) for one in found.listens] == [
        (1883, 5000, 3, False),
        (8883, 60000, 1, True),
    ]
    assert [one.name for one in found.certificates] == [f"{A}/example", f"{A}/files"]
    assert found.certificates[1].chain_path == "/etc/tls/chain.pem"


def test_two_clusters_certificates_of_one_name() -> None:
    """They stay apart; of one domain's several the lowest cluster's is shown."""
    routes = (Route("api", domains=("example.com",), prefix="/api", tls="example"),)
    other = secured(B, routes=routes, certificates=(Certificate("example", "b" * 64),))
    found = routing(unite([other, secured(A)]))
    assert [one.name for one in found.certificates] == [f"{A}/example", f"{A}/files"]
    assert [rule.prefix for rule in found.https[0].rules] == ["/api", "/"]
    alone = routing(unite([other]))
    assert [one.sha256 for one in alone.certificates] == ["b" * 64]


def test_without_its_certificate_nothing_is_served_in_plain_text() -> None:
    """A port of its own that should be encrypted is not opened without its certificate."""
    assert normal(Route("web", listen=8883, tls="nobody")).listens == ()


def test_redirects_have_no_targets() -> None:
    """A location takes the request away on both ports."""
    holding = secured(A, routes=(Route("web", redirect="https://elsewhere.org/x", tls="example"),))
    found = routing(unite([holding]))
    assert found.http[0].rules == found.https[0].rules == (Rule("/", redirect="https://elsewhere.org/x"),)
    assert found.backends == ()


words = st.sampled_from(["a.b", "c.a.b", "*.b", "*.a.b", "x", ""])
prefixes = st.sampled_from(["/", "/p", "/p/", "/p/q", "/pq"])
some_routes = st.lists(
    st.builds(
        lambda app, domain, prefix, weight: Route(
            app, domains=(domain,) if domain else (), prefix=prefix, weight=weight
        ),
        st.sampled_from(["one", "two"]), words, prefixes, st.integers(-1, 2),
    ),
    max_size=8,
)  # fmt: skip


@given(some_routes, st.sampled_from(["a.b", "c.a.b", "d.c.a.b", "z.b", "x", "y"]), prefixes)
def test_the_closest_domain_with_a_fitting_prefix_decides(routes: list[Route], host: str, path: str) -> None:
    """Said the other way round, over all routes at once: the best (domain, prefix) that fits is the rule's."""
    found = decide(normal(*routes).http, host, path)

    def rank(route: Route) -> tuple[int, int] | None:
        domain = route.domains[0] if route.domains else "*"
        fits = domain in ("*", host) or (domain.startswith("*.") and host.endswith(domain[1:]))
        closeness = 1000 if domain == host else len(domain) if domain != "*" else 0
        return (closeness, len(route.prefix)) if fits and path.startswith(route.prefix) else None

    ranked = [(order, route) for route in routes if (order := rank(route)) is not None]
    if not ranked:
        assert found is None
        return
    best = max(order for order, _ in ranked)
    fitting = [route for order, route in ranked if order == best]
    assert found is not None
    assert found.prefix == fitting[0].prefix
    assert {target.pool.app for target in found.targets} <= {route.app for route in fitting}
    assert found.targets
