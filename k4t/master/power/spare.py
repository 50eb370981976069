"""Which nodes may be switched off since they are not needed. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from k4t.master.backup.targets import targets_of
from k4t.master.fleet import WITHOUT_SHELL, Host, Key, merged
from k4t.master.power.here import is_one_of
from k4t.model.hosts import Dns, Gateway, Node
from k4t.model.spec import Tree


def is_spare(node: Node) -> bool:
    return node.power is not None and node.power.spare and bool(node.power.on and node.power.off)


def needed(tree: Tree, name: str) -> str:
    """Why a node is to stay on, whatever it runs; "" for one that may go off."""
    return next(_reasons(tree, tree.nodes[name]), "")


def _reasons(tree: Tree, node: Node) -> Iterator[str]:
    if all(one.availability != "active" for one in tree.nodes.values() if one.name != node.name):
        yield "no other node is active"
    here = _machine(tree, node)
    members: list[Gateway | Dns] = [*tree.gateways.values()]
    members += [one for one in tree.dns.values() if one.driver not in WITHOUT_SHELL]
    if beside := [one.name for one in members if _machine(tree, one) == here]:
        yield f"{', '.join(beside)} is on the same machine"
    if any(one.name == node.name or one.host.key == here for one in targets_of(tree)):
        yield "copies of the tree lie there"
    power = tree.cluster.power
    names = {node.address, node.address6, node.ssh.host} - {""}
    if power is not None and power.host and (power.host in names or is_one_of(power.host, (node.name,))):
        yield "it is the master"


def _machine(tree: Tree, thing: Node | Gateway | Dns) -> Key:
    return Host(thing.name, thing.address, merged(tree.cluster.ssh, thing.ssh)).key
