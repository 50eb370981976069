"""The create step: files, ports under the host's lock, the call, and what to do when its reply is lost."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from k4t.errors import (
    AddressTaken,
    ConnectionLost,
    DockerUnavailable,
    EngineRefused,
    ImageNotFound,
    PortTaken,
    StepError,
)
from k4t.model.app import App, Port
from k4t.model.hosts import Node
from k4t.model.state import BoundPort, Container
from k4t.model.value import value
from k4t.node import addresses, labels
from k4t.node.allocate import Key, allocate, held_ports, needs_host_ports
from k4t.node.allocator import Entries, Locker
from k4t.node.body import Given, body
from k4t.node.docker import Engine
from k4t.node.files import Placed, files_needed, make_volumes, put_files
from k4t.node.lifecycle import name_taken
from k4t.node.listing import container_of, name_of
from k4t.node.networks import ensure, name_of_network
from k4t.node.reference import BY_ID, Resolved, alias
from k4t.remote.sockets import parse_sockets, port_holder
from k4t.remote.transport import Transport

LOOKS = 5
LOOK_EVERY_S = 0.2


@value
class Order:
    """One container to make. `image`: what the Engine finds it by. `ports`: pinned numbers by port name. `address`: the
    pinned one; `reserved`: those that other replicas are pinned to. `instead_of`: names of this cluster's containers
    that were stopped for it, whose ports and address it may take.

    `secrets`: values by the secret's name; `contents`: of files, by target; `digests`, `own_files`: see
    labels.Labels.
    """

    cluster_id: str
    name: str
    app: App
    replica: str
    generation: int
    image: str
    revision: int
    spec: str
    resources: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    contents: Mapping[str, bytes] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    instead_of: tuple[str, ...] = ()
    own_files: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    reserved: frozenset[str] = frozenset()


@value
class Chosen:
    """What is the new container's alone. `network`: Docker's, where `address` is its own."""

    ports: tuple[BoundPort, ...] = ()
    address: str = ""
    network: str = ""

    def keys(self) -> list[Key]:
        """What the allocator knows it by."""
        return [(self.address, 0)] if self.network else [(port.protocol, port.number) for port in self.ports]


def create(engine: Engine, node: Node, order: Order, lock: Locker) -> Container:
    """Make the container, or find the one that an earlier try has made.

    Ports and addresses are taken under the host's allocation lock (`lock` makes it: k4t.remote.lock.host_lock), which
    other clusters and other masters respect too.
    Raises PortTaken, AddressTaken, NameTaken, ImageNotFound, HostFull, and what the Engine raises.
    """
    files = _put(engine, order)
    make_volumes(engine, order.cluster_id, order.app)
    if not needs_host_ports(order.app) and not addresses.has_own_address(order.app):
        address = "" if order.app.network.mode == "none" else node.address
        return _make(engine, node, order, Chosen(address=address), files)
    with engine.allocator.hold(lock) as held:
        return _under_lock(engine, node, order, held.listening, files)


def foresee(engine: Engine, node: Node, order: Order) -> tuple[dict[str, Any], tuple[Placed, ...]]:
    """What `create` would send now, and the files it would put first, for people who do it by hand. Takes nothing: who
    is quicker may get the same port. Fixed ports are not looked at.

    Raises PortTaken, AddressTaken.
    """
    files = _needed(engine, order)
    chosen = Chosen(address="" if order.app.network.mode == "none" else node.address)
    entries = [entry for entry in engine.list_containers() if not _gives_way(entry, order)]
    if addresses.has_own_address(order.app):
        network = name_of_network(order.app.network.mode, addresses.pool_of(order.app, node))
        chosen = Chosen(addresses.own_ports(order.app), _address(engine, node, order, entries), network)
        engine.allocator.made.update(dict.fromkeys(chosen.keys(), f"container {order.name}"))
    if needs_host_ports(order.app):
        fixed = {(port.protocol, number) for port in order.app.ports if (number := _fixed(order, port)) is not None}
        chosen = _from(engine, node, order, entries, _sockets_now(engine.transport) - fixed)
        engine.allocator.made.update(dict.fromkeys(chosen.keys(), f"container {order.name}"))
    return _content(node, order, chosen, {file.target: file.path for file in files})[1], files


def _put(engine: Engine, order: Order) -> dict[str, str]:
    """Its files on the node, by target."""
    return put_files(engine.transport, _needed(engine, order)) if order.app.files else {}


def _needed(engine: Engine, order: Order) -> tuple[Placed, ...]:
    if not order.app.files:
        return ()
    user = ""
    if not order.app.container.user and any(file.secret and not file.owner for file in order.app.files):
        image = engine.image(order.image) or {}
        user = str((image.get("Config") or {}).get("User") or "")
    return files_needed(order.app, order.cluster_id, order.name, order.contents, user=user)


def _under_lock(
    engine: Engine, node: Node, order: Order, sockets: frozenset[Key], files: Mapping[str, str]
) -> Container:
    allocator = engine.allocator
    with allocator.choosing:
        chosen = _choose(engine, node, order, sockets)
        if isinstance(chosen, Container):
            return chosen
        numbers: dict[Key, str] = dict.fromkeys(chosen.keys(), f"container {order.name}")
        allocator.in_flight.update(numbers)
    made = False
    try:
        container = _make(engine, node, order, chosen, files)
        made = True
        return container
    finally:
        with allocator.choosing:
            for key in numbers:
                allocator.in_flight.pop(key, None)
            allocator.made.update(numbers if made else {})


def _choose(engine: Engine, node: Node, order: Order, sockets: frozenset[Key]) -> Chosen | Container:
    """What it gets, or the container that is there. A listing may be as old as the lock's taking: what it forbids is
    looked at again."""
    allocator = engine.allocator
    for again in (False, True):
        fresh = again or allocator.seen is None
        if fresh:
            allocator.seen, allocator.made = engine.list_containers(), {}
        entries = allocator.seen or []
        there = _named(entries, order.name)
        if there is not None and fresh:
            return _same(node, order, there)
        others = [entry for entry in entries if not _gives_way(entry, order)]
        try:
            if there is None:
                return _from(engine, node, order, others, sockets)
        except (PortTaken, AddressTaken):
            if fresh:
                raise
    raise AssertionError  # the second look is fresh: it returns or raises


def _from(engine: Engine, node: Node, order: Order, others: Entries, sockets: frozenset[Key]) -> Chosen:
    if addresses.has_own_address(order.app):
        address = _address(engine, node, order, others)
        return Chosen(addresses.own_ports(order.app), address, ensure(engine, node, order.app))
    begun = {**engine.allocator.in_flight, **engine.allocator.made}
    holders = {**begun, **held_ports(others, node.address)}
    listening = _listening(engine.transport, order, holders, sockets)
    return Chosen(allocate(order.app, node, holders, listening, order.ports), node.address)


def _address(engine: Engine, node: Node, order: Order, others: Entries) -> str:
    begun = {**engine.allocator.in_flight, **engine.allocator.made}
    taken = {**{address: name for (address, _), name in begun.items()}, **addresses.held_addresses(others)}
    return addresses.choose(order.app, node, taken, order.address, order.reserved)


def _gives_way(entry: Mapping[str, Any], order: Order) -> bool:
    """Whether it is one that the new container stands in for. A listing may show it as it ran before."""
    ours = labels.parse(entry.get("Labels"))
    return ours is not None and ours.cluster == order.cluster_id and name_of(entry) in order.instead_of


def _make(engine: Engine, node: Node, order: Order, chosen: Chosen, files: Mapping[str, str]) -> Container:
    marks, content = _content(node, order, chosen, files)
    made = _create(engine, node, order, content)
    if isinstance(made, Container):
        return made
    entry = {"Id": made, "Names": [f"/{order.name}"], "Image": order.image, "State": "created"}
    return container_of(node.name, entry, marks)


def _content(
    node: Node, order: Order, chosen: Chosen, files: Mapping[str, str]
) -> tuple[labels.Labels, dict[str, Any]]:
    """Its labels, and the body of the call."""
    marks = labels.Labels(
        order.cluster_id,
        order.app.name,
        order.replica,
        order.generation,
        order.revision,
        order.spec,
        order.resources,
        tuple(sorted(chosen.ports, key=lambda port: port.name)),
        chosen.address,
        tuple(sorted(order.digests.items())),
        tuple(sorted(order.own_files.items())),
    )
    given = Given(
        labels.build(marks),
        {port.name: port.number for port in chosen.ports},
        chosen.address,
        address6=node.address6,
        network=chosen.network,
        secrets=order.secrets,
        files=files,
    )
    return marks, body(order.app, order.image, given)


def _create(engine: Engine, node: Node, order: Order, content: Mapping[str, Any]) -> str | Container:
    """The new container's id, or the container that is there: ours from a try whose reply was lost."""
    try:
        return engine.create(order.name, content)
    except (ConnectionLost, DockerUnavailable):
        if not engine.transport.alive:
            raise
        found = _look(engine, order.name, LOOKS)
        return _again(engine, node, order, content) if found is None else _same(node, order, found)
    except EngineRefused as error:
        return _refused(engine, node, order, content, error)


def _again(engine: Engine, node: Node, order: Order, content: Mapping[str, Any]) -> str | Container:
    """The first try left nothing behind. Should it still be at work, the name decides."""
    try:
        return engine.create(order.name, content)
    except EngineRefused as error:
        return _refused(engine, node, order, content, error)


def _refused(
    engine: Engine, node: Node, order: Order, content: Mapping[str, Any], error: EngineRefused
) -> str | Container:
    if error.status == 404 and "no such image" in error.message.lower():
        other = _also_known_as(order)
        if other and other != content["Image"] and engine.image(other) is not None:
            return _create(engine, node, order, {**content, "Image": other})
        raise ImageNotFound(
            f"image {order.app.image.reference} ({order.image}) is not on the node", "apply again", host=node.name
        ) from error
    if error.status == 409 and (found := _look(engine, order.name, LOOKS)) is not None:
        return _same(node, order, found)
    raise error


def _also_known_as(order: Order) -> str:
    """The tag under which an archive's image was kept by an Engine that knows no configurations' digests."""
    if not order.image.startswith("sha256:"):
        return ""
    return alias(Resolved(order.app.image.reference, f"{BY_ID}{order.image}"))


def _look(engine: Engine, name: str, times: int) -> Mapping[str, Any] | None:
    """A create that Docker is still working on takes a moment to be listed."""
    for attempt in range(times):
        if attempt:
            time.sleep(LOOK_EVERY_S)
        found = _named(engine.list_containers(), name)
        if found is not None:
            return found
    return None


def _named(entries: list[dict[str, Any]], name: str) -> Mapping[str, Any] | None:
    return next((entry for entry in entries if name_of(entry) == name), None)


def _same(node: Node, order: Order, entry: Mapping[str, Any]) -> Container:
    """The container there, when it is the one that was ordered."""
    ours = labels.parse(entry.get("Labels"))
    if ours is None or ours.cluster != order.cluster_id:
        raise name_taken(node.name, order.name, entry)
    is_it = (ours.app, ours.replica, ours.generation) == (order.app.name, order.replica, order.generation)
    if not is_it or ours.spec != order.spec:
        raise StepError(
            f"{order.name} is there already, made from another spec ({ours.spec[:15]}…)", "apply again", host=node.name
        )
    return container_of(node.name, entry, ours)


def _listening(
    transport: Transport, order: Order, holders: Mapping[Key, str], sockets: frozenset[Key]
) -> dict[Key, str]:
    """The listening sockets, with the owner of one that stands in the way of a fixed port.

    `sockets` were looked at when the lock was taken, and a container of this run may have been stopped since.
    """
    wanted = {(port.protocol, number) for port in order.app.ports if (number := _fixed(order, port)) is not None}
    in_the_way = (wanted & sockets) - set(holders)
    if in_the_way:
        sockets = sockets - (in_the_way - _sockets_now(transport))
    return {key: port_holder(transport, *key) if key in in_the_way else "" for key in sockets}


def _fixed(order: Order, port: Port) -> int | None:
    number = order.ports.get(port.name, port.host if port.host is not None else port.container)
    return number if isinstance(number, int) else None


def _sockets_now(transport: Transport) -> frozenset[Key]:
    script = "cd /proc/net && grep -H ' 0A ' tcp tcp6; grep -H ': ' udp udp6; :"
    done = transport.run(["sh", "-c", script])
    return parse_sockets(done.stdout.decode("ascii", "replace").splitlines())
