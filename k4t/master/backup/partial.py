"""A tree that is damaged is read as far as its copies need it: that it is damaged may be why they are wanted."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from k4t.errors import InvalidTree, K4tError, Usage
from k4t.master.history import WorkingCopy
from k4t.tree.read import read_tree
from k4t.tree.recovery import NAME

_FILES = ("cluster.xml", "known_hosts", NAME)
_DIRECTORIES = ("nodes", "gateways", "dns", "secrets")
ROUNDS = 5


@contextmanager
def readable(db: Path) -> Iterator[tuple[Path, str]]:
    """The tree's own directory; or one that has what can be read of cluster.xml, hosts and keys, and what is wrong with
    the tree. Raises InvalidTree when that is not enough, Usage when there is no tree."""
    try:
        read_tree(db)
    except (InvalidTree, Usage) as error:
        if isinstance(error, Usage) and not (db / ".k4t").is_dir():
            raise
        said, problem = (str(error.findings[0]) if isinstance(error, InvalidTree) else error.message), error
    else:
        yield db, ""
        return
    with tempfile.TemporaryDirectory(prefix="k4t-") as temporary:
        part = Path(temporary)
        _take(db, part)
        if not _mended(db, part):
            raise problem
        yield part, said


def _take(db: Path, part: Path) -> None:
    for name in _FILES:
        _copied(db / name, part / name)
    for directory in _DIRECTORIES:
        (part / directory).mkdir()
        with suppress(OSError):
            for path in sorted((db / directory).iterdir()):
                _copied(path, part / directory / path.name)


def _copied(path: Path, to: Path) -> None:
    with suppress(OSError):
        if path.is_file() and not path.is_symlink():
            shutil.copyfile(path, to)


def _mended(db: Path, part: Path) -> bool:
    """Without the files that are wrong; cluster.xml as it was applied last."""
    for _ in range(ROUNDS):
        try:
            read_tree(part)
        except InvalidTree as error:
            wrong = {finding.file for finding in error.findings}
        except Usage:
            wrong = {"cluster.xml"}
        else:
            return True
        if "cluster.xml" in wrong and not _as_applied(db, part):
            return False
        for name in wrong - {"cluster.xml"}:
            with suppress(OSError):
                (part / name).unlink(missing_ok=True)
    return False


def _as_applied(db: Path, part: Path) -> bool:
    store = WorkingCopy(db).store
    for serial in store.serials():
        manifest = store.manifest(serial)
        if manifest is not None and "cluster.xml" in manifest.files:
            with suppress(K4tError):
                data = store.content(manifest.files["cluster.xml"], "cluster.xml")
                known = (part / "cluster.xml").read_bytes() if (part / "cluster.xml").exists() else b""
                (part / "cluster.xml").write_bytes(data)
                return data != known
    return False
