"""What a node has ranges of: host ports to hand out, and addresses of its own for containers. Counted, not assigned:
which number a container gets is decided on its host, under that host's lock."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from k4t.model.app import App
from k4t.model.hosts import AddressPool, Node
from k4t.model.state import Container, Stranger

Key = tuple[int, str]
"""Number and protocol of a port; 0 and an address of the node's pool."""

ADDRESS = "address"
"""The third kind of thing there are ranges of, beside tcp and udp."""
ADDRESSED = ("macvlan", "ipvlan")


@dataclass(slots=True)
class Ranges:
    """`left`: how many of each kind nobody has. `freed`: how many of these only steps of this plan set free.
    `reserved`: addresses that replicas are pinned to; nobody else gets them, so they are counted from the start."""

    ports: tuple[int, int]
    pool: AddressPool | None
    left: dict[str, int]
    freed: dict[str, int] = field(default_factory=dict)
    reserved: frozenset[Key] = frozenset()

    def kind(self, key: Key) -> str:
        """Which range it is one of; "" for none."""
        number, word = key
        if number:
            return word if self.ports[0] <= number <= self.ports[1] else ""
        return ADDRESS if self.pool is not None and _within(self.pool, word) else ""

    def count(self, key: Key, change: int) -> None:
        """One that is taken (-1) or given back (1)."""
        kind = self.kind(key)
        if kind and key not in self.reserved:
            self.left[kind] += change

    def count_any(self, kinds: Iterable[str], change: int) -> None:
        for kind in kinds:
            self.left[kind] += change

    def count_freed(self, keys: Iterable[Key], change: int) -> None:
        for kind in map(self.kind, keys):
            if kind:
                self.freed[kind] = self.freed.get(kind, 0) + change

    def lacks(self, kinds: tuple[str, ...]) -> str:
        for kind in kinds:
            if self.left[kind] < kinds.count(kind):
                return "address pool exhausted" if kind == ADDRESS else f"{kind} port range exhausted"
        return ""

    def short(self, kinds: tuple[str, ...]) -> frozenset[str]:
        """Kinds of which there is enough only once this plan has set some free."""
        return frozenset(kind for kind in kinds if self.left[kind] - self.freed.get(kind, 0) < kinds.count(kind))

    def bars(self, address: str) -> str:
        """Why a pinned address can't be on this node; "" when it can."""
        if self.pool is None or inside(self.pool, address):
            return ""
        return f"address {address} is not in {self.pool.subnet}"


def ranges(node: Node, pinned: Iterable[str]) -> Ranges:
    """`pinned`: all addresses that replicas of the tree are pinned to."""
    first, last = node.port_range
    left = {"tcp": last - first + 1, "udp": last - first + 1, ADDRESS: 0}
    made = Ranges(node.port_range, node.pool, left)
    if node.pool is not None:
        pool = node.pool
        low, high = ipaddress.ip_address(pool.first), ipaddress.ip_address(pool.last)
        made.reserved = frozenset((0, address) for address in pinned if _within(pool, address))
        left[ADDRESS] = int(high) - int(low) + 1 - len(made.reserved)
        if not pool.gateway and _within(pool, str(ipaddress.ip_network(pool.subnet)[1])):
            left[ADDRESS] -= 1  # Docker keeps the first one where no gateway is named
    return made


def pinned_addresses(apps: Iterable[App]) -> frozenset[str]:
    return frozenset(pin.address for app in apps for pin in app.placement.pins if pin.address)


def held_by(node: Node, container: Container | Stranger) -> tuple[Key, ...]:
    """Its ports, where they are on the node's address (a stranger's may be on any); else the address of its own."""
    if container.address not in ("", node.address, node.address6):
        if node.pool is not None and inside(node.pool, container.address):
            return ((0, container.address),)
        if isinstance(container, Container):
            return ()
    return tuple((port.number, port.protocol) for port in container.ports)


def inside(pool: AddressPool, address: str) -> bool:
    """Whether it is of the pool's subnet, in or outside of its range. What is no address (a label can say anything)
    is not."""
    found = _parsed(address)
    return found is not None and found in ipaddress.ip_network(pool.subnet)


def _within(pool: AddressPool, address: str) -> bool:
    one, low, high = _parsed(address), ipaddress.ip_address(pool.first), ipaddress.ip_address(pool.last)
    return one is not None and one.version == low.version and int(low) <= int(one) <= int(high)


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None
