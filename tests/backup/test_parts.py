"""Large files: once on each target, however many copies hold them; and nothing is lost, altered or shown by that."""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from k4t.errors import BadCopy, K4tError
from k4t.master.backup import known_parts, pack, parts, snapshot, unpack
from k4t.master.backup.judge import Trust
from k4t.master.backup.keys import recovery_identity
from k4t.master.backup.parts import LargeFiles, Part
from k4t.master.backup.reading import Folder, Place, Remote, opened, shelves, verify
from k4t.master.backup.snapshot import Snapshot
from k4t.master.backup.target import Listing, Target
from k4t.tree.read import read_tree
from tests.backup.shell import target
from tests.backup.trees import Cluster, make, remembering
from tests.backup.world import World

pytestmark = pytest.mark.unit
CLUSTER = Cluster()
IMAGE = "apps/web/image.tar"


@functools.cache
def image(size_kib: int, seed: int = 0) -> bytes:
    """Half of it compresses."""
    return b"".join(
        hashlib.shake_256(bytes([seed, number % 251, number // 251])).digest(512) + bytes(512)
        for number in range(size_kib)
    )


@pytest.fixture
def db(tmp_path: Path) -> Path:
    remembering(tmp_path / "db")
    (tmp_path / "db" / IMAGE).write_bytes(image(1400))
    return tmp_path / "db"


def snap(db: Path, **said: Any) -> Snapshot:
    picture = pack.picture(db)
    return make(CLUSTER, picture.archive, large=picture.large, **said)


def whole(copy: Snapshot, part: Callable[[str], bytes]) -> bytes:
    return snapshot.contents(
        copy.data, cluster=CLUSTER.id, cluster_key=CLUSTER.key, identities=CLUSTER.identities, part=part
    )[1]


# --- what a copy is then ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encrypted", [True, False])
def test_what_comes_out_is_the_whole_tree(db: Path, tmp_path: Path, encrypted: bool) -> None:
    """With its large files, byte for byte, modes too: as if they had never been apart."""
    (db / IMAGE).chmod(0o755)
    (db / ".k4t/objects" / ("cd" * 32)).write_bytes(image(1500, 1))
    copy = snap(db, encrypted=encrypted)
    assert len(copy.parts) == 2
    assert copy.size_bytes < 8000
    archive = whole(copy, copy.part)
    assert unpack.member(archive, IMAGE) == image(1400)
    assert list(unpack.listed(archive)) == sorted(unpack.listed(archive))
    unpack.unpack(archive, tmp_path / "out")
    assert pack.picture(tmp_path / "out").archive == pack.picture(db).archive
    assert not (tmp_path / "out/.k4t/large").exists()


@pytest.mark.parametrize("size", [(1 << 20) + 1, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, 5 << 20])
def test_files_of_every_length_come_back(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Around the edges of parts (here of 1 MiB) and of what counts as large."""
    monkeypatch.setattr(parts, "PART_BYTES", 1 << 20)
    monkeypatch.setattr(pack, "PART_BYTES", 1 << 20)
    remembering(tmp_path)
    (tmp_path / IMAGE).write_bytes(image(5 << 10)[:size])
    copy = snap(tmp_path)
    assert len(copy.parts) == -(-size // (1 << 20))
    assert unpack.member(whole(copy, copy.part), IMAGE) == image(5 << 10)[:size]


def test_a_file_of_one_mebibyte_is_not_large(tmp_path: Path) -> None:
    """It is in the copy itself, which needs nothing beside it."""
    remembering(tmp_path)
    (tmp_path / IMAGE).write_bytes(image(1024))
    copy = snap(tmp_path)
    assert copy.parts == ()
    assert unpack.member(whole(copy, no_part), IMAGE) == image(1024)


def no_part(name: str) -> bytes:
    raise AssertionError(name)


def test_the_same_contents_are_the_same_part(db: Path) -> None:
    """In another file, under another name, in the next copy and after a restart; other contents are another part."""
    first = snap(db)
    (db / "apps/web/again.tar").write_bytes(image(1400))
    (db / IMAGE).rename(db / "apps/web/renamed.tar")
    assert snap(db).parts == first.parts
    (db / "apps/web/again.tar").write_bytes(image(1400, 2))
    assert set(first.parts) < set(snap(db).parts)


def test_another_machine_makes_other_parts(db: Path) -> None:
    """Who has no signing key can't tell from a part which file it is, not even by trying one."""
    other = Cluster(id=CLUSTER.id, private=CLUSTER.private)
    picture = pack.picture(db)
    mine, its = (make(one, picture.archive, large=replace(picture.large, known={})) for one in (CLUSTER, other))
    assert not set(mine.parts) & set(its.parts)


def test_a_part_shows_nothing(db: Path) -> None:
    """Neither its contents nor their hash; the copy names its parts and nothing else."""
    marker = b"flamingo-secret-" * 70_000
    (db / IMAGE).write_bytes(marker)
    copy = snap(db)
    data = copy.part(copy.parts[0].name)
    for word in (b"flamingo", hashlib.sha256(marker).hexdigest().encode(), hashlib.sha256(marker).digest()):
        assert word not in data + copy.data
    assert copy.parts[0].key == b""
    line = copy.payload.split(b"\n")[0]
    assert line == b'{"parts":[["%s",%d]]}' % (copy.parts[0].name.encode(), copy.parts[0].size_bytes)
    assert hashlib.sha256(data).hexdigest() == copy.parts[0].name


def test_parts_have_keys_of_their_own() -> None:
    """No key is used for two texts: AES-GCM would give both away."""
    found = [parts.sealed(os.urandom(2000) if seed else bytes(2000), b"secret")[0].key for seed in range(5)]
    assert len(set(found)) == 5
    assert all(len(key) == 32 for key in found)


# --- altered ---------------------------------------------------------------------------------------------------------


def test_an_altered_part_is_refused(db: Path) -> None:
    """A bit, a byte less, another part, none: each a reason, none a file."""
    (db / "apps/web/other.tar").write_bytes(image(2000, 3))
    copy = snap(db)
    first, second = (copy.part(one.name) for one in copy.parts)
    for data in (first[:-1], first + b"\0", second, b"", bytes([first[0] ^ 1]) + first[1:], first[:-1] + b"\0"):
        with pytest.raises(BadCopy, match="is not what was signed"):
            whole(copy, lambda _, data=data: data)  # type: ignore[misc]
    with pytest.raises(BadCopy, match="those are not here"):
        snapshot.contents(copy.data, cluster=CLUSTER.id, cluster_key=CLUSTER.key, identities=CLUSTER.identities)


def test_blocks_of_a_part_keep_their_places() -> None:
    """Swapped, left out, or cut at a block's end: the encryption tells, by itself."""
    chunk = os.urandom(3 << 20)
    part, data = parts.sealed(chunk, b"secret")
    block = (1 << 20) + 16
    pieces = [data[start : start + block] for start in range(0, len(data), block)]
    assert parts.opened(part, data, len(chunk)) == chunk
    assert len(pieces) == 4
    for other in (
        [pieces[1], pieces[0], *pieces[2:]],
        pieces[:-1],
        pieces[1:],
        [*pieces, pieces[0]],
        [*pieces, b""][:3],
    ):
        altered = b"".join(other)
        named = replace(part, name=hashlib.sha256(altered).hexdigest(), size_bytes=len(altered))
        with pytest.raises(BadCopy, match="can't be decrypted"):
            parts.opened(named, altered, len(chunk))
    with pytest.raises(BadCopy, match="can't be decrypted"):
        parts.opened(replace(part, key=bytes(32)), data, len(chunk))


@pytest.mark.parametrize("text", [
    b"", b"[", b"{}", b"null", b"[1]", b'[["a",420,5]]', b'[["a",420,-1,[]]]', b'[["a",420,"5",[]]]',
    b'[["a",511,5,[]]]', b'[["cluster.xml",420,5,[]]]', b'[["a",420,5,[1]]]', b'[["a",420,5,["x"]]]',
    b'[["a",420,5,[]]]', b'[["a",420,1e9,[]]]', b'[["../out",420,0,[]]]', b'[["/etc/passwd",420,0,[]]]',
    b'[["cluster.xml/a",420,0,[]]]', b'[["CLUSTER.xml",420,0,[]]]', b'[["a", 420,0,[]]]',
    b'[["a",420,99999999999999,["x"]]]', b"[" * 100_000, b'[["a",420,0,[]],["a",420,0,[]]]', b'[[{},420,0,[]]]',
])  # fmt: skip
def test_a_hostile_list_of_large_files_lets_nothing_out(text: bytes, tmp_path: Path) -> None:
    """Signed by a master gone bad."""
    cluster_xml = unpack.header("cluster.xml", 0o644, 1) + unpack.padded(b"x")
    listed = unpack.header(parts.LIST, 0o600, len(text)) + unpack.padded(text)
    archive = parts.with_index(cluster_xml + listed + unpack.END, {})
    with pytest.raises(BadCopy):
        unpack.unpack(parts.whole(archive, no_part, 4 << 30), tmp_path / "into")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("index", [
    b"", b"[]", b"{}", b"null", b'{"x":1}', b'{"x":["y",1,""]}', b'{"x":["%s",0,""]}' % (b"a" * 64),
    b'{"x":["%s",9999999999,""]}' % (b"a" * 64), b'{"x":["%s",5,"!"]}' % (b"a" * 64),
    b'{"x":["%s",true,""]}' % (b"a" * 64),
])  # fmt: skip
def test_a_hostile_list_of_parts_is_refused(index: bytes) -> None:
    """As the list of large files."""
    text = b'[["a",420,5,["x"]]]'
    archive = (
        unpack.header(parts.INDEX, 0o600, len(index)) + unpack.padded(index)
        + unpack.header(parts.LIST, 0o600, len(text)) + unpack.padded(text) + unpack.END
    )  # fmt: skip
    with pytest.raises(BadCopy):
        parts.whole(archive, no_part, 4 << 30)


@pytest.mark.parametrize("line", [
    b'{"parts":[]}\n', b'{"parts":', b'{"parts":1}\n', b'{"parts":[["x",1]]}\n',
    b'{"parts": [["%s",1]]}\n' % (b"a" * 64),
    b'{"parts":[["%s",1],["%s",1]]}\n' % (b"b" * 64, b"a" * 64), b'{"parts":[["%s",1]]}' % (b"a" * 64),
    b'{"parts":[["%s",1]],"more":1}\n' % (b"a" * 64), b'{"parts":[["%s",1,""]]}\n' % (b"a" * 64),
    b'{"parts":' + b"[" * 99999,
])  # fmt: skip
def test_a_hostile_line_of_parts_is_refused(line: bytes) -> None:
    """What stands before a copy's contents is what k4t writes, or nothing."""
    with pytest.raises(BadCopy):
        parts.split_line(memoryview(line + b"payload"))


def test_an_archive_that_only_refers_to_files_is_not_let_out(db: Path, tmp_path: Path) -> None:
    """A tree without its image archives must not look like a whole one."""
    with pytest.raises(BadCopy, match="refers to large files that are not in it"):
        unpack.unpack(pack.picture(db).archive, tmp_path / "into")


# --- on targets ------------------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("K4T_KEYS", str(tmp_path / "keys"))
    made = World(tmp_path)
    made.edit("web:1")
    (made.db / IMAGE).write_bytes(image(1400))
    return made


def stored(world: World, name: str) -> list[Path]:
    return sorted((world.disk(name) / "parts").glob("*"))


def trust(world: World) -> Trust:
    found = read_tree(world.db).recovery
    assert found is not None
    return Trust(Cluster().id, found.key)


def restored(world: World, source: Remote | Folder, name: str) -> bytes:
    """The archive of the newest copy there."""
    shelf = shelves([Place(name, lambda: source)], trust(world))[0]
    newest = max(shelf.candidates, key=lambda one: one.order)
    return opened(source, newest, trust(world), lambda: recovery_identity(Cluster().id))


def test_many_copies_hold_a_large_file_once(world: World) -> None:
    """On each target; every one of them comes back whole, from the target and from a directory that was taken along."""
    for number in range(4):
        world.edit(f"web:{number}")
        world.serial(number)
        assert [one.result for one in world.backup().results] == ["copied", "copied"]
        world.now_s += 60
    for name in ("n1", "n2"):
        assert len(world.copies(name)) == 3
        assert len(stored(world, name)) == 1
        assert stored(world, name)[0].stat().st_mode & 0o777 == 0o600
        assert sum(path.stat().st_size for path in world.disk(name).glob("*.snapshot")) < 12_000
        for source in (Remote(target(world.root / name)), Folder(world.disk(name))):
            archive = restored(world, source, name)
            assert unpack.member(archive, IMAGE) == image(1400)
            assert unpack.member(archive, "apps/web/app.xml") == b"<app><image>web:3</image></app>\n"
    single = world.disk("n1") / world.copies("n1")[-1]
    assert unpack.member(restored(world, Folder(single), "file"), IMAGE) == image(1400)


def test_an_unchanged_large_file_is_neither_read_nor_sent_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first copy its part is known by name, also to another process."""
    world.backup()
    monkeypatch.setattr(pack._Chunks, "__call__", lambda self, chunk: pytest.fail(f"{self} reads {chunk}"))
    world.edit("web:2")
    assert [one.result for one in world.backup().results] == ["copied", "copied"]


class Counted(Folder):
    """What is fetched from it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.fetched: list[str] = []

    def part(self, name: str) -> bytes:
        self.fetched.append(name)
        return super().part(name)


def test_verifying_many_copies_fetches_a_part_once(world: World) -> None:
    """Not once a copy; with an identity and without, and where the sums are computed here too."""
    for number in range(3):
        world.edit(f"web:{number}")
        world.backup()
    source = Counted(world.disk("n1"))
    shelf = shelves([Place("n1", lambda: source)], trust(world))
    for read_data, identities in ((True, lambda: recovery_identity(Cluster().id)), (True, None), (False, None)):
        source.fetched.clear()
        found = verify(shelf, trust(world), {}, read_data=read_data, identities=identities)
        assert [one.problem for one in found.candidates] == ["", "", ""]
        assert found.opened == (3 if identities else 0)
        assert len(source.fetched) == 1


def test_one_app_is_put_back_without_the_large_files_of_others(world: World) -> None:
    """They are neither fetched nor needed: its own are."""
    (world.db / "apps/other").mkdir()
    (world.db / "apps/other/app.xml").write_text("<app><image>other:1</image></app>")
    (world.db / "apps/other/data.tar").write_bytes(image(2000, 5))
    world.backup()
    source = Counted(world.disk("n1"))
    shelf = shelves([Place("n1", lambda: source)], trust(world))[0]
    identities = recovery_identity(Cluster().id)
    for under, held in (("apps/web/", [IMAGE]), ("apps/other/", ["apps/other/data.tar"]), ("apps/none/", [])):
        source.fetched.clear()
        archive = opened(source, shelf.candidates[0], trust(world), lambda: identities, under=under)
        assert [path for path in unpack.listed(archive) if path.endswith(".tar")] == held
        assert len(source.fetched) == len(held)


@pytest.mark.parametrize("damage", [
    lambda path: path.unlink(), lambda path: os.utime(path, (1, path.write_bytes(b"x" + path.read_bytes()[1:]) * 0)),
    lambda path: path.write_bytes(path.read_bytes()[:-1]), lambda path: path.rename(path.with_name("0" * 64)),
])  # fmt: skip
def test_a_part_that_is_missing_or_damaged_is_told_and_put_back(world: World, damage: Callable[[Path], object]) -> None:
    """verify names the copies that need it; a backup that only meant to confirm sends it again; a restore refuses."""
    world.backup()
    damage(stored(world, "n1")[0])
    shelf = shelves([Place("n1", lambda: Remote(target(world.root / "n1")))], trust(world))
    for read_data in (False, True):
        found = verify(shelf, trust(world), {}, read_data=read_data, identities=lambda: recovery_identity(Cluster().id))
        assert [bool(one.problem) for one in found.candidates] == [True]
        assert "part" in found.candidates[0].problem
    assert "part" in verify(shelf, trust(world), {}, read_data=True).candidates[0].problem
    with pytest.raises(K4tError, match=r"part|no copy"):
        restored(world, Remote(target(world.root / "n1")), "n1")
    world.now_s += 60
    results = {one.target: one.result for one in world.backup().results}
    assert results == {"n1": "copied", "n2": "confirmed"}
    assert unpack.member(restored(world, Remote(target(world.root / "n1")), "n1"), IMAGE) == image(1400)


def test_parts_that_no_copy_needs_go(world: World) -> None:
    """With the last copy that named them, but not those that were put there or looked at within a day."""
    for number in range(5):
        (world.db / IMAGE).write_bytes(image(1100 + number, number))
        world.serial(number)
        assert all(one.result == "copied" for one in world.backup().results)
        world.now_s += 60
        for path in stored(world, "n1"):
            os.utime(path, (1, 1))
    assert len(world.copies("n1")) == len(stored(world, "n1")) == 3
    assert len(stored(world, "n2")) == 5
    shelf = shelves([Place("n1", lambda: Remote(target(world.root / "n1")))], trust(world))
    found = verify(shelf, trust(world), {}, read_data=True, identities=lambda: recovery_identity(Cluster().id))
    assert [one.problem for one in found.candidates] == ["", "", ""]
    assert found.opened == 3


def test_a_file_that_changes_after_the_picture_fails_this_backup_alone(world: World) -> None:
    """With what to do; the next one has it."""
    picture = pack.picture(world.db)
    (world.db / IMAGE).write_bytes(image(1400, 9))
    with pytest.raises(K4tError, match=r"image.tar was changed while it was copied; try again when it is quiet"):
        make(CLUSTER, picture.archive, large=picture.large)


def test_what_is_known_of_parts_is_checked(db: Path) -> None:
    """A wrong name leads to no wrong copy: it is forgotten, and the next run makes it anew."""
    picture = pack.picture(db)
    chunk = picture.large.chunks[0]
    large = replace(picture.large, known={(chunk, True): Part("ab" * 32, 5, bytes(32))})
    copy = make(CLUSTER, picture.archive, large=large)
    with pytest.raises(K4tError, match="packed another way than before; try again"):
        copy.part("ab" * 32)
    again = make(CLUSTER, picture.archive, large=large)
    assert unpack.member(whole(again, again.part), IMAGE) == image(1400)


def test_a_wrong_memory_of_parts_costs_one_attempt(world: World) -> None:
    """The copy that would need a part of that name is not written; the next call makes it right."""
    world.backup()
    path = world.db / ".k4t/backup/parts.json"
    path.write_text(path.read_text().replace(stored(world, "n1")[0].name, "ab" * 32))
    world.edit("web:2")
    failed = world.backup().results
    assert {one.result for one in failed} == {"failed"}
    assert "packed another way than before; try again" in failed[0].error
    assert [one.result for one in world.backup().results] == ["copied", "copied"]
    assert unpack.member(restored(world, Remote(target(world.root / "n1")), "n1"), IMAGE) == image(1400)


def test_packing_large_files_takes_no_target_s_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is over before any is asked, so that nobody is called silent for it, however long it takes."""
    sealed, packed = parts.sealed, threading.Event()

    def seal(chunk: bytes, secret: bytes) -> tuple[Part, bytes]:
        found = sealed(chunk, secret)
        packed.set()
        return found

    looked = Target.look

    def look(self: Target, headers: int = 0) -> Listing:
        assert packed.is_set()
        return looked(self, headers)

    monkeypatch.setattr(parts, "sealed", seal)
    monkeypatch.setattr(Target, "look", look)
    assert [one.result for one in world.backup().results] == ["copied", "copied"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version":1}', '{"version":1,"by":"x","parts":[]}', "null"])
def test_a_memory_of_parts_that_is_none_is_passed_over(db: Path, text: str) -> None:
    """It only saves time."""
    picture = pack.picture(db)
    keys = CLUSTER.keys()
    made = make(CLUSTER, picture.archive, large=picture.large, keys=keys)
    (db / ".k4t/backup").mkdir()
    known_parts.save(db, keys, picture.large)
    path = db / ".k4t/backup/parts.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert known_parts.recall(db, keys, replace(picture.large, known={})).known == picture.large.known
    other = replace(CLUSTER, machine=Cluster().machine).keys()
    assert known_parts.recall(db, other, picture.large).known == {}
    path.write_text(text)
    empty: LargeFiles = known_parts.recall(db, keys, picture.large)
    assert empty.known == {}
    assert made.parts


def test_large_files_take_the_memory_of_one_part(tmp_path: Path) -> None:
    """Packing, encrypting and handing out an archive of 64 MiB, in a process of its own."""
    remembering(tmp_path / "db")
    with (tmp_path / "db" / IMAGE).open("wb") as file:
        for _ in range(4):
            file.write(os.urandom(16 << 20))
    script = """
import sys
from pathlib import Path
from k4t.master.backup import pack
from tests.backup.trees import Cluster, make
cluster = Cluster(); make(cluster, b"x" * 100_000)
def most_mib(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10
before = most_mib()
picture = pack.picture(Path(sys.argv[1]))
copy = make(cluster, picture.archive, large=picture.large)
assert sum(len(copy.part(one.name)) for one in copy.parts) > 64 << 20
print(most_mib() - before)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "db"], capture_output=True, text=True, env=environment, check=True
    )
    assert int(done.stdout) < 64


def test_too_little_memory_is_said(db: Path) -> None:
    """As one line; there is nothing half-opened then."""
    copy = snap(db)

    def too_much(name: str) -> bytes:
        raise MemoryError(name)

    with pytest.raises(K4tError, match="not enough memory to open it"):
        whole(copy, too_much)


def test_a_kill_between_parts_and_copy_leaves_no_harm(world: World) -> None:
    """A part without a copy waits for the next run, which needn't send it again."""
    before = time.time() - 2 * 86_400
    world.backup()
    for path in world.disk("n1").glob("*.snapshot"):
        path.unlink()
    (path,) = stored(world, "n1")
    os.utime(path, (before, before))
    world.now_s += 60
    assert [one.result for one in world.backup().results] == ["copied", "confirmed"]
    assert path.stat().st_mtime > before
    assert unpack.member(restored(world, Remote(target(world.root / "n1")), "n1"), IMAGE) == image(1400)
