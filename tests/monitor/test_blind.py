"""Without a tree: what hosts say is there, and the names that documents have for it."""

from __future__ import annotations

import dataclasses

import pytest

from k4t.errors import HostUnreachable, Usage
from k4t.master.fleet import Fleet
from k4t.monitor.facts import Facts
from k4t.monitor.looking import blind
from k4t.monitor.signs import signs
from k4t.remote.fake import FakeTransport
from tests.monitor.test_answer import GOOD
from tests.monitor.world import facts, with_node

pytestmark = pytest.mark.unit


def fleet(answers: dict[str, str]) -> Fleet:
    """Hosts by what they were called, and what each adds to a good answer."""

    def connect(name: str, _ssh: object, _address: str) -> FakeTransport:
        if answers[name] == "away":
            raise HostUnreachable("does not answer", host=name, why="silent")
        host = FakeTransport(name)
        host.answer(["sh"], (GOOD + answers[name]).encode())
        return host

    return Fleet(blind.tree_of(list(answers)), connect, {})


def test_hosts_are_what_they_say() -> None:
    """Docker makes a node, a vendor's registrar a gateway or a DNS server; who is silent is told as a node."""
    asked = fleet({
        "root@10.0.0.11": "process 1 dockerd\ncluster c1\n",
        "10.0.0.21:2222": "driver envoy\ndriver dnsmasq\ncluster c1\n",
        "10.0.0.22": "driver nginx\nprocess 1 dockerd\ncluster c1\n",
        "10.0.0.99": "away",
    })  # fmt: skip
    found = blind.find(asked, "")
    assert found.cluster.id == "c1"
    assert sorted(found.nodes) == ["10.0.0.22", "10.0.0.99", "root@10.0.0.11"]
    assert {name: one.driver for name, one in found.gateways.items()} == {
        "10.0.0.21:2222": "envoy",
        "10.0.0.22": "nginx",
    }
    assert [one.driver for one in found.dns.values()] == ["dnsmasq"]
    before = set(asked.hosts)
    blind.turned(asked, found)
    assert set(asked.hosts) == before  # so that its connections serve on
    asked.close()


def test_hosts_of_several_clusters_want_a_choice() -> None:
    """The names there are are told."""
    asked = fleet({"a": "cluster c1\ncluster c2\n"})
    with pytest.raises(Usage, match="c1, c2"):
        blind.find(asked, "")
    assert blind.find(asked, "c2").cluster.id == "c2"
    with pytest.raises(Usage, match="no cluster"):
        blind.find(fleet({"a": ""}), "")


def test_when_nobody_answers_it_says_why() -> None:
    """As connecting did."""
    with pytest.raises(HostUnreachable, match="does not answer"):
        blind.find(fleet({"a": "away"}), "")


def test_what_is_no_host_is_refused() -> None:
    """With how it is written."""
    with pytest.raises(Usage, match="user@host:port"):
        blind.tree_of(["root@:22x"])


def untreed() -> Facts:
    """What `world` has, as one sees it who only knows two addresses."""
    known = facts()
    names = {"n1": "10.0.0.11", "n2": "10.0.0.12"}
    return dataclasses.replace(
        blind.named(dataclasses.replace(
            known,
            cluster="k7f3q2m9",
            nodes={names[name]: dataclasses.replace(node, state=dataclasses.replace(node.state, name=names[name]))
                   for name, node in known.nodes.items()},
            desired={},
        )),
        targets=(),
    )  # fmt: skip


def test_nodes_are_called_as_documents_call_them() -> None:
    """By the containers that run there; so is the cluster."""
    found = untreed()
    assert sorted(found.nodes) == ["n1", "n2"]
    assert {one.node for one in found.containers} == {"n1", "n2"}
    assert found.cluster == "prod"


def test_what_is_published_and_does_not_run_is_told() -> None:
    """Nobody says how many there should be; the documents say who is sent to."""
    tree = blind.tree_of([])
    assert signs(untreed(), tree).found == ()
    (one,) = signs(with_node(untreed(), "n2"), tree).found
    assert (str(one.subject), one.what) == ("app web", "container-missing")
