"""What is: observed on hosts, never remembered. What could not be asked is marked unreachable, never left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from k4t.model.shared import Protocol
from k4t.model.snapshot import Lineage
from k4t.model.value import value
from k4t.registrar.document import Document, Endpoint, Epoch

NO_EPOCH = Epoch(0, "")


@value
class BoundPort:
    """A port as the `.ports` label remembers it: `number` is where traffic goes on the container's address."""

    name: str
    number: int
    protocol: Protocol = "tcp"


@value
class Container:
    """One container with k4t's labels, of this cluster. `state` is Docker's word (running, exited, created …).

    `health` is Docker's own check ("" when it has none). `slot` tells replicas of an app apart; `generation`
    tells the containers of one replica apart. `resources` is what holds now: the label's, or where that differs
    from the wanted one, the same form made from what was inspected. `image` is the reference it was created from.
    `secrets`: the keyed digests that its spec was made with, by the secret's name. `files`: what it has files of its
    own for (see specs.own_files), by target.
    """

    id: str
    name: str
    node: str
    app: str
    replica: str
    generation: int
    revision: int
    spec: str
    resources: str
    address: str
    ports: tuple[BoundPort, ...] = ()
    state: str = "running"
    status: str = ""
    health: Literal["", "starting", "healthy", "unhealthy"] = ""
    image_id: str = ""
    created_s: int = 0
    image: str = ""
    secrets: tuple[tuple[str, str], ...] = ()
    files: tuple[tuple[str, str], ...] = ()

    @property
    def running(self) -> bool:
        return self.state == "running"


def container_name(cluster: str, app: str, replica: str, generation: int) -> str:
    """What a replica's container is called on its node; `cluster` is the cluster's name. Final."""
    return f"{cluster}.{app}.{replica}.{generation}"


@value
class Stranger:
    """A container that is not this cluster's: another cluster's, or nobody's. Never touched."""

    id: str
    name: str
    node: str
    cluster: str = ""
    ports: tuple[BoundPort, ...] = ()
    address: str = ""


@value
class JobRun:
    """The container of a job of this cluster: its last run, or the one to come. `key`: what it runs for (see
    planning.jobs); `done`: keys of earlier runs that succeeded. `schedule`: of a timer, as its label has it.
    `exit_status` is None while it runs and before it has. `status` is Docker's sentence about it. `secrets`: as a
    Container has them."""

    id: str
    name: str
    node: str
    app: str
    job: str
    key: str
    schedule: str = ""
    state: str = "exited"
    exit_status: int | None = None
    status: str = ""
    created_s: int = 0
    done: tuple[str, ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()

    @property
    def running(self) -> bool:
        return self.state in ("running", "paused", "restarting")

    @property
    def succeeded(self) -> tuple[str, ...]:
        """All keys for which it is known to have done its work."""
        return (*self.done, self.key) if self.exit_status == 0 else self.done


@value
class Facts:
    """What a host reports of itself. `arch` in Docker's words (amd64, arm64 …)."""

    arch: str = ""
    os: str = "linux"
    cpus: float = 0.0
    memory_bytes: int = 0


@value
class Revision:
    """One applied state: `tree` is the whole tree's sha256 or "" for a partial apply; `apps` what changed then, with
    their hashes; `at` is RFC 3339 UTC."""

    serial: int
    tree: str
    apps: Mapping[str, str] = field(default_factory=dict)
    who: str = ""
    at: str = ""
    message: str = ""


@value
class Dead:
    """A node that was given up: its containers up to revision `serial` may only be stopped. `fenced`: it was switched
    off then."""

    serial: int
    fenced: bool = False


@value
class Former:
    """What led to an app before an update to `spec` began: one document a group, of its routes, checks and records."""

    spec: str
    documents: tuple[Document, ...] = ()


@value
class Size:
    """How many replicas of an app with `<scale>` were asked for last. `who` "": nobody, that many there were when it
    was first applied. `at` is RFC 3339 UTC."""

    replicas: int
    who: str = ""
    at: str = ""
    why: str = ""


@value
class Head:
    """The cluster's newest serial and what goes with it, as one host keeps it. `at` is RFC 3339 UTC. `dead`: nodes
    that were given up and are not known to be clean since.

    `held`: the spec of an app that did not get healthy, and is not tried again; `held_at`: the serial of that try.
    `continued`: the spec with which an app may go on beyond its canary. `jobs`: the node on which a job (“web/migrate”)
    was last begun, or has its timer. `former`: what an update that is not complete is put back to, by app.
    """

    cluster: str
    serial: int = 0
    tree: str = ""
    revisions: tuple[Revision, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    held_at: Mapping[str, int] = field(default_factory=dict)
    continued: Mapping[str, str] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    who: str = ""
    at: str = ""
    dead: Mapping[str, Dead] = field(default_factory=dict)
    jobs: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, str] = field(default_factory=dict)
    """The id of what a gateway or DNS server keeps (“gateway/gw1”): a blank replacement has another."""
    former: Mapping[str, Former] = field(default_factory=dict)
    lineage: Lineage | None = None
    """Who is the master of this history; None where no k4t said so yet."""
    sizes: Mapping[str, Size] = field(default_factory=dict)
    """Of apps with `<scale>`; what a k4t that knows of none leaves out is what runs then."""


@value
class NodeState:
    """`problem` is why a node is unreachable, in words; `exit_status` that problem's. `late`: it has not answered yet,
    and still may; until then it is as unknown as an unreachable one."""

    name: str
    reachable: bool
    containers: tuple[Container, ...] = ()
    strangers: tuple[Stranger, ...] = ()
    facts: Facts = Facts()
    head: Head | None = None
    problem: str = ""
    exit_status: int = 0
    jobs: tuple[JobRun, ...] = ()
    late: bool = False


@value
class Withdrawn:
    """An endpoint that was taken out on the host, by whom and why, until its container is another one."""

    cluster: str
    ip: str
    port: int
    container: str
    by: str
    why: str


@value
class ParticipantState:
    """One gateway or DNS server. `document` is what it holds of this cluster; None: nothing yet. `ancestors`: (seq,
    sha256) of documents that it follows, parent first, as far as this member knows. `id`: random, of what it keeps
    (a blank replacement has another); "" where a driver has none. `staged`: a transaction that waits for its commit.

    `others` are the documents of other clusters; `manual` what was added by hand; `differences` is what the vendor
    serves otherwise than it was told, in words.
    """

    kind: Literal["gateway", "dns"]
    name: str
    group: str
    driver: str
    reachable: bool
    epoch: Epoch = NO_EPOCH
    document: Document | None = None
    digest: str = ""
    rendered: bool = True
    others: tuple[Document, ...] = ()
    differences: tuple[str, ...] = ()
    head: Head | None = None
    problem: str = ""
    exit_status: int = 0
    id: str = ""
    ancestors: tuple[tuple[int, str], ...] = ()
    staged: str = ""
    manual: tuple[Endpoint, ...] = ()
    withdrawn: tuple[Withdrawn, ...] = ()


@value
class Observed:
    """Everything one run saw. Keys are names of the tree."""

    nodes: Mapping[str, NodeState] = field(default_factory=dict)
    gateways: Mapping[str, ParticipantState] = field(default_factory=dict)
    dns: Mapping[str, ParticipantState] = field(default_factory=dict)

    @property
    def heads(self) -> tuple[Head, ...]:
        hosts: list[NodeState | ParticipantState] = [*self.nodes.values()]
        hosts += [*self.gateways.values(), *self.dns.values()]
        return tuple(host.head for host in hosts if host.head is not None)
