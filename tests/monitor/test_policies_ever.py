"""Whatever happens to a cluster, round after round: the limits of its policies hold."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k4t.model.monitor import Policy
from k4t.monitor.facts import Failure
from tests.monitor.course import ALL, SILENT, Course, Picture, tree

pytestmark = pytest.mark.unit
NODES = 6
FAILURES = (
    SILENT, Failure("refused", "refused"), Failure("slow", "slow"), Failure("login", "denied"),
    Failure("silent", "cut", reached_from="gw1"),
)  # fmt: skip
names = st.sampled_from([f"node{number}" for number in range(1, NODES + 1)])
pictures = st.builds(
    Picture,
    down=st.dictionaries(names, st.sampled_from(FAILURES), max_size=4),
    unwell=st.dictionaries(st.sampled_from([f"id{number}" for number in range(NODES)]), st.just("503"), max_size=3),
    full=st.dictionaries(names, st.sampled_from([0, 1 << 30]), max_size=2),
    alive=st.dictionaries(names, st.just("gw1"), max_size=1),
)
policies = st.builds(
    lambda when, after, per_hour, share, keep: Policy(when, True, False, after, per_hour, share, keep),
    st.just("node-gone"), st.integers(1, 5), st.integers(1, 3), st.sampled_from([1.0, 20.0, 40.0, 100.0]),
    st.integers(0, 6),
)  # fmt: skip
courses = st.lists(st.tuples(pictures, st.integers(1, 6), st.sampled_from([0.0, 0.0, 600.0, 4000.0])), max_size=12)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(policies, courses, st.sets(st.sampled_from(["withdraw", "dead", "restart", "back"]), max_size=2))
def test_limits_hold_whatever_happens(
    gone: Policy, happened: list[tuple[Picture, int, float]], fails: set[str]
) -> None:
    """Each kind of action at most `per-hour` times in any hour; never more nodes given up than `max-nodes` allows,
    never one that leaves fewer than `keep-nodes`; what isn't off is not touched."""
    others = [Policy(when, True, False, gone.after, gone.per_hour) for when in ALL[1:4]]  # type: ignore[arg-type]
    course = Course(tree(gone, *others, nodes=NODES))
    course.fails = fails
    most = max(1, math.floor(NODES * gone.max_nodes_percent / 100))
    for picture, count, pause_s in happened:
        course.now_s += pause_s
        for _ in range(count):
            before = set(course.dead)
            decision = course.round(picture)
            for action in decision.actions:
                if action.verb in ("withdraw", "dead"):
                    away = set(picture.down) - before
                    assert len(away) <= most
                    assert action.name in picture.down
                    assert action.name not in picture.alive
                    assert NODES - len(away | before) >= gone.keep_nodes
                    failure = picture.down[action.name]
                    assert failure.kind != "login"
                    assert not failure.reached_from
                if action.verb == "dead":
                    assert len(set(picture.down) | before) <= most
                if action.verb == "restart":
                    assert picture.unwell
                if action.verb == "prune":
                    assert picture.full[action.name]
    for verb in ("withdraw", "dead", "back", "restart", "prune"):
        times = [at_s for at_s, action in course.done if action.verb == verb]
        for start in times:
            assert sum(start <= at_s < start + 3600.0 for at_s in times) <= gone.per_hour
    restarts = [at_s for at_s, action in course.done if action.verb == "restart"]
    assert all(later - sooner >= 600.0 for sooner, later in pairwise(restarts))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(courses)
def test_a_dry_run_never_acts(happened: list[tuple[Picture, int, float]]) -> None:
    """Every action that is decided is marked, and nothing of it is carried out."""
    course = Course(tree(*(Policy(when, True, True, 1, 3, 100.0, 0) for when in ALL), nodes=NODES))  # type: ignore[arg-type]
    for picture, count, pause_s in happened:
        course.now_s += pause_s
        for _ in range(count):
            assert all(action.dry_run for action in course.round(picture).actions)
    assert course.done == []
    assert course.memory.given_up == {}
