"""What was observed, indexed for deciding: containers by app and replica, what each group holds, what is unknown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field

from k4t.master.planning.away import asleep
from k4t.master.planning.endpoints import by_app, settled_by_app
from k4t.master.planning.lag import ahead, lag
from k4t.master.planning.plan import Slot
from k4t.master.planning.serials import complete, names_app, newest
from k4t.model.participant import Kind
from k4t.model.spec import Tree
from k4t.model.state import Container, Head, Observed, ParticipantState
from k4t.model.value import value
from k4t.registrar.document import Document, Endpoint

PUBLISHED = ("endpoints", "checks", "routes", "records", "certificates")


@value
class Group:
    """One group of gateways or DNS servers. `live` is the newest document that any reachable member holds. `ids`: what
    the cluster knows its members by."""

    kind: Kind
    name: str
    members: tuple[ParticipantState, ...]
    live: Document | None = None
    endpoints: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict)
    settled: Mapping[str, tuple[object, ...]] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)

    @property
    def away(self) -> tuple[ParticipantState, ...]:
        return tuple(member for member in self.members if not member.reachable)

    def mentions(self, app: str) -> bool:
        return app in self.endpoints or app in self.settled

    def behind(self) -> tuple[Document, ...]:
        """What members that answer hold, and is not the newest."""
        live = self.live
        if live is None:
            return ()
        held = (member.document for member in self.members if member.reachable)
        return tuple(document for document in held if document is not None and not _same(document, live))

    def troubles(self) -> tuple[str, ...]:
        """Why a reachable member doesn't serve what the group should, in words."""
        found = [trouble for member in self.members if member.reachable for trouble in self._troubles_of(member)]
        return tuple(found)

    def _troubles_of(self, member: ParticipantState) -> Iterable[str]:
        if behind := lag(member, ahead(self.members, self.live), self.ids.get(member.name, "")):
            yield behind
        elif not member.rendered:
            yield f"{member.name} has accepted what it does not serve"
        else:
            yield from (f"{member.name}: {difference}" for difference in member.differences)


@value
class Survey:
    """`containers`: app, replica, then newest generation first. `unknown`: nodes of the tree that did not answer, and
    are not known to be off and empty.

    `elsewhere`: the unknown node that an unseen replica is published from.
    """

    containers: Mapping[str, Mapping[str, tuple[Container, ...]]]
    by_id: Mapping[str, Container]
    groups: Mapping[tuple[Kind, str], Group]
    unknown: frozenset[str]
    dead: frozenset[str]
    elsewhere: Mapping[tuple[str, str], str]
    head: Head | None

    def replicas(self, app: str) -> Mapping[str, tuple[Container, ...]]:
        return self.containers.get(app, {})

    def publishing(self, app: str) -> list[Group]:
        return [group for group in self.groups.values() if group.mentions(app)]

    def never_applied(self, app: str) -> bool:
        """Sure of it: nothing of this app is seen, published or remembered."""
        if self.replicas(app) or self.publishing(app):
            return False
        return complete(self.head) and not names_app(self.head, app)

    def published(self, container: Container, kind: Kind) -> list[Group]:
        """The groups that hold an endpoint of this container."""
        return [
            group
            for group in self.groups.values()
            if group.kind == kind
            and any(endpoint.container == container.id for endpoint in group.endpoints.get(container.app, ()))
        ]


def survey(desired: Tree, observed: Observed) -> Survey:
    dead = frozenset(name for name, node in desired.nodes.items() if node.availability == "dead")
    head = newest(observed.heads)
    empty = dead | asleep(desired, observed, head)
    unknown = frozenset(
        name
        for name in desired.nodes
        if name not in empty and (name not in observed.nodes or not observed.nodes[name].reachable)
    )
    seen = [
        container
        for name in sorted(desired.nodes)
        if name in observed.nodes and observed.nodes[name].reachable
        for container in observed.nodes[name].containers
    ]
    groups = _groups(observed, head)
    return Survey(
        containers=_by_replica(seen),
        by_id={container.id: container for container in seen},
        groups=groups,
        unknown=unknown,
        dead=dead,
        elsewhere=_elsewhere(groups.values(), unknown) if unknown else {},
        head=head,
    )


def _newest(documents: list[Document]) -> Document | None:
    """By version; of two with one version and different content (a fork), the same one on every machine."""
    version = max((document.version for document in documents), default=None)
    candidates = [document for document in documents if document.version == version]
    if all(_same(document, candidates[0]) for document in candidates[1:]):
        return next(iter(candidates), None)
    return max(candidates, key=lambda document: document.digest)


def _same(one: Document, other: Document) -> bool:
    """What `digest` compares, without hashing it."""
    return one is other or all(getattr(one, name) == getattr(other, name) for name in PUBLISHED)


def _by_replica(containers: Iterable[Container]) -> dict[str, dict[str, tuple[Container, ...]]]:
    found: dict[str, dict[str, tuple[Container, ...]]] = {}
    for container in containers:
        replicas = found.setdefault(container.app, {})
        siblings = replicas.get(container.replica)
        if siblings is None:
            replicas[container.replica] = (container,)
        else:
            newest_first = sorted((*siblings, container), key=lambda one: (-one.generation, one.node, one.id))
            replicas[container.replica] = tuple(newest_first)
    return found


def _groups(observed: Observed, head: Head | None) -> dict[tuple[Kind, str], Group]:
    members: dict[tuple[Kind, str], list[ParticipantState]] = {}
    for states in (observed.gateways, observed.dns):
        for _, state in sorted(states.items()):
            members.setdefault((state.kind, state.group), []).append(state)
    pinned = head.members if head else {}
    return {key: _group(key[0], key[1], tuple(states), pinned) for key, states in sorted(members.items())}


def _group(kind: Kind, name: str, members: tuple[ParticipantState, ...], pinned: Mapping[str, str]) -> Group:
    documents = [member.document for member in members if member.reachable and member.document is not None]
    live = _newest(documents)
    if live is None:
        return Group(kind, name, members)
    ids = {member.name: pinned.get(f"{kind}/{member.name}", "") for member in members} if pinned else {}
    return Group(kind, name, members, live, by_app(live), settled_by_app(live), ids)


def _elsewhere(groups: Iterable[Group], unknown: frozenset[str]) -> dict[tuple[str, str], str]:
    return {
        (endpoint.app, endpoint.replica): endpoint.node
        for group in groups
        if group.live is not None
        for endpoint in group.live.endpoints
        if endpoint.node in unknown
    }


def slot_of(container: Container) -> Slot:
    return Slot(container.app, container.replica, container.generation, container.node, container.id)


def label_of(container: Container) -> str:
    """Its slot's label, for which no slot need be made."""
    return f"{container.app}.{container.replica}.{container.generation}@{container.node}"


def replica_key(replica: str) -> tuple[int, str]:
    """Numbers in their order, then names."""
    return (int(replica), "") if replica.isdigit() else (1 << 62, replica)
