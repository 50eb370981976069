"""Why an app's containers are other ones than they should be, where the tree as this working copy applied it tells."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from k4t.errors import K4tError
from k4t.master.history import WorkingCopy
from k4t.master.kept import Manifest
from k4t.model.state import Head

FILE_MAX_BYTES = 1 << 20
FILES_MAX = 50


def of_apps(copy: WorkingCopy, head: Head | None, names: Iterable[str]) -> dict[str, str]:
    """By app, in words. Nothing where another copy applied last: what runs isn't what this one knows."""
    serial = copy.base_serial()
    if head is None or serial is None or serial != head.serial:
        return {}
    manifest = copy.store.manifest(serial)
    if manifest is None:
        return {}
    found = {name: _of_app(copy, manifest, name) for name in names if name not in manifest.unknown}
    return {name: words for name, words in found.items() if words}


def _of_app(copy: WorkingCopy, manifest: Manifest, name: str) -> str:
    from k4t.tree.difference import of_app

    tree, before = copy.directory.parent, manifest.of_app(name)
    now = _small_files(tree / "apps" / name)
    if "app.xml" not in before or len(before) > FILES_MAX or len(now) > FILES_MAX:
        return ""
    try:
        then = {path: copy.store.content(sha, path) for path, sha in before.items() if path in now or path == "app.xml"}
        then["cluster.xml"] = copy.store.content(manifest.files["cluster.xml"], "cluster.xml")
    except (K4tError, KeyError):
        return ""
    return of_app(then, {**now, "cluster.xml": _bytes(tree / "cluster.xml")})


def _small_files(directory: Path) -> dict[str, bytes]:
    """Notes and what is too big to be looked at are left out."""
    found = {}
    for base, _, names in os.walk(directory):
        for name in names:
            path = Path(base, name)
            if not name.startswith(("README", ".")) and (data := _bytes(path)):
                found[path.relative_to(directory).as_posix()] = data
            if len(found) > FILES_MAX:
                return found
    return found


def _bytes(path: Path) -> bytes:
    """Of a regular file that is no link; nothing of another one."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return b""
            data = file.read(FILE_MAX_BYTES + 1)
    except OSError:
        return b""
    return data if len(data) <= FILE_MAX_BYTES else b""
