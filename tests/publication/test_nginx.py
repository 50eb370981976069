"""A real nginx, over SSH: on the same host as the other tests' Envoy, on ports of its own."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median

import pytest

from k4t.errors import Differs, StepError, VendorRefused
from k4t.model.hosts import Gateway
from k4t.registrar.document import Certificate, Endpoint, Route
from tests.lab import Host
from tests.load import server
from tests.load.run import Load
from tests.publication.conftest import OTHER, Site, backend, route, tcp
from tests.publication.door import Door

pytestmark = pytest.mark.integration
HOME = "/var/lib/k4t/nginx"
FILE = f"{HOME}/http.conf"
STREAM = f"{HOME}/stream.conf"
ROUTER = "/etc/k4t/nginx/router.conf"
HTTP, HTTPS = 8082, 8445
SERVERS = (8011, 8012, 8013)
FLIPS = int(os.environ.get("K4T_FLIPS", "12"))
ROUND = 50
RATE_PER_S = 300 if "K4T_FLIPS" in os.environ else 100


class NginxDoor(Door):
    """One nginx."""

    def __init__(self, site: Site, host: Host, *, http: int = HTTP) -> None:
        super().__init__(site, host, Gateway(f"ngx-{host.name}", "nginx", host.address, http=http, https=HTTPS))

    def workers(self, part: str = "router") -> set[str]:
        """Their pids: others after a reload."""
        found = self.host.exec(["sh", "-c", f"pgrep -P $(cat /run/k4t/nginx/{part}.pid)"], check=False)
        return set(found.stdout.split())

    def kill(self, signal: str) -> None:
        """All of it at once, and wait until nobody listens any more."""
        pids = " ".join(f"$(cat /run/k4t/nginx/{part}.pid)" for part in ("front", "router"))
        workers = " ".join(self.workers() | self.workers("front")) if signal == "KILL" else ""
        self.host.exec(["sh", "-c", f"kill -{signal} {pids} {workers}; true"])
        self.await_end()


@pytest.fixture(scope="module")
def installed(site: Site) -> NginxDoor:
    made = NginxDoor(site, site.gw)
    made.install()
    return made


@pytest.fixture
def door(installed: NginxDoor) -> Iterator[NginxDoor]:
    with installed.empty():
        yield installed


def until(connection: socket.socket, ends: bytes, begins: bytes = b"") -> None:
    """Read one answer whole: it may come in several pieces."""
    answer = b""
    while not answer.endswith(ends):
        piece = connection.recv(65536)
        assert piece, f"closed after {answer!r}"
        answer += piece
    assert answer.startswith(begins)


def test_publish_change_remove(door: NginxDoor) -> None:
    """Traffic follows the document: one replica, two, another one, none (503), no route (404)."""
    door.web(8001)
    assert door.get() == (200, "8001 / -")
    door.web(8001, 8002)
    assert door.ports() == {"8001", "8002"}
    door.web(8003)
    assert door.ports() == {"8003"}
    door.publish(endpoints=())
    assert door.get()[0] == 503
    door.publish(endpoints=(), checks=(), routes=())
    assert door.get()[0] == 404
    assert "8003" not in door.host.exec(["cat", FILE]).stdout


def test_clients_connections_stay(door: NginxDoor) -> None:
    """Members change behind a front that isn't loaded anew: a connection that a client keeps goes on."""
    door.web(8001)
    front, router = door.workers("front"), door.workers()
    request = b"GET / HTTP/1.1\r\nHost: web.example.com\r\n\r\n"
    with closing(socket.create_connection((door.host.address, door.http), 5)) as kept:
        for port in (8001, 8002, 8003):
            door.web(port)
            kept.sendall(request)
            until(kept, b"%d / -" % port)
    assert door.workers("front") == front
    assert not door.workers() & router


def test_open_connections_go_on(door: NginxDoor) -> None:
    """Through a port of its own, in a worker that takes no others any more; and a WebSocket."""
    both = (*backend(door.site, 8001), *backend(door.site, 8002, app="db"))
    routes = (route(), Route("db", listen=9200))
    door.publish(endpoints=both, routes=routes)
    request = b"GET / HTTP/1.1\r\nHost: db\r\n\r\n"
    upgrade = b"GET / HTTP/1.1\r\nHost: web.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with (
        closing(socket.create_connection((door.host.address, 9200), 5)) as line,
        closing(socket.create_connection((door.host.address, door.http), 5)) as upgraded,
    ):
        line.sendall(request)
        until(line, b"8002 / -")
        upgraded.sendall(upgrade)
        until(upgraded, b"\r\n\r\n", begins=b"HTTP/1.1 101 ")
        router = door.workers()
        door.publish(endpoints=(*backend(door.site, 8003), *backend(door.site, 8003, app="db")), routes=routes)
        assert not door.workers() <= router
        line.sendall(request)
        until(line, b"8002 / -")
        upgraded.sendall(b"ping")
        until(upgraded, b"ping")
    assert door.ports() == {"8003"}


def test_a_dead_replica_costs_no_request(door: NginxDoor) -> None:
    """nginx has no active checks: it finds out by a request, which goes to another endpoint. All dead: 503."""
    dead = Endpoint("web", door.host.address, 9)
    door.publish(endpoints=(*backend(door.site, 8001), dead), checks=(tcp(),), routes=(route(),))
    assert {door.get()[0] for _ in range(20)} == {200}
    door.publish(endpoints=(dead,))
    assert {door.get()[0] for _ in range(4)} == {503}


def test_a_silent_replica_costs_no_request(door: NginxDoor) -> None:
    """Its node is off, nothing comes back: who meets it waits for 2 s, and is answered by another."""
    off = Endpoint("web", door.host.address.rpartition(".")[0] + ".250", 80)
    door.publish(endpoints=(*backend(door.site, 8001), off), checks=(tcp(),), routes=(route(),))
    began = time.monotonic()
    assert {door.get()[0] for _ in range(12)} == {200}
    assert time.monotonic() - began > 1.9


def test_a_replica_that_recovers_is_sent_to(door: NginxDoor) -> None:
    """Also as the last one: when all have failed, all are tried."""
    door.publish(endpoints=(Endpoint("web", door.host.address, 8009),), routes=(route(),))
    assert {door.get()[0] for _ in range(3)} == {503}
    door.host.spawn("late", ["python3", "-m", "http.server", "8009", "--bind", door.host.address])
    try:
        for _ in range(100):
            if door.get()[0] == 200:
                break
            time.sleep(0.05)
        assert {door.get()[0] for _ in range(5)} == {200}
    finally:
        door.host.stop("late")


def test_idle_when_nothing_changed(door: NginxDoor) -> None:
    """The same content again, or another comment alone, is no reload."""
    door.web(8001)
    before, workers = door.observe(), door.workers()
    door.web(8001)
    assert door.observe().document == before.document
    door.host.exec(["sed", "-i", "1s/.*/# another comment/", FILE])
    assert door.observe().differences != ()
    door.web(8001)
    assert door.observe().differences == ()
    assert door.workers() == workers


def test_hand_edit_is_seen_and_healed(door: NginxDoor) -> None:
    """A file edited on the host is shown as a difference, loaded by nginx or not; the next publication heals it."""
    door.web(8001)
    address = door.host.address
    for loaded in (False, True):
        door.host.exec(["sed", "-i", f"s/{address}:8001 max_fails=1/{address}:8002 max_fails=1/", FILE])
        if loaded:
            door.host.exec(["nginx", "-c", ROUTER, "-s", "reload"])
            time.sleep(0.3)
            assert door.ports() == {"8002"}
        (said,) = door.observe().differences
        assert said == (
            f"{FILE} is not what k4t wrote: - server {address}:8001 max_fails=1 fail_timeout=5s;; "
            f"+ server {address}:8002 max_fails=1 fail_timeout=5s;"
        )
        door.web(8001)
        assert door.observe().differences == ()
        assert door.ports() == {"8001"}


def test_lost_files_are_healed(door: NginxDoor) -> None:
    """Files that were deleted come back; so does what somebody loaded without them."""
    door.web(8001)
    door.host.exec(["rm", "-f", FILE, STREAM])
    assert set(door.observe().differences) == {f"{FILE} is missing", f"{STREAM} is missing"}
    door.web(8001)
    assert door.observe().differences == ()
    door.host.exec(["sh", "-c", f"cp {FILE} /root/good; sed -i 's/return 200 [0-9a-f]*/return 200 mine/' {FILE}"])
    door.host.exec(["nginx", "-c", ROUTER, "-s", "reload"])
    time.sleep(0.3)
    door.host.exec(["cp", "/root/good", FILE])
    assert "nginx (router) runs configuration mine of k4t's, not" in door.observe().differences[0]
    door.web(8001)
    assert door.observe().differences == ()


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_restarted_it_serves_the_same(door: NginxDoor, signal: str) -> None:
    """Nothing is lost when nginx ends, in whatever way: it reads its files."""
    door.web(8001, 8002)
    door.kill(signal)
    state = door.observe()
    assert state.reachable
    assert "nginx (router) doesn't answer at unix:/run/k4t/nginx/router.sock" in state.differences[0]
    (started,) = [line for line in door.install() if "started as a daemon" in line]
    assert started.endswith("nginx -c /etc/k4t/nginx/router.conf, then /usr/sbin/nginx -c /etc/k4t/nginx/front.conf")
    assert door.ports() == {"8001", "8002"}
    assert door.observe().differences == ()


def test_stopped_at_commit(door: NginxDoor) -> None:
    """Stopped: the file is right, the read-back is pending, and it is said."""
    door.web(8001)
    door.kill("TERM")
    with pytest.raises(Differs, match="its files are in place and are read when it starts"):
        door.web(8002)
    door.install()
    assert door.ports() == {"8002"}


def test_nginx_refuses(door: NginxDoor) -> None:
    """What `nginx -t` refuses changes nothing, and its words are passed on."""
    door.web(8001)
    before = door.observe().document
    broken = Certificate("broken", chain_path="/etc/hostname", key_path="/etc/hostname")
    with pytest.raises(VendorRefused, match=r'nginx refuses it: cannot load certificate "/etc/hostname"'):
        door.publish(routes=(route(tls="broken"),), certificates=(broken,))
    after = door.observe()
    assert after.document == before
    assert after.differences == ()
    assert door.get()[0] == 200


def test_nginx_refuses_at_commit(door: NginxDoor) -> None:
    """Its checker was content, nginx itself doesn't load it: the last good file stays, and serves."""
    door.web(8001)
    good = door.host.exec(["cat", FILE]).stdout
    door.host.exec(["sh", "-c", f"cp -p {ROUTER} /root/router.conf; echo 'nonsense;' >> {ROUTER}"])
    try:
        with pytest.raises(VendorRefused, match=r'nginx refuses it: unknown directive "nonsense"'):
            door.web(8002)
        state = door.observe()
        assert not state.rendered
        assert door.ports() == {"8001"}
        assert door.host.exec(["cat", FILE]).stdout == good
    finally:
        door.host.exec(["cp", "-p", "/root/router.conf", ROUTER])
    door.web(8001, 8002)
    assert door.observe().rendered
    assert door.ports() == {"8001", "8002"}


def test_ports_that_are_taken(door: NginxDoor) -> None:
    """A port of the gateway itself, or of another program there: refused before anything changes. And h2c."""
    door.web(8001)
    cases = {
        f"port {HTTP} is the gateway's http port": Route("db", listen=HTTP),
        "port 8003/tcp of this host is in use by another program": Route("db", listen=8003),
        'a route of app db: nginx has no upstream="h2c"': route("db", domain="db.example.com", upstream="h2c"),
    }
    for words, wrong in cases.items():
        with pytest.raises(StepError, match=words):
            door.publish(routes=(route(), wrong))
    assert door.observe().differences == ()
    assert door.get()[0] == 200


def test_two_clusters(door: NginxDoor) -> None:
    """One app in two clusters adds up; one that goes leaves the other's alone."""
    door.web(8001)
    door.publish(OTHER, endpoints=backend(door.site, 8002), routes=(route(domain="ignored.example.com"),))
    assert door.ports() == {"8001", "8002"}
    assert door.get("ignored.example.com")[0] == 404
    door.publish(OTHER, endpoints=(), routes=())
    assert door.ports() == {"8001"}


def test_disk_full(door: NginxDoor) -> None:
    """No room for nginx's files: the path is named, what served before still does; later it goes on."""
    door.web(8001)
    full = "set -e; cp -a $0 /root/nginx; mount -t tmpfs -o size=64k tmpfs $0; cp -a /root/nginx/. $0; "
    door.host.exec(["sh", "-c", full + "head -c 1m /dev/zero > $0/filler || true", HOME])
    try:
        with pytest.raises(StepError, match=rf"can't write {FILE}.*No space left"):
            door.publish(routes=tuple(route(domain=f"d{number}.example.com") for number in range(80)))
        assert door.get()[0] == 200
    finally:
        door.host.exec(["umount", HOME])
    door.web(8001, 8002)
    assert door.ports() == {"8001", "8002"}
    assert door.observe().differences == ()


def test_members_change_without_a_lost_request(door: NginxDoor, tmp_path: Path) -> None:
    """Endpoints come, go and are exchanged, each time with a reload; clients keep connections, and none fails."""
    code = Path(server.__file__).read_text()
    for port in SERVERS:
        run = ["env", f"PORT={port}", "python3", "-c", code]
        door.host.spawn(f"server{port}", run, listens_on=port)
    try:
        door.web(*SERVERS[:2])
        time.sleep(0.5)
        sets = (SERVERS[:1], SERVERS[:2], SERVERS[1:], (SERVERS[0], SERVERS[2]), SERVERS[1:2])
        target = f"{door.host.address}:{door.http}"
        for done in range(0, FLIPS, ROUND):
            took = []
            with Load(tmp_path / "s.json", targets=[target], hosts=["web.example.com"], rate_per_s=RATE_PER_S) as load:
                for turn in range(done, min(done + ROUND, FLIPS)):
                    began = time.monotonic()
                    door.publish(endpoints=backend(door.site, *sets[turn % 5]))
                    took.append(time.monotonic() - began)
            report = load.report
            print(
                f"to {done + len(took)}: median {median(took):.3f} s, longest {max(took):.3f} s; {report.words()}",
                flush=True,
            )
            assert not report.lost, report.first_lost()
            assert len(report.samples) > 5 * len(took)
    finally:
        for port in SERVERS:
            door.host.stop(f"server{port}")


def test_install_again(door: NginxDoor) -> None:
    """A second install has nothing to do."""
    assert door.install()[0] == "nothing to do"


THEIRS = """
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
pid /run/theirs.pid;
error_log stderr;
events {}
http {
    access_log off;
    server { listen 8086; server_name theirs.example.com; return 200 theirs; }
    #http
}
#stream
"""


def test_a_foreign_nginx(site: Site) -> None:
    """Nothing of it is touched; with the lines that the install says, it serves k4t's routes beside its own."""
    door, conf = NginxDoor(site, site.ns, http=8086), "/etc/theirs.conf"
    door.host.exec(["sh", "-c", f"cat > {conf}"], input=THEIRS)
    door.host.spawn("theirs", ["nginx", "-c", conf, "-g", "daemon off;"], listens_on=8086)
    try:
        said = "\n".join(door.install())
        assert "an nginx that is not k4t's runs here" in said
        assert "started" not in said
        assert door.host.exec(["cat", conf]).stdout == THEIRS
        with pytest.raises(VendorRefused, match=f"{conf} must include k4t's files"):
            door.web(8001)
        http, stream = re.findall(r"  ((?:include|stream) .*)", said)
        assert http == f"include {FILE};"
        door.host.exec(["sed", "-i", f"s#\\#http#{http}#; s#\\#stream#{stream}#", conf])
        tcp_route = Route("db", listen=8887)
        door.publish(endpoints=(*backend(site, 8001), *backend(site, 8002, app="db")), routes=(route(), tcp_route))
        assert door.get() == (200, "8001 / -")
        assert door.get("theirs.example.com") == (200, "theirs")
        answer = door.host.exec(["curl", "-s", f"http://{door.host.address}:8887/"]).stdout
        assert answer.startswith("8002 /")
        assert door.observe().differences == ()
        door.host.exec(["sed", "-i", "s/stream {.*//", conf])
        door.host.exec(["nginx", "-c", conf, "-s", "reload"])
        time.sleep(0.3)
        assert door.observe().differences == (
            f"port 8887/tcp is not open; {conf} must include k4t's files (k4t gateway install says how)",
        )
    finally:
        door.host.stop("theirs")
        door.member().close()
