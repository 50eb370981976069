"""The redo log: what survives which damage, what is refused, and for whom it speaks."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import pytest

from k4t.errors import LogRefused
from k4t.master.publication import redolog
from k4t.master.publication.redolog import RedoLog, Transaction, parse, read, unfinished
from k4t.master.publication.transaction import Append, Open, Record
from k4t.registrar.document import Epoch
from k4t.registrar.protocol import Stamp, transaction_id

pytestmark = pytest.mark.unit
GROUP = "gateway/default"


def stamp(number: int, seq: int = 1) -> Stamp:
    epoch = Epoch(number, f"run{number}")
    return Stamp(transaction_id(epoch, "gateway", "default", seq), epoch, seq, f"sha{number}.{seq}", "parent")


class Copy:
    """A working copy: its `.k4t/`, and what is remembered of it outside."""

    def __init__(self, path: Path) -> None:
        self.directory = path / "db" / ".k4t"
        self.outside = path / "state"
        self.directory.mkdir(parents=True)

    @property
    def path(self) -> Path:
        return self.directory / redolog.NAME

    def open(self) -> RedoLog:
        ticks = itertools.count()
        return RedoLog(self.directory, "k7", self.outside, lambda: f"2026-11-20T00:00:{next(ticks):02}Z")


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def told(one: Stamp) -> Transaction:
    return Transaction(
        one, GROUP, ("gw1", "gw2"), digest="d", who="me@here", message="why", add=("web 10.0.0.1:80",)
    )  # fmt: skip


def append(log: RedoLog, record: Record, one: Stamp, *, closed: str = "") -> None:
    about = told(one) if record == "begin" else None
    log.append(Append(record, one, ("gw1", "gw2"), closed), about)  # type: ignore[arg-type]


def whole(log: RedoLog, one: Stamp) -> None:
    append(log, "begin", one)
    append(log, "commit", one)
    append(log, "end", one, closed="done")


def filled(copy: Copy) -> bytes:
    """One transaction that is done, one that is decided, one that is begun (of another group)."""
    log = copy.open()
    whole(log, stamp(1))
    append(log, "begin", stamp(2))
    append(log, "commit", stamp(2))
    log.close()
    return copy.path.read_bytes()


def test_what_was_written_is_read_again(copy: Copy) -> None:
    """Who, when, why, what, on whom, and how far it came."""
    filled(copy)
    first, second = read(copy.directory).transactions
    assert (first.state, second.state) == ("done", "decided")
    assert (first.who, first.message, first.add, first.members) == (
        "me@here", "why", ("web 10.0.0.1:80",), ("gw1", "gw2"),
    )  # fmt: skip
    assert first.stamp == stamp(1)
    assert first.at < first.ended
    assert unfinished(read(copy.directory)) == (second,)


def test_what_it_says_of_a_group(copy: Copy) -> None:
    """The highest epoch, and what is open there."""
    filled(copy)
    log = copy.open()
    assert log.standing(GROUP) == (2, Open(stamp(2), ("gw1", "gw2"), decided=True))
    assert log.standing("dns/default") == (0, None)
    append(log, "end", stamp(2), closed="superseded")
    assert log.standing(GROUP) == (2, None)


def test_cut_at_every_byte(copy: Copy) -> None:
    """The whole records before the cut count."""
    data = filled(copy)
    ends = [place + 1 for place, byte in enumerate(data) if byte == 10]
    states: list[tuple[str, ...]] = [
        (),
        (),
        ("begun",),
        ("decided",),
        ("done",),
        ("done", "begun"),
        ("done", "decided"),
    ]
    for length in range(len(data) + 1):
        found = parse(data[:length])
        count = sum(end <= length for end in ends)
        assert found.numbered == count
        assert found.whole_bytes == (ends[count - 1] if count else 0)
        assert found.torn_bytes == length - found.whole_bytes
        assert tuple(one.state for one in found.transactions) == states[count]


def test_a_torn_tail_is_cut_and_said(copy: Copy) -> None:
    """The next record follows the last whole one."""
    data = filled(copy)
    copy.path.write_bytes(data[:-7])
    log = copy.open()
    assert "bytes of a torn last record were cut" in log.notes[0]
    append(log, "commit", stamp(2))
    log.close()
    assert [one.state for one in read(copy.directory).transactions] == ["done", "decided"]


@pytest.mark.parametrize("bit", range(8))
def test_a_bit_flipped_at_every_byte_before_the_last_record(copy: Copy, bit: int) -> None:
    """Refused, with file and byte."""
    data = filled(copy)
    last = data.rindex(b"\n", 0, len(data) - 1) + 1
    starts = [0, *(place + 1 for place, byte in enumerate(data) if byte == 10)]
    for place in range(last):
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        with pytest.raises(LogRefused) as caught:
            parse(bytes(flipped), "db/.k4t/redo.log")
        start = max(one for one in starts if one <= place)
        assert f"db/.k4t/redo.log is damaged at byte {start} (record {starts.index(start) + 1})" in str(caught.value)


def test_a_record_missing_from_the_middle(copy: Copy) -> None:
    """… or twice there, is damage too: records are chained."""
    lines = filled(copy).splitlines(keepends=True)
    for changed in (lines[:2] + lines[3:], lines[:3] + lines[2:], lines[1:], [*lines[:-2], lines[-1], lines[-2]]):
        with pytest.raises(LogRefused, match="is damaged at byte"):
            parse(b"".join(changed))


def test_a_damaged_log_is_left_alone(copy: Copy) -> None:
    """The message says what to do; nothing of the file changes."""
    data = bytearray(filled(copy))
    data[5] ^= 1
    copy.path.write_bytes(data)
    with pytest.raises(LogRefused, match="Move it away"):
        copy.open()
    assert copy.path.read_bytes() == data


def test_a_failed_fsync_is_never_tried_again(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log takes nothing more in this run, also when the disk is well again."""
    log = copy.open()
    append(log, "begin", stamp(1))
    calls = []

    def fail(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(LogRefused, match="Input/output error"):
        append(log, "commit", stamp(1))
    monkeypatch.undo()
    with pytest.raises(LogRefused, match="Input/output error"):
        append(log, "end", stamp(1), closed="aborted")
    assert len(calls) == 1
    log.close()
    assert [one.state for one in read(copy.directory).transactions] == ["begun"]


def test_a_full_disk(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was half written is cut again."""
    log = copy.open()
    append(log, "begin", stamp(1))
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:10]))
    with pytest.raises(LogRefused, match="could not be written whole"):
        append(log, "commit", stamp(1))
    monkeypatch.undo()
    assert read(copy.directory).torn_bytes == 0


def test_what_is_sent_was_synced_before(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """BEGIN and COMMIT; END need not wait for the disk."""
    log = copy.open()
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append("fsync")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    append(log, "begin", stamp(1))
    synced.append("begin")
    append(log, "commit", stamp(1))
    synced.append("commit")
    append(log, "end", stamp(1), closed="done")
    assert synced == ["fsync", "begin", "fsync", "commit"]


@pytest.mark.parametrize("how", ["copied", "moved", "state lost", "another home"])
def test_a_log_that_is_not_ours(copy: Copy, tmp_path: Path, how: str) -> None:
    """It is set aside, said, and nothing in it is taken up."""
    filled(copy)
    other = Copy(tmp_path / "other")
    other.directory.rmdir()
    other.outside = copy.outside
    if how == "copied":
        shutil.copytree(copy.directory, other.directory)
    elif how == "moved":
        copy.directory.rename(other.directory)
    else:
        other.directory = copy.directory
        other.outside = tmp_path / "elsewhere"
    log = other.open()
    assert log.standing(GROUP) == (0, None)
    assert "is of another working copy: its 1 unfinished" in log.notes[0]
    assert (other.directory / redolog.FORMER).exists()
    log.close()
    other.open().close()
    assert read(other.directory).numbered == 1


def test_put_back_into_its_place_by_copying(copy: Copy, tmp_path: Path) -> None:
    """`mv db old; cp -a old db`: the same path, and another directory."""
    filled(copy)
    copy.directory.parent.rename(tmp_path / "old")
    shutil.copytree(tmp_path / "old", copy.directory.parent)
    assert copy.open().standing(GROUP) == (0, None)


def test_ours_again(copy: Copy) -> None:
    """The same copy goes on with its log."""
    filled(copy)
    log = copy.open()
    assert log.notes == []
    assert len(log.unfinished()) == 1
    assert len(list(copy.outside.glob("*.json"))) == 1


def test_nowhere_to_remember_it(copy: Copy) -> None:
    """A run goes on; the next one can't know that the log is its own."""
    copy.outside.write_text("a file in the way")
    log = copy.open()
    assert "which goes by what is live" in log.notes[0]
    whole(log, stamp(1))
    log.close()
    assert copy.open().standing(GROUP) == (0, None)


def test_compaction(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is open stays, and the newest of what isn't; it is the same log."""
    monkeypatch.setattr(redolog, "COMPACT_BYTES", 10_000)
    monkeypatch.setattr(redolog, "KEPT_TRANSACTIONS", 5)
    log = copy.open()
    append(log, "begin", stamp(1))
    append(log, "commit", stamp(1))
    for number in range(2, 40):
        whole(log, stamp(number))
    log.close()
    before = read(copy.directory)
    log = copy.open()
    log.close()
    after = read(copy.directory)
    assert after.incarnation == before.incarnation
    assert [one.stamp.epoch.number for one in after.transactions] == [1, 35, 36, 37, 38, 39]
    assert after.transactions[1:] == before.transactions[-5:]
    assert after.transactions[0].state == "decided"
    assert copy.open().notes == []


def test_killed_while_compacting(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the rename: the old log is there, whole."""
    data = filled(copy)
    monkeypatch.setattr(redolog, "COMPACT_BYTES", 10)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(5, "gone")))
    with pytest.raises(LogRefused, match="gone"):
        copy.open()
    assert copy.path.read_bytes() == data


def test_a_newer_format(copy: Copy) -> None:
    """Refused by name, not misread."""
    line, _ = redolog.encoded(1, "", {"kind": "log", "format": 2, "incarnation": "x", "cluster": "k7", "at": ""})
    copy.path.write_bytes(line)
    with pytest.raises(LogRefused, match="format 2, this k4t reads up to 1"):
        copy.open()


def test_something_else_altogether(copy: Copy) -> None:
    """Is not overwritten."""
    copy.path.write_bytes(b"these are\nnot the records you look for\n")
    with pytest.raises(LogRefused, match="damaged at byte 0"):
        copy.open()
    line, last = redolog.encoded(1, "", {"kind": "log", "format": 1, "incarnation": "x", "cluster": "k7", "at": ""})
    copy.path.write_bytes(line + redolog.encoded(2, last, {"kind": "poem"})[0])
    with pytest.raises(LogRefused, match="record 2"):
        copy.open()


def test_a_read_only_tree(copy: Copy) -> None:
    """The path is named."""
    copy.path.mkdir()
    with pytest.raises(LogRefused, match=r"redo\.log: Is a directory"):
        copy.open()
