"""One place for copies: what is written is whole or not there, on any fault; what is in the way is never touched."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest

from k4t.command import Completed
from k4t.errors import ConnectionLost, HostFull, StepError
from k4t.master.backup.target import Known, Listing, Seen, Target
from k4t.model.snapshot import Manifest
from k4t.remote.fake import FakeTransport
from tests.backup.shell import CLUSTER, Shell, name, target

pytestmark = pytest.mark.unit

DATA = b'{"k4t-snapshot":1}\n' + bytes(range(256)) * 20


@pytest.fixture
def shell() -> Shell:
    return Shell()


@pytest.fixture
def there(tmp_path: Path, shell: Shell) -> Target:
    return target(tmp_path, shell)


def disk(root: Path) -> Path:
    return root / CLUSTER / "copies"


def found(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in disk(root).iterdir() if path.is_file()}


def program(shell: Shell, root: Path, word: str, script: str) -> None:
    """Put a program of ours before the system's on that host."""
    (root / "bin").mkdir(exist_ok=True)
    path = root / "bin" / word
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    shell.environ["PATH"] = f"{root / 'bin'}:/usr/bin:/bin"


def known(data: bytes = DATA, file: str = "") -> Known:
    """The copy as it is known from its header."""
    header, payload = data[: data.index(b"\n") + 1], data[data.index(b"\n") + 1 :]
    generation, serial, sequence = (int(word) for word in (file or name(1, 1)).split("-")[:3])
    sha256 = hashlib.sha256(payload).hexdigest()
    manifest = Manifest(
        CLUSTER, generation, "", serial, sequence, "2026-11-20T16:15:00Z", "", "", sha256, len(payload),
        encrypted=True, archive_bytes=0,
    )  # fmt: skip
    return Known(header, manifest)


def test_a_copy_is_written_whole_for_its_owner_alone(there: Target, tmp_path: Path) -> None:
    """Directory 0700, file 0600, nothing else is left; all copies are listed, oldest first."""
    assert dataclasses.replace(there.look(), free_bytes=0) == Listing()
    assert there.store(name(1, 1), DATA, Seen()) == (name(1, 1),)
    assert there.store(name(2, 2), DATA, Seen(name(1, 1))) == (name(1, 1), name(2, 2))
    assert found(tmp_path) == {name(1, 1): DATA, name(2, 2): DATA}
    assert stat.S_IMODE(disk(tmp_path).stat().st_mode) == 0o700
    assert stat.S_IMODE((disk(tmp_path) / name(1, 1)).stat().st_mode) == 0o600
    seen = there.look(1)
    assert seen.files == ((name(1, 1), len(DATA)), (name(2, 2), len(DATA)))
    assert seen.headers == ((name(2, 2), len(DATA), b'{"k4t-snapshot":1}'),)
    assert seen.free_bytes > 0
    assert there.fetch(name(2, 2), len(DATA)) == DATA


def test_nothing_is_written_where_something_else_is_than_was_seen(there: Target, tmp_path: Path) -> None:
    """Another master's copy, or a head that says that somebody took over: the caller looks first."""
    there.store(name(1, 1), DATA, Seen())
    assert there.store(name(2, 2), DATA, Seen()) is None
    head = '{"at":"x","lineage":{"at":"","generation":2,"id":"ff","serial":3,"who":"eve"},"x":1}'
    (tmp_path / CLUSTER / "head").write_text(head)
    assert there.store(name(2, 2), DATA, Seen(name(1, 1))) is None
    assert not there.confirm(known(), b"yes", Seen(name(1, 1)))
    assert found(tmp_path) == {name(1, 1): DATA}
    seen = there.look()
    assert seen.master is not None
    assert (seen.master.generation, seen.master.id, seen.master.who) == (2, "ff", "eve")
    assert there.store(name(2, 2), DATA, seen.seen) == (name(1, 1), name(2, 2))


def test_a_confirmation_stands_beside_a_copy_that_is_whole(there: Target, tmp_path: Path) -> None:
    there.store(name(1, 1), DATA, Seen())
    assert there.confirm(known(), b"a statement\n", Seen(name(1, 1)))
    assert there.look().confirmed == b"a statement\n"


@pytest.mark.parametrize("at", [0, 5, 18, 19, 2000, len(DATA) - 1])
def test_a_copy_with_one_bit_altered_is_not_confirmed(there: Target, tmp_path: Path, at: int) -> None:
    """In its header, at their border, in what follows; nor one that was cut, or is gone."""
    there.store(name(1, 1), DATA, Seen())
    path = disk(tmp_path) / name(1, 1)
    for altered in (DATA[:at] + bytes([DATA[at] ^ 1]) + DATA[at + 1 :], DATA[:at]):
        path.write_bytes(altered)
        assert not there.confirm(known(), b"yes", Seen(name(1, 1)))
    path.unlink()
    assert not there.confirm(known(), b"yes", Seen())
    assert found(tmp_path) == {}


@pytest.mark.parametrize("at", [0, 1, 20, 4095, 4096, len(DATA) - 1])
def test_a_disk_that_is_full_at_any_byte_keeps_what_is_there(
    there: Target, shell: Shell, tmp_path: Path, at: int
) -> None:
    """The old copies are whole, nothing of the new one is left, and one line says so with the numbers."""
    there.store(name(1, 1), DATA, Seen())
    program(shell, tmp_path, "cat", f"head -c {at}; echo 'cat: write error: No space left on device' >&2; exit 1")
    with pytest.raises(HostFull) as told:
        there.store(name(2, 2), DATA, Seen(name(1, 1)))
    assert found(tmp_path) == {name(1, 1): DATA}
    said = str(told.value)
    assert said.startswith(f"node1: no room for a copy of 5 KiB in {disk(tmp_path)} (")
    assert said.endswith("iB free); the 1 there are kept; make room there, or lower keep=")


NEEDED = ("sync", "mv", "sha256sum", "cat", "wc")


@pytest.mark.parametrize("word", [*NEEDED, "find", "stat"])
def test_a_host_whose_programs_fail_keeps_what_is_there(there: Target, shell: Shell, tmp_path: Path, word: str) -> None:
    """The old copy stays whole; the new one is there whole, or not at all."""
    there.store(name(1, 1), DATA, Seen())
    program(shell, tmp_path, word, f"echo '{word}: Input/output error' >&2; exit 1")
    with pytest.raises(StepError, match="input/output error") if word in NEEDED else nullcontext():
        there.store(name(2, 2), DATA, Seen(name(1, 1)))
    assert found(tmp_path) in ({name(1, 1): DATA}, {name(1, 1): DATA, name(2, 2): DATA})


@pytest.mark.crash
@pytest.mark.parametrize("word", ["cat", "wc", "sha256sum", "sync", "mv"])
@pytest.mark.parametrize("done", [False, True])
def test_a_host_that_dies_at_any_step_keeps_what_is_there(
    there: Target, shell: Shell, tmp_path: Path, word: str, done: bool
) -> None:
    """Before and after each of its commands; what counts is whole, and the next attempt succeeds."""
    there.store(name(1, 1), DATA, Seen())
    act = f'/usr/bin/{word} "$@"; ' if done else ""
    program(shell, tmp_path, word, f"{act}kill -9 $PPID")
    with pytest.raises(StepError):
        there.store(name(2, 2), DATA, Seen(name(1, 1)))
    left = {file: data for file, data in found(tmp_path).items() if not file.startswith(".")}
    assert left in ({name(1, 1): DATA}, {name(1, 1): DATA, name(2, 2): DATA})
    again = target(tmp_path)
    assert again.store(name(2, 2), DATA, again.look().seen) == (name(1, 1), name(2, 2))


def test_what_does_not_read_back_is_told(there: Target, shell: Shell, tmp_path: Path) -> None:
    """A disk that lies: what was renamed into place has other bytes."""
    program(shell, tmp_path, "mv", '/bin/mv "$@"; shift 2; printf x >>"$2"')
    with pytest.raises(StepError, match="does not read back as it was written"):
        there.store(name(1, 1), DATA, Seen())


class Cut(Shell):
    """A connection that ends in the middle: the host gets a part of what was sent, or other bytes."""

    received = DATA

    def _say(self, argv: Sequence[str], input: bytes) -> Completed:
        return super()._say(argv, self.received if input else input)


@pytest.mark.parametrize("at", [0, 1, 19, 4096, len(DATA) - 1])
def test_a_connection_that_ends_at_any_byte_leaves_no_part_of_a_copy(tmp_path: Path, at: int) -> None:
    target(tmp_path).store(name(1, 1), DATA, Seen())
    shell = Cut()
    shell.received = DATA[:at]
    with pytest.raises(StepError, match="only a part of it came"):
        target(tmp_path, shell).store(name(2, 2), DATA, Seen(name(1, 1)))
    shell.received = DATA[:at] + b"?" + DATA[at + 1 :]
    with pytest.raises(StepError, match="it is not what was sent"):
        target(tmp_path, shell).store(name(2, 2), DATA, Seen(name(1, 1)))
    assert found(tmp_path) == {name(1, 1): DATA}


def test_a_lost_answer_is_in_doubt(there: Target, shell: Shell) -> None:
    """Not a failure: a look says that it was written."""
    shell.fail("lost-reply")
    with pytest.raises(ConnectionLost, match="in doubt"):
        there.store(name(1, 1), DATA, Seen())
    assert [one for one, _ in there.look().files] == [name(1, 1)]


def test_what_is_in_the_way_is_named_and_left_alone(tmp_path: Path) -> None:
    """A link or a file in the directory's place; a link, a pipe or a directory in the copy's."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / CLUSTER).mkdir()
    disk(tmp_path).symlink_to(elsewhere)
    acts: list[Callable[[], object]] = [
        lambda: target(tmp_path).look(), lambda: target(tmp_path).store(name(1, 1), DATA, Seen())
    ]  # fmt: skip
    for act in acts:
        with pytest.raises(StepError, match="copies is a symbolic link; k4t writes copies into a directory of its own"):
            act()
    disk(tmp_path).unlink()
    disk(tmp_path).write_text("mine")
    with pytest.raises(StepError, match="copies is no directory"):
        target(tmp_path).store(name(1, 1), DATA, Seen())
    assert disk(tmp_path).read_text() == "mine"
    disk(tmp_path).unlink()
    disk(tmp_path).mkdir()
    place = disk(tmp_path) / name(1, 1)
    makers: list[Callable[[], object]] = [lambda: place.symlink_to(elsewhere), lambda: os.mkfifo(place), place.mkdir]
    for make in makers:
        make()
        with pytest.raises(StepError, match=r"snapshot is no regular file; k4t writes"):
            target(tmp_path).store(name(1, 1), DATA, Seen())
        assert not place.is_file()
        place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink()
    assert list(elsewhere.iterdir()) == []


def test_foreign_files_are_neither_listed_nor_removed(there: Target, tmp_path: Path) -> None:
    """Also those with names that a shell would take apart; a name with a path in it removes nothing elsewhere."""
    there.store(name(1, 1), DATA, Seen())
    for foreign in ("notes.txt", "$(touch pwned)", "a b.snapshot", "1-1-1-Z.snapshot", "-rf", "0001-x\n.snapshot"):
        (disk(tmp_path) / foreign).write_text("mine")
    (tmp_path / CLUSTER / "head").write_text("{}")
    assert [one for one, _ in there.look(9).files] == [name(1, 1)]
    there.remove([name(1, 1), "notes.txt", "../head", "-rf"])
    assert there.look().files == ()
    assert (tmp_path / CLUSTER / "head").exists()
    assert len(list(disk(tmp_path).iterdir())) == 6


def test_what_a_killed_run_left_is_taken_away_after_an_hour(there: Target, tmp_path: Path) -> None:
    """A younger one may be another master's, who is just writing it."""
    there.store(name(1, 1), DATA, Seen())
    for file, age_s in ((".k4t-tmp-1", 7200), (".k4t-tmp-2", 60)):
        path = disk(tmp_path) / file
        path.write_text("part")
        then = path.stat().st_mtime - age_s
        os.utime(path, (then, then))
    there.store(name(2, 2), DATA, Seen(name(1, 1)))
    assert sorted(found(tmp_path)) == [".k4t-tmp-2", name(1, 1), name(2, 2)]


HOSTILE = [
    b"", b"\n\n\n", b"free -1\nfree 99999999999999999999999\nlineage {{{{\n", b"file x y\nfile 1 ../../etc/passwd\n",
    b"head\nhead 1\n", b"confirmed", b"\xff\xfe\x00file 1 a\n", b"file 5 0001-000001-0000001-20261120T161500Z.snapshot",
    b'lineage "lineage":{"generation":"x"}\n', b'lineage "lineage":{"generation":' + b"9" * 5000 + b',"id":"a"}\n',
]  # fmt: skip


@pytest.mark.parametrize("said", HOSTILE)
def test_a_host_that_lies_is_heard_without_a_crash(said: bytes) -> None:
    """What it says of itself is taken for what it is; no file of it has a name that isn't a copy's."""
    transport = FakeTransport("node1")
    transport.answer(["sh"], said)
    listing = Target(transport, CLUSTER).look(3)
    assert listing.master is None
    assert all(one.endswith("Z.snapshot") and "/" not in one for one, _ in listing.files)
    assert dataclasses.replace(listing, confirmed=b"").free_bytes >= 0
