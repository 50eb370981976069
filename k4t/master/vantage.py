"""From where a container is probed: its own node, or for one with an address of its own another host of the tree.

A host can't reach its own macvlan and ipvlan containers: the kernel keeps them apart from the interface they share.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from k4t.errors import ConnectionLost, StepError
from k4t.master.fleet import Fleet
from k4t.model.app import App
from k4t.model.hosts import Node
from k4t.node.addresses import has_own_address
from k4t.node.health import Dialer
from k4t.remote.transport import Stream, Transport

MAX_TRIED = 3


class Elsewhere:
    """Other hosts, the first one that is still there."""

    def __init__(self, transports: Sequence[Transport]) -> None:
        self._transports = tuple(transports)

    def connect_tcp(self, address: str, port: int, timeout_s: float) -> Stream:
        """As that host would make it. Raises StepError when it is refused or times out, or when no host is left."""
        for transport in [one for one in self._transports if one.alive][:MAX_TRIED]:
            try:
                return transport.connect_tcp(address, port, timeout_s)
            except ConnectionLost:
                continue
            except StepError as error:
                raise StepError(f"{error.message} (asked from {transport.host})") from error
        raise StepError(f"no other host is left to ask {address}:{port} from")


def vantage(fleet: Fleet, node: Node, app: App) -> Dialer | None:
    """None when there is no host that could ask. Hosts of the pool's own subnet come first, nodes before the others.

    Raises what connecting to the node raised.
    """
    if not has_own_address(app):
        return fleet.transport(node)
    own = fleet.host_of(node).key
    nodes = {fleet.host_of(one).key for one in fleet.tree.nodes.values()}
    others = [(key, transport) for key, transport in fleet.connected().items() if key != own]
    others.sort(key=lambda item: (not _near(node, fleet.hosts[item[0]].address), item[0] not in nodes))
    return Elsewhere([transport for _, transport in others]) if others else None


def _near(node: Node, address: str) -> bool:
    return node.pool is not None and ipaddress.ip_address(address) in ipaddress.ip_network(node.pool.subnet)
