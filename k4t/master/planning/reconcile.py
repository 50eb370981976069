"""From what should be and what is to a plan. Pure: same input, same plan, byte for byte.

`reconcile` goes through the apps in order of dependency. For each it asks what is kept and what is wanted (assess),
finds places (placement), puts the changes into waves (update), and writes them down as steps (graph).
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Collection, Iterable, Mapping

from k4t.master.planning import jobs, sizes
from k4t.master.planning.assess import Assessment, assess
from k4t.master.planning.capacity import Demand, Freed
from k4t.master.planning.closed import ANSWERED, closed_groups, silent_member
from k4t.master.planning.dependencies import in_order
from k4t.master.planning.endpoints import settled_by_app
from k4t.master.planning.former import document_of, of_app, of_then
from k4t.master.planning.graph import NOT_STARTED, Graph, Recipe, Track, Wave, removal_of
from k4t.master.planning.hold import held_spec, hold, is_held, pause
from k4t.master.planning.placement import Board, Picker
from k4t.master.planning.plan import Options, Plan, Publish, ResolvedImage, Unschedulable
from k4t.master.planning.refresh import RESTART
from k4t.master.planning.renew import rebalance, recycle, restart
from k4t.master.planning.safety import unsafe_changes
from k4t.master.planning.serials import newest, next_serial
from k4t.master.planning.standing import GroupKey, Standing, standing
from k4t.master.planning.survey import Group, replica_key, survey
from k4t.master.planning.unprobed import unprobed
from k4t.master.planning.update import Arranged, arrange, early
from k4t.model.app import App
from k4t.model.spec import Tree
from k4t.model.state import Container, Former, Observed
from k4t.registrar.document import Document

NO_OPTIONS = Options()
NO_IMAGE = ResolvedImage("", "")


def reconcile(
    desired: Tree,
    observed: Observed,
    *,
    images: Mapping[str, ResolvedImage],
    scope: Collection[str] | None = None,
    options: Options = NO_OPTIONS,
) -> Plan:
    """`images`: of every app in scope that may get a container. `scope`: the apps it is about; None is all of them,
    and then what the tree no longer has is removed."""
    collecting = gc.isenabled()
    # A plan is many small values and no cycle: looking for garbage among them takes a third of the time.
    gc.disable()
    try:
        counted = sizes.sized(desired, observed, newest(observed.heads), options.sizes)
        return _Run(counted, observed, images, scope, options).plan()
    finally:
        if collecting:
            gc.enable()


class _Run:
    def __init__(
        self,
        desired: Tree,
        observed: Observed,
        images: Mapping[str, ResolvedImage],
        scope: Collection[str] | None,
        options: Options,
    ) -> None:
        self.desired, self.observed, self.images, self.options = desired, observed, images, options
        self.partial = None if scope is None else frozenset(scope)
        self.survey = survey(desired, observed)
        self.board = Board(desired, observed, self.survey)
        self.graph = Graph(desired.cluster.name, next_serial(self.survey.head))
        runs = jobs.runs_of(observed)
        self.scene = jobs.Scene(desired, self.survey, self.board, self.graph, images, runs)
        if options.without:
            self.partial = frozenset(self._scope()) - options.without
        self.apps = in_order(desired, self._scope())
        self.standings = {name: standing(desired, self.survey, name) for name in self.apps}
        self.closed = closed_groups(desired, self.survey, options)
        self.unschedulable: list[Unschedulable] = []
        self.not_done: list[str] = []
        self.refused: dict[str, list[str]] = {}
        self.warnings = [*desired.no_effect, *unprobed(desired, observed, self.apps)]
        self.abandoned: list[tuple[str, str, str]] = []
        self.unknown: dict[str, list[str]] = {}
        self.awaits: dict[str, tuple[str, ...]] = {}
        self.specs: dict[str, str] = {}
        self.held: dict[str, str] = {}
        self.paused: dict[str, str] = {}
        self.formers: dict[str, Former] = {}

    def plan(self) -> Plan:
        self._heal()
        found = {name: self._assess(self.desired.apps[name]) for name in self.apps if name in self.desired.apps}
        for name in self.apps:
            if name not in found:
                self._remove_app(name)
        if self.options.rebalance:
            rebalance(found.values(), self.board)
        kept = {name: one for name, one in found.items() if self._may_publish(one)}
        tracks = {name: self._begin(one) for name, one in kept.items()}
        for name, one in kept.items():
            self._continue(one, tracks[name])
        self._say_unreachable()
        steps = tuple(self.graph.steps.values())
        unsafe = unsafe_changes(
            self.desired,
            self.survey,
            self.options,
            steps=steps,
            standings=self.standings,
            abandoned=self.abandoned,
            apps=self.partial,
        )
        return Plan(
            cluster=self.desired.cluster.name,
            tree=self.desired.sha256,
            serial=self.graph.serial if steps else self.graph.serial - 1,
            steps=steps,
            unsafe=unsafe,
            unschedulable=tuple(self.unschedulable),
            warnings=tuple(self.warnings),
            scope=tuple(sorted(self.apps)),
            whole=self.partial is None,
            not_done=tuple(self.not_done),
            specs=self.specs,
            held=self.held,
            paused=self.paused,
            refused=tuple(_refusal(names, reason) for reason, names in self.refused.items()),
            sizes=sizes.told(self.desired, self.observed, self.survey.head, self.options.sizes, self.apps),
        )

    def _scope(self) -> Iterable[str]:
        if self.partial is not None:
            return self.partial
        published = {app for group in self.survey.groups.values() for app in (*group.endpoints, *group.settled)}
        return {*self.desired.apps, *self.survey.containers, *published, *(run.app for run in self.scene.runs)}

    def _heal(self) -> None:
        """A member that doesn't hold or serve what its group should gets it before anything else."""
        touched = {key for standing in self.standings.values() for key in standing.groups}
        for key, group in self.survey.groups.items():
            if key in self.closed or (self.partial is not None and key not in touched):
                continue
            troubles = group.troubles()
            if troubles:
                kind, name = key
                work = Publish(kind, name)
                cause = "; ".join(troubles)
                self.graph.heals[key] = self.graph.add(f"publish:{kind}/{name}:heal", "publish", cause, work)

    def _assess(self, app: App) -> Assessment:
        place = self.standings[app.name]
        found = assess(app, self.images.get(app.name), self.board, self.survey, place)
        spec = held_spec(app.name, self.survey.head, self.options)
        if is_held(found, spec):
            place = self._as_it_was(app.name, spec)
            hold(found, place)
        self._count_once(found)
        pause(found, place, self.survey.head, self.options)
        self._say_waiting(found)
        if why := recycle(found, self.options):
            self.not_done.append(why)
        if self.options.restart:
            self.not_done += restart(found, self.options)
        return found

    def _count_once(self, found: Assessment) -> None:
        """What is stopped and kept takes its ports, and nothing else."""
        for one in (one for keep in found.keeps for one in keep.leftovers if found.retains(one)):
            taken = self.board.demand_of(one)
            self.board.hosts[one.node].give_back(one.app, Demand(taken.cpus, taken.memory_bytes))

    def _say_waiting(self, found: Assessment) -> None:
        name = found.name
        if found.spec:
            self.specs[name] = found.identity
        if found.held:
            self.held[name] = found.identity
            head = self.survey.head
            serial = head.held_at.get(name) if head and name not in self.options.failed else None
            when = f"at serial {serial}" if serial else "in this run"
            said = f"{name} is held: spec {found.spec[:11]}… did not get healthy {when}; change it, or --retry"
            more = f" ({_few([f'{name}.{one}' for one in found.withheld])} can't be put back)" if found.withheld else ""
            self.not_done.append(said + more)
        elif found.paused is not None:
            self.paused[name] = found.identity
            self.not_done.append(f"{name} is paused after {found.paused} of {found.desired}; k4t continue {name}")

    def _may_publish(self, found: Assessment) -> bool:
        """Not when a group that it needs can't be written to; dead endpoints are taken out all the same."""
        place = self.standings[found.name]
        for replica, node in found.unknown:
            self.unknown.setdefault(node, []).append(f"{found.name}.{replica}")
        barred = [key for key in place.groups if key in self.closed]
        if not found.app.stopped and found.image is None and (found.needs or not found.idle):
            self.not_done.append(
                f"{found.name} is left as it is: its image {found.app.image.reference} is not resolved"
            )
            return False
        if not barred and found.exclusive and any(need.old is not None and need.old.running for need in found.needs):
            return self._may_leave_first(found.name)
        if not barred or (self._settled(found) and not (place.unsettled or place.misplaced)):
            return True
        self._refuse(found.name, barred)
        if place.stale:
            self._track(found).clear_stale()
        return False

    def _may_leave_first(self, name: str) -> bool:
        """Whether what runs can be stopped before its successor comes. Where not, taking it out of the members that
        answer would be capacity lost until the other one is back."""
        silent = silent_member(self.survey, self.standings[name].groups)
        if silent:
            reason = f"{silent}, and may still send to what would have to stop first"
            self.refused.setdefault(reason, []).append(name)
        return not silent

    def _refuse(self, name: str, barred: Iterable[GroupKey]) -> None:
        for key in barred:
            self.refused.setdefault(self.closed[key], []).append(name)

    def _settled(self, found: Assessment) -> bool:
        if found.app.stopped:
            return not any(keep.container.running for keep in found.keeps) and not found.surplus
        return found.idle

    def _track(self, found: Assessment) -> Track:
        image = found.image or ResolvedImage(found.app.image.reference, "")
        former, place = self.formers.get(found.name), self.standings[found.name]
        app = of_then(found.app, former) if former else found.app
        back: dict[GroupKey, Document] | None = None
        if found.held:
            back = {key: document_of(former, self.desired, key) for key in place.unsettled} if former else {}
        return Track(self.graph, Recipe(app, image, found.spec, found.resources), place, back)

    def _as_it_was(self, name: str, spec: str) -> Standing:
        """A held spec's routes, checks and records go with it, where it is known what was before."""
        head = self.survey.head
        former = head.former.get(name) if head else None
        if former is None or former.spec != spec:
            if not self.options.former:
                self.standings[name].sending = frozenset()
                return self.standings[name]
            live = self.options.former.values()
            former = Former(spec, tuple(of_app(one, name) for one in live if name in settled_by_app(one)))
        self.formers[name] = former
        self.standings[name] = standing(self.desired, self.survey, name, former)
        return self.standings[name]

    def _remove_app(self, name: str) -> None:
        """DNS first, a TTL later the gateways, then it is drained (as the cluster's defaults have it), stopped and
        removed."""
        jobs.drop(self.scene, name, {})
        place = self.standings[name]
        barred = [key for key in place.groups if key in self.closed]
        app = dataclasses.replace(self.desired.gone, name=name)
        track = Track(self.graph, Recipe(app, NO_IMAGE, present=False), place)
        if barred:
            self._refuse(name, barred)
            track.clear_stale()
            return
        containers = _ordered(c for replica in self.survey.replicas(name).values() for c in replica)
        self._release(containers)
        cause = "is gone from the tree"
        track.clear_stale()
        track.run([Wave((), containers, cause, flush=True)] if containers else [])
        track.settle(())
        if place.remote:
            for node in sorted({n for (app, _), n in self.survey.elsewhere.items() if app == name}):
                self.unknown.setdefault(node, []).append(name)

    def _begin(self, found: Assessment) -> Track:
        """Dead endpoints, and what goes before anything comes."""
        track = self._track(found)
        track.clear_stale()
        if found.app.stopped:
            self._stop(found, track)
            return track
        gone: dict[str, list[Container]] = {}
        for container, cause in early(found):
            gone.setdefault(cause, []).append(container)
        for cause, containers in gone.items():
            self._release(containers)
            track.run([Wave((), _ordered(containers), cause, flush=True)])
        return track

    def _stop(self, found: Assessment, track: Track) -> None:
        mine = [keep.container for keep in found.keeps] + [need.old for need in found.needs if need.old]
        mine += [c for keep in found.keeps for c in keep.leftovers] + [c for n in found.needs for c in n.extra]
        running = _ordered(container for container in mine if container.state not in NOT_STARTED)
        if running:
            track.run([Wave((), running, "is stopped", flush=True, remove=False)])
        surplus = _ordered(container for container, _ in found.surplus)
        if surplus:
            track.run([Wave((), surplus, found.surplus[0][1], flush=True)])
        track.settle(())

    def _continue(self, found: Assessment, track: Track) -> None:
        if found.app.stopped:
            self.not_done += jobs.timers(self.scene, found, ())
            return
        for container in found.resizes:
            track.resize(container)
        refreshes, restarted = found.refreshes, tuple[str, ...]()
        if any(RESTART in lacks.signals for _, lacks in refreshes):
            restarted = tuple(track.confirm(one, refreshes[0][1].cause) for one in found.renewed)
        for container, lacks in refreshes:
            restarted = track.refresh(container, lacks, restarted)
        paused = [keep.container for keep in found.keeps if keep.container.state == "paused"]
        self.warnings += [f"{one.name} on {one.node} is paused, and left so" for one in paused]
        ill = [keep.container for keep in found.keeps if keep.container.health in ("starting", "unhealthy")]
        self.warnings += [f"{one.name} on {one.node} is not healthy: its check says {one.health}" for one in ill]
        gate: tuple[str, ...] = ()
        if found.needs or any(keep.action for keep in found.keeps) or found.surplus:
            changed = self._change(found, track)
            if changed is None:
                return
            gate = changed
        track.settle(gate)
        if not found.held and found.paused is None:
            self.not_done += jobs.timers(self.scene, found, gate)

    def _change(self, found: Assessment, track: Track) -> tuple[str, ...] | None:
        """What relies on all of it comes after these; None: it can't begin now."""
        image = found.image or ResolvedImage(found.app.image.reference, "")
        picker = Picker(self.board, found.app, image)
        needed = () if found.held else found.app.depends
        waits = tuple(id for name in needed for id in self.awaits.get(name, ()))
        arranged = arrange(found, self.board, picker, start_after=waits)
        picker.close()
        if any(_leaves_first(wave) for wave in arranged.waves) and not self._may_leave_first(found.name):
            return None
        due, obstacle = jobs.before_update(self.scene, found, arranged.waves, waits)
        if obstacle:
            self.not_done.append(obstacle)
            return None
        self._collect(found, arranged)
        changing = any(need.old is not None for need in found.needs)
        gate = track.run(arranged.waves, (*due, *waits) if changing else due)
        if found.paused is None and not self._goes_on(found):
            track.retire(arranged.retire, gate, found.left_over)
        self.awaits[found.name] = tuple(f"await:{entry.slot.label}" for wave in arranged.waves for entry in wave.bring)
        return gate

    def _goes_on(self, found: Assessment) -> bool:
        """Whether this run comes back to it: replicas may be on a node that is late. Until then it can be put back."""
        late = {name for name, state in self.observed.nodes.items() if state.late}
        return bool(late) and any(not node or node in late for _, node in found.unknown)

    def _collect(self, found: Assessment, arranged: Arranged) -> None:
        self.abandoned += [(found.name, replica, node) for replica, node in arranged.abandoned]
        if found.app.replicas is not None and any(volume.binds_to_node for volume in found.app.volumes):
            self.abandoned += sorted({(found.name, one.replica, one.node) for one, _ in found.surplus})
        self.not_done += arranged.not_done
        if self.survey.unknown:
            for one in arranged.unschedulable:
                self.not_done.append(f"{one.app}.{one.replica} finds no place: {'; '.join(one.reasons)}")
        else:
            self.unschedulable += arranged.unschedulable

    def _release(self, containers: Iterable[Container]) -> None:
        for container in containers:
            host = self.board.hosts[container.node]
            given = self.board.demand_of(container)
            freed = Freed(container.app, given, removal_of(container), name=container.name)
            host.give_back(container.app, freed.demand, freed)

    def _say_unreachable(self) -> None:
        for node in sorted(self.survey.unknown):
            state = self.observed.nodes.get(node)
            problem = (state.problem if state else "") or "it was not asked"
            replicas = self.unknown.get(node, [])
            said = f"{node} {problem}" if state and state.late else f"{node} is unreachable ({problem})"
            if replicas:
                self.not_done.append(f"{said}: {_few(replicas)} stays as it is")
            else:
                self.warnings.append(said)
        for key, group in self.survey.groups.items():
            if self.closed.get(key) not in self.refused:
                self._say_away(key, group)
        if self.unknown.get(""):
            nodes = ", ".join(sorted(self.survey.unknown))
            self.not_done.append(f"{_few(self.unknown[''])} is not seen and may be on {nodes}, unreachable")

    def _say_away(self, key: GroupKey, group: Group) -> None:
        """Nothing is to be done for them as far as is known; but that they serve what they should isn't known."""
        needed = any(key in place.groups for place in self.standings.values())
        for one in group.away:
            what = "can't be used" if one.exit_status in ANSWERED else "is unreachable"
            said = f"{key[0]} {one.name} {what} ({one.problem})"
            if needed:
                self.not_done.append(f"{said}: whether it serves what it should is not known")
            else:
                self.warnings.append(said)


def _refusal(names: list[str], reason: str) -> str:
    return f"{', '.join(names)} {'is left as it is' if len(names) == 1 else 'are left as they are'}: {reason}"


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _leaves_first(wave: Wave) -> bool:
    """Something that serves is gone before its successor comes."""
    return wave.flush and not wave.bring and any(one.running for one in wave.out)


def _ordered(containers: Iterable[Container]) -> list[Container]:
    """Highest replica first."""
    return sorted(containers, key=lambda c: (replica_key(c.replica), c.generation, c.node, c.id), reverse=True)
