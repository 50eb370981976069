"""What one check saw: values alone, nothing is judged here. What could not be asked is a Failure, never left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from k4t.model.state import Container, Head, NodeState, ParticipantState
from k4t.model.value import value
from k4t.remote.lock import Holder

Kind = Literal["cluster", "master", "node", "gateway", "dns", "host", "app", "backup", "certificate"]
FailureKind = Literal["silent", "no-route", "no-name", "refused", "mute", "login", "slow", "garbage", "lost"]


@value
class Subject:
    """What a finding is about. `host` is a machine that is none of the others."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return {"dns": "DNS"}.get(self.kind, self.kind) + f" {self.name}"

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.name}"


@value
class Disk:
    """One file system, by what of ours is on it: root, docker or state (k4t's own). `inodes` 0: it has no fixed number
    of them. What only root may use counts as used, as `df` has it."""

    name: str
    mount: str
    size_bytes: int
    used_bytes: int
    available_bytes: int
    inodes: int = 0
    inodes_used: int = 0

    @property
    def space_percent(self) -> float:
        room = self.used_bytes + self.available_bytes
        return 100.0 * self.used_bytes / room if room else 100.0

    @property
    def inodes_percent(self) -> float:
        return 100.0 * self.inodes_used / self.inodes if self.inodes else 0.0

    @property
    def percent(self) -> float:
        """The scarcer of the two."""
        return max(self.space_percent, self.inodes_percent)


@value
class Memory:
    total_bytes: int
    available_bytes: int
    swap_total_bytes: int = 0
    swap_free_bytes: int = 0

    @property
    def percent(self) -> float:
        return 100.0 * (self.total_bytes - self.available_bytes) / self.total_bytes


@value
class Ticks:
    """Of all processors together, since the host was started."""

    total: int
    idle: int


@value
class Reading:
    """What the probe's command said; None is unknown. `skew_s`: its clock less ours, right to `skew_doubt_s` (half the
    round trip). `lock` is None also for a holder that left no name. `garbage`: parts that could not be believed;
    `denied`: files that this login may not read."""

    clock_s: float | None = None
    skew_s: float | None = None
    skew_doubt_s: float = 0.0
    uptime_s: float | None = None
    load: tuple[float, float, float] | None = None
    cpus: int | None = None
    ticks: Ticks | None = None
    memory: Memory | None = None
    disks: Mapping[str, Disk] = field(default_factory=dict)
    processes: Mapping[str, int] = field(default_factory=dict)
    lock_held: bool = False
    lock: Holder | None = None
    head: Head | None = None
    confirmed: str = ""
    copy: str = ""
    off: str = ""
    denied: tuple[str, ...] = ()
    clusters: tuple[str, ...] = ()
    drivers: tuple[str, ...] = ()
    garbage: tuple[str, ...] = ()
    round_trip_s: float = 0.0


@value
class Failure:
    """Why a host could not be asked. `reached_from`: another host that does reach it; "" for none that was asked.
    `strange`: it does not know this machine, or this machine not it."""

    kind: FailureKind
    message: str
    remedy: str = ""
    reached_from: str = ""
    strange: bool = False


@value
class Host:
    """One machine and what of the tree is on it. Exactly one of `reading` and `failure` is there."""

    name: str
    subject: Subject
    things: tuple[Subject, ...] = ()
    reading: Reading | None = None
    failure: Failure | None = None
    cpu_percent: float | None = None
    """Since the check before; None at the first one."""


@value
class Docker:
    """One node's Engine. `state` as the rest of k4t sees it. `deaths`: how often containers ended in the last
    DEATHS_WINDOW_S, by name. `images_bytes`: only asked for when the disk is short."""

    state: NodeState
    deaths: Mapping[str, int] = field(default_factory=dict)
    images_bytes: int | None = None


@value
class Answer:
    """One probe of a container. `problem` "" when it answered as it should; None: not asked, or not in time."""

    problem: str | None
    asked_from: str = ""


@value
class Target:
    """A place for copies, on the machine `host` (a key of hosts). `confirmed_s`: when the newest copy was last said to
    be what the tree is (Unix seconds). Without it, `problem` says why: there is none (none), it may not be read
    (denied), or what is said is not genuine (refused)."""

    name: str
    every_s: float
    host: str
    confirmed_s: float | None = None
    state: Literal["confirmed", "none", "denied", "refused"] = "confirmed"
    problem: str = ""


@value
class OpenTransaction:
    """A publication that is not over, as a log or a member knows it. `since_s` None: not known."""

    id: str
    on: str
    state: str
    since_s: float | None = None


@value
class OffNotice:
    """“The master is off on purpose”. `genuine` False: nobody can vouch for it."""

    who: str
    at: str
    why: str
    genuine: bool
    read_on: str


@value
class Facts:
    """Everything one check saw. `at_s` is Unix time by our clock. Keys of `hosts` are their names; `nodes`, `gateways`
    and `dns` are the tree's, each with its machine in `host_of` (“node/n1” → a key of hosts). `probed` is by container
    id, asked from where it runs; `reached` by (container id, port), asked from a gateway's host."""

    at_s: float
    took_s: float
    cluster: str
    cluster_id: str
    hosts: Mapping[str, Host] = field(default_factory=dict)
    host_of: Mapping[str, str] = field(default_factory=dict)
    nodes: Mapping[str, Docker] = field(default_factory=dict)
    gateways: Mapping[str, ParticipantState] = field(default_factory=dict)
    dns: Mapping[str, ParticipantState] = field(default_factory=dict)
    serving: Mapping[str, str] = field(default_factory=dict)
    """By “gateway/gw1”, “dns/names”: why nobody serves there; "" when somebody does. Not asked: missing."""
    probed: Mapping[str, Answer] = field(default_factory=dict)
    reached: Mapping[tuple[str, int], Answer] = field(default_factory=dict)
    alive: Mapping[str, str] = field(default_factory=dict)
    """Nodes that can't be asked and still take connections, each with a gateway from whose host one was made."""
    targets: tuple[Target, ...] = ()
    transactions: tuple[OpenTransaction, ...] = ()
    off: OffNotice | None = None
    master: str = ""
    """A key of `hosts`; "" when it is not known which machine it is."""
    desired: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The replicas each app should have, by its name; missing where only documents are known."""

    @property
    def containers(self) -> tuple[Container, ...]:
        return tuple(one for node in self.nodes.values() for one in node.state.containers)

    @property
    def head(self) -> Head | None:
        from k4t.master.planning import serials

        heads = [host.reading.head for host in self.hosts.values() if host.reading and host.reading.head]
        return serials.newest(one for one in heads if one.cluster == self.cluster_id)
