"""A real BIND, updated from here."""

from __future__ import annotations

import dataclasses
import random
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from k4t.dns.rfc2136 import Rfc2136
from k4t.dns.wire import dial
from k4t.errors import (
    ConnectionLost,
    Differs,
    K4tError,
    LoginRefused,
    Overtaken,
    ParticipantAway,
    StepError,
    VendorRefused,
)
from k4t.master.publication.publish import Published, Publisher
from k4t.model.hosts import Dns
from k4t.model.spec import Cluster
from k4t.model.state import ParticipantState
from k4t.registrar.document import Document, Endpoint, Epoch, Record, make
from tests.publication.named import KEY_NAME, OTHER_KEY, Named

pytestmark = pytest.mark.integration
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


# --- publishing --------------------------------------------------------------------------------------------


def test_publish_change_remove(site: Site) -> None:
    """The name follows the document, with the record's own TTL; nothing else of the zone is touched, and when all is
    taken out nothing but k4t's own state is left."""
    before = site.named.dump()
    site.publish(endpoints=web("10.0.0.1", "fd88::1"), records=(dataclasses.replace(WEB, ttl_s=7),))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]
    assert site.named.dig("web.k4t.lab", "AAAA") == ["fd88::1"]
    assert "web.k4t.lab. 7 IN A 10.0.0.1" in site.named.dump()
    site.publish(endpoints=web("10.0.0.2", "10.0.0.3"), records=(WEB,))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.2", "10.0.0.3"]
    assert site.named.dig("web.k4t.lab", "AAAA") == []
    assert "web.k4t.lab. 30 IN A 10.0.0.2" in site.named.dump()
    site.publish(endpoints=())
    assert site.named.dig("web.k4t.lab") == []
    site.publish(endpoints=web("10.0.0.1"), records=())
    assert [line for line in site.named.dump() if "_k4t" not in line] == before
    assert not [line for line in site.named.dump() if "_k4t-owner" in line]


def test_srv(site: Site) -> None:
    """An SRV record names port and host of every endpoint; those hosts have addresses, and go with it."""
    endpoints = (*web("10.0.0.1", "fd88::1", port=20001), *web("10.0.0.2", port=20002))  # three containers
    site.publish(endpoints=endpoints, records=(SRV, WEB))
    assert site.named.dig("_http._tcp.web.k4t.lab", "SRV") == [
        "0 1 20001 10-0-0-1.web.k4t.lab.",
        "0 1 20001 fd88-0-0-0-0-0-0-1.web.k4t.lab.",
        "0 1 20002 10-0-0-2.web.k4t.lab.",
    ]
    assert site.named.dig("10-0-0-1.web.k4t.lab") == ["10.0.0.1"]
    assert site.named.dig("fd88-0-0-0-0-0-0-1.web.k4t.lab", "AAAA") == ["fd88::1"]
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1", "10.0.0.2"]
    site.publish(endpoints=web("10.0.0.2", port=20002))
    assert site.named.dig("10-0-0-1.web.k4t.lab") == []
    assert site.observe().differences == ()
    site.publish(records=())
    assert not [line for line in site.named.dump() if "web" in line and "TXT" not in line]


def test_srv_of_a_node_with_both_families(site: Site) -> None:
    """One container reached at two addresses is one host of one SRV record: it has no double share."""
    both = [Endpoint("web", ip, 20001, container="c1") for ip in ("10.0.0.1", "fd88::1")]
    other = [Endpoint("web", ip, 20001, container="c2") for ip in ("10.0.0.2", "fd88::2")]
    site.publish(endpoints=(*both, *other), records=(SRV,))
    assert site.named.dig("_http._tcp.web.k4t.lab", "SRV") == [
        "0 1 20001 10-0-0-1.web.k4t.lab.",
        "0 1 20001 10-0-0-2.web.k4t.lab.",
    ]
    assert site.named.dig("10-0-0-1.web.k4t.lab", "AAAA") == ["fd88::1"]
    site.publish(endpoints=(both[1], *other))
    assert site.named.dig("fd88-0-0-0-0-0-0-1.web.k4t.lab", "AAAA") == ["fd88::1"]
    assert site.named.dig("10-0-0-1.web.k4t.lab") == []
    assert site.observe().differences == ()


def test_names(site: Site) -> None:
    """Relative to the zone unless they end with it; the zone itself; a wildcard; literal addresses."""
    names = (Record("a.b", "web"), Record("full.k4t.lab", "web"), Record("k4t.lab", "web"), Record("*.any", "web"))
    site.publish(endpoints=web("10.0.0.1"), records=(*names, Record("gateways", "web", to=("10.9.9.9", "fd99::9"))))
    for name in ("a.b.k4t.lab", "full.k4t.lab", "k4t.lab", "x.any.k4t.lab", "A.B.K4T.lab"):
        assert site.named.dig(name) == ["10.0.0.1"], name
    assert site.named.dig("gateways.k4t.lab") == ["10.9.9.9"]
    assert site.named.dig("gateways.k4t.lab", "AAAA") == ["fd99::9"]
    assert site.observe().differences == ()
    assert site.named.dig("k4t.lab", "NS") == ["ns.k4t.lab."]


def test_nothing_to_do(site: Site) -> None:
    """The same again writes nothing."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    publisher = site.publisher()
    publisher.publish("dns", "default", changing(PROD, endpoints=web("10.0.0.2")))
    before = site.named.dump()
    assert not publisher.publish("dns", "default", changing(PROD)).changed
    assert site.named.dump() == before


def test_pointers(site: Site) -> None:
    """With a reverse zone an address has its names, and nobody else's of it is touched; what goes is taken out; drift
    is told and healed. Addresses of other zones, and SRV's hosts, have none."""
    zone = "0.10.in-addr.arpa"
    other = "3.0.0.10.in-addr.arpa"
    by_hand = f"server 127.0.0.1 {site.named.port}\nzone {zone}\nupdate add {other}. 60 PTR node3.lab.\nsend"
    site.named.nsupdate_raw(by_hand)

    def publish(*ips: str) -> None:
        site.runs += 1
        publisher = Publisher([site.member(reverse=(zone,))], PROD, f"run{site.runs}")
        change = changing(PROD, endpoints=web(*ips), records=(WEB, SRV, Record("www", "web"), Record("*.any", "web")))
        publisher.publish("dns", "default", change)

    publish("10.0.0.1", "10.0.0.3", "192.0.2.1")
    assert site.named.dig("1.0.0.10.in-addr.arpa", "PTR") == ["web.k4t.lab.", "www.k4t.lab."]
    assert site.named.dig(other, "PTR") == ["node3.lab.", "web.k4t.lab.", "www.k4t.lab."]
    publish("10.0.0.2")
    assert site.named.dig("1.0.0.10.in-addr.arpa", "PTR") == []
    assert site.named.dig(other, "PTR") == ["node3.lab."]
    site.named.nsupdate_raw(
        f"server 127.0.0.1 {site.named.port}\nzone {zone}\nupdate delete 2.0.0.10.in-addr.arpa. PTR\nsend"
    )
    assert site.member(reverse=(zone,)).observe().differences == (
        "2.0.0.10.in-addr.arpa does not give web.k4t.lab",
        "2.0.0.10.in-addr.arpa does not give www.k4t.lab",
    )
    publish("10.0.0.2")
    assert site.named.dig("2.0.0.10.in-addr.arpa", "PTR") == ["web.k4t.lab.", "www.k4t.lab."]


def test_a_reverse_zone_that_refuses(site: Site) -> None:
    """The names are published all the same, and it is told."""
    member = site.member(reverse=("0.0.10.in-addr.arpa",))
    with pytest.raises(Differs, match=r"reverse zone: it is not the primary server of 0\.0\.10\.in-addr\.arpa"):
        Publisher([member], PROD, "run1").publish(
            "dns", "default", changing(PROD, endpoints=web("10.0.0.1"), records=(WEB,))
        )
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]


# --- what is not k4t's -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stranger",
    ["web.k4t.lab. 60 A 10.6.6.6", "web.k4t.lab. 60 AAAA fd66::6", "web.k4t.lab. 60 CNAME elsewhere.lab."],
)
def test_a_strangers_name_is_refused(site: Site, stranger: str) -> None:
    """A name that exists and is not marked as k4t's is refused by name and value, and nothing has changed."""
    site.named.nsupdate(f"update add {stranger}")
    kind, value = stranger.split()[2:]
    before = site.named.dump()
    with pytest.raises(
        VendorRefused, match=rf"ns1: web\.k4t\.lab {kind} {value} is in the zone already, and not k4t's"
    ):
        site.publish(endpoints=web("10.0.0.1"), records=(WEB, Record("shop", "web")))
    assert [line for line in site.named.dump() if "_k4t" not in line] == before
    site.named.nsupdate(f"update delete {stranger.replace(' 60 ', ' ')}")
    assert site.publish(endpoints=web("10.0.0.1"), records=(WEB,)).changed


def test_a_strangers_wildcard_is_in_nobodys_way(site: Site) -> None:
    """What a wildcard answers doesn't exist: names below it can be had, and the wildcard stays."""
    site.named.nsupdate("update add *.k4t.lab. 60 A 10.6.6.6", "update add *.k4t.lab. 60 TXT hello")
    site.publish(endpoints=web("10.0.0.1"), records=(WEB, SRV))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]
    assert site.named.dig("10-0-0-1.web.k4t.lab") == ["10.0.0.1"]
    assert site.observe().differences == ()
    site.publish(endpoints=(), records=())
    assert site.named.dig("web.k4t.lab") == ["10.6.6.6"]


def test_other_types_of_a_name_stay(site: Site) -> None:
    """A name's TXT and MX are nobody's business."""
    site.named.nsupdate("update add web.k4t.lab. 60 TXT v=spf1", "update add web.k4t.lab. 60 MX 10 ns.k4t.lab.")
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    site.publish(endpoints=(), records=())
    assert site.named.dig("web.k4t.lab", "TXT") == ['"v=spf1"']
    assert site.named.dig("web.k4t.lab", "MX") == ["10 ns.k4t.lab."]


def test_a_stranger_between_prepare_and_commit(site: Site) -> None:
    """The one update is refused whole; what served before serves, it is said, and the next publication heals it."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    member = site.member()
    live = member.observe().document
    assert live is not None
    member.fence(Epoch(2, "runB"))
    new = document(2, "runB", 2, live.sha256, endpoints=web("10.0.0.2"), records=(WEB, Record("shop", "web")))
    member.prepare("t2", new)
    site.named.nsupdate("update add shop.k4t.lab. 60 A 10.6.6.6")
    assert member.commit("t2") is False
    state = member.observe()
    assert state.document == new
    assert not state.rendered
    assert "shop.k4t.lab A 10.6.6.6 is in the zone already" in state.problem
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]
    assert site.named.dig("shop.k4t.lab") == ["10.6.6.6"]
    site.publish(OTHER, endpoints=web("10.0.0.9", app="else"), records=(Record("else", "else"),))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]
    site.named.nsupdate("update delete shop.k4t.lab. A")
    site.publish(endpoints=web("10.0.0.3"), records=(Record("shop", "web"),))
    assert site.named.dig("shop.k4t.lab") == ["10.0.0.3"]
    assert site.named.dig("web.k4t.lab") == []
    state = site.observe()
    assert (state.rendered, state.problem, state.differences) == (True, "", ())


# --- drift -------------------------------------------------------------------------------------------------


def test_hand_edits_are_seen_and_healed(site: Site) -> None:
    """What somebody changed by nsupdate is told in words, and put right by the next publication."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB, SRV, Record("shop", "web")))
    site.named.nsupdate(
        "update delete web.k4t.lab. A",
        "update add web.k4t.lab. 30 A 10.6.6.6",
        "update delete _k4t-owner.web.k4t.lab. TXT",
        "update delete shop.k4t.lab. A",
        "update add shop.k4t.lab. 999 A 10.0.0.1",
        "update add web.k4t.lab. 30 AAAA fd66::6",
        "update delete 10-0-0-1.web.k4t.lab. A",
    )
    assert set(site.observe().differences) == {
        "web.k4t.lab does not give 10.0.0.1",
        "web.k4t.lab gives 10.6.6.6, which is not published",
        "web.k4t.lab gives fd66::6, which is not published",
        "_k4t-owner.web.k4t.lab is missing",
        "shop.k4t.lab A has TTL 999 s, not 30 s",
        "10-0-0-1.web.k4t.lab does not give 10.0.0.1",
    }
    site.publish()
    assert site.observe().differences == ()
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]


def test_a_lost_piece_of_the_document(site: Site) -> None:
    """Somebody removed k4t's own TXT: it is told, no other cluster publishes over it, its own one heals it."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    pieces = [line.split()[0] for line in site.named.dump() if line.startswith("0.")]
    site.named.nsupdate(*[f"update delete {name} TXT" for name in pieces])
    state = site.observe()
    assert state.document is None
    assert any("a piece of the document at _k4t-k7f3q2m9.k4t.lab is gone" in text for text in state.differences)
    before = site.named.dump()
    with pytest.raises(StepError, match=r"_k4t-k7f3q2m9\.k4t\.lab is gone"):
        site.publish(OTHER, endpoints=web("10.0.0.2"), records=(WEB,))
    assert site.named.dump() == before
    site.publish(endpoints=web("10.0.0.3"), records=(WEB,))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.3"]
    assert site.observe().differences == ()


def test_a_damaged_document_with_srv(site: Site) -> None:
    """The hosts of SRV records are known by their name's mark too: the next publication replaces them."""
    site.publish(endpoints=web("10.0.0.1"), records=(SRV,))
    pieces = [line.split()[0] for line in site.named.dump() if line.startswith("0.")]
    site.named.nsupdate(*[f"update delete {name} TXT" for name in pieces])
    site.publish(endpoints=web("10.0.0.1", "10.0.0.2"), records=(SRV,))
    assert len(site.named.dig("_http._tcp.web.k4t.lab", "SRV")) == 2
    assert site.observe().differences == ()


def test_a_damaged_staged_document_is_void(site: Site) -> None:
    """Nobody is stuck on what was never decided."""
    member = site.member()
    member.fence(Epoch(1, "runA"))
    member.prepare("t1", document())
    pieces = [line.split()[0] for line in site.named.dump() if line.startswith("0.")]
    site.named.nsupdate(*[f"update delete {name} TXT" for name in pieces])
    with pytest.raises(StepError, match="was never prepared here"):
        member.commit("t1")
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]


def test_a_lost_index(site: Site) -> None:
    """Who writes to the zone is not known any more: nothing is published over the others."""
    site.publish(OTHER, endpoints=web("10.0.0.2"), records=(WEB,))
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    site.named.nsupdate("update delete _k4t.k4t.lab. TXT")
    state = site.observe()
    assert not state.reachable
    assert "_k4t-k7f3q2m9.k4t.lab TXT says that cluster k7f3q2m9 writes to this zone, and _k4t.k4t.lab TXT doesn't" in (
        state.problem
    )
    with pytest.raises(StepError):
        site.publish(endpoints=web("10.0.0.3"))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1", "10.0.0.2"]


def test_state_of_a_newer_k4t(site: Site) -> None:
    """It is not guessed at."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    site.named.nsupdate(
        "update delete _k4t.k4t.lab. TXT", 'update add _k4t.k4t.lab. 0 TXT "k4t=2 id=ab writes=1 by=cd"'
    )
    state = site.observe()
    assert not state.reachable
    assert "written by a newer k4t (format 2; this one reads up to 1)" in state.problem


def test_blank(site: Site) -> None:
    """A replacement holds nothing and says so; one publication fills it."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB, SRV))
    site.named.stop()
    site.named.blank()
    site.named.start()
    state = site.observe()
    assert (state.reachable, state.document, state.epoch.number) == (True, None, 0)
    site.publish(endpoints=web("10.0.0.1"), records=(WEB, SRV))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]


def test_killed_and_restarted(site: Site) -> None:
    """kill -9 right after the answer: everything is there again, the fence too."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    before = site.named.dump()
    site.named.stop(signal.SIGKILL)
    site.named.start()
    assert site.named.dump() == before
    state = site.observe()
    assert (state.epoch.number, state.differences) == (1, ())


# --- withdrawals -------------------------------------------------------------------------------------------


def test_withdraw(site: Site) -> None:
    """An endpoint is out at once, stays out across documents that still name its container, and is no drift; it ends
    with a document that doesn't, or by taking it back. Only one's own can be withdrawn."""
    site.publish(OTHER, endpoints=web("10.0.0.9"), records=(WEB,))
    site.publish(endpoints=web("10.0.0.1", "10.0.0.2"), records=(WEB, SRV))
    member = site.member()
    for _ in range(2):
        assert member.withdraw("web", "10.0.0.2", 80, by="monitor", why="3 probes timed out")
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1", "10.0.0.9"]
    assert len(site.named.dig("_http._tcp.web.k4t.lab", "SRV")) == 2
    assert '"out=10.0.0.2 80 c10.0.0.2 monitor 3 probes timed out"' in site.named.dig("_k4t-k7f3q2m9.k4t.lab", "TXT")
    assert site.observe().differences == ()
    site.publish(endpoints=web("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    site.publish(OTHER, endpoints=web("10.0.0.8"))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1", "10.0.0.3", "10.0.0.8"]
    assert member.restore("10.0.0.2", 80)
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.8"]
    member.withdraw("web", "10.0.0.2", 80, by="", why="")
    site.publish(endpoints=web("10.0.0.1"))
    assert not [line for line in site.named.dump() if '"out=' in line]
    with pytest.raises(StepError, match=r"this cluster does not publish web 10\.0\.0\.8:80"):
        member.withdraw("web", "10.0.0.8", 80, by="monitor", why="dead")


# --- several clusters --------------------------------------------------------------------------------------


def test_two_clusters(site: Site) -> None:
    """One name in two clusters adds up; a name that another app has names its owner; leaving takes only one's own."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    site.publish(OTHER, endpoints=web("10.0.0.2"), records=(WEB,))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1", "10.0.0.2"]
    assert [other.name for other in site.observe().others] == ["other"]
    with pytest.raises(StepError, match=r"record web\.k4t\.lab of app shop belongs to app web of cluster prod"):
        site.publish(OTHER, endpoints=(), records=(Record("web", "shop"),))
    with pytest.raises(StepError, match=r"10\.0\.0\.1:80 of app else is already published by cluster prod"):
        site.publish(OTHER, endpoints=web("10.0.0.1", app="else"), records=())
    site.publish(PROD, endpoints=(), records=())
    assert site.named.dig("web.k4t.lab") == ["10.0.0.2"]


def test_a_staged_document_of_another_cluster_counts(site: Site) -> None:
    """Two clusters prepare the same name at the same time: the second one is refused."""
    first, second = site.member(PROD), site.member(OTHER)
    first.fence(Epoch(1, "runA"))
    second.fence(Epoch(1, "runB"))
    first.prepare("t1", document())
    rival = make(
        Document(
            OTHER.id,
            OTHER.name,
            "dns",
            "default",
            Epoch(1, "runB"),
            1,
            "",
            web("10.0.0.2", app="shop"),
            records=(Record("web", "shop"),),
        )
    )
    with pytest.raises(StepError, match="belongs to app web of cluster prod"):
        second.prepare("t2", rival)


def test_racing_clusters(site: Site) -> None:
    """Three clusters publish one app's name at the same time, over and over: the exact union in the end."""
    clusters = [Cluster(f"c{number}", f"cluster{number}") for number in range(3)]
    rounds, last = 12, {}

    def run(cluster: Cluster) -> None:
        number = clusters.index(cluster)
        publisher = Publisher([site.member(cluster)], cluster, f"run{number}")
        chance = random.Random(number)  # noqa: S311 - test data
        for _ in range(rounds):
            ips = [f"10.{number}.0.{one}" for one in chance.sample(range(1, 20), 5)]
            publisher.publish("dns", "default", changing(cluster, endpoints=web(*ips), records=(WEB,)))
            last[cluster.id] = ips

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, clusters))
    assert site.named.dig("web.k4t.lab") == sorted(ip for ips in last.values() for ip in ips)
    assert site.observe(clusters[0]).differences == ()
    assert not [line for line in site.named.dump() if "staged=" in line]


# --- the protocol ------------------------------------------------------------------------------------------


def test_everything_twice(site: Site) -> None:
    """Every message may be sent again; an abort leaves the zone as it was, but for the count of writes."""
    member = site.member()
    member.observe()
    for _ in range(2):
        member.fence(Epoch(1, "runA"))
    fenced = _content(site)
    for _ in range(2):
        member.prepare("t1", document())
    for _ in range(2):
        member.abort("t1")
    assert _content(site) == fenced
    with pytest.raises(StepError, match="t1 was never prepared here, or was aborted"):
        member.commit("t1")
    member.prepare("t1", document())
    for _ in range(2):
        assert member.commit("t1")
    assert member.verify(document()) == ()
    member.abort("t1")
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]


def _content(site: Site) -> list[str]:
    return [line for line in site.named.dump() if "writes=" not in line]


def test_an_overtaken_run(site: Site) -> None:
    """A newer fence voids what was staged, and refuses the older run's every write."""
    old, new = site.member(), site.member()
    old.observe()
    old.fence(Epoch(1, "runA"))
    old.prepare("t1", document())
    new.observe()
    new.fence(Epoch(2, "runB"))
    with pytest.raises(Overtaken, match=r"run runA \(epoch 1\) was overtaken by run runB \(epoch 2\)"):
        old.commit("t1")
    with pytest.raises(Overtaken):
        old.prepare("t1", document())
    new.prepare("t2", document(2, "runB"))
    assert new.commit("t2")
    late = site.member()
    with pytest.raises(Overtaken, match="what is live is not what this run saw"):
        late.prepare("t3", document(3, "runC", 1, "f" * 64))


@pytest.mark.parametrize("cut", range(1, 26))
def test_cut_at_any_message(site: Site, cut: int) -> None:
    """The connection is cut after any number of messages, before or after the server has read the last one: the run
    goes on or ends with the state of before, and the next run always gets there."""
    proxy = Proxy(site.named.port, cut // 2, forward=bool(cut % 2))
    try:
        member = site.member(port=proxy.port)
        publisher = Publisher([member], PROD, "run1")
        change = changing(PROD, endpoints=web("10.0.0.1"), records=(WEB, SRV))
        with suppress(ConnectionLost, ParticipantAway, StepError):
            publisher.publish("dns", "default", change)
        assert site.named.dig("web.k4t.lab") in ([], ["10.0.0.1"])
    finally:
        proxy.close()
    site.publish(endpoints=web("10.0.0.2"), records=(WEB, SRV))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.2"]
    assert site.observe().differences == ()
    left = [line for line in site.named.dump() if ("staged=" in line or line.startswith("0."))]
    assert len(left) == 1  # the live document


class Proxy:
    """Passes `messages` on and cuts the connection at the next one: with `forward` after the server got it. Once."""

    def __init__(self, port: int, messages: int, *, forward: bool) -> None:
        self.target = port
        self.left = messages
        self.forward = forward
        self.cut = False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self.target)) as server:
            back = threading.Thread(target=self._back, args=(server, client), daemon=True)
            back.start()
            stream = client.makefile("rb")
            while head := stream.read(2):
                message = head + stream.read(int.from_bytes(head, "big"))
                if self.left == 0 and not self.cut:
                    self.cut = True
                    client.shutdown(socket.SHUT_RDWR)
                    if self.forward:
                        server.sendall(message)
                        server.shutdown(socket.SHUT_WR)
                        back.join(10)
                    return
                self.left -= 1
                server.sendall(message)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                with suppress(OSError):
                    client.sendall(data)

    def close(self) -> None:
        self.listener.close()


def test_over_ipv6(site: Site) -> None:
    """A server with an IPv6 address is asked there."""
    spec = Dns("ns1", "rfc2136", "::1", "k4t.lab", port=site.named.port, key_name=KEY_NAME, secret="tsig")
    member = Rfc2136(spec, PROD, lambda: site.named.secret, lambda: dial("::1", site.named.port))
    site.open.append(member)
    Publisher([member], PROD, "run1").publish(
        "dns", "default", changing(PROD, endpoints=web("fd88::1"), records=(WEB,))
    )
    assert site.named.dig("web.k4t.lab", "AAAA") == ["fd88::1"]


# --- size --------------------------------------------------------------------------------------------------


def test_answers_are_told_apart(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many questions at once: each has a number of its own and gets its own answer. By chance, two of 60 would have
    the same now and then."""
    names = [f"n{number}" for number in range(60)]
    endpoints = tuple(Endpoint(name, f"10.3.0.{place}", 80, container=name) for place, name in enumerate(names, 1))
    site.publish(endpoints=endpoints, records=tuple(Record(name, name) for name in names))
    server: Any = site.member()._zone.server
    asked = [(f"{name}.k4t.lab", "A") for name in names]
    numbers: list[int] = []
    signed = server._wire

    def noted(message: Any) -> Any:
        numbers.append(message.id)
        return signed(message)

    monkeypatch.setattr(server, "_wire", noted)
    for _ in range(10):
        numbers.clear()
        found = server.ask(asked)
        assert [(one - numbers[0]) % 65536 for one in numbers] == list(range(60))
        assert [found[name].values for name in asked] == [frozenset({one.ip}) for one in endpoints]


def test_a_large_document(site: Site) -> None:
    """1,000 endpoints in 20 names: the document goes ahead in pieces, the records switch in one update; an abort, and
    the next publication, leave no piece behind."""
    chance = random.Random(1)  # noqa: S311 - test data
    endpoints = tuple(
        Endpoint(f"app{name}", f"10.{name}.0.{one}", 80, container=chance.randbytes(32).hex())
        for name in range(20)
        for one in range(1, 51)
    )
    named = tuple(Record(f"app{name}", f"app{name}") for name in range(20))
    member = site.member()
    member.fence(Epoch(1, "runA"))
    fenced = _content(site)
    member.prepare("t1", document(endpoints=endpoints, records=named))
    assert len([line for line in site.named.dump() if "TXT" in line and "._k4t-k7f3q2m9" in line]) > 4
    member.abort("t1")
    assert _content(site) == fenced
    assert site.publish(endpoints=endpoints, records=named).changed
    assert len(site.named.dig("app7.k4t.lab")) == 50
    assert site.observe().differences == ()
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    assert len([line for line in site.named.dump() if "._k4t-k7f3q2m9" in line]) == 1


def test_more_addresses_than_bind_holds(site: Site) -> None:
    """100 of one name are served; with 101 it is refused before anything changes. BIND itself would answer SERVFAIL."""
    ips = [f"10.1.0.{one}" for one in range(1, 102)]
    site.publish(endpoints=web(*ips[:100]), records=(WEB,))
    assert len(site.named.dig("web.k4t.lab")) == 100
    with pytest.raises(VendorRefused, match=r"web\.k4t\.lab would have 101 A records; BIND holds 100 of a name"):
        site.publish(endpoints=web(*ips), records=(WEB,))
    assert len(site.named.dig("web.k4t.lab")) == 100


def test_more_than_a_message(site: Site) -> None:
    """What one update can't hold is refused with numbers: it would not be atomic."""
    endpoints = tuple(
        Endpoint(f"app{name}", f"10.{name}.0.{one}", 80, container=f"c{name}.{one}")
        for name in range(50)
        for one in range(1, 91)
    )
    named = tuple(Record(f"app{name}", f"app{name}") for name in range(50))
    with pytest.raises(VendorRefused, match=r"4550 records of 100 names take more than 61535 bytes"):
        site.publish(endpoints=endpoints, records=named)
    assert not [line for line in site.named.dump() if "staged=" in line]


# --- who says no -------------------------------------------------------------------------------------------


def refusal(member: Rfc2136) -> K4tError:
    with pytest.raises(K4tError) as caught:
        member.fence(Epoch(1, "runA"))
    state = member.observe()
    assert state.reachable or state.exit_status == caught.value.exit_status
    return caught.value


def test_each_refusal_has_its_own_words(site: Site) -> None:
    """Wrong secret, unknown key, a key that may not update, no key, another zone, a static one, a frozen one."""
    wrong = "c2VjcmV0LXRoYXQtaXMtd3Jvbmc="
    error = refusal(site.member(secret=wrong))
    assert "ns1: TSIG key k4t has another secret there (BADSIG)" in str(error)
    assert isinstance(error, LoginRefused)
    assert wrong not in str(error)
    error = refusal(site.member(key_name="nobody"))
    assert "it doesn't know TSIG key nobody (BADKEY)" in str(error)
    error = refusal(site.member(key_name=OTHER_KEY))
    assert "it refuses updates of k4t.lab by key somebody" in str(error)
    assert "allow-update or update-policy must name key somebody" in str(error)
    error = refusal(site.member(key_name=""))
    assert "it refuses updates of k4t.lab by this address (no key)" in str(error)
    error = refusal(site.member(zone="elsewhere.lab"))
    assert "it refuses questions about elsewhere.lab by key k4t; is the zone there" in str(error)
    error = refusal(site.member(zone="below.k4t.lab"))
    assert "it is not the primary server of below.k4t.lab" in str(error)
    error = refusal(site.member(zone="static.lab"))
    assert "it refuses updates of static.lab" in str(error)


def test_frozen(site: Site) -> None:
    """While the operator edits the zone's file, it refuses; nothing changes; thawed, it goes on."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    site.named.rndc("freeze", "k4t.lab")
    with pytest.raises(LoginRefused) as caught:
        site.publish(endpoints=web("10.0.0.2"), records=(WEB,))
    assert "it refuses updates of k4t.lab now, and took them before: the zone is frozen" in str(caught.value)
    assert "rndc thaw k4t.lab" in str(caught.value)
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]
    assert site.observe().differences == ()
    site.named.rndc("thaw", "k4t.lab")
    site.publish(endpoints=web("10.0.0.2"), records=(WEB,))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.2"]


def test_a_directory_that_cannot_be_written(site: Site) -> None:
    """BIND can't write its journal: it says SERVFAIL, and the message says where to look."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    journal = site.named.directory / "k4t.lab.zone.jnl"
    site.named.rndc("sync", "-clean", "k4t.lab")
    journal.unlink(missing_ok=True)
    journal.mkdir()
    with pytest.raises(VendorRefused, match=r"could not carry that out in k4t\.lab \(SERVFAIL\); its log says why"):
        site.publish(endpoints=web("10.0.0.2"), records=(WEB,))
    journal.rmdir()
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]


def test_away(site: Site) -> None:
    """Nobody there, and somebody who doesn't answer, are two messages; both are bounded, and neither is empty."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    site.named.pause()
    member = site.member()
    try:
        state = member.observe()
    finally:
        site.named.go_on()
    assert not state.reachable
    assert "ns1: no DNS answer: timed out" in state.problem
    assert state.exit_status == 69
    site.named.stop()
    state = site.observe()
    assert "ns1: no DNS answer over TCP: Connection refused" in state.problem
    assert state.exit_status == 69
    with pytest.raises(ParticipantAway):
        site.publish(endpoints=web("10.0.0.2"))
    site.named.start()
    assert site.observe().differences == ()


def test_idle_connections_are_made_anew(site: Site) -> None:
    """A server that hung up meanwhile (as BIND does after 30 s, or because it was restarted) is asked again."""
    member = site.member()
    assert member.observe().reachable
    site.named.stop()
    site.named.start()
    assert member.observe().reachable


def test_the_key_is_nowhere(site: Site, tmp_path: Path) -> None:
    """Not in the zone, not in any text of the driver's."""
    member = site.member()
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    member.observe()
    text = "\n".join([*site.named.dump(), repr(member._key), repr(member), repr(vars(member._zone.server))])
    assert site.named.secret not in text
    assert "algorithm='hmac-sha256'" in text
