"""Which address of the node's pool a new container gets: pure, deterministic, lowest free one first.

A container's `.address` label is its reservation, running or not, whichever cluster it is of.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from k4t.errors import AddressTaken
from k4t.model.app import App
from k4t.model.hosts import AddressPool, Node
from k4t.model.state import BoundPort
from k4t.node import labels
from k4t.node.listing import name_of

ADDRESSED = ("macvlan", "ipvlan")
"""The network modes in which a container has an address of its own."""


def has_own_address(app: App) -> bool:
    return app.network.mode in ADDRESSED


def held_addresses(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The addresses that containers hold, with the holder's name, from a listing of the Engine.

    A label reserves; so does what Docker has given to a container that k4t did not make, or was told to give.
    """
    holders: dict[str, str] = {}
    for entry in entries:
        ours = labels.parse(entry.get("Labels"))
        for address in [*([ours.address] if ours else []), *_attached(entry)]:
            if address:
                holders.setdefault(_canonical(address), f"container {name_of(entry)}")
    return holders


def choose(app: App, node: Node, holders: Mapping[str, str], pinned: str, reserved: Collection[str] = ()) -> str:
    """An address of `node`'s pool: the pinned one, else the lowest that nobody holds and no other replica is pinned to
    (`reserved`). Raises AddressTaken."""
    pool = pool_of(app, node)
    if pinned:
        _must_be_free(app, node, pool, holders, pinned)
        return pinned
    gateway = _gateway(pool)
    first, last = ipaddress.ip_address(pool.first), ipaddress.ip_address(pool.last)
    for number in range(int(first), min(int(last), int(first) + len(holders) + len(reserved) + 1) + 1):
        address = str(type(first)(number))
        if address not in holders and address not in reserved and address != gateway:
            return address
    count = int(last) - int(first) + 1
    raise AddressTaken(
        f"{app.where}: all {count} addresses {pool.first}-{pool.last} of {node.name} ({node.where}) are taken",
        f"widen <addresses range> of nodes/{node.name}.xml",
        host=node.name,
    )


def pool_of(app: App, node: Node) -> AddressPool:
    """Raises AddressTaken when the node has none."""
    if node.pool is None:
        raise AddressTaken(
            f'{app.where}: <network mode="{app.network.mode}"> wants an address, and {node.name} has none to give',
            f"add <addresses> to nodes/{node.name}.xml",
            host=node.name,
        )
    return node.pool


def own_ports(app: App) -> tuple[BoundPort, ...]:
    """On an address of its own a container listens where it listens by itself."""
    return tuple(BoundPort(port.name, port.container or 0, port.protocol) for port in app.ports)


def _must_be_free(app: App, node: Node, pool: AddressPool, holders: Mapping[str, str], address: str) -> None:
    if ipaddress.ip_address(address) not in ipaddress.ip_network(pool.subnet):
        raise AddressTaken(
            f"{app.where}: the pinned address {address} is not in {pool.subnet} of {node.name} ({node.where})",
            "pin an address of that subnet, or pin the replica to another node as well",
            host=node.name,
        )
    if holder := holders.get(_canonical(address)) or ("its gateway" if address == _gateway(pool) else ""):
        raise AddressTaken(
            f"{app.where}: the pinned address {address} of {node.name} is taken by {holder}",
            "free it, or pin another one",
            host=node.name,
        )


def _gateway(pool: AddressPool) -> str:
    """Docker keeps the subnet's first address for a gateway where none is named."""
    return pool.gateway or str(ipaddress.ip_network(pool.subnet)[1])


def _attached(entry: Mapping[str, Any]) -> Iterable[str]:
    networks = (entry.get("NetworkSettings") or {}).get("Networks") or {}
    for attached in networks.values():
        wanted = attached.get("IPAMConfig") or {}
        for source, keys in ((attached, ("IPAddress", "GlobalIPv6Address")), (wanted, ("IPv4Address", "IPv6Address"))):
            yield from (str(source[key]) for key in keys if source.get(key))


def _canonical(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address
