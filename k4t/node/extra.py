"""`<docker file="extra.json">`: the way out, merged into the create call. What k4t owns is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from k4t.errors import StepError
from k4t.model.app import App

OWNED = {
    "Image": "<image>",
    "Labels": "<label>",
    "Env": "<env>",
    "Entrypoint": "<entrypoint>",
    "Cmd": "<command>",
    "User": "<container user>",
    "WorkingDir": "<container workdir>",
    "StopSignal": "<stop signal>",
    "StopTimeout": "<stop grace>",
    "Healthcheck": "<health>",
    "ExposedPorts": "<port>",
    "Volumes": "<volume>",
    "NetworkDisabled": "<network>",
    "NetworkingConfig": "<network>",
    "MacAddress": "<network>",
    "HostConfig.NetworkMode": "<network>",
    "HostConfig.PortBindings": "<port>",
    "HostConfig.PublishAllPorts": "<port>",
    "HostConfig.Dns": "<network resolvers>",
    "HostConfig.DnsSearch": "<network search>",
    "HostConfig.Links": "<depends>",
    "HostConfig.Binds": "<volume>",
    "HostConfig.Mounts": "<volume>",
    "HostConfig.Tmpfs": "<volume>",
    "HostConfig.VolumesFrom": "<volume>",
    "HostConfig.VolumeDriver": "<volume>",
    "HostConfig.RestartPolicy": "<container restart>",
    "HostConfig.AutoRemove": "<container restart>",
    "HostConfig.ReadonlyRootfs": "<container read-only>",
    "HostConfig.Init": "<container init>",
    "HostConfig.CapAdd": "<container cap-add>",
    "HostConfig.CapDrop": "<container cap-drop>",
    "HostConfig.LogConfig": "<log>",
    "HostConfig.CpuPeriod": "<resources cpus>",
    "HostConfig.CpuQuota": "<resources cpus>",
    "HostConfig.NanoCpus": "<resources cpus>",
    "HostConfig.Memory": "<resources memory>",
    "HostConfig.MemorySwap": "<resources memory>",
    "HostConfig.PidsLimit": "<resources pids>",
    "HostConfig.ShmSize": "<resources shm>",
    "HostConfig.DeviceRequests": "<resources gpus>",
}
"""Keys of the create call that an element of app.xml speaks for."""

_PREVAILING = {key.lower(): (key, element) for key, element in OWNED.items()}


def owned(extra: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """The keys in it that are k4t's, each with the element to use. The Engine reads keys in any case."""
    for key, value in extra.items():
        if key.lower() == "hostconfig" and isinstance(value, Mapping):
            yield from (found for inner in value if (found := _PREVAILING.get(f"hostconfig.{inner}".lower())))
        elif found := _PREVAILING.get(key.lower()):
            yield found


def merged(app: App, made: dict[str, Any]) -> dict[str, Any]:
    """`made` with what the app's `<docker>` file adds. Raises StepError for keys that are k4t's."""
    for key, element in owned(app.docker_extra):
        raise StepError(f"apps/{app.name}/{app.docker_file}: {key} is k4t's own", f"use {element} of app.xml for it")
    host_config = {**made["HostConfig"]}
    added: dict[str, Any] = {}
    for key, value in app.docker_extra.items():
        if key.lower() != "hostconfig":
            added[key] = value
        elif isinstance(value, Mapping):
            host_config.update(value)
        else:
            raise StepError(f"apps/{app.name}/{app.docker_file}: HostConfig must be an object")
    return {**made, **added, "HostConfig": host_config}
