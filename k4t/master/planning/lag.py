"""What keeps a member of a group from being in step with the others, in words: stale, a fork, blank."""

from __future__ import annotations

from collections.abc import Iterable

from k4t.model.state import ParticipantState
from k4t.registrar.document import Document


def ahead(members: Iterable[ParticipantState], live: Document | None) -> ParticipantState | None:
    """The member that holds the newest document."""
    return next((one for one in members if live is not None and one.reachable and one.document == live), None)


def lag(member: ParticipantState, newest: ParticipantState | None, pinned: str = "") -> str:
    """Why a member that answers isn't in step with `newest`; "" when it is. `pinned`: the id that the cluster knows it
    by, "" when it knows none."""
    if newest is None or newest.document is None:
        return ""
    held, live = member.document, newest.document
    if held is None:
        if newest.document.empty:
            return ""
        return f"{member.name} is blank: {replaced(member, pinned)}" if replaced(member, pinned) else (
            f"{member.name} holds nothing"
        )  # fmt: skip
    if held == live:
        return ""
    mine, theirs = f"{held.epoch.number}.{held.seq}", f"{live.epoch.number}.{live.seq}"
    if is_fork(held, newest):
        return f"{member.name} went its own way (a fork): its {mine} is not what {newest.name}'s {theirs} follows"
    return f"{member.name} is stale: it has {mine}, {newest.name} has {theirs}"


def replaced(member: ParticipantState, pinned: str) -> str:
    """In words, when it isn't the one that the cluster knows."""
    if not (pinned and member.id) or member.id == pinned:
        return ""
    return f"it was replaced (its id is {member.id}, it was {pinned})"


def is_fork(held: Document, newest: ParticipantState) -> bool:
    """Whether `held` is known not to be among the documents that the newest one follows. What is older than all those
    is not known of."""
    ancestors = dict(newest.ancestors)
    known_from = min(ancestors, default=None)
    return known_from is not None and held.seq >= known_from and held.sha256 not in ancestors.values()
