"""The graph of steps while it grows: ids, fetches that are shared, the order of one app's waves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from k4t.master.planning.capacity import pin_of, pinned_ports
from k4t.master.planning.plan import (
    Action,
    Await,
    Create,
    Fetch,
    Pause,
    Publish,
    Refresh,
    Resize,
    ResolvedImage,
    Slot,
    Step,
    Target,
    Work,
)
from k4t.master.planning.refresh import RESTART, Renewal
from k4t.master.planning.standing import GroupKey, Standing
from k4t.master.planning.survey import label_of, slot_of
from k4t.model.app import App
from k4t.model.participant import Kind
from k4t.model.state import Container, container_name
from k4t.model.value import value
from k4t.registrar.document import Document

NOT_STARTED = ("exited", "created", "dead", "removing")
NOTHING: Mapping[str, str] = {}
KINDS: tuple[Kind, ...] = ("gateway", "dns")
UNSETTLED: Mapping[Kind, str] = {"gateway": "routes or checks changed", "dns": "records changed"}


@value
class Entry:
    """What comes into service: a new container (`container` is None), or one that exists. `after`: what its create
    (or start) waits for by itself; `start_after`: what only its start waits for."""

    slot: Slot
    cause: str
    container: Container | None = None
    action: str = "create"
    after: tuple[str, ...] = ()
    start_after: tuple[str, ...] = ()
    instead_of: tuple[str, ...] = ()


@value
class Recipe:
    """What new containers of an app are made from. An app gone from the tree is not `present`, and has defaults."""

    app: App
    image: ResolvedImage
    spec: str = ""
    resources: str = ""
    present: bool = True


@dataclass(slots=True)
class Wave:
    """`bring` comes into service, then `out` goes. `flush`: `out` is gone before the next wave begins; else its last
    publication is shared with the next wave's first. `remove` False: stopped, and kept. `retire`: ids of containers
    that are stopped, and removed when all waves are done: until then they can be put back. `number`: given by `run`."""

    bring: Sequence[Entry] = ()
    out: Sequence[Container] = ()
    cause: str = ""
    flush: bool = False
    remove: bool = True
    retire: frozenset[str] = frozenset()
    number: int = 0


def removal_of(container: Container) -> str:
    """The id of the step after which nothing of the container is left."""
    return f"remove:{label_of(container)}"


def stop_of(container: Container) -> str:
    """The id of the step after which it does not run."""
    return f"stop:{label_of(container)}"


class Graph:
    """All steps of a plan, in an order in which they could be done one by one."""

    def __init__(self, cluster: str, serial: int) -> None:
        self.cluster, self.serial = cluster, serial
        self.steps: dict[str, Step] = {}
        self.heals: dict[GroupKey, str] = {}

    def add(
        self,
        id: str,
        action: Action,
        cause: str,
        work: Work,
        *,
        slot: Slot | None = None,
        app: str = "",
        node: str = "",
        after: Iterable[str] = (),
        awaits: Iterable[str] = (),
    ) -> str:
        if slot is not None:
            step = Step(id, action, cause, work, slot.node, slot.app, slot.replica, tuple(after), tuple(awaits))
        else:
            step = Step(id, action, cause, work, node, app, "", tuple(after), tuple(awaits))
        self.steps[id] = step
        return id

    def fetch(self, app: App, image: ResolvedImage, node: str, cause: str) -> str:
        """One for each image and node, whichever apps want it."""
        action: Action = "load" if app.image.archive else "pull"
        id = f"{action}:{image.reference}@{node}"
        known = self.steps.get(id)
        if known is not None and isinstance(known.work, Fetch) and known.work.image.digest != image.digest:
            id = f"{action}:{image.reference}#{app.name}@{node}"
        if id not in self.steps:
            work = Fetch(image, app.name, app.image.archive, app.image.pull)
            self.add(id, action, cause, work, app=app.name, node=node)
        return id


class Track:
    """The steps of one app: what comes in, what is published where, what goes."""

    def __init__(
        self, graph: Graph, recipe: Recipe, standing: Standing, former: Mapping[GroupKey, Document] | None = None
    ) -> None:
        """`former`: what is put back to how it was then, instead of to what the tree says."""
        self.graph, self.recipe, self.standing = graph, recipe, standing
        self.name = recipe.app.name
        self.numbers: dict[GroupKey, int] = {}
        self.waves = 0
        self.taken_out: set[tuple[GroupKey, Slot]] = set()
        # Where some of a removed app's endpoints must stay, what leads to them stays too.
        self.unsettled = set(standing.unsettled) if recipe.present or not standing.remote else set()
        self.former = former
        if former is not None:
            self.unsettled = set(former)
        self.retired: list[tuple[Container, str]] = []
        self.targets: dict[str, Target] = {}

    def clear_stale(self) -> None:
        """Dead endpoints go at once, and wait for nobody."""
        for key, slots in sorted(self.standing.stale.items()):
            cause = "container is gone"
            self._publish_one(key, (), slots, cause=cause, settle=not self.standing.misplaced.get(key))

    def run(self, waves: Sequence[Wave], after: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Returns what must have succeeded before anything that relies on all of it."""
        gate = after
        held: Wave | None = None
        held_after: tuple[str, ...] = ()
        for place, wave in enumerate(waves):
            self.waves += 1
            wave.number = self.waves
            awaits = tuple(self.bring(entry, gate) for entry in wave.bring)
            removed, ready = (held.out, held_after) if held else ((), ())
            added = self._publish("gateway", wave.bring, removed, after=ready, awaits=awaits, cause=wave.cause)
            if held:
                self._dispose(held, added or ready)
            earlier = () if wave.bring else gate
            named = self._publish(
                "dns", wave.bring, wave.out, after=earlier, awaits=(*added, *awaits), cause=wave.cause
            )
            gate = named or added or awaits or gate
            held = None
            if wave.out:
                held, held_after = wave, self._wait(wave, gate)
            if held and (wave.flush or place == len(waves) - 1 or not self._in_gateway(wave.out)):
                gone = self._publish("gateway", (), wave.out, after=held_after, cause=wave.cause)
                alone = awaits if awaits and (gone or held_after) == awaits else ()
                served = {entry.slot.replica: id for entry, id in zip(wave.bring, alone, strict=False)}
                self._dispose(wave, gone or held_after, served)
                held = None
        return gate

    def settle(self, after: tuple[str, ...]) -> None:
        """What no other publication has carried: routes, checks and records, and places it no longer belongs to."""
        for key in sorted({*self.unsettled, *self.standing.misplaced}):
            cause = self.standing.renewed.get(key) or UNSETTLED[key[0]]
            slots = [slot for slot in self.standing.misplaced.get(key, []) if (key, slot) not in self.taken_out]
            if not slots and key not in self.unsettled:
                continue
            self._publish_one(key, (), slots, after=after, cause="is published elsewhere now" if slots else cause)

    def bring(self, entry: Entry, gate: tuple[str, ...]) -> str:
        """The id of the step that says it serves."""
        if entry.container is None:
            ready: tuple[str, ...] = (self._create(entry, gate), *entry.start_after)
            target = Target(self._name(entry.slot), entry.slot, "", self.recipe.spec, self.recipe.app.stop.grace_s)
            ready = (self._step("start", entry, target, ready),)
        elif entry.action == "start":
            target = self._target(entry.container)
            ready = (self._step("start", entry, target, (*gate, *entry.after, *entry.start_after)),)
        else:
            ready = (*gate, *entry.after)
        name = entry.container.name if entry.container else self._name(entry.slot)
        work = Await(name, entry.slot, self.recipe.app, self.recipe.app.update.timeout_s)
        return self._step("await", entry, work, ready)

    def retire(self, kept: Iterable[Container], after: tuple[str, ...], cause: str) -> None:
        """Remove what was kept to be put back. `kept`: what an earlier run has stopped."""
        for container, why in [*self.retired, *((one, cause) for one in kept)]:
            target = self._target(container)
            stopped = (stop_of(container),) if container.state not in NOT_STARTED else ()
            self.graph.add(removal_of(container), "remove", why, target, slot=target.slot, after=(*stopped, *after))

    def resize(self, container: Container) -> None:
        slot = slot_of(container)
        work = Resize(container.name, slot, container.id, self.recipe.app, self.recipe.resources)
        self.graph.add(f"resize:{slot.label}", "resize", "resources changed", work, slot=slot)

    def refresh(self, container: Container, lacks: Renewal, after: tuple[str, ...]) -> tuple[str, ...]:
        """Returns what the next restart waits for: they come one at a time, each healthy before the next."""
        slot, app = slot_of(container), self.recipe.app
        work = Refresh(container.name, slot, container.id, app, lacks.targets, lacks.files, lacks.signals)
        id = self.graph.add(f"refresh:{slot.label}", "refresh", lacks.cause, work, slot=slot, after=after)
        if lacks.signals != (RESTART,):
            return after
        return (self.confirm(container, lacks.cause, (id,)),)

    def confirm(self, container: Container, cause: str, after: tuple[str, ...] = ()) -> str:
        """The id of the step that says it is healthy."""
        slot = slot_of(container)
        healthy = Await(container.name, slot, self.recipe.app, self.recipe.app.update.timeout_s)
        return self.graph.add(f"await:{slot.label}", "await", cause, healthy, slot=slot, after=after)

    def _create(self, entry: Entry, gate: tuple[str, ...]) -> str:
        app, image, slot = self.recipe.app, self.recipe.image, entry.slot
        pin = pin_of(app, slot.replica) if app.placement.pins else None
        work = Create(
            name=self._name(slot),
            app=app,
            slot=slot,
            image=image,
            revision=self.graph.serial,
            spec=self.recipe.spec,
            resources=self.recipe.resources,
            address=pin.address if pin else "",
            ports=pinned_ports(app, pin),
            instead_of=entry.instead_of,
        )
        fetch = self.graph.fetch(app, image, slot.node, entry.cause)
        return self._step("create", entry, work, (fetch, *gate, *entry.after))

    def _step(self, action: Action, entry: Entry, work: Work, after: tuple[str, ...]) -> str:
        return self.graph.add(
            f"{action}:{entry.slot.label}", action, entry.cause, work, slot=entry.slot, after=dict.fromkeys(after)
        )

    def _name(self, slot: Slot) -> str:
        return container_name(self.graph.cluster, slot.app, slot.replica, slot.generation)

    def _target(self, container: Container) -> Target:
        """Made once: a container is taken out of several groups, stopped and removed."""
        found = self.targets.get(container.id)
        if found is None:
            grace_s = self.recipe.app.stop.grace_s
            found = Target(container.name, slot_of(container), container.id, container.spec, grace_s)
            self.targets[container.id] = found
        return found

    def _in_gateway(self, containers: Iterable[Container]) -> bool:
        return any(self.standing.holding(container, "gateway") for container in containers)

    def _sent_to(self, containers: Iterable[Container]) -> bool:
        return any(self.standing.sent_to(one, kind) for one in containers for kind in KINDS)

    def _wait(self, wave: Wave, gate: tuple[str, ...]) -> tuple[str, ...]:
        """One TTL, when somebody may still have learnt a container's address from DNS."""
        if self.standing.ttl_s <= 0 or not any(self.standing.sent_to(c, "dns") for c in wave.out):
            return gate
        id = f"wait:{self.name}#{wave.number}"
        work = Pause(self.standing.ttl_s)
        return (self.graph.add(id, "wait", wave.cause, work, app=self.name, after=gate),)

    def _dispose(self, wave: Wave, after: tuple[str, ...], served: Mapping[str, str] = NOTHING) -> None:
        """Drain, stop, remove. `served` (where nothing is published): by replica, the step that says its new container
        serves; its old one need not wait for the others."""
        drain_s = self.recipe.app.update.drain_s
        lagging = sorted({key for c in wave.out if c.running for key in self.standing.lagging.get(c.id, ())})
        if lagging:
            after, served = (*after, *(self.graph.heals[key] for key in lagging if key in self.graph.heals)), NOTHING
        if drain_s > 0 and (lagging or self._sent_to(wave.out)):
            served, id = NOTHING, f"drain:{self.name}#{wave.number}"
            after = (self.graph.add(id, "drain", wave.cause, Pause(drain_s), app=self.name, after=after),)
        for container in wave.out:
            target = self._target(container)
            slot = target.slot
            last = (served[slot.replica],) if slot.replica in served else after
            if container.state not in NOT_STARTED:
                last = (self.graph.add(stop_of(container), "stop", wave.cause, target, slot=slot, after=last),)
            if container.id in wave.retire:
                self.retired.append((container, wave.cause))
            elif wave.remove:
                self.graph.add(removal_of(container), "remove", wave.cause, target, slot=slot, after=last)

    def _publish(
        self,
        kind: Kind,
        bring: Sequence[Entry],
        out: Sequence[Container],
        *,
        after: tuple[str, ...] = (),
        awaits: tuple[str, ...] = (),
        cause: str,
    ) -> tuple[str, ...]:
        """One publication for each group that has something to add or to take out."""
        done = []
        for key in self.standing.groups:
            if key[0] != kind:
                continue
            adds = [entry.slot for entry in bring if self._belongs(entry, key)]
            removes = [self._target(one).slot for one in out if key in self.standing.holding(one, kind)]
            if adds or removes:
                waits = awaits if adds or kind == "dns" else ()
                done.append(self._publish_one(key, adds, removes, after=after, awaits=waits, cause=cause))
        return tuple(done)

    def _belongs(self, entry: Entry, key: GroupKey) -> bool:
        if entry.container is None:
            return key in self.standing.wanted
        return key in self.standing.lacking(entry.container)

    def _publish_one(
        self,
        key: GroupKey,
        adds: Sequence[Slot],
        removes: Sequence[Slot],
        *,
        after: tuple[str, ...] = (),
        awaits: tuple[str, ...] = (),
        cause: str,
        settle: bool = True,
    ) -> str:
        kind, group = key
        self.numbers[key] = self.numbers.get(key, 0) + 1
        if self.standing.misplaced:
            self.taken_out.update((key, slot) for slot in removes)
        settled: tuple[str, ...] = ()
        if settle and key in self.unsettled:
            self.unsettled.discard(key)
            settled = (self.name,)
        former = self.former.get(key) if self.former is not None and settled else None
        heal = self.graph.heals.get(key)
        id = f"publish:{kind}/{group}:{self.name}#{self.numbers[key]}"
        work = Publish(kind, group, tuple(adds), tuple(removes), settled)
        if former is not None:
            work = Publish(kind, group, tuple(adds), tuple(removes), restore=settled, former=former)
        after = (*after, heal) if heal else after
        return self.graph.add(id, "publish", cause, work, app=self.name, after=after, awaits=awaits)
