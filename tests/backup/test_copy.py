"""A backup run on this machine's own shell: what is due, what a target is found to be, and every fault on the way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from k4t.command import Completed
from k4t.errors import Locked, NotCertified
from k4t.master.backup import copy, keys, memory
from k4t.master.backup.judge import seconds
from k4t.master.backup.snapshot import contents, digest
from k4t.remote.lock import Holder
from k4t.tree.read import read_tree
from tests.backup.shell import CLUSTER, Shell
from tests.backup.world import BACKUPS, World, words

pytestmark = pytest.mark.unit


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("K4T_KEYS", str(tmp_path / "keys"))
    made = World(tmp_path)
    made.edit("web:1")
    return made


def copied(world: World, name: str) -> list[str]:
    return [one.split("-", 3)[3] for one in world.copies(name)]


# --- the story -----------------------------------------------------------------------------------------------------


def test_the_first_backup_makes_keys_and_says_so(world: World) -> None:
    """Of a tree written by hand: recovery.xml appears, and what to do about the kit is told."""
    assert words(world.backup()) == ["n1 copied", "n2 copied"]
    assert (world.db / "recovery.xml").exists()
    assert any("recovery kit" in said for said in world.said)


def test_all_targets_get_one_snapshot(world: World) -> None:
    """One picture, packed once: the same file on both."""
    world.backup()
    (mine,), (other,) = world.copies("n1"), world.copies("n2")
    assert mine == other
    assert (world.disk("n1") / mine).read_bytes() == (world.disk("n2") / other).read_bytes()


def test_an_unchanged_tree_is_confirmed_in_one_round_trip(world: World) -> None:
    """And a changed one is copied in one; that old ones go takes one more."""
    world.backup()
    before = world.calls("n1")
    world.now_s += 60
    assert words(world.backup()) == ["n1 confirmed", "n2 confirmed"]
    assert world.calls("n1") == before + 1
    assert copied(world, "n1") == ["20261120T120000Z.snapshot"]
    for number in range(2, 6):
        world.edit(f"web:{number}")
        world.backup()
    assert world.calls("n1") == before + 1 + 2 + 2 * 2  # keep="3": the last two made one go
    assert len(world.copies("n1")) == 3


def test_only_what_is_due_is_done(world: World) -> None:
    """n1 every minute, n2 every hour; each has its own history."""
    world.backup()
    for _ in range(3):
        world.now_s += 60
        world.edit(f"web:{world.now_s}")
        assert words(world.backup(due=True)) == ["n1 copied"]
        assert words(world.backup(due=True)) == []
    world.now_s += 3600
    assert words(world.backup(due=True)) == ["n1 confirmed", "n2 copied"]
    assert len(world.copies("n1")) == 3
    assert len(world.copies("n2")) == 2


def test_nothing_due_is_known_without_reading_the_tree(world: World) -> None:
    """From one small file and the look of cluster.xml; an edit of that means: look closer."""
    assert memory.nothing_due(world.db, world.now_s) is None
    world.backup()
    coming = memory.nothing_due(world.db, world.now_s + 20)
    assert coming is not None
    assert (coming.name, coming.in_s) == ("n1", 34.0)
    assert memory.nothing_due(world.db, world.now_s + 60) is None
    assert memory.nothing_due(world.db, world.now_s - 1) is None
    world.backups(BACKUPS.replace("1m", "2m"))
    assert memory.nothing_due(world.db, world.now_s + 20) is None


NOTHING_HEAVY = """
import sys
from k4t.cli import main
try:
    main(["--db", sys.argv[1], "backup", "--due"])
except SystemExit as leaving:
    heavy = {"lxml", "lxml.etree", "paramiko", "cryptography", "docker", "rich", "pyrage"} & sys.modules.keys()
    sys.exit(f"{leaving.code} {sorted(heavy)}" if leaving.code or heavy else 0)
"""


def test_a_call_with_nothing_due_loads_next_to_nothing(world: World) -> None:
    """cron does it every minute: no SSH, no XML, no cryptography; and not a word, for cron would mail it."""
    world.now_s = time.time()
    world.backup()
    done = subprocess.run(
        [sys.executable, "-c", NOTHING_HEAVY, str(world.db)], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_copies_hold_the_tree_and_can_be_opened(world: World) -> None:
    world.backup()
    tree = read_tree(world.db)
    assert tree.recovery is not None
    data = (world.disk("n1") / world.copies("n1")[0]).read_bytes()
    assert b"web:1" not in data
    identities = keys.recovery_identity(CLUSTER, None, None)
    manifest, archive = contents(data, cluster=CLUSTER, cluster_key=tree.recovery.key, identities=identities)
    assert b"web:1" in archive
    assert manifest.previous == ""


def test_a_target_in_the_clear_has_a_copy_of_its_own(world: World) -> None:
    """encrypted="false": another file, not that one; each keeps to its kind when nothing changes."""
    world.backups('<backup node="n1"/><backup node="n2" encrypted="false"/>')
    world.backup()
    assert not world.newest("n2").encrypted
    assert world.newest("n1").encrypted
    assert words(world.backup()) == ["n1 confirmed", "n2 confirmed"]


@pytest.mark.skipif(shutil.which("busybox") is None, reason="no busybox here")
def test_a_host_that_has_busybox_alone(world: World) -> None:
    """A router, a NAS: written, confirmed, thinned, with a large file in parts."""
    programs = world.root / "bin"
    programs.mkdir()
    subprocess.run(["busybox", "--install", "-s", str(programs)], check=True, timeout=60)
    world.shell("n1").environ["PATH"] = str(programs)
    (world.db / "apps" / "web" / "data.bin").write_bytes(bytes(range(256)) * 8192)
    for number in range(5):
        world.edit(f"web:{number}")
        assert words(world.backup()) == ["n1 copied", "n2 copied"]
        assert words(world.backup()) == ["n1 confirmed", "n2 confirmed"]
    assert world.copies("n1") == world.copies("n2")
    assert len(world.copies("n1")) == 3


def test_a_dead_node_is_left_out(world: World) -> None:
    (world.db / "nodes" / "n2.xml").write_text('<node address="10.0.0.2" availability="dead"/>')
    report = world.backup()
    assert words(report) == ["n1 copied", "n2 skipped: the node n2 is declared dead"]
    assert report.exit_status == 0


def test_hosts_that_are_no_nodes_hold_copies_too(world: World) -> None:
    world.backups('<backup host="copies@10.9.9.9:2222"/>')
    assert words(world.backup()) == ["copies@10.9.9.9:2222 copied"]


# --- targets that are away, slow, full ------------------------------------------------------------------------------


def test_one_that_is_away_holds_up_nobody_and_is_retried(world: World) -> None:
    world.backup()
    world.away.add("n1")
    world.edit("web:2")
    report = world.backup()
    assert words(report) == ["n1 failed: 10.0.0.9:22 does not answer in 10 s", "n2 copied"]
    assert report.exit_status == 3
    world.away.clear()
    world.now_s += 60
    assert words(world.backup(due=True)) == ["n1 copied"]


def test_none_that_can_be_reached_is_69(world: World) -> None:
    world.away |= {"n1", "n2"}
    assert world.backup().exit_status == 69


class Hanging(Shell):
    def _say(self, argv: Sequence[str], input: bytes) -> Completed:
        self.gone.wait(30)
        return super()._say(argv, input)

    gone = threading.Event()


def test_one_that_hangs_holds_up_nobody(world: World) -> None:
    """It is given up after a while; the others are long done by then."""
    world.shells["n1"] = Hanging("n1")
    report = world.backup(patience_s=3.0)
    Hanging.gone.set()
    assert words(report) == ["n1 failed: it did not answer within 3 s", "n2 copied"]
    assert report.exit_status == 3


def test_a_full_disk_keeps_the_old_copies_and_says_so(world: World) -> None:
    world.backup()
    before = world.copies("n1")
    world.edit("web:2")
    program = world.root / "bin" / "cat"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'cat: write error: No space left on device' >&2; exit 1\n")
    program.chmod(0o755)
    world.shell("n1").environ["PATH"] = f"{program.parent}:/usr/bin:/bin"
    report = world.backup()
    assert report.exit_status == 3
    assert report.results[0].error.startswith("no room for a copy of ")
    assert "; the 1 there are kept; make room there, or lower keep=" in report.results[0].error
    assert world.copies("n1") == before
    program.unlink()
    assert words(world.backup()) == ["n1 copied", "n2 confirmed"]


@pytest.mark.parametrize("fault", ["cut", "lost-reply", "slow"])
@pytest.mark.parametrize("after", range(4))
def test_a_connection_that_ends_at_any_round_trip(world: World, fault: str, after: int) -> None:
    """Look, store, prune, confirm: a good copy is there at any time, and the next call makes it the newest."""
    for number in range(3):
        world.edit(f"web:{number}")
        world.backup()
    memory.save(world.db, memory.Memory())
    world.edit("web:9")
    world.shell("n1").fail(fault, after=after)  # type: ignore[arg-type]
    report = world.backup()
    held = world.newest("n1")
    assert held.sequence >= 3
    assert words(report)[1] == "n2 copied"
    if after < 2:
        assert report.exit_status == 3
    world.shells.pop("n1")
    assert world.backup().exit_status == 0
    assert world.newest("n1").tree == world.newest("n2").tree
    assert len(world.copies("n1")) <= 4


# --- what is remembered, and what is found ----------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"version":2}', b'{"version":1,"targets":[]}', b"\xff\x00"])
def test_a_lost_or_damaged_memory_asks_the_targets(world: World, garbage: bytes) -> None:
    """Nothing is copied again that is there; sequence numbers go on from the highest that any target holds."""
    world.backup()
    world.edit("web:2")
    world.backup()
    (world.db / ".k4t" / "backup" / "state.json").write_bytes(garbage)
    assert words(world.backup()) == ["n1 confirmed", "n2 confirmed"]
    world.edit("web:3")
    world.backup()
    assert world.newest("n1").sequence == 3
    (world.db / ".k4t" / "backup" / "state.json").unlink()
    world.edit("web:4")
    world.backup()
    assert [world.newest(name).sequence for name in ("n1", "n2")] == [4, 4]


def test_every_snapshot_names_the_one_before_it(world: World) -> None:
    world.backup()
    first = world.newest("n1")
    world.edit("web:2")
    world.backup()
    assert world.newest("n1").previous == digest(first)


def test_a_target_that_was_rolled_back_is_named(world: World) -> None:
    """Its newest copy is older than the one that was left there; it gets a full one."""
    world.backup()
    world.edit("web:2")
    world.backup()
    (world.disk("n1") / world.copies("n1")[-1]).unlink()
    report = world.backup()
    assert words(report) == ["n1 copied", "n2 confirmed"]
    (remark,) = report.results[0].remarks
    assert "that was written there is gone, the newest is of 2026-11-20T12:00:00Z" in remark
    assert "was it rolled back?" in remark
    assert world.newest("n1").tree == world.newest("n2").tree


def test_a_target_that_was_wiped_is_named(world: World) -> None:
    world.backup()
    shutil.rmtree(world.disk("n1"))
    report = world.backup()
    assert "there is no other: was it wiped?" in report.results[0].remarks[0]
    assert words(report) == ["n1 copied", "n2 confirmed"]


def test_a_copy_that_was_altered_is_not_confirmed(world: World) -> None:
    """One bit, anywhere: it gets a new one, and what is wrong with the old one is told where it can be."""
    world.backup()
    path = world.disk("n1") / world.copies("n1")[0]
    for at in (30, 700, -1):
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)
        report = world.backup()
        assert words(report) == ["n1 copied", "n2 confirmed"]
        assert report.results[0].remarks
        path = world.disk("n1") / world.copies("n1")[-1]


def test_forged_names_do_not_hide_the_good_one(world: World) -> None:
    """A hacked host invents copies that claim to be newer: told, not believed, and the real one is found behind any
    number of them."""
    world.backup()
    for number in range(20):
        (world.disk("n1") / f"0009-000001-{number:07}-20991231T235959Z.snapshot").write_bytes(b"{}\n")
    report = world.backup()
    assert words(report) == ["n1 confirmed", "n2 confirmed"]
    assert "there is no copy of ours" in report.results[0].remarks[0]


def test_old_copies_under_new_names_do_not_hide_the_good_one(world: World) -> None:
    """Signed right, and still not what their names say."""
    world.backup()
    (old,) = world.copies("n1")
    world.edit("web:2")
    world.backup()
    for number in range(10):
        shutil.copy(world.disk("n1") / old, world.disk("n1") / f"0009-000001-{number:07}-20991231T235959Z.snapshot")
    report = world.backup()
    assert words(report) == ["n1 confirmed", "n2 confirmed"]
    assert f"it is {old} under another name" in report.results[0].remarks[0]


def test_a_replaced_master_leaves_no_copy(world: World) -> None:
    """By the head that the host has: who took over, when. Exit 4."""
    lineage = {"generation": 1, "id": "a" * 16, "serial": 1, "who": "me@m1", "at": "2026-11-19T12:00:00Z"}
    (world.db / ".k4t").mkdir()
    (world.db / ".k4t" / "lineage").write_text(json.dumps(lineage))
    world.backup()
    new = lineage | {"generation": 2, "id": "b" * 16, "serial": 5, "who": "eve@m2", "at": "2026-11-20T11:00:00Z"}
    (world.disk("n1").parent / "head").write_text(json.dumps({"lineage": new}, sort_keys=True, separators=(",", ":")))
    before = world.copies("n1")
    world.edit("web:2")
    report = world.backup()
    assert words(report)[0].startswith(
        "n1 failed: this working copy was replaced: eve@m2 took over at 2026-11-20T11:00:00Z (serial 5)"
    )
    assert report.exit_status == 4
    assert world.copies("n1") == before


def other_master(world: World, root: Path, lineage: dict[str, object] | None, serial: int) -> World:
    """Another working copy of the same cluster on the same targets, on this machine with its keys."""
    other = World(root / "other")
    other.root = world.root
    other.edit("web:7")
    shutil.copy(world.db / "recovery.xml", other.db)
    other.serial(serial)
    if lineage is not None:
        (other.db / ".k4t" / "lineage").write_text(json.dumps(lineage))
    return other


def test_copies_of_a_new_master_fence_the_old_one_too(world: World, tmp_path: Path) -> None:
    """Where no head says it: a host that holds copies alone."""
    lineage = {"generation": 1, "id": "a" * 16, "serial": 1, "who": "me@m1", "at": "2026-11-19T12:00:00Z"}
    world.serial(3)
    (world.db / ".k4t" / "lineage").write_text(json.dumps(lineage))
    world.backup()
    other = other_master(world, tmp_path, lineage | {"generation": 2, "id": "b" * 16}, 3)
    assert words(other.backup()) == ["n1 copied", "n2 copied"]
    world.edit("web:3")
    report = world.backup()
    assert "there are copies of another master" in report.results[0].error
    assert report.exit_status == 4
    assert world.newest("n1").generation == 2


def test_a_working_copy_that_is_behind_does_not_pass_for_the_newest(world: World, tmp_path: Path) -> None:
    """A clone at serial 2 where copies are of serial 5; when its tree is what was applied last, the head says so."""
    world.serial(5)
    world.backup()
    clone = other_master(world, tmp_path, None, 2)
    report = clone.backup()
    assert "this working copy is at serial 2, the copy of 2026-11-20T12:00:00Z at 5" in report.results[0].error
    assert report.exit_status == 4
    head = {"format": 1, "cluster": CLUSTER, "serial": 5, "tree": read_tree(clone.db).sha256, "revisions": []}
    for name in ("n1", "n2"):
        (world.disk(name).parent / "head").write_text(json.dumps(head))
        clone.shell(name).at.files[f"/var/lib/k4t/{CLUSTER}/head"] = json.dumps(head).encode()
    assert words(clone.backup()) == ["n1 copied", "n2 copied"]
    assert world.newest("n1").serial == 5


def test_a_host_without_a_head_lets_the_nodes_say_it(world: World, tmp_path: Path) -> None:
    """A clone whose tree is what was applied last copies to a host that is no node, too, also where an old head is."""
    world.backups('<backup host="10.9.9.9"/>')
    world.serial(5)
    world.backup()
    clone = other_master(world, tmp_path, None, 2)
    clone.backups('<backup host="10.9.9.9"/>')
    assert clone.backup().exit_status == 4
    head = {"format": 1, "cluster": CLUSTER, "serial": 6, "tree": read_tree(clone.db).sha256, "revisions": []}
    clone.shell("n2").at.files[f"/var/lib/k4t/{CLUSTER}/head"] = json.dumps(head).encode()
    old = head | {"serial": 1, "tree": "0" * 64}  # from the time when somebody took over
    clone.shell("10.9.9.9").at.files[f"/var/lib/k4t/{CLUSTER}/head"] = json.dumps(old).encode()
    assert words(clone.backup()) == ["10.9.9.9 copied"]
    assert world.newest("10.9.9.9").serial == 6


def test_order_is_never_a_matter_of_clocks(world: World) -> None:
    """A day back between two copies: the second is the newest all the same, it was due, and it stays."""
    world.backup()
    for number in range(2, 8):
        world.now_s -= 86400
        world.edit(f"web:{number}")
        assert words(world.backup(due=True)) == ["n1 copied", "n2 copied"]
    newest = world.newest("n1")
    assert (newest.sequence, newest.time) == (7, "2026-11-14T12:00:00Z")
    assert [int(one.split("-")[2]) for one in world.copies("n1")] == [5, 6, 7]


# --- who may, and when ------------------------------------------------------------------------------------------------


def test_a_machine_that_is_not_certified_copies_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree has keys that are not this machine's: the remedy is named."""
    world.backup()
    monkeypatch.setenv("K4T_KEYS", str(world.root / "elsewhere"))
    with pytest.raises(NotCertified, match="k4t kit certify"):
        world.backup()


def test_two_at_once_are_one(world: World) -> None:
    """The other is told who, where and since when."""
    first = Holder("ada@m1", "m1", 12, "2026-11-20T12:00:00Z", "backup", "")
    second = Holder("bob@m1", "m1", 13, "2026-11-20T12:00:01Z", "backup", "")
    refused = pytest.raises(Locked, match=r"the backup of .* is locked by ada@m1 on m1")
    with copy.alone(world.db, first), refused, copy.alone(world.db, second):
        pytest.fail("both have it")
    with copy.alone(world.db, second):
        pass


def test_a_tree_that_is_edited_without_pause_is_copied_whole(world: World) -> None:
    """A file goes along as it was at some moment; no copy is of two moments."""
    stop = threading.Event()

    def edit() -> None:
        number = 0
        while not stop.wait(0.2):
            number += 1
            for app in ("a", "b"):
                path = world.db / "apps" / app / "app.xml"
                path.parent.mkdir(parents=True, exist_ok=True)
                (world.root / "new").write_text(f"<app><image>x:{number}</image></app>\n")
                (world.root / "new").rename(path)

    writer = threading.Thread(target=edit)
    writer.start()
    try:
        for _ in range(3):
            world.now_s += 60
            assert world.backup(due=True).exit_status == 0
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("minutes", [15])
def test_the_newest_copy_is_never_older_than_the_period_and_one_run(world: World, minutes: int) -> None:
    """A tree that changes all the time, a period of one minute, 15 minutes of a simulated clock, a call every minute
    and some seconds: measured on the copy itself, before each call."""
    world.backup(due=True)
    ages, run_s, began_s = [], 3.0, world.now_s
    for minute in range(1, minutes + 1):
        world.now_s = began_s + 60.0 * minute + (minute * 7 % 4)  # the call comes up to 3 s late
        world.edit(f"changed:{minute}")
        ages.append(world.now_s + run_s - seconds(world.newest("n1").time))
        assert words(world.backup(due=True))[0] == "n1 copied"
    assert max(ages) <= 60.0 + 3.0 + run_s
    assert len(ages) == minutes


def test_time_is_not_read_in_here(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is written says the time that was passed in."""
    real, readers = time.time, list[str]()

    def read() -> float:
        readers.append(sys._getframe(1).f_globals["__name__"])
        return real()

    monkeypatch.setattr(time, "time", read)
    world.backup()
    assert not [name for name in readers if name.startswith("k4t.")]  # others of this process are none of ours
    assert world.newest("n1").time == "2026-11-20T12:00:00Z"
