"""One consistent picture of a working copy, packed: the same tree gives the same archive, byte for byte.

In it: all files of the tree (`tree.files`), known_hosts, recovery.xml, README files and .gitignore; and of `.k4t/` the
revisions, their contents, the redo log (its whole records), the audit log (its whole lines), `base` and `lineage`. Not
in it: git's files, locks, temporary files, and what `.k4t/` remembers of this machine alone.

The archive is a tar file: sorted by path, no owners, no times, modes 0644, 0755 (programs) and 0600 (`.k4t/`). Paths,
sizes and contents alone make its bytes; `unpack` reads no other.

Files of more than 1 MiB are only referred to (`parts`): they are read when a part of them is wanted.

Memory: the archive, without large files.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from k4t.errors import InvalidTree, K4tError, LogRefused, Usage
from k4t.master.backup.parts import LARGE_BYTES, LIST, NO_LARGE, PART_BYTES, Large, LargeFiles, list_text
from k4t.master.backup.snapshot import ARCHIVE_MAX_BYTES
from k4t.master.backup.unpack import BLOCK, END, GITIGNORE, header, padded
from k4t.master.history import WorkingCopy
from k4t.master.publication import redolog
from k4t.model.snapshot import Lineage
from k4t.model.value import value
from k4t.tree import files
from k4t.tree.files import Changed, Signature
from k4t.tree.schema import DIRECTORIES

ATTEMPTS = 8
PAUSE_S = 0.05
TICK_NS = 20_000_000
COPY_BYTES = 1 << 20
OWN = ".k4t"
_OWN_DIRECTORIES = ("revisions", "objects")
_OWN_FILES = ("base", "lineage")
_LOGS = (redolog.NAME, "audit.jsonl")
_README = "README"
_README_MAX_BYTES = 1 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@value
class Picture:
    """A working copy as it was at one moment. `serial`: what it applied last, 0 for nothing. `lineage`: whose history
    that is, if it knows. `notes`: what is not in the archive and should be told. `large`: the files that the archive
    refers to, as long as nobody changes them."""

    archive: bytes
    serial: int
    lineage: Lineage | None
    notes: tuple[str, ...] = ()
    large: LargeFiles = NO_LARGE


def picture(db: Path) -> Picture:
    """Taken again while somebody edits meanwhile, at most ATTEMPTS times.

    Raises Usage when there is no tree, or none that holds still; InvalidTree for what can't be copied (links, names,
    files that can't be read); K4tError for one that is too large."""
    for attempt in range(ATTEMPTS):
        try:
            return _Picture(db).taken()
        except Changed:
            time.sleep(PAUSE_S * (attempt + 1))
    raise Usage(f"the tree at {db} changes while it is copied ({ATTEMPTS} attempts)", "try again when it is quiet")


@value
class _File:
    """What is to be packed: from disk, or (`data`) as it was read. `size_bytes` and `sha256` must hold then."""

    mode: int
    size_bytes: int
    data: bytes | None = None
    sha256: str = ""


class _Picture:
    def __init__(self, db: Path) -> None:
        self.db = db
        self.started_ns = time.time_ns()
        self.snapshot = files.read_files(db)
        if self.snapshot.findings:
            raise InvalidTree(self.snapshot.findings)
        self.found: dict[str, _File] = {}
        self.seen: dict[str, Signature | None] = {}
        self.notes: list[str] = []
        self.large: list[Large] = []

    def taken(self) -> Picture:
        self._tree()
        for directory in ("", *DIRECTORIES, "apps", "hooks"):
            self._readmes(directory)
        self._own()
        self._limit()
        self._set_aside()
        archive = self._packed()
        copy = WorkingCopy(self.db)
        serial, lineage = copy.base_serial() or 0, copy.lineage()
        self._verify()
        large = LargeFiles(tuple(self.large), _Chunks(self.db, self.large), {}) if self.large else NO_LARGE
        return Picture(archive, serial, lineage, tuple(self.notes), large)

    # --- what is in it --------------------------------------------------------------------------------------------

    def _tree(self) -> None:
        for path, sha256 in self.snapshot.digests.items():
            mode = 0o755 if path in self.snapshot.executable else 0o644
            data = self.snapshot.texts.get(path)
            self.found[path] = _File(mode, self.snapshot.seen[path][1], data, sha256)

    def _readmes(self, directory: str) -> None:
        """Notes of people: no part of the tree, and worth keeping all the same."""
        for name, status in self._listing(directory):
            wanted = name.startswith(_README) or (name == GITIGNORE and not directory)
            if not wanted or not stat.S_ISREG(status.st_mode) or not _portable(name):
                continue
            if status.st_size <= _README_MAX_BYTES:
                self._add(f"{directory}/{name}" if directory else name, status, 0o644)

    def _own(self) -> None:
        for directory in _OWN_DIRECTORIES:
            self._note(f"{OWN}/{directory}")
            for name, status in self._listing(f"{OWN}/{directory}"):
                if stat.S_ISREG(status.st_mode) and not name.startswith(".") and _portable(name):
                    self._add(f"{OWN}/{directory}/{name}", status, 0o600)
        for name in _OWN_FILES:
            try:
                self._add(f"{OWN}/{name}", os.lstat(self.db / OWN / name), 0o600)
            except (FileNotFoundError, NotADirectoryError):
                self.seen[f"{OWN}/{name}"] = None
        for name in _LOGS:
            self._log(name)

    def _log(self, name: str) -> None:
        """Logs grow at their end, and an unfinished end is no news: they need not hold still."""
        data = self._read(f"{OWN}/{name}")
        if data is None:
            return
        if name == redolog.NAME:
            try:
                data = data[: redolog.parse(data).whole_bytes]
            except LogRefused as error:
                self.notes.append(f"the redo log is not in this copy: {error.message}")
                return
        else:
            data = data[: data.rfind(b"\n") + 1]
        self.found[f"{OWN}/{name}"] = _File(0o600, len(data), data)

    def _add(self, path: str, status: os.stat_result, mode: int) -> None:
        if not stat.S_ISREG(status.st_mode):
            return
        self.seen[path] = _signature(status)
        self.found[path] = _File(mode, status.st_size)

    def _note(self, path: str) -> None:
        with contextlib.suppress(OSError):
            self.seen[path] = _signature(os.lstat(self.db / path))

    def _listing(self, directory: str) -> Iterator[tuple[str, os.stat_result]]:
        try:
            with os.scandir(self.db / directory) as entries:
                for entry in entries:
                    if not entry.name.startswith(".k4t"):
                        yield entry.name, entry.stat(follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise K4tError(
                f"can't read {self.db / directory}: {error.strerror}", "look at its owner and mode"
            ) from error

    def _limit(self) -> None:
        total = sum(one.size_bytes for one in self.found.values())
        largest = sorted(self.found, key=lambda path: self.found[path].size_bytes, reverse=True)[:3]
        if total > ARCHIVE_MAX_BYTES - (len(self.found) + 1) * 4 * BLOCK:
            named = ", ".join(f"{path} ({self.found[path].size_bytes >> 20} MiB)" for path in largest)
            raise K4tError(
                f"the tree holds {total >> 20} MiB; a copy takes at most {ARCHIVE_MAX_BYTES >> 20} MiB: {named}",
                "keep large images in a registry",
            )
        if len(self.found) > files.FILES_MAX:
            raise K4tError(f"the tree and its history hold {len(self.found)} files; at most {files.FILES_MAX} fit")

    def _set_aside(self) -> None:
        """Large files: a list of them comes into the archive instead."""
        for path in sorted(
            path for path, one in self.found.items() if one.data is None and one.size_bytes > LARGE_BYTES
        ):
            one = self.found.pop(path)
            chunks = (one.sha256,) if one.sha256 and one.size_bytes <= PART_BYTES else self._hashed(path, one)
            self.large.append(Large(path, one.mode, one.size_bytes, chunks))
        if self.large:
            text = list_text(self.large)
            self.found[LIST] = _File(0o600, len(text), text)

    def _hashed(self, path: str, one: _File) -> tuple[str, ...]:
        left, chunks = one.size_bytes, []
        with self._opened(path) as file:
            while left > 0:
                size_bytes = min(left, PART_BYTES)
                chunks.append(_sha256(file, size_bytes))
                left -= size_bytes
        return tuple(chunks)

    # --- the archive ----------------------------------------------------------------------------------------------

    def _packed(self) -> bytes:
        out = io.BytesIO()
        for path in sorted(self.found):
            one = self.found[path]
            out.write(header(path, one.mode, one.size_bytes))
            if one.data is not None:
                if len(one.data) != one.size_bytes:
                    raise Changed
                out.write(padded(one.data))
            else:
                self._copy(path, one, out)
        out.write(END)
        return out.getvalue()

    def _copy(self, path: str, one: _File, out: io.BytesIO) -> None:
        left = one.size_bytes
        digest = hashlib.sha256() if one.sha256 else None
        with self._opened(path) as file:
            while chunk := file.read(min(COPY_BYTES, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise Changed
                out.write(chunk)
                if digest is not None:
                    digest.update(chunk)
        if left or (digest is not None and digest.hexdigest() != one.sha256):
            raise Changed
        out.write(bytes(-one.size_bytes % BLOCK))

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[io.BufferedReader]:
        try:
            descriptor = os.open(self.db / path, _FILE)
        except FileNotFoundError as error:
            raise Changed from error
        except OSError as error:
            raise K4tError(f"can't read {self.db / path}: {error.strerror}", "look at its owner and mode") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Changed
        with os.fdopen(descriptor, "rb") as file:
            yield file

    def _read(self, path: str) -> bytes | None:
        try:
            if not stat.S_ISREG(os.lstat(self.db / path).st_mode):
                return None
        except (FileNotFoundError, NotADirectoryError):
            return None
        with self._opened(path) as file:
            return file.read()

    def _verify(self) -> None:
        """Raises Changed when anything is no longer as it was read. A file that was changed a moment before may have
        been changed again within the same tick of the file system's clock: its contents are compared."""
        self.snapshot.verify()
        for path, sha256 in self.snapshot.digests.items():
            if self.snapshot.seen[path][3] > self.started_ns - TICK_NS:
                with self._opened(path) as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                        raise Changed
        for path, before in self.seen.items():
            try:
                now = _signature(os.lstat(self.db / path))
            except OSError:
                now = None
            if now != before:
                raise Changed


class _Chunks:
    """Pieces of large files, by their sha256, as they were when the picture was taken."""

    def __init__(self, db: Path, large: Sequence[Large]) -> None:
        self._db = db
        self._places: dict[str, tuple[str, int, int]] = {}
        for one in large:
            for number, chunk in enumerate(one.chunks):
                start = number * PART_BYTES
                self._places.setdefault(chunk, (one.path, start, min(PART_BYTES, one.size_bytes - start)))

    def __call__(self, chunk: str) -> bytes:
        """Raises K4tError when it is no longer there."""
        path, start, size_bytes = self._places[chunk]
        try:
            with os.fdopen(os.open(self._db / path, _FILE), "rb") as file:
                file.seek(start)
                data = file.read(size_bytes)
        except OSError as error:
            raise K4tError(f"can't read {self._db / path}: {error.strerror}", "try again when it is quiet") from error
        if hashlib.sha256(data).hexdigest() != chunk:
            raise K4tError(f"{self._db / path} was changed while it was copied", "try again when it is quiet")
        return data


def _sha256(file: io.BufferedReader, size_bytes: int) -> str:
    """Of the next bytes. Raises Changed when there are not so many."""
    digest, left = hashlib.sha256(), size_bytes
    while left > 0:
        data = file.read(min(COPY_BYTES, left))
        if not data:
            raise Changed
        digest.update(data)
        left -= len(data)
    return digest.hexdigest()


def _signature(status: os.stat_result) -> Signature:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _portable(name: str) -> bool:
    """Whether it can be put back: what else stands there is not k4t's."""
    return name.isprintable() and "\\" not in name and len(name.encode("utf-8", "replace")) <= files.NAME_MAX_BYTES
