"""How one app stands in the groups: what is published, what should be, and what is neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from k4t.master.planning.certificates import certificates_of, certified, renewed
from k4t.master.planning.endpoints import (
    by_app,
    dns_groups,
    endpoints_of,
    gateway_groups,
    second_address,
    wanted_of,
)
from k4t.master.planning.former import document_of, groups_of
from k4t.master.planning.plan import Slot
from k4t.master.planning.survey import Group, Survey, slot_of
from k4t.model.app import App
from k4t.model.hosts import Node
from k4t.model.participant import Kind
from k4t.model.spec import Tree
from k4t.model.state import Container, Former
from k4t.registrar.document import Endpoint, Record

GroupKey = tuple[Kind, str]
_NONE: frozenset[Endpoint] = frozenset()


@dataclass(slots=True)
class Standing:
    """`wanted`: groups that should hold its endpoints. `stale`: published, and their container is gone.

    `holders`: by container and kind, the groups that hold some endpoint of it; `expected`: what each container has.
    `misplaced`: published in a group that the app no longer is in. `unsettled`: groups whose routes, checks or
    records differ; `renewed`: why, where certificates did. `homes`: the node that a vanished container of a replica
    was published from. `remote`: some endpoint is on a node that doesn't answer, and stays. `lagging`: by container,
    the groups of which some member that answers is not in step and still sends to it. `sending`: kinds of groups that
    may have sent to any container of it, also to one that they hold no more; `given_up`: dead nodes, to which nothing
    was sent for long.
    """

    wanted: tuple[GroupKey, ...]
    live: dict[GroupKey, frozenset[Endpoint]]
    holders: dict[tuple[str, Kind], tuple[GroupKey, ...]]
    expected: dict[tuple[str, Kind], tuple[Endpoint, ...]] = field(default_factory=dict)
    nodes: Mapping[str, Node] = field(default_factory=dict)
    stale: dict[GroupKey, list[Slot]] = field(default_factory=dict)
    misplaced: dict[GroupKey, list[Slot]] = field(default_factory=dict)
    unsettled: list[GroupKey] = field(default_factory=list)
    renewed: dict[GroupKey, str] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)
    outdated: set[tuple[GroupKey, str]] = field(default_factory=set)
    lagging: dict[str, set[GroupKey]] = field(default_factory=dict)
    remote: bool = False
    ttl_s: float = 0.0
    groups: tuple[GroupKey, ...] = ()
    sending: frozenset[Kind] = frozenset()
    given_up: frozenset[str] = frozenset()

    def holding(self, container: Container, kind: Kind) -> tuple[GroupKey, ...]:
        return self.holders.get((container.id, kind), ())

    def endpoints(self, container: Container, kind: Kind) -> tuple[Endpoint, ...]:
        """Those that it has now, as every group of a kind that names it should hold them."""
        key = container.id, kind
        found = self.expected.get(key)
        if found is None:
            second = second_address(self.nodes, container, kind)
            found = self.expected[key] = endpoints_of(container.app, container, second)
        return found

    def sent_to(self, container: Container, kind: Kind) -> bool:
        """Whether traffic may come to it by a group of this kind. One that no group holds may have been taken out just
        before an earlier run was killed: nothing tells when, so nothing is taken for over."""
        if not container.running:
            return False
        return bool(self.holding(container, kind)) or (kind in self.sending and container.node not in self.given_up)

    def lacking(self, container: Container) -> tuple[GroupKey, ...]:
        """The groups that should hold this container's endpoints and don't, or hold other ones."""
        if not self.wanted:
            return ()
        return tuple(
            key
            for key in self.wanted
            if (key, container.id) in self.outdated
            or not self.live.get(key, _NONE).issuperset(self.endpoints(container, key[0]))
        )


def standing(desired: Tree, survey: Survey, name: str, former: Former | None = None) -> Standing:
    """`former`: it is to be published as it was then, instead of as the tree says. What did not get healthy was hardly
    ever published then, and is in the way."""
    app = desired.apps.get(name)
    mentioned = {key: group for key, group in survey.groups.items() if group.mentions(name)}
    wanted = tuple(key for key in (groups_of(former) if former else _wanted(app)) if key in survey.groups)
    begun = survey.head.former.get(name) if survey.head else None
    ttl_s = _ttl_s(app, mentioned, name, begun)
    found = Standing(wanted, {}, {}, nodes=desired.nodes, ttl_s=ttl_s, given_up=survey.dead)
    if former is None:
        found.sending = frozenset(kind for kind, _ in (groups_of(begun) if begun and app is None else wanted))
    for key, group in mentioned.items():
        _sort_endpoints(found, survey, key, group.endpoints.get(name, ()), key in wanted)
    for key, group in survey.groups.items():
        for document in group.behind():
            for endpoint in by_app(document).get(name, ()):
                found.lagging.setdefault(endpoint.container, set()).add(key)
        settled, leading = set(group.settled.get(name, ())), _leading(app, desired, key, former)
        if settled != leading:
            found.unsettled.append(key)
            found.renewed[key] = renewed(settled, leading)
    found.groups = tuple(sorted({*found.wanted, *found.live, *found.unsettled}))
    return found


def _leading(app: App | None, desired: Tree, key: GroupKey, former: Former | None) -> set[object]:
    """The routes, certificates and checks, or records, that should lead to it."""
    if former is not None:
        then = document_of(former, desired, key)
        known = certified(then, certificates_of(desired, then.routes), then.certificates)
        return {*then.routes, *then.checks, *then.records, *known.certificates}
    return set(wanted_of(app, desired, *key) if app else ())


def _wanted(app: App | None) -> list[GroupKey]:
    if app is None:
        return []
    keys: list[GroupKey] = [("dns", group) for group in dns_groups(app)]
    keys += [("gateway", group) for group in gateway_groups(app)]
    return keys


def _ttl_s(app: App | None, mentioned: dict[GroupKey, Group], name: str, begun: Former | None) -> float:
    """The longest that a client may remember what DNS says of its endpoints, now or before this update began."""
    live = [item for group in mentioned.values() for item in group.settled.get(name, ())]
    live += [record for document in (begun.documents if begun else ()) for record in document.records]
    told = [item.ttl_s for item in live if isinstance(item, Record) and not item.to]
    return float(max(told or [one.ttl_s for one in (app.records if app else ()) if not one.to], default=0))


def _sort_endpoints(
    found: Standing, survey: Survey, key: GroupKey, endpoints: tuple[Endpoint, ...], wanted: bool
) -> None:
    found.live[key] = frozenset(endpoints)
    seen: set[str] = set()
    for endpoint in endpoints:
        container = survey.by_id.get(endpoint.container)
        if container is None:
            _sort_orphan(found, survey, key, endpoint)
            continue
        if container.id not in seen:
            seen.add(container.id)
            holder = container.id, key[0]
            found.holders[holder] = (*found.holders.get(holder, ()), key)
            if not wanted:
                found.misplaced.setdefault(key, []).append(slot_of(container))
        if endpoint not in found.endpoints(container, key[0]):
            found.outdated.add((key, container.id))


def _sort_orphan(found: Standing, survey: Survey, key: GroupKey, endpoint: Endpoint) -> None:
    if endpoint.node in survey.unknown:
        found.remote = True
        return
    slot = Slot(endpoint.app, endpoint.replica, 0, endpoint.node, endpoint.container)
    slots = found.stale.setdefault(key, [])
    if slot not in slots:
        slots.append(slot)
    found.homes.setdefault(endpoint.replica, endpoint.node)
