"""A tree with a history of copies in a directory, for tests of reading and restoring. No host is needed."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

from k4t.master.backup import keys, pack, snapshot
from k4t.master.backup.keys import Keys
from k4t.master.backup.snapshot import Snapshot
from k4t.master.history import WorkingCopy
from k4t.model.snapshot import Lineage
from k4t.tree.read import read_tree

ID = "k7f3q2m9"
K4T = (sys.executable, "-m", "k4t.cli")
LINEAGE = Lineage(1, "aaaabbbbccccdddd")
APP = '<app replicas="2">\n  <image>web:{version}</image>\n  <port name="http" container="80"/>\n</app>\n'


class Scene:
    """`db`: the tree. `copies`: where `copy` puts its copies. `keys`: this machine's, in `keys/` of the test's."""

    def __init__(self, root: Path, id: str = ID) -> None:
        self.root, self.id = root, id
        self.db, self.copies, self.home = root / "db", root / "copies", root / "home"
        for directory in (self.db / "nodes", self.copies, self.home):
            directory.mkdir(parents=True)
        self.write("cluster.xml", f'<cluster name="prod" id="{id}" format="1"/>\n')
        self.app("web", 1)
        self.keys: Keys = keys.ensure(self.db, read_tree(self.db), "2026-11-20T10:00:00Z")[0]
        self.made: list[Snapshot] = []
        WorkingCopy(self.db).keep_lineage(LINEAGE)

    def moved(self, root: Path) -> Scene:
        """The same elsewhere."""
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        other = copy.copy(self)
        other.root, other.made = root, list(self.made)
        for name in ("db", "copies", "home"):
            setattr(other, name, root / getattr(self, name).relative_to(self.root))
        return other

    def write(self, path: str, text: str) -> Path:
        target = self.db / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def app(self, name: str, version: int) -> None:
        self.write(f"apps/{name}/app.xml", APP.format(version=version))

    def applied(self, serial: int) -> None:
        """As if this working copy had just applied."""
        WorkingCopy(self.db).remember(serial, {"serial": serial, "apps": {}}, {})
        WorkingCopy(self.db).audit({"serial": serial, "result": "done"})

    def copy(self, *, lineage: Lineage = LINEAGE, keys: Keys | None = None, keep: bool = True) -> Snapshot:
        """Of the tree as it is."""
        taken = pack.picture(self.db)
        before = self.made[-1].manifest if self.made else None
        one = snapshot.make(
            taken.archive, keys or self.keys, lineage=lineage, serial=taken.serial, sequence=len(self.made) + 1,
            previous=snapshot.digest(before) if before else "", time=f"2026-11-20T11:{len(self.made):02}:00Z",
            encrypted=True,
        )  # fmt: skip
        self.made.append(one)
        if keep:
            self.put(one.name, one.data)
        return one

    def put(self, name: str, data: bytes) -> Path:
        path = self.copies / name
        path.write_bytes(data)
        return path

    def k4t(self, *words: str, status: int | None = 0, place: str = "", db: Path | None = None) -> str:
        """The command line; standard output and error. `place`: where it is to be killed."""
        environment = self.environment(db or self.db) | ({"K4T_FAILPOINT": place} if place else {})
        done = subprocess.run(
            [*K4T, *words], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert "Traceback" not in said, said
        assert status is None or done.returncode == status, f"{words}: exit {done.returncode}\n{said}"
        return said

    def environment(self, db: Path) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"], "HOME": str(self.home), "K4T_DB": str(db), "NO_COLOR": "1",
            "K4T_KEYS": os.environ["K4T_KEYS"],
        }  # fmt: skip

    def traced(self, db: Path, call: str, number: int) -> int:
        """A restore that is killed when it makes its so manieth such system call; its exit status."""
        trace = [
            "strace",
            "-f",
            "-o",
            os.devnull,
            "-e",
            f"trace={call}",
            "-e",
            f"inject={call}:signal=KILL:when={number}",
        ]
        words = ["restore", "--from", str(self.copies), "--yes"]
        done = subprocess.run(
            [*trace, *K4T, *words], env=self.environment(db), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=120, check=False,
        )  # fmt: skip
        return done.returncode

    def restore(self, *words: str, status: int | None = 0, place: str = "", db: Path | None = None) -> str:
        return self.k4t("restore", "--from", str(self.copies), *words, status=status, place=place, db=db)


def texts(directory: Path) -> dict[str, str]:
    """The tree's own files."""
    found = [path for path in directory.rglob("*") if path.is_file()]
    paths = {str(path.relative_to(directory)): path for path in found}
    return {name: path.read_text() for name, path in sorted(paths.items()) if not name.startswith((".k4t", ".git"))}
