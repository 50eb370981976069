"""What the monitor does, it does beside the rounds: what hangs or fails holds up nothing, and nothing is done twice."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest

from k4t.errors import K4tError
from k4t.master.fleet import Fleet
from k4t.model.monitor import Policy
from k4t.monitor.acting import acts
from k4t.monitor.acting.act import Acting, Executor, Handed, Handing, Hands, Order
from k4t.monitor.acting.action import Action, Outcome
from k4t.monitor.check import Looked
from tests.monitor.course import SILENT, Course, Picture, tree

pytestmark = pytest.mark.unit
OFF = Picture(down={"node3": SILENT})
GONE = Policy("node-gone", enabled=True)


class FakeHands:
    """Does what it is told to, or hangs until `go`, or fails."""

    def __init__(self) -> None:
        self.longest_s = 60.0
        self.done: list[str] = []
        self.hangs: set[str] = set()
        self.fails: set[str] = set()
        self.go = threading.Event()
        self.lying: dict[str, str] = {}
        self.takes = True
        """Whether the master takes what is handed over."""

    def withdraw(self, looked: Looked, action: Action) -> str:  # noqa: ARG002
        return self._own(action)

    def give_back(self, looked: Looked, action: Action) -> str:  # noqa: ARG002
        return self._own(action)

    def pending(self) -> frozenset[str]:
        return frozenset(self.lying)

    def hand_over(self, looked: Looked, orders: Sequence[Order]) -> Handing:  # noqa: ARG002
        if not orders:
            self.done.append("reminded")
            return Handing(note="the master was called again")
        for order in orders:
            self._own(order.action)
            if not self.takes:
                self.lying[order.id] = order.action.words
        return Handing(tuple(Handed("queued", "queued on gw1", order.id) for order in orders))

    def _own(self, action: Action) -> str:
        if action.verb in self.hangs:
            self.go.wait(30)
        if action.verb in self.fails:
            raise K4tError("no gateway answers")
        self.done.append(action.words)
        return "as it was asked"


class Rounds:
    """A cluster whose monitor acts."""

    def __init__(self, file: Path, hands: FakeHands, course: Course | None = None) -> None:
        self.course = course or Course(tree(GONE))
        self.hands = hands
        self.file = file
        ids = count(int(time.monotonic() * 1000))
        checked: Hands = hands
        self.acting = Acting(file, Executor(checked), lambda: f"{next(ids):016x}")

    def round(self, picture: Picture | None = None) -> tuple[tuple[Outcome, ...], tuple[str, ...]]:
        self.course.now_s += 10.0
        looked = self.course.look(picture or Picture())
        fleet = Fleet(self.course.tree, lambda *_: pytest.fail("nobody is asked"), {})
        outcomes, notes = self.acting.round(fleet, looked, self.course.now_s)
        for one in outcomes:
            if one.result == "done" and one.action.verb == "withdraw":
                self.course.out.add(one.action.name)
        return outcomes, notes

    def rounds(self, count: int, picture: Picture | None = None) -> list[str]:
        """What became of what, in so many rounds."""
        return [f"{one.result} {one.action.words}" for _ in range(count) for one in self.round(picture)[0]]


@pytest.fixture
def hands() -> Iterator[FakeHands]:
    made = FakeHands()
    yield made
    made.go.set()


@pytest.fixture
def rounds(tmp_path: Path, hands: FakeHands) -> Rounds:
    made = Rounds(tmp_path / "state" / "acts.json", hands)
    assert made.rounds(3) == []
    return made


def soon(what: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_what_is_decided_is_done_once_and_told(rounds: Rounds, hands: FakeHands) -> None:
    found = rounds.rounds(3, OFF)
    soon(lambda: len(hands.done) == 2)
    found += rounds.rounds(10, OFF)
    assert sorted(found) == ["done withdraw node3", "queued dead node3"]
    assert hands.done == ["withdraw node3", "dead node3"]
    memory, why = acts.load(rounds.file)
    assert why == ""
    assert [(act.verb, act.result, bool(act.intent)) for act in memory.acts] == [
        ("withdraw", "done", False), ("dead", "queued", True),
    ]  # fmt: skip


def test_what_hangs_holds_up_no_round(rounds: Rounds, hands: FakeHands) -> None:
    """Handing over hangs: rounds go on, it is not handed over again, and its end is told when it comes."""
    hands.hangs = {"dead"}
    began_s = time.monotonic()
    found = rounds.rounds(12, OFF)
    assert time.monotonic() - began_s < 20
    assert found == ["done withdraw node3"]
    hands.go.set()
    soon(lambda: "dead node3" in hands.done)
    soon(lambda: "queued dead node3" in rounds.rounds(1, OFF))
    assert hands.done.count("dead node3") == 1


def test_what_never_ends_is_given_up_and_said(tmp_path: Path, hands: FakeHands) -> None:
    """By the clock: whoever hangs has had all the time there is for it."""
    now = [0.0]
    executor = Executor(hands, clock=lambda: now[0])
    looked = Course(tree(GONE)).look(Picture())
    hands.hangs = {"withdraw", "dead"}
    for verb in ("withdraw", "dead"):
        executor.begin(looked, [Order(Action("node-gone", verb, "node3", "because"), "0" * 16)])
    assert executor.ended(1.0) == ()
    now[0] = 3600.0
    assert {(one.action.verb, one.result, one.words) for one in executor.ended(2.0)} == {
        ("withdraw", "failed", "it has not ended in time"), ("dead", "failed", "it has not ended in time"),
    }  # fmt: skip
    assert not executor.under_way


def test_what_fails_is_said_and_tried_again(rounds: Rounds, hands: FakeHands) -> None:
    hands.fails = {"withdraw"}
    found = [one for _ in range(3) for one in rounds.round(OFF)[0] if one.action.verb == "withdraw"]
    assert [(one.result, one.words) for one in found] == [("failed", "no gateway answers")] * 2
    hands.fails = set()
    assert "done withdraw node3" in rounds.rounds(4, OFF)


def test_what_waits_goes_together(hands: FakeHands) -> None:
    """While one hand-over is under way, what comes next waits; it goes in one go then."""
    executor = Executor(hands)
    looked = Course(tree(GONE)).look(Picture())
    hands.hangs = {"dead"}
    for number, verb in enumerate(("dead", "restart", "prune")):
        executor.begin(looked, [Order(Action("p", verb, "node3", "because"), f"{number:016x}")])  # type: ignore[arg-type]
    assert executor.pending() == {f"{number:016x}" for number in range(3)}
    hands.hangs = set()
    hands.go.set()
    ended = executor.ended(1.0, patience_s=30.0, all=True)
    assert [one.action.verb for one in ended] == ["dead", "restart", "prune"]
    assert executor.pending() == frozenset()


def test_nothing_is_done_that_can_not_be_remembered(rounds: Rounds, hands: FakeHands) -> None:
    """Limits would not outlive the next restart."""
    rounds.file.unlink()
    rounds.file.mkdir()
    found = [rounds.round(OFF) for _ in range(4)]
    assert all(outcomes == () for outcomes, _ in found)
    assert any("nothing is done, since it can't be remembered" in note for _, notes in found for note in notes)
    assert hands.done == []


def test_damaged_memory_is_said_and_counted_anew(tmp_path: Path, hands: FakeHands) -> None:
    """Once; and whatever stands there breaks nothing."""
    for damaged in ("", "{}", "[]", '{"format":2}', '{"format":1,"at":"x"}', "\x00", '{"format":1' * 9999):
        file = tmp_path / "acts.json"
        file.write_text(damaged)
        made = Rounds(file, hands)
        assert any("counted anew" in note for note in made.round()[1])
        assert made.round()[1] == ()


def test_after_a_restart_limits_hold_and_nothing_is_done_again(rounds: Rounds, hands: FakeHands) -> None:
    """Also where it ended between writing down what it decided and hearing what became of it."""
    hands.takes = False
    hands.hangs = {"dead"}
    rounds.rounds(3, OFF)
    hands.go.set()
    soon(lambda: bool(hands.lying))
    again = Rounds(rounds.file, hands, rounds.course)
    assert again.rounds(8, OFF) == []
    assert hands.done.count("dead node3") == 1
    memory, _ = acts.load(rounds.file)
    assert [act.result for act in memory.acts] == ["done", "queued"]
    assert "node3" in memory.given_up


def test_what_was_being_taken_out_is_taken_out_after_a_restart(rounds: Rounds, hands: FakeHands) -> None:
    """Within seconds: it can be done twice, and traffic waits."""
    hands.hangs = {"withdraw"}
    rounds.rounds(2, OFF)
    hands.hangs = set()
    again = Rounds(rounds.file, hands, rounds.course)
    assert "done withdraw node3" in again.rounds(2, OFF)


def test_the_master_is_reminded_of_what_it_has_not_taken(rounds: Rounds, hands: FakeHands) -> None:
    """Not in every round of a fast loop: by the clock."""
    hands.takes = False
    now = [0.0]
    rounds.acting = Acting(rounds.file, Executor(hands, clock=lambda: now[0]), lambda: "0" * 16)
    rounds.rounds(3, OFF)
    soon(lambda: bool(hands.lying))
    rounds.rounds(3, OFF)
    assert "reminded" not in hands.done
    now[0] += 100.0
    notes = rounds.round(OFF)[1]
    soon(lambda: "reminded" in hands.done)
    notes += rounds.round(OFF)[1]
    assert "the master was called again" in notes


def test_a_dry_run_is_told_and_nothing_else(tmp_path: Path, hands: FakeHands) -> None:
    course = Course(tree(dataclasses.replace(GONE, dry_run=True)))
    made = Rounds(tmp_path / "acts.json", hands, course)
    assert made.rounds(3) == []
    assert made.rounds(10, OFF) == ["dry-run withdraw node3", "dry-run dead node3"]
    assert hands.done == []


def test_what_others_want_may_fail(rounds: Rounds, hands: FakeHands) -> None:
    """The rest of the round goes on."""

    def wants(*_: object) -> tuple[Action, ...]:
        raise K4tError("no samples")

    rounds.acting.wants = (wants,)
    outcomes, notes = rounds.round(OFF)
    assert (outcomes, notes) == ((), ("no samples",))
    assert "done withdraw node3" in rounds.rounds(2, OFF)
