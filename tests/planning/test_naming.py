"""Records against what each DNS server can do."""

from __future__ import annotations

import dataclasses

import pytest

from k4t.dns.dnsmasq import Dnsmasq
from k4t.dns.rfc2136 import Rfc2136
from k4t.master.planning.capable import caveats, inexpressible
from k4t.master.publication.fake import FakeParticipant
from k4t.model.app import App, Image, Network, Port, Scale, Update
from k4t.model.hosts import Node
from k4t.model.publish import Record
from k4t.model.shared import Share, Where
from k4t.model.spec import Cluster, Tree

NOW = "2026-11-20T12:00:00Z"
pytestmark = pytest.mark.unit
DNSMASQ = FakeParticipant("dns1", kind="dns", driver="dnsmasq", capabilities=Dnsmasq.capabilities)
BIND = FakeParticipant("ns1", kind="dns", driver="rfc2136", capabilities=Rfc2136.capabilities)


def web(*records: Record, **fields: object) -> App:
    placed = tuple(
        dataclasses.replace(record, where=Where("apps/web/app.xml", line)) for line, record in enumerate(records, 4)
    )
    return dataclasses.replace(App("web", Image("web:1"), ports=(Port(),), records=placed), **fields)  # type: ignore[arg-type]


def tree(*apps: App, nodes: int = 3) -> Tree:
    hosts = {f"n{number}": Node(f"n{number}", f"10.0.0.{number}") for number in range(nodes)}
    return Tree(Cluster("prod", "k7f3q2m9"), nodes=hosts, apps={app.name: app for app in apps})


def test_what_dnsmasq_has_not() -> None:
    """SRV is refused by line and server; a TTL that somebody asked for is said to have no effect, the default isn't."""
    asked = tree(web(Record("web", "srv"), Record("www"), Record("slow", ttl_s=300)))
    (found,) = inexpressible(asked, [BIND, DNSMASQ])
    assert str(found).startswith("apps/web/app.xml:4: dns1 (dnsmasq) can't serve srv records;")
    (said,) = caveats(asked, [BIND, DNSMASQ], NOW)
    assert said.startswith("apps/web/app.xml:6: ttl=300s of web's record slow has no effect: ")
    assert said.endswith("dns1 (dnsmasq) serves every name with TTL 1 s")
    assert caveats(asked, [dataclasses.replace(DNSMASQ, group="inner")], NOW) == ()


@pytest.mark.parametrize(
    ("fields", "nodes", "refused"),
    [
        ({"replicas": 100, "update": Update(max_surge=Share(0))}, 200, False),
        ({"replicas": 100, "update": Update(max_surge=Share(1))}, 200, True),
        ({"replicas": 500}, 100, False),
        ({"replicas": 500, "network": Network("macvlan")}, 100, True),
        ({"replicas": 2, "scale": Scale(1, 150)}, 200, True),
        ({"replicas": None}, 101, True),
    ],
)
def test_addresses_of_a_name(fields: dict[str, object], nodes: int, refused: bool) -> None:
    """BIND holds 100 records of a name: as many as there can be in the middle of an update count, of one node once."""
    found = inexpressible(tree(web(Record("web"), **fields), nodes=nodes), [BIND])
    assert bool(found) is refused
    if found:
        assert "ns1 (rfc2136) holds 100 of one name and type" in found[0].message


def test_an_srv_record_has_one_for_each_endpoint() -> None:
    """Also where replicas share a node."""
    (found,) = inexpressible(tree(web(Record("web", "srv"), replicas=150), nodes=3), [BIND])
    assert found.message.startswith("web would have up to 151 records;")


def test_more_than_an_update_holds() -> None:
    """The whole group counts; the line is the largest record's."""
    apps = [
        dataclasses.replace(web(Record(f"app{number}"), replicas=90, network=Network("macvlan")), name=f"app{number}")
        for number in range(45)
    ]
    (found,) = inexpressible(tree(*apps), [BIND])
    assert "ns1 (rfc2136) takes 61535 in one update" in found.message
    assert inexpressible(tree(*apps[:30]), [BIND]) == ()
    wide = dataclasses.replace(tree(*apps[:30]), nodes={"n1": Node("n1", "fd88::1")})
    assert "takes 61535 in one update" in inexpressible(wide, [BIND])[0].message
