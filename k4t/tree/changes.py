"""What commands change in the tree: one attribute, one element or whole files, each with its way back."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from k4t.errors import K4tError, Usage
from k4t.model.app import App
from k4t.model.hosts import Availability, Node
from k4t.tree.edit import set_attribute, set_text, sync_directory, write_file
from k4t.tree.read import parse


@dataclass(frozen=True, slots=True)
class File:
    data: bytes
    mode: int = 0o644


class Edit:
    """The files that one command changes, as they were and as it left them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._before: dict[Path, File | None] = {}
        self._after: dict[Path, File | None] = {}
        self._aside: dict[Path, Path] = {}

    @property
    def paths(self) -> list[Path]:
        """The files that are other than they were, and directories that are gone."""
        return [*(path for path, before in self._before.items() if before != self._after[path]), *self._aside]

    def attribute(self, path: str, element: str, name: str, value: str | None) -> None:
        """One attribute, set or (None) gone. Raises as `edit.set_attribute`."""
        self._around(path, lambda full: set_attribute(full, element, name, value))

    def text(self, path: str, element: str, text: str) -> None:
        """The text of one element. Raises as `edit.set_text`."""
        self._around(path, lambda full: set_text(full, element, text))

    def file(self, path: str, content: File | None) -> None:
        """A whole file, or (None) none. Directories come and go with what is in them."""
        self._around(path, lambda full: self._put(full, content))

    def without(self, path: str) -> None:
        """A directory goes, with all that is in it, however large: it is put aside until `close`."""
        full = self.directory / path
        aside = full.parent / f".k4t-{secrets.token_hex(6)}"
        self._rename(full, aside)
        self._aside[full] = aside

    def close(self) -> None:
        """The change stands: what was put aside is removed. Nothing can be undone any more."""
        for aside in self._aside.values():
            shutil.rmtree(aside, ignore_errors=True)
        self._before, self._after, self._aside = {}, {}, {}

    def undo(self) -> list[Path]:
        """Put everything back; answers the files that somebody else has changed since, which stay as they are."""
        theirs = []
        for path, aside in self._aside.items():
            if os.path.lexists(path):
                theirs.append(path)
            else:
                self._rename(aside, path)
        for path in reversed([path for path in self.paths if path not in self._aside]):
            if read(path) != self._after[path]:
                theirs.append(path)
            else:
                self._put(path, self._before[path])
        self._before, self._after, self._aside = {}, {}, {}
        return theirs

    def _rename(self, old: Path, new: Path) -> None:
        try:
            old.rename(new)
            sync_directory(new.parent)
        except OSError as error:
            raise K4tError(f"can't remove {old}: {error.strerror}") from error

    def _around(self, path: str, change: Callable[[Path], object]) -> None:
        full = self.directory / path
        before = read(full)
        change(full)
        self._before.setdefault(full, before)
        self._after[full] = read(full)

    def _put(self, path: Path, content: File | None) -> None:
        try:
            if content is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_file(path, content.data, content.mode)
            elif os.path.lexists(path):
                path.unlink()
                sync_directory(path.parent)
                self._tidy(path.parent)
        except OSError as error:
            raise K4tError(f"can't change {path}: {error.strerror}") from error

    def _tidy(self, directory: Path) -> None:
        """An app's directory, and those in it, end with their last file."""
        while len(directory.relative_to(self.directory).parts) > 1 and not any(directory.iterdir()):
            directory.rmdir()
            directory = directory.parent


def read(path: Path) -> File | None:
    """A regular file as it is; None when there is none. Raises K4tError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise K4tError(f"can't read {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Usage(f"{path} is no regular file")
        return File(file.read(), stat.S_IMODE(status.st_mode))


# --- apps --------------------------------------------------------------------------------------------------


def check_count(app: App, count: int) -> None:
    """Raises Usage for an app that can't have this number of replicas."""
    if app.per_node:
        raise Usage(f"{app.where}: {app.name} runs once on each node", 'write replicas="N" to give it a number')
    if app.scale is not None and not app.scale.min <= count <= app.scale.max:
        raise Usage(
            f"{app.scale.where}: {app.name} has {app.scale.min} to {app.scale.max} replicas, not {count}",
            "name a number between them, or change min and max of its <scale>",
        )


def scale(edit: Edit, app: App, count: int) -> None:
    """The number of replicas of an app that has one in the tree. Raises Usage where it can't be set there."""
    check_count(app, count)
    if app.scale is not None:
        raise Usage(f"{app.scale.where}: how many replicas {app.name} has is not in the tree", "set <scale min= max=>")
    edit.attribute(_path(app), "app", "replicas", str(count))


def image(edit: Edit, app: App, reference: str) -> None:
    """Another reference; `:TAG` and `@DIGEST` keep the repository, as it is written. Raises Usage for an archive."""
    if app.image.archive:
        raise Usage(f"{app.where}: the image of {app.name} comes out of {app.image.archive}", "replace the archive")
    edit.text(_path(app), "image", renamed(_written(edit, app), reference))


def renamed(old: str, reference: str) -> str:
    """`reference`, or the old repository with its tag or digest."""
    if not reference.startswith((":", "@")):
        return reference
    head, slash, last = old.partition("@")[0].rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}{reference}"


def _written(edit: Edit, app: App) -> str:
    """The reference before variables are expanded; the resolved one where a default provides it."""
    found = read(edit.directory / _path(app))
    children = parse(found.data, _path(app)).children if found else []
    return next((child.text for child in children if child.tag == "image"), app.image.reference)


def restart(edit: Edit, app: App) -> None:
    """Another number: another spec, so new containers."""
    edit.attribute(_path(app), "app", "restart", str(app.restart + 1))


def stop(edit: Edit, app: App) -> None:
    if not app.stopped:
        edit.attribute(_path(app), "app", "stopped", "true")


def start(edit: Edit, app: App) -> None:
    """The attribute goes; where the cluster's defaults say stopped, it says otherwise."""
    if app.stopped:
        edit.attribute(_path(app), "app", "stopped", "false" if _has_default(edit, "app", "stopped") else None)


def _path(app: App) -> str:
    return f"apps/{app.name}/app.xml"


# --- nodes -------------------------------------------------------------------------------------------------


def availability(edit: Edit, node: Node, wanted: Availability) -> None:
    """`active` is what a node is without the attribute, unless the cluster's defaults have one."""
    if node.availability == wanted:
        return
    plain = wanted == "active" and not _has_default(edit, "node", "availability")
    edit.attribute(f"nodes/{node.name}.xml", "node", "availability", None if plain else wanted)


def _has_default(edit: Edit, kind: str, name: str) -> bool:
    found = read(edit.directory / "cluster.xml")
    roots = parse(found.data, "cluster.xml").children if found else []
    defaults = (child for root in roots if root.tag == "defaults" for child in root.children)
    return any(child.tag == kind and name in child.attributes for child in defaults)
