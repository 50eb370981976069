"""An app, as it should be: what its containers are created from, where they run, how they are replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from k4t.model.publish import Record, Route
from k4t.model.shared import NOWHERE, Protocol, Share, Where
from k4t.model.value import value


@value
class Image:
    """`reference` always stands; with `archive` (a file of the app's directory) it is the name to give it."""

    reference: str
    archive: str = ""
    pull: Literal["missing", "always", "never"] = "missing"


@value
class ContainerSettings:
    user: str = ""
    workdir: str = ""
    restart: Literal["no", "on-failure", "unless-stopped"] = "unless-stopped"
    read_only: bool = False
    init: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()


@value
class Network:
    mode: Literal["host", "bridge", "macvlan", "ipvlan", "none"] = "host"
    resolvers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()


@value
class Port:
    """`container`: where it listens by itself; `host`: the number it is told or published at, "auto", or None."""

    name: str = "main"
    container: int | None = None
    host: int | Literal["auto"] | None = None
    protocol: Protocol = "tcp"
    where: Where = NOWHERE


@value
class Env:
    """`digest`: the keyed one of its secret's value, once that is known (never as the tree is read)."""

    name: str
    value: str = ""
    secret: str = ""
    digest: str = ""


@value
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


@value
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


@value
class Resources:
    cpus: float | None = None
    memory_bytes: int | None = None
    gpus: str = ""
    shm_bytes: int | None = None
    pids: int = 4096


@value
class HttpProbe:
    port: str = ""
    path: str = "/"
    status: tuple[int, int] = (200, 399)
    headers: tuple[tuple[str, str], ...] = ()


@value
class TcpProbe:
    port: str = ""


@value
class ExecProbe:
    args: tuple[str, ...]


@value
class ImageProbe:
    """The image's own HEALTHCHECK."""


Probe = HttpProbe | TcpProbe | ExecProbe | ImageProbe


@value
class Health:
    probe: Probe
    interval_s: float = 5.0
    timeout_s: float = 2.0
    retries: int = 3
    start_period_s: float = 30.0


@value
class Log:
    driver: str = "local"
    max_size_bytes: int = 10 * 1024 * 1024
    max_files: int = 5


@value
class Stop:
    signal: str = ""
    grace_s: float = 30.0


@value
class Spread:
    by: str
    max: int | None = None


@value
class Pin:
    replica: int
    node: str = ""
    address: str = ""
    port: int | None = None


@value
class Placement:
    require: tuple[tuple[str, str], ...] = ()
    spread: tuple[Spread, ...] = ()
    avoid: tuple[str, ...] = ()
    pins: tuple[Pin, ...] = ()


@value
class Update:
    strategy: Literal["rolling", "recreate"] = "rolling"
    max_surge: Share = Share(1)
    max_unavailable: Share = Share(0)
    drain_s: float = 30.0
    pause_after: int = 0
    timeout_s: float = 300.0
    on_failure: Literal["rollback", "stop"] = "rollback"


@value
class Job:
    name: str
    before_update: bool = False
    schedule: str = ""
    timezone: str = "UTC"
    timeout_s: float = 600.0
    image: str = ""
    command: tuple[str, ...] | None = None
    env: tuple[Env, ...] = ()


@value
class Scale:
    """How many replicas there are follows what is measured. `cpu_percent`, `memory_percent`: of `<resources>`, the mean
    of all replicas; `requests`: a second and replica; `command` prints a number of replicas. The size that each of them
    wants is held against the one that is, and changes nothing within `tolerance_percent` of it."""

    min: int
    max: int
    cpu_percent: float | None = None
    memory_percent: float | None = None
    requests: float | None = None
    command: str = ""
    tolerance_percent: float = 10.0
    up_after_s: float = 30.0
    down_after_s: float = 300.0
    where: Where = NOWHERE


@value
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
