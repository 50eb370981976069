"""Files and the host's lock: whole files by rename after fsync, one operation at a time on a host."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from typing import Any, Iterator, List, Mapping, Optional

from .errors import Busy, Damaged, Denied, Full

LOCK_WAIT_S = 15.0
LOCK_POLL_S = 0.005
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NOT_ALLOWED = (errno.EROFS, errno.EACCES, errno.EPERM)


def write(path: str, text: str, mode: int = 0o644, staging: str = "") -> None:
    """Replace a file: temporary one in `staging` (default: beside it), fsync, rename, fsync of the directory.

    `staging` is for directories that a vendor watches, and must be on the same file system. Raises Full, Denied.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(staging or directory, ".%s.tmp" % name)
    try:
        make_directory(directory)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
        sync_directory(directory)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise full(error, path) from error


def full(error: OSError, path: str) -> Exception:
    """The error to raise for a failed write: Full where there is no room for it, Denied where it isn't allowed."""
    kind = Full if error.errno in NO_SPACE else Denied if error.errno in NOT_ALLOWED else None
    return kind("can't write %s: %s" % (path, error.strerror)) if kind else error


def rename(old: str, new: str) -> None:
    try:
        os.rename(old, new)
        sync_directory(os.path.dirname(new))
    except OSError as error:
        raise full(error, new) from error


def remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        sync_directory(os.path.dirname(path))


def sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: str, mode: int = 0o755) -> None:
    if os.path.isdir(path):
        return
    try:
        os.makedirs(path, mode=mode, exist_ok=True)
    except OSError as error:
        raise full(error, path) from error


def read(path: str) -> Optional[str]:
    """The file's text, or None when there is none. Raises Damaged when it is no text."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (UnicodeDecodeError, OSError) as error:
        raise Damaged("can't read %s: %s" % (path, error)) from error


def edited(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> List[str]:
    """What somebody else changed, added or removed, a sentence each: both map a path to what stands there."""
    found = ["%s is not what k4t wrote" % path for path in sorted(wanted) if there.get(path) != wanted[path]]
    return found + ["%s is not k4t's" % path for path in sorted(there) if path not in wanted]


def read_json(path: str) -> Any:
    """The parsed file, or None when there is none. Raises Damaged."""
    text = read(path)
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise Damaged("%s is damaged: %s" % (path, error)) from error


def write_json(path: str, value: Any, mode: int = 0o600) -> None:
    write(path, json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n", mode)


@contextlib.contextmanager
def locked(path: str, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Hold the host's lock (flock, as a node's allocation does) for one operation. Raises Busy after `wait_s`."""
    make_directory(os.path.dirname(path))
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise full(error, path) from error
    try:
        deadline = time.monotonic() + wait_s
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise Busy("%s was held by another operation for %g s" % (path, wait_s))
            time.sleep(LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
