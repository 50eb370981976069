"""The Docker network behind `macvlan` and `ipvlan` containers of a node: one for each interface and subnet.

It belongs to no cluster: all that share the node use the same one. It is made when a container first needs it and
never removed: a stopped container could not start without it, and Docker does not count those.

Format: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Network/operation/NetworkCreate
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from k4t.errors import EngineRefused, NameTaken, StepError
from k4t.model.spec import AddressPool, App, Node
from k4t.node.addresses import pool_of
from k4t.node.call import Request
from k4t.node.docker import Engine
from k4t.node.labels import FORMAT, PREFIX

Json = dict[str, Any]

MARK = f"{PREFIX}network"
"""Its label; the value says what it was made for."""


def name_of_network(mode: str, pool: AddressPool) -> str:
    """`k4t-macvlan-eth0-10.88.0.0-24`. Docker allows letters, digits and `_.-` in it."""
    return f"k4t-{mode}-{pool.interface}-{re.sub('[^0-9a-f.]', '-', pool.subnet)}"


def network_body(mode: str, pool: AddressPool) -> Json:
    """What Docker is told. Without a gateway it is internal: no default route leads out of it."""
    six = ":" in pool.subnet
    addresses = {"Subnet": pool.subnet, **({"Gateway": pool.gateway} if pool.gateway else {})}
    kind = {"macvlan_mode": "bridge"} if mode == "macvlan" else {"ipvlan_mode": "l2"}
    return {
        "Name": name_of_network(mode, pool),
        "CheckDuplicate": True,
        "Driver": mode,
        "Internal": not pool.gateway,
        "EnableIPv6": six,
        "EnableIPv4": not six,  # known since API 1.47; an older Engine adds an IPv4 subnet of its own choice
        "IPAM": {"Driver": "default", "Config": [addresses]},
        "Options": {"parent": pool.interface, **kind},
        "Labels": {f"{PREFIX}format": FORMAT, MARK: _purpose(mode, pool)},
    }


def ensure(engine: Engine, node: Node, app: App) -> str:
    """The name of the network for this app on this node; made when it is missing.

    Two runs don't make it twice: it is called under the host's allocation lock. Raises NameTaken for a network that
    isn't ours, StepError for one made with another gateway, or that Docker can't make.
    """
    pool, mode = pool_of(app, node), app.network.mode
    name = name_of_network(mode, pool)
    found = _inspect(engine, name)
    if found is None:
        _make(engine, node, mode, pool)
    else:
        _check(node, mode, pool, found)
    return name


def explained(error: EngineRefused) -> StepError:
    """What Docker says when it starts a container, with what to do where that is known."""
    match = re.search(r"failed to create the (macvlan|ipvlan) port: (.*)", error.message)
    if match is None:
        return error
    mode, reason = match[1], match[2].strip(". ")
    if "not supported" in reason:
        remedy = f"its kernel has no {mode}: load that module, or use another network mode"
    elif "busy" in reason:
        remedy = "an interface carries macvlan or ipvlan, not both: use one mode for all apps of the node"
    else:
        remedy = ""
    return StepError(f"Docker can't give the container its {mode} interface: {reason}", remedy, host=error.host)


def _inspect(engine: Engine, name: str) -> Json | None:
    try:
        found: Json = engine.call(Request("GET", f"/networks/{quote(name)}"))
    except EngineRefused as error:
        if error.status == 404:
            return None
        raise
    return found if found.get("Name") == name else None


def _make(engine: Engine, node: Node, mode: str, pool: AddressPool) -> None:
    try:
        engine.call(Request("POST", "/networks/create", network_body(mode, pool)))
    except EngineRefused as error:
        if _inspect(engine, name_of_network(mode, pool)) is not None:
            return  # made by an earlier try whose reply was lost
        raise StepError(
            f"{node.where}: Docker can't make a {mode} network for {pool.subnet} on {pool.interface}: {error.message}",
            _remedy(error.message, pool),
            host=node.name,
        ) from error


def _remedy(said: str, pool: AddressPool) -> str:
    if "parent interface" in said or "overlaps" in said:
        return "another Docker network is in the way: `docker network ls` there, and remove it if it isn't used"
    if "invalid subinterface" in said:
        return f'is there an interface {pool.interface}? correct <addresses interface="…">'
    return ""


def _check(node: Node, mode: str, pool: AddressPool, found: Mapping[str, Any]) -> None:
    name = name_of_network(mode, pool)
    if (found.get("Labels") or {}).get(MARK) != _purpose(mode, pool):
        raise NameTaken(
            f"{node.where}: the network {name} of {node.name} is not k4t's",
            f"remove it there if nothing uses it (docker network rm {name})",
            host=node.name,
        )
    configs = (found.get("IPAM") or {}).get("Config") or [{}]
    there = next((str(one.get("Gateway") or "") for one in configs if one.get("Subnet") == pool.subnet), "")
    if found.get("Internal"):
        there = ""
    if there.partition("/")[0] != pool.gateway:
        raise StepError(
            f"{node.where}: the network {name} of {node.name} has {_said(there)}, the tree says {_said(pool.gateway)}",
            f"make all trees of that node agree, or stop what uses it and remove it there (docker network rm {name})",
            host=node.name,
        )


def _said(gateway: str) -> str:
    return f"gateway {gateway}" if gateway else "no gateway"


def _purpose(mode: str, pool: AddressPool) -> str:
    return f"{mode} {pool.interface} {pool.subnet}"
