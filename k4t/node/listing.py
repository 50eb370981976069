"""The Engine's listing of containers, told apart: this cluster's, and everyone else's. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from k4t.model.state import BoundPort, Container, Stranger
from k4t.node import labels


def sort_out(
    node: str, entries: list[dict[str, Any]], cluster_id: str
) -> tuple[tuple[Container, ...], tuple[Stranger, ...]]:
    """A listing of the Engine as this cluster's containers and everyone else's, both in order of name."""
    containers: list[Container] = []
    strangers: list[Stranger] = []
    for entry in entries:
        ours = labels.parse(entry.get("Labels"))
        if ours is not None and ours.cluster == cluster_id:
            containers.append(container_of(node, entry, ours))
        else:
            strangers.append(_stranger(node, entry, ours, cluster_id))
    return tuple(sorted(containers, key=lambda item: item.name)), tuple(sorted(strangers, key=lambda item: item.name))


def container_of(node: str, entry: Mapping[str, Any], ours: labels.Labels) -> Container:
    status = str(entry.get("Status", ""))
    return Container(
        id=str(entry.get("Id", "")),
        name=name_of(entry),
        node=node,
        app=ours.app,
        replica=ours.replica,
        generation=ours.generation,
        revision=ours.revision,
        spec=ours.spec,
        resources=ours.resources,
        address=ours.address,
        ports=ours.ports,
        state=str(entry.get("State", "")),
        status=status,
        health=_health(status),
        image_id=str(entry.get("ImageID", "")),
        created_s=int(entry.get("Created") or 0),
        image=str(entry.get("Image", "")),
        secrets=ours.secrets,
        files=ours.files,
    )


def name_of(entry: Mapping[str, Any]) -> str:
    """Links give a container further names, with a slash inside."""
    names = [str(name).removeprefix("/") for name in entry.get("Names") or ()]
    return next((name for name in names if "/" not in name), "")


def _health(status: str) -> Literal["", "starting", "healthy", "unhealthy"]:
    """The listing says it in words: “Up 3 seconds (healthy)”."""
    if "(health: starting)" in status:
        return "starting"
    if "(unhealthy)" in status:
        return "unhealthy"
    return "healthy" if "(healthy)" in status else ""


def _stranger(node: str, entry: Mapping[str, Any], labelled: labels.Labels | None, cluster_id: str) -> Stranger:
    """`cluster` is left empty for a container that claims ours and can't be read: it is nobody's."""
    claimed = labels.cluster_of(entry.get("Labels"))
    return Stranger(
        id=str(entry.get("Id", "")),
        name=name_of(entry),
        node=node,
        cluster="" if claimed == cluster_id else claimed,
        ports=labelled.ports if labelled else published(entry),
        address=labelled.address if labelled else "",
    )


def published(entry: Mapping[str, Any]) -> tuple[BoundPort, ...]:
    """The host ports that Docker forwards to a running container."""
    ports = {
        BoundPort("", int(port["PublicPort"]), "udp" if port.get("Type") == "udp" else "tcp")
        for port in entry.get("Ports") or ()
        if port.get("PublicPort")
    }
    return tuple(sorted(ports, key=lambda port: (port.number, port.protocol)))
