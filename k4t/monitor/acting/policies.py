"""What is to be done about what a check saw: findings, policies and what was done before → actions, and what is held
back and why. Pure: no I/O, no clock.

It acts on what is raised and was seen by this check too. When nothing answers, it is this machine that is cut off, and
nothing is done at all. docs/acting.md tells people the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from k4t.model.hosts import Node
from k4t.model.monitor import AFTER, Policy
from k4t.model.value import value
from k4t.monitor.acting import limits, withdraw
from k4t.monitor.acting.action import OWN, Action, Outcome
from k4t.monitor.acting.acts import Memory
from k4t.monitor.acting.limits import Room
from k4t.monitor.check import Looked
from k4t.monitor.facts import Facts
from k4t.monitor.history import BACK_S, GAP_S
from k4t.monitor.judge import Finding
from k4t.monitor.signs.apps import replicas
from k4t.monitor.signs.sign import View

GONE = ("host-off", "sshd", "hangs", "network")
UNHEALTHY = ("unhealthy", "container-stopped")
FULL = ("disk", "docker-disk")
MAX_ACTIONS = 50
"""Of one round; the rest is wanted by the next one too."""


@value
class Wish:
    """An action, or why it is held back (`kind` tells reasons apart: each is said once)."""

    action: Action
    kind: str = ""
    words: str = ""


@value
class Decision:
    """`refused`: what is held back and was not told before. `memory`: with the actions as begun."""

    actions: tuple[Action, ...]
    refused: tuple[Outcome, ...]
    memory: Memory


def decide(
    looked: Looked, memory: Memory, now_s: float, more: Iterable[Action] = (), pending: Collection[str] = ()
) -> Decision:
    """`more`: what scaling and spare nodes want; it is held to the same limits. `pending`: ids of intents that the
    master has not taken yet."""
    scene = Scene(looked, counted(looked, memory, now_s, pending))
    if scene.cut_off:
        return Decision((), (), scene.memory)
    wishes = [*_node_gone(scene), *_node_back(scene), *_app_unhealthy(scene), *_disk_full(scene), *_others(scene, more)]
    kept, actions, held = scene.memory, list[Action](), dict[str, Wish]()
    for wish in wishes:
        action = wish.action
        if not wish.words and limits.too_soon(action, kept, now_s, pending):
            continue
        limited = _within_the_hour(scene, wish, kept, now_s)
        if limited.words:
            held[f"{action.policy}:{limits.same(action)}:{limited.kind}"] = limited
        elif len(actions) < MAX_ACTIONS:
            actions.append(action)
            kept = limits.begun(action, kept, now_s)
    new = (wish for key, wish in held.items() if key not in memory.said)
    refused = tuple(Outcome(wish.action, "refused", now_s, wish.words) for wish in new)
    return Decision(tuple(actions), refused, dataclasses.replace(kept, said=frozenset(held)))


def _within_the_hour(scene: Scene, wish: Wish, memory: Memory, now_s: float) -> Wish:
    """What puts things back as they were is not limited."""
    policy = scene.policy(wish.action.policy)
    if wish.words or policy is None or wish.action.verb == "give-back":
        return wish
    return Wish(wish.action, "per-hour", limits.too_often(policy, wish.action, memory, now_s))


@dataclass
class Scene:
    """One check, and what follows from it for every policy."""

    looked: Looked
    memory: Memory

    @property
    def facts(self) -> Facts:
        return self.looked.facts

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self.looked.tree.nodes

    def policy(self, when: str) -> Policy | None:
        """None where it is off, and for what is no policy (“scale”)."""
        found = {str(one.when): one for one in self.looked.tree.monitor.policies.values()}.get(when)
        return found if found is not None and found.enabled else None

    @cached_property
    def view(self) -> View:
        return View(self.facts, self.looked.tree)

    @cached_property
    def cut_off(self) -> bool:
        key = f"cluster/{self.facts.cluster}:network"
        return any(one.key == key and one.present for one in self.looked.judgement.findings)

    def findings(self, kind: str, what: Sequence[str]) -> Iterator[Finding]:
        """Raised, and there now."""
        for one in self.looked.judgement.findings:
            if one.subject.kind == kind and one.what in what and one.confirmed and one.present and one.level != "ok":
                yield one

    @cached_property
    def dead(self) -> frozenset[str]:
        return given_up(self.looked)

    @cached_property
    def room(self) -> Room:
        away = {name for name, one in self.facts.nodes.items() if not one.state.reachable}
        active = {name for name, node in self.nodes.items() if node.availability == "active"}
        in_use = {name for name, node in self.nodes.items() if node.availability in ("active", "cordoned")}
        return Room(
            len(self.nodes), frozenset(away & in_use - self.dead), self.dead, frozenset(active - away - self.dead)
        )

    @cached_property
    def published(self) -> frozenset[str]:
        """Nodes to which anybody sends traffic."""
        return frozenset(end.node for ends in self.view.published.values() for end in ends)


def given_up(looked: Looked) -> frozenset[str]:
    """By this tree, or by the master, whose tree may be a newer one."""
    head = looked.facts.head
    told = set(head.dead) if head else set()
    return frozenset(
        name
        for name, node in looked.tree.nodes.items()
        if node.availability == "dead" or (name in told and node.availability != "drained")  # one that sleeps is well
    )


def settled(memory: Memory, outcome: Outcome) -> Memory:
    """With what became of an action that was begun."""
    action, own = outcome.action, memory.last(limits.same(outcome.action))
    if own is None or outcome.result in ("refused", "dry-run"):
        return memory
    queued = outcome.result == "failed" and outcome.intent != ""  # the master could not be woken; it does it when it is
    result = "queued" if queued else outcome.result
    now = dataclasses.replace(own, result=result, intent=outcome.intent or own.intent)
    kept = dataclasses.replace(memory, acts=tuple(now if act is own else act for act in memory.acts))
    if action.verb == "dead" and result != "failed":
        return dataclasses.replace(kept, given_up={**kept.given_up, action.name: outcome.at_s})
    return kept


def adopted(memory: Memory, pending: Collection[str]) -> Memory:
    """After a restart: what was begun, and lies queued, was handed over; what the monitor does itself is simply tried
    again, since it can be done twice."""
    ours = [act for act in memory.acts if act.result == "begun" and act.intent in pending]
    own = [act for act in memory.acts if act.result == "begun" and act.verb in OWN]
    acts = tuple(
        dataclasses.replace(act, result="queued" if act in ours else "failed") if act in (*ours, *own) else act
        for act in memory.acts
    )
    dead = {act.name: act.at_s for act in ours if act.verb == "dead"}
    return dataclasses.replace(memory, acts=acts, given_up={**memory.given_up, **dead})


# --- what is counted -----------------------------------------------------------------------------------------------


def counted(looked: Looked, memory: Memory, now_s: float, pending: Collection[str] = ()) -> Memory:
    """With this check: how often in a row, how much a node had. After a long pause everything is counted anew."""
    recent = -BACK_S <= now_s - memory.at_s <= GAP_S
    before, dead, nodes = memory.runs if recent else {}, given_up(looked), looked.facts.nodes
    well = {name for name, one in nodes.items() if one.state.reachable}
    hosted = {name: len(nodes[name].state.containers) for name in well}
    out = withdraw.held_of(looked.facts)
    gone = {name: at_s for name, at_s in memory.given_up.items() if name in looked.tree.nodes}
    seen = [*_seen(looked), *(f"well:{name}" for name in well & {*out, *gone})]
    runs = {key: before.get(key, 0) + 1 for key in seen}
    return Memory(
        at_s=now_s,
        acts=limits.kept(memory.acts, now_s, pending),
        runs=runs,
        hosted={name: count for name, count in {**memory.hosted, **hosted}.items() if name in looked.tree.nodes},
        given_up={
            name: at_s for name, at_s in gone.items()
            if name in dead or runs.get(f"well:{name}", 0) < _after(looked, "node-back")
        },
        said=memory.said,
    )  # fmt: skip


def _after(looked: Looked, when: str) -> int:
    return next(
        (one.after for one in looked.tree.monitor.policies.values() if one.when == when), Policy("node-back").after
    )


def _seen(looked: Looked) -> Iterator[str]:
    """What this check saw of what policies count; also of what is not raised yet."""
    view = View(looked.facts, looked.tree)
    troubled = dict[str, None]()
    for one in looked.judgement.findings:
        if not one.present or one.level == "ok":
            continue
        if one.subject.kind == "node" and one.what in GONE and not _life(looked.facts, one):
            yield f"gone:{one.subject.name}"
        elif one.subject.kind == "node" and one.what in FULL:
            yield f"full:{one.subject.name}"
        elif one.subject.kind == "app" and one.what in UNHEALTHY:
            troubled[one.subject.name] = None
    for app in troubled:
        for replica, trouble in replicas(view, app).items():
            if trouble is not None and trouble.what in UNHEALTHY:
                yield f"unhealthy:{app}/{replica}"


# --- a node is gone ------------------------------------------------------------------------------------------------


def _node_gone(scene: Scene) -> Iterator[Wish]:
    policy = scene.policy("node-gone")
    if policy is None:
        return
    findings = {one.subject.name: one for one in scene.findings("node", GONE)}
    for name, finding in findings.items():
        node = scene.nodes.get(name)
        if node is None or node.availability not in ("active", "cordoned") or name in scene.dead:
            continue
        if not scene.memory.hosted.get(name, 1) and name not in scene.published:
            continue  # nothing of ours is there
        yield from _of_gone(scene, policy, node, finding)


def _of_gone(scene: Scene, policy: Policy, node: Node, finding: Finding) -> Iterator[Wish]:
    """Its endpoints are taken out as soon as that is sure; it is given up later, by the master, which fences it."""
    name, count = node.name, scene.memory.runs.get(f"gone:{node.name}", 0)
    long = f" for {count} check{'' if count == 1 else 's'}" if count else ""
    cause = f"node {name}: {finding.what}{long}: {finding.sentence}"
    dead = Action(policy.when, "dead", name, cause, dry_run=policy.dry_run)
    out = Action(policy.when, "withdraw", name, cause, dry_run=policy.dry_run)
    if life := _life(scene.facts, finding):
        yield Wish(dead, "alive", life)
        return
    if finding.seen < scene.looked.tree.monitor.threshold("state").after:
        return  # the first check of all counts what it sees at once, and proves nothing
    if _is_published(scene, out):
        yield _held(out, policy, scene.room, with_dead=False)
    if count >= policy.after and not (node.power and node.power.off):
        words = f"it has no <power off> ({node.where}), so nobody can make sure that it is off"
        yield Wish(dead, "unfenced", f"{words}: k4t node dead {name} --allow unfenced:{name}, once it is")
    elif count >= policy.after and name not in scene.memory.given_up:
        yield _held(dead, policy, scene.room, with_dead=True)


def _is_published(scene: Scene, action: Action) -> bool:
    """Whether something is left to take out; what failed is also tried again for the sake of members that were away."""
    plan, last = withdraw.out(scene.facts, action.name), scene.memory.last(limits.same(action))
    if any(member.places for member in plan.members):
        return True
    return last is not None and last.result in ("failed", "begun") and not plan.empty


def _life(facts: Facts, finding: Finding) -> str:
    """What shows that it is on, though it can't be asked from here."""
    if gateway := facts.alive.get(finding.subject.name):
        return f"it still takes connections from {gateway}: it serves, and is not given up"
    if finding.what == "network":
        return f"it is the way from here, not the node: {finding.sentence}"
    return ""


def _held(action: Action, policy: Policy, room: Room, *, with_dead: bool) -> Wish:
    if words := limits.too_many(policy, room, with_dead=with_dead):
        return Wish(action, "max-nodes", words)
    return Wish(action, "keep-nodes", limits.too_few(policy, room, action.name))


# --- a node is back ------------------------------------------------------------------------------------------------


def _node_back(scene: Scene) -> Iterator[Wish]:
    """What was taken out is given back also when the policy has been switched off since. A node that was given up is
    taken back only where this monitor gave it up."""
    policy, gone = scene.policy("node-back"), scene.looked.tree.monitor.policy("node-gone")
    for name in sorted(withdraw.held_of(scene.facts) & scene.nodes.keys()):
        count = scene.memory.runs.get(f"well:{name}", 0)
        if count >= min(gone.after, AFTER):
            cause = f"node {name} answers again, for {count} checks"
            yield Wish(Action(gone.when, "give-back", name, cause, dry_run=gone.enabled and gone.dry_run))
    if policy is None:
        return
    for name in scene.memory.given_up:
        count = scene.memory.runs.get(f"well:{name}", 0)
        if name in scene.dead and count >= policy.after:
            cause = f"node {name} answers again, for {count} checks, and was given up by the monitor"
            yield Wish(Action(policy.when, "back", name, cause, dry_run=policy.dry_run))


# --- apps, disks, and what others want -----------------------------------------------------------------------------


def _app_unhealthy(scene: Scene) -> Iterator[Wish]:
    """One replica of an app at a time: the one that has been unwell for longest."""
    policy = scene.policy("app-unhealthy")
    if policy is None:
        return
    for app in dict.fromkeys(one.subject.name for one in scene.findings("app", UNHEALTHY)):
        counts = {
            replica: scene.memory.runs.get(f"unhealthy:{app}/{replica}", 0)
            for replica, trouble in replicas(scene.view, app).items()
            if trouble is not None and trouble.what in UNHEALTHY
        }
        if not counts or _restarted(scene, app):
            continue
        replica = max(counts, key=lambda one: counts[one])
        trouble = replicas(scene.view, app)[replica]
        if counts[replica] >= policy.after and trouble is not None:
            cause = f"{trouble.words}, for {counts[replica]} checks"
            yield Wish(Action(policy.when, "restart", app, cause, replica, dry_run=policy.dry_run))


def _restarted(scene: Scene, app: str) -> bool:
    """Whether another replica of it was restarted just now."""
    return any(
        act.verb == "restart" and act.name == app and scene.memory.at_s - act.at_s < limits.AGAIN_S["restart"]
        and act.result not in ("failed", "begun")
        for act in scene.memory.acts
    )  # fmt: skip


def _disk_full(scene: Scene) -> Iterator[Wish]:
    policy = scene.policy("disk-full")
    if policy is None:
        return
    for one in {one.subject.name: one for one in scene.findings("node", FULL)}.values():
        name, count = one.subject.name, scene.memory.runs.get(f"full:{one.subject.name}", 0)
        node = scene.facts.nodes.get(name)
        if count >= policy.after and node is not None and node.images_bytes:
            yield Wish(Action(policy.when, "prune", name, f"node {name}: {one.sentence}", dry_run=policy.dry_run))


def _others(scene: Scene, more: Iterable[Action]) -> Iterator[Wish]:
    for wanted in more:
        policy = scene.policy(wanted.policy)
        if policy is None and wanted.policy != "scale":
            continue
        dry_run = wanted.dry_run or (policy is not None and policy.dry_run)
        action = dataclasses.replace(wanted, dry_run=dry_run)
        if policy is not None and action.verb == "node-off":
            yield _held(action, policy, scene.room, with_dead=False)
        else:
            yield Wish(action)
