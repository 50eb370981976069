"""The Engine's calls as lines of the docker program, for people who do by hand what k4t would do. Pure.

https://docs.docker.com/reference/cli/docker/container/create/
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from k4t.command import quote
from k4t.node.body import NANOSECONDS

Json = Mapping[str, Any]
SAID = {
    *("Image", "Labels", "Env", "StopTimeout", "Entrypoint", "Cmd", "User", "WorkingDir", "StopSignal", "Healthcheck"),
    *("ExposedPorts", "HostConfig", "NetworkMode", "RestartPolicy", "ReadonlyRootfs", "Init", "LogConfig", "CapAdd"),
    *("CapDrop", "Dns", "DnsSearch", "Mounts", "Tmpfs", "PortBindings", "ShmSize", "DeviceRequests", "CpuPeriod"),
    *("CpuQuota", "Memory", "MemorySwap", "PidsLimit", "NetworkingConfig"),
}


def create(name: str, body: Json) -> list[str]:
    """`docker create` with what `body` says; see `unsaid` for what it has no words for."""
    host: Json = body.get("HostConfig") or {}
    entrypoint = list(body.get("Entrypoint") or [])
    words = ["docker", "create", "--name", name]
    for key, value in sorted(body["Labels"].items()):
        words += ["--label", f"{key}={value}"]
    for text in body["Env"]:
        words += ["--env", text]
    words += [*_settings(body), *_health(body.get("Healthcheck")), *_host(host), *_own_address(body)]
    if entrypoint:
        words += ["--entrypoint", entrypoint[0]]
    return [*words, body["Image"], *entrypoint[1:], *(body.get("Cmd") or [])]


def unsaid(body: Json) -> list[str]:
    """Keys that have no word in `create`, as those of <docker file>."""
    own = [key for key, value in body.items() if key not in SAID and value]
    return sorted(own + [key for key, value in (body.get("HostConfig") or {}).items() if key not in SAID and value])


def update(name: str, body: Json) -> list[str]:
    """`docker update`, of what changes in place."""
    return ["docker", "update", *_limits(body), "--restart", body["RestartPolicy"]["Name"], name]


def network(body: Json) -> list[str]:
    """`docker network create`, of what k4t.node.networks asks for."""
    words = ["docker", "network", "create", "--driver", body["Driver"]]
    words += ["--internal"] if body["Internal"] else []
    words += ["--ipv6"] if body["EnableIPv6"] else []
    for config in body["IPAM"]["Config"]:
        words += [word for key, flag in (("Subnet", "--subnet"), ("Gateway", "--gateway")) if key in config
                  for word in (flag, config[key])]  # fmt: skip
    words += [word for key, value in body["Options"].items() for word in ("--opt", f"{key}={value}")]
    words += [word for key, value in body["Labels"].items() for word in ("--label", f"{key}={value}")]
    return [*words, body["Name"]]


def _own_address(body: Json) -> Iterator[str]:
    for endpoint in ((body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}).values():
        for key, flag in (("IPv4Address", "--ip"), ("IPv6Address", "--ip6")):
            if key in endpoint["IPAMConfig"]:
                yield from (flag, endpoint["IPAMConfig"][key])


def _settings(body: Json) -> Iterator[str]:
    for flag, key in (
        ("--stop-timeout", "StopTimeout"), ("--stop-signal", "StopSignal"), ("--user", "User"),
        ("--workdir", "WorkingDir"),
    ):  # fmt: skip
        if body.get(key):
            yield from (flag, str(body[key]))


def _health(check: Json | None) -> Iterator[str]:
    """`--health-cmd` goes through the container's shell, so the words are quoted for one."""
    if not check:
        return
    test = list(check.get("Test") or [])
    if test:
        yield from ("--health-cmd", quote(test[1:]))
    for flag, key in (
        ("--health-interval", "Interval"), ("--health-timeout", "Timeout"), ("--health-start-period", "StartPeriod"),
    ):  # fmt: skip
        if check.get(key):
            yield from (flag, f"{round(check[key] / NANOSECONDS * 1000)}ms")
    if check.get("Retries"):
        yield from ("--health-retries", str(check["Retries"]))


def _host(host: Json) -> Iterator[str]:
    yield from ("--network", host["NetworkMode"])
    yield from ("--restart", (host.get("RestartPolicy") or {}).get("Name") or "no")
    yield from (flag for flag, key in (("--read-only", "ReadonlyRootfs"), ("--init", "Init")) if host.get(key))
    log: Json = host.get("LogConfig") or {}
    if log.get("Type"):
        yield from ("--log-driver", log["Type"])
        for key, value in sorted((log.get("Config") or {}).items()):
            yield from ("--log-opt", f"{key}={value}")
    for flag, key in (
        ("--cap-add", "CapAdd"),
        ("--cap-drop", "CapDrop"),
        ("--dns", "Dns"),
        ("--dns-search", "DnsSearch"),
    ):
        for value in host.get(key) or ():
            yield from (flag, value)
    yield from _mounts(host)
    for inside, bindings in sorted((host.get("PortBindings") or {}).items()):
        for binding in bindings:
            ip = binding["HostIp"]
            yield from ("--publish", f"{f'[{ip}]' if ':' in ip else ip}:{binding['HostPort']}:{inside}")
    yield from _limits(host)
    if host.get("ShmSize"):
        yield from ("--shm-size", str(host["ShmSize"]))
    for request in host.get("DeviceRequests") or ():
        devices = request.get("DeviceIDs")
        count = "all" if request.get("Count") == -1 else str(request.get("Count"))
        yield from ("--gpus", f'"device={",".join(devices)}"' if devices else count)


def _limits(host: Json) -> Iterator[str]:
    for flag, key in (
        ("--cpu-period", "CpuPeriod"), ("--cpu-quota", "CpuQuota"), ("--memory", "Memory"),
        ("--memory-swap", "MemorySwap"), ("--pids-limit", "PidsLimit"),
    ):  # fmt: skip
        if host.get(key):
            yield from (flag, str(host[key]))


def _mounts(host: Json) -> Iterator[str]:
    for mount in host.get("Mounts") or ():
        fields = [f"type={mount['Type']}", f"target={mount['Target']}"]
        fields += [f"source={mount['Source']}"] if mount.get("Source") else []
        fields += ["readonly"] if mount.get("ReadOnly") else []
        size = (mount.get("TmpfsOptions") or {}).get("SizeBytes")
        fields += [f"tmpfs-size={size}"] if size else []
        yield from ("--mount", _row(fields))
    for target, options in sorted((host.get("Tmpfs") or {}).items()):
        yield from ("--tmpfs", f"{target}:{options}")


def _row(fields: list[str]) -> str:
    """docker reads the fields of a mount as one line of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(fields)
    return text.getvalue()
