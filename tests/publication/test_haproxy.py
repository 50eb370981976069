"""A real HAProxy, over SSH: on the same host as the other tests' Envoy, on ports of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from k4t.errors import Differs, StepError, VendorRefused
from k4t.model.hosts import Gateway
from k4t.registrar.document import Certificate, Check, Endpoint
from tests.lab import Host
from tests.publication.conftest import OTHER, Site, backend, route, tcp
from tests.publication.door import Door

pytestmark = pytest.mark.integration
HOME = "/var/lib/k4t/haproxy"
FILE = f"{HOME}/k4t.cfg"
CONFIG = "/var/lib/k4t/registrar/haproxy/config.json"
HTTP, HTTPS = 8081, 8444
FLIPS = int(os.environ.get("K4T_FLIPS", "20"))
"""Changes under load; 1,000 of them take some minutes."""
RELOADS = max(5, FLIPS // 10)


class Proxy(Door):
    """One HAProxy."""

    def __init__(self, site: Site, host: Host, *, http: int = HTTP) -> None:
        super().__init__(site, host, Gateway(f"hap-{host.name}", "haproxy", host.address, http=http, https=HTTPS))

    def ask(self, *commands: str) -> str:
        """Over HAProxy's own socket, as an operator would."""
        code = (
            "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
            "s.sendall(sys.argv[2].encode()+b'\\n'); print(b''.join(iter(lambda: s.recv(65536), b'')).decode())"
        )
        return self.host.exec(["python3", "-c", code, f"{HOME}/admin.sock", "; ".join(commands)]).stdout

    def pid(self) -> str:
        """Of the worker: another one after a reload."""
        return next(line.split()[1] for line in self.ask("show info").splitlines() if line.startswith("Pid:"))

    def kill(self) -> None:
        """SIGKILL for master and worker, and wait until nobody listens any more."""
        self.host.exec(["sh", "-c", f"kill -9 $(cat /run/k4t-haproxy.pid) {self.pid()}; true"])
        self.await_end()


@pytest.fixture(scope="module")
def installed(site: Site) -> Proxy:
    made = Proxy(site, site.gw)
    made.install()
    return made


@pytest.fixture
def proxy(installed: Proxy) -> Iterator[Proxy]:
    with installed.empty():
        yield installed


def test_publish_change_remove(proxy: Proxy) -> None:
    """Traffic follows the document: one replica, two, another one, none (503), no route (404)."""
    proxy.web(8001)
    assert proxy.get() == (200, "8001 / -")
    proxy.web(8001, 8002)
    assert proxy.ports() == {"8001", "8002"}
    proxy.web(8003)
    assert proxy.ports() == {"8003"}
    proxy.publish(endpoints=())
    assert proxy.get()[0] == 503
    proxy.publish(endpoints=(), checks=(), routes=())
    assert proxy.get()[0] == 404
    assert "8001" not in proxy.ask("show servers state")


def test_members_change_without_a_reload(proxy: Proxy) -> None:
    """Who serves changes in the running process, and the file is the same as after a reload."""
    proxy.web(8001)
    worker = proxy.pid()
    proxy.web(8001, 8002)
    proxy.web(8002, 8003)
    assert proxy.pid() == worker
    lines = proxy.host.exec(["cat", FILE]).stdout.splitlines()
    servers = [line.split()[1] for line in lines if line.startswith("    server ")]
    assert servers == [f"{proxy.host.address}:{port}" for port in (8002, 8003)]
    proxy.publish(routes=(route(), route(domain="www.example.com")))
    assert proxy.pid() != worker
    assert proxy.get("www.example.com")[0] == 200
    assert proxy.observe().differences == ()


def test_a_sick_replica_gets_no_traffic(proxy: Proxy) -> None:
    """A new endpoint counts when HAProxy's own check has passed; the dead one is named and left out."""
    dead = Endpoint("web", proxy.host.address, 9)
    with pytest.raises(Differs, match=f"web.main: {proxy.host.address}:9 fails HAProxy's health check"):
        proxy.publish(
            endpoints=(*backend(proxy.site, 8001), dead), checks=(tcp(timeout_ms=500),), routes=(route(retries=0),)
        )
    assert {proxy.get()[0] for _ in range(10)} == {200}
    proxy.publish(endpoints=(dead,))
    assert proxy.get()[0] == 503


def test_a_replica_that_recovers_is_sent_to(proxy: Proxy) -> None:
    """HAProxy's check brings it in by itself, while the master sleeps."""
    late = Endpoint("web", proxy.host.address, 8009)
    with pytest.raises(Differs, match="8009 fails"):
        proxy.publish(endpoints=(late,), checks=(tcp(timeout_ms=500),), routes=(route(),))
    proxy.host.spawn("late", ["python3", "-m", "http.server", "8009", "--bind", proxy.host.address])
    try:
        for _ in range(100):
            if proxy.get()[0] == 200:
                break
            time.sleep(0.05)
        assert proxy.get()[0] == 200
    finally:
        proxy.host.stop("late")


def test_a_replica_is_given_the_time_its_check_takes(proxy: Proxy) -> None:
    """An answer after 0.3 s, of 4 s allowed: published, and healthy in HAProxy's eyes, when `publish` returns; where
    all endpoints are exchanged, the old ones stay until then."""
    slow = Check("web", "main", "http", "/slow", 200, 299, interval_ms=1000, timeout_ms=4000)
    proxy.publish(endpoints=backend(proxy.site, 8001), checks=(slow,), routes=(route(),))
    proxy.publish(endpoints=backend(proxy.site, 8001, 8002))
    proxy.publish(endpoints=backend(proxy.site, 8003))
    assert proxy.ports() == {"8003"}


def test_idle_when_nothing_changed(proxy: Proxy) -> None:
    """The same content again changes nothing."""
    proxy.web(8001)
    before, worker = proxy.observe(), proxy.pid()
    proxy.web(8001)
    assert proxy.observe().document == before.document
    assert proxy.pid() == worker


def test_hand_edit_of_the_file(proxy: Proxy) -> None:
    """Another member, another rule: each is a difference, loaded by HAProxy or not, and healed."""
    proxy.web(8001)
    for edit in ("s/server .*/&\\n    server 10.9.9.9:1 10.9.9.9:1/", "s/retries 1/retries 7/"):
        proxy.host.exec(["sed", "-i", edit, FILE])
        assert proxy.observe().differences == (f"{FILE} is not what k4t wrote",)
        proxy.host.exec(["sh", "-c", "kill -USR2 $(cat /run/k4t-haproxy.pid)"])
        time.sleep(0.5)
        assert f"{FILE} is not what k4t wrote" in proxy.observe().differences
        proxy.web(8001)
        assert proxy.observe().differences == ()
        assert proxy.ports() == {"8001"}
        assert "10.9.9.9" not in proxy.ask("show servers state")


def test_hand_edit_at_run_time(proxy: Proxy) -> None:
    """Somebody used the socket: a server in maintenance, drained, led elsewhere, added, another rule: seen, healed."""
    proxy.web(8001, 8002)
    address = proxy.host.address
    rules = next(word for word in proxy.ask("show map").split() if "http-rules" in word).strip("()")
    cases = {
        f"set server web.main/{address}:8001 state maint": f"web.main: {address}:8001 is in maintenance",
        f"set server web.main/{address}:8002 state drain": f"web.main: {address}:8002 is drained",
        f"set server web.main/{address}:8002 addr {address} port 8003": f"{address}:8002 leads to {address}:8003",
        f"add server web.main/x {address}:8003; enable server web.main/x": (
            f"web.main: {address}:8003 is served but not published"
        ),
        f"set map {rules} web.example.com/ shop.main": "web.example.com/ web.main 60000 is not served",
    }
    for command, said in cases.items():
        proxy.ask(command)
        assert said in " ".join(proxy.observe().differences), command
        proxy.web(8001, 8002)
        assert proxy.observe().differences == (), command
        assert proxy.ports() == {"8001", "8002"}, command


def test_lost_files_are_healed(proxy: Proxy) -> None:
    """Files that were deleted come back."""
    proxy.web(8001)
    proxy.host.exec(["sh", "-c", f"rm -f {FILE} {HOME}/maps/*"])
    assert len(proxy.observe().differences) >= 2
    proxy.web(8001)
    assert proxy.observe().differences == ()


def test_restarted_it_serves_the_same(proxy: Proxy) -> None:
    """Nothing is lost when HAProxy is killed: what was changed at run time stands in its file."""
    proxy.web(8001)
    proxy.web(8001, 8002)
    proxy.kill()
    state = proxy.observe()
    assert state.reachable
    assert f"HAProxy doesn't answer at {HOME}/admin.sock" in state.differences[0]
    assert any("started as a daemon" in line for line in proxy.install())
    assert proxy.ports() == {"8001", "8002"}
    assert proxy.observe().differences == ()


def test_stopped_at_commit(proxy: Proxy) -> None:
    """Stopped: the file is right, the read-back is pending, and it is said."""
    proxy.web(8001)
    proxy.kill()
    with pytest.raises(Differs, match="its files are in place and are read when it starts"):
        proxy.web(8002)
    proxy.install()
    assert proxy.ports() == {"8002"}


def test_haproxy_refuses(proxy: Proxy) -> None:
    """What `haproxy -c` refuses changes nothing, and its words are passed on."""
    proxy.web(8001)
    before = proxy.observe().document
    with pytest.raises(VendorRefused, match=r"HAProxy refuses it: .*inter"):
        proxy.publish(checks=(dataclasses.replace(tcp(), interval_ms=0),))
    after = proxy.observe()
    assert after.document == before
    assert after.differences == ()
    assert proxy.get()[0] == 200


def test_haproxy_refuses_at_commit(proxy: Proxy) -> None:
    """Its checker is fooled, HAProxy itself doesn't load it: the last good file stays, and serves."""
    proxy.web(8001)
    good = proxy.host.exec(["cat", FILE]).stdout
    proxy.host.exec(["cp", CONFIG, "/root/config.json"])
    proxy.host.exec(["sed", "-i", "s#/usr/sbin/haproxy#/bin/true#", CONFIG])
    try:
        with pytest.raises(VendorRefused, match="HAProxy has not loaded"):
            proxy.publish(checks=(dataclasses.replace(tcp(), interval_ms=0),))
        assert not proxy.observe().rendered
        assert proxy.get()[0] == 200
        assert proxy.host.exec(["cat", FILE]).stdout == good
    finally:
        proxy.host.exec(["cp", "/root/config.json", CONFIG])
    proxy.web(8001, 8002)
    assert proxy.observe().rendered
    assert proxy.ports() == {"8001", "8002"}


def test_ports_that_are_taken(proxy: Proxy) -> None:
    """A port of the gateway itself, or of another program there, and UDP: refused before anything changes."""
    proxy.web(8001)
    cases = {
        (HTTP, "tcp"): f"port {HTTP} is the gateway's http port",
        (8002, "tcp"): "port 8002 of this host is in use by another program",
        (5353, "udp"): r"a route of app db \(listen 5353\): HAProxy has no UDP",
    }
    for (port, protocol), words in cases.items():
        with pytest.raises(StepError, match=words):
            proxy.publish(routes=(route(), route("db", listen=port, protocol=protocol)))
    assert proxy.observe().differences == ()
    assert proxy.get()[0] == 200


def test_two_clusters(proxy: Proxy) -> None:
    """One app in two clusters adds up; one that goes leaves the other's alone."""
    proxy.web(8001)
    proxy.publish(OTHER, endpoints=backend(proxy.site, 8002), routes=(route(domain="ignored.example.com"),))
    assert proxy.ports() == {"8001", "8002"}
    assert proxy.get("ignored.example.com")[0] == 404
    proxy.publish(OTHER, endpoints=(), routes=())
    assert proxy.ports() == {"8001"}


def test_requests_are_counted_for_each_clusters_own_endpoints(proxy: Proxy) -> None:
    """Ten over one connection are ten, in all backends of the app together; what another cluster's endpoints get is not
    ours."""
    routes = (route(), route(domain="other.example.com", retries=0))
    proxy.publish(endpoints=backend(proxy.site, 8001), routes=routes)
    proxy.publish(OTHER, endpoints=backend(proxy.site, 8002), routes=(route(),))
    for name in ("web", "other"):
        url = f"http://{proxy.host.address}:{proxy.http}/?n=[1-10]"
        proxy.host.exec(["curl", "-s", "-H", f"Host: {name}.example.com", url])
    mine, other = proxy.member().counters(["web"]), proxy.member(OTHER).counters(["web"])
    place = f"{proxy.host.address}:800"
    assert (set(mine), set(other)) == ({("web", f"{place}1")}, {("web", f"{place}2")})
    assert sum(mine.values()) + sum(other.values()) == 20
    assert mine[("web", f"{place}1")] == 10
    assert proxy.member().counters(["api"]) == {}


def test_disk_full(proxy: Proxy) -> None:
    """No room for HAProxy's files: the path is named, what served before still does; later it goes on."""
    proxy.web(8001)
    full = "set -e; cp -a $0 /root/haproxy; mount -t tmpfs -o size=128k tmpfs $0; cp -a /root/haproxy/. $0; "
    proxy.host.exec(["sh", "-c", full + "head -c 1m /dev/zero > $0/filler || true", f"{HOME}/maps"])
    try:
        with pytest.raises(StepError, match=rf"can't write {HOME}/maps/.*No space left"):
            proxy.publish(routes=(route(), route(domain="www.example.com")))
        assert proxy.get()[0] == 200
    finally:
        proxy.host.exec(["umount", f"{HOME}/maps"])
    proxy.web(8001, 8002)
    assert proxy.ports() == {"8001", "8002"}
    assert proxy.observe().differences == ()


LOAD = """
import http.client, json, os, sys, threading
address, port, stop, again = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] == "again"
done, closed, bad = [0, 0, 0], [], []
def ask(place, keep):
    c = None
    while not os.path.exists(stop):
        used = c is not None
        c = c or http.client.HTTPConnection(address, port, timeout=10)
        try:
            c.request("GET", "/", headers={"Host": "web.example.com"})
            a = c.getresponse(); a.read(); done[place] += 1
            if a.status != 200: bad.append(a.status)
            if not keep: c.close(); c = None
        except Exception as e:
            (closed if used and again else bad).append(repr(e)); c.close(); c = None
threads = [threading.Thread(target=ask, args=(place, place == 0)) for place in range(3)]
[t.start() for t in threads]; [t.join() for t in threads]
print(json.dumps([sum(done), len(closed), bad[:20]]))
"""
SETS = ((8001,), (8001, 8002), (8002, 8003), (8001, 8003), (8002,))


class Load:
    """Three clients, one of them on a connection that it keeps. `again`: it asks again where that was closed."""

    def __init__(self, proxy: Proxy, *, again: bool = False) -> None:
        self.proxy = proxy
        proxy.host.exec(["sh", "-c", "cat > /root/load.py; rm -f /root/stop; : > /root/load.out"], input=LOAD)
        argv = f"{proxy.host.address} {proxy.http} /root/stop {'again' if again else 'once'}"
        proxy.host.spawn("load", ["sh", "-c", f"exec python3 /root/load.py {argv} > /root/load.out"])

    def end(self) -> tuple[int, int, list[Any]]:
        """(requests answered, connections found closed, what went wrong)."""
        self.proxy.host.exec(["touch", "/root/stop"])
        try:
            for _ in range(200):
                if out := self.proxy.host.exec(["cat", "/root/load.out"]).stdout:
                    done, closed, bad = json.loads(out)
                    return done, closed, bad
                time.sleep(0.1)
        finally:
            self.proxy.host.stop("load")
        raise AssertionError("the load didn't end")


@pytest.mark.timeout(900)
def test_members_change_without_a_lost_request(proxy: Proxy) -> None:
    """Endpoints come, go and are exchanged under load: no request fails, no connection is closed."""
    proxy.web(8001, 8002)
    worker = proxy.pid()
    load = Load(proxy)
    for turn in range(FLIPS):
        proxy.publish(endpoints=backend(proxy.site, *SETS[turn % 5]))
    done, _, bad = load.end()
    print(f"{done} requests during {FLIPS} changes")
    assert bad == []
    assert done > 5 * FLIPS
    assert proxy.pid() == worker


@pytest.mark.timeout(900)
def test_reloads_without_a_lost_request(proxy: Proxy) -> None:
    """Routes change under load: no request fails; a client whose idle connection was closed opens another."""
    proxy.web(8001, 8002)
    load = Load(proxy, again=True)
    for turn in range(RELOADS):
        routes = (route(), route(domain=f"t{turn}.example.com"))
        proxy.publish(endpoints=backend(proxy.site, *SETS[turn % 5]), routes=routes)
    done, closed, bad = load.end()
    print(f"{done} requests during {RELOADS} reloads; {closed} idle connections closed")
    assert bad == []
    assert done > RELOADS
    assert closed <= RELOADS


def test_install_again(proxy: Proxy) -> None:
    """A second install has nothing to do."""
    assert proxy.install()[0] == "nothing to do"


THEIRS = """
global
    stats socket /run/theirs.sock
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
frontend theirs
    bind :8085
    http-request return status 200 content-type text/plain string theirs if { path /theirs }
"""
INCLUDED = """\
    default_backend k4t
frontend theirs_tls
    mode tcp
    bind :8446
    default_backend k4t_tls
"""


SELF_SIGNED = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=web.example.com "
    "-keyout /root/key.pem -out /root/chain.pem 2>/dev/null"
)


def test_a_foreign_haproxy(site: Site) -> None:
    """Nothing of it is touched; with the lines that the install says, it serves k4t's routes beside its own."""
    proxy = Proxy(site, site.ns, http=8085)
    proxy.host.exec(["sh", "-c", "mkdir -p /etc/haproxy; cat > /etc/haproxy/haproxy.cfg"], input=THEIRS)
    argv = ["haproxy", "-W", "-f", "/etc/haproxy/haproxy.cfg"]
    proxy.host.spawn("theirs", argv, listens_on=8085)
    try:
        said = "\n".join(proxy.install())
        assert "an HAProxy that is not k4t's runs here" in said
        assert f"-f {FILE}" in said
        assert "started" not in said
        assert proxy.host.exec(["cat", "/etc/haproxy/haproxy.cfg"]).stdout == THEIRS
        proxy.host.stop("theirs")
        proxy.host.exec(["sh", "-c", "cat >> /etc/haproxy/haproxy.cfg"], input=INCLUDED)
        proxy.host.exec(["sh", "-c", SELF_SIGNED])
        proxy.host.spawn("theirs", [*argv, "-f", FILE], listens_on=8446)
        files = Certificate("own", chain_path="/root/chain.pem", key_path="/root/key.pem")
        web: dict[str, Any] = {"endpoints": backend(site, 8001), "checks": (tcp(),)}
        proxy.publish(**web, routes=(route(tls="own"),), certificates=(files,))
        assert proxy.get() == (200, "8001 / -")
        assert proxy.get(path="/theirs") == (200, "theirs")
        secure = f"https://web.example.com:8446/s --resolve web.example.com:8446:{proxy.host.address}"
        assert proxy.host.exec(["curl", "-sk", *secure.split()]).stdout == "8001 /s -"
        assert proxy.observe().differences == ()
    finally:
        proxy.host.stop("theirs")
        proxy.member().close()
