"""One gateway and one DNS server in the lab, installed by k4t itself, shared by this directory's tests."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from k4t.dns import install as dns_install
from k4t.dns.dnsmasq import Dnsmasq
from k4t.gateway import install as gateway_install
from k4t.gateway.envoy import Envoy
from k4t.master.publication.publish import Published, Publisher
from k4t.model.hosts import Dns, Gateway, Ssh
from k4t.model.participant import Kind, Participant
from k4t.model.spec import Cluster
from k4t.model.state import ParticipantState
from k4t.registrar.document import Check, Document, Endpoint, Record, Route, make
from k4t.remote.ssh import Connector
from k4t.remote.transport import Transport
from tests.lab import Host, Lab

PROD = Cluster("prod", "k7f3q2m9")
OTHER = Cluster("other", "z9z9z9z9")


@dataclass
class Site:
    """The lab, the specs of its two hosts, and one connection to each."""

    lab: Lab
    gateway: Gateway
    dns: Dns
    connections: dict[str, Transport] = field(default_factory=dict)
    runs: int = 0
    members: list[Participant] = field(default_factory=list)
    cleaners: dict[str, tuple[Participant, ...]] = field(default_factory=dict)

    @property
    def gw(self) -> Host:
        return self.lab.host("gw1")

    @property
    def ns(self) -> Host:
        return self.lab.host("dns1")

    def connection(self, name: str) -> Transport:
        found = self.connections.get(name)
        if found is None or not found.alive:
            connector = Connector([self.lab.known_hosts], run_id="publication")
            ssh = Ssh(user="root", key=str(self.lab.key))
            found = self.connections[name] = connector.connect(name, ssh, self.lab.host(name).address)
        return found

    def envoy(self, cluster: Cluster = PROD) -> Envoy:
        made = Envoy(self.gateway, cluster, lambda: self.connection("gw1"))
        self.members.append(made)
        return made

    def dnsmasq(self, cluster: Cluster = PROD) -> Dnsmasq:
        made = Dnsmasq(self.dns, cluster, lambda: self.connection("dns1"))
        self.members.append(made)
        return made

    def observe(self, kind: Kind = "gateway", cluster: Cluster = PROD) -> ParticipantState:
        member = self.envoy(cluster) if kind == "gateway" else self.dnsmasq(cluster)
        state = member.observe()
        member.close()
        return state

    def publisher(self, cluster: Cluster = PROD) -> Publisher:
        """Of a new run."""
        self.runs += 1
        return Publisher([self.envoy(cluster), self.dnsmasq(cluster)], cluster, f"run{self.runs}")

    def publish(self, kind: Kind, cluster: Cluster = PROD, **parts: object) -> Published:
        """Replace these parts of the cluster's document, in a run of its own."""
        try:
            return self.publisher(cluster).publish(kind, "default", changing(kind, cluster, **parts))
        finally:
            self.close()

    def close(self) -> None:
        """End the registrars of all runs so far: a host takes few commands at once on one connection."""
        while self.members:
            self.members.pop().close()

    def get(self, host: str, path: str = "/", *options: str) -> tuple[int, str]:
        """(status, body) of a request through the gateway."""
        url = f"http://{self.gw.address}{path}"
        argv = ["curl", "-s", "-m", "10", "-w", "\n%{http_code}", "-H", f"Host: {host}", *options, url]
        body, _, status = self.gw.exec(argv, check=False).stdout.rpartition("\n")
        return int(status), body

    def clear(self) -> None:
        """Everything empty, in a new run over registrars that stay open: starting one takes longest."""
        for cluster in (PROD, OTHER):
            if cluster.id not in self.cleaners:
                self.cleaners[cluster.id] = (self.envoy(cluster), self.dnsmasq(cluster))
                self.members.clear()
            self.runs += 1
            publisher = Publisher(self.cleaners[cluster.id], cluster, f"run{self.runs}")
            empty = {"endpoints": (), "checks": (), "routes": (), "records": ()}
            publisher.publish("gateway", "default", changing("gateway", cluster, **empty))
            publisher.publish("dns", "default", changing("dns", cluster, **empty))


class changing:  # noqa: N801 - reads as a verb
    def __init__(self, kind: Kind, cluster: Cluster, **parts: object) -> None:
        self.blank = Document(cluster.id, cluster.name, kind, "default")
        self.parts = parts

    def __call__(self, live: Document | None) -> Document:
        return make(dataclasses.replace(live or self.blank, **self.parts))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with Lab(name=f"pub-{os.getpid()}", nodes=0, gateways=1, dns=1, registry=False) as lab:
        gateway = Gateway("gw1", "envoy", lab.host("gw1").address)
        dns = Dns("dns1", "dnsmasq", lab.host("dns1").address, "k4t.lab")
        made = Site(lab, gateway, dns)
        list(gateway_install.install(made.connection("gw1"), gateway))
        list(dns_install.install(made.connection("dns1"), dns))
        for port in (8001, 8002, 8003):
            serve(made.gw, port)
        yield made


@pytest.fixture
def clean(site: Site) -> Iterator[Site]:
    """The site, with nothing published by anyone."""
    site.clear()
    yield site
    site.close()


def serve(host: Host, port: int) -> None:
    """A backend that answers with its port and the path it was asked for; /health is 204, /sick 500, /slow late."""
    host.spawn(f"backend{port}", ["python3", "-c", BACKEND, str(port)])
    for _ in range(200):
        if host.exec(["curl", "-s", f"http://{host.address}:{port}/"], check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise AssertionError(f"no backend on port {port}")


BACKEND = """
import sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.headers.get("Upgrade") == "websocket":
            self.send_response(101); self.send_header("Upgrade", "websocket"); self.send_header("Connection", "Upgrade")
            self.end_headers(); self.wfile.write(self.rfile.read(4)); self.close_connection = True; return
        time.sleep(0.3 if self.path == "/slow" else 0)
        body = f"{sys.argv[1]} {self.path} {self.headers.get('X-Probe', '-')}".encode()
        self.send_response({"/health": 204, "/sick": 500}.get(self.path, 200))
        if self.path != "/health":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path != "/health":
            self.wfile.write(body)
    def log_message(self, *_): pass
ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
"""


def backend(site: Site, *ports: int, app: str = "web") -> tuple[Endpoint, ...]:
    return tuple(Endpoint(app, site.gw.address, port, container=f"c{port}") for port in ports)


def tcp(app: str = "web", timeout_ms: int = 5000) -> Check:
    """An endpoint that is there answers in time, on a busy machine too."""
    return Check(app, "main", "tcp", interval_ms=500, timeout_ms=timeout_ms)


def route(app: str = "web", domain: str = "web.example.com", **more: object) -> Route:
    return Route(app, domains=(domain,), **more)  # type: ignore[arg-type]


def record(app: str = "web") -> Record:
    return Record(app, app)
