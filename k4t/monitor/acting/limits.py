"""How often, how many at once, how few may be left: what limits hold back, in words; "" where they hold nothing. Pure.

A second try of what failed is the same act: it counts once, at its last try.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping

from k4t.model.monitor import Policy
from k4t.model.value import value
from k4t.monitor.acting.action import OWN, Action, Verb
from k4t.monitor.acting.acts import BEGUN, DRY_RUN, FAILED, MAX_ACTS, Act, Memory

HOUR_S = 3600.0
AGAIN_S: Mapping[Verb, float] = {
    "withdraw": 0.0, "give-back": 0.0, "dead": 3600.0, "back": 3600.0, "restart": 600.0, "prune": 86400.0,
    "scale": 60.0, "node-on": 600.0, "node-off": 600.0,
}  # fmt: skip
"""So long the same is not asked for again, though it is still wanted: the master needs its time, or it was no help."""
DRY_AGAIN_S = 3600.0
RETRY_S, RETRY_MOST_S, RETRY_OWN_MOST_S = 10.0, 3600.0, 60.0
"""After the first try that failed; each further one waits twice as long, what the monitor does itself at most a
minute: traffic waits."""
BEGUN_S = 60.0
"""An act that was begun, and of which nothing more is known (the monitor was killed), may be tried again after this."""


@value
class Room:
    """The nodes as limits see them. `away`: those that can't be asked and are not given up; `dead`: those that are;
    `serving`: those that answer and take replicas."""

    nodes: int
    away: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    serving: frozenset[str] = frozenset()


def same(action: Action) -> str:
    """What an act is known by. Another number of replicas is another act; so is what is only said."""
    words = [action.key, *([str(action.replicas)] if action.verb == "scale" else ())]
    return "/".join([*words, *(["dry-run"] if action.dry_run else ())])


def too_soon(action: Action, memory: Memory, now_s: float, pending: Collection[str] = ()) -> bool:
    """Whether it is being done, was done just now, waits for the master (`pending`: ids of intents), or failed and is
    not to be tried again yet."""
    last = memory.last(same(action))
    if last is None:
        return False
    if last.intent in pending:
        return True
    wait_s = DRY_AGAIN_S if last.result == DRY_RUN else AGAIN_S[action.verb]
    if last.result == FAILED:
        most_s = RETRY_OWN_MOST_S if action.verb in OWN else RETRY_MOST_S
        wait_s = min(RETRY_S * 2 ** min(last.tries - 1, 20), most_s)
    elif last.result == BEGUN:
        wait_s = BEGUN_S
    return now_s - last.at_s < wait_s


def too_often(policy: Policy, action: Action, memory: Memory, now_s: float) -> str:
    """By `per-hour`, which counts each kind of action by itself, and dry runs apart."""
    own = _unfinished(action, memory)
    count = sum(
        act is not own and act.policy == policy.when and act.verb == action.verb
        and (act.result == DRY_RUN) == action.dry_run and act.at_s > now_s - HOUR_S
        for act in memory.acts
    )  # fmt: skip
    if count < policy.per_hour:
        return ""
    return f"it was done {count} times within the hour, and per-hour={policy.per_hour}"


def too_many(policy: Policy, room: Room, *, with_dead: bool) -> str:
    """By `max-nodes`: nothing is done when more nodes than that are away at once; it is more than a node that is the
    matter then. `with_dead`: those that were given up before count too."""
    most = max(1, math.floor(room.nodes * policy.max_nodes_percent / 100.0))
    gone = len(room.away) + (len(room.dead) if with_dead else 0)
    if gone <= most:
        return ""
    names = ", ".join(sorted(room.away)[:4]) + ("" if len(room.away) <= 4 else f" and {len(room.away) - 4} more")
    dead = f", and {len(room.dead)} given up already" if with_dead and room.dead else ""
    share = f"max-nodes={policy.max_nodes_percent:g}% of {room.nodes}"
    return f"{len(room.away)} away at once ({names}){dead}; {share} is {most}: look at what they have in common"


def too_few(policy: Policy, room: Room, name: str) -> str:
    """By `keep-nodes`: how many would serve without it."""
    left = len(room.serving - {name})
    if left >= policy.keep_nodes:
        return ""
    return f"{left} other {'node serves' if left == 1 else 'nodes serve'}, and keep-nodes={policy.keep_nodes}"


def begun(action: Action, memory: Memory, now_s: float) -> Memory:
    """With the act that this begins; one that failed is begun again."""
    own = _unfinished(action, memory)
    if own is not None:
        again = dataclasses.replace(own, at_s=now_s, tries=own.tries + 1, result=BEGUN, intent="")
        return dataclasses.replace(memory, acts=tuple(again if act is own else act for act in memory.acts))
    act = Act(same(action), action.policy, action.verb, action.name, now_s, result=DRY_RUN if action.dry_run else BEGUN)
    return dataclasses.replace(memory, acts=(*memory.acts, act)[-MAX_ACTS:])


def kept(acts: tuple[Act, ...], now_s: float, pending: Collection[str] = ()) -> tuple[Act, ...]:
    """Those that a limit still asks for, or that the master has not taken yet. What is said to lie ahead (the clock was
    set back) counts from now on."""
    ours = (dataclasses.replace(act, at_s=min(act.at_s, now_s)) for act in acts)
    return tuple(
        act for act in ours if act.intent in pending or now_s - act.at_s <= max(HOUR_S, _again_s(act))
    )[-MAX_ACTS:]  # fmt: skip


def _again_s(act: Act) -> float:
    return AGAIN_S.get(act.verb, 0.0)  # type: ignore[call-overload, no-any-return]


def _unfinished(action: Action, memory: Memory) -> Act | None:
    last = memory.last(same(action))
    return last if last is not None and last.result in (BEGUN, FAILED) else None
