"""What an app's directory adds to it: files to mount, an image's archive, the JSON of the way out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from k4t.errors import Finding
from k4t.model.app import App, File
from k4t.model.shared import Where
from k4t.tree.check import Item
from k4t.tree.files import Snapshot
from k4t.tree.nearest import did_you_mean
from k4t.tree.variables import UnknownVariable, expand, unknown

# Keys of the Engine's create call that elements of app.xml, or k4t itself, decide.
OWNED = frozenset({
    "Image", "Env", "Cmd", "Entrypoint", "User", "WorkingDir", "ExposedPorts", "Healthcheck", "StopSignal",
    "StopTimeout", "Labels", "NetworkDisabled", "NetworkingConfig", "MacAddress",
})  # fmt: skip
OWNED_HOST = frozenset({
    "NetworkMode", "PortBindings", "PublishAllPorts", "Binds", "Mounts", "Tmpfs", "VolumesFrom", "RestartPolicy",
    "AutoRemove", "LogConfig", "Memory", "MemorySwap", "NanoCpus", "CpuQuota", "CpuPeriod", "PidsLimit",
    "ShmSize", "CapAdd", "CapDrop", "ReadonlyRootfs", "Init", "Dns", "DnsSearch", "DeviceRequests",
    "ContainerIDFile", "CgroupParent",
})  # fmt: skip


class Attached:
    """One app's directory, as the snapshot holds it. Raises files.Changed when it isn't so any more."""

    def __init__(self, snapshot: Snapshot, name: str, variables: Mapping[str, str], findings: list[Finding]) -> None:
        self.snapshot = snapshot
        self.prefix = f"apps/{name}/"
        self.variables = variables
        self.findings = findings

    def attach(self, app: App, item: Item) -> App:
        if app.image.archive:
            self._exists(app.image.archive, item.children["image"][0].where, "archive")
        if app.files:
            pairs = zip(app.files, item.all("file"), strict=True)
            app = replace(app, files=tuple(self._file(file, of.where) for file, of in pairs))
        if app.docker_file:
            extra = self._extra(app.docker_file, item.children["docker"][0].where)
            app = replace(app, docker_extra=extra)
        return app

    def _exists(self, name: str, where: Where, what: str) -> bool:
        if self.prefix + name in self.snapshot.digests:
            return True
        known = self.snapshot.beside.get(self.prefix, ())
        remedy = did_you_mean(name, known, f"put it into {self.prefix}")
        self._add(where, "missing-file", f"{what} {name}: no such file in {self.prefix}", remedy)
        return False

    def _file(self, file: File, where: Where) -> File:
        if not file.source or not self._exists(file.source, where, "source"):
            return file
        path = self.prefix + file.source
        if not file.expand:
            return replace(file, sha256=self.snapshot.digests[path])
        try:
            text = expand(self.snapshot.content(path).decode(), self.variables)
        except UnknownVariable as error:
            self.findings.append(unknown(error, path, 0, self.variables))
            return file
        except ValueError as error:
            words = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            self._add(where, "expand", f"{file.source} {words}", 'remove expand="true" or change the file')
            return file
        return replace(file, sha256=hashlib.sha256(text.encode()).hexdigest())

    def _extra(self, name: str, where: Where) -> Mapping[str, object]:
        if not self._exists(name, where, "docker file"):
            return {}
        try:
            extra = json.loads(self.snapshot.content(self.prefix + name))
        except (ValueError, RecursionError) as error:
            self._add(where, "docker-json", f"{name} is not JSON: {error}", "see the Engine's ContainerCreate")
            return {}
        if not isinstance(extra, dict):
            self._add(where, "docker-json", f"{name} is no JSON object", "write {…}")
            return {}
        for key in _owned(extra):
            self._add(where, "docker-owned", f"{name}: {key} belongs to k4t", "use the element of app.xml for it")
        return extra

    def _add(self, where: Where, code: str, message: str, remedy: str) -> None:
        self.findings.append(Finding(where.file, where.line, code, message, remedy))


def _owned(extra: Mapping[str, object]) -> Iterator[str]:
    """The Engine reads keys without regard to case, so this does too."""
    owned, owned_host = {key.lower() for key in OWNED}, {key.lower() for key in OWNED_HOST}
    for key, value in extra.items():
        if key.lower() in owned:
            yield key
        elif key.lower() == "hostconfig":
            if not isinstance(value, dict):
                yield key
            else:
                yield from (f"{key}.{inner}" for inner in value if inner.lower() in owned_host)
