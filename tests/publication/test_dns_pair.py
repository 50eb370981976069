"""dnsmasq and BIND in one group, both set up by k4t itself on hosts of their own."""

from __future__ import annotations

import base64
import dataclasses
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from k4t.dns import install, install_bind
from k4t.dns.dnsmasq import Dnsmasq
from k4t.dns.rfc2136 import Rfc2136, tsig_key
from k4t.dns.wire import CONNECT_TIMEOUT_S, dial
from k4t.errors import K4tError, ParticipantAway, StepError
from k4t.master.publication.publish import Published, Publisher
from k4t.model.hosts import Dns, Ssh
from k4t.model.spec import Cluster
from k4t.registrar.document import Endpoint, Record
from k4t.remote.ssh import Connector
from k4t.remote.transport import Transport
from tests.lab import Lab
from tests.publication.conftest import OTHER, PROD, changing

pytestmark = pytest.mark.integration
SECRET = base64.b64encode(b"a key of thirty-two bytes, k4t's").decode()
WEB = Record("web", "web")


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


def web(*ips: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint("web", ip, 80, container=f"c{ip}") for ip in ips)


def test_both_serve_the_same(pair: Pair) -> None:
    """One publication, two vendors: equal answers, equal digests, also with a second cluster, and when all is gone."""
    pair.publish(endpoints=web("10.0.0.1", "fd88::1"), records=(WEB, Record("own", "web", to=("10.9.9.9",))))
    assert pair.answers("web") == (["10.0.0.1"], ["10.0.0.1"])
    assert pair.answers("web", "AAAA") == (["fd88::1"], ["fd88::1"])
    assert pair.answers("own") == (["10.9.9.9"], ["10.9.9.9"])
    assert len(pair.digests()) == 1
    pair.publish(OTHER, endpoints=web("10.0.0.2"), records=(WEB,))
    assert pair.answers("web") == (["10.0.0.1", "10.0.0.2"], ["10.0.0.1", "10.0.0.2"])
    assert len(pair.digests()) == 1
    for cluster in (PROD, OTHER):
        pair.publish(cluster, endpoints=(), records=())
    assert pair.answers("web") == ([], [])
    assert len(pair.digests()) == 1


def test_what_one_refuses_neither_does(pair: Pair) -> None:
    """A stranger's name in BIND's zone: dnsmasq, which could, does not either."""
    pair.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    update = f"server {pair.bind.address}\nzone k4t.lab\nupdate add printer.k4t.lab. 60 A 10.6.6.6\nsend\n"
    script = f"printf '{update}' | nsupdate -y hmac-sha256:k4t:{SECRET}"
    pair.lab.host("dns2").exec(["sh", "-c", script])
    with pytest.raises(StepError, match=r"dns2: printer\.k4t\.lab A 10\.6\.6\.6 is in the zone already"):
        pair.publish(endpoints=web("10.0.0.2"), records=(WEB, Record("printer", "web")))
    assert pair.answers("web") == (["10.0.0.1"], ["10.0.0.1"])
    assert pair.answers("printer") == ([], ["10.6.6.6"])
    assert len(pair.digests()) == 1


def test_one_is_off(pair: Pair) -> None:
    """BIND was killed: refused as a whole; degraded, dnsmasq has it and BIND gets it with the next one."""
    pair.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    pid = pair.lab.host("dns2").exec(["cat", "/run/k4t-named.pid"]).stdout.strip()
    pair.lab.host("dns2").exec(["kill", "-9", pid])
    with pytest.raises(ParticipantAway, match="dns2: no DNS answer"):
        pair.publish(endpoints=web("10.0.0.2"))
    assert pair.answers("web")[0] == ["10.0.0.1"]
    published = pair.publish(endpoints=web("10.0.0.2"), degraded=True)
    assert [name for name, _ in published.stale] == ["dns2"]
    said = list(install_bind.install(pair.connection("dns2"), pair.bind, tsig_key(pair.bind, lambda: SECRET)))
    assert any("started" in line for line in said)
    assert pair.answers("web") == (["10.0.0.2"], ["10.0.0.1"])
    pair.publish(endpoints=web("10.0.0.2", "10.0.0.3"))
    assert pair.answers("web") == (["10.0.0.2", "10.0.0.3"], ["10.0.0.2", "10.0.0.3"])
    assert len(pair.digests()) == 1


def test_random_publications(pair: Pair) -> None:
    """Names and addresses come and go in one run: the same everywhere after every one of them."""
    chance = random.Random(7)  # noqa: S311 - test data
    publisher = Publisher(pair.members(), PROD, "many")
    for _ in range(25):
        apps = chance.sample(("web", "api", "shop"), chance.randint(0, 3))
        endpoints = tuple(
            Endpoint(app, f"10.0.{one}.{number}", 80, container=f"{app}{one}.{number}")
            for number, app in enumerate(apps)
            for one in chance.sample(range(9), chance.randint(0, 4))
        )
        parts = {"endpoints": endpoints, "records": tuple(Record(app, app) for app in apps)}
        publisher.publish("dns", "default", changing("dns", PROD, **parts))
        first, second = pair.answers(apps[0] if apps else "web")
        assert first == second
    assert len(pair.digests()) == 1
    pair.close()


def test_through_the_ssh_host(pair: Pair) -> None:
    """A server that the master can't reach is asked through the host that it logs in to."""
    pair.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    far = pair.members(through_ssh=True)[1]
    assert far.observe() == pair.members()[1].observe()
    pair.close()
    nowhere = dataclasses.replace(pair.bind, port=54)
    closed = Rfc2136(
        nowhere, PROD, lambda: SECRET, lambda: pair.connection("dns2").connect_tcp(nowhere.address, 54, 2.0)
    )
    state = closed.observe()
    assert state.exit_status == 69
    assert "dns2: no DNS answer over TCP" in state.problem


def test_install_again(pair: Pair) -> None:
    """Nothing to do; a named that isn't k4t's is left alone, and the lines to add are told."""
    key = tsig_key(pair.bind, lambda: SECRET)
    assert list(install_bind.install(pair.connection("dns2"), pair.bind, key)) == ["nothing to do"]
    mode = pair.lab.host("dns2").exec(["stat", "-c", "%a %U %G", "/etc/bind/k4t/keys/k4t.key"]).stdout.strip()
    assert mode == "640 root bind"
    with pytest.raises(K4tError, match="needs a TSIG key"):
        list(install_bind.install(pair.connection("dns2"), pair.bind, None))
    pair.lab.host("dns1").spawn("stranger", ["named", "-g", "-c", "/dev/null", "-p", "5300"])
    there = dataclasses.replace(pair.bind, name="dns1", address=pair.dnsmasq.address)
    said = list(install_bind.install(pair.connection("dns1"), there, key))
    assert "a BIND that is not k4t's runs here" in said[0]
    assert 'include "/etc/bind/k4t/zones/k4t.lab.conf";' in said[0]
    assert not any("started" in line for line in said)
