"""What can't be reached where the kernel keeps a host from its own macvlan and ipvlan containers: said beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from k4t.master.planning.ranges import ADDRESSED
from k4t.model.app import App, ExecProbe, ImageProbe
from k4t.model.hosts import Node, Ssh
from k4t.model.spec import Tree
from k4t.model.state import Observed

WITHOUT_SHELL = ("rfc2136", "windows")


def unprobed(desired: Tree, observed: Observed, apps: Iterable[str]) -> Iterator[str]:
    """Warnings: nobody can probe an app, since its node is the only host that answers; or a gateway stands on a node
    and can't send traffic to what runs there."""
    own = [desired.apps[name] for name in apps if name in desired.apps]
    own = [app for app in own if app.network.mode in ADDRESSED and not app.stopped and app.replicas != 0]
    if not own:
        return
    alone = len(_machines(desired, observed)) < 2
    for app in own:
        yield from _cut_off(desired, app)
        if not alone or not _is_probed(app):
            continue
        yield (
            f"{app.name} is not probed: a host can't reach its own {app.network.mode} containers, and no other host "
            "answers; Docker's own check counts, or that a container runs for 5 s"
        )


def _cut_off(desired: Tree, app: App) -> Iterator[str]:
    groups = {route.group for route in app.routes}
    gateways = {_machine(one.ssh, one.address): one for one in desired.gateways.values() if one.group in groups}
    for node in desired.nodes.values():
        gateway = gateways.get(_machine(node.ssh, node.address))
        if gateway is None or node.pool is None or not _may_run_on(app, node):
            continue
        yield (
            f"gateway {gateway.name} stands on {node.name} and can't reach {app.name}'s {app.network.mode} containers "
            "there: keep them off that node with <require>, or use another host for the gateway"
        )


def _may_run_on(app: App, node: Node) -> bool:
    labels = {**node.labels, "node": node.name}
    return all(labels.get(label) == text for label, text in app.placement.require if label not in ("os", "arch"))


def _is_probed(app: App) -> bool:
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
