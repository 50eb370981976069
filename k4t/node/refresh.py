"""Files that change under a running container, and telling it.

Docker has mounted each file itself, not its name: the new content is written into the file, after all of it has come to
the node. What the container has is then remembered beside it, since its label can't change. Cut off at any point, the
same call does it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from k4t.errors import StepError
from k4t.model.app import App
from k4t.node.docker import Engine
from k4t.node.files import files_needed, private_directory
from k4t.node.labels import pairs_read, pairs_written
from k4t.remote.transport import Transport

RESTART = "restart"
MAX_STATE_BYTES = 64 * 1024
_INTO = 'cat -- "$1" >"$2" && rm -f -- "$1"'


def refresh(
    engine: Engine,
    cluster_id: str,
    name: str,
    container: str,
    app: App,
    *,
    contents: Mapping[str, bytes],
    files: Sequence[tuple[str, str]],
    signals: Sequence[str],
) -> None:
    """Write the files of `app` (those that change), tell the container, remember `files` (hashes by target).

    `container` is a full id. Raises StepError when it is gone, and what Engine and transport raise.
    """
    found = engine.inspect(container)
    if found is None:
        raise StepError(f"container {name} is gone", "apply again", host=engine.host)
    user = str((found.get("Config") or {}).get("User") or "")
    for file in files_needed(app, cluster_id, name, contents, user=user):
        engine.transport.put(f"{file.path}.new", file.data, 0o600)
        done = engine.transport.run(["sh", "-c", _INTO, "sh", f"{file.path}.new", file.path])
        if not done.ok:
            raise StepError(f"{file.target} can't be written: {done.words()}", host=engine.host)
    for signal in signals:
        if signal == RESTART:
            engine.restart(container, app.stop.grace_s)
        else:
            engine.kill(container, signal)
    engine.transport.put(state_path(cluster_id, name), pairs_written(files).encode(), 0o600)


def remembered(transport: Transport, cluster_id: str, name: str) -> tuple[tuple[str, str], ...]:
    """The hashes of what a container has, where that is no longer what its label says; else nothing."""
    data = transport.get(state_path(cluster_id, name), max_bytes=MAX_STATE_BYTES)
    return pairs_read(data.decode("utf-8", "replace")) if data else ()


def state_path(cluster_id: str, name: str) -> str:
    """Where the hashes of a container's own files stand, once they differ from its label."""
    return f"{private_directory(cluster_id, name)}/state"
