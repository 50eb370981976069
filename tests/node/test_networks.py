"""Addresses of their own: handed out under the host's lock, on Docker networks that all clusters share."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t.errors import AddressTaken, NameTaken, StepError
from k4t.model.app import App, Image, Network, Port
from k4t.model.hosts import AddressPool, Node
from k4t.model.shared import Where
from k4t.model.state import BoundPort, Container
from k4t.node import lifecycle
from k4t.node.addresses import choose, held_addresses, own_ports
from k4t.node.create import Order, create
from k4t.node.docker import Engine
from k4t.node.labels import Labels, build
from k4t.node.networks import ensure, name_of_network, network_body
from k4t.remote.lock import host_lock
from tests.lab import Host
from tests.node.conftest import HOLDER

GOLDEN = Path(__file__).parent / "golden" / "networks"
POOL = AddressPool("10.0.0.100", "10.0.0.103", "eth0", "10.0.0.0/24", "10.0.0.1")
NODE = Node("node1", "10.0.0.11", pool=POOL, where=Where("nodes/node1.xml", 3))
APP = App("web", Image("web:1"), network=Network("macvlan"), where=Where("apps/web/app.xml", 1))
LAN = Network("macvlan")
HTTP = (Port("http", container=8080),)


def listed(name: str, address: str, *, cluster: str = "c1", networks: Any = None) -> Any:
    labels = build(Labels(cluster, "web", "0", 1, 1, "v1:x", address=address)) if address else {}
    return {"Names": [f"/{name}"], "Labels": labels, "State": "exited", "NetworkSettings": {"Networks": networks or {}}}


@pytest.mark.unit
def test_the_lowest_free_address_is_taken() -> None:
    """A label reserves also where nothing runs, whichever cluster it is of; so does an address that Docker gave."""
    attached = {"lan": {"IPAddress": "10.0.0.102", "IPAMConfig": None}}
    entries = [
        listed("a", "10.0.0.100"),
        listed("b", "10.0.0.101", cluster="c2"),
        listed("x", "", networks=attached),
    ]
    assert choose(APP, NODE, held_addresses(entries), "") == "10.0.0.103"


@pytest.mark.unit
def test_what_docker_was_told_to_give_is_held() -> None:
    """A stranger that is created and not started names its address in its configuration only."""
    entry = listed("x", "", networks={"lan": {"IPAddress": "", "IPAMConfig": {"IPv4Address": "10.0.0.100"}}})
    assert held_addresses([entry]) == {"10.0.0.100": "container x"}


@pytest.mark.unit
def test_addresses_that_others_are_pinned_to_are_left_alone() -> None:
    """They are free now, and another replica will want them."""
    assert choose(APP, NODE, {}, "", frozenset({"10.0.0.100", "10.0.0.101"})) == "10.0.0.102"


@pytest.mark.unit
def test_an_exhausted_pool_names_node_range_and_lines() -> None:
    """The message has everything that is needed to go and widen it."""
    holders = {f"10.0.0.{number}": "x" for number in range(100, 104)}
    with pytest.raises(AddressTaken) as refused:
        choose(APP, NODE, holders, "")
    assert str(refused.value) == (
        "node1: apps/web/app.xml:1: all 4 addresses 10.0.0.100-10.0.0.103 of node1 (nodes/node1.xml:3) are taken; "
        "widen <addresses range> of nodes/node1.xml"
    )


@pytest.mark.unit
def test_a_pin_decides() -> None:
    """A pinned address is taken, in or outside of the range, but not when somebody holds it or it isn't there."""
    assert choose(APP, NODE, {}, "10.0.0.200", frozenset({"10.0.0.200"})) == "10.0.0.200"
    with pytest.raises(AddressTaken, match=r"pinned address 10.0.0.101 of node1 is taken by container b"):
        choose(APP, NODE, {"10.0.0.101": "container b"}, "10.0.0.101")
    with pytest.raises(AddressTaken, match=r"10.9.0.1 is not in 10.0.0.0/24 of node1 \(nodes/node1.xml:3\)"):
        choose(APP, NODE, {}, "10.9.0.1")
    with pytest.raises(AddressTaken, match=r"is taken by its gateway"):
        choose(APP, NODE, {}, "10.0.0.1")


@pytest.mark.unit
def test_docker_keeps_the_first_address_where_no_gateway_is_named() -> None:
    """It would refuse a container with it."""
    pool = AddressPool("10.0.0.1", "10.0.0.2", "eth0", "10.0.0.0/24")
    assert choose(APP, dataclasses.replace(NODE, pool=pool), {}, "") == "10.0.0.2"


@pytest.mark.unit
@given(st.sets(st.integers(0, 7)), st.sets(st.integers(0, 7)), st.integers(0, 7), st.integers(0, 7))
def test_nothing_held_is_ever_handed_out(held: set[int], reserved: set[int], one: int, other: int) -> None:
    """Whatever is held, an address is free and of the range; or there is none."""
    low, high = sorted((one, other))
    pool = AddressPool(f"fd88::1{low}", f"fd88::1{high}", "eth0", "fd88::/64")
    holders = {f"fd88::1{number}": "x" for number in held}
    kept = {f"fd88::1{number}" for number in reserved}
    free = [f"fd88::1{n}" for n in range(low, high + 1) if f"fd88::1{n}" not in {*holders, *kept}]
    node = dataclasses.replace(NODE, pool=pool)
    if free:
        assert choose(APP, node, holders, "", kept) == free[0]
    else:
        with pytest.raises(AddressTaken):
            choose(APP, node, holders, "", kept)


@pytest.mark.unit
def test_ports_are_where_it_listens_by_itself() -> None:
    """There is no other number: the address is its own."""
    app = dataclasses.replace(APP, ports=(Port("http", container=80), Port("dns", container=53, protocol="udp")))
    assert own_ports(app) == (BoundPort("http", 80), BoundPort("dns", 53, "udp"))


@pytest.mark.unit
@pytest.mark.parametrize("mode", ["macvlan", "ipvlan"])
@pytest.mark.parametrize("family", ["v4", "v6"])
def test_the_network_that_docker_is_told_to_make(mode: str, family: str) -> None:
    """Whole, as it was when the golden file was written: other clusters' k4t must find the same."""
    pool = POOL if family == "v4" else AddressPool("fd88::100", "fd88::1ff", "eth0.7", "fd88::/64")
    golden = json.loads((GOLDEN / f"{mode}-{family}.json").read_text())
    assert network_body(mode, pool) == golden


# --- on a real host ----------------------------------------------------------------------------------------


@pytest.fixture
def pooled(node: Node, host: Host) -> Node:
    """The lab's host with four addresses to give."""
    prefix = host.address.rpartition(".")[0]
    pool = AddressPool(f"{prefix}.100", f"{prefix}.103", "eth0", f"{prefix}.0/24", f"{prefix}.254")
    host.exec(["sh", "-c", "docker network ls -q --filter name=k4t- | xargs -r docker network rm"])
    return dataclasses.replace(node, pool=pool, where=Where("nodes/n1.xml", 1))


Make = Callable[[Order], Container]


@pytest.fixture
def make_pooled(engine: Engine, pooled: Node) -> Make:
    return lambda order: create(engine, pooled, order, lambda: host_lock(engine.transport, HOLDER))


@pytest.mark.integration
def test_each_container_has_an_address_of_its_own(
    make_pooled: Make, pooled: Node, engine: Engine, host: Host, order: Callable[..., Order]
) -> None:
    """Different ones, told in ADDRESS, on one network with k4t's labels and a name that only the wiring decides."""
    made = [make_pooled(order(network=LAN, ports=HTTP)) for _ in range(3)]
    prefix = host.address.rpartition(".")[0]
    assert [one.address for one in made] == [f"{prefix}.{last}" for last in (100, 101, 102)]
    for one in made:
        lifecycle.start(engine, "k7f3q2m9", one.id)
    inspected = engine.inspect(made[0].id) or {}
    name = f"k4t-macvlan-eth0-{prefix}.0-24"
    assert inspected["NetworkSettings"]["Networks"][name]["IPAddress"] == f"{prefix}.100"
    assert f"ADDRESS={prefix}.100" in inspected["Config"]["Env"]
    network = json.loads(host.docker(["network", "inspect", name]).stdout)[0]
    assert network["Labels"]["io.k4t.network"] == f"macvlan eth0 {prefix}.0/24"


@pytest.mark.integration
def test_an_address_given_back_is_free_again(
    make_pooled: Make, pooled: Node, engine: Engine, host: Host, order: Callable[..., Order]
) -> None:
    """The fifth container finds no address; when one is gone, it gets that one."""
    made = [make_pooled(order(network=LAN, ports=HTTP)) for _ in range(4)]
    with pytest.raises(AddressTaken, match=r"all 4 addresses .* of n1 \(nodes/n1.xml:1\) are taken"):
        make_pooled(order(network=LAN, ports=HTTP))
    lifecycle.remove(engine, "k7f3q2m9", made[2].id)
    assert make_pooled(order(network=LAN, ports=HTTP)).address == made[2].address


@pytest.mark.integration
def test_a_network_that_is_not_ours_is_refused(
    make_pooled: Make, pooled: Node, host: Host, order: Callable[..., Order]
) -> None:
    """It has our name and somebody else's purpose: named, not used, not removed."""
    assert pooled.pool is not None
    name = name_of_network("macvlan", pooled.pool)
    host.docker(["network", "create", name])
    with pytest.raises(NameTaken, match=f"the network {name} of n1 is not k4t's"):
        make_pooled(order(network=LAN, ports=HTTP))
    assert name in host.docker(["network", "ls", "--format", "{{.Name}}"]).stdout.split()


@pytest.mark.integration
def test_another_gateway_is_refused(
    make_pooled: Make, engine: Engine, pooled: Node, host: Host, order: Callable[..., Order]
) -> None:
    """Two trees that don't agree on a node's network are told so."""
    make_pooled(order(network=LAN, ports=HTTP))
    assert pooled.pool is not None
    other = dataclasses.replace(pooled, pool=dataclasses.replace(pooled.pool, gateway=""))
    with pytest.raises(StepError, match=r"has gateway .*254, the tree says no gateway"):
        ensure(engine, other, APP)


@pytest.mark.integration
def test_a_network_nobody_is_in_makes_room(
    make_pooled: Make, engine: Engine, pooled: Node, host: Host, order: Callable[..., Order]
) -> None:
    """Another subnet or gateway: the old network stays while a container, even a stopped one, is in it."""
    made = make_pooled(order(network=LAN, ports=HTTP))
    assert pooled.pool is not None
    moved = dataclasses.replace(
        pooled, pool=AddressPool("10.99.0.100", "10.99.0.109", "eth0", "10.99.0.0/24", "10.99.0.1")
    )
    with pytest.raises(StepError, match="another Docker network is in the way"):
        ensure(engine, moved, APP)
    lifecycle.remove(engine, "k7f3q2m9", made.id)
    assert ensure(engine, moved, APP) == "k4t-macvlan-eth0-10.99.0.0-24"
    names = host.docker(["network", "ls", "--format", "{{.Name}}", "--filter", "label=io.k4t.network"]).stdout
    assert names.split() == ["k4t-macvlan-eth0-10.99.0.0-24"]
    ensure(engine, dataclasses.replace(moved, pool=dataclasses.replace(moved.pool or POOL, gateway="")), APP)


@pytest.mark.integration
def test_an_interface_that_is_not_there_is_named(engine: Engine, pooled: Node, order: Callable[..., Order]) -> None:
    """Docker's words, and what to correct."""
    assert pooled.pool is not None
    other = dataclasses.replace(pooled, pool=dataclasses.replace(pooled.pool, interface="nope"))
    with pytest.raises(StepError, match=r"nodes/n1.xml:1: Docker can't make .* is there an interface nope\?"):
        ensure(engine, other, APP)


@pytest.mark.integration
def test_a_kernel_without_ipvlan_is_named(
    make_pooled: Make, engine: Engine, host: Host, order: Callable[..., Order]
) -> None:
    """Docker finds out when it starts the container; where the kernel can, it simply starts."""
    made = make_pooled(order(network=Network("ipvlan"), ports=HTTP))
    if host.exec(["ip", "link", "add", "k4tprobe", "type", "dummy"], check=False).returncode == 0:
        can = host.exec(["ip", "link", "add", "link", "k4tprobe", "k4tipv", "type", "ipvlan"], check=False)
        host.exec(["ip", "link", "del", "k4tprobe"])
    else:
        can = host.exec(["ip", "link", "add", "link", "eth0", "k4tipv", "type", "ipvlan"], check=False)
        host.exec(["ip", "link", "del", "k4tipv"], check=False)
    if can.returncode == 0:
        lifecycle.start(engine, "k7f3q2m9", made.id)
        return
    with pytest.raises(StepError, match="its kernel has no ipvlan: load that module, or use another network mode"):
        lifecycle.start(engine, "k7f3q2m9", made.id)
