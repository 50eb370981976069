"""Files and directories that must stand on a node before a container can mount them.

A file with `on-change="replace"` is named by its content and shared by all that mount it. A secret, and a file that is
to change under a running container, stands in a directory of that container alone, root's and closed to others, which
goes with it. Docker mounts files by inode: what is renamed into place is seen after the next start, what is written
into the file itself is seen at once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence

from k4t.errors import StepError
from k4t.model.app import App, File, Volume
from k4t.model.value import value
from k4t.node.docker import Engine
from k4t.node.labels import PREFIX
from k4t.remote.transport import Transport

ROOT = "/var/lib/k4t"
_NUMERIC = re.compile(r"[0-9]+(:[0-9]+)?")
_NAME = re.compile(r"[a-z0-9][a-zA-Z0-9_.-]*")


@value
class Placed:
    """One file and where it goes. `private`: in the container's own directory."""

    target: str
    path: str
    data: bytes
    mode: int
    owner: str = ""
    private: bool = False


def is_private(file: File) -> bool:
    return bool(file.secret) or file.on_change != "replace"


def private_directory(cluster_id: str, container: str) -> str:
    """Of one container, by its name."""
    if not _NAME.fullmatch(container):
        raise StepError(f"{container!r} is no container's name")
    return f"{ROOT}/{cluster_id}/containers/{container}"


def files_needed(
    app: App, cluster_id: str, container: str, contents: Mapping[str, bytes], *, user: str = ""
) -> tuple[Placed, ...]:
    """Where each file of `app` goes. `contents` by target, variables expanded, secrets opened; `user`: the image's.

    Raises StepError for a secret whose reader is only known by a name inside the image.
    """
    for file in app.files:
        if file.target not in contents:
            raise StepError(f'{app.where}: <file target="{file.target}"> has no content')
    return tuple(
        _own(app, private_directory(cluster_id, container), file, contents[file.target], user)
        if is_private(file)
        else _shared(f"{ROOT}/{cluster_id}/files", file, contents[file.target])
        for file in app.files
    )


def _own(app: App, directory: str, file: File, data: bytes, user: str) -> Placed:
    name = hashlib.sha256(file.target.encode()).hexdigest()[:16]
    owner = file.owner or (_reader(app, file, user) if file.secret else "")
    return Placed(file.target, f"{directory}/{name}", data, file.mode, owner, private=True)


def _shared(directory: str, file: File, data: bytes) -> Placed:
    """Mode and owner belong to the file itself, so they are part of what it is called by."""
    digest = hashlib.sha256(b"%o %s\n" % (file.mode, file.owner.encode()) + data).hexdigest()
    return Placed(file.target, f"{directory}/{digest}", data, file.mode, file.owner)


def _reader(app: App, file: File, image_user: str) -> str:
    """Who runs in the container, as the host can name it; "" for root."""
    user = app.container.user or image_user
    if user.partition(":")[0] in ("", "root"):
        return ""
    if not _NUMERIC.fullmatch(user):
        raise StepError(
            f'{app.where}: <file target="{file.target}"> is for the user {user}, whose number only the image knows',
            'give its number: owner="UID"',
        )
    return user


def put_files(transport: Transport, files: Sequence[Placed]) -> dict[str, str]:
    """Put what is missing, and what is private in any case; returns the paths by target."""
    if not files:
        return {}
    missing = _missing(transport, [file.path for file in files if not file.private])
    if private := next((file.path for file in files if file.private), ""):
        directory = private.rpartition("/")[0]
        _run(transport, ["mkdir", "-p", "-m", "700", "--", directory], f"{directory} can't be made")
    for file in files:
        if file.private or file.path in missing:
            transport.put(file.path, file.data, file.mode)
        if file.owner:
            _run(transport, ["chown", "--", file.owner, file.path], f"{file.target} can't be given to {file.owner}")
    return {file.target: file.path for file in files}


def _missing(transport: Transport, paths: Sequence[str]) -> set[str]:
    if not paths:
        return set()
    script = 'for file; do [ -f "$file" ] || echo "$file"; done'
    return set(transport.run(["sh", "-c", script, "sh", *paths]).stdout.decode().split("\n"))


def discard(transport: Transport, cluster_id: str, container: str) -> None:
    """Take away what was a removed container's alone. Nothing there is fine."""
    directory = private_directory(cluster_id, container)
    _run(transport, ["rm", "-rf", "--", directory], f"{directory} can't be removed")


def left_behind(transport: Transport, cluster_id: str, names: Collection[str]) -> tuple[str, ...]:
    """Containers that files of their own stand for, and that are none of `names`: removed by hand, or never created."""
    script = 'for one in "$1"/*/; do [ -d "$one" ] && echo "$one"; done; :'
    done = transport.run(["sh", "-c", script, "sh", f"{ROOT}/{cluster_id}/containers"])
    found = (line.rstrip("/").rpartition("/")[2] for line in done.stdout.decode("utf-8", "replace").splitlines())
    return tuple(sorted(name for name in found if _NAME.fullmatch(name) and name not in names))


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
