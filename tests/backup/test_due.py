"""When a copy is due, and which copies may go. Pure."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t.master.backup.due import EARLY_S, early_s, is_due, left_s
from k4t.master.backup.retention import Kept, superfluous

pytestmark = pytest.mark.unit

MINUTE = 60.0


def test_due_when_the_period_is_over_or_nothing_is_known() -> None:
    """Never copied: now. One period after the last confirmation: now. In between: not, and it says for how long."""
    assert is_due(None, MINUTE, 0.0)
    assert is_due(1000.0, 3600.0, 4600.0)
    assert not is_due(1000.0, 3600.0, 2800.0)
    assert left_s(1000.0, 3600.0, 2800.0) == 1800.0 - EARLY_S
    assert left_s(1000.0, 3600.0, 9999.0) == 0.0


def test_a_clock_that_was_set_back_makes_it_due() -> None:
    """A last time that lies ahead says nothing about how old the copy is."""
    assert is_due(1_000_000.0, 3600.0, 1_000_000.0 - 86400.0)
    assert not is_due(1_000_000.0, 3600.0, 1_000_001.0)


def test_a_missed_period_is_caught_up_once() -> None:
    """A master that slept for a day copies once when it wakes, and then every period again."""
    last_s, copied = 0.0, []
    for now_s in range(86400, 86400 + 601, 60):
        if is_due(last_s, 300.0, float(now_s)):
            last_s = float(now_s)
            copied.append(now_s - 86400)
    assert copied == [0, 300, 600]


@given(st.sampled_from([60, 120, 300, 3600]), st.randoms(use_true_random=False))
def test_calls_that_come_some_seconds_late_never_make_a_period_longer(every_s: int, chance: random.Random) -> None:
    """Called every minute, up to 4 s late each time: the age never reaches the period and more than those seconds, and
    copies are no more frequent than asked for by more than that."""
    last_s = 0.0
    for minute in range(1, 4 * every_s // 60 + 2):
        now_s = minute * MINUTE + chance.uniform(0.0, 4.0)
        assert now_s - last_s <= every_s + 4.0
        if is_due(last_s, every_s, now_s):
            assert now_s - last_s >= every_s - early_s(every_s)
            last_s = now_s


# --- retention ---------------------------------------------------------------------------------------------------


def copy(serial: int, day: int = 1, *, generation: int = 1, sequence: int = 0) -> Kept:
    order = generation, serial, sequence or serial
    return Kept("-".join(f"{number:07}" for number in order), order, f"202611{day:02}")


def left(copies: list[Kept], *, keep: int, keep_daily: int = 0, good: str = "") -> list[int]:
    gone = superfluous(copies, keep=keep, keep_daily=keep_daily, good=good)
    return [one.order[1] for one in copies if one.name not in gone]


def test_the_newest_versions_stay() -> None:
    assert left([copy(number) for number in range(1, 8)], keep=3) == [5, 6, 7]


def test_of_older_ones_one_a_day_stays() -> None:
    """The newest of each day, for as many days as are asked for, besides those that stay anyway."""
    copies = [copy(number, day=(number + 1) // 2) for number in range(1, 13)]  # two a day, six days
    assert left(copies, keep=2, keep_daily=3) == [6, 8, 10, 11, 12]
    assert left(copies, keep=2, keep_daily=30) == [2, 4, 6, 8, 10, 11, 12]


def test_a_lower_generation_goes_first_whatever_its_serial() -> None:
    assert left([copy(90, generation=1), copy(3, generation=2), copy(4, generation=2)], keep=2) == [3, 4]


orders = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 50), st.integers(1, 99), st.integers(1, 28)), max_size=60)


@given(orders, st.integers(1, 20), st.integers(0, 10), st.data())
def test_what_is_good_always_stays_and_no_more_goes_than_must(
    found: list[tuple[int, int, int, int]], keep: int, keep_daily: int, data: st.DataObject
) -> None:
    """Whatever names a hacked host invents: the copy known to be good stays; at least `keep` stay; what stays of the
    older ones is of different days; doing it twice does nothing more."""
    copies = [copy(s, d, generation=g, sequence=q) for g, s, q, d in set(found)]
    good = data.draw(st.sampled_from([one.name for one in copies] or [""]))
    gone = set(superfluous(copies, keep=keep, keep_daily=keep_daily, good=good))
    stays = [one for one in copies if one.name not in gone]
    assert good not in gone
    assert len({one.name for one in stays}) >= min(keep, len({one.name for one in copies}))
    assert len({one.name for one in stays}) <= keep + keep_daily + 1
    newest = sorted(copies, key=lambda one: (one.order, one.name), reverse=True)[:keep]
    assert not gone & {one.name for one in newest}
    assert superfluous(stays, keep=keep, keep_daily=keep_daily, good=good) == ()
