"""The probe says what is true of a host in three shells; whatever a host answers instead is taken without a stumble."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k4t import command
from k4t.command import Completed
from k4t.errors import ConnectionLost
from k4t.model.state import Head
from k4t.monitor.facts import Reading, Ticks
from k4t.monitor.looking import probe
from k4t.monitor.looking.answer import Garbage, parse
from k4t.remote.fake import FakeTransport
from k4t.remote.head import encode

pytestmark = pytest.mark.unit
GOOD = """\
k4t-probe 1
clock 1000 500000000
uptime 100.25 300.00
load 0.50 0.40 0.30 1/200 4711
ticks cpu  100 0 50 800 50 0 0 0 0 0
cpus 4
memory MemTotal:       16000 kB
memory MemFree:         2000 kB
memory MemAvailable:    8000 kB
disk root /dev/sda1  1000 600 300 67% /
inodes root /dev/sda1 100 10 90 10% /
process 2 sshd
lock free
"""
SHELLS = [shell for shell in (["sh"], ["bash"], ["busybox", "sh"]) if shutil.which(shell[0])]


def taken(text: str, *, status: int | None = 0, took_s: float = 0.5) -> Reading:
    return parse(Completed(status, text.encode(), b""), sent_s=1000.0, took_s=took_s)


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_the_real_command_tells_how_this_machine_is(shell: list[str], tmp_path: Path) -> None:
    """POSIX sh with coreutils or busybox: every part is believed, and agrees with what Python sees."""
    home = tmp_path / "c1"
    (home / "copies").mkdir(parents=True)
    (home / "head").write_bytes(encode(Head("c1", 7)))
    (home / "copies" / "confirmed").write_text('{"k4t-confirmation":1}\n')
    for number in (1, 2):
        (home / "copies" / f"000{number}.snapshot").write_bytes(b'{"k4t-snapshot":%d}\n' % number + bytes(9000))
    argv = [*shell, *probe.argv("c1")[1:]]
    argv[argv.index("k4t-probe") + 1] = str(tmp_path)
    began_s = time.time()
    done = command.run(argv)
    found = parse(done, sent_s=began_s, took_s=time.time() - began_s)
    assert found.garbage == ()
    assert found.head == Head("c1", 7)
    assert found.confirmed == '{"k4t-confirmation":1}'
    assert found.copy == '{"k4t-snapshot":2}'
    assert found.clusters == ("c1",)
    assert not found.lock_held
    assert found.skew_s is not None
    assert abs(found.skew_s) <= found.skew_doubt_s + 0.05
    usage = shutil.disk_usage("/")
    assert abs(found.disks["root"].size_bytes - usage.total) < 1 << 20
    assert found.memory is not None
    assert found.memory.total_bytes > found.memory.available_bytes > 0


def test_a_lock_that_is_held_is_seen_and_not_taken(tmp_path: Path) -> None:
    """With its holder's record; it is still the holder's afterwards."""
    import fcntl

    (tmp_path / "c1").mkdir()
    record = {"who": "me", "host": "here", "pid": 1, "since": "2026-01-01T00:00:00Z", "why": "apply", "run": "r"}
    argv = probe.argv("c1")
    argv[argv.index("k4t-probe") + 1] = str(tmp_path)
    with (tmp_path / "c1" / "lock").open("w+") as lock:
        lock.write(json.dumps(record) + "\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = parse(command.run(argv), sent_s=time.time(), took_s=0.1)
        assert found.lock_held
        assert found.lock is not None
        assert found.lock.who == "me"
        with (tmp_path / "c1" / "lock").open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    assert not parse(command.run(argv), sent_s=time.time(), took_s=0.1).lock_held


def test_a_good_answer_is_read_whole() -> None:
    """Each part in its unit; the clock's difference counts from half the round trip."""
    found = taken("Welcome!\n" + GOOD)
    assert found.garbage == ()
    assert (found.clock_s, found.skew_s, found.skew_doubt_s) == (1000.5, 0.25, 0.25)
    assert (found.uptime_s, found.load, found.cpus) == (100.25, (0.5, 0.4, 0.3), 4)
    assert found.ticks == Ticks(1000, 850)
    assert found.memory is not None
    assert found.memory.percent == 50.0
    disk = found.disks["root"]
    assert (disk.size_bytes, round(disk.space_percent), disk.inodes_percent) == (1024000, 67, 10.0)
    assert found.processes == {"sshd": 2}


def test_a_clock_of_whole_seconds_is_in_doubt_by_half_of_one() -> None:
    """busybox knows no nanoseconds."""
    found = taken(GOOD.replace("clock 1000 500000000", "clock 1000 %N"))
    assert (found.clock_s, found.skew_doubt_s) == (1000.5, 0.75)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("clock soon", "clock"), ("clock 99999999999999999999999 1", "clock"), ("uptime nan 1", "uptime"),
        ("uptime -5 1", "uptime"), ("load 1 2", "load"), ("load inf 1 1", "load"), ("ticks gpu 1 2 3 4 5", "ticks"),
        ("ticks cpu 1 2", "ticks"), ("cpus 0", "cpus"), ("cpus ٣", "cpus"), ("memory MemTotal: 5 MB", "memory"),
        ("disk root x 100 200 0 1% /", "disk"), ("disk other /d 100 50 50 50% /", "disk"), ("disk", "disk"),
        ("inodes root x 10 20 0 1% /", "inodes"), ("process many sshd", "process"), ("process 1 rm", "process"),
        ("lock maybe", "lock"), ("head {not json", "head"), ("head []", "head"), ("cluster ../etc", "cluster"),
        ("driver a b", "driver"), ("denied $(reboot)", "denied"), ("surprise 1", "lines of no meaning"),
        ("off " + "x" * 9000, "off"), ("clock 1 1", "clock"), ('head {"format":99}', "head"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_is_named_and_the_rest_counts(line: str, part: str) -> None:
    """Strict: no number is guessed, a second clock is as good as none."""
    found = taken(GOOD + line + "\n")
    assert found.garbage == (part,)
    assert found.cpus == 4


@pytest.mark.parametrize("text", ["", "\n\n", "This account is currently not available.\n", "k4t-probe 2\nclock 1 1\n"])
def test_an_answer_that_is_none_is_garbage(text: str) -> None:
    """A shell that is none, a newer probe, silence."""
    with pytest.raises(Garbage, match="garbage"):
        taken(text)


@given(st.binary(max_size=2000))
@settings(max_examples=300, deadline=None)
def test_no_answer_makes_it_stumble(data: bytes) -> None:
    """Garbage before, behind and instead of the answer: a Reading, or Garbage."""
    for stdout in (data, b"k4t-probe 1\n" + data, GOOD.encode() + data):
        with contextlib.suppress(Garbage):
            parse(Completed(0, stdout, data), sent_s=0.0, took_s=0.1)


def test_no_altered_answer_makes_it_stumble() -> None:
    """A thousand good ones with bytes changed, cut off and repeated; what is believed stays within reason."""
    chance = random.Random(4)  # noqa: S311 - the same bytes in every run
    good = GOOD.encode()
    for _ in range(1000):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.choice(b"0123456789 .-%/:abk\n\xff\0")
        cut = bytes(data[: chance.randrange(len(data))]) if chance.random() < 0.3 else bytes(data)
        try:
            found = parse(Completed(0, cut * chance.choice([1, 1, 2]), b""), sent_s=0.0, took_s=0.1)
        except Garbage:
            continue
        assert found.memory is None or 0 <= found.memory.percent <= 100
        assert all(0 <= disk.percent <= 100 for disk in found.disks.values())


def test_an_endless_answer_is_cut() -> None:
    """Only so many lines are looked at."""
    found = taken(GOOD + "cluster a\n" * 1_000_000)
    assert len(found.clusters) == 100
    assert found.garbage == ("cluster",)


def test_an_answer_that_was_cut_off_is_not_whole() -> None:
    """The command's own end says whether all of it came."""
    assert taken(GOOD, status=1).garbage == ("its end",)


def test_asking_goes_over_the_connection_and_is_one_command() -> None:
    """Its exit status lost is the connection lost."""
    host = FakeTransport("n1")
    host.answer(["sh"], GOOD.encode())
    assert probe.ask(host, "c1").cpus == 4
    assert len(host.calls) == 1
    host.fail("lost-reply")
    with pytest.raises(ConnectionLost):
        probe.ask(host, "c1")
