"""What a copy doesn't hold and a working copy has goes along into the new directory: git's files, notes, and what this
machine alone remembers. The old directory keeps all of it too."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from k4t.errors import K4tError

OWN = ".k4t"
_GIT, _NOTES = ".git", "README"
_OBJECTS = f"{os.sep}objects{os.sep}"
_MACHINE = ("backup", "intents")
_FULL = ("No space left", "uota exceeded")


def carried(old: Path, new: Path, *, same_history: bool) -> list[str]:
    """`same_history`: the copy is an earlier state of this very working copy, so that revisions and audit lines since
    then stay known. What can't be copied is answered in words: it is in the old directory still. Raises K4tError when
    there is no room."""
    failed: list[str] = []
    for path in _beside(old, new):
        _attempt(failed, old / path, new / path, _copy)
    for name in _names(old / OWN):
        if name.startswith(_MACHINE):
            _attempt(failed, old / OWN / name, new / OWN / name, _copy)
    if same_history:
        for directory in ("revisions", "objects"):
            (new / OWN / directory).mkdir(mode=0o700, exist_ok=True)
            for name in _names(old / OWN / directory):
                if not name.startswith("."):
                    _attempt(failed, old / OWN / directory / name, new / OWN / directory / name, _linked)
        _attempt(failed, old / OWN / "audit.jsonl", new / OWN / "audit.jsonl", _longer)
    return failed


def owned_as(old: os.stat_result, new: Path) -> None:
    """The new directory and all in it belong to whom the old one did, and it may be entered by whoever could. Only root
    can give files away. Raises OSError."""
    os.chmod(new, stat.S_IMODE(old.st_mode))
    if os.geteuid() != 0 or (old.st_uid, old.st_gid) == (0, 0):
        return
    for directory, _, names in os.walk(new):
        os.chown(directory, old.st_uid, old.st_gid)
        for name in names:
            os.lchown(os.path.join(directory, name), old.st_uid, old.st_gid)


def _beside(old: Path, new: Path, at: str = "", depth: int = 0) -> Iterator[str]:
    """What git and people keep beside the tree's files, in directories that the new one has too."""
    for name in _names(old / at):
        path = os.path.join(at, name)
        if name.startswith(_GIT) or (name.startswith(_NOTES) and depth < 2):
            if not os.path.lexists(new / path):
                yield path
        elif name != OWN and (old / path).is_dir() and not (old / path).is_symlink() and (new / path).is_dir():
            yield from _beside(old, new, path, depth + 1)


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _attempt(failed: list[str], old: Path, new: Path, copy: Callable[[Path, Path], None]) -> None:
    """Raises K4tError when there is no room: less would be missed than what is wanted."""
    try:
        if os.path.lexists(old):
            copy(old, new)
    except (OSError, shutil.Error) as error:
        if any(words in str(error) for words in _FULL):
            raise K4tError(f"no room for a copy of {old} beside the tree", "make room; nothing was changed") from error
        words = getattr(error, "strerror", None) or "not all of it could be read"
        failed.append(f"{old} was not carried over ({words})")


def _copy(old: Path, new: Path) -> None:
    if old.is_dir() and not old.is_symlink():
        shutil.copytree(old, new, symlinks=True, copy_function=_link_objects, ignore=_no_specials, dirs_exist_ok=True)
    elif old.is_symlink() or old.is_file():
        shutil.copy2(old, new, follow_symlinks=False)


def _link_objects(old: str, new: str) -> object:
    """git never changes an object once it is written, and some have very many."""
    if _OBJECTS in old:
        with suppress(OSError):
            os.link(old, new)
            return new
    return shutil.copy2(old, new, follow_symlinks=False)


def _no_specials(directory: str, names: list[str]) -> list[str]:
    """A socket of a daemon of git's, say."""
    modes = {name: os.lstat(os.path.join(directory, name)).st_mode for name in names}
    return [
        name for name, mode in modes.items() if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))
    ]


def _linked(old: Path, new: Path) -> None:
    if not os.path.lexists(new) and old.is_file() and not old.is_symlink():
        try:
            os.link(old, new)
        except OSError:
            shutil.copy2(old, new)


def _longer(old: Path, new: Path) -> None:
    """An audit log that goes on where the copy's ends is the better one."""
    before = new.read_bytes() if new.exists() else b""
    known = old.read_bytes()
    if known.startswith(before):
        new.write_bytes(known[: known.rfind(b"\n") + 1])
        new.chmod(0o600)
