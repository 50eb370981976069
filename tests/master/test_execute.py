"""The executor: order, bounds, and what a failure stops."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from k4t.errors import ConnectionLost, StepError
from k4t.master.deploy import _in_part
from k4t.master.execute import STEPS_PER_NODE, Executed, Execution, Failure
from k4t.master.planning.plan import Action, Pause, Step
from k4t.model.events import Event, StepFailed, StepSkipped, silent

pytestmark = pytest.mark.unit


def step(id: str, *after: str, node: str = "n1", app: str = "web") -> Step:
    return Step(id, "create", "because", Pause(0), node=node, app=app, after=after)


def test_a_step_waits_for_all_it_comes_after() -> None:
    """A diamond runs from its top to its bottom, whatever the order in which it is given."""
    order: list[str] = []
    steps = [step("d", "b", "c"), step("b", "a"), step("c", "a"), step("a")]

    def perform(one: Step, failed: frozenset[str]) -> str:
        order.append(one.id)
        return ""

    result = Execution(steps, perform, silent).run()
    assert order[0] == "a"
    assert order[3] == "d"
    assert {one.id for one in result.done} == {"a", "b", "c", "d"}


def test_a_failure_stops_what_depends_on_it_and_nothing_else() -> None:
    """b fails: c (after b) is skipped and says so, d goes on."""
    events: list[Event] = []

    def perform(one: Step, failed: frozenset[str]) -> str:
        if one.id == "b":
            raise StepError("no", host="n1")
        return ""

    result = Execution([step("a"), step("b", "a"), step("c", "b"), step("d", "a")], perform, events.append).run()
    assert [one.id for one in result.done] == ["a", "d"]
    assert [failure.step.id for failure in result.failed] == ["b"]
    assert [(one.id, because) for one, because in result.skipped] == [("c", "b")]
    assert StepFailed("b", "no", "n1") in events
    assert StepSkipped("c", "b") in events


def test_a_defect_in_one_step_is_a_failure_of_that_step() -> None:
    """An exception nobody foresaw doesn't lose the account of the other steps."""

    def perform(one: Step, failed: frozenset[str]) -> str:
        if one.id == "b":
            raise KeyError("oops")
        return ""

    result = Execution([step("a"), step("b"), step("c")], perform, silent).run()
    assert len(result.done) == 2
    assert "internal error: KeyError" in result.failed[0].error.message


def test_few_steps_at_once_on_one_node_many_nodes_at_once() -> None:
    """Never more than STEPS_PER_NODE on a node; another node isn't held up by a busy one."""
    guard = threading.Lock()
    busy: Counter[str] = Counter()
    most: Counter[str] = Counter()
    both = threading.Event()

    def perform(one: Step, failed: frozenset[str]) -> str:
        with guard:
            busy[one.node] += 1
            most[one.node] = max(most[one.node], busy[one.node])
            if len([node for node in busy if busy[node]]) == 2:
                both.set()
        time.sleep(0.01)
        with guard:
            busy[one.node] -= 1
        return ""

    steps = [step(f"{node}-{number}", node=node) for node in ("n1", "n2") for number in range(20)]
    result = Execution(steps, perform, silent).run()
    assert len(result.done) == 40
    assert max(most.values()) <= STEPS_PER_NODE
    assert both.is_set()


def test_stopping_finishes_the_step_at_hand_and_begins_no_other() -> None:
    """After the stop is asked for, what runs ends, what waits is named as interrupted."""
    execution: Execution

    def perform(one: Step, failed: frozenset[str]) -> str:
        execution.stopping.set()
        return ""

    execution = Execution([step("a"), step("b", "a")], perform, silent)
    result = execution.run()
    assert [one.id for one in result.done] == ["a"]
    assert [(one.id, because) for one, because in result.skipped] == [("b", "interrupted")]
    assert result.interrupted


def test_a_step_that_awaits_begins_when_they_have_ended_and_is_told_which_failed() -> None:
    """A publication of two replicas goes on with the one that is healthy."""
    told: list[frozenset[str]] = []

    def perform(one: Step, failed: frozenset[str]) -> str:
        if one.id == "b":
            raise StepError("no")
        if one.id == "p":
            told.append(failed)
        return ""

    publish = Step("p", "publish", "because", Pause(0), awaits=("a", "c"))
    result = Execution([step("a"), step("b"), step("c", "b"), publish], perform, silent).run()
    assert told == [frozenset({"c"})]
    assert [one.id for one, _ in result.skipped] == ["c"]
    assert {one.id for one in result.done} == {"a", "p"}


@pytest.mark.parametrize(("done", "failed", "in_part"), [("await", "stop", True), ("create", "stop", False)])
def test_what_can_not_be_taken_away_after_its_successor_serves_is_done_in_part(
    done: Action, failed: Action, in_part: bool
) -> None:
    """A node that goes away before the old container was stopped: the new one serves, so not all has failed."""
    before, after = (Step(one, one, "because", Pause(0), node="n1", app="web") for one in (done, failed))
    executed = Executed([before], [Failure(after, ConnectionLost("it went away", host="n1"))])
    assert _in_part(executed) == in_part
