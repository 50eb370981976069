"""A master that is killed at any step of a backup: the old copy or the new one is there, and the next call goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from k4t.master.backup import copy
from tests.backup.world import World, words

pytestmark = [pytest.mark.unit, pytest.mark.crash]

PLACES = sorted(set(re.findall(r'reach\("(backup:[\w-]+)"\)', Path(copy.__file__).read_text())))
ONCE = """
import sys; from pathlib import Path; from tests.backup.world import World
world = World(Path(sys.argv[1])); world.now_s += float(sys.argv[2]); world.backup()
"""


def killed_at(place: str, world: World, later_s: float) -> None:
    environment = {**os.environ, "K4T_FAILPOINT": place}
    done = subprocess.run(
        [sys.executable, "-c", ONCE, str(world.root), str(later_s)], env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Both targets hold as many copies as they may, of three versions."""
    monkeypatch.setenv("K4T_KEYS", str(tmp_path / "keys"))
    made = World(tmp_path)
    for number in range(3):
        made.edit(f"web:{number}")
        made.backup()
    return made


def test_every_step_has_a_place() -> None:
    assert len(PLACES) >= 10, PLACES


@pytest.mark.parametrize("place", PLACES)
def test_killed_anywhere_the_next_call_makes_it_good(world: World, place: str) -> None:
    """In between the newest good copy is the old one or the new one, whole. After it the new one is on both, no
    sequence number was given out twice, and at most one copy too many stays, until the next version."""
    changed = place not in ("backup:confirm", "backup:confirmed")
    before = {name: world.newest(name) for name in ("n1", "n2")}
    if changed:
        world.edit("web:9")
    if "part" in place:
        (world.db / "apps" / "web" / "data.bin").write_bytes(os.urandom(2 << 20))
    killed_at(place, world, 60)
    between = {name: world.newest(name) for name in ("n1", "n2")}
    for name, newest in between.items():
        assert newest == before[name] or newest.order > before[name].order
    world.now_s += 120
    assert world.backup().exit_status == 0
    after = {name: world.newest(name) for name in ("n1", "n2")}
    assert after["n1"].tree == after["n2"].tree
    assert (after["n1"].tree != before["n1"].tree) == changed
    assert all(len(world.copies(name)) <= 4 for name in after)
    sequences = [int(one.split("-")[2]) for one in world.copies("n1")]
    assert len(sequences) == len(set(sequences))
    world.edit("web:10")
    assert words(world.backup()) == ["n1 copied", "n2 copied"]
    assert all(len(world.copies(name)) == 3 for name in after)
    assert not list(world.disk("n1").glob(".k4t-tmp-*"))
    world.now_s += 60
    assert words(world.backup()) == ["n1 confirmed", "n2 confirmed"]
