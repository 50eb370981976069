"""What scaling and spare nodes remember is kept for them between rounds; and what an action says when it is queued."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from k4t.commands import monitor_hands
from k4t.commands.monitor_hands import Hands
from k4t.errors import K4tError
from k4t.master.fleet import Fleet
from k4t.master.power import intents, queue
from k4t.master.power.signed import Trust
from k4t.model.hosts import Power
from k4t.model.monitor import Policy
from k4t.monitor.acting import wants
from k4t.monitor.acting.act import Order
from k4t.monitor.acting.action import Action
from tests.monitor.course import Course, Picture, tree

pytestmark = pytest.mark.unit
ID = "k7f3q2m9"


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "k4t" / "monitor"


def nobody(course: Course) -> Fleet:
    return Fleet(course.tree, lambda *_: pytest.fail("nobody is asked"), {})


def test_what_they_remember_outlives_a_restart(state: Path) -> None:
    """In files of their own; a damaged one is as if there were none."""
    course = Course(tree(Policy("nodes-idle", enabled=True)))
    for made in (wants.Spares(ID), wants.Scaling(ID)):
        assert made(nobody(course), course.look(Picture()), course.now_s) == ()
    assert (state / f"{ID}.spares.json").exists()
    assert not (state / f"{ID}.samples.json").exists()  # no app has <scale>
    again = wants.Spares(ID)
    assert again._memory.at_s == course.now_s
    for damaged in ("", "[]", "{}", '{"format":1}', "[" * 5000):
        (state / f"{ID}.spares.json").write_text(damaged)
        assert wants.Spares(ID)._memory.at_s == 0.0
        (state / f"{ID}.samples.json").write_text(damaged)
        wants.Scaling(ID)


def test_what_can_not_be_kept_is_not_wanted(state: Path) -> None:
    course = Course(tree(Policy("nodes-idle", enabled=True)))
    (state / f"{ID}.spares.json").mkdir(parents=True)
    with pytest.raises(K4tError, match=r"spares\.json"):
        wants.Spares(ID)(nobody(course), course.look(Picture()), course.now_s)


def test_every_action_is_an_intent_that_the_master_knows() -> None:
    """With the monitor as who asks, and its cause as the note: one line, whatever a host said in it."""
    asked = (
        Action("node-gone", "dead", "node3", "off\nor cut off\u202e" + "x" * 400),
        Action("node-back", "back", "node3", "answers"),
        Action("app-unhealthy", "restart", "web", "503", "1"),
        Action("disk-full", "prune", "node3", "full"),
        Action("scale", "scale", "web", "load", replicas=4),
        Action("nodes-short", "node-on", "node4", "short"),
        Action("nodes-idle", "node-off", "node4", "idle"),
    )
    for number, action in enumerate(asked):
        intent = monitor_hands._intent(Order(action, f"{number:016x}"), ID)
        data = intents.encode(intent, None)
        read = intents.decode(data, intent.id, Trust(ID), datetime.now(UTC), unsigned=True)
        assert read == intent
        assert read.words == action.words
        assert read.who.endswith("(monitor)")
        assert read.note.isprintable()


def test_where_the_master_is_decides_what_is_pending(tmp_path: Path) -> None:
    """Here: what lies in this working copy; elsewhere: what hosts hold, as far as it is known."""
    course = Course(tree())
    hands = Hands(tmp_path / "db", ID)
    hands.taken(course.tree)
    assert hands.pending() == frozenset()
    intent = monitor_hands._intent(Order(Action("node-gone", "dead", "node3", "off"), "0" * 16), ID)
    queue.put_here(tmp_path / "db", intent, intents.encode(intent, None))
    theirs = intents.made("dead", id="1" * 16, cluster=ID, who="ana@laptop", at=datetime.now(UTC), name="node3")
    queue.put_here(tmp_path / "db", theirs, intents.encode(theirs, None))
    assert hands.pending() == {"0" * 16}  # a person's waits for `k4t wake`
    elsewhere = dataclasses.replace(course.tree.cluster, power=Power("k4t-master.example"))
    hands.taken(dataclasses.replace(course.tree, cluster=elsewhere))
    assert hands.pending() == frozenset()
    assert hands.longest_s == monitor_hands.ROUSE_S
