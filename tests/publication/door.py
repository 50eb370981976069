"""One gateway of any vendor on a host of the lab, on ports of its own, as the tests of its driver see it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from k4t.gateway import install
from k4t.master.publication.publish import Published, Publisher
from k4t.model.hosts import Gateway
from k4t.model.spec import Cluster
from k4t.model.state import ParticipantState
from k4t.remote.registrar import RegistrarParticipant
from k4t.wiring import GATEWAYS
from tests.lab import Host
from tests.publication.conftest import OTHER, PROD, Site, backend, changing, route, tcp


class Door:
    """A registrar stays open for each cluster."""

    def __init__(self, site: Site, host: Host, gateway: Gateway) -> None:
        self.site, self.host, self.gateway, self.http = site, host, gateway, gateway.http
        self.runs = 0
        self.members: dict[str, RegistrarParticipant] = {}

    def install(self) -> list[str]:
        return list(install.install(self.site.connection(self.host.name), self.gateway))

    def member(self, cluster: Cluster = PROD) -> RegistrarParticipant:
        if cluster.id not in self.members:
            driver = GATEWAYS[self.gateway.driver]
            self.members[cluster.id] = driver(self.gateway, cluster, lambda: self.site.connection(self.host.name))
        return self.members[cluster.id]

    @contextmanager
    def empty(self) -> Iterator[None]:
        """With nothing published by anyone."""
        for cluster in (PROD, OTHER):
            self.publish(cluster, endpoints=(), checks=(), routes=())
        yield
        for member in self.members.values():
            member.close()

    def publish(self, cluster: Cluster = PROD, **parts: object) -> Published:
        self.runs += 1
        publisher = Publisher([self.member(cluster)], cluster, f"run{self.runs}")
        return publisher.publish("gateway", "default", changing("gateway", cluster, **parts))

    def web(self, *ports: int) -> None:
        self.publish(endpoints=backend(self.site, *ports), checks=(tcp(),), routes=(route(),))

    def observe(self) -> ParticipantState:
        return self.member().observe()

    def get(self, name: str = "web.example.com", path: str = "/", *options: str) -> tuple[int, str]:
        url = f"http://{self.host.address}:{self.http}{path}"
        argv = ["curl", "-s", "-m", "10", "-w", "\n%{http_code}", "-H", f"Host: {name}", *options, url]
        body, _, status = self.host.exec(argv, check=False).stdout.rpartition("\n")
        return int(status), body

    def ports(self, requests: int = 8) -> set[str]:
        return {self.get()[1].split()[0] for _ in range(requests)}

    def await_end(self) -> None:
        """Until nobody listens any more."""
        for _ in range(200):
            if self.host.exec(["curl", "-s", f"http://127.0.0.1:{self.http}/"], check=False).returncode:
                return
            time.sleep(0.02)
        raise AssertionError(f"{self.gateway.driver} is still there")
