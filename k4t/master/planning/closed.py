"""Which groups may not be written to now."""

from __future__ import annotations

from collections.abc import Iterable

from k4t.master.planning.plan import Options
from k4t.master.planning.standing import GroupKey
from k4t.master.planning.survey import Group, Survey
from k4t.model.spec import Tree

ANSWERED = (1,)
"""Exit statuses of gateways and DNS servers whose host answers, but not as it should: their registrar is not there."""


def closed_groups(desired: Tree, survey: Survey, options: Options) -> dict[GroupKey, str]:
    """Groups that may not be written to now, and why."""
    degrade = options.degraded or desired.cluster.when_unreachable == "degrade"
    return {key: _why_closed(group) for key, group in survey.groups.items() if _is_closed(group, degrade=degrade)}


def silent_member(survey: Survey, keys: Iterable[GroupKey]) -> str:
    """Of groups that are written to all the same: who is away, and why; "" when nobody is. It may go on sending to what
    it was told of, so nothing of that can be stopped."""
    for key in keys:
        if away := survey.groups[key].away:
            return f"{key[0]} {away[0].name} is unreachable ({away[0].problem})"
    return ""


def _is_closed(group: Group, *, degrade: bool) -> bool:
    return bool(group.away) and (not degrade or len(group.away) == len(group.members))


def _why_closed(group: Group) -> str:
    silent = [m for m in group.away if m.exit_status not in ANSWERED]
    away = ", ".join(f"{m.name} ({m.problem})" if m.problem else m.name for m in silent)
    words = [f"unreachable {away}"] if silent else []
    words += [f"{m.name} can't be used ({m.problem})" for m in group.away if m not in silent]
    remedy = "" if len(group.away) == len(group.members) else "; k4t apply --degraded publishes to the others"
    return f"{group.kind} group {group.name}: {', '.join(words)}{remedy}"
