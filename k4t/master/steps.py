"""One step is one external call. Each re-checks its precondition where it acts, and can be done twice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from k4t.errors import Interrupted, StepError
from k4t.master.fleet import Fleet
from k4t.master.planning import endpoints
from k4t.master.planning.plan import Await, Create, Fetch, Pause, Publish, Resize, Slot, Step, Target
from k4t.master.publication.publish import Publisher
from k4t.model.events import Emit, StepProgress
from k4t.model.spec import App
from k4t.model.state import Container, Observed
from k4t.node import create, health, images, lifecycle
from k4t.registrar.document import Document


class Steps:
    """What a run knows while it works: the containers it has seen or made, and how to do each kind of step."""

    def __init__(
        self,
        fleet: Fleet,
        publisher: Publisher,
        observed: Observed,
        *,
        directory: Path,
        logins: Mapping[str, tuple[str, str]],
        emit: Emit,
    ) -> None:
        self._fleet = fleet
        self._publisher = publisher
        self._directory = directory
        self._logins = logins
        self._emit = emit
        self._guard = threading.Lock()
        self.stopping = threading.Event()
        self.containers: dict[Slot, Container] = {
            slot_of(container): container for node in observed.nodes.values() for container in node.containers
        }

    def perform(self, step: Step) -> str:
        """Make the step's call; a word about it for people. Raises K4tError."""
        work = step.work
        if isinstance(work, Fetch):
            return self._fetch(step, work)
        if isinstance(work, Create):
            return self._create(step, work)
        if isinstance(work, Await):
            return self._await(step, work)
        if isinstance(work, Publish):
            return self._publish(work)
        if isinstance(work, Pause):
            return self._pause(work)
        return self._change(step, work)

    def _fetch(self, step: Step, work: Fetch) -> str:
        engine = self._fleet.engine(step.node)

        def progress(text: str, fraction: float | None) -> None:
            self._emit(StepProgress(step.id, text, fraction))

        if work.archive:
            return images.load(engine, self._directory / "apps" / work.app / work.archive, work.image, progress)
        login = self._logins.get(images.registry_of(work.image.reference))
        return images.pull(engine, work.image, login, progress, policy=work.policy)

    def _create(self, step: Step, work: Create) -> str:
        node = self._fleet.tree.nodes[step.node]
        container = create.create(
            self._fleet.engine(step.node), self._fleet.transport(node), self._fleet.tree.cluster, node, work,
            app_directory=self._directory / "apps" / work.app.name,
        )  # fmt: skip
        with self._guard:
            self.containers[work.slot] = container
        return " ".join(f"{port.name}={port.number}" for port in container.ports)

    def _await(self, step: Step, work: Await) -> str:
        container = self.containers[work.slot]
        node = self._fleet.tree.nodes[step.node]
        return health.await_healthy(
            self._fleet.engine(step.node),
            self._fleet.transport(node),
            container,
            work.app,
            timeout_s=work.timeout_s,
            stopping=self.stopping,
        )

    def _publish(self, work: Publish) -> str:
        published = self._publisher.publish(work.kind, work.group, self._change_of(work))
        return published.words()

    def _change_of(self, work: Publish) -> Callable[[Document | None], Document]:
        with self._guard:
            added = [(slot, self.containers[slot]) for slot in work.add if slot in self.containers]
        if len(added) < len(work.add):
            raise StepError("a container to publish was never seen: run again")
        removed = [self._removal(slot) for slot in work.remove]
        return lambda live: endpoints.compose(
            live, self._fleet.tree, work.kind, work.group, add=added, remove=removed, settle=work.settle
        )

    def _removal(self, slot: Slot) -> Slot:
        return slot

    def _pause(self, work: Pause) -> str:
        if self.stopping.wait(work.duration_s):
            raise Interrupted("stopped while waiting")
        return f"{work.duration_s:g} s"

    def _change(self, step: Step, work: Target | Resize) -> str:
        engine = self._fleet.engine(step.node)
        container = self.containers.get(work.slot)
        id = work.id or (container.id if container else "")
        cluster = self._fleet.tree.cluster.id
        if isinstance(work, Resize):
            lifecycle.resize(engine, cluster, id, work.app, work.resources)
        elif step.action == "start":
            lifecycle.start(engine, cluster, id or work.name)
        elif step.action == "stop":
            lifecycle.stop(engine, cluster, id or work.name, grace_s=work.grace_s)
        else:
            lifecycle.remove(engine, cluster, id or work.name)
        return ""


def slot_of(container: Container) -> Slot:
    return Slot(container.app, container.replica, container.generation, container.node)


def app_of(work: Create) -> App:
    return work.app
