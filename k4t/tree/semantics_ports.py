"""Fixed ports: apps that must meet on a node, and updates that find no second node. Pure.

Only what must go wrong is an error; what may go wrong placement avoids. Whether a node is cordoned or dead doesn't
matter here: a tree must not get invalid because a node is drained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from k4t.errors import Finding
from k4t.model.app import App
from k4t.model.hosts import Node
from k4t.model.value import value
from k4t.tree.semantics_app import finding, fixed_number


@value
class Claim:
    """An app's fixed port. `may`: the nodes it may run on, at most; `must`: those where it runs for certain."""

    app: App
    line: int
    may: frozenset[str]
    must: frozenset[str]


def check_ports(apps: Mapping[str, App], nodes: Mapping[str, Node]) -> Iterator[Finding]:
    claims: dict[tuple[str, int], list[Claim]] = {}
    everywhere = frozenset(nodes)
    for app in apps.values():
        numbers = [(port, fixed_number(port, app.network.mode)) for port in app.ports]
        fixed = [(port, number) for port, number in numbers if number is not None]
        if app.stopped or app.replicas == 0 or not nodes:
            continue
        if app.network.mode in ("macvlan", "ipvlan"):
            yield from _has_pool(app, nodes)
        if not fixed:
            continue
        may, exact = eligible(app, nodes, everywhere)
        must = _must(app, may, exact)
        for port, number in fixed:
            claims.setdefault((port.protocol, number), []).append(Claim(app, port.where.line, may, must))
        yield from _no_second_node(app, may)
    for (protocol, number), sharing in sorted(claims.items()):
        yield from _meeting(protocol, number, sharing)


def eligible(app: App, nodes: Mapping[str, Node], everywhere: frozenset[str]) -> tuple[frozenset[str], bool]:
    """The nodes whose labels fit, and whether that is exact: `os` and `arch` are known to the nodes only."""
    require = app.placement.require
    if not require:
        return everywhere, True
    exact = not any(label in ("os", "arch") for label, _ in require)
    told = [(label, text) for label, text in require if label not in ("os", "arch")]
    fits = (
        n.name for n in nodes.values() if all(text == ({**n.labels, "node": n.name}).get(key) for key, text in told)
    )
    return frozenset(fits), exact


def _must(app: App, may: frozenset[str], exact: bool) -> frozenset[str]:
    if app.per_node:
        return may if exact else frozenset()
    pinned = frozenset(pin.node for pin in app.placement.pins if pin.node)
    least = app.scale.min if app.scale else app.replicas or 0
    return pinned | may if exact and least >= len(may) else pinned


def _meeting(protocol: str, number: int, claims: list[Claim]) -> Iterator[Finding]:
    """Two apps meet when both must run on a node, or when one must run on all nodes the other may run on."""
    holders: dict[str, Claim] = {}
    for claim in claims:
        for node in sorted(claim.must):
            first = holders.setdefault(node, claim)
            if first.app is not claim.app:
                yield _clash(claim, first, protocol, number, node)
                break
    for claim in claims:
        if not claim.must and claim.may and all(node in holders for node in claim.may):
            node = min(claim.may)
            yield _clash(claim, holders[node], protocol, number, node)


def _clash(claim: Claim, other: Claim, protocol: str, number: int, node: str) -> Finding:
    where = f"{other.app.where.file}:{other.line}"
    message = f"port {number}/{protocol} of {claim.app.name} meets that of {other.app.name} ({where}) on {node}"
    remedy = 'give one another number or host="auto", or keep them on different nodes with <require>'
    return Finding(claim.app.where.file, claim.line, "port-clash", message, remedy)


def _no_second_node(app: App, may: frozenset[str]) -> Iterator[Finding]:
    update = app.update
    desired = len(may) if app.per_node else app.scale.max if app.scale else app.replicas or 0
    if update.strategy != "rolling" or update.max_unavailable.of(max(desired, 1), round_up=False) >= 1:
        return
    pinned = any(pin.node for pin in app.placement.pins)
    if may and (app.per_node or pinned or len(may) <= desired):
        why = "it runs on every node that fits" if app.per_node else f"{len(may)} eligible for {desired} replicas"
        why = "a replica is pinned to its node" if pinned else why
        message = f"{app.name} has a fixed port and no free node to start a second replica on ({why})"
        remedy = 'write <update max-unavailable="1"/> or host="auto"'
        yield finding(app.where, "no-surge", message, remedy)


def _has_pool(app: App, nodes: Mapping[str, Node]) -> Iterator[Finding]:
    may, _ = eligible(app, nodes, frozenset(nodes))
    if may and not any(nodes[name].pool for name in may):
        message = f'network mode="{app.network.mode}": no eligible node has <addresses>'
        yield finding(app.where, "no-pool", message, "add <addresses> to a node")
