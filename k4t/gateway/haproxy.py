"""HAProxy by its runtime socket and a file, through the registrar on its host."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from k4t.model.hosts import Gateway
from k4t.model.participant import Capabilities
from k4t.model.spec import Cluster
from k4t.remote.registrar import RegistrarParticipant

if TYPE_CHECKING:
    from k4t.remote.transport import Transport


class HAProxy(RegistrarParticipant):
    """Implements k4t.model.participant.Participant."""

    kind = "gateway"
    driver = "haproxy"
    capabilities = Capabilities(routes_udp=False, counts=True)

    def __init__(self, gateway: Gateway, cluster: Cluster, connect: Callable[[], Transport]) -> None:
        super().__init__(gateway.name, gateway.group, cluster.id, connect)
