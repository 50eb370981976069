"""The bytes of the tree: listed and read safely, as one consistent picture.

Only regular files are opened, through descriptors of their directories and never through a link, so nothing outside
the tree is read and no pipe or device is waited for. What the tree may not hold is a finding, never an exception.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from k4t.errors import Finding, Usage
from k4t.tree.nearest import nearest
from k4t.tree.schema import DIRECTORIES, HOOKS
from k4t.tree.values import NAME, NAME_MAX

XML_MAX_BYTES = 1 << 20
FILES_MAX = 200_000
DEPTH_MAX = 16
NAME_MAX_BYTES = 200
UNVERSIONED = ("known_hosts", "recovery.xml")
"""Facts about machines and keys: no part of what is applied, and of no way back."""
_ROOT_FILES = ("cluster.xml", "monitor.xml", *UNVERSIONED)
SECRET_FILES = ("secrets/recipients", "secrets/digest-key")
_ROOT_DIRECTORIES = (*DIRECTORIES, "apps", "hooks")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
_KINDS |= {stat.S_IFBLK: "a block device", stat.S_IFCHR: "a character device", stat.S_IFDIR: "a directory"}

Signature = tuple[int, int, int, int]


class Changed(Exception):
    """The tree was edited while it was read."""


@dataclass(slots=True)
class Snapshot:
    """Paths are relative to the tree, with `/`. `texts` holds what must be XML; `digests` every file that was read,
    `beside` the files beside each app.xml, by the app's directory (which ends in /)."""

    directory: Path
    texts: dict[str, bytes] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    beside: dict[str, list[str]] = field(default_factory=dict)
    executable: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    seen: dict[str, Signature] = field(default_factory=dict)

    def content(self, path: str, max_bytes: int = XML_MAX_BYTES) -> bytes:
        """A file of an app's directory, as it was when it was read. Raises Changed; ValueError when it is too big."""
        full = self.directory / path
        if (size_bytes := self.seen[path][1]) > max_bytes:
            raise ValueError(f"has {size_bytes} bytes; at most {max_bytes} are allowed")
        try:
            descriptor = os.open(full, _FILE)
        except OSError as error:
            raise Changed from error
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(max_bytes + 1)
        if hashlib.sha256(data).hexdigest() != self.digests[path]:
            raise Changed
        return data

    def verify(self) -> None:
        """Raises Changed when a file or directory is no longer as it was read."""
        root = os.fspath(self.directory)
        for path, signature in self.seen.items():
            try:
                now = os.lstat(f"{root}/{path}")
            except OSError as error:
                raise Changed from error
            if _signature(now) != signature:
                raise Changed

    def sha256(self, under: str = "") -> str:
        """Over the sorted (path relative to `under`, sha256 of the bytes) of all files that count."""
        return digest({path[len(under) :]: d for path, d in self.digests.items() if path.startswith(under)})

    def app_sha256(self) -> dict[str, str]:
        apps: dict[str, dict[str, str]] = {}
        for path, of_bytes in self.digests.items():
            if path.startswith("apps/"):
                _, name, rest = path.split("/", 2)
                apps.setdefault(name, {})[rest] = of_bytes
        return {name: digest(files) for name, files in apps.items()}


def digest(files: Mapping[str, str]) -> str:
    lines = (f"{path}\0{files[path]}\n" for path in sorted(files) if counts(path))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def counts(path: str) -> bool:
    """Whether a file is part of what a tree (or an app) is, and not a note beside it."""
    return path not in UNVERSIONED and not (path.startswith(("README", ".git")) or "/README" in path or "/.git" in path)


def _signature(status: os.stat_result) -> Signature:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_files(directory: Path) -> Snapshot:
    """Every file of the tree. Raises Usage when there is no tree or its directory can't be read."""
    snapshot = Snapshot(directory)
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise no_tree(directory, "no such directory") from None
    except OSError as error:
        raise Usage(f"can't read the tree at {directory}: {error.strerror}", "look at its owner and mode") from None
    try:
        _Walk(snapshot).root(descriptor)
    finally:
        os.close(descriptor)
    if "cluster.xml" not in snapshot.seen and not any(f.file == "cluster.xml" for f in snapshot.findings):
        raise no_tree(directory, "no cluster.xml")
    return snapshot


def no_tree(directory: Path, why: str) -> Usage:
    return Usage(f"no tree at {directory}: {why}", f"`k4t init {directory}` makes one, --db names another")


class _Walk:
    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def root(self, descriptor: int) -> None:
        self._note("", os.fstat(descriptor))
        for entry in self._entries(descriptor, "."):
            name = entry.name
            if ignored(name):
                continue
            if name in _ROOT_DIRECTORIES:
                self._enter(descriptor, name, name, entry)
            elif name in _ROOT_FILES:
                self._read(descriptor, name, name, entry, keep=name != "known_hosts")
            else:
                self._unknown(name, (*_ROOT_DIRECTORIES, *_ROOT_FILES))

    def _enter(self, parent: int, name: str, path: str, entry: os.DirEntry[str]) -> None:
        with self._opened(parent, name, path, entry) as descriptor:
            if descriptor is None:
                return
            self._note(path, os.fstat(descriptor))
            for child in self._entries(descriptor, path):
                if not ignored(child.name):
                    self._one(descriptor, path, child)

    def _one(self, parent: int, kind: str, entry: os.DirEntry[str]) -> None:
        name, path = entry.name, f"{kind}/{entry.name}"
        if kind == "apps":
            if self._named(path, name):
                self._app(parent, name, path, entry)
        elif kind == "hooks":
            self._hook(parent, name, path, entry)
        elif name.endswith(".xml") or (kind == "secrets" and name.endswith(".age")):
            if self._named(path, name[:-4]):
                self._read(parent, name, path, entry, keep=name.endswith(".xml"))
        elif path in SECRET_FILES or (kind == "certificates" and entry.is_file(follow_symlinks=False)):
            self._read(parent, name, path, entry, keep=False)
        elif not self._special(path, entry):
            self._unknown(path, ())

    def _hook(self, parent: int, name: str, path: str, entry: os.DirEntry[str]) -> None:
        if name not in HOOKS:
            self._unknown(path, tuple(f"hooks/{hook}" for hook in HOOKS))
        elif self._read(parent, name, path, entry, keep=False) and path not in self.snapshot.executable:
            self._add(path, "hook-mode", "is not executable", f"chmod +x {path}")

    def _app(self, parent: int, name: str, path: str, entry: os.DirEntry[str], depth: int = 1) -> None:
        with self._opened(parent, name, path, entry) as descriptor:
            if descriptor is None:
                return
            if depth > DEPTH_MAX:
                self._add(path, "too-deep", f"is more than {DEPTH_MAX} directories deep", "use fewer directories")
                return
            self._note(path, os.fstat(descriptor))
            found = False
            for child in self._entries(descriptor, path):
                inner, below = child.name, f"{path}/{child.name}"
                if inner.startswith((".git", ".k4t")):
                    continue
                if child.is_dir(follow_symlinks=False):
                    self._app(descriptor, inner, below, child, depth + 1)
                else:
                    is_app = depth == 1 and inner == "app.xml"
                    found |= is_app
                    if self._read(descriptor, inner, below, child, keep=is_app) and not is_app:
                        app = "/".join(below.split("/", 2)[:2]) + "/"
                        self.snapshot.beside.setdefault(app, []).append(below[len(app) :])
            if depth == 1 and not found:
                self._add(path, "no-app", "has no app.xml", "write one, or remove the directory")

    @contextmanager
    def _opened(self, parent: int, name: str, path: str, entry: os.DirEntry[str]) -> Iterator[int | None]:
        try:
            descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                if not self._special(path, entry):
                    self._add(path, "not-a-directory", "is not a directory", "make it one")
            else:
                self._unreadable(path, error)
            yield None
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _entries(self, descriptor: int, path: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(descriptor) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self._unreadable(path, error)
            return []
        if len(entries) > 1:
            self._clashes(entries, path)
        return [entry for entry in entries if self._nameable(entry.name, path)]

    def _nameable(self, name: str, path: str) -> bool:
        if name.isascii() and name.isprintable() and len(name) <= NAME_MAX_BYTES:
            return True
        shown = _shown(path, name[:60] + "…")
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            self._add(shown, "file-name", "its name is not UTF-8", "rename it")
            return False
        if size > NAME_MAX_BYTES:
            self._add(
                shown, "file-name", f"its name has {size} bytes; at most {NAME_MAX_BYTES} are allowed", "rename it"
            )
        elif not name.isprintable():
            self._add(shown, "file-name", "its name holds control characters", "rename it")
        return size <= NAME_MAX_BYTES and name.isprintable()

    def _clashes(self, entries: list[os.DirEntry[str]], path: str) -> None:
        first: dict[str, str] = {}
        for entry in entries:
            folded = unicodedata.normalize("NFC", entry.name).casefold()
            if (other := first.setdefault(folded, entry.name)) != entry.name:
                place = _shown(path, entry.name)
                message = f"differs from {_shown('', other)} in case or in Unicode form only"
                self._add(place, "name-clash", message, "rename one: some file systems can't hold both")

    def _named(self, path: str, name: str) -> bool:
        if len(name) <= NAME_MAX and NAME.fullmatch(name):
            return True
        message = f"{name!r} is not a name of a-z, 0-9 and -, at most {NAME_MAX} characters, no - at an end"
        self._add(path, "name", message, "rename it")
        return False

    def _read(self, parent: int, name: str, path: str, entry: os.DirEntry[str], keep: bool = True) -> bool:
        if self._special(path, entry):
            return False
        try:
            with os.fdopen(os.open(name, _FILE, dir_fd=parent), "rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise Changed
                if keep and status.st_size > XML_MAX_BYTES:
                    message = f"has {status.st_size} bytes; at most {XML_MAX_BYTES} are allowed"
                    self._add(path, "too-big", message, "split it: one file for one thing")
                    return False
                if keep:
                    self.snapshot.texts[path] = data = file.read(XML_MAX_BYTES + 1)
                    self.snapshot.digests[path] = hashlib.sha256(data).hexdigest()
                else:
                    self.snapshot.digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            self._unreadable(path, error)
            return False
        self._note(path, status)
        if status.st_mode & 0o111:
            self.snapshot.executable.add(path)
        return True

    def _note(self, path: str, status: os.stat_result) -> None:
        if len(self.snapshot.seen) >= FILES_MAX:
            raise Usage(f"the tree at {self.snapshot.directory} holds more than {FILES_MAX} files", "is this a tree?")
        self.snapshot.seen[path] = _signature(status)

    def _special(self, path: str, entry: os.DirEntry[str]) -> bool:
        """Whether it is no regular file (nor one that turned into a directory), said as a finding."""
        if entry.is_file(follow_symlinks=False):
            return False
        try:
            kind = _KINDS.get(stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode), "no regular file")
        except OSError as error:
            raise Changed from error
        remedy = "put the file itself here" if kind == "a symbolic link" else "remove it"
        self._add(path, "not-a-file", f"is {kind}; the tree holds regular files only", remedy)
        return True

    def _unreadable(self, path: str, error: OSError) -> None:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise Changed from error
        self._add(path, "unreadable", f"can't be read: {error.strerror}", "look at its owner and mode")

    def _unknown(self, path: str, known: tuple[str, ...]) -> None:
        remedy = f"did you mean {near}?" if (near := nearest(path, known)) else "remove it; notes go into README files"
        self._add(path, "unknown-file", "is no file of a tree", remedy)

    def _add(self, path: str, code: str, message: str, remedy: str) -> None:
        self.snapshot.findings.append(Finding(path, 0, code, message, remedy))


def _shown(path: str, name: str) -> str:
    """A path for a message, whatever its name holds."""
    if not name.isprintable() or not name.isascii():
        name = name.encode("unicode_escape", "surrogatepass").decode("ascii").replace("\\u2026", "…")
    return f"{path}/{name}".removeprefix("./").removeprefix("/")


def ignored(name: str) -> bool:
    """Notes, git's own, and k4t's own: `.k4t/`, and `.k4t-…` for files on their way into place."""
    return name.startswith(("README", ".git", ".k4t"))
