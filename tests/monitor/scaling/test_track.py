"""Target tracking: what must hold for any load, in a closed loop and for samples of any kind."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k4t.model.app import Scale
from k4t.monitor.scaling import track as tracking
from k4t.monitor.scaling.track import Decision, Reading, Sample, Track, decide
from tests.monitor.scaling.loop import CPU, Loop, turns

pytestmark = pytest.mark.unit
some = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
INTERVALS = st.sampled_from([5.0, 10.0, 30.0, 60.0])


def serving(*shares: float) -> tuple[Reading, ...]:
    return tuple(Reading("serving", share) for share in shares)


def run(scale: Scale, samples: list[Sample]) -> list[Decision]:
    track: Track | None = None
    found = []
    for sample in samples:
        found.append(decide(scale, sample, track))
        track = found[-1].track
    return found


def held(readings: tuple[Reading, ...], scale: Scale = CPU, seconds: float = 700, **fields: Any) -> Decision:
    """The same seen every ten seconds until something is asked for; the last decision."""
    found = Decision(Track(0, 0.0))
    track: Track | None = None
    for number in range(int(seconds / 10)):
        found = decide(scale, Sample(number * 10.0, len(readings), readings, **fields), track)
        track = found.track
        if found.replicas is not None:
            break
    return found


# --- in a closed loop ------------------------------------------------------------------------------------------


@some
@given(
    load=st.floats(0, 1500), size=st.integers(1, 30), seed=st.integers(0, 9),
    more=st.fixed_dictionaries({
        "interval_s": INTERVALS, "noise": st.sampled_from([0.0, 0.02, 0.045]), "jitter_s": st.sampled_from([0.0, 2.0]),
        "delay_s": st.sampled_from([0.0, 5.0, 90.0]),
    }),
)  # fmt: skip
def test_a_constant_load_never_makes_it_oscillate(load: float, size: int, seed: int, more: dict[str, float]) -> None:
    """With noise within the tolerance, rounds that come early and late, and a slow master: it never grows again after
    it shrank, and in the end stands still."""
    loop = Loop(lambda _: load, size=size, seed=seed, **more).run(3600)  # type: ignore[arg-type]
    noise = more["noise"]
    assert loop.turns in ([], ["up"], ["down"], ["up", "down"]), loop.sizes
    assert loop.sizes[-1][0] < 1000 + 3000, loop.sizes
    need = load / 60
    assert loop.last <= max(1, math.ceil(need * (1 + noise)), size)
    assert need / loop.last <= 1.1 * (1 + noise) or loop.last == 50


@some
@given(before=st.floats(20, 300), times=st.floats(1.5, 8), interval_s=INTERVALS, seed=st.integers(0, 9))
def test_after_a_step_up_it_has_the_right_size_in_bounded_time(
    before: float, times: float, interval_s: float, seed: int
) -> None:
    """Each step at most doubles (a replica can't show more than 100 %), and takes the window, two rounds and the
    master's delay."""
    start = max(1, math.ceil(before / 60))
    loop = Loop(lambda t: before if t < 600 else before * times, size=start, interval_s=interval_s, seed=seed).run(3600)
    wanted = max(1, before * times / 60)
    bound_s = (math.log2(times) / math.log2(100 / 60) + 2) * (60 + 30 + 3 * interval_s + 10)
    reached = next(at_s for at_s, size in loop.sizes if size >= min(50, math.ceil(round(wanted / 1.1, 6))))
    assert reached <= 1000 + 600 + bound_s, loop.sizes
    assert loop.last <= math.ceil(wanted) + 1


@some
@given(before=st.floats(200, 1500), share=st.floats(0.05, 0.7), interval_s=st.sampled_from([5.0, 10.0, 30.0]))
def test_after_a_step_down_it_waits_for_the_window_and_then_goes_down(
    before: float, share: float, interval_s: float
) -> None:
    """No sooner than the window says, by halves a minute."""
    start = math.ceil(before / 60)
    loop = Loop(lambda t: before if t < 600 else before * share, size=start, interval_s=interval_s).run(3600)
    wanted = max(1, math.ceil(round(before * share / 60, 6)))
    changes = [(at_s, size) for at_s, size in loop.sizes[1:] if at_s > 1600]
    if not changes:
        assert before * share / 60 / start >= 0.9 or wanted == start
        return
    assert changes[0][0] >= 1600 + 300
    halves = math.log2(start / wanted) + 2
    assert changes[-1][0] <= 1600 + 300 + halves * (60 + 2 * interval_s) + 2 * interval_s + 10
    assert wanted <= loop.last <= max(wanted, math.ceil(wanted / 0.9))


@some
@given(end=st.floats(200, 2000), seconds=st.floats(300, 3000), interval_s=INTERVALS, seed=st.integers(0, 9))
def test_on_a_ramp_it_only_goes_one_way(end: float, seconds: float, interval_s: float, seed: int) -> None:
    """Up with a growing load, down with a falling one, with noise and late rounds."""
    more: dict[str, Any] = {"interval_s": interval_s, "noise": 0.03, "jitter_s": 0.3 * interval_s, "seed": seed}
    up = Loop(lambda t: 30 + (end - 30) * min(1.0, t / seconds), **more).run(seconds + 900)
    assert up.turns in ([], ["up"]) or (up.turns == ["up", "down"] and up.sizes[-1][1] >= end / 60 / 1.1)
    down = Loop(
        lambda t: end - (end - 30) * min(1.0, t / seconds), size=math.ceil(end / 60), **more
    ).run(seconds + 2400)  # fmt: skip
    assert down.turns == ["down"]


@some
@given(st.lists(st.floats(0, 3000), min_size=3, max_size=12), st.integers(1, 4), st.integers(5, 40), INTERVALS)
def test_never_out_of_bounds_and_never_faster_than_the_rate(
    loads: list[float], least: int, most: int, interval_s: float
) -> None:
    """Whatever the load does: between min and max, and in any minute at most doubled or four more, at most halved."""
    scale = dataclasses.replace(CPU, min=least, max=most, up_after_s=0.0, down_after_s=20.0)
    loop = Loop(
        lambda t: loads[int(t / 97) % len(loads)], scale, size=least, interval_s=interval_s, delay_s=0.0
    ).run(1500)  # fmt: skip
    assert all(least <= size <= most for _, size in (*loop.sizes, *loop.goals))
    goals = [(1000.0, least), *loop.goals]
    for place, (at_s, size) in enumerate(goals[1:], 1):
        begun = next((n for n in range(place - 1, -1, -1) if at_s - goals[n][0] >= 60), 0)
        minute = [before for _, before in goals[begun:place]]
        assert size <= max(2 * min(minute), min(minute) + 4)
        assert size >= max(minute) - max(1, max(minute) // 2)


# --- sample by sample ------------------------------------------------------------------------------------------

READINGS = st.builds(
    Reading,
    st.sampled_from(["serving", "absent", "unknown"]),
    st.one_of(st.none(), st.floats(0, 400)),
    st.one_of(st.none(), st.floats(0, 120)),
)


@st.composite
def samples(draw: st.DrawFn) -> list[Sample]:
    now_s, found = 1000.0, []
    for _ in range(draw(st.integers(1, 15))):
        now_s += draw(st.sampled_from([-40.0, 1.0, 10.0, 70.0, 400.0, 4000.0]))
        readings = tuple(draw(st.lists(READINGS, min_size=1, max_size=4)))
        found.append(
            Sample(
                now_s,
                len(readings),
                readings,
                draw(st.one_of(st.none(), st.floats(0, 5000))),
                draw(st.booleans()),
                draw(st.one_of(st.none(), st.integers(0, 100_000))),
            )
        )
    return found


ALL = Scale(2, 9, cpu_percent=60.0, memory_percent=70.0, requests=10.0, command="x")


@settings(max_examples=50, deadline=None, derandomize=True)
@given(samples(), st.sampled_from([ALL, CPU, dataclasses.replace(ALL, up_after_s=0, down_after_s=0)]))
def test_whatever_is_seen_what_is_asked_for_is_within_bounds_and_rates(seen: list[Sample], scale: Scale) -> None:
    """Also with clocks that go back, sizes that others change and numbers out of any sense."""
    for sample, found in zip(seen, run(scale, seen), strict=True):
        assert found.track.said
        assert len(found.track.wants) <= tracking.WANTS_MAX
        if found.replicas is not None:
            assert scale.min <= found.replicas <= scale.max
            assert found.track.asked == found.replicas
            assert found.replicas != sample.size


@settings(max_examples=50, deadline=None, derandomize=True)
@given(samples())
def test_what_is_not_known_never_makes_it_smaller(seen: list[Sample]) -> None:
    """One replica that can't be asked, and it never asks for fewer."""
    blind = [
        dataclasses.replace(one, size=len(one.readings) + 1, readings=(*one.readings, Reading("unknown")))
        for one in seen
    ]
    scale = dataclasses.replace(CPU, max=50)
    base = blind[0].size
    for sample, found in zip(blind, run(scale, blind), strict=True):
        if found.replicas is not None:
            assert found.replicas >= min(base, sample.size)
        base = found.track.asked if found.track.asked is not None else sample.size


def test_the_formula_is_that_of_the_autoscaler() -> None:
    """⌈replicas × value ÷ target⌉, of two replicas at 90 % with 60 % aimed at: three."""
    found = held(serving(90, 90))
    assert found.replicas == 3
    assert found.cause == "2 → 3 replicas: cpu 90 % of 2, 60 % aimed at"


def test_within_the_tolerance_nothing_is_done() -> None:
    """A tenth more or less than the aim."""
    assert held(serving(65, 66)).replicas is None
    assert held(serving(67, 67)).replicas == 3
    assert held(serving(55, 55, 55, 55, 55, 55, 55)).replicas is None


def test_of_several_measures_the_largest_decides() -> None:
    """Memory wants four, CPU one, the command three."""
    scale = Scale(1, 9, cpu_percent=60, memory_percent=50, command="x")
    busy = Reading("serving", 10.0, 99.0)
    assert held((busy, busy), scale, command=3).replicas == 4
    idle = Reading("serving", 10.0, 20.0)
    assert held((idle, idle), scale, command=3).replicas == 3


def test_a_replica_that_starts_is_neither_idle_nor_more_load() -> None:
    """Up: those that serve are counted, the others will take their part. Down: they will be as busy as they should."""
    starting = Reading("absent")
    assert held((*serving(90, 90), starting)).replicas is None  # three are what two at 90 % want
    assert held((*serving(20, 20, 20, 20), starting)).replicas == 3  # ⌈(80 + 60) ÷ 60⌉, and not ⌈80 ÷ 60⌉
    assert held((*serving(100, 100), starting)).replicas == 4


def test_nothing_known_changes_nothing() -> None:
    """No replica answers; the command fails; no gateway can be asked."""
    assert held((Reading("unknown"),) * 3).replicas is None
    scale = Scale(1, 9, requests=10, command="x")
    found = held(serving(1, 1, 1), scale)
    assert found.replicas is None
    assert "is not known" in found.track.said
    assert "did not answer" in found.track.said


def test_one_measure_that_fails_stops_the_way_down_alone() -> None:
    """The command fails while CPU says too many, or too few."""
    scale = Scale(1, 9, cpu_percent=60, command="x")
    assert held(serving(5, 5, 5), scale).replicas is None
    assert held(serving(99, 99, 99), scale).replicas == 5


def test_requests_are_shared_by_all_replicas() -> None:
    """Forty a second, ten a replica: four. A gateway that is away can only have had more of them."""
    scale = Scale(1, 9, requests=10)
    assert held(serving(1, 1), scale, requests_s=40.0).replicas == 4
    assert held(serving(1, 1), scale, requests_s=40.0, requests_known=False).replicas == 4
    assert held(serving(1, 1, 1, 1, 1, 1), scale, requests_s=20.0).replicas == 3
    assert held(serving(1, 1, 1, 1, 1, 1), scale, requests_s=20.0, requests_known=False).replicas is None


def test_a_peak_shorter_than_the_window_is_no_reason() -> None:
    """Twenty seconds at 100 %, then as before; and a dip of four minutes."""
    loop = Loop(lambda t: 100 if 600 <= t < 620 else 50).run(1800)
    assert loop.turns == []
    dip = Loop(lambda t: 50 if 600 <= t < 840 else 300, size=5).run(1800)
    assert dip.turns == []


def test_what_is_asked_for_is_said_until_it_is_there_and_then_thought_over() -> None:
    """The master sleeps: the same in every round, for the reason that it was asked for, and not more of it; after ten
    minutes what is measured then counts alone."""
    samples = [Sample(number * 10.0, 1, serving(90 if number < 20 else 30)) for number in range(70)]
    found = run(CPU, samples)
    wanted = [one.replicas for one in found]
    first = wanted.index(2)
    assert wanted == [None] * first + [2] * 61 + [None] * (70 - first - 61)
    assert {one.cause for one in found[first : first + 61]} == {"1 → 2 replicas: cpu 90 % of 1, 60 % aimed at"}


def test_a_wish_that_is_no_longer_one_is_taken_back() -> None:
    """Four were asked for, and are not there when one will do again: what there is is what is wanted."""
    scale = Scale(1, 9, requests=10.0, up_after_s=0, down_after_s=0)
    samples = [Sample(number * 30.0, 1, serving(1), 40.0 if number < 3 else 5.0) for number in range(12)]
    found = run(scale, samples)
    wanted = [one.replicas for one in found]
    assert wanted[:5] == [None, 4, 4, 4, 4]
    assert wanted[-1] is None
    assert found[-1].track.asked is None


def test_more_is_asked_for_while_the_first_wish_is_on_its_way() -> None:
    """The load grows on, and the master is slow."""
    loop = Loop(lambda t: min(100.0, 70 + t / 10) * 3, size=3, delay_s=400.0).run(500)
    goals = [goal for _, goal in loop.goals]
    assert goals == sorted(goals)
    assert len(set(goals)) == len(goals) > 1


def test_what_somebody_else_asked_for_stands_for_its_window() -> None:
    """By hand to six: five minutes later what is measured counts again."""
    many = [
        Sample(number * 10.0, 2 if number < 20 else 6, serving(*[10] * (2 if number < 20 else 6)))
        for number in range(60)
    ]
    first = next((place, one.replicas) for place, one in enumerate(run(CPU, many)) if one.replicas is not None)
    assert first == (50, 3)


def test_after_a_pause_windows_begin_anew() -> None:
    """The monitor was off for an hour: what it remembers is no reason to shrink at once."""
    samples = [Sample(number * 10.0, 4, serving(5, 5, 5, 5)) for number in range(3)]
    samples += [Sample(3700.0 + number * 10, 4, serving(5, 5, 5, 5)) for number in range(40)]
    asked = [(one.track.at_s, one.replicas) for one in run(CPU, samples) if one.replicas is not None]
    assert asked[0] == (4000.0, 2)


def test_rounds_that_are_far_apart_need_several_that_say_so() -> None:
    """From cron every ten minutes: two for more, three for fewer."""
    busy = [Sample(number * 600.0, 2, serving(99, 99)) for number in range(4)]
    assert [one.replicas for one in run(CPU, busy)][:2] == [None, 4]
    idle = [Sample(number * 600.0, 4, serving(5, 5, 5, 5)) for number in range(5)]
    assert [one.replicas for one in run(CPU, idle)][:3] == [None, None, 2]


def test_a_command_alone_may_want_none_and_one_again() -> None:
    """With min="0"; and the way is not taken for somebody else's."""
    scale = Scale(0, 3, command="x", up_after_s=0, down_after_s=0)
    sizes = [1, 1, 1, 0, 0, 0, 0]
    samples = [
        Sample(place * 70.0, size, serving(*[1.0] * size), command=0 if place < 5 else 2)
        for place, size in enumerate(sizes)
    ]
    found = run(scale, samples)
    assert [one.replicas for one in found] == [None, None, 0, None, None, None, 2]
    assert found[3].track.asked is None


def test_sizes_that_alternate_are_told() -> None:
    """The helper of these tests tells an oscillation from a way."""
    assert turns([1, 2, 2, 3, 2, 3]) == ["up", "down", "up"]


# --- a recorded load -------------------------------------------------------------------------------------------

RECORDED: list[list[float]] = json.loads((Path(__file__).parent / "recorded.json").read_text())["series"]
TENFOLD = 10.0
"""It was read every second; here a round is ten seconds."""


def recorded(at_s: float) -> float:
    """Of both containers together, at that time of the recording."""
    later = [row for row in RECORDED if row[0] * TENFOLD >= at_s]
    return sum((later[0] if later else RECORDED[-1])[1:])


@pytest.mark.parametrize("seed", range(5))
def test_what_a_real_container_was_recorded_to_use_leads_there_and_back(seed: int) -> None:
    """Idle; one of two at its limit, which is what is aimed at; both: four; idle again: two."""
    scale = Scale(2, 6, cpu_percent=50.0)
    loop = Loop(recorded, scale, size=2, jitter_s=2.0, seed=seed).run(1500)
    assert [size for _, size in loop.sizes] in ([2, 4, 2], [2, 4, 3, 2])  # 3 as it was still cooling down
    up_s, down_s = loop.sizes[1][0] - 1000, loop.sizes[2][0] - 1000
    assert 308 + 30 <= up_s <= 308 + 30 + 60
    assert 469 + 300 <= down_s <= 469 + 300 + 60
