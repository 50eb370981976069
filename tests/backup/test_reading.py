"""Copies as they are found on targets: what is shown, what is verified, what is said of a target that lies."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from k4t.errors import BadCopy, HostUnreachable, Usage
from k4t.master.backup import keys, reading, snapshot
from k4t.master.backup.judge import Trust
from k4t.master.backup.reading import Folder, Place, Remote, Shelf, shelves, verify
from k4t.model.snapshot import Lineage
from k4t.render import copies as show
from k4t.render.console import Console
from tests.backup.copies import ID, Scene
from tests.backup.shell import target as shell_target

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Three copies on n1, which is a directory of this machine behind a real shell."""
    root = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("K4T_KEYS", str(root / "keys"))
        made = Scene(root)
        made.copies = root / "n1" / ID / "copies"
        made.copies.mkdir(parents=True)
        for number in (1, 2, 3):
            made.app("web", number)
            made.applied(number)
            made.copy()
    return made


@pytest.fixture
def scene(first: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("K4T_KEYS", str(tmp_path / "keys"))
    return first.moved(tmp_path)


def trust(scene: Scene) -> Trust:
    return Trust(ID, scene.keys.recovery.key)


def places(scene: Scene) -> list[Place]:
    target = shell_target(scene.root / "n1")
    target.name = "n1"
    return [Place("n1", lambda: Remote(target), 60.0)]


def found(scene: Scene) -> list[Shelf]:
    return shelves(places(scene), trust(scene), scene.keys)


def opening() -> list[object]:
    return keys.recovery_identity(ID)


def alter(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def test_good_copies_are_good_there_and_here(scene: Scene) -> None:
    """Signature and sha256 on the host; opened and looked through with an identity; without one, said why not."""
    there = verify(found(scene), trust(scene), {})
    assert [(one.number, one.problem) for one in there.candidates] == [("1.1", ""), ("2.2", ""), ("3.3", "")]
    assert (there.faults, there.read, there.opened) == ((), 0, 0)
    here = verify(found(scene), trust(scene), {}, read_data=True, identities=opening)
    assert (here.read, here.opened, here.unopened) == (3, 3, "")
    (keys.keys_directory(ID) / keys.IDENTITY).unlink()
    closed = verify(found(scene), trust(scene), {}, read_data=True, identities=opening)
    assert (closed.read, closed.opened) == (3, 0)
    assert all(one.good for one in closed.candidates)
    assert "--kit FILE" in closed.unopened


@pytest.mark.parametrize("read_data", [False, True])
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: alter(path, -5), "not those that were signed (sha256)"),
        (lambda path: alter(path, 40), "altered, or broken"),
        (lambda path: path.write_bytes(path.read_bytes()[:-3]), "cut off or longer"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_bytes(b"\x1b[2J" * 40), "altered, or broken"),
    ],
)
def test_a_bad_copy_is_found_and_named(
    scene: Scene, harm: Callable[[Path], object], said: str, *, read_data: bool
) -> None:
    """The others are good all the same."""
    harm(scene.copies / scene.made[1].name)
    done = verify(found(scene), trust(scene), {}, read_data=read_data, identities=opening)
    bad = [one for one in done.candidates if not one.good]
    assert len(bad) == 1
    assert said in bad[0].problem
    assert "\x1b" not in bad[0].problem


def test_a_target_that_shows_less_than_it_was_given(scene: Scene) -> None:
    """By what this machine remembers to have written there."""
    (scene.copies / scene.made[2].name).unlink()
    done = verify(found(scene), trust(scene), {"n1": scene.made[2].manifest.order})
    assert done.faults == ("n1: its newest good copy is 2.2; this machine wrote 3.3 there: rolled back",)


def test_a_copy_that_does_not_follow_the_one_before(scene: Scene) -> None:
    """Signed, and of another history than the one that it stands in."""
    scene.made[-1] = dataclasses.replace(
        scene.made[-1], manifest=dataclasses.replace(scene.made[-1].manifest, previous="0" * 64)
    )
    scene.copy()
    assert verify(found(scene), trust(scene), {}).faults == ("3.4 does not follow 3.3",)


def test_a_confirmation_counts_for_its_own_target_and_copy(scene: Scene) -> None:
    """One that was taken from another target, is of a copy that isn't there, or is forged, is named as that."""
    newest = scene.made[2].manifest
    confirmed = scene.copies / "confirmed"

    def shelf() -> Shelf:
        there = [*places(scene), Place("n2", lambda: Folder(scene.root / "nothing"))]
        return shelves(there[:1], trust(scene), scene.keys)[0]

    confirmed.write_bytes(snapshot.confirmation(scene.keys, "n1", newest, "2026-11-20T12:00:00Z"))
    assert (shelf().confirmed or newest).time == "2026-11-20T12:00:00Z"
    gone = dataclasses.replace(newest, serial=9)
    confirmed.write_bytes(snapshot.confirmation(scene.keys, "n1", gone, "2026-11-20T12:00:00Z"))
    assert shelf().problem == "its confirmation is of a copy that it doesn't have"
    made_room = dataclasses.replace(newest, serial=1, sequence=0)
    confirmed.write_bytes(snapshot.confirmation(scene.keys, "n1", made_room, "2026-11-20T12:00:00Z"))
    assert (shelf().confirmed, shelf().problem) == (None, "")
    confirmed.write_bytes(confirmed.read_bytes().replace(b"12:00", b"13:00"))
    assert "altered" in shelf().problem
    confirmed.write_bytes(snapshot.confirmation(scene.keys, "n2", newest, "2026-11-20T12:00:00Z"))
    both = [*places(scene), dataclasses.replace(places(scene)[0], name="n2")]
    assert shelves(both, trust(scene), scene.keys)[0].problem == "its confirmation is that of n2"
    assert shelves(both, trust(scene), scene.keys)[1].confirmed is not None


def test_what_cannot_be_asked_is_unknown(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """Named with its reason; 3 beside others, 69 when there is no other."""

    def away() -> Remote:
        raise HostUnreachable("no answer within 10 s", host="n2")

    there = shelves([*places(scene), Place("n2", away, 3600.0)], trust(scene))
    done = verify(there, trust(scene), {})
    assert show.verified(done, there, Console(), read_data=False) == 3
    assert "away  n2: no answer within 10 s" in capsys.readouterr().out
    assert show.verified(verify(there[1:], trust(scene), {}), there[1:], Console(), read_data=False) == 69
    assert show.listing(there, {}, Console(), time.time()) == 0
    assert "can't be asked: no answer within 10 s" in capsys.readouterr().out
    assert show.listing(there[1:], {}, Console(), time.time()) == 69


def test_a_fault_that_was_found_is_exit_1(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a fault, and the sum."""
    alter(scene.copies / scene.made[0].name, -5)
    there = found(scene)
    assert show.verified(verify(there, trust(scene), {}), there, Console(), read_data=False) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("bad   copy 1.1 of 2026-11-20T11:00:00Z on n1: its contents are not those")
    assert out[-1] == "2 of 3 copies good: signature and sha256"


def test_the_list_is_one_time_axis(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """Newest first; the same copy on two targets is one line; whose history it is where there are several."""
    two = [*places(scene), Place("spare", lambda: Folder(scene.copies))]
    show.listing(shelves(two, trust(scene)), {}, Console(), time.time())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["3.3", "2.2", "1.1"]
    assert "n1 spare" in lines[1]
    assert "HISTORY" not in lines[0]
    scene.copy(lineage=Lineage(2, "bbbb"))
    show.listing(shelves(two, trust(scene)), {}, Console(), time.time())
    lines = capsys.readouterr().out.splitlines()
    assert "HISTORY" in lines[0]
    assert [line.split()[0] for line in lines[1:3]] == ["3.4", "3.3"]


def test_another_copy_than_the_one_that_was_shown(scene: Scene) -> None:
    """A target that swaps the file between the look and the transfer."""
    (shelf,) = found(scene)
    one = shelf.candidates[2]
    (scene.copies / one.name).write_bytes(scene.made[0].data)
    assert shelf.source is not None
    with pytest.raises(BadCopy, match="another copy came"):
        reading.opened(shelf.source, one, trust(scene), opening)


def test_a_directory_and_a_file_are_sources_too(scene: Scene, tmp_path: Path) -> None:
    """A pipe, a directory without copies and what isn't there are none."""
    for path, count in ((scene.copies / scene.made[0].name, 1), (scene.copies, 3)):
        folder = Folder(path)
        (shelf,) = shelves([Place("here", lambda folder=folder: folder)], trust(scene))  # type: ignore[misc]
        assert len(shelf.candidates) == count
    assert Folder(tmp_path / "home").shelf() == ([], b"")
    with pytest.raises(Usage, match="No such file"):
        Folder(tmp_path / "nowhere").shelf()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Usage, match="no regular file"):
        Folder(tmp_path / "pipe").shelf()
