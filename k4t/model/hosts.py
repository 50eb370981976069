"""The hosts of the tree, as they should be: how to reach them, nodes, gateways, DNS servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from k4t.model.shared import NOWHERE, Where
from k4t.model.value import value

Availability = Literal["active", "cordoned", "drained", "dead"]


@value
class Ssh:
    """How to reach a host. Empty or None means: as the cluster says, then as ~/.ssh/config says."""

    host: str = ""
    port: int | None = None
    user: str = ""
    key: str = ""
    jump: str = ""
    sudo: bool | None = None
    connect_timeout_s: float | None = None


@value
class Power:
    """`spare` (of a node): it may be switched on and off as it is needed."""

    host: str = ""
    on: str = ""
    off: str = ""
    after_apply: Literal["stay", "off"] = "stay"
    spare: bool = False


@value
class Capacity:
    """None: what the host reports."""

    cpus: float | None = None
    memory_bytes: int | None = None
    reserve_memory_bytes: int = 0


@value
class AddressPool:
    """Addresses for macvlan and ipvlan containers, both ends included."""

    first: str
    last: str
    interface: str
    subnet: str
    gateway: str = ""


@value
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


@value
class Script:
    verb: str
    args: tuple[str, ...]


@value
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


@value
class Dns:
    """`reverse`: zones for PTR records (driver rfc2136). `path`: the file that driver hosts writes."""

    name: str
    driver: str
    address: str
    zone: str
    group: str = "default"
    port: int = 53
    key_name: str = ""
    secret: str = ""
    reverse: tuple[str, ...] = ()
    path: str = ""
    ssh: Ssh = Ssh()
    scripts: tuple[Script, ...] = ()
    where: Where = NOWHERE
