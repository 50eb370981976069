"""What a route means (docs/routes.md), asked of a real gateway of each vendor: same document, same requests, same
answers. A new vendor needs its line in k4t.wiring.GATEWAYS; what it can't do its Capabilities say."""

from __future__ import annotations

import dataclasses
import http.client
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Self

import pytest

from k4t.errors import Differs
from k4t.master.publication.publish import Publisher
from k4t.model.hosts import Gateway
from k4t.registrar.document import Check, Endpoint, Route
from k4t.registrar.routing import decide, routing
from k4t.registrar.union import Union
from k4t.wiring import GATEWAYS
from tests.lab import Lab
from tests.publication import backend
from tests.publication.conftest import PROD, changing
from tests.publication.gate import HTTP, HTTPS, Answer, Gate, said
from tests.registrar.hands import ROUTES

pytestmark = pytest.mark.integration
VENDORS = sorted(set(GATEWAYS) - {"script"})


@pytest.fixture(scope="module", params=VENDORS)
def gate(request: pytest.FixtureRequest) -> Iterator[Gate]:
    """A host of its own, with its backends."""
    with Lab(name=f"routes-{os.getpid()}", nodes=0, gateways=1, dns=0, registry=False) as lab:
        host = lab.host("gw1")
        made = Gate(lab, host, Gateway("gw1", request.param, host.address, http=HTTP, https=HTTPS))
        made.set_up()
        yield made


def sites(*routes: Route) -> dict[Route, tuple[int, ...]]:
    """Each route leads to a backend of its own: an app a port."""
    return {route: (port,) for route, port in zip(routes, backend.HTTP, strict=False)}


# --- which route ---------------------------------------------------------------------------------------------

HOSTS = ("a.example.com", "A.Example.COM:8080", "b.example.com", "b.c.example.com", "x.org.com", "example.com",
         "api.example.com", "api.example.com:80", "elsewhere.org", "com")  # fmt: skip
PATHS = ("/", "/w", "/w/x", "/w/x/y?q=/any", "/wx", "/any", "/anything/else", "/v1", "/v1/y", "/v1xy", "/v", "/W")


def test_domains_and_prefixes(gate: Gate) -> None:
    """Exact, closest wildcard, any; longest prefix; on to wider domains: for every host and path as `decide` says."""
    led_to = sites(*ROUTES)
    gate.publish(led_to)
    assert gate.differences() == ()
    ports = {route.app: ports[0] for route, ports in led_to.items()}
    made = routing(Union(routes=tuple(sorted(ROUTES))))
    for host in HOSTS:
        for path in PATHS:
            rule = decide(made.http, host, path)
            answer = gate.get(host, path)
            wanted = (200, ports[rule.targets[0].pool.app], path) if rule else (404, 0, "")
            found = (answer.status, answer.port, answer.app["path"] if answer.port else "")
            assert found == wanted, f"{host}{path}"


def test_strip_prefix(gate: Gate) -> None:
    """The app sees what follows; the query stays; a prefix with a slash at its end too; / is nothing to strip."""
    gate.publish(
        sites(
            Route("api", domains=("a.example.com",), prefix="/api", strip_prefix=True),
            Route("cart", domains=("a.example.com",), prefix="/shop/cart/", strip_prefix=True),
            Route("dots", domains=("a.example.com",), prefix="/a.b+c", strip_prefix=True),
            Route("root", domains=("a.example.com",), strip_prefix=True),
        )
    )
    seen = {
        "/api": "/", "/api/": "/", "/api/x/y?a=b&c": "/x/y?a=b&c", "/api?a": "/?a", "/apix": "/x",
        "/shop/cart/1": "/1", "/shop/cart/": "/", "/shop/cart": "/shop/cart", "/a.b+c/1": "/1", "/aXb+c/1": "/aXb+c/1",
        "/x%20y": "/x%20y",
    }  # fmt: skip
    assert {path: gate.get("a.example.com", path).app["path"] for path in seen} == seen


def test_nothing_to_send_to(gate: Gate) -> None:
    """404 without a route, 503 without an endpoint."""
    gate.publish({Route("empty", domains=("a.example.com",)): ()})
    assert gate.get("a.example.com").status == 503
    assert gate.get("b.example.com").status == 404
    gate.publish({})
    assert gate.get("a.example.com").status == 404


def test_ipv6(gate: Gate) -> None:
    """Endpoints and clients of either family; a port of its own too."""
    routes: dict[Route, tuple[int, ...]] = {Route("web", domains=("a.example.com",)): (), Route("web", listen=6443): ()}
    six = Endpoint("web", "::1", backend.IPV6, container="c6")
    gate.publish(routes, elsewhere=(six,), checks=(Check("web", "main", interval_ms=500, timeout_ms=500),))
    assert gate.get("a.example.com").port == backend.IPV6
    for port in (80, 6443):
        argv = ["curl", "-s", "-g", "-H", "Host: a.example.com", f"http://[::1]:{port}/"]
        assert f'"port": {backend.IPV6}' in gate.host.exec(argv).stdout
    assert gate.differences() == ()


# --- redirects -----------------------------------------------------------------------------------------------


def test_redirects_to_https(gate: Gate) -> None:
    """301, the same host, path and query; the https port serves."""
    secure = gate.certificate("example", "a.example.com", "*.b.example.com")
    gate.publish(
        sites(
            Route("web", domains=("a.example.com", "*.b.example.com"), tls="example", redirect="https"),
            Route("open", domains=("a.example.com",), prefix="/.well-known/"),
        ),
        secure,
    )
    for host in ("a.example.com", "x.b.example.com"):
        answer = gate.get(host, "/x/y?a=b")
        assert (answer.status, answer.headers["location"]) == (301, f"https://{host}/x/y?a=b")
        assert gate.get(host, "/x/y?a=b", tls=True).app["path"] == "/x/y?a=b"
    assert gate.get("a.example.com", "/.well-known/x").status == 200
    assert gate.get("a.example.com", "/.well-known/x", tls=True).port == backend.HTTP[0], "not served there by its own"


@pytest.mark.parametrize("location", ["https://elsewhere.org/x?a=50%25&b#c", "/new/place"])
def test_redirects_elsewhere(gate: Gate, location: str) -> None:
    """302 with exactly that location, on both ports."""
    secure = gate.certificate("example", "a.example.com")
    gate.publish(
        {Route("web", domains=("a.example.com",), prefix="/old", redirect=location, tls="example"): ()}, secure
    )
    for tls in (False, True):
        answer = gate.get("a.example.com", "/old/1?q", tls=tls)
        assert (answer.status, answer.headers["location"]) == (302, location)
        assert gate.get("a.example.com", "/", tls=tls).status == 404
    assert gate.differences() == ()


# --- shares, affinity, balance -------------------------------------------------------------------------------


def test_weights(gate: Gate) -> None:
    """3 to 1; 0 is none; one app's two ports can share too."""
    blue, green, none = (
        Route("blue", domains=("a.example.com",), weight=3),
        Route("green", domains=("a.example.com",), weight=1),
        Route("none", domains=("a.example.com",), weight=0),
    )
    gate.publish({blue: (8001,), green: (8002,), none: (8003,)})
    found = Counter(gate.get("a.example.com").port for _ in range(160))
    assert set(found) == {8001, 8002}
    assert 90 <= found[8001] <= 150, found
    gate.publish(
        {
            dataclasses.replace(blue, weight=1): (8001,),
            dataclasses.replace(blue, port_name="admin", weight=1): (8002,),
        }
    )
    assert {gate.get("a.example.com").port for _ in range(40)} == {8001, 8002}


def test_a_share_without_endpoints(gate: Gate) -> None:
    """Its requests are answered 503, the other's are not."""
    blue, green = (Route(app, domains=("a.example.com",), weight=1) for app in ("blue", "green"))
    gate.publish({blue: (8001,), green: ()})
    assert {gate.get("a.example.com").status for _ in range(40)} == {200, 503}


def test_cookie_affinity(gate: Gate) -> None:
    """A client that shows its cookie gets one endpoint; clients without get all of them."""
    gate.publish({Route("my-web", domains=("a.example.com",), affinity="cookie"): (8001, 8002, 8003)})
    first = [gate.get("a.example.com") for _ in range(30)]
    assert {answer.port for answer in first} == {8001, 8002, 8003}
    for answer in first[:6]:
        cookie = answer.headers["set-cookie"].partition(";")[0]
        assert cookie.startswith("k4t_my_web=")
        assert "max-age" not in answer.headers["set-cookie"].lower(), "it ends with the session"
        again = [gate.get("a.example.com", "/x", headers={"Cookie": f"a=b; {cookie}"}) for _ in range(6)]
        assert {one.port for one in again} == {answer.port}
        assert "set-cookie" not in again[0].headers
    gate.publish({Route("my-web", domains=("a.example.com",), affinity="cookie"): (8001, 8002)})
    stale = {answer.headers["set-cookie"].partition(";")[0] for answer in first}
    found = {gate.get("a.example.com", headers={"Cookie": cookie}).port for cookie in stale}
    assert found <= {8001, 8002}, "whose endpoint is gone gets another"


def test_address_affinity(gate: Gate) -> None:
    """One client, one endpoint; another one when that is gone."""
    route = Route("web", domains=("a.example.com",), affinity="address")
    gate.publish({route: (8001, 8002, 8003)})
    (port,) = {gate.get("a.example.com").port for _ in range(12)}
    left = tuple(sorted({8001, 8002, 8003} - {port}))
    gate.publish({route: left})
    (other,) = {gate.get("a.example.com").port for _ in range(12)}
    assert other in left


def test_one_app_balanced_in_several_ways(gate: Gate) -> None:
    """Routes of one app may differ in balance, affinity and upstream, and serve at the same time."""
    domains = ("a.example.com",)
    gate.publish(
        {
            Route("web", domains=domains, prefix="/rr"): (8001, 8002),
            Route("web", domains=domains, prefix="/least", balance="least-requests"): (8001, 8002),
            Route("web", domains=domains, prefix="/cookie", affinity="cookie"): (8001, 8002),
            Route("web", domains=domains, prefix="/address", affinity="address"): (8001, 8002),
        }
    )
    for prefix, count in (("/rr", 2), ("/least", 2), ("/cookie", 2), ("/address", 1)):
        answers = [gate.get("a.example.com", prefix) for _ in range(24)]
        assert len({answer.port for answer in answers}) == count, prefix
        assert ("set-cookie" in answers[0].headers) == (prefix == "/cookie")
    assert gate.differences() == ()


def test_least_requests(gate: Gate) -> None:
    """While one endpoint is busy with many, the other gets the next."""
    gate.publish({Route("web", domains=("a.example.com",), balance="least-requests"): (8001, 8002)})
    slow = [threading.Thread(target=gate.get, args=("a.example.com", "/sleep/1")) for _ in range(8)]
    for thread in slow:
        thread.start()
    time.sleep(0.3)
    assert {gate.get("a.example.com").status for _ in range(8)} == {200}
    for thread in slow:
        thread.join()


# --- time-outs, retries, checks ------------------------------------------------------------------------------


def test_timeout_is_the_longest_silence(gate: Gate) -> None:
    """504 when the answer doesn't begin in time; one that keeps coming may take longer than that."""
    gate.publish(sites(Route("web", domains=("a.example.com",), timeout_ms=1500)))
    began = time.monotonic()
    assert gate.get("a.example.com", "/sleep/20").status == 504
    assert 1.3 < time.monotonic() - began < 20
    answer = gate.get("a.example.com", "/trickle/6/0.5")
    assert (answer.status, answer.body) == (200, b"......")
    assert gate.get("a.example.com", "/sleep/0.2").status == 200


def test_no_timeout(gate: Gate) -> None:
    """0 is none."""
    gate.publish(sites(Route("web", domains=("a.example.com",), timeout_ms=0)))
    assert gate.get("a.example.com", "/sleep/1").status == 200


def test_retries_are_of_connections(gate: Gate) -> None:
    """Where nobody listens another endpoint is tried, a POST too; what was sent is not sent again."""
    route = Route("web", domains=("a.example.com",), retries=1)
    off = (Check("web", "main", "none"),)
    gate.publish({route: (8001, 9)}, checks=off)
    for _ in range(12):
        answer = gate.get("a.example.com", method="POST", body=b"hello")
        assert (answer.status, answer.app["body"]) == (200, "hello")
    assert gate.get("a.example.com", "/sick").status == 500
    gate.publish({route: (9,)}, checks=off)
    assert gate.get("a.example.com").status in {502, 503}


def test_sick_endpoints_get_nothing(gate: Gate) -> None:
    """The gateway's own check: by status, and by connecting."""
    if not gate.capabilities.active_checks:
        pytest.skip("it has no active checks")
    tcp = Check("web", "main", "tcp", interval_ms=300, timeout_ms=300, retries=2)
    route = Route("web", domains=("a.example.com",), retries=0)
    gate.publish({route: (8001, 8002)}, checks=(dataclasses.replace(tcp, kind="http", path="/health", status_max=299),))
    assert {gate.get("a.example.com").port for _ in range(12)} == {8001, 8002}
    with pytest.raises(Differs):
        gate.publish({route: (8001, 9)}, checks=(tcp,))
    assert within(10, lambda: {gate.get("a.example.com").status for _ in range(12)} == {200})
    assert {gate.get("a.example.com").port for _ in range(12)} == {8001}
    with pytest.raises(Differs):
        gate.publish({route: (8001, 8002)}, checks=(dataclasses.replace(tcp, kind="http", path="/sick"),))
    assert within(10, lambda: gate.get("a.example.com").status == 503)


def within(patience_s: float, true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.1)
    return False


# --- what the app sees ---------------------------------------------------------------------------------------


def test_headers(gate: Gate) -> None:
    """Host as it came; the client appended to X-Forwarded-For; X-Forwarded-Proto set, whatever the client claims."""
    secure = gate.certificate("example", "a.example.com")
    gate.publish(sites(Route("web", domains=("a.example.com",), tls="example")), secure)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((gate.address, 9))
        me = probe.getsockname()[0]
    plain = gate.get("a.example.com").app["headers"]
    assert (plain["host"], plain["x-forwarded-for"], plain["x-forwarded-proto"]) == ("a.example.com", me, "http")
    claims = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "gopher"}
    seen = gate.get("a.example.com", tls=True, headers=claims).app["headers"]
    assert seen["x-forwarded-for"].replace(" ", "") == f"192.0.2.1,{me}"
    assert seen["x-forwarded-proto"] == "https"
    odd = gate.get("A.example.com:8080").app["headers"]["host"]
    assert odd == "A.example.com:8080"


@pytest.mark.parametrize("tls", [False, True])
def test_websocket(gate: Gate, tls: bool) -> None:
    """An upgrade goes through, and bytes both ways after it."""
    secure = gate.certificate("example", "a.example.com")
    gate.publish(sites(Route("web", domains=("a.example.com",), tls="example")), secure)
    upgrade = "GET /ws HTTP/1.1\r\nHost: a.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    with gate.line(HTTPS if tls else HTTP, tls="a.example.com" if tls else "") as connection:
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        connection.sendall((upgrade + key).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(4096)
        assert head.split()[1] == b"101"
        for word in (b"ping", b"pong"):
            connection.sendall(word)
            assert connection.recv(4096) == word


def test_upstream_tls(gate: Gate) -> None:
    """The app is spoken to in TLS; whose certificate it is doesn't matter."""
    if not gate.capabilities.upstream_tls:
        pytest.skip("it can't")
    gate.publish(
        {Route("web", domains=("a.example.com",), upstream="tls"): (backend.TLS,)},
        checks=(Check("web", "main", "http", "/health", interval_ms=500, timeout_ms=500),),
    )
    assert gate.get("a.example.com").port == backend.TLS


def test_upstream_h2c(gate: Gate) -> None:
    """HTTP/2 without TLS."""
    if not gate.capabilities.upstream_h2c:
        pytest.skip("it can't")
    gate.publish(
        {Route("web", domains=("a.example.com",), upstream="h2c"): (backend.H2C,)},
        checks=(Check("web", "main", "http", "/", interval_ms=500, timeout_ms=500),),
    )
    assert gate.get("a.example.com").body == b"HTTP/2.0"


# --- TLS -----------------------------------------------------------------------------------------------------


def test_certificates_by_name(gate: Gate) -> None:
    """Each domain shows its own, wildcards for what lies under them; others get no connection; Host decides."""
    one, two = gate.certificate("one", "a.example.com"), gate.certificate("two", "*.example.com", "b.org")
    gate.publish(
        sites(
            Route("one", domains=("a.example.com",), tls="one"),
            Route("two", domains=("*.example.com", "b.org"), tls="two"),
            Route("plain", domains=("a.example.com",), prefix="/plain"),
            Route("other", domains=("c.org",)),
        ),
        one,
        two,
    )
    assert gate.get("a.example.com", tls=True).port == 8001
    assert gate.get("x.example.com", tls=True).port == 8002
    assert gate.get("b.org", tls=True).port == 8002
    assert gate.get("a.example.com", "/plain").port == 8003
    assert gate.get("a.example.com", "/plain", tls=True).port == 8001, "without tls it is not served there"
    for stranger in ("c.org", None):
        with pytest.raises(OSError):  # noqa: PT011 - refused or reset: the vendor's choice
            gate.get("c.org", tls=True, sni=stranger)
    assert gate.get("b.org", tls=True, sni="a.example.com").port == 8002
    assert gate.get("c.org", tls=True, sni="a.example.com").status == 404
    assert gate.differences() == ()


def test_a_certificate_for_any_name(gate: Gate) -> None:
    """A route for any domain is served to clients that say no name, or one that nobody knows."""
    one, rest = gate.certificate("one", "a.example.com"), gate.certificate("rest", "rest.example.com")
    gate.publish(sites(Route("one", domains=("a.example.com",), tls="one"), Route("rest", tls="rest")), one, rest)
    assert gate.get("a.example.com", tls=True).port == 8001
    assert gate.get("whoever.org", tls=True, sni="rest.example.com").port == 8002
    assert gate.get("whoever.org", tls=True, sni=None).port == 8002


def test_files_of_the_operator(gate: Gate) -> None:
    """A certificate that stands on the gateway already is used where it is, for https and ports of their own."""
    theirs = gate.operators_files("theirs", "a.example.com")
    gate.publish(
        {
            Route("web", domains=("a.example.com",), tls="theirs"): (8001,),
            Route("db", listen=5433, tls="theirs"): (8020,),
        },
        theirs,
    )
    assert gate.get("a.example.com", tls=True).port == 8001
    with gate.line(5433, tls="a.example.com") as connection:
        assert said(connection, b"one") == b"8020:one"
    assert gate.differences() == ()


def test_http2_is_offered(gate: Gate) -> None:
    """By ALPN, on the https port."""
    secure = gate.certificate("example", "a.example.com")
    gate.publish(sites(Route("web", domains=("a.example.com",), tls="example")), secure)
    context = gate.authority.trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    plain = socket.create_connection((gate.address, HTTPS), 5)
    with context.wrap_socket(plain, server_hostname="a.example.com") as connection:
        assert connection.selected_alpn_protocol() == "h2"
        assert connection.version() in {"TLSv1.2", "TLSv1.3"}


def asked(connection: socket.socket) -> int:
    """The status of one answer on a connection that stays open; all of it is read, however many pieces it comes in."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
    answer = http.client.HTTPResponse(connection, method="GET")
    answer.begin()
    answer.read()
    return answer.status


def test_a_renewed_certificate(gate: Gate) -> None:
    """It is shown after the publication; an open connection goes on (nginx ends it where it is idle)."""
    route = Route("web", domains=("a.example.com",), tls="example")
    gate.publish(sites(route), gate.certificate("example", "a.example.com"))
    before = gate.serial("a.example.com")
    with gate.line(HTTPS, tls="a.example.com") as connection:
        assert asked(connection) == 200
        gate.publish(sites(route), gate.certificate("example", "a.example.com"))
        assert gate.serial("a.example.com") != before
        if gate.gateway.driver == "nginx":
            return
        assert asked(connection) == 200


# --- ports of their own --------------------------------------------------------------------------------------


def test_tcp(gate: Gate) -> None:
    """A port of the gateway leads to the app, in TLS where it says so; it closes when the route goes."""
    secure = gate.certificate("example", "db.example.com")
    plain, tls = Route("db", listen=5432), Route("db", "admin", listen=5433, tls="example")
    gate.publish({plain: (8020,), tls: (8021,)}, secure)
    with gate.line(5432) as connection:
        assert said(connection, b"one") == b"8020:one"
        assert said(connection, b"two") == b"8020:two"
    with gate.line(5433, tls="db.example.com") as connection:
        assert said(connection, b"one") == b"8021:one"
    assert gate.differences() == ()
    gate.publish({plain: ()})
    with gate.line(5432) as connection:
        assert said(connection, b"one") == b""
    gate.publish({})
    assert within(5, lambda: refused(gate, 5432) and refused(gate, 5433))


def refused(gate: Gate, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((gate.address, port)) != 0


def test_tcp_affinity(gate: Gate) -> None:
    """One client, one endpoint."""
    gate.publish({Route("db", listen=5432, affinity="address"): (8020, 8021)})
    answers = set()
    for _ in range(8):
        with gate.line(5432) as connection:
            answers.add(said(connection, b"x"))
    assert len(answers) == 1


def test_udp(gate: Gate) -> None:
    """Where the vendor can: packets go to the app and back."""
    if not gate.capabilities.routes_udp:
        pytest.skip("it can't")
    gate.publish({Route("dns", listen=5353, protocol="udp"): (backend.UDP,)})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        answer = b""
        for _ in range(10):  # a packet may be lost
            client.sendto(b"hello", (gate.address, 5353))
            with suppress(TimeoutError):
                answer = client.recv(4096)
                break
    assert answer == b"%d:hello" % backend.UDP


# --- while it changes ----------------------------------------------------------------------------------------


class Load:
    """Requests one after the other, each on a connection of its own, until it is left."""

    def __init__(self, gate: Gate, *, tls: bool) -> None:
        self.gate, self.tls = gate, tls
        self.done = 0
        self.wrong: list[str] = []
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.end.is_set():
            self.done += 1
            try:
                answer: Answer | None = self.gate.get("a.example.com", tls=self.tls)
            except (OSError, ssl.SSLError) as error:
                self.wrong.append(repr(error))
            else:
                if answer is not None and answer.status != 200:
                    self.wrong.append(str(answer.status))

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end.set()
        self.thread.join()


def test_no_request_is_lost_while_all_changes(gate: Gate) -> None:
    """Members, domains, certificates, ports of their own come and go; http and https lose nothing."""
    web = Route("web", domains=("a.example.com",), tls="example")
    certificate = gate.certificate("example", "a.example.com")
    gate.publish({web: (8001, 8002)}, certificate)
    with Load(gate, tls=False) as plain, Load(gate, tls=True) as secure:
        for turn in range(4):
            gate.publish({web: (8001,), Route("new", domains=(f"n{turn}.org",)): (8004,)}, certificate)
            gate.publish({web: (8001, 8003), Route("db", listen=6000 + turn): (8020,)}, certificate)
            certificate = gate.certificate("example", "a.example.com", f"n{turn}.org")
            wide = dataclasses.replace(web, domains=("a.example.com", f"n{turn}.org"), affinity="address")
            gate.publish({wide: (8002, 8003)}, certificate)
            gate.publish({web: (8001, 8002)}, certificate)
    assert plain.done > 30
    assert secure.done > 30
    assert (plain.wrong, secure.wrong) == ([], [])


@pytest.mark.bench
def test_a_thousand_membership_changes(gate: Gate) -> None:
    """Endpoints come and go a thousand times, with health checks, in one run; no request fails.

    `pytest -m bench tests/publication/test_routes.py -s` prints the figures.
    """
    web = Route("web", domains=("a.example.com",))
    check = Check("web", "main", interval_ms=1000, timeout_ms=1000)
    gate.publish({web: (8001, 8002)}, checks=(check,))
    assert gate.member is not None
    publisher = Publisher([gate.member], PROD, "thousand")
    took_s = []
    with Load(gate, tls=False) as load:
        for turn in range(1000):
            ports = backend.HTTP[turn % 6], backend.HTTP[(turn + 1) % 6]
            began = time.monotonic()
            publisher.publish(
                "gateway", "default", changing("gateway", PROD, endpoints=tuple(gate.endpoints("web", *ports)))
            )
            took_s.append(time.monotonic() - began)
    took_s.sort()
    figures = f"median {took_s[500] * 1000:.0f} ms, p99 {took_s[990] * 1000:.0f} ms"
    print(f"\n{gate.gateway.driver}: 1000 changes, {figures}; {load.done} requests, {len(load.wrong)} lost")
    assert load.wrong == []
