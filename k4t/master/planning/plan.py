"""The plan: a graph of steps, each one external call with its cause; what is unsafe; what can't be placed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from k4t.model.app import App
from k4t.model.participant import Kind
from k4t.model.snapshot import Lineage
from k4t.model.state import JobRun
from k4t.model.value import value
from k4t.registrar.document import Document

SPEC = "spec changed"
"""The cause where nothing that is observed tells what of it; the tree of then may (Plan.changed)."""

Action = Literal[
    "pull", "load", "create", "start", "await", "publish", "wait", "drain", "stop", "remove", "resize", "refresh",
    "job", "timer", "untimer",
]  # fmt: skip


@value
class ResolvedImage:
    """A reference and what it stands for in this revision.

    `digest` is "sha256:…" of the manifest in a registry, or "id:sha256:…" of the image's configuration for an
    archive or an image that only the nodes have.
    """

    reference: str
    digest: str
    archs: tuple[str, ...] = ()


@value
class Slot:
    """One generation of one replica. Its endpoints are known once its container exists.

    `container` is the id of a container that existed when the plan was made, else "". An endpoint that is
    published and whose container is gone has generation 0.
    """

    app: str
    replica: str
    generation: int
    node: str
    container: str = ""

    @property
    def label(self) -> str:
        return f"{self.app}.{self.replica}.{self.generation}@{self.node}"


@value
class Fetch:
    """Bring an image to a node: pulled by digest, or its archive sent."""

    image: ResolvedImage
    app: str
    archive: str = ""
    policy: Literal["missing", "always", "never"] = "missing"


@value
class Create:
    """`address`, `ports` come from pins; everything else is allocated on the host, under its lock.

    `instead_of`: stopped containers of the same app whose ports it takes; they are kept until the update is complete.
    """

    name: str
    app: App
    slot: Slot
    image: ResolvedImage
    revision: int
    spec: str
    resources: str
    address: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    instead_of: tuple[str, ...] = ()


@value
class Target:
    """A container that exists, or will when its create step is done (`id` is then empty)."""

    name: str
    slot: Slot
    id: str = ""
    spec: str = ""
    grace_s: float = 30.0


@value
class Await:
    """Until the replica is healthy, at most `timeout_s`."""

    name: str
    slot: Slot
    app: App
    timeout_s: float


@value
class Resize:
    """Resources and restart policy of a running container, changed in place."""

    name: str
    slot: Slot
    id: str
    app: App
    resources: str


@value
class Refresh:
    """Files of a running container, rewritten in place; it is then restarted, or told by signals. `targets` change;
    `files`: the hashes of all that it has for itself, afterwards. `app` as the tree has it now."""

    name: str
    slot: Slot
    id: str
    app: App
    targets: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    signals: tuple[str, ...]


@value
class Publish:
    """One atomic change to every member of a group.

    `add`, `remove`: slots whose endpoints come and go. `settle`: apps whose routes, checks and records are set
    as the tree says (or taken away, where the tree no longer has them). `restore`: apps that get theirs of `former`.
    """

    kind: Kind
    group: str
    add: tuple[Slot, ...] = ()
    remove: tuple[Slot, ...] = ()
    settle: tuple[str, ...] = ()
    restore: tuple[str, ...] = ()
    former: Document | None = None


@value
class Pause:
    """Let sessions or caches run out."""

    duration_s: float


@value
class RunJob:
    """A job, run to its end (`schedule` empty), or put on the node with a timer. `app` is the app as the job runs it;
    `done`: keys of earlier runs that succeeded. `name`: the container's, of three parts where a replica's has four."""

    name: str
    app: App
    job: str
    key: str
    image: ResolvedImage
    timeout_s: float
    schedule: str = ""
    timezone: str = ""
    done: tuple[str, ...] = ()


@value
class DropJob:
    """A timer and its container, or a container of a job that the tree no longer has."""

    run: JobRun

    @property
    def name(self) -> str:
        return self.run.name


Work = Fetch | Create | Target | Await | Resize | Refresh | Publish | Pause | RunJob | DropJob


@value
class Step:
    """`cause` in words (“image 1.3 → 1.4”). `after`: ids of steps that must have succeeded before.

    `awaits` (of a publish): ids of steps that must have ended, well or not. The publication leaves out the
    additions that failed; when any of these failed it takes nothing out either, and then counts as failed itself.
    """

    id: str
    action: Action
    cause: str
    work: Work
    node: str = ""
    app: str = ""
    replica: str = ""
    after: tuple[str, ...] = ()
    awaits: tuple[str, ...] = ()


@value
class UnsafeChange:
    """`kind` and `name` as in `--allow KIND:NAME`; `detail` says what would happen, with the numbers."""

    kind: str
    name: str
    detail: str

    @property
    def allow(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


@value
class Unschedulable:
    """`reasons`: “2 of 3 nodes: not enough memory”."""

    app: str
    replica: str
    reasons: tuple[str, ...]


@value
class Plan:
    """`scope`: the apps it is about (every app, when it is a whole apply). Sentences: `not_done`, what is left
    because a node is unreachable (exit 3); `refused`, apps left alone because a group can't be published to (69).

    By app: `specs`, what it is to become; `held`, a spec that is not tried again; `paused`, one that waits; `changed`,
    what is meant by the cause “spec changed”, where this working copy knows; `sizes`, another number of replicas than
    before, and why (`<scale>`).
    """

    cluster: str
    tree: str
    serial: int
    steps: tuple[Step, ...] = ()
    unsafe: tuple[UnsafeChange, ...] = ()
    unschedulable: tuple[Unschedulable, ...] = ()
    warnings: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()
    whole: bool = True
    not_done: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    specs: Mapping[str, str] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    paused: Mapping[str, str] = field(default_factory=dict)
    changed: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, str] = field(default_factory=dict)

    def cause(self, step: Step) -> str:
        """In the words that people are shown."""
        return self.changed.get(step.app, step.cause) if step.cause == SPEC else step.cause

    @property
    def empty(self) -> bool:
        return not self.steps

    def publications(self) -> tuple[Publish, ...]:
        return tuple(step.work for step in self.steps if isinstance(step.work, Publish))


@value
class Options:
    """`named`: what the command itself asked for, as in `--allow` (“remove-app:web”, “withdraw”): not unsafe then.

    `base_serial`: the newest serial that this working copy applied or started from; None without `.k4t/`.
    `fenced`: nodes declared dead that are known to be off. `failed`: specs that did not get healthy in this run, by
    app: held, with those that the head holds. `retry`: what the head holds is tried again. `proceed`: apps that go on
    beyond their canary. `recycle`: apps whose oldest replica is replaced; `restart`: (app, replica) that are.
    `rebalance`: replicas may move.
    `former`: what groups held when this run began, for what is put back where no head tells it.
    `without`: apps left as they are. `now_s`: seconds since 1970; 0: not known. `before`: hashes of apps before this
    very command edited them. `lineage`: this working copy's; None
    where nobody may fence it off (`--allow rewind`). `sizes`: replicas that this very run asks for, by app.
    """

    named: frozenset[str] = frozenset()
    degraded: bool = False
    base_serial: int | None = None
    fenced: frozenset[str] = frozenset()
    failed: Mapping[str, str] = field(default_factory=dict)
    retry: bool = False
    proceed: frozenset[str] = frozenset()
    recycle: frozenset[str] = frozenset()
    restart: frozenset[tuple[str, str]] = frozenset()
    rebalance: bool = False
    former: Mapping[tuple[Kind, str], Document] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    now_s: float = 0.0
    before: Mapping[str, str] = field(default_factory=dict)
    lineage: Lineage | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
