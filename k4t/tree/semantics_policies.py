"""<policy>: what could never act, what contradicts itself, and what nobody could fence. Pure.

What depends on how many nodes there are is a remark: a tree must not become invalid because a node is taken out of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from k4t.errors import Finding
from k4t.model.hosts import Node
from k4t.model.monitor import Monitor, Policy
from k4t.tree.semantics_app import finding

NAMED = 4


def check_policies(found: Monitor, nodes: Mapping[str, Node]) -> Iterator[Finding]:
    for policy in found.policies.values():
        name = f'<policy when="{policy.when}">'
        if policy.max_nodes_percent <= 0:
            message = f"{name}: max-nodes=0% would let it do nothing, but one node may always be gone"
            yield finding(
                policy.where, "policy", message, 'write enabled="false" if that is meant, else a larger share'
            )
        if policy.dry_run and not policy.enabled:
            message = f"{name} is off, so dry-run= says nothing"
            yield finding(policy.where, "policy-idle", message, 'write enabled="true" to see what it would do')
    gone, back, idle = found.policy("node-gone"), found.policy("node-back"), found.policy("nodes-idle")
    if back.enabled and not gone.enabled:
        message = '<policy when="node-back"> takes back what <policy when="node-gone"> gave up, which is off'
        yield finding(back.where, "policy-idle", message, "switch both on, or neither")
    for policy in (gone, idle):
        if policy.enabled and nodes and len(nodes) - 1 < policy.keep_nodes:
            yield _never(policy, len(nodes))
    if gone.enabled:
        yield from _unfenced(gone, nodes)


def _never(policy: Policy, count: int) -> Finding:
    words = f"there {'is 1 node' if count == 1 else f'are {count} nodes'}, and keep-nodes={policy.keep_nodes}"
    message = f'<policy when="{policy.when}"> can never act: {words}'
    return finding(policy.where, "policy-idle", message, "write a smaller keep-nodes=")


def _unfenced(gone: Policy, nodes: Mapping[str, Node]) -> Iterator[Finding]:
    """Without a fence nobody knows that a node is off: its replicas stay where they may still run."""
    without = [
        name for name, node in nodes.items()
        if node.availability in ("active", "cordoned") and not (node.power and node.power.off)
    ]  # fmt: skip
    if without:
        more = f" and {len(without) - NAMED} more" if len(without) > NAMED else ""
        message = (
            f"{', '.join(without[:NAMED])}{more}: no <power off>, so node-gone takes endpoints out and gives up nothing"
        )
        yield finding(
            gone.where, "no-fence", message, 'write <power off="…"/>, which must be sure to switch the node off'
        )
