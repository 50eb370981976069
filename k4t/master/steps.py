"""One step is one external call. Each re-checks its precondition where it acts, and can be done twice."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from pathlib import Path

from k4t import failpoints
from k4t.errors import Interrupted, Partial, StepError
from k4t.master import jobs
from k4t.master.fleet import Fleet
from k4t.master.planning import endpoints
from k4t.master.planning.plan import (
    Await,
    Create,
    DropJob,
    Fetch,
    Pause,
    Publish,
    Refresh,
    Resize,
    RunJob,
    Slot,
    Step,
    Target,
)
from k4t.master.planning.ranges import pinned_addresses
from k4t.master.planning.specs import own_files, secret_digests
from k4t.master.publication.publish import Publisher
from k4t.master.vantage import vantage
from k4t.master.vault import Vault
from k4t.model.events import Emit, StepProgress
from k4t.model.spec import Tree
from k4t.model.state import Container, Observed
from k4t.node import create, files, health, images, lifecycle, refresh
from k4t.node.allocator import Locker
from k4t.node.reference import pinned, registry_of
from k4t.registrar.document import Document
from k4t.tree.contents import file_contents

Place = tuple[str, str, int, str]


class Steps:
    """What a run knows while it works: the containers it has seen or made, and how to do each kind of step."""

    def __init__(
        self,
        fleet: Fleet,
        publisher: Publisher,
        observed: Observed,
        *,
        directory: Path,
        vault: Vault,
        host_lock: Mapping[str, Locker],
        degraded: bool,
        emit: Emit,
        stopping: threading.Event,
    ) -> None:
        self._fleet = fleet
        self._publisher = publisher
        self._directory = directory
        self._vault = vault
        self._host_lock = host_lock
        self._degraded = degraded or None
        self._emit = emit
        self._guard = threading.Lock()
        self._stopping = stopping
        self._observed = observed
        self._away: dict[str, str] = {}
        self._standing = frozenset(one.id for node in observed.nodes.values() for one in node.containers)
        self._containers: dict[Place, Container] = {
            (one.app, one.replica, one.generation, one.node): one
            for node in observed.nodes.values()
            for one in node.containers
        }

    def perform(self, step: Step, failed: frozenset[str]) -> str:
        """Make the step's call; a word about it for people. `failed`: what it awaited in vain. Raises K4tError."""
        failpoints.reach(f"before:{step.action}")
        said = self._perform(step, failed)
        failpoints.reach(f"after:{step.action}")
        return said

    def _perform(self, step: Step, failed: frozenset[str]) -> str:
        work = step.work
        if isinstance(work, Fetch):
            return self._fetch(step, work)
        if isinstance(work, Create):
            return self._create(step, work)
        if isinstance(work, Await):
            return self._await(step, work)
        if isinstance(work, Publish):
            return self._publish(work, failed)
        if isinstance(work, Pause):
            return self._pause(work)
        if isinstance(work, Resize):
            return self._resize(step, work)
        if isinstance(work, Refresh):
            return self._refresh(step, work)
        if isinstance(work, RunJob):
            return jobs.perform(
                self._fleet, self._vault, self._directory, step, work, emit=self._emit, stopping=self._stopping
            )
        if isinstance(work, DropJob):
            return jobs.drop(self._fleet, step, work)
        return self._change(step, work)

    def _fetch(self, step: Step, work: Fetch) -> str:
        engine = self._fleet.engine(step.node)

        def progress(text: str, fraction: float | None) -> None:
            self._emit(StepProgress(step.id, text, fraction))

        if work.archive:
            return images.load(engine, self._directory / "apps" / work.app / work.archive, work.image, progress)
        login = self._vault.login(registry_of(work.image.reference))
        return images.pull(engine, work.image, login, progress, policy=work.policy)

    def _create(self, step: Step, work: Create) -> str:
        secrets = self._vault.of(work.app)
        order = create.Order(
            cluster_id=self._fleet.tree.cluster.id,
            name=work.name,
            app=work.app,
            replica=work.slot.replica,
            generation=work.slot.generation,
            image=pinned(work.image),
            revision=work.revision,
            spec=work.spec,
            resources=work.resources,
            ports=work.ports,
            address=work.address,
            reserved=pinned_addresses(self._fleet.tree.apps.values()),
            instead_of=work.instead_of,
            secrets=secrets,
            digests={name: digest for name, digest in secret_digests(work.app).items() if digest},
            own_files=own_files(work.app),
            contents=file_contents(self._directory, work.app, self._fleet.tree.cluster.variables, secrets),
        )
        node = self._fleet.tree.nodes[step.node]
        container = create.create(self._fleet.engine(step.node), node, order, self._host_lock[step.node])
        with self._guard:
            self._containers[_place(work.slot)] = container
        return " ".join(f"{port.name}={port.number}" for port in container.ports)

    def _await(self, step: Step, work: Await) -> str:
        container, nodes = self._known(work.slot), self._fleet.tree.nodes
        engine, dialer = self._fleet.engine(step.node), vantage(self._fleet, nodes[step.node], work.app)

        def healthy(at: Container) -> str:
            return health.await_healthy(
                engine, dialer, at, work.app, timeout_s=work.timeout_s, stopping=self._stopping
            )  # fmt: skip

        said = healthy(container)
        if endpoints.dns_groups(work.app) and (second := endpoints.second_address(nodes, container, "dns")):
            healthy(dataclasses.replace(container, address=second))
        return said

    def _publish(self, work: Publish, failed: frozenset[str]) -> str:
        """What is healthy goes out, also when a neighbour isn't; then nothing is taken out, and the step has failed."""
        added = [(slot, self._known(slot)) for slot in work.add if f"await:{slot.label}" not in failed]
        if failed and not added:
            raise StepError(f"not published: {', '.join(sorted(failed))} did not succeed")
        removed = () if failed else work.remove

        def change(live: Document | None) -> Document:
            return endpoints.compose(
                live, self._fleet.tree, work.kind, work.group, add=added, remove=removed, settle=work.settle,
                restore=work.restore, former=work.former,
            )  # fmt: skip

        # What only takes out dead endpoints never waits for a member that is away.
        dead_only = not (work.add or work.settle or work.restore) and not any(slot.generation for slot in work.remove)
        degraded = True if dead_only and work.remove else self._degraded
        published = self._publisher.publish(work.kind, work.group, change, degraded=degraded)
        if failed:
            raise StepError(f"published without {', '.join(sorted(failed))}")
        if removed and published.stale and not dead_only:
            # One that is away may still send to them: they run on until it is known not to.
            away = ", ".join(f"{name} ({why})" for name, why in published.stale)
            raise Partial(f"taken out everywhere but on {away}: nothing is stopped before that is healed")
        return published.words()

    def _pause(self, work: Pause) -> str:
        if self._stopping.wait(work.duration_s):
            raise Interrupted("stopped while waiting")
        return f"{work.duration_s:g} s"

    def _resize(self, step: Step, work: Resize) -> str:
        lifecycle.resize(self._fleet.engine(step.node), self._fleet.tree.cluster.id, work.id or work.name, work.app)
        return ""

    def _refresh(self, step: Step, work: Refresh) -> str:
        changing = tuple(file for file in work.app.files if file.target in work.targets)
        app = dataclasses.replace(work.app, env=(), files=changing)
        contents = file_contents(
            self._directory, app, self._fleet.tree.cluster.variables, self._vault.of(app)
        )  # fmt: skip
        refresh.refresh(
            self._fleet.engine(step.node), self._fleet.tree.cluster.id, work.name, work.id, app,
            contents=contents, files=work.files, signals=work.signals,
        )  # fmt: skip
        return ", ".join(work.signals)

    def _change(self, step: Step, work: Target) -> str:
        engine, cluster = self._fleet.engine(step.node), self._fleet.tree.cluster.id
        made = self._containers.get(_place(work.slot))
        container = work.id or (made.id if made else work.name)
        if step.action == "start":
            lifecycle.start(engine, cluster, container)
            self._runs(work.slot)
        elif step.action == "stop":
            self._not_sent_to(step.app, container)
            lifecycle.stop(engine, cluster, container, grace_s=work.grace_s)
        else:
            lifecycle.remove(engine, cluster, container)
            if made is None or made.files:
                files.discard(engine.transport, cluster, work.name)
        return ""

    def _runs(self, slot: Slot) -> None:
        """What was seen of it before it was started holds no longer."""
        with self._guard:
            if (seen := self._containers.get(_place(slot))) is not None:
                self._containers[_place(slot)] = dataclasses.replace(seen, state="running", health="")

    def _not_sent_to(self, app: str, container: str) -> None:
        """A gateway or DNS server that was away when this run looked may send to what it held before, though the
        others don't any more. What this run has made can't be there."""
        away = self._away.get(app)
        if away is None:
            away = self._away[app] = ", ".join(away_for(self._fleet.tree, self._observed, app))
        if away and container in self._standing:
            raise Partial(f"{away} is away and may still send to it: it is stopped once that is healed")

    def _known(self, slot: Slot) -> Container:
        with self._guard:
            container = self._containers.get(_place(slot))
        if container is None:
            raise StepError(f"container {slot.label} was never seen", "run again")
        return container


def _place(slot: Slot) -> Place:
    return (slot.app, slot.replica, slot.generation, slot.node)


def away_for(tree: Tree, observed: Observed, app: str) -> list[str]:
    """Gateways and DNS servers that could not be asked, of the groups that an app is, or was, published in."""
    members = [*observed.gateways.values(), *observed.dns.values()]
    spec = tree.apps.get(app)
    groups = {("gateway", group) for group in endpoints.gateway_groups(spec)} if spec else set()
    groups |= {("dns", group) for group in endpoints.dns_groups(spec)} if spec else set()
    groups |= {(one.kind, one.group) for one in members if one.document and app in endpoints.by_app(one.document)}
    return sorted(one.name for one in members if not one.reachable and (one.kind, one.group) in groups)
