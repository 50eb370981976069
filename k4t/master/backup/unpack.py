"""Archives of a copy, read and extracted: regular files and the directories that they need, and nothing else.

An archive is a tar file as `pack` writes it and as nothing else does: each header must be, byte for byte, what
`header` makes of the path, mode and size that it tells. So there are no links, devices or sparse files, no owners,
times or extensions that could mean something to anybody. Everything is looked at before anything is written.

Memory: the archive, which the caller holds, and one entry for each file.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from k4t.errors import BadCopy, K4tError
from k4t.model.value import value
from k4t.tree.check import cut
from k4t.tree.files import FILES_MAX, NAME_MAX_BYTES

BLOCK = 512
END = bytes(2 * BLOCK)
PATH_MAX_BYTES = 3800
DEPTH_MAX = 20
GITIGNORE = ".gitignore"
OWN_LISTS = frozenset({".k4t/large", ".k4t/parts"})
"""See `parts`."""
MODES = (0o644, 0o755, 0o600)
_SHORT_PATH_BYTES = 100
_PAX_NAME = "k4t-path"
_KINDS = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a character device", b"4": "a block device",
    b"5": "a directory", b"6": "a named pipe", b"7": "a contiguous file", b"g": "a global extension",
    b"L": "a GNU long name", b"K": "a GNU long link", b"S": "a sparse file",
}  # fmt: skip
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@value
class Entry:
    """A file of an archive: its contents stand at `start`."""

    path: str
    mode: int
    size_bytes: int
    start: int


def header(path: str, mode: int, size_bytes: int) -> bytes:
    """What stands before a file's contents: a ustar header; before that, for a long path or one that is not ASCII, a
    pax one (POSIX.1-2001) with the path."""
    name = path.encode()
    if len(name) <= _SHORT_PATH_BYTES and name.isascii():
        return _block(name, mode, size_bytes, b"0")
    record = b" path=" + name + b"\n"
    length = len(record) + 1
    while len(str(length)) + len(record) != length:
        length = len(str(length)) + len(record)
    said = str(length).encode() + record
    return (
        _block(_PAX_NAME.encode(), 0o644, len(said), b"x")
        + padded(said)
        + _block(_PAX_NAME.encode(), mode, size_bytes, b"0")
    )


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def _block(name: bytes, mode: int, size_bytes: int, kind: bytes) -> bytes:
    before = name.ljust(100, b"\0") + b"%07o\0" % mode + b"0000000\0" * 2 + b"%011o\0" % size_bytes + b"00000000000\0"
    after = kind + bytes(100) + b"ustar\x0000" + bytes(BLOCK - 265)
    total = sum(before) + 8 * ord(" ") + sum(after)
    return before + b"%06o\0 " % total + after


# --- looking -----------------------------------------------------------------------------------------------------


def listed(archive: bytes) -> Mapping[str, Entry]:
    """All files by path, in the archive's order. Raises BadCopy for the first thing that should not be in it."""
    found: dict[str, Entry] = {}
    names = _Names()
    place = 0
    while archive[place : place + BLOCK] != END[:BLOCK]:
        entry = _entry(archive, place)
        if len(found) >= FILES_MAX:
            raise BadCopy(f"its archive holds more than {FILES_MAX} files")
        names.add(entry.path)
        found[entry.path] = entry
        place = entry.start + entry.size_bytes + -entry.size_bytes % BLOCK
    if archive[place:] != END:
        raise BadCopy("its archive goes on after its end")
    return found


def member(archive: bytes, path: str) -> bytes | None:
    """The contents of one file; None when there is none. Raises BadCopy."""
    entry = listed(archive).get(path)
    return None if entry is None else content(archive, entry)


def content(archive: bytes, entry: Entry) -> bytes:
    return archive[entry.start : entry.start + entry.size_bytes]


def _entry(archive: bytes, place: int) -> Entry:
    block = archive[place : place + BLOCK]
    if len(block) < BLOCK:
        raise BadCopy(f"its archive is cut off at byte {place}")
    kind, start, extended = block[156:157], place + BLOCK, b""
    if kind == b"x":
        size_bytes = _octal(block[124:136], place)
        if size_bytes > PATH_MAX_BYTES + 100:
            raise BadCopy(f"its archive has an extension of {size_bytes} bytes at byte {place}")
        extended = archive[start : start + size_bytes]
        start += size_bytes + -size_bytes % BLOCK
        block = archive[start : start + BLOCK]
        kind, start = block[156:157], start + BLOCK
    path = _path(block, extended, place)
    if kind != b"0":
        what = _KINDS.get(kind, f"an entry of kind {kind!r}")
        raise BadCopy(f"its archive holds {what}: {cut(path)}; regular files only are let out of one")
    mode, size_bytes = _octal(block[100:108], place), _octal(block[124:136], place)
    if start + size_bytes + -size_bytes % BLOCK + len(END) > len(archive):
        raise BadCopy(f"its archive says that {cut(path)} has {size_bytes} bytes, and there are not so many")
    _check_path(path)
    if mode not in MODES or header(path, mode, size_bytes) != archive[place:start]:
        raise BadCopy(f"its archive is not as k4t writes it, at byte {place} ({cut(path)})")
    if any(archive[start + size_bytes : start + size_bytes + -size_bytes % BLOCK]):
        raise BadCopy(f"its archive is not as k4t writes it, after {cut(path)}")
    return Entry(path, mode, size_bytes, start)


def _octal(digits: bytes, place: int) -> int:
    try:
        found = int(digits.rstrip(b"\0 "), 8)
    except ValueError:
        found = -1
    if found < 0:
        raise BadCopy(f"its archive is not one, at byte {place}")
    return found


def _path(block: bytes, extended: bytes, place: int) -> str:
    name = block[:100].rstrip(b"\0")
    if prefix := block[345:500].rstrip(b"\0"):
        name = prefix + b"/" + name
    if extended:
        _, found, rest = extended.partition(b" path=")
        if not found:
            raise BadCopy(f"its archive has an extension that k4t doesn't write, at byte {place}")
        name = rest.removesuffix(b"\n")
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise BadCopy(f"its archive holds a name that is not UTF-8, at byte {place}") from None


def _check_path(path: str) -> None:
    parts = path.split("/")
    if path.startswith("/"):
        raise BadCopy(f"its archive holds an absolute path: {cut(path)}")
    if ".." in parts or "." in parts or "" in parts:
        raise BadCopy(f"its archive holds a path that is none of a tree: {cut(path) or 'an empty one'}")
    if not path.isprintable() or "\\" in path:
        raise BadCopy(f"its archive holds a name with characters that no name has: {cut(path)}")
    if len(path.encode()) > PATH_MAX_BYTES or len(parts) > DEPTH_MAX:
        raise BadCopy(f"its archive holds a path that is too long or too deep: {cut(path)}")
    for part in parts:
        if len(part.encode()) > NAME_MAX_BYTES:
            raise BadCopy(f"its archive holds a name of {len(part.encode())} bytes: {cut(part)}")
        if part.casefold().startswith(".git") and path != GITIGNORE:
            raise BadCopy(f"its archive holds what is git's: {cut(path)}")


class _Names:
    """No two paths may be one on some file system, and none may be a file here and a directory there."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._directories: dict[str, str] = {"": ""}

    def add(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if parent not in self._directories or self._directories[parent] != parent:
            self._enter(parent)
        folded = _folded(path)
        if (other := self._files.get(folded)) is not None:
            how = "twice" if other == path else f"beside {cut(other)}, which some file systems can't tell from it"
            raise BadCopy(f"its archive holds {cut(path)} {how}")
        if folded in self._directories:
            raise BadCopy(f"its archive holds {cut(path)} as a file and as a directory")
        self._files[folded] = path

    def _enter(self, directory: str) -> None:
        parts = directory.split("/") if directory else []
        for count in range(1, len(parts) + 1):
            path = "/".join(parts[:count])
            folded = _folded(path)
            if folded in self._files:
                raise BadCopy(f"its archive holds {cut(path)} as a file and as a directory")
            if (other := self._directories.setdefault(folded, path)) != path:
                raise BadCopy(f"its archive holds {cut(path)} beside {cut(other)}, which some file systems can't tell")


def _folded(path: str) -> str:
    return path.lower() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


# --- writing -----------------------------------------------------------------------------------------------------


def unpack(archive: bytes, into: Path) -> None:
    """Write all files into a directory of their own: made here (mode 0700), or empty. Nothing is synced: who puts it
    into place does that, once for all of it (`swap.sync_all`).

    Raises BadCopy before anything is written; K4tError with the path when something can't be written, and what there
    is by then is for the caller to remove."""
    entries = listed(archive)
    if not OWN_LISTS.isdisjoint(entries):
        raise BadCopy("its archive refers to large files that are not in it")
    try:
        with contextlib.suppress(FileExistsError):
            into.mkdir(mode=0o700)
        root = os.open(into, _DIRECTORY)
    except OSError as error:
        raise K4tError(f"can't write {into}: {error.strerror}", "name another directory") from error
    try:
        if os.listdir(root):
            raise K4tError(f"{into} is not empty", "name a directory that isn't there")
        _write_all(archive, entries, root)
    except OSError as error:
        raise K4tError(f"can't write {into}: {error.strerror}", "nothing was put into place") from error
    finally:
        os.close(root)


def _write_all(archive: bytes, entries: Mapping[str, Entry], root: int) -> None:
    data = memoryview(archive)
    for parent, inside in _by_directory(entries):
        with _directory(root, parent) as directory:
            for entry in inside:
                descriptor = os.open(entry.path.rpartition("/")[2], _NEW, 0o600, dir_fd=directory)
                try:
                    _write(descriptor, data[entry.start : entry.start + entry.size_bytes])
                    os.fchmod(descriptor, entry.mode)
                finally:
                    os.close(descriptor)


def _write(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _by_directory(entries: Mapping[str, Entry]) -> Iterator[tuple[str, list[Entry]]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries.values():
        found.setdefault(entry.path.rpartition("/")[0], []).append(entry)
    yield from found.items()


@contextlib.contextmanager
def _directory(root: int, path: str) -> Iterator[int]:
    """Step by step, through nothing but directories. `.k4t` is nobody else's to look into."""
    parts = path.split("/") if path else []
    descriptor = os.dup(root)
    try:
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=descriptor)
                os.chmod(part, 0o700 if parts[0] == ".k4t" else 0o755, dir_fd=descriptor)
            inner = os.open(part, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)
