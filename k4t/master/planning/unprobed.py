"""What can't be probed by anybody, and is said before it is done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from k4t.master.planning.ranges import ADDRESSED
from k4t.model.spec import App, ExecProbe, ImageProbe, Ssh, Tree
from k4t.model.state import Observed

WITHOUT_SHELL = ("rfc2136",)


def unprobed(desired: Tree, observed: Observed, apps: Iterable[str]) -> Iterator[str]:
    """A warning for each app whose containers have addresses of their own, where their node is the only host that
    answers: a host can't reach its own macvlan and ipvlan containers."""
    wanted = [desired.apps[name] for name in apps if name in desired.apps and _is_probed(desired.apps[name])]
    if not wanted or len(_machines(desired, observed)) > 1:
        return
    for app in wanted:
        yield (
            f"{app.name} is not probed: a host can't reach its own {app.network.mode} containers, and no other host "
            "answers; Docker's own check counts, or that a container runs for 5 s"
        )


def _is_probed(app: App) -> bool:
    if app.network.mode not in ADDRESSED or app.stopped or app.replicas == 0:
        return False
    if app.health is not None:
        return not isinstance(app.health.probe, ExecProbe | ImageProbe)
    return any(port.protocol == "tcp" for port in app.ports)


def _machines(desired: Tree, observed: Observed) -> set[tuple[str, int | None]]:
    """The hosts with a shell that answer, each once."""
    found = {_machine(n.ssh, n.address) for name, n in desired.nodes.items() if _answers(observed.nodes.get(name))}
    found |= {
        _machine(g.ssh, g.address) for name, g in desired.gateways.items() if _answers(observed.gateways.get(name))
    }
    servers = [(name, one) for name, one in desired.dns.items() if one.driver not in WITHOUT_SHELL]
    return found | {_machine(one.ssh, one.address) for name, one in servers if _answers(observed.dns.get(name))}


def _machine(ssh: Ssh, address: str) -> tuple[str, int | None]:
    return (ssh.host or address, ssh.port)


def _answers(state: object) -> bool:
    return bool(getattr(state, "reachable", False))
