"""What is published is in the zone, what is not k4t's stays, and what doesn't fit is refused with its numbers."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from k4t.errors import (
    Differs,
    VendorRefused,
)
from k4t.master.publication.publish import Publisher
from k4t.registrar.document import Endpoint, Epoch, Record
from tests.publication.rfc2136.conftest import OTHER, PROD, SRV, WEB, Site, changing, document, web

pytestmark = pytest.mark.integration


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
    fenced = site.content()
    member.prepare("t1", document(endpoints=endpoints, records=named))
    assert len([line for line in site.named.dump() if "TXT" in line and "._k4t-k7f3q2m9" in line]) > 4
    member.abort("t1")
    assert site.content() == fenced
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
