"""Copies as they are found: on targets, in a directory here, in one file. Looked at, verified, opened. Changes nothing.

A target that can't be asked is unknown, never empty. What a header says counts when its signature does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from k4t.errors import BadCopy, K4tError, Usage
from k4t.master.backup import memory, snapshot, unpack
from k4t.master.backup.choose import NO_ORDER, Candidate, Live, Shown, broken_chain, rolled_back
from k4t.master.backup.compare import File, Files
from k4t.master.backup.envelope import LINE_MAX_BYTES
from k4t.master.backup.judge import Trust, remembered
from k4t.master.backup.keys import Keys
from k4t.master.backup.parts import split_line
from k4t.master.backup.target import ALL, MAX_COPY_BYTES, Header, Target
from k4t.master.backup.target_scripts import LACKS, PARTS
from k4t.master.fleet import Fleet, at_once
from k4t.master.lineage import heads
from k4t.master.planning import lineage
from k4t.master.planning.serials import newest
from k4t.model.snapshot import Confirmation, Manifest
from k4t.model.value import value
from k4t.tree import files
from k4t.tree.age import NoIdentity

SUFFIX = ".snapshot"
MAX_FILES = 100_000
ATTEMPTS = 5


class Source(Protocol):
    """Where copies are: `target.Target`, or `Folder`."""

    name: str

    def shelf(self) -> tuple[list[Header], bytes]:
        """Name, size and first line of each copy; the confirmation's bytes."""
        ...

    def sums(self, names: Iterable[str]) -> Mapping[str, str]:
        """Of each file, by name, the sha256 of what follows its first line."""
        ...

    def fetch(self, name: str, size_bytes: int = MAX_COPY_BYTES) -> bytes:
        """`size_bytes`: as it was shown; nobody waits for more."""
        ...

    def part(self, name: str) -> bytes:
        """Of a large file (`parts`)."""
        ...


class Folder:
    """Copies on this machine: one file, or all in a directory. `name` is its path, as it was given."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path

    def shelf(self) -> tuple[list[Header], bytes]:
        """Raises Usage when there is nothing to read."""
        if not self._path.is_dir():
            return [self._header(self._path.name)], b""
        try:
            names = sorted(name for name in os.listdir(self._path) if name.endswith(SUFFIX))[:MAX_FILES]
        except OSError as error:
            raise Usage(
                f"can't read {self._path}: {error.strerror}", "--from names a node, a file or a directory"
            ) from None
        confirmed = b""
        with suppress(OSError, K4tError):
            confirmed = self._read("confirmed", LINE_MAX_BYTES)[0]
        return [self._header(name) for name in names], confirmed

    def sums(self, names: Iterable[str]) -> Mapping[str, str]:
        looked_at: dict[str, str] = {}
        return {name: self._sum(name, looked_at) for name in names}

    def _sum(self, name: str, looked_at: dict[str, str]) -> str:
        payload = self.fetch(name).partition(b"\n")[2]
        with suppress(BadCopy):
            for part in split_line(memoryview(payload))[0]:
                if part.name not in looked_at:
                    looked_at[part.name] = _part(self, part.name)
                if looked_at[part.name]:
                    return LACKS
        return hashlib.sha256(payload).hexdigest()

    def fetch(self, name: str, size_bytes: int = MAX_COPY_BYTES) -> bytes:
        return self._read(name, size_bytes + 1)[0]

    def part(self, name: str) -> bytes:
        """Out of `parts/` beside the copies. Raises BadCopy when it isn't there."""
        beside = self._path if self._path.is_dir() else self._path.parent
        try:
            return Folder(beside / PARTS / name).fetch(name)
        except Usage as error:
            raise BadCopy(f"a large file of it is not beside it: {error.message}", "take parts/ too") from None

    def _header(self, name: str) -> Header:
        data, size_bytes = self._read(name, LINE_MAX_BYTES + 1)
        return name, size_bytes, data.split(b"\n", 1)[0]

    def _read(self, name: str, limit_bytes: int) -> tuple[bytes, int]:
        path = self._path / name if self._path.is_dir() else self._path
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise Usage(f"{path} is no regular file", "--from names a node, a file or a directory")
                return file.read(limit_bytes), status.st_size
        except OSError as error:
            raise Usage(f"can't read {path}: {error.strerror}", "--from names a node, a file or a directory") from None


class Remote:
    """Copies on a target of the tree."""

    def __init__(self, target: Target) -> None:
        self.name = target.name
        self._target = target

    def shelf(self) -> tuple[list[Header], bytes]:
        found = self._target.look(ALL)
        return list(found.headers), found.confirmed

    def sums(self, names: Iterable[str]) -> Mapping[str, str]:
        return self._target.sums(names)

    def fetch(self, name: str, size_bytes: int = MAX_COPY_BYTES) -> bytes:
        return self._target.fetch(name, size_bytes)

    def part(self, name: str) -> bytes:
        return self._target.part(name)


# --- looking ---------------------------------------------------------------------------------------------------------


@value
class Place:
    """A source, and how it is opened: that raises what connecting raises. `every_s`: its period, 0 for none."""

    name: str
    open: Callable[[], Source]
    every_s: float = 0.0


@value
class Shelf:
    """What one source shows; `error`: it couldn't be asked. `confirmed`: of which of its copies it was said last that
    the tree is still that; `problem`: of that statement."""

    name: str
    candidates: tuple[Candidate, ...] = ()
    confirmed: Confirmation | None = None
    problem: str = ""
    error: K4tError | None = None
    source: Source | None = None
    every_s: float = 0.0

    @property
    def newest(self) -> Manifest | None:
        found = [one.manifest for one in self.candidates if one.manifest and one.good]
        return max(found, key=lambda manifest: manifest.order, default=None)


def shelves(places: Sequence[Place], trust: Trust, keys: Keys | None = None) -> list[Shelf]:
    """All of them at once, in order. `keys`: where this machine has them, it knows whose a confirmation is."""
    marks = {snapshot.target_mark(keys, place.name): place.name for place in places} if keys else {}
    return at_once(lambda place: _shelf(place, trust, marks), places)


def _shelf(place: Place, trust: Trust, marks: Mapping[str, str]) -> Shelf:
    try:
        source = place.open()
        headers, statement = source.shelf()
    except Usage:
        raise
    except K4tError as error:
        return Shelf(place.name, error=error, every_s=place.every_s)
    candidates = tuple(_candidate(place.name, header, trust) for header in headers)
    confirmed, problem = _confirmed(statement, trust, place.name, candidates, marks)
    return Shelf(place.name, candidates, confirmed, problem, source=source, every_s=place.every_s)


def _candidate(target: str, header: Header, trust: Trust) -> Candidate:
    name, size_bytes, line = header
    try:
        manifest = snapshot.check(line + b"\n" if line else b"", cluster=trust.cluster, cluster_key=trust.key)
    except BadCopy as error:
        return Candidate(target, name, size_bytes, problem=error.message, claimed=snapshot.order_of(name) or NO_ORDER)
    digest = snapshot.digest(manifest)
    problem = ""
    if size_bytes != len(line) + 1 + manifest.size_bytes:
        problem = f"it has {size_bytes} bytes instead of {len(line) + 1 + manifest.size_bytes}: cut off or longer"
    return Candidate(target, name, size_bytes, manifest, digest, problem)


def _confirmed(
    statement: bytes, trust: Trust, target: str, candidates: Iterable[Candidate], marks: Mapping[str, str]
) -> tuple[Confirmation | None, str]:
    """`marks`: what stands for a target's name, where this machine made the statement."""
    if not statement:
        return None, ""
    try:
        found = snapshot.check_confirmation(statement, cluster=trust.cluster, cluster_key=trust.key)
    except BadCopy as error:
        return None, f"its confirmation: {error.message}"
    if (other := marks.get(found.target, target)) != target:
        return None, f"its confirmation is that of {other}"
    good = {one.digest: one.manifest.sequence for one in candidates if one.good and one.manifest}
    if found.snapshot in good:
        return found, ""
    if found.sequence < max(good.values(), default=0):  # newer ones came after it, and it made room for them
        return None, ""
    return None, "its confirmation is of a copy that it doesn't have"


def live(fleet: Fleet) -> Live:
    """What the heads say, of all hosts at once. A host that doesn't answer is unknown."""
    heard = heads(fleet)
    found = [one.head for one in heard if one.head is not None]
    top = newest(found)
    answered = sum(one.error is None for one in heard)
    return Live(len(heard), answered, top.serial if top else 0, lineage.newest(found))


# --- verifying -------------------------------------------------------------------------------------------------------


@value
class Verified:
    """What was found about all copies on all targets. `read`: how many were brought here; `opened`: how many archives
    were opened and looked through, `unopened`: why not. `faults`: of targets and of the chain."""

    candidates: tuple[Candidate, ...]
    faults: tuple[str, ...]
    read: int = 0
    opened: int = 0
    unopened: str = ""


def verify(
    found: Sequence[Shelf], trust: Trust, written: Mapping[str, tuple[int, int, int]], *,
    read_data: bool = False, identities: Callable[[], list[Any]] | None = None,
) -> Verified:  # fmt: skip
    """Every copy: its signature, its sha256 where it is; with `read_data` its bytes here, opened if an identity is at
    hand. And all of them together: whether each follows the one before, and whether any target was rolled back.
    `written`: by target, the newest that this machine wrote there."""
    asked = [shelf for shelf in found if shelf.source is not None]
    keys, why = _identities(identities) if read_data else ([], "")
    done = at_once(lambda shelf: _checked(shelf, trust, read_data=read_data, identities=keys), asked)
    candidates = [one for checked, _ in done for one in checked]
    good = [(one.digest, one.manifest) for one in candidates if one.manifest and one.good]
    faults = [f"{name}: {said}" for name, said in held_back(found, written).items()]
    faults += [f"{shelf.name}: {shelf.problem}" for shelf in asked if shelf.problem]
    faults += broken_chain(dict(good).items())
    opened = sum(count for _, count in done)
    read = sum(len(shelf.candidates) for shelf in asked) if read_data else 0
    return Verified(tuple(candidates), tuple(faults), read, opened, why)


def held_back(found: Sequence[Shelf], written: Mapping[str, tuple[int, int, int]]) -> dict[str, str]:
    """By target, why what it shows is less than it was given."""
    asked = [shelf for shelf in found if shelf.source is not None]
    return rolled_back([Shown(shelf.name, shelf.newest, written.get(shelf.name)) for shelf in asked])


def _identities(ask: Callable[[], list[Any]] | None) -> tuple[list[Any], str]:
    try:
        return (ask() if ask else []), ""
    except NoIdentity as error:
        return [], error.words


def _checked(shelf: Shelf, trust: Trust, *, read_data: bool, identities: list[Any]) -> tuple[list[Candidate], int]:
    source = shelf.source
    assert source is not None  # noqa: S101 - who asks has looked
    good = [one for one in shelf.candidates if one.good]
    problems: dict[str, str] = {}
    opened = 0
    if read_data:
        looked_at: dict[str, str] = {}
        for one in good:
            problem, was_opened = _read(source, one, trust, identities, looked_at)
            problems[one.name] = problem
            opened += was_opened
    elif good:
        sums = source.sums(one.name for one in good)
        for one in good:
            if one.manifest and sums.get(one.name) == LACKS:
                problems[one.name] = "a part of a large file that it needs is missing or damaged"
            elif one.manifest and sums.get(one.name) != one.manifest.sha256:
                problems[one.name] = "its contents are not those that were signed (sha256)"
    found = [dataclasses.replace(one, problem=one.problem or problems.get(one.name, "")) for one in shelf.candidates]
    return found, opened


def _read(
    source: Source, one: Candidate, trust: Trust, identities: list[Any], looked_at: dict[str, str]
) -> tuple[str, bool]:
    """What is wrong with it, and whether it was opened. `looked_at`: parts of large files, by name what is wrong with
    them: many copies have the same, and each is fetched once."""
    try:
        data = source.fetch(one.name, one.size_bytes)
        found = snapshot.check(data, cluster=trust.cluster, cluster_key=trust.key)
        if found != one.manifest:
            return "another copy came than the one whose header was shown", False
        needed = snapshot.parts_of(data, found)
        try:
            _, archive, _ = snapshot.core(data, cluster=trust.cluster, cluster_key=trust.key, identities=identities)
            unpack.listed(archive)
            was_opened = True
        except NoIdentity:
            was_opened = False
    except K4tError as error:
        return error.message, False
    for part in needed:
        if part.name not in looked_at:
            looked_at[part.name] = _part(source, part.name)
    return next((problem for part in needed if (problem := looked_at[part.name])), ""), was_opened


def _part(source: Source, name: str) -> str:
    """What is wrong with it. Its name is signed, and tells its bytes."""
    try:
        right = hashlib.sha256(source.part(name)).hexdigest() == name
    except K4tError as error:
        return error.message
    return "" if right else "a part of a large file that it needs is damaged"


# --- opening ---------------------------------------------------------------------------------------------------------


def opened(
    source: Source, one: Candidate, trust: Trust, identities: Callable[[], list[Any]], *, under: str = ""
) -> bytes:
    """The archive of a copy; large files whose path does not begin with `under` are left out. Raises BadCopy with the
    reason, NoIdentity, and what fetching raises."""
    data = source.fetch(one.name, one.size_bytes)
    keys = identities() if one.manifest is None or one.manifest.encrypted else []
    found, archive = snapshot.contents(
        data, cluster=trust.cluster, cluster_key=trust.key, identities=keys, part=source.part, under=under
    )
    if found != one.manifest:
        raise BadCopy("another copy came than the one whose header was shown")
    unpack.listed(archive)
    return archive


def files_of(archive: bytes) -> Files:
    """What stands in it, by path. Raises BadCopy."""
    entries = unpack.listed(archive)
    return {path: File(unpack.content(archive, entry), entry.mode == 0o755) for path, entry in entries.items()}


def tree_files(directory: Path) -> Files:
    """What stands in the tree, as far as it can be read. Raises Usage when there is none, or none that holds still."""
    for _ in range(ATTEMPTS):
        with suppress(files.Changed):
            found = files.read_files(directory)
            contents = {path: found.content(path, MAX_COPY_BYTES) for path in found.digests}
            return {path: File(data, path in found.executable) for path, data in contents.items()}
    raise Usage(f"the tree at {directory} changes while it is read ({ATTEMPTS} attempts)", "try again when it is quiet")


def written(db: Path, trust: Trust) -> dict[str, tuple[int, int, int]]:
    """By target, the newest copy that this working copy left there, as it remembers."""
    headers = {name: remembered(one.header, trust) for name, one in memory.load(db, trust.cluster).targets.items()}
    return {name: known.manifest.order for name, known in headers.items() if known is not None}
