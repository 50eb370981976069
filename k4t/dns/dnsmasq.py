"""dnsmasq by its hosts directory, through the registrar on its host."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from k4t.model.hosts import Dns
from k4t.model.participant import Capabilities
from k4t.model.spec import Cluster
from k4t.remote.registrar import RegistrarParticipant

if TYPE_CHECKING:
    from k4t.remote.transport import Transport


class Dnsmasq(RegistrarParticipant):
    """Implements k4t.model.participant.Participant. All names have one TTL, 1 s: no record forbids it."""

    kind = "dns"
    driver = "dnsmasq"
    capabilities = Capabilities(srv=False, ttl_per_record=False, ttl_s=1)

    def __init__(self, dns: Dns, cluster: Cluster, connect: Callable[[], Transport]) -> None:
        super().__init__(dns.name, dns.group, cluster.id, connect, zone=dns.zone)
