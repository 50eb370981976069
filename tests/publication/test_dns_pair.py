"""dnsmasq and BIND in one group, both set up by k4t itself on hosts of their own."""

from __future__ import annotations

import dataclasses
import random

import pytest

from k4t.dns import install_bind
from k4t.dns.rfc2136 import Rfc2136
from k4t.dns.tsig import tsig_key
from k4t.errors import K4tError, ParticipantAway, StepError
from k4t.master.publication.publish import Publisher
from k4t.registrar.document import Endpoint, Record
from tests.publication.conftest import OTHER, PROD, changing
from tests.publication.dnspair import SECRET, Pair, pair

__all__ = ["pair"]
pytestmark = pytest.mark.integration
WEB = Record("web", "web")


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
