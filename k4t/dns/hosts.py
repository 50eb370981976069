"""A plain hosts file through the registrar on its host: for CoreDNS's `hosts` plugin, or whatever reads one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from k4t.model.hosts import Dns
from k4t.model.participant import Capabilities
from k4t.model.spec import Cluster
from k4t.remote.registrar import RegistrarParticipant

if TYPE_CHECKING:
    from k4t.remote.transport import Transport


class Hosts(RegistrarParticipant):
    """Implements k4t.model.participant.Participant. TTLs are those of whoever reads the file."""

    kind = "dns"
    driver = "hosts"
    capabilities = Capabilities(srv=False, ttl_per_record=False)

    def __init__(self, dns: Dns, cluster: Cluster, connect: Callable[[], Transport]) -> None:
        super().__init__(dns.name, dns.group, cluster.id, connect, zone=dns.zone)
