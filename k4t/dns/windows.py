"""Windows' DNS server. No registrar, no POSIX shell: PowerShell over SSH, and a file of ours there (see powershell).

The rules are those of any zone (see rfc2136); but records and what is remembered are not changed at once, and people's
own cmdlets take no mutex of ours: one writer, not fenced against others than k4t.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from k4t.dns.powershell import PowerShellServer
from k4t.dns.rfc2136 import ZoneParticipant
from k4t.model.hosts import Dns
from k4t.model.participant import Capabilities
from k4t.model.spec import Cluster

if TYPE_CHECKING:
    from k4t.remote.transport import Transport


class Windows(ZoneParticipant):
    driver = "windows"
    capabilities = Capabilities(addresses_per_name=1_000)

    def __init__(self, dns: Dns, cluster: Cluster, connect: Callable[[], Transport]) -> None:
        super().__init__(dns, cluster, lambda zone: PowerShellServer(dns.name, zone, connect))


def install(transport: Transport, dns: Dns) -> Iterator[str]:
    """Nothing is put there; whether its zones can be asked. Raises what asking raises."""
    for zone in (dns.zone, *dns.reverse):
        PowerShellServer(dns.name, zone, lambda: transport).ask(((f"_k4t.{zone}", "TXT"),))
    yield f"nothing to install: PowerShell answers for {', '.join((dns.zone, *dns.reverse))}"
