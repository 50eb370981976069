"""The body of the Engine's create call for one container of an app: pure, and compared whole with golden files.

Format: https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerCreate
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from k4t.errors import StepError
from k4t.model.app import App, ExecProbe, File, Health, ImageProbe, Log, Port, Resources, Volume
from k4t.node.extra import merged

CPU_PERIOD_US = 100_000
UNLIMITED_BYTES = 1 << 62
"""Docker can't lift a memory limit (-1 is refused as too small); this one is the kernel's idea of none."""
NANOSECONDS = 1_000_000_000
SIZED_LOGS = ("local", "json-file")
"""The drivers that know max-size and max-file."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a container is given beside its app. `ports`: numbers on `address` by port name. `address6`: the node's
    second address, for published ports. `network`: Docker's network in which `address` is the container's own.

    `secrets`: values by the secret's name. `files`: where each file stands on the node, by its target.
    """

    labels: Mapping[str, str]
    ports: Mapping[str, int] = field(default_factory=dict)
    address: str = ""
    address6: str = ""
    network: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def body(app: App, image: str, given: Given) -> dict[str, Any]:
    """`image` is what the Engine finds it by: repository@digest or an image id.

    Raises StepError for what can't be done yet, a secret without a value, and keys in `<docker>` that are k4t's.
    """
    made: dict[str, Any] = {
        "Image": image,
        "Labels": {**dict(app.labels), **given.labels},
        "Env": environment(app, given),
        "StopTimeout": math.ceil(app.stop.grace_s),
        "HostConfig": _host_config(app, given),
    }
    optional: dict[str, Any] = {
        "Entrypoint": None if app.entrypoint is None else list(app.entrypoint) or [""],
        "Cmd": None if app.command is None else list(app.command),
        "User": app.container.user or None,
        "WorkingDir": app.container.workdir or None,
        "StopSignal": app.stop.signal or None,
        "Healthcheck": _healthcheck(app.health),
        "NetworkingConfig": _networking(app, given),
        "ExposedPorts": {_inside(port): {} for port in app.ports}
        if app.network.mode == "bridge" and app.ports
        else None,
    }
    made |= {key: value for key, value in optional.items() if value is not None}
    return merged(app, made)


def environment(app: App, given: Given) -> list[str]:
    """Sorted NAME=value. PORT and PORT_<NAME> are where the app listens inside, ADDRESS is its own address.

    An app may set them itself, unless k4t has chosen the number.
    """
    told = {port.name for port in app.ports if port.host is not None and app.network.mode == "host"}
    listens = {port.name: _listens(app, port, given) for port in app.ports}
    chosen: dict[str, str] = {}
    usual: dict[str, str] = {"ADDRESS": given.address} if given.address else {}
    for index, port in enumerate(app.ports):
        target = chosen if port.name in told else usual
        target[f"PORT_{port.name.upper().replace('-', '_')}"] = str(listens[port.name])
        if index == 0:
            target["PORT"] = str(listens[port.name])
    own = {env.name: _value(app, env.name, env.value, env.secret, given) for env in app.env}
    return [f"{name}={value}" for name, value in sorted({**usual, **own, **chosen}.items())]


def in_place(app: App) -> dict[str, Any]:
    """The body of the update call: what can change while the container runs. A limit that is gone is lifted."""
    limits = _limits(app.resources)
    return {
        "CpuPeriod": CPU_PERIOD_US,
        "CpuQuota": limits.get("CpuQuota", -1),
        "Memory": limits.get("Memory", UNLIMITED_BYTES),
        "MemorySwap": limits.get("MemorySwap", UNLIMITED_BYTES),
        "PidsLimit": limits["PidsLimit"],
        "RestartPolicy": {"Name": app.container.restart, "MaximumRetryCount": 0},
    }


# --- the parts ---------------------------------------------------------------------------------------------


def _host_config(app: App, given: Given) -> dict[str, Any]:
    settings = app.container
    made: dict[str, Any] = {
        "NetworkMode": _network_mode(app, given),
        "RestartPolicy": {"Name": settings.restart, "MaximumRetryCount": 0},
        "ReadonlyRootfs": settings.read_only,
        "Init": settings.init,
        "LogConfig": _log_config(app.log),
        **_limits(app.resources),
    }
    optional: dict[str, Any] = {
        "CapAdd": list(settings.cap_add),
        "CapDrop": list(settings.cap_drop),
        "Dns": list(app.network.resolvers),
        "DnsSearch": list(app.network.search),
        "Mounts": [*map(_volume, (v for v in app.volumes if not _owned_tmpfs(v))), *_files(app, given)],
        "Tmpfs": {volume.target: _tmpfs_options(volume) for volume in app.volumes if _owned_tmpfs(volume)},
        "PortBindings": _bindings(app, given) if app.network.mode == "bridge" else {},
        "ShmSize": app.resources.shm_bytes,
        "DeviceRequests": _gpus(app.resources.gpus),
    }
    return made | {key: value for key, value in optional.items() if value}


def _network_mode(app: App, given: Given) -> str:
    if app.network.mode not in ("macvlan", "ipvlan"):
        return app.network.mode
    if not given.network or not given.address:
        raise StepError(f'{app.where}: <network mode="{app.network.mode}">: no address was chosen for {app.name}')
    return given.network


def _networking(app: App, given: Given) -> dict[str, Any] | None:
    """The address of its own, where it has one."""
    if app.network.mode not in ("macvlan", "ipvlan"):
        return None
    key = "IPv6Address" if ":" in given.address else "IPv4Address"
    return {"EndpointsConfig": {given.network: {"IPAMConfig": {key: given.address}}}}


def _listens(app: App, port: Port, given: Given) -> int:
    """The number it listens at, in its own network."""
    if app.network.mode != "host" and port.container is not None:
        return port.container
    return _number(app, port, given)


def _number(app: App, port: Port, given: Given) -> int:
    try:
        return given.ports[port.name]
    except KeyError as error:
        raise StepError(f"{port.where}: port {port.name} of {app.name} has no number") from error


def _inside(port: Port) -> str:
    return f"{port.container}/{port.protocol}"


def _bindings(app: App, given: Given) -> dict[str, list[dict[str, str]]]:
    """Published on the node's service addresses (one, or one of each family), never on all of its own."""
    if app.ports and not given.address:
        raise StepError(f"{app.where}: no address to publish the ports of {app.name} on")
    addresses = [address for address in (given.address, given.address6) if address]
    return {
        _inside(port): [{"HostIp": address, "HostPort": str(_number(app, port, given))} for address in addresses]
        for port in app.ports
    }


def _value(app: App, name: str, value: str, secret: str, given: Given) -> str:
    if not secret:
        return value
    try:
        return given.secrets[secret]
    except KeyError as error:
        raise StepError(f'{app.where}: <env name="{name}"> wants the secret {secret}, which has no value') from error


def _limits(resources: Resources) -> dict[str, int]:
    """Period and quota, since `NanoCpus` can't be changed later; swap equals memory: none beyond it."""
    limits = {"PidsLimit": resources.pids}
    if resources.cpus is not None:
        limits |= {"CpuPeriod": CPU_PERIOD_US, "CpuQuota": round(resources.cpus * CPU_PERIOD_US)}
    if resources.memory_bytes is not None:
        limits |= {"Memory": resources.memory_bytes, "MemorySwap": resources.memory_bytes}
    return limits


def _gpus(gpus: str) -> list[dict[str, Any]]:
    """“all”, a number, or the devices' ids with commas between."""
    if not gpus:
        return []
    if gpus == "all" or gpus.isdigit():
        return [{"Driver": "", "Count": -1 if gpus == "all" else int(gpus), "Capabilities": [["gpu"]]}]
    return [{"Driver": "", "DeviceIDs": [word.strip() for word in gpus.split(",")], "Capabilities": [["gpu"]]}]


def _log_config(log: Log) -> dict[str, Any]:
    if log.driver not in SIZED_LOGS:
        return {"Type": log.driver, "Config": {}}
    options = {"max-size": str(log.max_size_bytes), "max-file": str(log.max_files)}
    if log.driver == "local" and log.max_files < 2:
        options["compress"] = "false"  # the driver refuses to compress a single file
    return {"Type": log.driver, "Config": options}


def _healthcheck(health: Health | None) -> dict[str, Any] | None:
    """Docker's own check for exec and image. Where k4t probes, nothing is said, and the image's own is ignored: so
    a probe can be changed without a new container."""
    if health is None or not isinstance(health.probe, (ExecProbe, ImageProbe)):
        return None
    check: dict[str, Any] = {
        "Interval": round(health.interval_s * NANOSECONDS),
        "Timeout": round(health.timeout_s * NANOSECONDS),
        "Retries": health.retries,
        "StartPeriod": round(health.start_period_s * NANOSECONDS),
    }
    return {"Test": ["CMD", *health.probe.args], **check} if isinstance(health.probe, ExecProbe) else check


def _volume(volume: Volume) -> dict[str, Any]:
    mount: dict[str, Any] = {"Target": volume.target, "ReadOnly": volume.read_only}
    if volume.tmpfs_bytes is not None:
        return {"Type": "tmpfs", "TmpfsOptions": {"SizeBytes": volume.tmpfs_bytes}, **mount}
    if volume.path:
        return {"Type": "bind", "Source": volume.path, **mount}
    return {"Type": "volume", "Source": volume.name, **mount}


def _owned_tmpfs(volume: Volume) -> bool:
    """The mounts API knows no owner for a tmpfs, the older way does."""
    return volume.tmpfs_bytes is not None and bool(volume.owner)


def _tmpfs_options(volume: Volume) -> str:
    user, _, group = volume.owner.partition(":")
    options = [f"size={volume.tmpfs_bytes}", f"uid={user}", f"gid={group or user}", "mode=0755"]
    return ",".join(["ro", *options] if volume.read_only else options)


def _files(app: App, given: Given) -> Sequence[dict[str, Any]]:
    return [
        {"Type": "bind", "Source": _placed(app, file, given), "Target": file.target, "ReadOnly": True}
        for file in app.files
    ]


def _placed(app: App, file: File, given: Given) -> str:
    try:
        return given.files[file.target]
    except KeyError as error:
        raise StepError(f'{app.where}: <file target="{file.target}"> is not on the node') from error
