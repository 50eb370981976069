"""Target tracking: from what was measured to how many replicas there should be. Pure; time is a value.

The formula, its care with what is missing, and the windows are those of Kubernetes' HorizontalPodAutoscaler
(https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details, and “Configurable scaling
behavior” there), whose own model is AWS' target tracking:

- of each measure: wanted = ⌈replicas × value ÷ target⌉, the same number as long as value ÷ target is within the
  tolerance of 1; of several measures the most; then min and max.
- More replicas: as many as were wanted *at least* all through `up_after_s`; fewer: as many as were wanted *at most* all
  through `down_after_s`.
- In any minute at most twice as many, or four more; at most half of them fewer, or one.

Otherwise than there: what is not known never counts for going down. A replica that is starting or ill counts as idle on
the way up and as just busy enough on the way down; one that can't be asked stops the way down.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Literal

from k4t.model.app import Scale
from k4t.model.value import value

RATE_WINDOW_S = 60.0
UP_AT_LEAST = 4
UP_TIMES = 2
DOWN_SHARE = 0.5
DOWN_AT_LEAST = 1
UP_SAMPLES, DOWN_SAMPLES = 2, 3
"""So many in a row must say so, however far apart they are."""
GAP_S = 1800.0
"""What was wanted before a pause as long as this says nothing about now."""
PENDING_S = 600.0
"""What was asked for and is not there by then is thought over: the master may have had to boot."""
WANTS_MAX = 720
MOVES_MAX = 100

Condition = Literal["serving", "absent", "unknown"]


@value
class Reading:
    """One replica. `condition`: serving; absent, where it is starting, ill, stopped or not there; unknown, where it
    can't be asked. Shares in per cent of its `<resources>`; None: not known, or not asked for."""

    condition: Condition
    cpu_percent: float | None = None
    memory_percent: float | None = None


@value
class Sample:
    """One app at one time. `size`: as many replicas as it should have now; `readings`: of those. `requests_s`: all
    that our endpoints got; `requests_known` False: more of them may have come by a gateway that can't be asked.
    `command`: the number that it printed. None: not known."""

    at_s: float
    size: int
    readings: tuple[Reading, ...] = ()
    requests_s: float | None = None
    requests_known: bool = True
    command: int | None = None


@value
class Want:
    """What one sample wants. A floor: fewer can't be told from what is known."""

    at_s: float
    replicas: int


@value
class Move:
    """The size has become another one."""

    at_s: float
    before: int
    after: int


@value
class Track:
    """What is remembered of one app. `size`: as it was last; `asked`: what was last asked for and why, while it isn't
    there. `said`: the last recommendation and its reason."""

    size: int
    at_s: float
    wants: tuple[Want, ...] = ()
    moves: tuple[Move, ...] = ()
    asked: int | None = None
    asked_s: float = 0.0
    cause: str = ""
    said: str = ""


@value
class Decision:
    """`replicas`: what the master is to bring about, in each round until it is there; None for nothing. `cause` for
    people."""

    track: Track
    replicas: int | None = None
    cause: str = ""


@value
class _Measured:
    """One measure's word. `replicas` None: nothing can be told."""

    replicas: int | None
    words: str
    floor: bool = False
    """Fewer than the size might be wrong."""


def decide(scale: Scale, sample: Sample, before: Track | None) -> Decision:
    """The next step of one app."""
    track = _taken_up(sample, before)
    base = track.asked if track.asked is not None else sample.size
    found = _measures(scale, sample, base)
    wanted = _clamped(scale, _most(found, base))
    wants = (*track.wants, Want(sample.at_s, wanted))[-WANTS_MAX:]
    steady = _steadied(scale, wants, base, sample.at_s)
    goal = _clamped(scale, _limited(_clamped(scale, steady), base, track.moves, sample.at_s))
    told = "; ".join(one.words for one in found)
    said = f"{base} replicas: {told}; {_outlook(base, wanted, goal, scale)}"
    kept = _trimmed(scale, wants, sample.at_s)
    if goal == base:
        return Decision(dataclasses.replace(track, wants=kept, said=said), track.asked, track.cause)
    moves = (*track.moves, Move(sample.at_s, base, goal))[-MOVES_MAX:]
    cause = f"{base} → {goal} replicas: {told}"
    asking = Track(sample.size, sample.at_s, kept, moves, goal, sample.at_s, cause, said)
    return Decision(asking, None if goal == sample.size else goal, cause)


def _clamped(scale: Scale, replicas: int) -> int:
    return min(scale.max, max(scale.min, replicas))


# --- since the last sample -------------------------------------------------------------------------------------


def _taken_up(sample: Sample, before: Track | None) -> Track:
    """What was remembered, as it counts now. Where there is nothing, the size that is counts as wanted: so windows
    begin now."""
    now_s, size = sample.at_s, sample.size
    if before is None or not 0.0 <= now_s - before.at_s <= GAP_S:
        return Track(size, now_s, (Want(now_s, size),))
    wants, moves, asked = before.wants, before.moves, before.asked
    ends = (before.size, before.size if asked is None else asked)
    if not min(ends) <= size <= max(ends):
        # By somebody else: that is as good as a wish of our own, and counts as one for the rates.
        moves = (*moves, Move(now_s, before.size if asked is None else asked, size))[-MOVES_MAX:]
        wants, asked = (*wants, Want(now_s, size)), None
    recent = tuple(one for one in moves if now_s - one.at_s < RATE_WINDOW_S)
    if asked in {None, size} or now_s - before.asked_s > PENDING_S:
        return Track(size, now_s, wants, recent, said=before.said)
    return Track(size, now_s, wants, recent, asked, before.asked_s, before.cause, before.said)


def _trimmed(scale: Scale, wants: Sequence[Want], now_s: float) -> tuple[Want, ...]:
    """As many as any window may look at."""
    longest_s = max(scale.up_after_s, scale.down_after_s)
    return tuple(_within(wants, now_s, longest_s, max(UP_SAMPLES, DOWN_SAMPLES)))


# --- what is measured ------------------------------------------------------------------------------------------


def _measures(scale: Scale, sample: Sample, base: int) -> list[_Measured]:
    found = []
    for name, target, values in (
        ("cpu", scale.cpu_percent, [one.cpu_percent for one in sample.readings]),
        ("memory", scale.memory_percent, [one.memory_percent for one in sample.readings]),
    ):
        if target is not None:
            found.append(_share(name, target, sample.readings, values, base=base, tolerance=scale.tolerance_percent))
    if scale.requests is not None:
        found.append(_requests(scale.requests, sample, base=base, tolerance=scale.tolerance_percent))
    if scale.command:
        words = "its command did not answer" if sample.command is None else f"its command wants {sample.command}"
        found.append(_Measured(sample.command, words, floor=sample.command is None))
    return found


def _share(
    name: str,
    target: float,
    readings: Sequence[Reading],
    values: Sequence[float | None],
    *,
    base: int,
    tolerance: float,
) -> _Measured:
    """Of CPU or memory, the mean of those that serve."""
    known = [
        share for one, share in zip(readings, values, strict=True) if one.condition == "serving" and share is not None
    ]
    absent = sum(one.condition == "absent" for one in readings)
    unknown = len(readings) - absent - len(known)
    if not known:
        return _Measured(None, f"{name} of no replica is known", floor=True)
    mean = sum(known) / len(known)
    words = f"{name} {mean:.0f} % of {len(known)}, {target:g} % aimed at"
    words += f" ({_count(absent, 'is not serving', 'are not serving')})" if absent else ""
    words += f" ({_count(unknown, 'is not known', 'are not known')})" if unknown else ""
    total, aim, slack = sum(known), target * max(base, 1), tolerance / 100
    # Whoever does not serve yet will be as busy as it should be.
    busy = total + target * max(0, base - len(known) - unknown)
    wanted = base
    if total / aim > 1 + slack:
        wanted = max(base, _ceiling(total / target))
    elif busy / aim < 1 - slack:
        wanted = min(base, _ceiling(busy / target))
    return _Measured(wanted, words, floor=unknown > 0)


def _requests(target: float, sample: Sample, *, base: int, tolerance: float) -> _Measured:
    if sample.requests_s is None:
        return _Measured(None, "how many requests there are is not known", floor=True)
    total = sample.requests_s
    words = f"{total:.3g} requests/s, {target:g} a replica aimed at"
    words += "" if sample.requests_known else " (not all gateways answered)"
    ratio = total / (target * base) if base else math.inf
    wanted = base if abs(ratio - 1) <= tolerance / 100 else _ceiling(total / target)
    return _Measured(wanted, words, floor=not sample.requests_known)


def _ceiling(number: float) -> int:
    """Of a quotient of floats: 3.0000000000000004 is 3."""
    return math.ceil(round(number, 6))


def _most(found: Iterable[_Measured], base: int) -> int:
    """The largest of what is wanted; not below the size where something can't be told."""
    numbers = []
    for one in found:
        numbers += [one.replicas] if one.replicas is not None else []
        numbers += [base] if one.floor else []
    return max(numbers, default=base)


# --- windows and rates -----------------------------------------------------------------------------------------


def _steadied(scale: Scale, wants: Sequence[Want], base: int, now_s: float) -> int:
    lowest = min(one.replicas for one in _within(wants, now_s, scale.up_after_s, UP_SAMPLES))
    highest = max(one.replicas for one in _within(wants, now_s, scale.down_after_s, DOWN_SAMPLES))
    return min(max(base, lowest), highest)


def _within(wants: Sequence[Want], now_s: float, window_s: float, at_least: int) -> Sequence[Want]:
    """Those of the window, and so many in any case. What is missing at the beginning is held by the first of them."""
    young = sum(now_s - one.at_s < window_s for one in wants)
    return wants[-max(young, at_least) :]


def _limited(goal: int, base: int, moves: Sequence[Move], now_s: float) -> int:
    """Within what one minute may change."""
    recent = [one.after - one.before for one in moves if now_s - one.at_s < RATE_WINDOW_S]
    more = base - sum(step for step in recent if step > 0)
    fewer = base - sum(step for step in recent if step < 0)
    upper = max(base, more * UP_TIMES, more + UP_AT_LEAST)
    lower = min(base, fewer - max(DOWN_AT_LEAST, math.floor(fewer * DOWN_SHARE)))
    return min(upper, max(lower, goal))


# --- words -----------------------------------------------------------------------------------------------------


def _outlook(base: int, wanted: int, goal: int, scale: Scale) -> str:
    if goal != base:
        return f"{goal} are asked for"
    if wanted == base:
        return "so it stays"
    window_s = scale.up_after_s if wanted > base else scale.down_after_s
    return f"{wanted} are wanted, and asked for when that holds for {window_s:g} s"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
