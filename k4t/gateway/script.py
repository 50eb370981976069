"""A gateway that the operator's own commands change, through the registrar on its host. See k4t.registrar.calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from k4t.model.hosts import Gateway
from k4t.model.participant import Capabilities
from k4t.model.spec import Cluster
from k4t.remote.scripted import ScriptedParticipant

if TYPE_CHECKING:
    from k4t.remote.transport import Transport


class Script(ScriptedParticipant):
    """Implements k4t.model.participant.Participant. It can do what its commands are told of."""

    kind = "gateway"
    driver = "script"
    registrar = "script"

    def __init__(self, gateway: Gateway, cluster: Cluster, connect: Callable[[], Transport]) -> None:
        super().__init__(gateway, cluster.id, connect, {"verbs": gateway_verbs(gateway)})
        self.capabilities = capabilities(gateway)


def gateway_verbs(gateway: Gateway) -> dict[str, list[str]]:
    return {script.verb: list(script.args) for script in gateway.scripts}


def capabilities(gateway: Gateway) -> Capabilities:
    """Of its commands: what their arguments name."""
    from k4t.registrar.calls import route_variables

    verbs = gateway_verbs(gateway)
    said = route_variables(verbs)
    return Capabilities(
        routes_l4="listen" in said,
        routes_udp={"listen", "protocol"} <= said,
        tls=bool({"tls", "chain"} & said),
        redirect="redirect" in said,
        weight="weight" in said,
        affinity="affinity" in said,
        upstream_tls="upstream" in said,
        upstream_h2c="upstream" in said,
        strip_prefix="strip_prefix" in said,
        hosts_and_paths={"domains", "prefix"} <= said,
        reads_back="list" in verbs,
    )
