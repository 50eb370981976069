"""Start, stop, remove, resize: each can be done twice, and checks that the container is ours before it acts.

`container` is a full id, or a name whose labels are looked at first.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from k4t.errors import DockerUnavailable, EngineRefused, NameTaken, PortTaken, StepError
from k4t.model.app import App, Resources
from k4t.node import labels
from k4t.node.body import CPU_PERIOD_US, UNLIMITED_BYTES, in_place
from k4t.node.docker import Engine
from k4t.node.networks import explained
from k4t.remote.sockets import port_holder

FULL_ID = re.compile(r"[0-9a-f]{64}")
LOOK_EVERY_S = 0.2
REMOVAL_LOOKS = 150


def start(engine: Engine, cluster_id: str, container: str) -> None:
    """Raises StepError when it is gone, PortTaken when Docker can't bind a published port, DockerUnavailable when the
    Engine died over it."""
    found = _ours(engine, cluster_id, container)
    if found is None:
        raise _gone(engine, container)
    try:
        engine.start(found)
    except EngineRefused as error:
        if error.status == 404 and "No such container" in error.message:
            raise _gone(engine, container) from error
        if "address already in use" in error.message or "port is already allocated" in error.message:
            raise _port_taken(engine, container, error) from error
        if error.message.endswith("already exists") and "task " in error.message:
            raise _half_started(engine, found, error) from error
        raise explained(error) from error


def stop(engine: Engine, cluster_id: str, container: str, *, grace_s: float = 30.0) -> None:
    """Ask it to end, kill it after `grace_s`. One that is gone or not running is stopped."""
    found = _ours(engine, cluster_id, container)
    if found is not None:
        _forgiving(lambda: engine.stop(found, grace_s))


def remove(engine: Engine, cluster_id: str, container: str) -> None:
    """Remove a stopped container and its anonymous volumes. One that is gone is removed; a running one is refused."""
    found = _ours(engine, cluster_id, container)
    if found is None:
        return
    try:
        _forgiving(lambda: engine.remove(found))
    except EngineRefused as error:
        if "already in progress" not in error.message or not _vanishes(engine, found):
            raise


def resize(engine: Engine, cluster_id: str, container: str, app: App) -> None:
    """Set resources and restart policy as `app` says, while it runs."""
    found = _ours(engine, cluster_id, container)
    if found is None:
        raise _gone(engine, container)
    engine.update(found, in_place(app))


def settings(engine: Engine, container: str) -> tuple[Resources, str] | None:
    """What a container really has of what can change in place: limits and restart policy; None when it is gone."""
    found = engine.inspect(container)
    if found is None:
        return None
    host = found.get("HostConfig") or {}
    quota, memory = int(host.get("CpuQuota") or 0), int(host.get("Memory") or 0)
    resources = Resources(
        cpus=quota / int(host.get("CpuPeriod") or CPU_PERIOD_US) if quota > 0 else None,
        memory_bytes=memory if 0 < memory < UNLIMITED_BYTES else None,
        pids=int(host.get("PidsLimit") or 0),
    )
    return resources, str((host.get("RestartPolicy") or {}).get("Name") or "no")


def name_taken(host: str, name: str, entry: Mapping[str, Any]) -> NameTaken:
    claimed = labels.cluster_of(entry.get("Labels"))
    whose = f"of cluster {claimed}" if claimed else "not made by k4t"
    return NameTaken(
        f"the name {name} is held by container {str(entry.get('Id', ''))[:12]}, {whose}",
        "k4t leaves it alone: rename or remove it on the host",
        host=host,
    )


def _half_started(engine: Engine, container: str, error: EngineRefused) -> DockerUnavailable:
    """The Engine died while it started this one, and can never start it again; one that never ran is taken away."""
    state = str(((engine.inspect(container) or {}).get("State") or {}).get("Status", ""))
    if state != "created":
        remedy = f"its containerd still holds a task of it: restart it on the host, or docker rm {container[:12]}"
        return DockerUnavailable(error.message, remedy, host=engine.host)
    _forgiving(lambda: engine.remove(container))
    said = f"Docker died while it started {container[:12]}, which it can't start any more; it never ran, and is removed"
    return DockerUnavailable(said, "apply again", host=engine.host)


def _port_taken(engine: Engine, name: str, error: EngineRefused) -> PortTaken:
    number = re.search(r":(\d+)(?:/\w+)?(?:: bind| failed)", error.message)
    holder = port_holder(engine.transport, "tcp", int(number[1])) if number else ""
    by = f" by {holder}" if holder else ""
    return PortTaken(
        f"{name} can't have its port, it is taken{by}: {error.message}", "free it and apply again", host=engine.host
    )


def _ours(engine: Engine, cluster_id: str, container: str) -> str | None:
    """The full id to act on; None when there is no such container.

    A full id can only come from a listing or a create of ours, and labels never change. A bare name is looked up:
    the Engine would also take it for the beginning of some other container's id.
    """
    if FULL_ID.fullmatch(container):
        return container
    found = engine.inspect(container)
    if found is None or found.get("Name") != f"/{container}":
        return None
    marks = (found.get("Config") or {}).get("Labels")
    ours = labels.parse(marks)
    if ours is None or ours.cluster != cluster_id:
        raise name_taken(engine.host, container, {"Id": found.get("Id", ""), "Labels": marks})
    return str(found["Id"])


def _gone(engine: Engine, name: str) -> StepError:
    return StepError(f"container {name} is gone", "apply again", host=engine.host)


def _forgiving(act: Callable[[], None]) -> None:
    """What is gone already needs nothing more."""
    try:
        act()
    except EngineRefused as error:
        if error.status != 404:
            raise


def _vanishes(engine: Engine, container: str) -> bool:
    """Someone else's removal of it is under way."""
    for _ in range(REMOVAL_LOOKS):
        if engine.inspect(container) is None:
            return True
        time.sleep(LOOK_EVERY_S)
    return False
