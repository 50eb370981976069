"""Files and directories that must stand on a node before a container can mount them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from k4t.errors import StepError
from k4t.model.spec import App, File, Volume
from k4t.node.docker import Engine
from k4t.node.labels import PREFIX
from k4t.remote.transport import Transport

ROOT = "/var/lib/k4t"


@dataclass(frozen=True, slots=True)
class Placed:
    """One file, named by its content: what is there already is right, and a running container keeps the old one."""

    target: str
    path: str
    data: bytes
    mode: int
    owner: str = ""


def files_needed(app: App, cluster_id: str, contents: Mapping[str, bytes]) -> tuple[Placed, ...]:
    """Where each file of `app` goes. `contents` by target, variables expanded, secrets opened."""
    return tuple(_placed(app, cluster_id, file, contents) for file in app.files)


def _placed(app: App, cluster_id: str, file: File, contents: Mapping[str, bytes]) -> Placed:
    """Mode and owner belong to the file itself, so they are part of what it is called by."""
    if file.target not in contents:
        raise StepError(f'{app.where}: <file target="{file.target}"> has no content')
    data = contents[file.target]
    digest = hashlib.sha256(b"%o %s\n" % (file.mode, file.owner.encode()) + data).hexdigest()
    return Placed(file.target, f"{ROOT}/{cluster_id}/files/{digest}", data, file.mode, file.owner)


def put_files(transport: Transport, files: tuple[Placed, ...]) -> dict[str, str]:
    """Put what is missing; returns the paths by target."""
    if not files:
        return {}
    script = 'for file; do [ -f "$file" ] || echo "$file"; done'
    asked = transport.run(["sh", "-c", script, "sh", *(file.path for file in files)])
    missing = set(asked.stdout.decode().split("\n"))
    for file in files:
        if file.path in missing:
            transport.put(file.path, file.data, file.mode)
        if file.owner:
            _run(transport, ["chown", "--", file.owner, file.path], f"{file.target} can't be given to {file.owner}")
    return {file.target: file.path for file in files}


def make_volumes(engine: Engine, cluster_id: str, app: App) -> None:
    """Make the directories and named volumes that a writable mount wants, owned as the tree says."""
    for volume in app.volumes:
        if volume.path and not volume.read_only:
            _make_directory(engine.transport, volume)
        elif volume.name and volume.owner:
            labels = {f"{PREFIX}cluster": cluster_id, f"{PREFIX}app": app.name}
            mountpoint = str(engine.create_volume(volume.name, labels)["Mountpoint"])
            _own_when_empty(engine.transport, mountpoint, volume)


def _make_directory(transport: Transport, volume: Volume) -> None:
    """What is there (a directory, a socket) stays as it is."""
    owner = volume.owner or "root"
    script = '[ -e "$1" ] || { mkdir -p -- "$1" && chown -- "$2" "$1"; }'
    _run(transport, ["sh", "-c", script, "sh", volume.path, owner], f"{volume.path} can't be made")


def _own_when_empty(transport: Transport, path: str, volume: Volume) -> None:
    script = '[ -n "$(ls -A -- "$1")" ] || chown -- "$2" "$1"'
    _run(transport, ["sh", "-c", script, "sh", path, volume.owner], f"volume {volume.name} can't be given away")


def _run(transport: Transport, argv: list[str], failed: str) -> None:
    done = transport.run(argv)
    if not done.ok:
        raise StepError(f"{failed}: {done.words()}", host=transport.host)
