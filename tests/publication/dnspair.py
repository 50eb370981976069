"""Two hosts in the lab, one with dnsmasq and one with BIND, both set up by k4t itself; shared by the pair's tests."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from k4t.dns import install, install_bind
from k4t.dns.dnsmasq import Dnsmasq
from k4t.dns.rfc2136 import Rfc2136
from k4t.dns.tsig import tsig_key
from k4t.dns.wire import CONNECT_TIMEOUT_S, dial
from k4t.master.publication.publish import Published, Publisher
from k4t.model.hosts import Dns, Ssh
from k4t.model.spec import Cluster
from k4t.remote.ssh import Connector
from k4t.remote.transport import Transport
from tests.lab import Lab
from tests.publication.conftest import PROD, changing

SECRET = base64.b64encode(b"a key of thirty-two bytes, k4t's").decode()


@dataclass
class Pair:
    """dns1 runs dnsmasq, dns2 BIND."""

    lab: Lab
    dnsmasq: Dns
    bind: Dns
    connections: dict[str, Transport] = field(default_factory=dict)
    runs: int = 0
    open: list[Dnsmasq | Rfc2136] = field(default_factory=list)

    def connection(self, name: str) -> Transport:
        found = self.connections.get(name)
        if found is None or not found.alive:
            connector = Connector([self.lab.known_hosts], run_id="pair")
            ssh = Ssh(user="root", key=str(self.lab.key))
            found = self.connections[name] = connector.connect(name, ssh, self.lab.host(name).address)
        return found

    def members(self, cluster: Cluster = PROD, *, through_ssh: bool = False) -> tuple[Dnsmasq, Rfc2136]:
        def connect() -> object:
            if through_ssh:
                return self.connection("dns2").connect_tcp(self.bind.address, self.bind.port, CONNECT_TIMEOUT_S)
            return dial(self.bind.address, self.bind.port)

        first = Dnsmasq(self.dnsmasq, cluster, lambda: self.connection("dns1"))
        second = Rfc2136(self.bind, cluster, lambda: SECRET, connect)  # type: ignore[arg-type]
        self.open += [first, second]
        return first, second

    def close(self) -> None:
        while self.open:
            self.open.pop().close()

    def publish(self, cluster: Cluster = PROD, *, degraded: bool = False, **parts: object) -> Published:
        """A run of its own."""
        self.runs += 1
        publisher = Publisher(self.members(cluster), cluster, f"run{self.runs}")
        try:
            return publisher.publish("dns", "default", changing("dns", cluster, **parts), degraded=degraded)
        finally:
            self.close()

    def answers(self, name: str, kind: str = "A") -> tuple[list[str], list[str]]:
        """dnsmasq's and BIND's, asked on the wire by the system's client."""
        found = []
        for host, address in (("dns1", self.dnsmasq.address), ("dns2", self.bind.address)):
            argv = ["dig", "+short", "+time=2", "+tries=1", f"@{address}", f"{name}.k4t.lab", kind]
            done = self.lab.host(host).exec(argv, check=False)
            found.append(sorted(line for line in done.stdout.split("\n") if line and not line.startswith(";")))
        return found[0], found[1]

    def digests(self) -> set[str]:
        """Of all members; asserts that each serves what it holds."""
        states = [member.observe() for member in self.members()]
        self.close()
        assert [state.differences for state in states] == [(), ()]
        return {state.digest for state in states}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with Lab(name=f"pair-{os.getpid()}", nodes=0, gateways=0, dns=2, registry=False) as lab:
        first = Dns("dns1", "dnsmasq", lab.host("dns1").address, "k4t.lab")
        second = Dns("dns2", "rfc2136", lab.host("dns2").address, "k4t.lab", key_name="k4t", secret="tsig")
        made = Pair(lab, first, second)
        list(install.install(made.connection("dns1"), first))
        said = list(install_bind.install(made.connection("dns2"), second, tsig_key(second, lambda: SECRET)))
        assert said[-1] == f"BIND answers at {second.address}:53, and takes updates of k4t.lab"
        assert any("started as a daemon" in line for line in said)
        assert not any(SECRET in line for line in said)
        yield made
