"""A real BIND, updated from here; and whoever publishes to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest

from k4t.dns.rfc2136 import Rfc2136
from k4t.dns.wire import dial
from k4t.master.publication.publish import Published, Publisher
from k4t.model.hosts import Dns
from k4t.model.spec import Cluster
from k4t.model.state import ParticipantState
from k4t.registrar.document import Document, Endpoint, Epoch, Record, make
from tests.publication.named import KEY_NAME, Named

PROD = Cluster("prod", "k7f3q2m9")
OTHER = Cluster("other", "z9z9z9z9")
WEB = Record("web", "web")
SRV = Record("_http._tcp.web", "web", "srv", "main", ttl_s=7)


@dataclasses.dataclass
class Site:
    """One BIND, and whoever publishes to it. `runs` counts them."""

    named: Named
    runs: int = 0
    open: list[Rfc2136] = dataclasses.field(default_factory=list)

    def member(self, cluster: Cluster = PROD, port: int = 0, secret: str = "", **fields: object) -> Rfc2136:
        port = port or self.named.port
        spec = Dns("ns1", "rfc2136", "127.0.0.1", "k4t.lab", port=port, key_name=KEY_NAME, secret="tsig")
        spec = dataclasses.replace(spec, **fields)  # type: ignore[arg-type]
        made = Rfc2136(spec, cluster, lambda: secret or self.named.secret, lambda: dial("127.0.0.1", port))
        self.open.append(made)
        return made

    def publisher(self, cluster: Cluster = PROD) -> Publisher:
        self.runs += 1
        return Publisher([self.member(cluster)], cluster, f"run{self.runs}")

    def publish(self, cluster: Cluster = PROD, **parts: object) -> Published:
        return self.publisher(cluster).publish("dns", "default", changing(cluster, **parts))

    def observe(self, cluster: Cluster = PROD) -> ParticipantState:
        return self.member(cluster).observe()

    def content(self) -> list[str]:
        """The zone, but for the count of writes."""
        return [line for line in self.named.dump() if "writes=" not in line]

    def close(self) -> None:
        while self.open:
            self.open.pop().close()


def changing(cluster: Cluster, **parts: object) -> Callable[[Document | None], Document]:
    blank = Document(cluster.id, cluster.name, "dns", "default")
    return lambda live: make(dataclasses.replace(live or blank, **parts))  # type: ignore[arg-type]


def web(*ips: str, app: str = "web", port: int = 80) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(app, ip, port, container=f"c{ip}") for ip in ips)


def document(number: int = 1, run: str = "runA", seq: int = 1, parent: str = "", **parts: object) -> Document:
    fields: dict[str, object] = {"endpoints": web("10.0.0.1"), "records": (WEB,), **parts}
    return make(Document(PROD.id, PROD.name, "dns", "default", Epoch(number, run), seq, parent, **fields))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    named = Named(tmp_path_factory.mktemp("named"))
    named.blank()
    named.start()
    yield named
    named.stop()


@pytest.fixture
def site(server: Named) -> Iterator[Site]:
    """With nothing but what was in the zone before k4t."""
    server.stop()
    server.blank()
    server.start()
    made = Site(server)
    yield made
    made.close()
