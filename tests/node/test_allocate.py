"""Host ports: lowest free first, every cluster's containers and every socket respected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t.errors import PortTaken
from k4t.model.app import App, Image, Network, Port
from k4t.model.hosts import Node
from k4t.model.shared import Where
from k4t.model.state import BoundPort
from k4t.node.allocate import allocate, held_ports, needs_host_ports
from k4t.node.labels import Labels, build

pytestmark = pytest.mark.unit

NODE = Node("node1", "10.0.0.1", port_range=(20000, 20009))
AUTO = Port("main", host="auto", where=Where("apps/web/app.xml", 4))


def app(*ports: Port, mode: Any = "host") -> App:
    return App("web", Image("web:1"), ports=ports, network=Network(mode))


def listed(name: str, *ports: BoundPort, cluster: str = "c1", address: str = "10.0.0.1", mode: str = "host") -> Any:
    labels = build(Labels(cluster, "web", "0", 1, 1, "v1:x", ports=ports, address=address))
    return {"Names": [f"/{name}"], "Labels": labels, "State": "exited", "HostConfig": {"NetworkMode": mode}}


def test_the_lowest_free_number_is_taken() -> None:
    """A label reserves also where the container does not run, whichever cluster it is of; so does a socket."""
    entries = [listed("a", BoundPort("main", 20000)), listed("b", BoundPort("main", 20001), cluster="c2")]
    holders = held_ports(entries, NODE.address)
    assert allocate(app(AUTO), NODE, holders, {("tcp", 20002): ""}, {}) == (BoundPort("main", 20003),)


def test_tcp_and_udp_are_apart() -> None:
    """A number held for TCP is free for UDP."""
    holders = held_ports([listed("a", BoundPort("main", 20000))], NODE.address)
    udp = Port("main", host="auto", protocol="udp")
    assert allocate(app(udp), NODE, holders, {}, {}) == (BoundPort("main", 20000, "udp"),)


def test_a_container_with_its_own_address_holds_nothing_here() -> None:
    """A macvlan container's ports are on its own address."""
    entries = [listed("a", BoundPort("main", 80), address="10.0.0.100", mode="lan")]
    assert held_ports(entries, NODE.address) == {}


def test_published_ports_of_strangers_are_held() -> None:
    """What Docker forwards for a container that k4t did not make is taken."""
    entry = {"Names": ["/db"], "Labels": {}, "Ports": [{"IP": "0.0.0.0", "PublicPort": 5432, "Type": "tcp"}]}
    assert held_ports([entry], NODE.address) == {("tcp", 5432): "container db"}


def test_a_taken_port_is_refused_with_node_line_and_holder() -> None:
    """The message has everything that is needed to go and look."""
    port = Port("main", host=8080, where=Where("apps/web/app.xml", 4))
    with pytest.raises(PortTaken) as refused:
        allocate(app(port), NODE, {}, {("tcp", 8080): "nc (pid 7)"}, {})
    assert str(refused.value) == (
        "node1: apps/web/app.xml:4: port 8080/tcp of node1 (10.0.0.1) is taken by nc (pid 7); "
        'free it, or give this port another number or host="auto"'
    )


def test_in_host_mode_a_container_port_is_a_host_port() -> None:
    """`container="80"` alone listens on the node's 80: one a node."""
    with pytest.raises(PortTaken, match="container other"):
        allocate(app(Port(container=80)), NODE, {("tcp", 80): "container other"}, {}, {})


def test_fixed_numbers_come_before_automatic_ones() -> None:
    """An automatic port never takes the number that the same app asks for; order stays the tree's."""
    ports = allocate(app(AUTO, Port("admin", host=20000)), NODE, {}, {}, {})
    assert ports == (BoundPort("main", 20001), BoundPort("admin", 20000))


def test_a_pin_decides() -> None:
    """A pinned number is taken, in or outside of the range."""
    assert allocate(app(AUTO), NODE, {}, {}, {"main": 31000}) == (BoundPort("main", 31000),)


def test_a_full_range_says_so() -> None:
    """The message names the range and where to widen it."""
    full = {("tcp", number): "x" for number in range(20000, 20010)}
    with pytest.raises(PortTaken, match=r"all 10 ports 20000-20009 .*widen <ports range> of nodes/node1.xml"):
        allocate(app(AUTO), NODE, full, {}, {})


@pytest.mark.parametrize(("mode", "needs"), [("host", True), ("bridge", True), ("none", False), ("macvlan", False)])
def test_only_shared_addresses_need_host_ports(mode: str, needs: bool) -> None:
    """Where a container has no part in the node's address, no lock is taken."""
    assert needs_host_ports(app(AUTO, mode=mode)) is needs


@given(
    st.sets(st.integers(20000, 20009)),
    st.sets(st.integers(20000, 20009)),
    st.lists(st.sampled_from(["tcp", "udp"]), max_size=4),
)
def test_nothing_taken_is_ever_handed_out(held: set[int], listening: set[int], kinds: list[Any]) -> None:
    """Whatever is held, an allocation is free, within the range, and unique; or it is refused."""
    ports = [Port(f"p{index}", host="auto", protocol=kind) for index, kind in enumerate(kinds)]
    holders = {("tcp", number): "x" for number in held}
    sockets = {("tcp", number): "" for number in listening}
    try:
        given_out = allocate(app(*ports), NODE, holders, sockets, {})
    except PortTaken:
        return
    keys = [(port.protocol, port.number) for port in given_out]
    assert len(set(keys)) == len(keys) == len(ports)
    assert not set(keys) & (set(holders) | set(sockets))
    assert all(20000 <= port.number <= 20009 for port in given_out)
