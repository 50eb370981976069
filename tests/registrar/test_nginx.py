"""What unions look like to nginx: golden files, byte for byte (rewrite them with K4T_GOLDEN=write); and that nothing a
document may say breaks out of its place."""

from __future__ import annotations

import dataclasses
import os
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k4t.errors import StepError
from k4t.gateway import install_nginx
from k4t.model.hosts import Gateway
from k4t.registrar import nginx_setup, nginx_text, survey
from k4t.registrar.document import Certificate, Endpoint, Route, make
from k4t.registrar.errors import VendorRefused
from k4t.registrar.nginx import Nginx
from k4t.registrar.store import Holding
from k4t.registrar.union import Union, unite
from k4t.remote.setup import Survey
from tests.registrar.test_render import OTHER, PROD

GOLDEN = Path(__file__).parent / "golden"
CONFIG = {"http": 80, "https": 443, "ipv6": True, "own": True}
FOREIGN = {**CONFIG, "own": False}
HIGH = {"http": 38080, "https": 38443, "own": True}
FULL = make(
    dataclasses.replace(
        PROD,
        endpoints=(*PROD.endpoints, Endpoint("shop", "10.0.0.9", 80)),
        certificates=(Certificate("example", chain_path="/etc/ssl/e.pem", key_path="/etc/ssl/e.key"),),
        routes=(
            *PROD.routes,
            Route("web", domains=("split.example.com",), weight=3),
            Route("shop", domains=("split.example.com",), weight=1, affinity="cookie"),
            Route("web", domains=("t.example.com", "*.t.example.com"), tls="example", redirect="https"),
            Route("web", domains=("t.example.com",), prefix="/api/", tls="example", strip_prefix=True, upstream="tls",
                  affinity="address"),
            Route("web", domains=("old.example.com",), redirect="/new?a=b"),
            Route("web", "admin", listen=9000, timeout_ms=0, tls="example", upstream="tls"),
            Route("game", listen=27015, protocol="udp", affinity="address"),
            Route("empty", listen=9001),
        ),
    )
)  # fmt: skip


def golden(name: str, found: str) -> None:
    path = GOLDEN / name
    if os.environ.get("K4T_GOLDEN") == "write":
        path.write_text(found)
    assert found == path.read_text()


@pytest.mark.unit
@pytest.mark.parametrize("name", ["http", "stream", "front"])
def test_our_own(name: str) -> None:
    """Two clusters, and all that a route can say: the router's two files, and the front's."""
    rendering = Nginx("/", CONFIG).render(unite([Holding(OTHER, "t2"), Holding(FULL, "t1")]))
    golden(f"nginx-{name}.conf", rendering[f"/var/lib/k4t/nginx/{name}.conf"])


@pytest.mark.unit
def test_an_operators() -> None:
    """The same routes to be included by somebody else's nginx: its ports, no front, nothing that would clash."""
    rendering = Nginx("/", FOREIGN).render(unite([Holding(OTHER, "t2"), Holding(FULL, "t1")]))
    assert sorted(rendering) == ["/var/lib/k4t/nginx/http.conf", "/var/lib/k4t/nginx/stream.conf"]
    golden("nginx-included.conf", rendering["/var/lib/k4t/nginx/http.conf"])


@pytest.mark.unit
def test_nothing() -> None:
    """Without documents: every domain is a 404."""
    rendering = Nginx("/", CONFIG).render(Union())
    golden("nginx-empty.conf", "".join(rendering[path] for path in sorted(rendering)))


@pytest.mark.unit
def test_main_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `k4t gateway install` writes; without the stream module there is no stream block."""
    monkeypatch.setattr(nginx_setup, "USERS", ("root",))
    texts = [nginx_setup.router("/run", "/http.conf", "/stream.conf", "/m/ngx_stream_module.so")]
    texts += [nginx_setup.front("/run", "/front.conf"), *nginx_setup.units("/usr/sbin/nginx", "/run").values()]
    golden("nginx-setup.conf", "\n".join(texts))
    assert "stream" not in nginx_setup.router("/run", "/http.conf", "/stream.conf", "")


@pytest.mark.unit
def test_generation() -> None:
    """Comments are no other configuration; anything else is."""
    assert nginx_text.generation("a;\n# x\n  b;") == nginx_text.generation("# y\na;\n\nb;\n")
    assert nginx_text.generation("a;", "b;") != nginx_text.generation("a;b;", "")


@pytest.mark.unit
def test_structure() -> None:
    """Who serves is none of it; how is."""
    alike = [
        "server 10.0.0.1:80 max_fails=1;",
        "  server [fd88::1]:80 backup;",
        "zone k4t_http 512k;",
        "return 200 ab;",
    ]
    assert {nginx_text.structure(line) for line in alike} == {""}
    for line in ("server {", "server_name 1.org;", "least_conn;", "return 503;"):
        assert nginx_text.structure(line) == line


@pytest.mark.unit
@pytest.mark.parametrize(
    ("route", "words"),
    [
        (Route("web", upstream="h2c"), 'a route of app web: nginx has no upstream="h2c"'),
        (Route("web", listen=80), "port 80 is the gateway's http port"),
        (Route("web", listen=9000), "nginx has no stream module here: apt-get install libnginx-mod-stream"),
    ],
)
def test_what_it_cannot(tmp_path: Path, route: Route, words: str) -> None:
    """Refused with the app's name. (Nothing was installed in this root: no stream block.)"""
    with pytest.raises(VendorRefused, match=words):
        Nginx(str(tmp_path), CONFIG).supports(make(dataclasses.replace(PROD, routes=(route,))))


@pytest.mark.unit
def test_short_time_outs_leave_room_for_all_tries() -> None:
    """Time to connect, tried (1 + retries) times, fits into the time-out."""
    assert nginx_text.connect_ms(60000, 1) == 2000
    assert nginx_text.connect_ms(0, 5) == 2000
    assert 3 * nginx_text.connect_ms(900, 2) <= 900


@pytest.mark.unit
def test_shares() -> None:
    """Hundredths of a percent, never none, the largest takes the rest."""
    routes = tuple(
        Route(f"a{number}", domains=("x.org",), weight=weight) for number, weight in enumerate((1, 1000000, 1, 333333))
    )
    endpoints = tuple(Endpoint(f"a{number}", "10.0.0.1", 80 + number) for number in range(4))
    (text,) = [t for p, t in Nginx("/", CONFIG).render(Union(endpoints, (), routes)).items() if p.endswith("http.conf")]
    shares = [line.split()[0] for line in text.splitlines() if "http://k4t.a" in line and "proxy_pass" not in line]
    assert shares == ["0.01%", "0.01%", "25.00%", "*"]


paths = st.text(st.sampled_from(string.ascii_letters + string.digits + string.punctuation), max_size=12)
redirects = st.text(st.sampled_from("abz09._~!&()*+,;=:@%/?#-"), max_size=12)


@pytest.mark.integration
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(paths, redirects, st.booleans()), min_size=1, max_size=8), st.booleans())
def test_nothing_breaks_out(tmp_path: Path, said: list[tuple[str, str, bool]], own: bool) -> None:
    """Whatever prefixes and redirects a document has, `nginx -t` takes them."""
    routes = tuple(
        Route("web", domains=("x.org",), prefix="/" + path, redirect="/" + redirect if bare else "", strip_prefix=strip)
        for (path, redirect, bare), strip in ((one, len(one[0]) % 2 == 0) for one in said)
    )
    document = make(dataclasses.replace(PROD, routes=routes))
    vendor = Nginx(str(tmp_path), {**HIGH, "own": own})
    vendor.check(vendor.render(unite([Holding(document, "t")])))


@pytest.mark.integration
def test_everything_is_taken(tmp_path: Path) -> None:
    """`nginx -t` takes the golden files, but for the certificate that isn't there."""
    for config in (HIGH, {**HIGH, "own": False}):
        vendor = Nginx(str(tmp_path), config)
        bare = dataclasses.replace(FULL, routes=tuple(dataclasses.replace(r, tls="") for r in FULL.routes))
        vendor.check(vendor.render(unite([Holding(OTHER, "t2"), Holding(make(bare), "t1")])))
        with pytest.raises(VendorRefused, match=r'cannot load certificate "/etc/ssl/e.pem"'):
            vendor.check(vendor.render(unite([Holding(FULL, "t1")])))
    assert list(tmp_path.iterdir()) == []


# --- install -----------------------------------------------------------------------------------------------------

GATEWAY = Gateway("gw1", "nginx", "10.0.0.1", http=80, https=443)


@pytest.mark.unit
def test_install_plans() -> None:
    """A bare host is ours; one without nginx is told what to install; half of ours is started anew."""
    assert install_nginx.plan_install(Survey(False, "/usr/sbin/nginx", (), False), GATEWAY).own
    with pytest.raises(StepError, match="apt-get install nginx libnginx-mod-stream"):
        install_nginx.plan_install(Survey(True, "", (), False), GATEWAY)
    router = (7, ("nginx: master process nginx -c /etc/k4t/nginx/router.conf",))
    front = (8, ("nginx: master process nginx -c /etc/k4t/nginx/front.conf -g daemon off;",))
    both = install_nginx.plan_install(Survey(True, "/usr/sbin/nginx", (router, front), True), GATEWAY)
    half = install_nginx.plan_install(Survey(True, "/usr/sbin/nginx", (router,), True), GATEWAY)
    assert (both.own, both.pid, half.own, half.pid) == (True, 8, True, 0)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("title", "conf"),
    [
        ("nginx: master process /usr/sbin/nginx -g daemon on; master_process on;", "/etc/nginx/nginx.conf"),
        ("nginx: master process nginx -c /srv/n.conf", "/srv/n.conf"),
    ],
)
def test_a_foreign_nginx_is_told_what_to_include(title: str, conf: str) -> None:
    """In the file that it was started with; ours is not started."""
    plan = install_nginx.plan_install(Survey(True, "/usr/sbin/nginx", ((9, (title,)),), True), GATEWAY)
    assert not plan.own
    assert plan.config["conf"] == conf
    assert f"Add to {conf}," in plan.notes[0]
    assert "include /var/lib/k4t/nginx/http.conf;" in plan.notes[0]
    assert "stream { include /var/lib/k4t/nginx/stream.conf; }" in plan.notes[0]


@pytest.mark.unit
def test_processes_are_seen_by_their_titles() -> None:
    """This interpreter is one; a name alone is none."""
    here = Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode()
    assert os.getpid() in [pid for pid, _ in survey.processes(os.path.basename(here))]
    assert survey.processes("no-such-program") == []


@pytest.mark.unit
def test_the_parts_agree() -> None:
    """The client knows the paths that the registrar writes."""
    assert (install_nginx.ROUTER, install_nginx.FRONT) == (nginx_setup.ROUTER, nginx_setup.FRONT)
    assert nginx_setup.UNIT.endswith("/" + install_nginx.UNIT)
