"""A real Envoy, over SSH."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import pytest

from k4t.errors import Differs, K4tError, Overtaken, RegistrarMismatch, StepError, VendorRefused
from k4t.gateway import install
from k4t.model.hosts import Ssh
from k4t.registrar.document import Check, Document, Endpoint, Epoch, Route
from k4t.registrar.protocol import transaction_id
from k4t.remote.registrar import build, zipapp_path
from k4t.remote.ssh import Connector
from tests.publication.conftest import OTHER, PROD, Site, backend, changing, route, tcp

pytestmark = pytest.mark.integration
EDS = "/var/lib/k4t/envoy/eds/web.main.json"


def publish_web(site: Site, *ports: int) -> None:
    site.publish("gateway", endpoints=backend(site, *ports), checks=(tcp(),), routes=(route(),))


def ports_served(site: Site, requests: int = 12) -> set[str]:
    return {site.get("web.example.com")[1].split()[0] for _ in range(requests)}


def test_publish_change_remove(clean: Site) -> None:
    """Traffic follows the document: one replica, two, another one, none (503), no route (404)."""
    publish_web(clean, 8001)
    assert clean.get("web.example.com") == (200, "8001 / -")
    publish_web(clean, 8001, 8002)
    assert ports_served(clean) == {"8001", "8002"}
    publish_web(clean, 8003)
    assert ports_served(clean) == {"8003"}
    clean.publish("gateway", endpoints=())
    assert clean.get("web.example.com")[0] == 503
    clean.publish("gateway", endpoints=(), checks=(), routes=())
    assert clean.get("web.example.com")[0] == 404
    left = clean.gw.exec(["ls", "/var/lib/k4t/envoy/eds"]).stdout
    assert left == ""


def test_all_of_a_route(clean: Site) -> None:
    """Domains (exact, wildcard, any), longest prefix first, stripped prefixes; all is read back as written."""
    clean.publish(
        "gateway",
        endpoints=(*backend(clean, 8001), *backend(clean, 8002, app="api"), *backend(clean, 8003, app="any")),
        checks=(
            Check(
                "web", "main", "http", "/health", 200, 299, (("Host", "h.example.com"), ("X-Probe", "k4t")), 1500, 750
            ),
            tcp("api"),
            Check("any", "main", "none"),
        ),
        routes=(
            route("web", "example.com"),
            route("web", "*.example.com", balance="least-requests"),
            route("api", "example.com", prefix="/api", strip_prefix=True, timeout_ms=1500, retries=0),
            route("api", "api.example.com", prefix="/v1/"),
            Route("any", prefix="/any"),
        ),
    )
    assert clean.get("example.com", "/x")[1].startswith("8001 /x")
    assert clean.get("www.example.com", "/")[1].startswith("8001 /")
    assert clean.get("example.com", "/api/a?b=c")[1].startswith("8002 /a?b=c")
    assert clean.get("example.com", "/api")[1].startswith("8002 / ")
    assert clean.get("EXAMPLE.com:8080", "/api/a")[1].startswith("8002 /a")
    assert clean.get("api.example.com", "/v1/a")[1].startswith("8002 /v1/a")
    assert clean.get("api.example.com", "/v2/a")[1].startswith("8001 /v2/a"), "the wildcard's route"
    assert clean.get("elsewhere.org", "/any")[1].startswith("8003 /any")
    assert clean.get("elsewhere.org", "/")[0] == 404
    assert clean.observe().differences == ()


def test_websocket(clean: Site) -> None:
    """An upgrade goes through, and bytes after it."""
    publish_web(clean, 8001)
    script = (
        "import socket,sys; s=socket.create_connection((sys.argv[1],80),5); "
        "s.sendall(b'GET / HTTP/1.1\\r\\nHost: web.example.com\\r\\nConnection: Upgrade\\r\\n'); "
        "s.sendall(b'Upgrade: websocket\\r\\n\\r\\n'); "
        "f=s.makefile('rb'); h=[]; all(iter(lambda: h.append(f.readline()) or h[-1].strip(), b'')); "
        "s.sendall(b'ping'); print(h[0].split()[1].decode(), f.read(4).decode())"
    )
    assert clean.gw.exec(["python3", "-c", script, clean.gw.address]).stdout.split() == ["101", "ping"]


def test_a_sick_replica_gets_no_traffic(clean: Site) -> None:
    """The gateway's own check acts while the master sleeps: a dead replica is left out, also as the last one."""
    dead = Endpoint("web", clean.gw.address, 9)
    said = f"web.main: {clean.gw.address}:9 fails Envoy's health check"
    with pytest.raises(Differs, match=said):
        clean.publish(
            "gateway",
            endpoints=(*backend(clean, 8001), dead),
            checks=(tcp(timeout_ms=500),),
            routes=(route(retries=0),),
        )
    assert {clean.get("web.example.com")[0] for _ in range(10)} == {200}
    clean.publish("gateway", endpoints=(dead,))
    assert clean.get("web.example.com")[0] == 503


def test_a_replica_is_given_the_time_its_check_takes(clean: Site) -> None:
    """An answer after 0.3 s, of 4 s allowed: published, and healthy in Envoy's eyes, when `publish` returns."""
    slow = Check("web", "main", "http", "/slow", 200, 299, interval_ms=1000, timeout_ms=4000)
    clean.publish("gateway", endpoints=backend(clean, 8001), checks=(slow,), routes=(route(),))
    clean.publish("gateway", endpoints=backend(clean, 8001, 8002))
    clean.publish("gateway", endpoints=backend(clean, 8002))
    assert ports_served(clean) == {"8002"}


def test_idle_when_nothing_changed(clean: Site) -> None:
    """The same content again sends nothing."""
    publish_web(clean, 8001)
    before = clean.observe()
    publish_web(clean, 8001)
    assert clean.observe().document == before.document


def test_hand_edit_is_seen_and_healed(clean: Site) -> None:
    """A file edited on the host is a difference, read by Envoy or not; the next publication heals it."""
    publish_web(clean, 8001)
    clean.gw.exec(["sed", "-i", "s/8001/8002/", EDS])  # sed renames: Envoy reads it
    differences: tuple[str, ...] = ()
    for _ in range(100):
        differences = clean.observe().differences
        if len(differences) == 3:
            break
        time.sleep(0.02)
    address = clean.gw.address
    assert set(differences) == {
        f"{EDS} is not what k4t wrote",
        f"web.main: {address}:8001 is not served",
        f"web.main: {address}:8002 is served but not published",
    }
    publish_web(clean, 8001)
    assert clean.observe().differences == ()
    assert ports_served(clean) == {"8001"}


def test_a_lost_file_is_healed(clean: Site) -> None:
    """Files that were deleted come back."""
    publish_web(clean, 8001)
    clean.gw.exec(["sh", "-c", "rm -f /var/lib/k4t/envoy/eds/* /var/lib/k4t/envoy/rds/rds.json"])
    assert len(clean.observe().differences) >= 2
    publish_web(clean, 8001)
    assert clean.observe().differences == ()


def test_envoy_restarted_serves_the_same(clean: Site) -> None:
    """Nothing is lost when Envoy is killed: it reads its files."""
    publish_web(clean, 8001)
    kill_envoy(clean)
    state = clean.observe()
    assert state.reachable
    assert "Envoy doesn't answer at 127.0.0.1:9901" in state.differences[0]
    done = list(install.install(clean.connection("gw1"), clean.gateway))
    assert any("started as a daemon" in line for line in done)
    assert clean.get("web.example.com")[0] == 200
    assert clean.observe().differences == ()


def test_envoy_stopped_at_commit(clean: Site) -> None:
    """Stopped: the file is right, the read-back is pending, and it is said."""
    publish_web(clean, 8001)
    kill_envoy(clean)
    with pytest.raises(Differs, match="its files are in place and are read when it starts"):
        publish_web(clean, 8002)
    list(install.install(clean.connection("gw1"), clean.gateway))
    assert ports_served(clean) == {"8002"}


def kill_envoy(site: Site) -> None:
    """SIGKILL, and wait until nobody listens any more."""
    site.gw.exec(["sh", "-c", "kill -9 $(cat /run/k4t-envoy.pid)"])
    for _ in range(200):
        if site.gw.exec(["curl", "-s", "http://127.0.0.1:9901/"], check=False).returncode:
            return
        time.sleep(0.02)
    raise AssertionError("Envoy is still there")


def test_envoy_refuses(clean: Site) -> None:
    """What Envoy's checker refuses changes nothing, and its words are passed on."""
    publish_web(clean, 8001)
    before = clean.observe().document
    bad = dataclasses.replace(tcp(), interval_ms=0)
    with pytest.raises(VendorRefused, match=r"(?i)interval"):
        clean.publish("gateway", checks=(bad,))
    after = clean.observe()
    assert after.document == before
    assert after.differences == ()
    assert clean.get("web.example.com")[0] == 200


def test_envoy_refuses_at_commit(clean: Site) -> None:
    """Its checker is fooled, Envoy itself refuses: the last good rendering stays, with the vendor's words."""
    publish_web(clean, 8001)
    bad = dataclasses.replace(tcp(), interval_ms=0)
    config = "/var/lib/k4t/registrar/envoy/config.json"
    clean.gw.exec(["cp", config, "/root/config.json"])
    clean.gw.exec(["sed", "-i", "s#/usr/local/bin/envoy#/bin/true#", config])
    try:
        with pytest.raises(VendorRefused, match="Envoy refuses"):
            clean.publish("gateway", checks=(bad,))
        state = clean.observe()
        assert not state.rendered
        assert state.document is not None
        assert state.document.checks == (bad,)
        assert clean.get("web.example.com")[0] == 200
    finally:
        clean.gw.exec(["cp", "/root/config.json", config])
    publish_web(clean, 8001)
    assert clean.observe().rendered


def test_two_clusters(clean: Site) -> None:
    """One app in two clusters adds up; one that goes leaves the other's alone; clashes name the owner."""
    publish_web(clean, 8001)
    clean.publish("gateway", OTHER, endpoints=backend(clean, 8002), routes=(route(domain="ignored.example.com"),))
    assert ports_served(clean) == {"8001", "8002"}
    assert clean.get("ignored.example.com")[0] == 404
    others = clean.observe().others
    assert [other.name for other in others] == ["other"]
    with pytest.raises(StepError, match=r"already published by cluster prod \(k7f3q2m9\) for app web"):
        clean.publish("gateway", OTHER, endpoints=backend(clean, 8001, app="shop"))
    with pytest.raises(StepError, match="belongs to app web of cluster prod"):
        clean.publish("gateway", OTHER, routes=(route("shop"),))
    clean.publish("gateway", OTHER, endpoints=(), routes=())
    assert ports_served(clean) == {"8001"}


def test_requests_are_counted_for_each_clusters_own_endpoints(clean: Site) -> None:
    """Ten over one connection are ten; what another cluster's endpoints of the app get is not ours; where nothing is
    published there is nothing to count. Envoy that was started again counts from nothing."""
    publish_web(clean, 8001)
    clean.publish("gateway", OTHER, endpoints=backend(clean, 8002), routes=(route(),))
    ours, theirs = clean.envoy(), clean.envoy(OTHER)
    place = f"{clean.gw.address}:800"
    before = ours.counters(["web"])[("web", f"{place}1")] + theirs.counters(["web"])[("web", f"{place}2")]
    url = f"http://{clean.gw.address}/?n=[1-10]"
    clean.gw.exec(["curl", "-s", "-H", "Host: web.example.com", url])
    mine, other = ours.counters(["web", "api"]), theirs.counters(["web"])
    assert (set(mine), set(other)) == ({("web", f"{place}1")}, {("web", f"{place}2")})
    assert sum(mine.values()) + sum(other.values()) - before == 10
    assert mine[("web", f"{place}1")] >= 5
    assert ours.counters(["api"]) == {}
    clean.publish("gateway", OTHER, endpoints=(), routes=())
    kill_envoy(clean)
    with pytest.raises(K4tError, match="admin page"):
        clean.envoy().counters(["web"])
    list(install.install(clean.connection("gw1"), clean.gateway))
    assert clean.envoy().counters(["web"]) == {("web", f"{place}1"): 0}


def test_an_older_run_is_overtaken(clean: Site) -> None:
    """A master that slept changes nothing when it wakes up."""
    slow, fast = clean.publisher(), clean.publisher()
    web: dict[str, Any] = {"endpoints": backend(clean, 8001), "routes": (route(),)}
    slow.publish("gateway", "default", changing("gateway", PROD, **web))
    fast.publish("gateway", "default", changing("gateway", PROD, endpoints=backend(clean, 8002)))
    with pytest.raises(Overtaken, match="was overtaken by run"):
        slow.publish("gateway", "default", changing("gateway", PROD, endpoints=backend(clean, 8003)))
    assert ports_served(clean) == {"8002"}


def test_commit_twice(clean: Site) -> None:
    """A commit whose answer was lost can be done again."""
    member = clean.envoy()
    before = member.observe()
    epoch = Epoch(before.epoch.number + 1, "twice")
    parent = before.document.sha256 if before.document else ""
    seq = before.document.seq + 1 if before.document else 1
    made = Document(PROD.id, PROD.name, "gateway", "default", epoch, seq, parent, backend(clean, 8001))
    member.fence(epoch)
    transaction = transaction_id(epoch, "gateway", "default", seq)
    member.prepare(transaction, made)
    assert member.commit(transaction)
    assert member.commit(transaction)
    assert member.verify(made) == ()


def test_registrar_missing_altered_newer(clean: Site) -> None:
    """Each way not to match has its message; one remedy."""
    path = zipapp_path(build()[1])
    remedy = "k4t gateway install gw1"
    clean.gw.exec(["mv", path, "/root/pyz"])
    try:
        state = clean.observe()
        assert not state.reachable
        assert state.exit_status == 1
        assert "the registrar is not installed" in state.problem
        assert state.problem.endswith(remedy)
        other = path.rpartition("-")[0] + "-000000000000.pyz"
        clean.gw.exec(["touch", other])
        assert "the registrar there is of another version of k4t" in clean.observe().problem
        clean.gw.exec(["rm", other])
        clean.gw.exec(["sh", "-c", f"cp /root/pyz {path}; echo x >> {path}"])
        with pytest.raises(RegistrarMismatch, match="was altered") as caught:
            clean.envoy().fence(Epoch(10**6, "r"))
        assert caught.value.remedy == remedy
    finally:
        clean.gw.exec(["mv", "/root/pyz", path])
    fence = f"/var/lib/k4t/registrar/envoy/clusters/{PROD.id}/fence.json"
    kept = clean.gw.exec(["cat", fence]).stdout
    clean.gw.exec(["sh", "-c", f"cat > {fence}"], input=json.dumps({**json.loads(kept), "format": 2}))
    try:
        state = clean.observe()
        assert "written by a newer registrar (format 2" in state.problem
        assert remedy in state.problem
    finally:
        clean.gw.exec(["sh", "-c", f"cat > {fence}"], input=kept)
    assert clean.observe().reachable


def test_python_missing(clean: Site) -> None:
    """Without python3 it says so, and what to install."""

    class Bare:
        host = "gw1"

        def __getattr__(self, name: str) -> object:
            return getattr(clean.connection("gw1"), name)

        def start(self, argv: list[str]) -> object:
            return clean.connection("gw1").start(["env", "PATH=/nowhere", "/bin/sh", *argv[1:]])

    from k4t.gateway.envoy import Envoy

    clean.gw.exec(["mkdir", "-p", "/nowhere"])
    for tool in ("sha256sum", "echo"):
        clean.gw.exec(["ln", "-sf", f"/usr/bin/{tool}", f"/nowhere/{tool}"])
    state = Envoy(clean.gateway, PROD, Bare).observe()  # type: ignore[arg-type]
    assert state.problem == "gw1: python3 is not installed; install python3 (3.8 or newer) there"


def test_disk_full(clean: Site) -> None:
    """No room for the state: HostFull with the path, nothing staged, the old document lives; later it goes on."""
    publish_web(clean, 8001)
    home = "/var/lib/k4t/registrar/envoy/clusters"
    full = "set -e; cp -a $0 /root/clusters; mount -t tmpfs -o size=64k tmpfs $0; cp -a /root/clusters/. $0; "
    clean.gw.exec(["sh", "-c", full + "head -c 1m /dev/zero > $0/filler || true", home])
    try:
        before = clean.observe().document
        with pytest.raises(
            StepError, match=r"can't write /var/lib/k4t/registrar/envoy/clusters.*No space left"
        ) as caught:
            publish_web(clean, 8002)
        assert type(caught.value).__name__ == "HostFull"
        assert clean.observe().document == before
        assert ports_served(clean) == {"8001"}
    finally:
        clean.gw.exec(["umount", home])
    publish_web(clean, 8002)
    assert ports_served(clean) == {"8002"}


def test_a_dead_host(clean: Site) -> None:
    """A host that can't be connected to is a state, not an error."""

    def nobody() -> Connector:
        connector = Connector([clean.lab.known_hosts], run_id="x")
        return connector.connect("gw1", Ssh(user="root", key=str(clean.lab.key), port=1), clean.gw.address)  # type: ignore[return-value]

    from k4t.gateway.envoy import Envoy

    state = Envoy(clean.gateway, PROD, nobody).observe()  # type: ignore[arg-type]
    assert not state.reachable
    assert state.exit_status == 69


def test_members_flip_without_a_lost_request(clean: Site) -> None:
    """Endpoints come and go under load; no request fails."""
    publish_web(clean, 8001, 8002)
    script = (
        "import http.client,sys,time\n"
        "end=time.time()+float(sys.argv[2]); bad=done=0\n"
        "while time.time()<end:\n"
        "    c=http.client.HTTPConnection(sys.argv[1],80,timeout=5)\n"
        "    c.request('GET','/',headers={'Host':'web.example.com'})\n"
        "    done+=1; bad+=c.getresponse().status!=200; c.close()\n"
        "print(done,bad)"
    )
    clean.gw.exec(["sh", "-c", "cat > /root/load.py; : > /root/load.out"], input=script)
    clean.gw.spawn("load", ["sh", "-c", f"exec python3 /root/load.py {clean.gw.address} 4 > /root/load.out"])
    try:
        for _ in range(4):
            publish_web(clean, 8001)
            publish_web(clean, 8001, 8002)
            publish_web(clean, 8002, 8003)
            publish_web(clean, 8001, 8002)
        for _ in range(100):
            if out := clean.gw.exec(["cat", "/root/load.out"]).stdout.split():
                break
            time.sleep(0.1)
    finally:
        clean.gw.stop("load")
    done, bad = map(int, out)
    assert done > 50
    assert bad == 0


def test_install_again(clean: Site) -> None:
    """A second install has nothing to do."""
    done = list(install.install(clean.connection("gw1"), clean.gateway))
    assert done[0] == "nothing to do"
