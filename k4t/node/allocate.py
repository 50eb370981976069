"""Which host ports a new container gets: pure, deterministic, lowest free number first.

A container's `.ports` label is its reservation, running or not, whichever cluster it is of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from k4t.errors import PortTaken
from k4t.model.app import App, Port
from k4t.model.hosts import Node
from k4t.model.shared import Protocol
from k4t.model.state import BoundPort
from k4t.node import labels
from k4t.node.listing import name_of, published

Key = tuple[str, int]
"""Protocol and number."""


def needs_host_ports(app: App) -> bool:
    """Whether any of its ports takes a number on the node's own address."""
    return app.network.mode in ("host", "bridge") and bool(app.ports)


def held_ports(entries: Iterable[Mapping[str, Any]], address: str) -> dict[Key, str]:
    """The ports of a node that containers hold, with the holder's name, from a listing of the Engine.

    A labelled container with an address that isn't the node's, in a network of its own, holds none here.
    """
    holders: dict[Key, str] = {}
    for entry in entries:
        ours = labels.parse(entry.get("Labels"))
        mode = str((entry.get("HostConfig") or {}).get("NetworkMode", ""))
        shares_address = ours is None or ours.address == address or mode in ("host", "bridge", "default")
        reserved = ours.ports if ours is not None and shares_address else ()
        for port in (*reserved, *published(entry)):
            holders.setdefault((port.protocol, port.number), f"container {name_of(entry)}")
    return holders


def allocate(
    app: App, node: Node, holders: Mapping[Key, str], listening: Mapping[Key, str], pinned: Mapping[str, int]
) -> tuple[BoundPort, ...]:
    """A number for each port of `app` on `node`'s address, in order of the tree.

    `listening`: the host's sockets, with their owner where it is known. `pinned`: numbers by port name.
    Raises PortTaken.
    """
    taken = {**listening, **holders}
    bound: list[BoundPort] = []
    for port in _fixed_first(app, pinned):
        number = _wanted(app, port, pinned)
        if number is None:
            number = _lowest(port, node, taken)
        elif (port.protocol, number) in taken:
            raise taken_by(node, port, number, taken[port.protocol, number])
        taken[port.protocol, number] = f"port {port.name} of the same app"
        bound.append(BoundPort(port.name, number, port.protocol))
    order = {port.name: index for index, port in enumerate(app.ports)}
    return tuple(sorted(bound, key=lambda port: order[port.name]))


def taken_by(node: Node, port: Port, number: int, holder: str) -> PortTaken:
    """`holder` "": a socket that listens, of whom isn't known."""
    who = holder or "a process outside of Docker"
    return PortTaken(
        f"{port.where}: port {number}/{port.protocol} of {node.name} ({node.address}) is taken by {who}",
        'free it, or give this port another number or host="auto"',
        host=node.name,
    )


def _fixed_first(app: App, pinned: Mapping[str, int]) -> list[Port]:
    """So that an automatic number never takes one that the same app asks for."""
    return sorted(app.ports, key=lambda port: _wanted(app, port, pinned) is None)


def _wanted(app: App, port: Port, pinned: Mapping[str, int]) -> int | None:
    """The number it must have; None for an automatic one. In host mode `container` alone is such a number."""
    if port.name in pinned:
        return pinned[port.name]
    if isinstance(port.host, int):
        return port.host
    return port.container if port.host is None and app.network.mode == "host" else None


def _lowest(port: Port, node: Node, taken: Mapping[Key, str]) -> int:
    first, last = node.port_range
    protocol: Protocol = port.protocol
    for number in range(first, last + 1):
        if (protocol, number) not in taken:
            return number
    raise PortTaken(
        f"{port.where}: all {last - first + 1} ports {first}-{last} of {node.name} are taken",
        f"widen <ports range> of nodes/{node.name}.xml",
        host=node.name,
    )
