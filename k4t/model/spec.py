"""What should be: the tree, read, checked, with defaults and variables resolved.

Names follow design.md's table. Durations are seconds (`_s`), sizes bytes (`_bytes`). A field whose default is
the schema's default may be left out of a canonical form; `k4t.master.planning.specs` does that for the spec hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Protocol = Literal["tcp", "udp"]
Availability = Literal["active", "cordoned", "drained", "dead"]


@dataclass(frozen=True, slots=True)
class Where:
    """The line of the tree that a value comes from, for messages. `file` is relative to the tree."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


NOWHERE = Where("")


@dataclass(frozen=True, slots=True)
class Share:
    """`max-surge`, `withdraw`: a count, or a percentage of something."""

    count: int = 0
    percent: float | None = None

    def of(self, total: int, *, round_up: bool) -> int:
        if self.percent is None:
            return self.count
        exact = total * self.percent / 100
        return int(-(-exact // 1)) if round_up else int(exact // 1)


# --- cluster -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ssh:
    """How to reach a host. Empty or None means: as the cluster says, then as ~/.ssh/config says."""

    host: str = ""
    port: int | None = None
    user: str = ""
    key: str = ""
    jump: str = ""
    sudo: bool | None = None
    connect_timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Registry:
    host: str
    user: str = ""
    secret: str = ""
    where: Where = NOWHERE


@dataclass(frozen=True, slots=True)
class Backup:
    """A snapshot target: a node of the tree, or a host that is none."""

    node: str = ""
    host: str = ""
    every_s: float = 3600.0
    keep: int = 60
    keep_daily: int = 0
    where: Where = NOWHERE


@dataclass(frozen=True, slots=True)
class Power:
    host: str = ""
    on: str = ""
    off: str = ""
    after_apply: Literal["stay", "off"] = "stay"


@dataclass(frozen=True, slots=True)
class Safety:
    withdraw_percent: float = 30.0
    min: int = 5


@dataclass(frozen=True, slots=True)
class Cluster:
    name: str
    id: str
    format: int = 1
    ssh: Ssh = Ssh()
    variables: Mapping[str, str] = field(default_factory=dict)
    registries: tuple[Registry, ...] = ()
    backups: tuple[Backup, ...] = ()
    when_unreachable: Literal["refuse", "degrade"] = "refuse"
    safety: Safety = Safety()
    power: Power | None = None
    where: Where = NOWHERE


# --- hosts -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Capacity:
    """None: what the host reports."""

    cpus: float | None = None
    memory_bytes: int | None = None
    reserve_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class AddressPool:
    """Addresses for macvlan and ipvlan containers, both ends included."""

    first: str
    last: str
    interface: str
    subnet: str
    gateway: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """`address` is where traffic goes: the v4 one, else the v6 one; `address6` the v6 one when both are given."""

    name: str
    address: str
    address6: str = ""
    availability: Availability = "active"
    ssh: Ssh = Ssh()
    labels: Mapping[str, str] = field(default_factory=dict)
    capacity: Capacity = Capacity()
    port_range: tuple[int, int] = (20000, 29999)
    pool: AddressPool | None = None
    power: Power | None = None
    where: Where = NOWHERE


@dataclass(frozen=True, slots=True)
class Script:
    verb: str
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gateway:
    """`http`, `https`: ports on which it takes traffic in; 0 for none."""

    name: str
    driver: str
    address: str
    group: str = "default"
    http: int = 80
    https: int = 0
    ssh: Ssh = Ssh()
    scripts: tuple[Script, ...] = ()
    where: Where = NOWHERE


@dataclass(frozen=True, slots=True)
class Dns:
    name: str
    driver: str
    address: str
    zone: str
    group: str = "default"
    port: int = 53
    key_name: str = ""
    secret: str = ""
    ssh: Ssh = Ssh()
    scripts: tuple[Script, ...] = ()
    where: Where = NOWHERE


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in the tree (`chain`, `key_secret`) or files already on the gateways (`chain_path`, `key_path`)."""

    name: str
    chain: str = ""
    key_secret: str = ""
    chain_path: str = ""
    key_path: str = ""
    where: Where = NOWHERE


@dataclass(frozen=True, slots=True)
class SecretRef:
    """`secrets/NAME.xml` (a reference) or `secrets/NAME.age` (`kind` "age"). Never the value."""

    name: str
    kind: Literal["age", "environment", "command", "file"]
    source: str = ""
    where: Where = NOWHERE


# --- app ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Image:
    """`reference` always stands; with `archive` (a file of the app's directory) it is the name to give it."""

    reference: str
    archive: str = ""
    pull: Literal["missing", "always", "never"] = "missing"


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    user: str = ""
    workdir: str = ""
    restart: Literal["no", "on-failure", "unless-stopped"] = "unless-stopped"
    read_only: bool = False
    init: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Network:
    mode: Literal["host", "bridge", "macvlan", "ipvlan", "none"] = "host"
    resolvers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Port:
    """`container`: where it listens by itself; `host`: the number it is told or published at, "auto", or None."""

    name: str = "main"
    container: int | None = None
    host: int | Literal["auto"] | None = None
    protocol: Protocol = "tcp"
    where: Where = NOWHERE


@dataclass(frozen=True, slots=True)
class Env:
    """`digest`: the keyed one of its secret's value, once that is known (never as the tree is read)."""

    name: str
    value: str = ""
    secret: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """`sha256` is of the content after `expand`; of a secret it is the keyed digest, once its value is known."""

    target: str
    source: str = ""
    secret: str = ""
    mode: int = 0o444
    owner: str = ""
    expand: bool = False
    on_change: str = "replace"
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Volume:
    """Exactly one of `path`, `name`, `tmpfs_bytes`."""

    target: str
    path: str = ""
    name: str = ""
    tmpfs_bytes: int | None = None
    scope: Literal["node", "shared"] = "node"
    owner: str = ""
    read_only: bool = False
    shared_writers: bool = False

    @property
    def binds_to_node(self) -> bool:
        return self.tmpfs_bytes is None and not self.read_only and self.scope == "node"


@dataclass(frozen=True, slots=True)
class Resources:
    cpus: float | None = None
    memory_bytes: int | None = None
    gpus: str = ""
    shm_bytes: int | None = None
    pids: int = 4096


@dataclass(frozen=True, slots=True)
class HttpProbe:
    port: str = ""
    path: str = "/"
    status: tuple[int, int] = (200, 399)
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TcpProbe:
    port: str = ""


@dataclass(frozen=True, slots=True)
class ExecProbe:
    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageProbe:
    """The image's own HEALTHCHECK."""


Probe = HttpProbe | TcpProbe | ExecProbe | ImageProbe


@dataclass(frozen=True, slots=True)
class Health:
    probe: Probe
    interval_s: float = 5.0
    timeout_s: float = 2.0
    retries: int = 3
    start_period_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Log:
    driver: str = "local"
    max_size_bytes: int = 10 * 1024 * 1024
    max_files: int = 5


@dataclass(frozen=True, slots=True)
class Stop:
    signal: str = ""
    grace_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Spread:
    by: str
    max: int | None = None


@dataclass(frozen=True, slots=True)
class Pin:
    replica: int
    node: str = ""
    address: str = ""
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    require: tuple[tuple[str, str], ...] = ()
    spread: tuple[Spread, ...] = ()
    avoid: tuple[str, ...] = ()
    pins: tuple[Pin, ...] = ()


@dataclass(frozen=True, slots=True)
class Update:
    strategy: Literal["rolling", "recreate"] = "rolling"
    max_surge: Share = Share(1)
    max_unavailable: Share = Share(0)
    drain_s: float = 30.0
    pause_after: int = 0
    timeout_s: float = 300.0
    on_failure: Literal["rollback", "stop"] = "rollback"


@dataclass(frozen=True, slots=True)
class Job:
    name: str
    before_update: bool = False
    schedule: str = ""
    timezone: str = "UTC"
    timeout_s: float = 600.0
    image: str = ""
    command: tuple[str, ...] | None = None
    env: tuple[Env, ...] = ()


@dataclass(frozen=True, slots=True)
class Scale:
    min: int
    max: int
    cpu_percent: float | None = None
    memory_percent: float | None = None
    requests: float | None = None
    command: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """HTTP (`domains`, `prefix`) or L4 (`listen`, a port on the gateways). No domain means any."""

    port: str = ""
    domains: tuple[str, ...] = ()
    prefix: str = "/"
    listen: int | None = None
    tls: str = ""
    redirect: str = ""
    strip_prefix: bool = False
    weight: int | None = None
    timeout_s: float = 60.0
    retries: int = 1
    balance: Literal["round-robin", "least-requests"] = "round-robin"
    affinity: Literal["none", "cookie", "address"] = "none"
    upstream: Literal["http1", "h2c", "tls"] = "http1"
    group: str = "default"
    where: Where = NOWHERE


@dataclass(frozen=True, slots=True)
class Record:
    """`to` empty: the app's endpoints; else literal addresses, or "addresses" for the gateways' own."""

    name: str
    type: Literal["address", "srv"] = "address"
    port: str = ""
    to: tuple[str, ...] = ()
    ttl_s: int = 30
    group: str = "default"
    where: Where = NOWHERE


@dataclass(frozen=True, slots=True)
class App:
    """`replicas` is None for per-node apps. `docker_extra` is the parsed JSON of the `<docker>` way out."""

    name: str
    image: Image
    replicas: int | None = 1
    stopped: bool = False
    restart: int = 0
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    container: ContainerSettings = ContainerSettings()
    network: Network = Network()
    ports: tuple[Port, ...] = ()
    env: tuple[Env, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    files: tuple[File, ...] = ()
    volumes: tuple[Volume, ...] = ()
    resources: Resources = Resources()
    health: Health | None = None
    log: Log = Log()
    stop: Stop = Stop()
    placement: Placement = Placement()
    update: Update = Update()
    recycle_every_s: float | None = None
    depends: tuple[str, ...] = ()
    jobs: tuple[Job, ...] = ()
    scale: Scale | None = None
    routes: tuple[Route, ...] = ()
    records: tuple[Record, ...] = ()
    docker_file: str = ""
    docker_extra: Mapping[str, object] = field(default_factory=dict)
    where: Where = NOWHERE

    @property
    def per_node(self) -> bool:
        return self.replicas is None

    def port(self, name: str) -> Port | None:
        """The port of that name; an empty name means the first one."""
        return next((port for port in self.ports if name in ("", port.name)), None)


@dataclass(frozen=True, slots=True)
class Tree:
    """One consistent reading of `db/`.

    `sha256` is of all files that count (not `.k4t/`, `known_hosts`, README* and .git*); `app_sha256` of each
    app's own directory. `no_effect` names what stands in the tree and does nothing yet, for plans to say.
    """

    cluster: Cluster
    nodes: Mapping[str, Node] = field(default_factory=dict)
    apps: Mapping[str, App] = field(default_factory=dict)
    gateways: Mapping[str, Gateway] = field(default_factory=dict)
    dns: Mapping[str, Dns] = field(default_factory=dict)
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    secrets: Mapping[str, SecretRef] = field(default_factory=dict)
    sha256: str = ""
    app_sha256: Mapping[str, str] = field(default_factory=dict)
    no_effect: tuple[str, ...] = ()
