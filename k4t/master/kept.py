"""The tree's files as they were at each of the last revisions, in `.k4t/` of the working copy.

`objects/SHA256` holds one content, compressed; each revision lists its files by path and sha256. What is a secret
is encrypted in the tree already. Everything is written beside its place, synced and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from k4t.errors import K4tError
from k4t.model.value import value
from k4t.tree import files
from k4t.tree.edit import sync_directory

MAX_KEPT_BYTES = 16 << 20
"""Image archives and other large files are not copied; they are known by their hash."""
REVISIONS_KEPT = 100
TIDY_EVERY = 16
Files = Mapping[str, str]


@value
class Manifest:
    """The files of one revision: path to sha256. `unknown`: apps whose applied files this copy never saw."""

    serial: int
    files: Files
    executable: frozenset[str]
    unknown: frozenset[str] = frozenset()

    def of_app(self, name: str) -> dict[str, str]:
        """By their paths inside the app's directory."""
        return _of_app(self.files, name)


class Store:
    """`directory` is `.k4t/`. Reading what isn't there answers None or nothing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.objects = directory / "objects"
        self.revisions = directory / "revisions"

    def keep(self, tree: Path, applied: Files) -> dict[str, Any]:
        """Keep what the tree holds now; answers what the revision's record says about it. `applied`: of every app the
        hash of what was applied last. An app that was edited since is listed as it was applied. Raises K4tError."""
        snapshot = files.read_files(tree)
        now = {path: sha for path, sha in snapshot.digests.items() if path not in files.UNVERSIONED}
        found = {path: sha for path, sha in now.items() if not path.startswith("apps/")}
        executable = {path for path in snapshot.executable if path in now}
        unknown = []
        present = _by_app(now)
        for name in sorted(present.keys() | applied.keys()):
            mine, wanted = present.get(name, {}), applied.get(name)
            if wanted is not None and (not mine or files.digest(mine) != wanted):
                earlier = self._seen(name, wanted)
                if earlier is None and wanted != files.digest({}):
                    unknown.append(name)
                mine = earlier or {}
            found |= {f"apps/{name}/{path}": sha for path, sha in mine.items()}
        self._store(snapshot, {path for path, sha in found.items() if now.get(path) == sha})
        return {"files": found, "executable": sorted(executable & found.keys()), "unknown": unknown}

    def manifest(self, serial: int) -> Manifest | None:
        record = self.record(serial)
        if record is None or "files" not in record:
            return None
        return Manifest(
            serial, record["files"], frozenset(record.get("executable", ())), frozenset(record.get("unknown", ()))
        )

    def record(self, serial: int) -> dict[str, Any] | None:
        """A revision as it was remembered; None for none and for one that is damaged."""
        try:
            found = json.loads((self.revisions / f"{serial:06}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def serials(self) -> list[int]:
        """Newest first."""
        try:
            names = os.listdir(self.revisions)
        except OSError:
            return []
        return sorted(
            (int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit()), reverse=True
        )

    def app(self, name: str, wanted: str) -> Manifest | None:
        """The newest revision that has an app as this hash says."""
        for manifest in self._manifests():
            if name not in manifest.unknown and (mine := manifest.of_app(name)) and files.digest(mine) == wanted:
                return manifest
        return None

    def content(self, sha256: str, path: str) -> bytes:
        """Raises K4tError when it isn't kept, or is damaged."""
        try:
            data = zlib.decompress((self.objects / sha256).read_bytes())
        except FileNotFoundError:
            raise K4tError(
                f"{path} of then is not kept (sha256 {sha256[:12]}…): it may be larger than {MAX_KEPT_BYTES >> 20} MiB",
                "put it back by hand, then try again",
            ) from None
        except (OSError, zlib.error) as error:
            raise K4tError(f"can't read {self.objects / sha256}: {error}") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise K4tError(f"{self.objects / sha256} is damaged", "put the files back from git, and apply")
        return data

    def tidy(self) -> None:
        """Only the newest revisions stay, and (looked for now and then) only contents that one of them names."""
        serials = self.serials()
        for serial in serials[REVISIONS_KEPT:]:
            (self.revisions / f"{serial:06}.json").unlink(missing_ok=True)
        if not serials or serials[0] % TIDY_EVERY or not self.objects.is_dir():
            return
        used = {sha for manifest in self._manifests() for sha in manifest.files.values()}
        for name in os.listdir(self.objects):
            if name not in used:
                (self.objects / name).unlink(missing_ok=True)

    def _manifests(self) -> Iterator[Manifest]:
        for serial in self.serials()[:REVISIONS_KEPT]:
            if (manifest := self.manifest(serial)) is not None:
                yield manifest

    def _seen(self, name: str, wanted: str) -> dict[str, str] | None:
        manifest = self.app(name, wanted)
        return manifest.of_app(name) if manifest else None

    def _store(self, snapshot: files.Snapshot, paths: Iterable[str]) -> None:
        try:
            self.objects.mkdir(mode=0o700, exist_ok=True)
            new = False
            for path in sorted(paths):
                target = self.objects / snapshot.digests[path]
                if not target.exists() and snapshot.seen[path][1] <= MAX_KEPT_BYTES:
                    _write(target, zlib.compress(snapshot.content(path, MAX_KEPT_BYTES), 6))
                    new = True
            if new:
                sync_directory(self.objects)
        except files.Changed as error:
            raise K4tError("the tree was edited while it was kept: this revision can't be gone back to") from error
        except OSError as error:
            raise K4tError(f"can't write {self.objects}: {error.strerror}") from error


def _by_app(found: Files) -> dict[str, dict[str, str]]:
    """Of each app, its files by their paths inside its directory."""
    apps: dict[str, dict[str, str]] = {}
    for path, sha in found.items():
        if path.startswith("apps/"):
            _, name, rest = path.split("/", 2)
            apps.setdefault(name, {})[rest] = sha
    return apps


def _of_app(found: Files, name: str) -> dict[str, str]:
    start = f"apps/{name}/"
    return {path[len(start) :]: sha for path, sha in found.items() if path.startswith(start)}


def _write(path: Path, data: bytes) -> None:
    temporary = path.parent / f".k4t-{secrets.token_hex(6)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
