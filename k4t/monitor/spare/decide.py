"""When a spare node is switched on, and when one is switched off. Pure.

Short: a replica has no place, or more than `above` of CPU or memory is reserved, in `after` checks in a row. Idle:
without the node all have a place, and no more than `below` would be reserved, for as long as the policy says. `below`
is less than `above`: so what was switched off is not missed, and what was switched on is not idle, while the load stays
as it is. Where a node is needed again soon after one went off, the next one is left on for twice as long.

A check says nothing while a run changes the cluster, or a node that is in use can't be asked: what it has is unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from k4t.master.power.spare import is_spare, needed
from k4t.model.hosts import Node
from k4t.model.monitor import Policy
from k4t.model.spec import Tree
from k4t.model.state import Facts, Observed
from k4t.monitor.acting.action import Action
from k4t.monitor.check import Looked
from k4t.monitor.history import GAP_S
from k4t.monitor.spare.memory import NONE, Asked, Memory
from k4t.monitor.spare.room import Room, Short, bound, room, with_node, without_node

ASKED_S = 900.0
"""So long the master has for what it was asked; then another node is asked for."""
FAILED_S = 3600.0
AGAIN_S = 3600.0
"""A node that is needed so soon after one went off was needed all the time."""
WAITS_MAX = 5
NAMED = 3


def decide(tree: Tree, looked: Looked, memory: Memory, now_s: float) -> tuple[Memory, tuple[Action, ...]]:
    """What the next check needs of this one, and at most one action. The same action comes again with every check, as
    long as it is wanted."""
    short, idle = tree.monitor.policy("nodes-short"), tree.monitor.policy("nodes-idle")
    if not (looked.has_tree and (short.enabled or idle.enabled)):
        return NONE, ()
    before = memory if 0 <= now_s - memory.at_s <= GAP_S else dataclasses.replace(memory, short=0, idle=0, asked=None)
    observed = _observed(looked)
    tree = _in_use(tree, observed)
    before = dataclasses.replace(before, facts=_facts(tree, observed, before.facts))
    if _is_unknown(tree, looked, observed):
        return before, ()
    scene = _Scene(tree, observed, looked.facts.desired, before, now_s)
    now = dataclasses.replace(_settled(scene), at_s=now_s)
    scene = dataclasses.replace(scene, memory=now)
    found = room(tree, observed, scene.desired)
    if why := _why_short(found, short):
        return _switch_on(scene, short, why)
    return _switch_off(scene, idle) if idle.enabled else (_not_idle(dataclasses.replace(now, short=0)), ())


@dataclasses.dataclass(frozen=True, slots=True)
class _Scene:
    tree: Tree
    observed: Observed
    desired: Mapping[str, tuple[str, ...]]
    memory: Memory
    now_s: float

    @property
    def active(self) -> list[Node]:
        return [node for node in self.tree.nodes.values() if node.availability == "active"]


# --- what is known ---------------------------------------------------------------------------------------------------


def _observed(looked: Looked) -> Observed:
    nodes = {name: one.state for name, one in looked.facts.nodes.items()}
    head = looked.facts.head
    if head is not None and nodes:  # the planner reads it off hosts, where the monitor has it by itself
        first = next(iter(nodes))
        nodes[first] = dataclasses.replace(nodes[first], head=head)
    return Observed(nodes, looked.facts.gateways, looked.facts.dns)


def _in_use(tree: Tree, observed: Observed) -> Tree:
    """A spare node that is drained in this tree, and runs something, is in use: this tree is an older one than the
    master's. (While it is emptied, a run is under way.)"""
    busy = {name for name, state in observed.nodes.items() if state.reachable and state.containers}
    nodes = {
        name: dataclasses.replace(node, availability="active")
        if node.availability == "drained" and is_spare(node) and name in busy
        else node
        for name, node in tree.nodes.items()
    }
    return dataclasses.replace(tree, nodes=nodes)


def _facts(tree: Tree, observed: Observed, before: Mapping[str, Facts]) -> dict[str, Facts]:
    now = {name: state.facts for name, state in observed.nodes.items() if state.reachable}
    return {name: facts for name, facts in {**before, **now}.items() if name in tree.nodes}


def _is_unknown(tree: Tree, looked: Looked, observed: Observed) -> bool:
    in_use = (node.name for node in tree.nodes.values() if node.availability in ("active", "cordoned"))
    silent = any(name not in observed.nodes or not observed.nodes[name].reachable for name in in_use)
    return silent or any(host.reading is not None and host.reading.lock_held for host in looked.facts.hosts.values())


def _settled(scene: _Scene) -> Memory:
    """Without what was asked for, once it is done, or should long have been."""
    memory, asked = scene.memory, scene.memory.asked
    failed = {name: at_s for name, at_s in memory.failed.items() if 0 <= scene.now_s - at_s < FAILED_S}
    memory = dataclasses.replace(memory, failed=failed)
    if asked is None:
        return memory
    node, state = scene.tree.nodes.get(asked.name), scene.observed.nodes.get(asked.name)
    on = node is not None and node.availability == "active" and state is not None and state.reachable
    if on == (asked.verb == "node-on"):
        return dataclasses.replace(memory, asked=None)
    if scene.now_s - asked.at_s < ASKED_S or _policy(scene.tree, asked).dry_run:
        return memory
    return dataclasses.replace(memory, asked=None, failed={**failed, asked.name: scene.now_s})


def _policy(tree: Tree, asked: Asked) -> Policy:
    return tree.monitor.policy("nodes-short" if asked.verb == "node-on" else "nodes-idle")


# --- short -----------------------------------------------------------------------------------------------------------


def _why_short(found: Room, policy: Policy) -> str:
    if not policy.enabled:
        return ""
    if found.short:
        return _words(found.short)
    percent = 100.0 * found.share
    if percent > policy.above_percent:
        return f"{percent:.0f} % of CPU or memory is reserved, and above={policy.above_percent:g}%"
    return ""


def _words(short: tuple[Short, ...]) -> str:
    names = ", ".join(f"{one.app}.{one.replica}" for one in short[:NAMED])
    more = f" and {len(short) - NAMED} more" if len(short) > NAMED else ""
    return f"{names}{more} fit{'s' if len(short) == 1 else ''} nowhere: {short[0].reasons[0]}"


def _switch_on(scene: _Scene, policy: Policy, why: str) -> tuple[Memory, tuple[Action, ...]]:
    memory = _not_idle(dataclasses.replace(scene.memory, short=scene.memory.short + 1))
    if memory.asked is not None and memory.asked.verb == "node-on":
        return memory, (_action(memory.asked, policy),)
    if memory.short < policy.after:
        return memory, ()
    name = _best(scene)
    if name is None:
        return dataclasses.replace(memory, asked=None), ()
    soon = memory.off_s > 0 and scene.now_s - memory.off_s < AGAIN_S * 2**memory.waits
    waits = min(memory.waits + 1, WAITS_MAX) if soon else 0
    asked = Asked("node-on", name, why, scene.now_s)
    return dataclasses.replace(memory, asked=asked, waits=waits), (_action(asked, policy),)


def _best(scene: _Scene) -> str | None:
    """The spare node on which most of what has no place would have one; of those that did not come, the last."""
    now = room(scene.tree, scene.observed, scene.desired)
    found = []
    for node in scene.tree.nodes.values():
        if not is_spare(node) or node.availability != "drained":
            continue
        facts = scene.memory.facts.get(node.name, Facts())
        then = room(*with_node(scene.tree, scene.observed, node.name, facts), scene.desired)
        more = then.share < now.share or not _says_what_it_has(node, facts)
        if len(then.short) < len(now.short) or (not now.short and more):
            found.append((scene.memory.failed.get(node.name, 0.0), len(then.short), node.name))
    return min(found)[2] if found else None


def _says_what_it_has(node: Node, facts: Facts) -> bool:
    capacity = node.capacity
    return bool(capacity.cpus or capacity.memory_bytes or facts.cpus or facts.memory_bytes)


# --- idle ------------------------------------------------------------------------------------------------------------


def _switch_off(scene: _Scene, policy: Policy) -> tuple[Memory, tuple[Action, ...]]:
    memory = dataclasses.replace(scene.memory, short=0)
    if memory.asked is not None and memory.asked.verb == "node-on":
        return _not_idle(memory), ()  # it comes, though nothing is short any more
    name = next(_idle(scene, policy), None)
    if name is None:
        return dataclasses.replace(_not_idle(memory), asked=None), ()
    since_s = memory.idle_since_s if memory.idle else scene.now_s
    memory = dataclasses.replace(memory, idle=memory.idle + 1, idle_since_s=since_s)
    if memory.asked is not None:
        return memory, (_action(memory.asked, policy),)
    waited_s = scene.now_s - since_s
    if memory.idle < policy.after or waited_s < policy.idle_s * 2**memory.waits:
        return memory, ()
    others = len(scene.active) - 1
    cause = (
        f"all that runs fits on {others} node{'' if others == 1 else 's'} without {name}, for {waited_s / 60:.0f} min"
    )
    asked = Asked("node-off", name, cause, scene.now_s)
    return dataclasses.replace(_not_idle(memory), asked=asked, off_s=scene.now_s), (_action(asked, policy),)


def _idle(scene: _Scene, policy: Policy) -> Iterator[str]:
    """Spare nodes that are on and not needed: the one that was asked for, then those with the fewest containers."""
    asked = scene.memory.asked
    spares = [node for node in scene.active if is_spare(node)]
    spares.sort(key=lambda node: (
        asked is None or asked.name != node.name, node.name in scene.memory.failed,
        len(scene.observed.nodes[node.name].containers), node.name,
    ))  # fmt: skip
    if len(scene.active) - 1 < max(1, policy.keep_nodes):
        return
    for node in spares:
        if needed(scene.tree, node.name) or bound(scene.tree, scene.observed.nodes[node.name], scene.desired):
            continue
        then = room(*without_node(scene.tree, scene.observed, node.name), scene.desired)
        if not then.short and 100.0 * then.share <= policy.below_percent:
            yield node.name


def _not_idle(memory: Memory) -> Memory:
    return dataclasses.replace(memory, idle=0, idle_since_s=0.0)


def _action(asked: Asked, policy: Policy) -> Action:
    verb = "node-on" if asked.verb == "node-on" else "node-off"
    return Action(policy.when, verb, asked.name, asked.cause, dry_run=policy.dry_run)  # type: ignore[arg-type]
