"""One app: what is kept, what is missing, what must be replaced, what is too much, what can't be known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from k4t.master.planning import causes
from k4t.master.planning.capacity import pin_of, pinned_ports
from k4t.master.planning.graph import NOT_STARTED, removal_of, stop_of
from k4t.master.planning.placement import Board, forbids
from k4t.master.planning.plan import SPEC, ResolvedImage
from k4t.master.planning.ranges import ADDRESSED, inside
from k4t.master.planning.refresh import RESTART, Renewal, differs, identity, renewal
from k4t.master.planning.specs import resources_label, secret_digests, spec_beside, spec_hash
from k4t.master.planning.standing import Standing
from k4t.master.planning.survey import Survey, replica_key
from k4t.model.app import App
from k4t.model.state import Container
from k4t.model.value import value

BEYOND_STARTING = ("dead", "removing")


@value
class Keep:
    """A container that stays. `action`: "" when it serves, else what brings it into service.

    `leftovers`: older or failed generations of the same replica, to go once this one serves.
    """

    container: Container
    action: str = ""
    cause: str = ""
    leftovers: tuple[Container, ...] = ()


@value
class Need:
    """A replica that wants a new container, in the place of `old` if there is one.

    `extra`: other generations, which go first, so that there are never three. `bound_to`: the node with its data. `to`:
    the node that it moves to, if it can. `may_stop`: where there is no second place, the old one stops first, whatever
    else is out of service.
    """

    replica: str
    cause: str
    generation: int
    old: Container | None = None
    extra: tuple[Container, ...] = ()
    bound_to: str = ""
    to: str = ""
    may_stop: bool = False


@dataclass(slots=True)
class Assessment:
    """`surplus`: containers that no replica wants, each with its cause. `unknown`: replicas that may exist on a node
    that doesn't answer ("" when it could be any of these). `doomed`: on a node that is declared dead.

    `held`: the wanted spec failed, older ones are what is to serve (goback). `paused`: so many replicas have the wanted
    spec, and the others wait (canary). `withheld`: replicas that get no container because of that. `others`: ids of
    containers that stay, and are of another spec than the wanted one.
    """

    name: str
    app: App
    image: ResolvedImage | None
    spec: str
    resources: str
    known: Mapping[str, str] = field(default_factory=dict)
    desired: int = 0
    keeps: list[Keep] = field(default_factory=list)
    needs: list[Need] = field(default_factory=list)
    surplus: list[tuple[Container, str]] = field(default_factory=list)
    doomed: list[Container] = field(default_factory=list)
    unknown: list[tuple[str, str]] = field(default_factory=list)
    held: bool = False
    paused: int | None = None
    withheld: list[str] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    may_restart: bool = False

    @property
    def left_over(self) -> str:
        """Why another generation of a replica goes, in words."""
        return "did not get healthy" if self.held else "was left by an unfinished update"

    def retiring(self, containers: Iterable[Container]) -> frozenset[str]:
        """Ids of those that are stopped when they are replaced, and kept until the whole update is complete."""
        return frozenset(c.id for c in containers if self.retires(c))

    def retires(self, container: Container) -> bool:
        kept = self.app.update.on_failure == "rollback" and not self.held
        return kept and self.differs(container) and container.state not in NOT_STARTED

    def retains(self, container: Container) -> bool:
        """Whether it is such a container, stopped by now."""
        kept = self.app.update.on_failure == "rollback" and not self.held
        return kept and self.differs(container) and container.state == "exited"

    @property
    def identity(self) -> str:
        """What is held, when it does not get healthy."""
        return identity(self.app, self.spec)

    def differs(self, container: Container) -> bool:
        """Whether it is of before the update."""
        return container.spec != self.spec or differs(self.app, container)

    def vacated(self, container: Container) -> str:
        """The id of the step after which its place is free for its successor."""
        return stop_of(container) if self.retires(container) else removal_of(container)

    @property
    def exclusive(self) -> bool:
        """Never two containers of one replica at a time."""
        return self.app.update.strategy == "recreate" or any(
            volume.binds_to_node and not volume.shared_writers for volume in self.app.volumes
        )

    @property
    def resizes(self) -> list[Container]:
        kept = [keep.container for keep in self.keeps if keep.container.running]
        mine = (container for container in kept if container.id not in self.others)
        return [container for container in mine if container.resources != self.resources]

    @property
    def refreshes(self) -> list[tuple[Container, Renewal]]:
        """Those whose files are changed while they run."""
        kept = [keep for keep in self.keeps if keep.container.running and keep.container.id not in self.others]
        found = ((keep, renewal(self.app, keep.container, may_restart=self.may_restart)) for keep in kept)
        return [
            (keep.container, lacks)
            for keep, lacks in found
            if lacks is not None and lacks.in_place and not (keep.action and RESTART in lacks.signals)
        ]

    @property
    def renewed(self) -> list[Container]:
        """Those that have the new content already, while others are still to be restarted for it: a run that was cut
        off may not have seen them healthy."""
        kept = (keep.container for keep in self.keeps if not keep.action and keep.container.running)
        return [one for one in kept if not differs(self.app, one)]

    @property
    def available(self) -> int:
        running = sum(keep.container.running or any(c.running for c in keep.leftovers) for keep in self.keeps)
        return running + sum(need.old is not None and need.old.running for need in self.needs)

    @property
    def idle(self) -> bool:
        """Nothing to create, start, publish or remove."""
        return not (self.needs or self.surplus or self.doomed) and not any(
            keep.action or keep.leftovers for keep in self.keeps
        )


def _references(survey: Survey) -> Mapping[str, str]:
    """What the head remembers, the other way round: a pinned container says only its digest."""
    return {digest: reference for reference, digest in survey.head.digests.items()} if survey.head else {}


def assess(app: App, image: ResolvedImage | None, board: Board, survey: Survey, standing: Standing) -> Assessment:
    spec = spec_hash(app, image.digest) if image else ""
    found = Assessment(app.name, app, image, spec, resources_label(app), _references(survey))
    seen = dict(survey.replicas(app.name))
    if survey.dead:
        seen = _without_dead(found, seen, survey)
    numbered = wanted(app, image, board, seen)
    found.desired = len(numbered)
    allowed = app.update.max_unavailable.of(found.desired, round_up=False)
    found.may_restart = not standing.groups and (allowed > 0 or app.update.strategy == "recreate")
    numbers = sum(1 for replica in seen if replica.isdigit())
    for replica in numbered:
        containers = seen.get(replica, ())
        if containers:
            _assess_replica(found, board, standing, containers)
        else:
            _assess_missing(found, board, survey, standing, replica=replica, seen_count=numbers)
    extra = sorted((replica for replica in seen if replica not in numbered), key=replica_key, reverse=True)
    for replica in extra:
        cause = _surplus_cause(app, image, board, replica, numbers)
        found.surplus += [(container, cause) for container in seen[replica]]
    return found


def _without_dead(
    found: Assessment, seen: Mapping[str, tuple[Container, ...]], survey: Survey
) -> dict[str, tuple[Container, ...]]:
    found.doomed += [c for containers in seen.values() for c in containers if c.node in survey.dead]
    alive = {r: tuple(c for c in containers if c.node not in survey.dead) for r, containers in seen.items()}
    return {replica: containers for replica, containers in alive.items() if containers}


def wanted(
    app: App, image: ResolvedImage | None, board: Board, seen: Mapping[str, tuple[Container, ...]]
) -> dict[str, None]:
    """The replicas there should be, in order: numbers, or the names of the nodes that may have one."""
    if app.replicas is not None:
        return {str(number): None for number in range(app.replicas)}
    nodes = [
        host.name
        for host in board.hosts.values()
        if not forbids(app, image, host)
        and (host.node.availability == "active" or (host.node.availability == "cordoned" and host.name in seen))
    ]
    return dict.fromkeys(nodes)


def _assess_replica(found: Assessment, board: Board, standing: Standing, containers: tuple[Container, ...]) -> None:
    reasons = {container.id: _unfit(found, board, container) for container in containers}
    order = sorted(containers, key=lambda c: _preference(standing, c, reasons[c.id]))
    main, rest = order[0], tuple(order[1:])
    serving = next((container for container in rest if container.running), None)
    if not main.running and serving is not None and (found.exclusive or _in_the_way(main, rest)):
        # It can't start beside the one that serves: that one's replacement begins anew, within the limits.
        others = tuple(container for container in order if container is not serving)
        _need(found, serving, others, reasons[serving.id], containers)
        return
    if reasons[main.id]:
        _need(found, main, rest, reasons[main.id], containers)
        return
    action, cause = into_service(main, standing)
    if action == "start" and main.state == "exited" and any(one.running for one in rest):
        cause = "is put back"
    if rest and not action:
        # The newer one may never have been healthy: asked before the older one goes.
        action, cause = "await", "was left by an unfinished update"
    found.keeps.append(Keep(main, action, cause, rest))


def _preference(standing: Standing, one: Container, reason: str) -> tuple[object, ...]:
    """The one that fits, else the one that serves: the newest, which may never have been healthy, comes after that."""
    lacking = bool(reason) and one.running and bool(standing.lacking(one))
    return (bool(reason), not one.running, lacking, -one.generation, one.node, one.id)


def _in_the_way(container: Container, others: Iterable[Container]) -> bool:
    """Whether one that runs listens where this one would."""
    mine = {(port.number, port.protocol) for port in container.ports}
    running = (one for one in others if one.running)
    beside = (one for one in running if (one.node, one.address) == (container.node, container.address))
    return any((port.number, port.protocol) in mine for one in beside for port in one.ports)


def _need(
    found: Assessment, old: Container, extra: tuple[Container, ...], cause: str, all_of_it: tuple[Container, ...]
) -> None:
    bound = old.node if any(volume.binds_to_node for volume in found.app.volumes) else ""
    generation = max(container.generation for container in all_of_it) + 1
    found.needs.append(Need(old.replica, cause, generation, old, extra, bound))


def into_service(container: Container, standing: Standing) -> tuple[str, str]:
    if container.state in ("exited", "created"):
        return "start", causes.of_state(container)
    if container.state == "restarting":
        return "await", "keeps restarting"
    if container.running and standing.wanted:
        lacking = standing.lacking(container)
        if lacking:
            return "await", "is not published in " + ", ".join(f"{kind} group {group}" for kind, group in lacking)
    return "", ""


def _spec_beside(found: Assessment, container: Container) -> str:
    """What the container's spec would have to be, where secrets can't be compared."""
    if found.image is None or not secret_digests(found.app):
        return found.spec
    return spec_beside(found.app, found.image.digest, dict(container.secrets))


def _unfit(found: Assessment, board: Board, container: Container) -> str:
    """Why this container can't be the one that is wanted, in words; "" when it can."""
    host = board.hosts[container.node]
    if host.node.availability == "drained":
        return f"{host.name} is drained"
    if container.spec != found.spec and container.spec != _spec_beside(found, container):
        return causes.of_spec(container, found.image, found.known, found.app) if found.image else SPEC
    if container.state in BEYOND_STARTING:
        return f"is {container.state}"
    lacks = renewal(found.app, container, may_restart=found.may_restart)
    if lacks is not None and not lacks.in_place:
        return lacks.cause
    forbidden = forbids(found.app, found.image, host)
    if forbidden:
        return f"{host.name}: {forbidden}"
    return _moved_away(found.app, board, container)


def _moved_away(app: App, board: Board, container: Container) -> str:
    """Of pins and of the node's own address, which a container is told when it is created."""
    node = board.hosts[container.node].node
    if app.network.mode in ("host", "bridge") and container.address not in ("", node.address, node.address6):
        return f"address of {node.name} {container.address} → {node.address}"
    if app.network.mode in ADDRESSED and node.pool is not None and not inside(node.pool, container.address):
        return f"address {container.address} is not in the subnet of {node.name}"
    pin = pin_of(app, container.replica) if app.placement.pins else None
    if pin is None:
        return ""
    if pin.node and pin.node != container.node:
        return f"pinned to {pin.node}"
    if pin.address and container.address and pin.address != container.address:
        return f"pinned address {container.address} → {pin.address}"
    bound = {port.name: port.number for port in container.ports}
    for name, number in pinned_ports(app, pin).items():
        if bound.get(name) not in (None, number):
            return f"pinned port {bound[name]} → {number}"
    return ""


def _assess_missing(
    found: Assessment, board: Board, survey: Survey, standing: Standing, *, replica: str, seen_count: int
) -> None:
    if survey.unknown:
        somewhere = _perhaps_on(found, board, survey, replica)
        if somewhere is not None:
            found.unknown.append((replica, somewhere))
            return
    holds_data = any(volume.binds_to_node for volume in found.app.volumes)
    bound = standing.homes.get(replica, "") if holds_data else ""
    lost = tuple(container for container in found.doomed if container.replica == replica)
    if lost:
        generation = max(container.generation for container in lost) + 1
        extra = lost if found.exclusive else ()
        bound = lost[0].node if holds_data else ""
        found.needs.append(Need(replica, f"{lost[0].node} is dead", generation, None, extra, bound))
        return
    cause = _missing_cause(found.app, survey, standing, replica, seen_count)
    if holds_data and not bound and survey.dead and not (survey.head and survey.never_applied(found.name)):
        # Nothing says where its data are: on the node that can't be asked, for all that is known.
        bound = ", ".join(sorted(survey.dead))
        cause = f"{bound} {'is' if len(survey.dead) == 1 else 'are'} dead"
    found.needs.append(Need(replica, cause, 1, bound_to=bound))


def _perhaps_on(found: Assessment, board: Board, survey: Survey, replica: str) -> str | None:
    """The unreachable node that may hold this unseen replica ("" for any of them); None when it can't be on one."""
    app = found.app
    known = survey.elsewhere.get((app.name, replica))
    if known is not None:
        return known
    if app.per_node:
        return replica if replica in survey.unknown else None
    # Without a head nothing is sure: for data that is not enough, since this may be the first sight of an old cluster.
    if survey.never_applied(app.name) and not (found.exclusive and survey.head is None):
        return None
    if not any(not forbids(app, found.image, board.hosts[name]) for name in survey.unknown):
        return None
    # What serves is in some document: a replica that none names isn't running there (or not yet, and is tidied up
    # later). Where that could mean two at once on the same data, only knowing will do.
    if survey.publishing(app.name) and not found.exclusive:
        return None
    return ""


def _missing_cause(app: App, survey: Survey, standing: Standing, replica: str, seen_count: int) -> str:
    if replica in standing.homes:
        home = standing.homes[replica]
        return f"{home} is dead" if home in survey.dead else "container was removed"
    if not survey.replicas(app.name):
        return "new app" if not survey.publishing(app.name) else "no container"
    if app.replicas is None:
        return f"no container on {replica}"
    if int(replica) >= seen_count:
        return causes.of_count(seen_count, app.replicas)
    return "container was removed"


def _surplus_cause(app: App, image: ResolvedImage | None, board: Board, replica: str, seen_count: int) -> str:
    if app.replicas is not None:
        if not replica.isdigit():
            return "replicas are numbered now"
        before = max(seen_count, int(replica) + 1)  # others may be on a node that can't be asked
        return causes.of_count(before, app.replicas)
    host = board.hosts.get(replica)
    if host is None:
        return "one on each node now"
    if host.node.availability != "active":
        return f"{replica} is {host.node.availability}"
    return f"{replica}: {forbids(app, image, host)}"
