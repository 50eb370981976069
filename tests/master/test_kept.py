"""A working copy remembers the tree's files of the last revisions, and only these."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from k4t.errors import K4tError, Usage
from k4t.master.history import WorkingCopy
from k4t.master.kept import MAX_KEPT_BYTES, REVISIONS_KEPT
from k4t.master.revisions import GONE, applied, entries, way_back
from k4t.model.state import Head, Revision
from k4t.tree.changes import Edit
from k4t.tree.create import create
from k4t.tree.read import read_tree

pytestmark = pytest.mark.unit
WEB = "<app>\n  <image>web:{0}</image>\n</app>\n"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A tree with one app."""
    create(tmp_path / "db", "prod")
    put(tmp_path / "db", "web", WEB.format(1))
    WorkingCopy(tmp_path / "db").prepare()
    return tmp_path / "db"


def put(db: Path, name: str, text: str) -> Path:
    path = db / "apps" / name / "app.xml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def apply(db: Path, head: Head | None, *apps: str) -> Head:
    """Record a revision as an apply does; without names of the whole tree."""
    tree = read_tree(db)
    before, serial = applied(head), (head.serial if head else 0) + 1
    now = {name: tree.app_sha256.get(name, GONE) for name in (apps or {*tree.apps, *before})}
    changed = {name: sha for name, sha in now.items() if before.get(name) != sha}
    revisions = (*(head.revisions if head else ()), Revision(serial, "" if apps else tree.sha256, changed, "me", "now"))
    head = Head(tree.cluster.id, serial, tree.sha256, revisions)
    record = {"serial": serial, "tree": head.tree, "apps": changed, "who": "me", "at": "now"}
    WorkingCopy(db).remember(serial, record, applied(head))
    return head


def back(db: Path, head: Head | None, app: str = "", to: int | None = None) -> None:
    store = WorkingCopy(db).store
    way_back(db, store, entries(head, store), app=app, to=to).take(Edit(db))


def test_what_was_edited_and_not_applied_is_no_part_of_a_revision(db: Path) -> None:
    """An apply of one app keeps the others as they were applied, not as they stand."""
    head = apply(db, None)
    put(db, "web", WEB.format("edited"))
    put(db, "api", WEB.format("api"))
    head = apply(db, head, "api")
    put(db, "web", WEB.format(3))
    head = apply(db, head, "web")
    back(db, head, to=2)
    assert (db / "apps/web/app.xml").read_text() == WEB.format(1)
    assert (db / "apps/api/app.xml").exists()


def test_an_app_that_was_removed_comes_back(db: Path) -> None:
    """With the files beside it, and their modes."""
    script = db / "apps/web/bin/run.sh"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    put(db, "api", WEB.format("api"))
    head = apply(db, None)
    for path in (script, db / "apps/web/app.xml"):
        path.unlink()
    script.parent.rmdir()
    (db / "apps/web").rmdir()
    head = apply(db, head)
    back(db, head, "web")
    assert script.read_text() == "#!/bin/sh\n"
    assert script.stat().st_mode & 0o777 == 0o755
    assert read_tree(db).app_sha256["web"] == head.revisions[0].apps["web"]


def test_the_memory_is_bounded(db: Path) -> None:
    """A hundred revisions stay, and the contents that they name."""
    head = None
    for number in range(REVISIONS_KEPT + 32):
        put(db, "web", WEB.format(number))
        head = apply(db, head)
    store = WorkingCopy(db).store
    assert len(store.serials()) == REVISIONS_KEPT
    manifests = [found for serial in store.serials() if (found := store.manifest(serial))]
    contents = {sha for manifest in manifests for sha in manifest.files.values()}
    assert len(list(store.objects.iterdir())) <= len(contents) + 16


def test_a_content_that_is_damaged_or_was_too_large_is_named(db: Path) -> None:
    """Nothing is changed then, and the message says what to do."""
    large = db / "apps/web/image.tar"
    large.write_bytes(b"\0" * (MAX_KEPT_BYTES + 1))
    head = apply(db, None)
    put(db, "web", WEB.format(2))
    head = apply(db, head)
    back(db, head, "web")
    assert (db / "apps/web/app.xml").read_text() == WEB.format(1)
    large.unlink()
    with pytest.raises(K4tError, match=r"image\.tar of then is not kept"):
        back(db, head, "web", 1)
    large.write_bytes(b"\0" * (MAX_KEPT_BYTES + 1))
    put(db, "web", WEB.format(2))
    for path in WorkingCopy(db).store.objects.iterdir():
        path.write_bytes(b"garbage")
    with pytest.raises(K4tError, match="can't read"):
        back(db, head, "web", 1)
    assert (db / "apps/web/app.xml").read_text() == WEB.format(2)


def test_without_a_head_this_copy_goes_by_itself(db: Path) -> None:
    """No host answers, or the tree can't be read: what was applied here is known here."""
    head = apply(db, None)
    path = put(db, "web", WEB.format(2))
    apply(db, head)
    path.write_text("<app>")
    back(db, None, "web", 1)
    assert path.read_text() == WEB.format(1)


def test_a_revision_of_another_copy_with_the_same_number_is_not_mistaken(db: Path) -> None:
    """Two copies that applied serial 2 each: the hosts' one counts."""
    head = apply(db, None)
    put(db, "web", WEB.format("mine"))
    mine = apply(db, head)
    theirs = Head(
        mine.cluster, 3, "t", (head.revisions[0], Revision(2, "x", {"web": "f" * 64}), Revision(3, "y", {"web": GONE}))
    )
    with pytest.raises(K4tError, match="doesn't have web of serial 2"):
        back(db, theirs, "web", 2)
    with pytest.raises(Usage, match="was not there at serial 3"):
        back(db, theirs, "web", 3)


def test_a_digest_that_becomes_known_is_no_change(db: Path) -> None:
    """Revisions of another copy say no digests: going back goes to other files, not to the same ones."""
    head = apply(db, None)
    put(db, "web", WEB.format(2))
    head = apply(db, head)
    put(db, "api", WEB.format("api"))
    head = apply(db, head, "api")
    store = WorkingCopy(db).store
    known = entries(head, store)
    known[0] = dataclasses.replace(known[0], digests={"web:2": "sha256:2"})
    assert way_back(db, store, known, app="web", reference="web:2").entry.serial == 1
    known[1] = dataclasses.replace(known[1], digests={"web:2": "sha256:1"})
    assert way_back(db, store, known, app="web", reference="web:2").entry.serial == 2


def test_what_failed_goes_back_to_what_was_applied_last(db: Path) -> None:
    """An app that is held was put back on the hosts: the newest serial is what runs; once the tree says so too, the
    next way leads further back."""
    head = apply(db, None)
    put(db, "web", WEB.format(2))
    head = apply(db, head)
    put(db, "web", WEB.format("bad"))
    store = WorkingCopy(db).store
    for serial in (2, 1):
        way = way_back(db, store, entries(head, store), app="web", held={"web"})
        assert way.entry.serial == serial
        way.take(Edit(db))
    put(db, "web", WEB.format("bad"))
    way_back(db, store, entries(head, store), held={"web"}).take(Edit(db))
    assert (db / "apps/web/app.xml").read_text() == WEB.format(2)
