"""The Docker network behind `macvlan` and `ipvlan` containers of a node: one for each interface and subnet.

It belongs to no cluster: all that share the node use the same one. It is made when a container first needs it. It is
removed only where it is in the way of another one and no container, running or not, is in it: a stopped one could not
start again, and Docker does not count those.

Format: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Network/operation/NetworkCreate
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from k4t.errors import AddressTaken, EngineRefused, NameTaken, StepError
from k4t.model.app import App
from k4t.model.hosts import AddressPool, Node
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
        return name
    _must_be_ours(node, mode, pool, found)
    there = _gateway_of(found, pool)
    if there != pool.gateway:
        if name not in _remove_unused(engine, [name]):
            raise _disagree(node, name, there, pool.gateway)
        _make(engine, node, mode, pool)
    return name


def explained(error: EngineRefused) -> StepError:
    """What Docker says when it starts a container, with what to do where that is known."""
    if error.message.startswith("Address already in use"):
        remedy = "`docker network inspect` there shows which; remove that container, and apply again"
        return AddressTaken("another container has this one's address by now", remedy, host=error.host)
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
        if _in_the_way(error.message) and _remove_unused(engine, _ours_on(engine, pool.interface)):
            _make(engine, node, mode, pool)  # fewer are left each time
            return
        raise StepError(
            f"{node.where}: Docker can't make a {mode} network for {pool.subnet} on {pool.interface}: {error.message}",
            _remedy(error.message, pool),
            host=node.name,
        ) from error


def _remedy(said: str, pool: AddressPool) -> str:
    if _in_the_way(said):
        return "another Docker network is in the way: `docker network ls` there, and remove it if it isn't used"
    if "invalid subinterface" in said:
        return f'is there an interface {pool.interface}? correct <addresses interface="…">'
    return ""


def _in_the_way(said: str) -> bool:
    return "parent interface" in said or "overlaps" in said


def _ours_on(engine: Engine, interface: str) -> list[str]:
    """k4t's own networks on an interface."""
    query = quote(json.dumps({"label": [MARK]}))
    found: list[Json] = engine.call(Request("GET", f"/networks?filters={query}"))
    return [str(one["Name"]) for one in found if (one.get("Options") or {}).get("parent") == interface]


def _remove_unused(engine: Engine, names: Sequence[str]) -> list[str]:
    """Those of our networks that were removed: no container is in them, running or not."""
    used: set[str] = set()
    for entry in engine.list_containers():
        used.add(str((entry.get("HostConfig") or {}).get("NetworkMode", "")))
        used.update((entry.get("NetworkSettings") or {}).get("Networks") or {})
    removed = [name for name in names if name not in used]
    for name in removed:
        engine.call(Request("DELETE", f"/networks/{quote(name)}"))
    return removed


def _must_be_ours(node: Node, mode: str, pool: AddressPool, found: Mapping[str, Any]) -> None:
    name = name_of_network(mode, pool)
    if (found.get("Labels") or {}).get(MARK) != _purpose(mode, pool):
        raise NameTaken(
            f"{node.where}: the network {name} of {node.name} is not k4t's",
            f"remove it there if nothing uses it (docker network rm {name})",
            host=node.name,
        )


def _gateway_of(found: Mapping[str, Any], pool: AddressPool) -> str:
    """Of a network that leads nowhere, Docker may name one all the same."""
    configs = [] if found.get("Internal") else (found.get("IPAM") or {}).get("Config") or []
    there = next((str(one.get("Gateway") or "") for one in configs if one.get("Subnet") == pool.subnet), "")
    return there.partition("/")[0]


def _disagree(node: Node, name: str, there: str, wanted: str) -> StepError:
    return StepError(
        f"{node.where}: the network {name} of {node.name} has {_said(there)}, the tree says {_said(wanted)}",
        "make all trees of that node agree; it is made anew once no container uses it",
        host=node.name,
    )


def _said(gateway: str) -> str:
    return f"gateway {gateway}" if gateway else "no gateway"


def _purpose(mode: str, pool: AddressPool) -> str:
    return f"{mode} {pool.interface} {pool.subnet}"
