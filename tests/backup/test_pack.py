"""One consistent picture of a tree that somebody works on, and always the same bytes for the same tree."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from k4t.errors import InvalidTree, K4tError, Usage
from k4t.master.backup import pack, unpack
from k4t.master.publication import redolog
from k4t.model.snapshot import Lineage
from k4t.tree import files
from tests.backup.trees import AT, FILES, LINEAGE, packed, remembering, working_copy
from tests.tree.support import BASE, write_tree

pytestmark = pytest.mark.unit


def names(db: Path) -> list[str]:
    return list(unpack.listed(packed(db)))


def file(db: Path, path: str) -> bytes | None:
    return unpack.member(packed(db), path)


# --- the same bytes --------------------------------------------------------------------------------------------------


def test_the_same_tree_gives_the_same_archive(tmp_path: Path) -> None:
    """Whatever the times, the order in which files were made, the umask, the modes, and where it is."""
    first = remembering(tmp_path / "first")
    second = tmp_path / "some" / "where" / "else"
    files = [path for path in first.rglob("*") if path.is_file()]
    old = os.umask(0o077)
    try:
        for path in reversed(files):
            copy = second / path.relative_to(first)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
            os.utime(copy, (1, 1))
        (second / "hooks/pre-apply").chmod(0o700)
    finally:
        os.umask(old)
    assert packed(first) == packed(second) == packed(first)


@pytest.mark.parametrize(
    "change",
    [
        lambda db: (db / "nodes/n1.xml").write_text('<node address="10.0.0.9"/>'),
        lambda db: (db / "known_hosts").write_text("another\n"),
        lambda db: (db / "README.md").write_text("another\n"),
        lambda db: (db / "apps/web/README").unlink(),
        lambda db: (db / "apps/web/conf/nginx.conf").chmod(0o755),
        lambda db: (db / "apps/web/conf/nginx.conf").rename(db / "apps/web/nginx.conf"),
        lambda db: (db / ".k4t/base").write_text("42\n"),
        lambda db: (db / f".k4t/objects/{'cd' * 32}").write_text("x"),
    ],
)
def test_every_change_shows(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """Of contents, of names, of what is a program."""
    before = packed(remembering(tmp_path))
    change(tmp_path)
    assert packed(tmp_path) != before


# --- what is in it ---------------------------------------------------------------------------------------------------


def test_a_copy_holds_the_tree_and_what_k4t_remembers(tmp_path: Path) -> None:
    """Everything that is needed to go on, notes and host keys too; nothing of git, nothing half-done, no locks."""
    working_copy(tmp_path)
    for path in (
        ".git/config", ".git/hooks/pre-commit", "apps/web/.git/config", ".gitattributes", ".k4t-0badcafe",
        "apps/.k4t-0badcafe/app.xml", "apps/web/.k4t-0badcafe", ".k4t/lock", ".k4t/backup/state.json",
        ".k4t/backup/lock", ".k4t/intents.jsonl", ".k4t/intents/1", ".k4t/redo.log.old", ".k4t/.k4t-0badcafe",
        ".k4t/objects/.k4t-0badcafe", ".k4t/revisions/.hidden", ".k4t/revisions/sub/x", ".k4t/unheard-of",
    ):  # fmt: skip
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("not this")
    archive = packed(tmp_path)
    found = unpack.listed(archive)
    own = [path for path in found if path.startswith(".k4t/")]
    assert sorted({*FILES, *BASE}) == [path for path in sorted(found) if path not in own]
    assert b"not this" not in archive
    kinds = {path.split("/")[1] for path in own}
    assert kinds == {"audit.jsonl", "base", "lineage", "objects", "revisions"}
    assert [path for path in own if "revisions" in path] == [".k4t/revisions/000040.json", ".k4t/revisions/000041.json"]


def test_a_picture_says_how_far_it_is(tmp_path: Path) -> None:
    """Its serial and its lineage; for a tree that was never applied, none."""
    working_copy(tmp_path / "applied")
    write_tree(tmp_path / "fresh", FILES)
    (tmp_path / "fresh/hooks/pre-apply").chmod(0o755)
    applied, fresh = pack.picture(tmp_path / "applied"), pack.picture(tmp_path / "fresh")
    assert (applied.serial, applied.lineage, applied.notes) == (41, LINEAGE, ())
    assert (fresh.serial, fresh.lineage, fresh.notes) == (0, None, ())
    assert not any(path.startswith(".k4t") for path in names(tmp_path / "fresh"))


def test_a_broken_tree_can_be_copied(tmp_path: Path) -> None:
    """What an operator is in the middle of is worth keeping: XML need not be right for that."""
    remembering(tmp_path)
    (tmp_path / "apps/web/app.xml").write_text("<app><ima")
    assert file(tmp_path, "apps/web/app.xml") == b"<app><ima"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda db: (db / "apps/web/link").symlink_to("/etc/passwd"), "is a symbolic link"),
        (lambda db: os.mkfifo(db / "apps/web/pipe"), "is a named pipe"),
        (lambda db: (db / "nodes/stray.txt").write_text("x"), "is no file of a tree"),
        (lambda db: (db / "apps/web/A").write_text("x") and (db / "apps/web/a").write_text("x"), "differs from"),
    ],
)
def test_what_can_not_be_put_back_is_not_left_out_silently(
    tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    """A copy without a file that is in the tree would be found out too late: what is wrong is named."""
    remembering(tmp_path)
    make(tmp_path)
    with pytest.raises(InvalidTree, match=says):
        packed(tmp_path)


def test_links_pipes_and_sockets_are_not_followed_or_waited_for(tmp_path: Path) -> None:
    """Neither as a README nor in `.k4t/`: what isn't a regular file is not k4t's."""
    remembering(tmp_path)
    secret = tmp_path.parent / f"{tmp_path.name}-secret"
    secret.write_text("of another")
    own = tmp_path / ".k4t"
    shutil.rmtree(own / "objects")
    for path in (own / "redo.log", own / "base", own / "lineage"):
        path.unlink()
    (tmp_path / "README-link").symlink_to(secret)
    (own / "objects").mkdir()
    (own / "objects/link").symlink_to(secret)
    (own / "lineage").symlink_to(secret)
    os.mkfifo(own / "redo.log")
    os.mkfifo(own / "revisions/pipe")
    (own / "base").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "README-socket"))
        archive = packed(tmp_path)
    assert b"of another" not in archive
    assert [path for path in unpack.listed(archive) if path.startswith(".k4t")] == [
        ".k4t/audit.jsonl", ".k4t/revisions/000041.json",
    ]  # fmt: skip


def test_no_tree_is_said(tmp_path: Path) -> None:
    """As everywhere else."""
    with pytest.raises(Usage, match="no tree at"):
        pack.picture(tmp_path / "nowhere")


def test_a_tree_that_is_too_large_names_its_largest_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything of them is read."""
    remembering(tmp_path)
    with (tmp_path / "apps/web/image.tar").open("wb") as sparse:
        sparse.truncate(3 << 20)
    monkeypatch.setattr(pack, "ARCHIVE_MAX_BYTES", 2 << 20)
    with pytest.raises(K4tError, match=r"holds 3 MiB; a copy takes at most 2 MiB: apps/web/image.tar \(3 MiB\)"):
        pack.picture(tmp_path)


# --- logs that grow --------------------------------------------------------------------------------------------------


def log_of(count: int) -> list[bytes]:
    head = {"kind": "log", "format": 1, "incarnation": "ab" * 16, "cluster": "k7f3q2m9", "at": AT}
    line, last = redolog.encoded(1, "", head)
    lines = [line]
    for number in range(2, count + 1):
        fields = {
            "kind": "begin", "transaction": f"t{number}", "on": "gateway/default", "epoch": [number, "run"], "seq": 1,
            "document": "", "parent": "", "digest": "", "members": ["gw1"], "who": "ops", "at": AT, "message": "",
            "add": [], "remove": [],
        }  # fmt: skip
        line, last = redolog.encoded(number, last, fields)
        lines.append(line)
    return lines


def test_the_redo_log_ends_with_its_last_whole_record(tmp_path: Path) -> None:
    """Cut at any byte, as a run that is appending to it would have it read."""
    remembering(tmp_path)
    path = tmp_path / ".k4t/redo.log"
    *whole, last = log_of(3)
    for size in range(0, len(last), 7):
        path.write_bytes(b"".join(whole) + last[:size])
        assert file(tmp_path, ".k4t/redo.log") == b"".join(whole)
    path.write_bytes(b"".join(whole) + last)
    assert file(tmp_path, ".k4t/redo.log") == b"".join(whole) + last


def test_a_damaged_redo_log_is_left_out_and_named(tmp_path: Path) -> None:
    """A copied log speaks for nobody; a damaged one would only stop whoever takes the copy over."""
    remembering(tmp_path)
    data = b"".join(log_of(3))
    (tmp_path / ".k4t/redo.log").write_bytes(data.replace(b'"t2"', b'"t9"'))
    picture = pack.picture(tmp_path)
    assert ".k4t/redo.log" not in unpack.listed(picture.archive)
    assert len(picture.notes) == 1
    assert picture.notes[0].startswith("the redo log is not in this copy: ")
    assert "is damaged at byte" in picture.notes[0]


def test_the_audit_log_ends_with_its_last_whole_line(tmp_path: Path) -> None:
    """Half a line is no entry, and the chain goes on without it."""
    copy = working_copy(tmp_path)
    path = tmp_path / ".k4t/audit.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"serial":42,"who"')
    assert file(tmp_path, ".k4t/audit.jsonl") == whole
    path.write_bytes(b'{"half')
    assert file(tmp_path, ".k4t/audit.jsonl") == b""
    copy.audit({"serial": 43})


# --- while somebody edits --------------------------------------------------------------------------------------------


@contextmanager
def meanwhile(work: Callable[[threading.Event], object]) -> Iterator[None]:
    done = threading.Event()
    thread = threading.Thread(target=work, args=(done,))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_picture_is_of_one_moment(tmp_path: Path) -> None:
    """While an editor writes one number into two files, one after the other: no copy has a state that never was."""
    db = remembering(tmp_path)

    def edit(done: threading.Event) -> None:
        for number in range(1, 100_000):
            for name in ("a", "b"):
                temporary = tmp_path / f".k4t-{name}"
                temporary.write_text(f"{number:09}")
                temporary.rename(tmp_path / f"apps/web/{name}.txt")
            if done.wait(0.02):
                return

    for name in ("a", "b"):
        (tmp_path / f"apps/web/{name}.txt").write_text(f"{0:09}")
    seen = set()
    with meanwhile(edit):
        for _ in range(30):
            archive = packed_patiently(db)
            a, b = (int(unpack.member(archive, f"apps/web/{name}.txt") or b"") for name in ("a", "b"))
            assert b <= a <= b + 1
            seen.add(a)
    assert len(seen) > 3


def packed_patiently(db: Path) -> bytes:
    for _ in range(20):
        try:
            return packed(db)
        except Usage:
            continue
    raise AssertionError("never still")


def test_a_revision_that_is_being_kept_is_whole_or_absent(tmp_path: Path) -> None:
    """An apply that records while the copy is made: `base` never names a revision that the copy hasn't got."""
    copy = working_copy(tmp_path)

    def apply(done: threading.Event) -> None:
        for serial in range(42, 10_000):
            copy.remember(serial, {"at": AT, "who": "ops", "message": "", "apps": {}}, {})
            copy.audit({"serial": serial})
            if done.wait(0.05):
                return

    with meanwhile(apply):
        for _ in range(10):
            archive = packed_patiently(tmp_path)
            base = int(unpack.member(archive, ".k4t/base") or b"")
            revisions = [path for path in unpack.listed(archive) if path.startswith(".k4t/revisions/")]
            for path in revisions:
                json.loads(unpack.member(archive, path) or b"")
            assert f".k4t/revisions/{base:06}.json" in revisions


def test_a_tree_that_never_holds_still_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a bounded number of attempts, with what to do."""
    remembering(tmp_path)
    packing, edits = pack._Picture._packed, itertools.count()

    def edited(self: pack._Picture) -> bytes:
        (tmp_path / "README.md").write_text(f"{next(edits):05}")
        return packing(self)

    monkeypatch.setattr(pack._Picture, "_packed", edited)
    monkeypatch.setattr(pack, "PAUSE_S", 0.001)
    with pytest.raises(Usage, match=r"changes while it is copied \(8 attempts\); try again when it is quiet"):
        pack.picture(tmp_path)
    assert next(edits) == 8


@pytest.mark.parametrize("place", ["apps/web/conf/nginx.conf", ".k4t/base", "README.md", ".k4t/revisions/000041.json"])
def test_what_goes_away_under_the_reader_is_no_error(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture is taken again, without it."""
    remembering(tmp_path)
    packing = pack._Picture._packed

    def meanwhile_gone(self: pack._Picture) -> bytes:
        (tmp_path / place).unlink(missing_ok=True)
        return packing(self)

    monkeypatch.setattr(pack._Picture, "_packed", meanwhile_gone)
    assert place not in unpack.listed(pack.picture(tmp_path).archive)


def test_an_edit_within_one_tick_of_the_clock_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place, of the same size, and so soon that the file's times are the same: what was read counts no more."""
    remembering(tmp_path)
    path = tmp_path / "apps/web/conf/nginx.conf"
    path.write_text("aaaa")
    monkeypatch.setattr(files, "_signature", lambda status: (status.st_ino, status.st_size, 0, 1 << 62))
    packing, edits = pack._Picture._packed, itertools.count()

    def edited(self: pack._Picture) -> bytes:
        archive = packing(self)
        if next(edits) < 2:
            path.write_text(f"{next(edits):04}")
        return archive

    monkeypatch.setattr(pack._Picture, "_packed", edited)
    assert file(tmp_path, "apps/web/conf/nginx.conf") == path.read_bytes() == b"0001"


def test_a_file_that_changes_its_size_while_it_is_copied_is_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size stands before its contents: a longer or shorter file would shift all that follows."""
    remembering(tmp_path)
    path = tmp_path / "apps/web/conf/nginx.conf"
    sizes = iter([10, 3 << 20, 0])
    packing = pack._Picture._packed

    def other_size(self: pack._Picture) -> bytes:
        if (size := next(sizes, None)) is not None:
            path.write_bytes(b"y" * size)
        return packing(self)

    monkeypatch.setattr(pack._Picture, "_packed", other_size)
    assert file(tmp_path, "apps/web/conf/nginx.conf") == b""


def test_a_lineage_that_is_damaged_is_none(tmp_path: Path) -> None:
    """It goes into the copy as it is; who restores it has no lineage then."""
    remembering(tmp_path)
    (tmp_path / ".k4t/lineage").write_text("{")
    assert pack.picture(tmp_path).lineage is None
    (tmp_path / ".k4t/lineage").write_text('{"generation":3,"id":"x"}')
    assert pack.picture(tmp_path).lineage == Lineage(3, "x")
