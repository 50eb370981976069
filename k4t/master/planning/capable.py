"""What the tree asks of a group and one of its members can't do: refused, naming the member and the line; or does
otherwise, which is said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from k4t.errors import Finding
from k4t.master.planning.certificates import certificate_warnings
from k4t.master.planning.naming import inexpressible_records, record_warnings
from k4t.master.planning.routable import inexpressible_routes, route_warnings
from k4t.model.participant import Participant
from k4t.model.spec import Tree


def inexpressible(tree: Tree, participants: Iterable[Participant]) -> tuple[Finding, ...]:
    """One finding for each thing and member. Which drivers can do what stands in their Capabilities."""
    members = list(participants)
    return (*inexpressible_records(tree, members), *inexpressible_routes(tree, members), *_uncounted(tree, members))


def _uncounted(tree: Tree, members: Iterable[Participant]) -> Iterator[Finding]:
    """Gateways that don't count the requests by which an app is scaled."""
    gateways = [member for member in members if member.kind == "gateway"]
    for app in tree.apps.values():
        if app.scale is None or app.scale.requests is None:
            continue
        where, groups = app.scale.where, {route.group for route in app.routes}
        for gateway in gateways:
            if gateway.group in groups and not gateway.capabilities.counts:
                message = f"{app.name} is scaled by requests, which {gateway.name} ({gateway.driver}) does not count"
                remedy = "scale by something else, or route by Envoy or HAProxy"
                yield Finding(where.file, where.line, "inexpressible", message, remedy)


def caveats(tree: Tree, participants: Iterable[Participant], at: str) -> tuple[str, ...]:
    """What is served otherwise than it stands in the tree, and certificates that end, in sentences. `at`: now."""
    members = list(participants)
    said = (*record_warnings(tree, members), *route_warnings(tree, members), *_unread(tree, members))
    return (*said, *certificate_warnings(tree, at))


def _unread(tree: Tree, members: Iterable[Participant]) -> Iterator[str]:
    for member in members:
        if not member.capabilities.reads_back:
            where = (tree.gateways if member.kind == "gateway" else tree.dns)[member.name].where
            yield (
                f"{where}: {member.name} ({member.driver}) has no `list`: what it serves is not read back, what was "
                "last done there counts"
            )
