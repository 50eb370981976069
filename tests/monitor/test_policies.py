"""What the monitor does by itself, and what it never does, over series of rounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from k4t.model.monitor import Policy
from k4t.monitor.acting import acts
from k4t.monitor.acting.action import Action
from k4t.monitor.facts import Failure
from tests.monitor.course import ALL, SILENT, Course, Picture, tree

pytestmark = pytest.mark.unit
OFF = Picture(down={"node3": SILENT})
SICK = "GET /health answered 503"
IMAGES = 40 << 30


def gone(**fields: Any) -> Policy:
    return Policy("node-gone", enabled=True, **fields)


def refusals(course: Course, count: int, picture: Picture) -> list[tuple[str, str]]:
    """What was held back, and why, in so many rounds."""
    return [(one.action.words, one.words) for _ in range(count) for one in course.round(picture).refused]


def after_a_while(course: Course) -> Course:
    """It has looked for some time, and all was well."""
    assert course.rounds(3) == []
    return course


# --- a node that is gone -------------------------------------------------------------------------------------------


def test_a_node_that_is_gone_loses_its_endpoints_first_and_is_given_up_later() -> None:
    """Out in the second check that sees it, given up in the third; each once, however long it stays away."""
    course = after_a_while(Course(tree(gone())))
    assert course.rounds(1, OFF) == []
    assert course.rounds(1, OFF) == ["withdraw node3"]
    assert course.rounds(1, OFF) == ["dead node3"]
    assert course.rounds(50, OFF) == []
    assert "host-off for 2 checks" in course.done[0][1].cause


def test_the_first_check_of_all_withdraws_nothing() -> None:
    """It counts what it sees at once, and proves nothing."""
    course = Course(tree(gone(after=1)))
    assert course.rounds(1, OFF) == []
    assert course.rounds(1, OFF) == ["withdraw node3", "dead node3"]


def test_nothing_is_done_unless_it_is_switched_on() -> None:
    """Every policy is off by default."""
    wrong = Picture({"node3": SILENT}, {"id0": SICK}, {"node2": IMAGES})
    course = Course(tree())
    assert course.rounds(20, wrong) == []
    assert not course.memory.said
    course = Course(tree(*(Policy(when, enabled=False) for when in ALL)))  # type: ignore[arg-type]
    assert course.rounds(20, wrong) == []


def test_a_hundred_healthy_rounds_do_nothing() -> None:
    course = Course(tree(*(Policy(when, enabled=True) for when in ALL)))  # type: ignore[arg-type]
    assert course.rounds(100) == []
    assert course.memory.acts == ()
    assert course.memory.said == frozenset()


def test_a_dry_run_says_what_it_would_do_and_does_nothing() -> None:
    course = after_a_while(Course(tree(gone(dry_run=True))))
    decided = [action for _ in range(30) for action in course.round(OFF).actions]
    assert [(one.words, one.dry_run) for one in decided] == [("withdraw node3", True), ("dead node3", True)]
    assert course.done == []
    assert not course.memory.given_up


def test_a_node_without_a_fence_is_not_given_up() -> None:
    """Nobody could know that it is off. Its endpoints go all the same, and the rest is said, once."""
    course = after_a_while(Course(tree(gone(), fenced=False)))
    said = refusals(course, 20, OFF)
    assert [words for words, _ in said] == ["dead node3"]
    assert "no <power off>" in said[0][1]
    assert [action.words for _, action in course.done] == ["withdraw node3"]


def test_a_node_that_still_serves_is_not_gone() -> None:
    """Its sshd is dead, and a gateway still reaches what it runs; or only the way from here is cut."""
    refused = Failure("refused", "10.88.0.13:22 refuses the connection")
    elsewhere = dataclasses.replace(SILENT, reached_from="gw1")
    for picture in (Picture({"node3": refused}, alive={"node3": "gw1"}), Picture({"node3": elsewhere})):
        course = after_a_while(Course(tree(gone())))
        said = refusals(course, 20, picture)
        assert len(said) == 1, said
        assert course.done == []


@pytest.mark.parametrize("kind", ["silent", "refused", "mute", "slow", "lost"])
def test_whatever_keeps_it_from_answering_counts(kind: str) -> None:
    course = after_a_while(Course(tree(gone())))
    picture = Picture({"node3": Failure(kind, "no answer")})  # type: ignore[arg-type]
    assert course.rounds(5, picture) == ["withdraw node3", "dead node3"]


@pytest.mark.parametrize("kind", ["login", "garbage"])
def test_a_node_that_answers_wrongly_is_not_gone(kind: str) -> None:
    """A key that was changed is no reason to switch a machine off."""
    course = after_a_while(Course(tree(gone())))
    assert course.rounds(10, Picture({"node3": Failure(kind, "denied")})) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("availability", ["drained", "dead"])
def test_a_node_that_may_be_off_is_left_alone(availability: str) -> None:
    made = tree(gone())
    node = dataclasses.replace(made.nodes["node3"], availability=availability)  # type: ignore[arg-type]
    course = after_a_while(Course(dataclasses.replace(made, nodes={**made.nodes, "node3": node})))
    assert course.rounds(20, OFF) == []


def test_more_nodes_than_allowed_are_nobodys_single_fault() -> None:
    """Two of six at once are more than 20 %: nothing is done to either, and that is said."""
    course = after_a_while(Course(tree(gone())))
    two = Picture({"node3": SILENT, "node4": SILENT})
    said = refusals(course, 20, two)
    assert {words for words, _ in said} == {"withdraw node3", "withdraw node4", "dead node3", "dead node4"}
    assert len(said) == 4
    assert all("max-nodes=20% of 6 is 1" in why for _, why in said)
    assert course.done == []
    assert course.rounds(3, OFF) == ["withdraw node3", "dead node3"]


def test_one_node_may_always_be_gone() -> None:
    """However small the share is of two."""
    course = after_a_while(Course(tree(gone(max_nodes_percent=1.0), nodes=2)))
    assert course.rounds(5, Picture({"node2": SILENT})) == ["withdraw node2", "dead node2"]
    assert course.rounds(10, Picture({"node1": SILENT, "node2": SILENT})) == []


def test_no_more_are_given_up_than_may_be_gone_at_once() -> None:
    """One that was given up, and is still away, counts; its successor's endpoints are taken out all the same."""
    course = after_a_while(Course(tree(gone())))
    assert course.rounds(5, OFF) == ["withdraw node3", "dead node3"]
    assert course.rounds(5, Picture({"node3": SILENT, "node4": SILENT})) == ["withdraw node4"]
    assert course.dead == {"node3"}


def test_so_many_nodes_are_kept() -> None:
    course = after_a_while(Course(tree(gone(keep_nodes=3), nodes=3)))
    said = refusals(course, 20, OFF)
    assert len(said) == 2
    assert "2 other nodes serve, and keep-nodes=3" in said[0][1]
    assert course.done == []


def test_a_monitor_that_is_cut_off_does_nothing() -> None:
    """It is the one that is away."""
    course = after_a_while(Course(tree(gone(max_nodes_percent=100.0, keep_nodes=0, per_hour=100))))
    everything = dict.fromkeys(course.tree.nodes, SILENT)

    def alone(picture: Picture, facts: Callable[[Picture], Any] = course.facts) -> Any:
        found = facts(picture)
        lost = {
            key: dataclasses.replace(host, reading=None, failure=SILENT) for key, host in found.hosts.items()
        }  # fmt: skip
        return dataclasses.replace(found, hosts=lost)

    course.facts = alone  # type: ignore[method-assign]
    assert course.rounds(30, Picture(everything)) == []
    assert course.done == []


def test_a_flapping_host_is_acted_on_so_often_an_hour() -> None:
    """And is given back each time, which is never held back."""
    course = after_a_while(Course(tree(gone(per_hour=2, after=5))))
    for _ in range(14):
        course.rounds(3, OFF)
        course.rounds(7)
    verbs = [action.verb for _, action in course.done]
    assert verbs.count("withdraw") == 2
    assert verbs.count("give-back") == 2
    assert "dead" not in verbs


def test_what_failed_is_tried_again_ever_later_and_counts_once() -> None:
    """What the monitor does itself, once a minute at least; what it hands over, once an hour."""
    course = after_a_while(Course(tree(gone(per_hour=1))))
    course.fails = {"withdraw", "dead"}
    tried = course.rounds(60, OFF)
    assert 10 <= tried.count("withdraw node3") <= 14
    assert 5 <= tried.count("dead node3") <= 7
    assert [act.verb for act in course.memory.acts] == ["withdraw", "dead"]
    course.fails = set()
    course.rounds(70, OFF)
    assert {action.verb for _, action in course.done} == {"withdraw", "dead"}


def test_what_is_queued_is_not_queued_again() -> None:
    """As long as the master has not taken it."""
    course = after_a_while(Course(tree(gone())))
    course.rounds(3, OFF)
    act = course.memory.last("dead/node3")
    assert act is not None
    named = dataclasses.replace(act, intent="0" * 16)
    course.memory = dataclasses.replace(
        course.memory, acts=tuple(named if one == act else one for one in course.memory.acts), given_up={}
    )  # fmt: skip
    course.pending = frozenset(["0" * 16])
    course.dead.clear()
    for _ in range(5):
        course.now_s += 1700.0
        assert "dead node3" not in course.rounds(4, OFF)


def test_a_pause_counts_anew() -> None:
    """Two checks half an hour apart prove nothing of what was in between."""
    course = after_a_while(Course(tree(gone())))
    course.rounds(2, OFF)
    course.now_s += 3600.0
    assert course.rounds(2, OFF) == []
    assert course.rounds(1, OFF) == ["dead node3"]


# --- a node that is back -------------------------------------------------------------------------------------------


def test_a_node_that_was_only_away_gets_its_endpoints_back() -> None:
    """Soon, however long the policy waits before it gives a node up."""
    course = after_a_while(Course(tree(gone(after=10))))
    assert course.rounds(4, OFF) == ["withdraw node3"]
    assert course.rounds(2) == []
    assert course.rounds(2) == ["give-back node3"]
    assert course.rounds(20) == []


def test_what_was_taken_out_is_given_back_also_when_that_was_forgotten() -> None:
    """The gateways know who took it out."""
    course = after_a_while(Course(tree(gone(after=5))))
    course.rounds(3, OFF)
    course.memory = acts.NONE
    assert course.rounds(10) == ["give-back node3"]


def test_a_node_that_the_monitor_gave_up_is_taken_back() -> None:
    """Where node-back is on; one that a person gave up never is."""
    back = Policy("node-back", enabled=True, after=4)
    course = after_a_while(Course(tree(gone(), back)))
    course.rounds(5, OFF)
    assert course.rounds(20) == ["back node3"]
    assert course.memory.given_up == {}
    course = after_a_while(Course(tree(gone(), back)))
    course.dead.add("node3")
    assert course.rounds(20) == []
    course = after_a_while(Course(tree(gone())))
    course.rounds(5, OFF)
    assert course.rounds(20) == []


# --- apps and disks ------------------------------------------------------------------------------------------------


def test_one_replica_at_a_time_is_restarted() -> None:
    """The one that has been unwell for longest; another one when that had its time, and not above the limit."""
    unhealthy = Policy("app-unhealthy", enabled=True, per_hour=2)
    course = after_a_while(Course(tree(unhealthy)))
    assert course.rounds(2, Picture(unwell={"id1": SICK})) == []
    both = Picture(unwell={"id1": SICK, "id4": SICK})
    assert course.rounds(1, both) == ["restart web 1"]
    assert course.rounds(30, both) == []
    course.rounds(30, both)
    assert [action.words for _, action in course.done] == ["restart web 1", "restart web 1"]
    assert course.rounds(60, both) == []


def test_a_replica_is_restarted_also_when_none_is_well() -> None:
    course = after_a_while(Course(tree(Policy("app-unhealthy", enabled=True))))
    assert course.rounds(3, Picture(unwell={f"id{number}": SICK for number in range(6)})) == ["restart web 0"]


def test_a_full_disk_is_pruned_where_there_are_images() -> None:
    """Once a day: it would wake the master each time, for nothing."""
    full = Policy("disk-full", enabled=True, after=4)
    course = after_a_while(Course(tree(full)))
    assert course.rounds(3, Picture(full={"node2": IMAGES})) == []
    assert course.rounds(1, Picture(full={"node2": IMAGES})) == ["prune node2"]
    for _ in range(20):
        course.now_s += 1700.0
        assert course.rounds(3, Picture(full={"node2": IMAGES})) == []
    course = after_a_while(Course(tree(full)))
    assert course.rounds(20, Picture(full={"node2": 0})) == []


# --- what others want ----------------------------------------------------------------------------------------------


def wanted(policy: str, verb: str, name: str, replicas: int = 0) -> Action:
    return Action(policy, verb, name, "because", replicas=replicas)  # type: ignore[arg-type]


def test_scaling_is_not_asked_for_twice() -> None:
    """The same number waits for its minute; another one doesn't."""
    course = after_a_while(Course(tree()))
    first, other = wanted("scale", "scale", "web", 4), wanted("scale", "scale", "web", 5)
    assert [one.words for one in course.round(more=[first]).actions] == ["scale web 4"]
    assert course.round(more=[first]).actions == ()
    assert [one.words for one in course.round(more=[other]).actions] == ["scale web 5"]


def test_spare_nodes_are_switched_within_the_policys_limits() -> None:
    on, off = wanted("nodes-short", "node-on", "node5"), wanted("nodes-idle", "node-off", "node5")
    course = after_a_while(Course(tree(Policy("nodes-short", enabled=True, per_hour=1))))
    assert [one.words for one in course.round(more=[on, off]).actions] == ["node-on node5"]
    other = course.round(more=[wanted("nodes-short", "node-on", "node6")])
    assert (other.actions, len(other.refused)) == ((), 1)
    course = after_a_while(Course(tree(Policy("nodes-idle", enabled=True, keep_nodes=6))))
    held = course.round(more=[off])
    assert (held.actions, held.refused[0].words) == ((), "5 other nodes serve, and keep-nodes=6")
    course = after_a_while(Course(tree(Policy("nodes-idle", enabled=True, dry_run=True))))
    assert [one.dry_run for one in course.round(more=[off]).actions] == [True]
