"""A directory is replaced whole and in one moment: killed anywhere, the old one or the new one is in place."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from k4t import failpoints
from k4t.master.backup import swap
from k4t.master.backup.swap import MARK, Fresh, tidied

PLACES = ("made", "synced", "named", "swapped", "kept", "cleared")


def replaced(target: Path, beside: Path, place: str = "", *, unable: bool = False) -> int:
    """In a process of its own, killed at a place; its exit status, or the signal that ended it as a negative number."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        failpoints.WANTED = f"restore:{place}"
        if unable:
            swap.exchange = _unable
        tidied(target, beside)
        fresh = Fresh(target, beside)
        (fresh.path / "whole").write_text("new")
        fresh.swap("db.before-T")
    except BaseException:  # noqa: BLE001 - the parent is told, whatever it is
        os._exit(70)
    os._exit(0)


def _unable(one: Path, other: Path) -> None:
    raise OSError(errno.EINVAL, "Invalid argument")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    made = tmp_path / "db"
    made.mkdir()
    (made / "whole").write_text("old")
    return made


def holds(path: Path) -> str:
    return (path / "whole").read_text()


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


@pytest.mark.unit
def test_the_new_one_is_in_place_and_the_old_one_kept(target: Path, tmp_path: Path) -> None:
    """Nothing else is left beside them; a second one of the same second gets a name of its own."""
    for text in ("new", "newer"):
        fresh = Fresh(target, tmp_path)
        (fresh.path / "whole").write_text(text)
        done = fresh.swap("db.before-T")
        assert done.atomic
    assert holds(target) == "newer"
    assert names(target) == ["whole"]
    assert [holds(tmp_path / name) for name in ("db.before-T", "db.before-T-2")] == ["old", "new"]
    assert names(tmp_path) == ["db", "db.before-T", "db.before-T-2"]


@pytest.mark.unit
def test_where_there_was_none_nothing_is_kept(tmp_path: Path) -> None:
    """Nor where there was an empty directory."""
    for target in (tmp_path / "db", tmp_path / "empty"):
        if target.name == "empty":
            target.mkdir()
        fresh = Fresh(target, tmp_path)
        (fresh.path / "whole").write_text("new")
        assert fresh.swap(f"{target.name}.before-T").kept is None
        assert holds(target) == "new"
    assert names(tmp_path) == ["db", "empty"]


@pytest.mark.unit
def test_what_cannot_be_put_in_place_leaves_the_old_one(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount point can't be exchanged: said with what to do instead."""

    def busy(one: Path, other: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(swap, "exchange", busy)
    fresh = Fresh(target, tmp_path)
    with pytest.raises(Exception, match="--to a new directory"):
        fresh.swap("db.before-T")
    fresh.discard()
    assert (holds(target), names(tmp_path)) == ("old", ["db"])


@pytest.mark.crash
@pytest.mark.parametrize("place", PLACES)
def test_killed_anywhere_the_old_or_the_new_one_is_in_place(target: Path, tmp_path: Path, place: str) -> None:
    """Whole, at every moment; the next one clears away what is left, and keeps every old one."""
    assert replaced(target, tmp_path, place) == -signal.SIGKILL
    first = holds(target)
    assert first == ("new" if place in PLACES[3:] else "old")
    assert replaced(target, tmp_path) == 0
    assert holds(target) == "new"
    assert MARK not in names(target)
    kept = [holds(tmp_path / name) for name in names(tmp_path) if name != "db"]
    assert sorted(kept) == (["new", "old"] if first == "new" else ["old"])


@pytest.mark.crash
@pytest.mark.parametrize("place", ["synced", "named", "aside", "swapped", "kept", "cleared"])
def test_two_renames_are_put_right_by_the_next_one(target: Path, tmp_path: Path, place: str) -> None:
    """Where the file system can't exchange names, none is in place for a moment: the old one is put back then."""
    assert replaced(target, tmp_path, place, unable=True) == -signal.SIGKILL
    assert target.exists() == (place != "aside")
    said = tidied(target, tmp_path)
    assert holds(target) == ("new" if place in PLACES[3:] else "old")
    assert bool(said) == (place != "cleared")
    assert sorted(holds(tmp_path / name) for name in names(tmp_path) if name != "db") == (
        ["old"] if holds(target) == "new" else []
    )
    assert tidied(target, tmp_path) == []


@pytest.mark.crash
def test_clearing_away_may_be_killed_too(target: Path, tmp_path: Path) -> None:
    """What is half cleared away is never taken for an old tree."""
    assert replaced(target, tmp_path, "named") == -signal.SIGKILL
    assert replaced(target, tmp_path, "clearing") == -signal.SIGKILL
    assert [name for name in names(tmp_path) if "before" in name] == []
    assert replaced(target, tmp_path) == 0
    assert names(tmp_path) == ["db", "db.before-T"]


@pytest.mark.unit
def test_what_is_still_being_made_is_left_alone(target: Path, tmp_path: Path) -> None:
    """Whoever makes it holds a lock on it."""
    fresh = Fresh(target, tmp_path)
    assert tidied(target, tmp_path) == []
    assert fresh.path.exists()
    fresh.close()
    assert len(tidied(target, tmp_path)) == 1
    assert names(tmp_path) == ["db"]
