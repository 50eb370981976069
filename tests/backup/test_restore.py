"""Copies put back: the whole tree, one app, a directory beside. Refused is what is not proved good."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from k4t.errors import ConnectionLost, HostKeyChanged, HostUnreachable, K4tError, Locked
from k4t.master.backup import keys, kit, snapshot
from k4t.master.backup.choose import Live
from k4t.master.backup.judge import Trust
from k4t.master.backup.reading import Folder, Place, Shelf, shelves
from k4t.master.backup.restore import Taken, Wanted, put_back, put_back_app, take, unasked
from k4t.master.history import WorkingCopy
from k4t.master.inspection.audit import breaks
from k4t.master.planning.safety import behind
from k4t.master.publication.redolog import LogPlace
from k4t.model.snapshot import Lineage
from k4t.model.state import Head, Revision
from k4t.remote.lock import Holder, LocalLock
from tests.backup.copies import ID, K4T, LINEAGE, Scene, texts

HOLDER = Holder("anna@laptop", "laptop", 4711, "2026-11-20T12:00:00Z", "restore", "r1")
PLACES = ("made", "unpacked", "carried", "synced", "named", "swapped", "kept", "cleared")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Serial 1 with web:1, serial 2 with web:2 and a second app; a copy of each, and an edit since."""
    root = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("K4T_KEYS", str(root / "keys"))
        made = Scene(root)
        made.applied(1)
        made.copy()
        made.app("web", 2)
        made.app("api", 1)
        made.applied(2)
        made.copy()
        made.app("web", 3)
    return made


@pytest.fixture
def scene(first: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("K4T_KEYS", str(tmp_path / "keys"))
    return first.moved(tmp_path)


def taken(scene: Scene, number: int = -1) -> Taken:
    one = scene.made[number]
    trust = Trust(ID, scene.keys.recovery.key)
    opening = keys.recovery_identity(ID)
    manifest, archive = snapshot.contents(one.data, cluster=trust.cluster, cluster_key=trust.key, identities=opening)
    return Taken("node1", manifest, archive)


def image(scene: Scene, name: str = "web") -> str:
    path = scene.db / "apps" / name / "app.xml"
    return path.read_text().partition("<image>")[2].partition("<")[0] if path.exists() else "none"


def others(scene: Scene) -> list[str]:
    return sorted(path.name for path in scene.root.iterdir() if path.name not in ("db", "copies", "home", "keys"))


# --- the whole tree ------------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_the_tree_is_what_the_copy_holds_and_the_old_one_is_kept(scene: Scene) -> None:
    """Byte for byte; what git and people keep beside it goes along, and so do the revisions and the audit log."""
    (scene.db / ".git" / "objects" / "ab").mkdir(parents=True)
    (scene.db / ".git" / "objects" / "ab" / "cd").write_text("object")
    (scene.db / ".git" / "index").write_text("index")
    scene.write("apps/web/.gitignore", "*.tmp")
    scene.write("README.later", "a note")
    scene.applied(3)
    before = texts(scene.db)
    done = put_back(taken(scene), Wanted(scene.db, rollback=True), Live(2, 2, 3, LINEAGE), HOLDER)
    assert image(scene) == "web:2"
    assert (done.kept, done.lineage, done.notes) == (scene.root / "db.before-20261120T120000Z", None, ())
    assert texts(done.kept or scene.db) == before
    for path in (".git/objects/ab/cd", ".git/index", "apps/web/.gitignore", "README.later"):
        assert (scene.db / path).read_text() == (scene.root / "db.before-20261120T120000Z" / path).read_text()
    assert WorkingCopy(scene.db).store.serials() == [3, 2, 1]
    assert breaks(scene.db) == []
    last = json.loads((scene.db / ".k4t" / "audit.jsonl").read_text().splitlines()[-1])
    assert (last["result"], last["message"]) == ("restored", "restored copy 2.2 from node1")
    assert len((scene.db / ".k4t" / "audit.jsonl").read_text().splitlines()) == 4


@pytest.mark.unit
def test_going_back_on_purpose_is_no_old_clone(scene: Scene) -> None:
    """With --rollback the working copy stands where the cluster stands, so its next apply is no `rewind`; without it,
    it stands where the copy stood."""
    head = Head(ID, 5, "new", (Revision(2, "old", {}), Revision(5, "new", {})))
    put_back(taken(scene), Wanted(scene.db), Live(2, 2, 2, LINEAGE), HOLDER)
    base = WorkingCopy(scene.db).base_serial()
    assert base == 2
    assert behind("old", {}, head, base, None) == "serial 2 is behind 5"
    put_back(taken(scene), Wanted(scene.db, rollback=True), Live(2, 2, 5, LINEAGE), HOLDER)
    base = WorkingCopy(scene.db).base_serial()
    assert base == 5
    assert behind("old", {}, head, base, None) == ""


@pytest.mark.unit
def test_its_redo_log_counts_as_a_copied_one(scene: Scene, tmp_path: Path) -> None:
    """By the incarnation, which stands outside: also where the copy is put back to the very same path."""
    place = LogPlace(scene.db / ".k4t", ID, tmp_path / "logs", lambda: "2026-11-20T12:00:00Z")
    place.open().close()
    assert place.is_ours(place.read())
    scene.copy()
    put_back(taken(scene), Wanted(scene.db), Live(), HOLDER)
    contents = place.read()
    assert contents.incarnation
    assert not place.is_ours(contents)
    place.open().close()
    assert place.is_ours(place.read())


@pytest.mark.unit
def test_another_directory_begins_a_new_history(scene: Scene, tmp_path: Path) -> None:
    """A machine that is not the cluster's newest working copy takes over, whether it has a tree or not."""
    new = tmp_path / "elsewhere"
    done = put_back(taken(scene), Wanted(new), Live(2, 2, 2, LINEAGE), HOLDER)
    assert done.lineage is not None
    assert (done.lineage.generation, done.lineage.serial, done.lineage.who) == (2, 2, "anna@laptop")
    assert WorkingCopy(new).lineage() == done.lineage
    assert done.kept is None
    theirs = Lineage(4, "ffff", 9)
    again = put_back(taken(scene), Wanted(scene.db, rollback=True), Live(2, 2, 9, theirs), HOLDER)
    assert again.lineage is not None
    assert again.lineage.generation == 5


@pytest.mark.unit
def test_a_damaged_tree_is_put_back(scene: Scene) -> None:
    """That it can't be read is why the copy is wanted: an app or a node, even cluster.xml."""
    scene.write("apps/web/app.xml", "<app")
    scene.write("nodes/n1.xml", "\0\0\0\0")
    assert "the tree is damaged" in scene.restore("--yes")
    assert image(scene) == "web:2"
    scene.write("cluster.xml", "")
    scene.restore("--yes")
    assert (scene.db / "cluster.xml").read_text().startswith("<cluster")
    (scene.db / "cluster.xml").unlink()
    scene.restore("--yes")
    assert texts(scene.db)["cluster.xml"].startswith("<cluster")


@pytest.mark.unit
def test_a_machine_without_a_tree_needs_the_kit(scene: Scene, tmp_path: Path) -> None:
    """A directory of copies and the kit are enough; the copy's own tree says which hosts to ask."""
    new = tmp_path / "master2"
    assert "k4t recover" in scene.restore("--yes", db=new, status=64)
    page = tmp_path / "kit.txt"
    recovery = scene.keys.recovery
    secret = (keys.keys_directory(ID) / keys.IDENTITY).read_text().splitlines()[-1]
    page.write_text(kit.page(kit.Kit("prod", ID, recovery.key, recovery.recipients[0].key, secret)))
    page.chmod(0o600)
    said = scene.restore("--kit", str(page), "--yes", db=new)
    assert "copy 2.2" in said
    assert texts(new) == {**texts(scene.db), "apps/web/app.xml": texts(new)["apps/web/app.xml"]}
    lineage = WorkingCopy(new).lineage()
    assert lineage is not None
    assert lineage.generation == 2


# --- killed --------------------------------------------------------------------------------------------------------


@pytest.mark.crash
@pytest.mark.parametrize("place", PLACES)
def test_killed_anywhere_the_old_tree_or_the_new_one_is_there(scene: Scene, place: str) -> None:
    """Whole; the next restore clears away what was left and ends right, and the old tree is kept."""
    old = texts(scene.db)
    scene.restore("--yes", place=f"restore:{place}", status=-signal.SIGKILL)
    new = {**old, "apps/web/app.xml": old["apps/web/app.xml"].replace("web:3", "web:2")}
    assert texts(scene.db) == (new if PLACES.index(place) > PLACES.index("named") else old)
    assert WorkingCopy(scene.db).lineage() == LINEAGE
    said = scene.restore("--yes")
    assert texts(scene.db) == new
    assert [texts(scene.root / name) for name in others(scene)] == [old]
    assert ("nothing to do" in said) == (texts(scene.db) == new and "kept:" not in said)


@pytest.mark.crash
@pytest.mark.skipif("K4T_FULL" not in os.environ, reason="half a minute: K4T_FULL=1")
@pytest.mark.parametrize("call", ["rename", "renameat2", "fsync", "syncfs", "sync", "unlink"])
def test_killed_at_every_call_that_puts_something_on_disk(scene: Scene, call: str) -> None:
    """Not where we think it matters, but wherever the program makes one: until it comes to its end."""
    old = texts(scene.db)
    new = {**old, "apps/web/app.xml": old["apps/web/app.xml"].replace("web:3", "web:2")}
    for number in range(1, 100):
        root = scene.root / f"try-{number}"
        shutil.copytree(scene.db, root / "db", symlinks=True)
        status = scene.traced(root / "db", call, number)
        assert texts(root / "db") in (old, new), number
        scene.restore("--yes", db=root / "db")
        assert texts(root / "db") == new
        assert [texts(path) for path in root.iterdir() if path.name != "db"] == [old], number
        if status == 0:
            break
    else:
        raise AssertionError("it never came to its end")


@pytest.mark.crash
@pytest.mark.parametrize("place", ["unpacked", "named", "swapped"])
def test_killed_while_an_app_is_put_back(scene: Scene, place: str) -> None:
    """The same for one directory of the tree, which stays valid throughout."""
    scene.restore("--app", "web", "--at", "1", "--yes", place=f"restore:{place}", status=-signal.SIGKILL)
    assert image(scene) == ("web:1" if place == "swapped" else "web:3")
    scene.k4t("validate")
    scene.restore("--app", "web", "--at", "1", "--yes")
    assert image(scene) == "web:1"
    kept = sorted((scene.db / ".k4t" / "replaced").iterdir())
    assert ["web:3" in (path / "app.xml").read_text() for path in kept] == [True]


# --- one app, and a directory beside -------------------------------------------------------------------------------


@pytest.mark.unit
def test_one_app_comes_out_of_any_copy(scene: Scene) -> None:
    """Also of one that is older than what is live; everything else stays, and the old directory is kept."""
    scene.write("apps/web/extra.txt", "new")
    before = texts(scene.db)
    said = scene.restore("--app", "web", "--at", "1", "--yes")
    assert "k4t plan web" in said
    assert image(scene) == "web:1"
    rest = {path: text for path, text in before.items() if not path.startswith("apps/web/")}
    assert texts(scene.db) == {**rest, "apps/web/app.xml": texts(scene.db)["apps/web/app.xml"]}
    (kept,) = (scene.db / ".k4t" / "replaced").iterdir()
    assert (kept / "extra.txt").read_text() == "new"
    assert "nothing to do" in scene.restore("--app", "web", "--at", "1")
    assert "it has: web" in scene.restore("--app", "api", "--at", "1", "--yes", status=64)
    assert others(scene) == []


@pytest.mark.unit
def test_an_app_that_is_gone_comes_back(scene: Scene) -> None:
    """There is no old directory to keep then."""
    (scene.db / "apps" / "api" / "app.xml").unlink()
    (scene.db / "apps" / "api").rmdir()
    scene.restore("--app", "api", "--yes")
    assert image(scene, "api") == "web:1"
    assert list((scene.db / ".k4t" / "replaced").iterdir()) == []


@pytest.mark.unit
def test_a_directory_beside_changes_nothing_else(scene: Scene, tmp_path: Path) -> None:
    """It must be new or empty. Nothing is asked, since nothing is replaced."""
    before = texts(scene.db)
    to = tmp_path / "out"
    scene.restore("--at", "1", "--to", str(to))
    assert "web:1" in texts(to)["apps/web/app.xml"]
    assert "is not empty" in scene.restore("--at", "1", "--to", str(to), status=64)
    scene.restore("--app", "web", "--to", str(tmp_path / "web"))
    assert list(texts(tmp_path / "web")) == ["app.xml"]
    assert texts(scene.db) == before
    assert others(scene) == ["out", "web"]


@pytest.mark.unit
def test_copies_are_compared_and_looked_into(scene: Scene) -> None:
    """A copy's file, a directory of copies (its newest one), the tree; a path alone is one of the newest copy."""
    first, newest = (str(scene.copies / one.name) for one in scene.made)
    said = scene.k4t("backup", "diff", first, str(scene.copies)).splitlines()
    assert 'apps/web/app.xml: image "web:1" → "web:2"' in said
    assert "apps/api/app.xml: added" in said
    assert scene.k4t("backup", "diff", newest) == 'apps/web/app.xml: image "web:2" → "web:3"\n'
    assert "hold the same" in scene.k4t("backup", "diff", newest, newest)
    assert scene.k4t("backup", "show", newest, "cluster.xml") == texts(scene.db)["cluster.xml"]
    listed = json.loads(scene.k4t("backup", "show", newest, "-o", "json"))["files"]
    assert [one["path"] for one in listed] == [*texts(scene.db)]
    assert "<image>web:1</image>" in scene.k4t("backup", "show", first, "apps/web")
    assert "no copy on the targets" in scene.k4t("backup", "show", "apps/web", status=64)
    assert "has no apps/shop" in scene.k4t("backup", "show", newest, "apps/shop", status=64)
    assert "is no serial" in scene.k4t("backup", "diff", "yesterday", status=64)
    assert "no place for copies" in scene.k4t("backup", "list", status=64)


# --- refused -------------------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_what_is_not_proved_good_is_refused_and_the_next_good_one_named(scene: Scene, tmp_path: Path) -> None:
    """Altered, cut off, of another cluster, signed by a key that nobody certified: nothing is changed, and the command
    that takes a good copy is named."""
    before = texts(scene.db)
    scene.app("web", 4)
    newest = scene.copy(keep=False)
    foreign = Scene(tmp_path / "other", id="x1y2z3a4").copy(keep=False)
    middle = len(newest.header) + len(newest.payload) // 2
    altered = newest.data[:middle] + bytes([newest.data[middle] ^ 1]) + newest.data[middle + 1 :]
    stranger = keys.certify(ID, scene.keys.recovery, keys.recovery_identity(ID), "2026-11-20T12:00:00Z", ("intents",))
    uncertified = snapshot.header_of(newest.manifest, stranger)
    bad = {
        "not those that were signed": altered,
        "cut off or longer": newest.data[:-7],
        "not certified by the key of": foreign.data,
        "for intents, not for snapshots": uncertified + newest.payload,
        "its signature is not right": _resigned(newest.data),
    }
    scene.app("web", 3)
    for reason, data in bad.items():
        path = scene.put(newest.name, data)
        said = scene.restore("--yes", status=1)
        assert reason in said
        assert "the next good one is copy 2.2" in said
        assert "--at 2.2" in said
        path.unlink()
    assert (texts(scene.db), others(scene)) == (before, ["other"])


def _resigned(data: bytes) -> bytes:
    """With another signature of the right form."""
    head, _, payload = data.partition(b"\n")
    content = json.loads(head)
    content["signature"] = content["certified"]
    return json.dumps(content, separators=(",", ":")).encode() + b"\n" + payload


@pytest.mark.unit
def test_older_than_what_this_copy_applied_needs_rollback(scene: Scene) -> None:
    """Also when no host can be asked: that is unknown then, and said so."""
    said = scene.restore("--at", "1", "--yes", status=4)
    assert "serial 2" in said
    assert "the next good one is copy 2.2" in said
    said = scene.restore("--at", "1", "--yes", "--rollback")
    assert "no host to ask" in said
    assert image(scene) == "web:1"


@pytest.mark.unit
def test_only_a_tree_is_replaced(scene: Scene, tmp_path: Path) -> None:
    """A directory that is none, or a file, stays as it is, whatever --db says; an app needs a tree to be put into."""
    other = tmp_path / "documents"
    other.mkdir()
    (other / "letter").write_text("dear")
    for db in (other, other / "letter"):
        assert "is no tree, and not empty" in scene.restore("--yes", db=db, status=64)
    assert [path.name for path in other.iterdir()] == ["letter"]
    assert "no tree at" in scene.restore("--app", "web", "--yes", db=tmp_path / "new", status=64)


@pytest.mark.unit
def test_a_refused_key_or_login_is_told_apart_from_silence() -> None:
    """77 when a host says no; else 69. One that was asked for is named with its own words."""
    silent, changed = HostUnreachable("no answer", host="n1"), HostKeyChanged("another key", host="n2")
    assert unasked([Shelf("n1", error=silent)]) is silent
    assert unasked([Shelf("n1", error=silent), Shelf("n2", error=changed)]).exit_status == 77
    both = unasked([Shelf("n1", error=silent), Shelf("n3", error=HostUnreachable("off", host="n3"))])
    assert (both.exit_status, "n1: no answer; n3: off" in both.message) == (69, True)
    with pytest.raises(HostUnreachable):
        take([Shelf("n1", error=silent), Shelf("n4")], Live(), Wanted(Path("db"), "n1"), Trust(ID, ""), list)


@pytest.mark.unit
def test_nothing_is_asked_without_a_terminal(scene: Scene) -> None:
    """It says which option to give; where nothing would change, nothing needs to be agreed to."""
    before = texts(scene.db)
    assert "--yes" in scene.restore(status=64)
    assert texts(scene.db) == before
    scene.app("web", 2)
    assert "nothing to do" in scene.restore()


@pytest.mark.unit
def test_what_was_edited_while_it_was_asked_is_not_replaced(scene: Scene) -> None:
    """Who is asked holds no lock. A no changes nothing either."""
    before = texts(scene.db)
    assert "not confirmed" in answered(scene, "n")
    assert texts(scene.db) == before
    said = answered(scene, "y", meanwhile=lambda: scene.app("web", 9))
    assert "was edited meanwhile" in said
    assert image(scene) == "web:9"
    assert "what was there is kept" in answered(scene, "y")
    assert image(scene) == "web:2"


def answered(scene: Scene, answer: str, meanwhile: Callable[[], None] = lambda: None) -> str:
    """`restore` on a terminal; all that it said there."""
    ours, theirs = os.openpty()
    argv = [*K4T, "restore", "--from", str(scene.copies)]
    process = subprocess.Popen(argv, env=scene.environment(scene.db), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # its end, on Linux
        while data := os.read(ours, 65536):
            said += data
            if data.endswith(b"[y/N] "):
                assert b"~ apps/web/app.xml" in said
                meanwhile()
                LocalLock(WorkingCopy(scene.db).lock_path).take(HOLDER).release()
                os.write(ours, answer.encode() + b"\n")
    process.wait(timeout=60)
    os.close(ours)
    return said.decode()


@pytest.mark.unit
def test_a_target_that_breaks_off_is_passed_over(scene: Scene) -> None:
    """Where any target will do; one that was asked for is said to be away."""

    class Cut(Folder):
        def fetch(self, name: str, size_bytes: int = 0) -> bytes:  # noqa: ARG002 - the contract's
            raise ConnectionLost("it was cut", host="n1")

    trust = Trust(ID, scene.keys.recovery.key)
    both = [Place("n1", lambda: Cut(scene.copies)), Place("n2", lambda: Folder(scene.copies))]
    there = shelves(both, trust)
    found = take(there, Live(2, 2, 2, LINEAGE), Wanted(scene.db), trust, lambda: keys.recovery_identity(ID))
    assert (found.target, found.manifest.sequence) == ("n2", 2)
    assert any("it was cut" in note for note in found.notes)
    with pytest.raises(ConnectionLost):
        take(there, Live(2, 2, 2, LINEAGE), Wanted(scene.db, "n1"), trust, list)


@pytest.mark.unit
def test_no_room_for_what_goes_along_is_no_restore(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old tree is in place, and nothing is left beside it. What can't be read is named, and left in the old one."""
    (scene.db / ".git").mkdir()
    (scene.db / ".git" / "HEAD").write_text("ref")
    before = texts(scene.db)
    number = [errno.ENOSPC]

    def broken(old: str, new: str, **_: object) -> None:
        raise OSError(number[0], os.strerror(number[0]), old)

    monkeypatch.setattr(shutil, "copy2", broken)
    with pytest.raises(K4tError, match="no room for a copy of"):
        put_back(taken(scene), Wanted(scene.db), Live(), HOLDER)
    assert (texts(scene.db), others(scene)) == (before, [])
    number[0] = errno.EIO
    done = put_back(taken(scene), Wanted(scene.db), Live(), HOLDER)
    assert any(".git was not carried over" in note for note in done.notes)
    assert done.kept is not None
    assert (done.kept / ".git" / "HEAD").read_text() == "ref"


@pytest.mark.unit
@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_tree_belongs_to_whom_it_did(scene: Scene) -> None:
    """Root puts back what a user works on: the user can go on working."""
    for path in [scene.db, *scene.db.rglob("*")]:
        os.chown(path, 12345, 12346)
    scene.db.chmod(0o2750)
    put_back(taken(scene), Wanted(scene.db), Live(), HOLDER)
    put_back_app(taken(scene, 0), Wanted(scene.db, app="web"), HOLDER)
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (scene.db, *(scene.db / "apps").rglob("*"))}
    assert owners == {(12345, 12346)}
    assert scene.db.stat().st_mode & 0o7777 == 0o2750


@pytest.mark.unit
def test_while_another_run_holds_the_tree_nothing_is_put_back(scene: Scene) -> None:
    """75, with its name."""
    before = texts(scene.db)
    with LocalLock(WorkingCopy(scene.db).lock_path).take(HOLDER):
        assert "anna@laptop on laptop" in scene.restore("--yes", status=75)
    assert texts(scene.db) == before


@pytest.mark.unit
def test_whoever_waited_for_the_lock_meanwhile_is_told_to_start_again(scene: Scene) -> None:
    """It has read the tree that was there before. And the new tree is locked from its first moment on."""
    lock = WorkingCopy(scene.db).lock_path
    with ThreadPoolExecutor() as pool:
        with LocalLock(lock).take(HOLDER):
            waiting = pool.submit(LocalLock(lock).take, HOLDER, wait_s=30)
            while not _waited_for(lock):
                time.sleep(0.01)
            put_back(taken(scene), Wanted(scene.db), Live(), HOLDER)
        with pytest.raises(Locked, match="was replaced"):
            waiting.result(timeout=30)
    LocalLock(lock).take(HOLDER).release()


def _waited_for(path: Path) -> bool:
    """Whether two descriptors of this process are open on it."""
    return sum(os.readlink(f"/proc/self/fd/{one}") == str(path) for one in _descriptors()) > 1


def _descriptors() -> list[str]:
    return [one for one in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{one}")]
