"""HAProxy without an HAProxy: what is written (golden files, K4T_GOLDEN=write), and who comes and goes when."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k4t.registrar import haproxy_checker, haproxy_members, haproxy_socket
from k4t.registrar.document import Certificate, Check, Document, Endpoint, Route, make
from k4t.registrar.errors import VendorRefused
from k4t.registrar.haproxy import HAProxy
from k4t.registrar.haproxy_file import generation, ports, split, with_members
from k4t.registrar.haproxy_render import Members, Place, Rendered, render
from k4t.registrar.haproxy_socket import Server
from k4t.registrar.routing import routing
from k4t.registrar.store import Holding
from k4t.registrar.union import unite

pytestmark = pytest.mark.unit
GOLDEN = Path(__file__).parent / "golden"
HOME = "/var/lib/k4t/haproxy"

ALL = make(
    Document(
        "aaaa1111", "prod", "gateway", "default",
        endpoints=(
            Endpoint("web", "10.0.0.1", 8080), Endpoint("web", "10.0.0.2", 8080), Endpoint("six", "fd88::1", 80),
            Endpoint("db", "10.0.0.1", 5432, "main"), Endpoint("hand", "10.0.0.9", 1),
        ),
        checks=(
            Check("web", "main", "http", "/he'al%20th", 200, 299, (("Host", "web.example.com"), ("X-A", "a%b'c d"))),
            Check("db", "main", retries=2), Check("six", "main", "http"),
        ),
        routes=(
            Route("web", domains=("example.com", "*.example.com"), tls="example"),
            Route("web", domains=("a.example.com",), prefix="/a.b'c#/", strip_prefix=True, affinity="cookie"),
            Route("six", domains=("a.example.com",), prefix="/six", upstream="h2c", balance="least-requests"),
            Route("web", prefix="/there", redirect="https://x.org/%20a"),
            Route("web", domains=("s.example.com",), redirect="https", tls="example"),
            Route("web", domains=("w.example.com",), weight=9, retries=0, timeout_ms=1500),
            Route("six", domains=("w.example.com",), weight=1, retries=0, timeout_ms=1500),
            Route("db", listen=5432, affinity="address", timeout_ms=0),
            Route("db", listen=5433, tls="example"),
            Route("db", prefix="/sec", upstream="tls"),
        ),
        certificates=(Certificate("example", chain_path="/etc/c.pem", key_path="/etc/k.pem"),),
    )
)  # fmt: skip


def rendered(*, own: bool = True) -> Rendered:
    place = Place(HOME, 80, 443, own=own)
    return render(routing(unite([Holding(ALL, "t")])), place, {"aaaa1111/example": "CHAIN\nKEY\n", "example": "PEM\n"})


def golden(name: str, found: str) -> None:
    path = GOLDEN / name
    if os.environ.get("K4T_GOLDEN") == "write":
        path.write_text(found)
    assert found == path.read_text()


def told(made: Rendered) -> str:
    files = "".join(f"\n##### {path}\n{text}" for path, text in sorted(made.files.items()))
    return made.text + files


def test_everything_that_a_route_can_say() -> None:
    """Domains, prefixes, splits, redirects, certificates, ports of their own, checks: one file and its maps."""
    golden("haproxy.txt", told(rendered()))


def test_inside_a_foreign_one() -> None:
    """No port of ours but those for one app alone: the rest comes through backends that the operator's file names."""
    made = rendered(own=False)
    golden("haproxy-foreign.txt", told(made))
    assert set(ports(made.structure)) == {5432, 5433}


def test_nothing_published() -> None:
    """Every request is answered 404; what install writes beside it is the process's."""
    written = HAProxy("/", {"http": 80, "https": 443, "own": True, "binary": "/usr/sbin/haproxy"}).setup_files()
    golden("haproxy-setup.txt", "".join(f"##### {path}\n{text}\n" for path, text in sorted(written.items())))


def test_taken_apart_and_put_together() -> None:
    """Structure and members of a file are those that were written; the generation knows structure alone."""
    made = rendered()
    structure, members = split(made.text)
    assert structure == made.structure
    assert members == {name: dict(found.servers) for name, found in made.members.items()}
    assert with_members(structure, members) == made.text
    fewer: dict[str, dict[str, str]] = {name: {} for name in members}
    assert generation(with_members(structure, fewer)) == generation(made.text) != ""


def test_whatever_is_added_by_hand_is_structure() -> None:
    """A line of the operator's in k4t's file is another structure: it means a reload."""
    made = rendered()
    for line in ("    server x 10.0.0.1:1 backup", "    option forwardfor", "backend mine"):
        assert split(made.text + line + "\n")[0] != made.structure


def test_refused() -> None:
    """What HAProxy or this gateway can't do, named."""
    for route, words in (
        (Route("dns", listen=53, protocol="udp"), r"app dns \(listen 53\): HAProxy has no UDP"),
        (Route("web", listen=80), "app web: port 80 is the gateway's http port"),
        (Route("web", tls="x"), "has no https port"),
    ):
        with pytest.raises(VendorRefused, match=words):
            HAProxy("/", {"http": 80}).supports(
                Document("aaaa1111", "prod", "gateway", "default", routes=(route,))
            )  # fmt: skip


# --- who comes and goes --------------------------------------------------------------------------------------


def wanted(*names: str, backend: str = "web.main", check: bool = True) -> dict[str, Members]:
    options = "check inter 5000ms fall 3 rise 1" if check else ""
    return {backend: Members({name: name for name in names}, options)}


def server(name: str, backend: str = "web.main", *, state: str = "up") -> Server:
    at = name.removeprefix("probe:")
    return Server(backend, name, at, state != "down", state == "maint", state == "drain", state == "up")


def keys(*names: str) -> tuple[tuple[str, str], ...]:
    return tuple(("web.main", name) for name in names)


def test_some_stay() -> None:
    """What is withdrawn leaves at once where others serve."""
    found = haproxy_members.change(wanted("b:1", "c:1"), [server("a:1"), server("b:1")])
    assert (found.leaving, found.kept, found.fresh) == (keys("a:1"), (), keys("c:1"))


def test_all_are_exchanged() -> None:
    """The old ones stay until the new ones have passed; without a check there is nothing to wait for."""
    found = haproxy_members.change(wanted("c:1"), [server("a:1"), server("b:1")])
    assert (found.leaving, found.kept, found.fresh) == ((), keys("a:1", "b:1"), keys("c:1"))
    found = haproxy_members.change(wanted("c:1", check=False), [server("a:1")])
    assert (found.leaving, found.kept) == (keys("a:1"), ())


def test_nothing_is_left() -> None:
    """An app that is stopped goes at once, and a sick one stands in for nobody."""
    assert haproxy_members.change(wanted(), [server("a:1")]).leaving == keys("a:1")
    assert haproxy_members.change(wanted("c:1"), [server("a:1", state="down")]).leaving == keys("a:1")


def test_leftovers() -> None:
    """Servers in maintenance, and probes of a run that was killed, are deleted; one that is wanted comes back."""
    running = [server("a:1", state="maint"), server("probe:b:1", state="drain"), server("c:1", state="maint")]
    found = haproxy_members.change(wanted("c:1"), running)
    assert (found.leftover, found.fresh) == (keys("a:1", "probe:b:1"), keys("c:1"))
    there = set(keys("c:1"))
    lines = haproxy_members.add(wanted("c:1"), found.fresh, passed=there, there=there)
    assert lines == ["set server web.main/c:1 state ready"]


def test_a_reload_starts_with_what_has_passed() -> None:
    """In whatever backend of the app it did; the rest is added, proven, afterwards."""
    running = [server("a:1"), server("b:1", state="down"), server("x:1", "shop.main")]
    renamed = wanted("a:1", "b:1", "c:1", backend="web.main.cookie")
    assert haproxy_members.for_reload(renamed, running) == {"web.main.cookie": {"a:1": "a:1"}}
    assert haproxy_members.for_reload(wanted("c:1"), running) == {"web.main": {"a:1": "a:1"}}


def test_a_new_server_gets_no_traffic_before_its_check() -> None:
    """The probe is drained before it is up; one that has not passed is down before it is ready."""
    assert haproxy_members.probe(wanted("a:1"), keys("a:1"), set()) == [
        "add server web.main/probe:a:1 a:1 check inter 20ms fall 1 rise 1",
        "enable health web.main/probe:a:1",
        "set server web.main/probe:a:1 state drain",
        "set server web.main/probe:a:1 health down",
    ]
    assert haproxy_members.add(wanted("a:1"), keys("a:1"), set(), set())[2:] == [
        "set server web.main/a:1 state drain",
        "set server web.main/a:1 health down",
        "set server web.main/a:1 state ready",
    ]


# --- what HAProxy says ---------------------------------------------------------------------------------------


def test_its_words() -> None:
    """Its alerts, without process numbers, paths of our copy and what only counts them."""
    said = b"""[NOTICE]   (12) : haproxy version is 2.6.12
[ALERT]    (12) : config : parsing [/x/.check-1/k4t.cfg:9] : unknown keyword 'bogus'
[ALERT]    (12) : config : Error(s) found in configuration file : /x/.check-1/k4t.cfg
[ALERT]    (12) : config : Fatal errors found in configuration."""
    assert haproxy_checker.words(said, "/x/.check-1") == "config : parsing [k4t.cfg:9] : unknown keyword 'bogus'"


def test_the_files_of_a_running_one() -> None:
    """A foreign HAProxy is checked with its own files."""
    argv = [
        "/usr/sbin/haproxy",
        "-sf",
        "12",
        "-Ws",
        "-f",
        "/etc/haproxy/haproxy.cfg",
        "-p",
        "/run/h.pid",
        "-f",
        "k4t.cfg",
    ]
    assert haproxy_checker.file_options(argv, "/srv") == ["-f", "/etc/haproxy/haproxy.cfg", "-f", "/srv/k4t.cfg"]


def test_version_and_fingerprint() -> None:
    """2.6 is older than 2.10; a PEM text without a certificate has no fingerprint."""
    assert haproxy_socket.version({"Version": "2.10.1-1+deb12u4"}) > haproxy_socket.version({"Version": "2.6-dev3"})
    assert haproxy_socket.fingerprint("nothing") == haproxy_socket.fingerprint("")


def test_a_checker_that_is_killed(tmp_path: Path) -> None:
    """Told as such: HAProxy has refused nothing."""
    program = tmp_path / "haproxy"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    with pytest.raises(VendorRefused, match="haproxy -c was killed by signal 9"):
        haproxy_checker._run([str(program)], str(tmp_path))
