"""What the tree asks of a group and one of its members can't do: refused, naming the member and the line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from k4t.errors import Finding
from k4t.model.app import App
from k4t.model.participant import Participant
from k4t.model.spec import Tree


def inexpressible(tree: Tree, participants: Iterable[Participant]) -> tuple[Finding, ...]:
    """One finding for each thing and member. Which drivers can do what stands in their Capabilities."""
    members = list(participants)
    return tuple(finding for app in tree.apps.values() for finding in _records(app, members))


def _records(app: App, members: list[Participant]) -> Iterator[Finding]:
    for record in app.records:
        for member in members:
            if (
                (member.kind, member.group) == ("dns", record.group)
                and record.type == "srv"
                and not member.capabilities.srv
            ):
                message = f"{member.name} ({member.driver}) can't serve srv records"
                remedy = 'write type="address" and give the port a number, or use another group'
                yield Finding(record.where.file, record.where.line, "inexpressible", message, remedy)
