"""A DNS server that the operator's own commands change, through the registrar on its host. See k4t.registrar.calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from k4t.model.hosts import Dns
from k4t.model.participant import Capabilities
from k4t.model.spec import Cluster
from k4t.remote.scripted import ScriptedParticipant

if TYPE_CHECKING:
    from k4t.remote.transport import Transport


class Script(ScriptedParticipant):
    """Implements k4t.model.participant.Participant. TTLs have effect where `add` is told of them."""

    kind = "dns"
    driver = "script"
    registrar = "dnsscript"

    def __init__(self, dns: Dns, cluster: Cluster, connect: Callable[[], Transport]) -> None:
        super().__init__(dns, cluster.id, connect, config(dns), zone=dns.zone)
        verbs = config(dns)["verbs"]
        told = any("${ttl_s}" in argument for argument in verbs.get("add", ()))
        self.capabilities = Capabilities(srv=False, ttl_per_record=told, reads_back="list" in verbs)


def config(dns: Dns) -> dict[str, Any]:
    return {"verbs": {script.verb: list(script.args) for script in dns.scripts}, "zones": [dns.zone]}
