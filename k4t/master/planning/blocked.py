"""Before anything starts: leave out the apps whose publication could not reach every member of its group.

Design: a member that is away makes an apply refuse (`when-unreachable="refuse"`), decided while observing; apps
without routes and records go on. A publication that only takes out endpoints never waits for anyone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from k4t.errors import ParticipantAway
from k4t.master.planning.plan import Plan, Publish, Step
from k4t.model.spec import Tree
from k4t.model.state import Observed, ParticipantState


def without_blocked(plan: Plan, tree: Tree, observed: Observed, *, degraded: bool) -> tuple[Plan, tuple[int, ...]]:
    """The plan without the steps of blocked apps, each named in `not_done`; and the exit statuses of all that is
    away and was needed (nodes with work due, members of groups)."""
    statuses = [state.exit_status for state in observed.nodes.values() if not state.reachable and state.exit_status == 77]
    away = list(_away(observed))
    if not away or degraded or tree.cluster.when_unreachable == "degrade":
        return plan, tuple(statuses)
    blocked: dict[str, ParticipantState] = {}
    for step in plan.steps:
        if isinstance(step.work, Publish) and (step.work.add or step.work.settle):
            for member in away:
                if (member.kind, member.group) == (step.work.kind, step.work.group):
                    blocked.setdefault(step.app, member)
                    statuses.append(member.exit_status or ParticipantAway.exit_status)
    steps = _without(plan.steps, frozenset(blocked))
    reasons = tuple(f"{app}: nothing begun, since {member.problem}" for app, member in sorted(blocked.items()))
    return dataclasses.replace(plan, steps=steps, not_done=plan.not_done + reasons), tuple(statuses)


def _away(observed: Observed) -> Iterator[ParticipantState]:
    for member in (*observed.gateways.values(), *observed.dns.values()):
        if not member.reachable:
            yield member


def _without(steps: tuple[Step, ...], apps: frozenset[str]) -> tuple[Step, ...]:
    """Steps of other apps, less those that would wait for a step that is gone."""
    gone = {step.id for step in steps if step.app in apps}
    kept = []
    for step in steps:
        if step.id in gone or gone.intersection(step.after):
            gone.add(step.id)
        else:
            kept.append(step)
    return tuple(kept)
