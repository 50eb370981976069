"""What was applied, when and by whom; and the way back to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from k4t.errors import K4tError, Usage
from k4t.master.kept import Files, Manifest, Store
from k4t.model.state import Head, Revision
from k4t.tree import files
from k4t.tree.changes import Edit, File, read
from k4t.tree.read import parse

GONE = files.digest({})
HOSTS = ("nodes/", "gateways/", "dns/")


@dataclass(frozen=True, slots=True)
class Entry:
    """One revision. `result`, `digests` (image reference to digest) and `kept` only where this copy applied it."""

    serial: int
    at: str
    who: str
    message: str
    tree: str
    apps: Mapping[str, str]
    result: str = ""
    kept: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Way:
    """The way back to a revision: files to write and (None) to remove. `vanishing`: apps that it takes away."""

    entry: Entry
    apps: tuple[str, ...]
    changes: Mapping[str, File | None]
    vanishing: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    availability: Mapping[str, str | None] = field(default_factory=dict)

    def take(self, edit: Edit) -> None:
        """A node is as available as it was: that is no part of a revision. Raises K4tError; undo the edit then."""
        for path, content in self.changes.items():
            edit.file(path, content)
        for path, value in self.availability.items():
            edit.attribute(path, "node", "availability", value)


def applied(head: Head | None) -> dict[str, str]:
    """Of every app that the last revisions name, the hash of what was applied last."""
    newest: dict[str, str] = {}
    for revision in head.revisions if head else ():
        newest.update(revision.apps)
    return newest


def entries(head: Head | None, store: Store) -> list[Entry]:
    """Newest first: what the hosts know, and what this copy remembers of it. Without a head, this copy alone."""
    if head is None:
        return [found for serial in store.serials() if (found := _entry(None, store, serial))]
    newest_first = sorted(head.revisions, key=lambda revision: revision.serial, reverse=True)
    return [found for revision in newest_first if (found := _entry(revision, store, revision.serial))]


def _entry(revision: Revision | None, store: Store, serial: int) -> Entry | None:
    record = store.record(serial)
    if record is not None and (revision is None or record.get("apps") == dict(revision.apps)):
        said = {key: str(record.get(key, "")) for key in ("at", "who", "message", "result")}
        tree = revision.tree if revision else str(record.get("tree", ""))
        return Entry(
            serial, tree=tree, apps=record.get("apps", {}), kept="files" in record,
            digests=record.get("digests", {}), **said,
        )  # fmt: skip
    if revision is None:
        return None
    return Entry(serial, revision.at, revision.who, revision.message, revision.tree, revision.apps)


def way_back(
    directory: Path,
    store: Store,
    known: Sequence[Entry],
    *,
    app: str = "",
    to: int | None = None,
    reference: str = "",
    held: Collection[str] = (),
) -> Way:
    """To serial `to`, or before the newest change. `app` "": the whole tree. `reference`: the app's image now, since
    another digest for it is a change too. `held`: apps whose update failed and was undone on the hosts; as the tree
    has them they were never applied, so the newest serial is what they go back to.

    Raises Usage for what never was, K4tError for what isn't kept here."""
    if not known:
        raise Usage("nothing was applied yet, so there is nothing to go back to")
    if to is not None and not known[-1].serial <= to <= known[0].serial:
        raise Usage(f"no serial {to} in history", f"it has {known[-1].serial} to {known[0].serial}: k4t history")
    if to is None and (names := [name for name in ([app] if app else held) if name in held]):
        digests = files.read_files(directory).app_sha256()
        newest = {name: _newest(known, name) for name in names}
        if failed := [one for name, one in newest.items() if one and digests.get(name) != one.apps[name]]:
            to = failed[0].serial if app else known[0].serial
    if not app:
        return _tree_back(directory, store, known, to)
    return _app_back(directory, store, app, *_state(known, app, to, reference), known=known)


def _newest(known: Sequence[Entry], app: str) -> Entry | None:
    """The newest revision that is about an app."""
    return next((one for one in known if app in one.apps), None)


# --- one app -----------------------------------------------------------------------------------------------


def _app_back(directory: Path, store: Store, app: str, entry: Entry, wanted: str, *, known: Sequence[Entry]) -> Way:
    if wanted == GONE:
        raise Usage(f"{app} was not there at serial {entry.serial}", f"k4t app remove {app} takes it away")
    manifest = store.app(app, wanted)
    if manifest is None:
        raise _not_here(entry, f"{app} of serial {entry.serial}", f"apps/{app}")
    start = f"apps/{app}/"
    now = {path: sha for path, sha in files.read_files(directory).digests.items() if path.startswith(start)}
    mine = {path[len(start) :]: sha for path, sha in now.items()}
    newest = next(one.apps[app] for one in known if app in one.apps)
    edited = bool(mine) and files.digest(mine) not in (newest, wanted)
    remarks = (f"{app} has edits that were never applied: they go",) if edited else ()
    then = {path: sha for path, sha in manifest.files.items() if path.startswith(start)}
    return Way(entry, (app,), _changes(directory, store, manifest, now, then), remarks=remarks)


def _state(known: Sequence[Entry], app: str, to: int | None, reference: str) -> tuple[Entry, str]:
    """The newest revision up to `to`, or before the last change of an app, and its hash then."""
    states: list[tuple[Entry, str, str]] = []
    current = next((one.apps[app] for one in known if app in one.apps), None)
    if current is None:
        raise Usage(f"no revision names an app {app!r}", "k4t history shows which do")
    sha, digest = "", ""
    for entry in reversed(known):
        sha = entry.apps.get(app, sha)
        if sha == current and reference:
            digest = entry.digests.get(reference, digest)
        if sha:
            states.append((entry, sha, digest if sha == current else ""))
    if to is not None:
        found = [state for state in states if state[0].serial <= to]
        if not found:
            raise Usage(f"no revision up to {to} names {app}", "k4t history shows which do")
        return found[-1][:2]
    other = [state for state in states if _differs(state, states[-1])]
    if not other:
        raise Usage(f"{app} has never been anything else since serial {states[0][0].serial}")
    return other[-1][:2]


def _differs(one: tuple[Entry, str, str], other: tuple[Entry, str, str]) -> bool:
    """Another hash; or another digest, where both are known."""
    return one[1] != other[1] or bool(one[2] and other[2] and one[2] != other[2])


# --- the whole tree ----------------------------------------------------------------------------------------


def _tree_back(directory: Path, store: Store, known: Sequence[Entry], to: int | None) -> Way:
    entry = next((one for one in known if one.serial <= to), known[-1]) if to is not None else _before(known)
    manifest = store.manifest(entry.serial) if entry.kept else None
    if manifest is None or manifest.unknown:
        what = f"{', '.join(sorted(manifest.unknown))} of serial" if manifest else "serial"
        raise _not_here(entry, f"{what} {entry.serial}", "the tree")
    now = {path: sha for path, sha in files.read_files(directory).digests.items() if path not in files.UNVERSIONED}
    moved = sorted(path for path in now.keys() ^ manifest.files.keys() if path.startswith(HOSTS))
    both = ({path: sha for path, sha in found.items() if path not in moved} for found in (now, manifest.files))
    changes = _changes(directory, store, manifest, *both)
    then = {path.split("/")[1] for path in manifest.files if path.startswith("apps/")}
    present = {path.split("/")[1] for path in now if path.startswith("apps/")}
    remarks = (f"hosts that were added or removed since are left as they are: {', '.join(moved)}",) if moved else ()
    kept = {path: _availability(directory / path) for path in changes if path.startswith("nodes/") and path in now}
    return Way(entry, (), changes, tuple(sorted(present - then)), remarks, kept)


def _before(known: Sequence[Entry]) -> Entry:
    if len(known) < 2:
        raise Usage(f"serial {known[0].serial} is the first that is known", "there is nothing before it")
    return known[1]


def _availability(path: Path) -> str | None:
    found = read(path)
    return parse(found.data, str(path)).attributes.get("availability") if found else None


# --- files -------------------------------------------------------------------------------------------------


def _changes(directory: Path, store: Store, manifest: Manifest, now: Files, then: Files) -> dict[str, File | None]:
    """Everything is loaded before anything is changed. Notes beside the files stay."""
    found: dict[str, File | None] = {}
    for path, sha in sorted(then.items()):
        mode = 0o755 if path in manifest.executable else 0o644
        before = read(directory / path) if path in now else None
        if before is not None and (bool(before.mode & 0o100) == bool(mode & 0o100)):
            mode = before.mode
        if now.get(path) != sha or before is None or before.mode != mode:
            found[path] = File(before.data if before and now.get(path) == sha else store.content(sha, path), mode)
    for path in sorted(now.keys() - then.keys()):
        if files.counts(path):
            found[path] = None
    return found


def _not_here(entry: Entry, what: str, where: str) -> K4tError:
    by = f" ({entry.at}, {entry.who})" if entry.at else ""
    return K4tError(
        f"this working copy doesn't have {what}{by}",
        f"roll back where it was applied; or put {where} back as it was then, from git or a backup, and apply",
    )
