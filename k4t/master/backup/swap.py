"""A directory is replaced whole, in one moment, and the old one kept.

The new one is made at `.k4t-new.NAME.RANDOM`, in the directory in which the old one will be kept, and everything is
on disk before it is renamed. It carries a mark until it stands in place. Whoever is killed, and wherever, leaves one of

    nothing done          the old one in place, `.k4t-new.NAME.…` to be cleared away
    named                 the old one in place; the new one is called `NAME.before-…`, has the mark, and is cleared away
    exchanged             the new one in place, with the mark, which is taken off; the old one is `NAME.before-…`
    (two renames) aside   none in place: the old one is put back

and the next one that comes puts that right (`tidied`). One that is still at work holds a flock on what it makes.

Exchanging is Linux's renameat2(2) with RENAME_EXCHANGE; a file system that can't says EINVAL, and gets two renames.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from k4t.errors import K4tError
from k4t.failpoints import reach
from k4t.model.value import value
from k4t.tree.edit import sync_directory

MARK = ".k4t-restoring"
_PREFIX = ".k4t-new."
_EXCHANGE = 2
_AT_FDCWD = -100
_UNABLE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
MAX_NAMES = 1000


@value
class Swapped:
    """`kept`: where the old one is now; None where there was none. `atomic`: in one moment, not in two."""

    kept: Path | None
    atomic: bool = True


class Fresh:
    """A new directory that is to take the place of `target`; `beside` is where it is made and the old one kept."""

    def __init__(self, target: Path, beside: Path) -> None:
        """Raises K4tError when nothing can be written there."""
        self.target = target
        self.beside = beside
        self.path = beside / f"{_PREFIX}{target.name}.{secrets.token_hex(6)}"
        try:
            self.path.mkdir(mode=0o755)
            self._handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise K4tError(f"can't write {beside}: {error.strerror}", "nothing was changed") from error
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        reach("restore:made")

    def discard(self) -> None:
        """It isn't wanted. What is in place already stays."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.close()

    def close(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def swap(self, kept: str) -> Swapped:
        """Put it in place; what is there becomes `kept`, or the first free name that begins so.

        Raises K4tError: the old one is in place then, unless it says otherwise."""
        try:
            done = self._swap(_free(self.beside, kept))
        except OSError as error:
            raise K4tError(
                f"can't put {self.path} in place of {self.target}: {error.strerror}", _remedy(error, self.target)
            ) from error
        try:
            return self._settled(done)
        except OSError as error:
            old = f", and what was there is {done.kept}" if done.kept else ""
            raise K4tError(
                f"{self.target} is in place{old}; but the disk does not confirm it: {error.strerror}", "see to the disk"
            ) from error

    def _swap(self, kept: Path) -> Swapped:
        _write(self.path / MARK, json.dumps({"kept": kept.name}).encode())
        sync_all(self.path)
        reach("restore:synced")
        if not self.target.exists() or not any(self.target.iterdir()):
            os.rename(self.path, self.target)
            return Swapped(None)
        os.rename(self.path, kept)
        sync_directory(self.beside)
        reach("restore:named")
        try:
            exchange(kept, self.target)
        except OSError as error:
            os.rename(kept, self.path)
            if error.errno not in _UNABLE:
                raise
            return self._two_renames(kept)
        return Swapped(kept)

    def _two_renames(self, kept: Path) -> Swapped:
        os.rename(self.target, kept)
        reach("restore:aside")
        try:
            os.rename(self.path, self.target)
        except OSError:
            os.rename(kept, self.target)
            raise
        return Swapped(kept, atomic=False)

    def _settled(self, done: Swapped) -> Swapped:
        reach("restore:swapped")
        for directory in {self.target.parent, self.beside}:
            sync_directory(directory)
        reach("restore:kept")
        _unmark(self.target)
        reach("restore:cleared")
        self.close()
        return done


def tidied(target: Path, beside: Path) -> list[str]:
    """Put right what one that was killed has left; answers what was done. Under the lock of the tree, if there is one.

    Raises K4tError when it can't be."""
    try:
        found = sorted(os.listdir(beside)) if beside.is_dir() else []
        fresh = [beside / name for name in found if name.startswith(f"{_PREFIX}{target.name}.")]
        said = _put_back(target, beside, fresh)
        if (target / MARK).exists():
            _unmark(target)
            said.append(f"{target} was put in place by a run that was killed right after that; it is whole")
        named = [beside / name for name in found if name.startswith(f"{target.name}.before-")]
        for path in [*fresh, *(path for path in named if (path / MARK).exists())]:
            if _cleared(path, beside):
                said.append(f"cleared away {path}, which a restore that was killed has left")
    except OSError as error:
        raise K4tError(f"can't clear away what a restore that was killed has left: {error}") from error
    return said


def _put_back(target: Path, beside: Path, fresh: list[Path]) -> list[str]:
    """Killed between two renames: the old one has stepped aside, and the new one isn't there yet."""
    if os.path.lexists(target):
        return []
    for path in fresh:
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = beside / Path(str(json.loads((path / MARK).read_bytes())["kept"])).name
            if kept.is_dir() and not (kept / MARK).exists():
                os.rename(kept, target)
                sync_directory(target.parent)
                return [f"{target} was put back: a restore was killed when it had just stepped aside"]
    return []


def _cleared(path: Path, beside: Path) -> bool:
    """Unless somebody is still at work on it. Renamed first, so that half of it is never taken for a tree."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.name.startswith(_PREFIX):
            away = beside / f"{_PREFIX}{path.name.partition('.before-')[0]}.{secrets.token_hex(6)}"
            os.rename(path, away)
            sync_directory(beside)
            path = away
        reach("restore:clearing")
        shutil.rmtree(path)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


# --- what the system does ------------------------------------------------------------------------------------------


def exchange(one: Path, other: Path) -> None:
    """Both names at once. Raises OSError; ENOSYS where the C library has no such call."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_EXCHANGE)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))


def sync_all(directory: Path) -> None:
    """Everything in it is on disk: by syncfs(2), which is one call for many files. Raises OSError."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(handle):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(directory))
    finally:
        os.close(handle)


def _free(beside: Path, wanted: str) -> Path:
    for number in range(1, MAX_NAMES):
        path = beside / (wanted if number == 1 else f"{wanted}-{number}")
        if not os.path.lexists(path):
            return path
    raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), wanted)


def _remedy(error: OSError, target: Path) -> str:
    if error.errno in {errno.EBUSY, errno.EXDEV}:
        return f"{target} is a place where something is mounted: restore --to a new directory, and copy from there"
    return "the old one is in place, as it was"


def _unmark(directory: Path) -> None:
    (directory / MARK).unlink(missing_ok=True)
    sync_directory(directory)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
