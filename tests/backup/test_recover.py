"""Recovery from a directory of copies, where no host answers: what can be done is, and what is not known is said."""

from __future__ import annotations

import dataclasses
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from k4t.errors import BadCopy, HostUnreachable, K4tError, Unreachable, Usage
from k4t.master.backup import keys, kits, pack, snapshot
from k4t.master.backup.kit import Kit
from k4t.master.backup.recover import Asked, Recovered, recover
from k4t.master.history import WorkingCopy
from k4t.master.run import Run
from k4t.model.hosts import Ssh
from k4t.model.snapshot import Lineage
from k4t.remote.transport import Transport
from k4t.tree.age import NoIdentity
from k4t.tree.create import create
from k4t.tree.read import read_tree
from k4t.wiring import opened, way

pytestmark = pytest.mark.unit
AT = "2026-11-20T12:00:00Z"
FIRST = Lineage(3, "a" * 16, 40, "anna", AT)


class Lost:
    """A master of which only the kit and two copies in a directory are left: serial 40, and 41 with app `web`."""

    def __init__(self, root: Path) -> None:
        self.root, self.copies, self.new = root, root / "copies", root / "new"
        self.said: list[str] = []
        db = root / "old"
        create(db, "prod")
        (db / "nodes" / "n1.xml").write_text('<node address="127.0.0.1"><ssh port="1"/></node>')
        self.keys, _ = keys.ensure(db, read_tree(db), AT)
        self.copies.mkdir()
        WorkingCopy(db).keep_lineage(FIRST)
        self.copy(db, 40)
        (db / "apps" / "web").mkdir()
        (db / "apps" / "web" / "app.xml").write_text("<app><image>web:1</image></app>")
        self.newest = self.copy(db, 41)
        self.db = db
        self.kit: Kit = kits.kit_of(read_tree(db), self.keys.recovery, way(db), AT)[0]

    def copy(self, db: Path, serial: int) -> Path:
        (db / ".k4t" / "base").write_text(f"{serial}\n")
        made = snapshot.make(
            pack.picture(db).archive, self.keys, lineage=FIRST, serial=serial, sequence=serial, previous="", time=AT,
            encrypted=True,
        )  # fmt: skip
        path = self.copies / made.name
        path.write_bytes(made.data)
        return path

    def recover(self, **changes: object) -> Recovered:
        asked = Asked(self.kit, self.new, folder=self.copies)
        return recover(
            dataclasses.replace(asked, **changes), self.connect, self.opening,  # type: ignore[arg-type]
            who="ben@new", at=AT, say=self.said.append,
        )  # fmt: skip

    def connect(self, name: str, _ssh: Ssh, address: str) -> Transport:
        raise HostUnreachable(f"{address} does not answer", host=name)

    def opening(self, db: Path, _silent: frozenset[str]) -> AbstractContextManager[Run]:
        return opened(db)


@pytest.fixture
def lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lost:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    made = Lost(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    return made


def test_nobody_answers(lost: Lost) -> None:
    """The newest copy is put in place, a new lineage begins, this machine may sign; what no host said is told."""
    done = lost.recover()
    assert (done.manifest.serial, done.lineage.generation, done.lineage.serial) == (41, 4, 41)
    assert (done.asked, done.answered, done.untold) == (1, 0, ("n1",))
    assert any("n1 can't be asked" in sentence for sentence in done.away)
    assert WorkingCopy(lost.new).lineage() == done.lineage
    assert WorkingCopy(lost.new).base_serial() == 41
    assert read_tree(lost.new).sha256 == read_tree(lost.db).sha256
    assert keys.load(read_tree(lost.new)) is not None
    assert done.signs == ""
    with pytest.raises(Usage, match="is not empty"):
        lost.recover()


def test_a_bad_copy_is_passed_over_and_named(lost: Lost) -> None:
    """Cut off, altered, empty: the one before it is taken."""
    whole = lost.newest.read_bytes()
    for number, data in enumerate((whole[:-1], b"", whole[:-9] + bytes(9))):
        lost.newest.write_bytes(data)
        done = lost.recover(db=lost.root / f"new{number}")
        assert done.manifest.serial == 40
        assert len(done.refused) == 1
    for path in lost.copies.iterdir():
        path.write_bytes(b"{}\n")
    with pytest.raises(BadCopy, match="no copy can be taken"):
        lost.recover()
    assert not lost.new.exists()


def test_a_tree_that_was_copied_with_an_error_in_it_is_put_in_place(lost: Lost) -> None:
    """It is what was there. Its hosts can't be asked, and that is said with the error."""
    (lost.db / "apps" / "web" / "app.xml").write_text("<app><image>web:1</imag></app>")
    lost.copy(lost.db, 42)
    done = lost.recover()
    assert done.manifest.serial == 42
    assert "the tree has an error" in done.notes[0]
    assert "apps/web/app.xml:1" in done.notes[0]


def test_without_an_identity_nothing_is_opened(lost: Lost) -> None:
    """The kit was printed after `kit --forget`: which file would do is said, and nothing is left behind."""
    without = dataclasses.replace(lost.kit, identity="")
    with pytest.raises(NoIdentity, match="--identity FILE"):
        lost.recover(kit=without)
    assert not lost.new.exists()
    assert not [path for path in lost.root.iterdir() if path.name.startswith(".k4t")]
    path = lost.root / "identity"
    path.write_text(f"{lost.kit.identity}\n")
    path.chmod(0o600)
    assert lost.recover(kit=without, identity=path).signs == ""


def test_another_cluster_s_kit_takes_none_of_them(lost: Lost) -> None:
    """Nor a kit whose key is not the one that certified them."""
    with pytest.raises(BadCopy):
        lost.recover(kit=dataclasses.replace(lost.kit, id="another1"))
    other = dataclasses.replace(lost.kit, key="ed25519:" + "A" * 43 + "=")
    with pytest.raises(K4tError, match="not certified"):
        lost.recover(kit=other)


def test_with_nobody_to_ask_the_reason_is_each_host_s(lost: Lost) -> None:
    """No directory, and no host that answers: 69."""
    with pytest.raises(Unreachable, match="does not answer") as caught:
        lost.recover(folder=None)
    assert caught.value.exit_status == 69
