"""What should be: the tree, read, checked, with defaults and variables resolved. This is the tree as a whole; its parts
are in `hosts`, `app`, `publish` and `shared`.

Names follow design.md's table. Durations are seconds (`_s`), sizes bytes (`_bytes`). A field whose default is
the schema's default may be left out of a canonical form; `k4t.master.planning.specs` does that for the spec hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from k4t.model.app import App, Image
from k4t.model.hosts import Dns, Gateway, Node, Power, Ssh
from k4t.model.monitor import Monitor
from k4t.model.publish import Certificate
from k4t.model.shared import NOWHERE, Where
from k4t.model.snapshot import Recovery
from k4t.model.value import value


@value
class Registry:
    host: str
    user: str = ""
    secret: str = ""
    where: Where = NOWHERE


@value
class Backup:
    """A snapshot target: a node of the tree, or a host that is none."""

    node: str = ""
    host: str = ""
    every_s: float = 3600.0
    keep: int = 60
    keep_daily: int = 0
    where: Where = NOWHERE
    encrypted: bool = True


@value
class Safety:
    withdraw_percent: float = 30.0
    min: int = 5


@value
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


@value
class SecretRef:
    """`secrets/NAME.xml` (a reference) or `secrets/NAME.age` (`kind` "age"). Never the value."""

    name: str
    kind: Literal["age", "environment", "command", "file"]
    source: str = ""
    where: Where = NOWHERE


@value
class Tree:
    """One consistent reading of `db/`.

    `sha256` is of all files that count (not `.k4t/`, `known_hosts`, `recovery.xml`, README* and .git*); `app_sha256`
    of each app's own directory. `no_effect` names what stands in the tree and does nothing yet, for plans to say.
    `gone`: what is known of an app whose file is gone, by the cluster's defaults: its drain and grace.
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
    recovery: Recovery | None = None
    monitor: Monitor = Monitor()
    gone: App = App("", Image(""))
