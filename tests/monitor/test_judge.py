"""Nothing flaps: what is raised takes n of m checks, what is over takes m without it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k4t.errors import K4tError
from k4t.model.monitor import CHECKS_MAX, DEFAULTS, Monitor, Threshold
from k4t.monitor.facts import Subject, Ticks
from k4t.monitor.history import GAP_S, NONE, Entry, History, load, recent, save
from k4t.monitor.judge import Judgement, judge, remembered, step
from k4t.monitor.looking.gather import busy_percent
from k4t.monitor.signs.sign import Sign, Signs
from tests.monitor.world import NOW_S, facts

pytestmark = pytest.mark.unit
N1 = Subject("node", "n1")
EVERY_S = 10.0
WELL = Signs((), frozenset())
STATE = Threshold("state", None, None, 2, 3)


def sign(severity: int = 3, what: str = "host-off", subject: Subject = N1) -> Sign:
    return Sign(subject, what, severity, "it is off", "look", threshold=STATE)


def bad(severity: int = 3) -> Signs:
    return Signs((sign(severity),), frozenset())


def rounds(seen: Iterable[Signs], history: History = NONE) -> list[Judgement]:
    """One check after another, each on what the one before it left."""
    made = []
    for number, signs in enumerate(seen):
        made.append(judge(signs, history, Monitor(), NOW_S + number * EVERY_S))
        history = made[-1].history
    return made


def raised(made: Iterable[Judgement]) -> str:
    """. nothing, p pending, w raised as a warning, c as critical, u unknown."""
    words = []
    for one in made:
        (found,) = one.findings or (None,)
        words.append("." if found is None else found.level[0] if found.confirmed else "p")
    return "".join(words)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ("....", "...."),
        ("..b.", "..p."),  # once is chance
        ("..bb", "..pc"),  # within two checks
        ("..b.b", "..p.c"),  # two of three
        ("..bb...", "..pccc."),  # over after three without it
        ("..bb.b.b.b", "..pccccccc"),  # what comes and goes stays raised: it does not flap
        ("..b..b..b", "..p..p..p"),  # what is rare is never raised
        ("b", "c"),  # the first check has nothing to compare with
        ("b...", "c..."),  # and what only that one saw is over with the next
        ("b.b", "c.c"),
        ("bb..", "cccc"),
        ("..wb", "..pw"),  # both saw at least a warning
        ("..wbb", "..pwc"),
        ("..bbw.w", "..pcccw"),
    ],
)
def test_a_series_of_checks_is_told_so(seen: str, expected: str) -> None:
    """b is critical, w a warning."""
    signs = {".": WELL, "b": bad(), "w": bad(2)}
    assert raised(rounds(signs[one] for one in seen)) == expected


@given(st.lists(st.sampled_from([0, 1, 2, 3]), max_size=80), st.integers(1, 6), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_it_is_raised_by_n_of_m_and_over_after_m_without(samples: list[int], after: int, more: int) -> None:
    """Whatever comes: a level needs `after` samples of the last `of_last` at least as bad, or stands while one of them
    is; and it is 0 exactly when it was never raised, or all of the window is well."""
    threshold = Threshold("state", None, None, after, after + more)
    entry, seen = Entry(), []
    for number, severity in enumerate(samples):
        before = entry.level
        seen.append(severity)
        entry = step(entry, severity, threshold, number * 1.0, rounds=1)
        window = seen[-threshold.of_last :]
        assert len(entry.samples) <= threshold.of_last
        if entry.level > before:
            assert sum(one >= entry.level for one in window) >= after
        if entry.level < before:
            assert all(one < before for one in window)
        if not any(window):
            assert entry.level == 0
        if sum(map(bool, window)) >= after:
            assert entry.level > 0


@given(st.lists(st.booleans(), min_size=10, max_size=200))
@settings(max_examples=200, deadline=None)
def test_changes_are_never_closer_than_the_window(samples: list[bool]) -> None:
    """Between two times that it is raised there are m checks that were well: alarms can't chatter."""
    entry, ups = Entry(), []
    for number, one in enumerate(samples):
        before = entry.level
        entry = step(entry, 3 if one else 0, STATE, float(number), rounds=1)
        if entry.level and not before:
            ups.append(number)
    assert all(later - earlier >= STATE.of_last for earlier, later in pairwise(ups))


def test_what_cannot_be_known_stays_as_it_was_and_is_not_told() -> None:
    """A full disk on a node that goes off: the node is told, not the disk; back again, it is still full."""
    disk = Sign(N1, "disk", 3, "full", threshold=STATE)
    full, off = Signs((disk,), frozenset()), Signs((sign(),), frozenset({N1.key}))
    made = rounds([WELL, full, full, off, off, full])
    assert [[one.what for one in each.findings if one.confirmed] for each in made] == [
        [], [], ["disk"], [], ["host-off"], ["disk", "host-off"],
    ]  # fmt: skip
    again = next(one for one in made[-1].findings if one.what == "disk")
    assert again.since_s == NOW_S + EVERY_S


def test_since_is_when_it_was_seen_first() -> None:
    """Not when it was raised; and the number of checks that saw it is told."""
    found = rounds([WELL, bad(), bad(), bad()])[-1].findings[0]
    assert (found.since_s, found.seen, found.checks) == (NOW_S + EVERY_S, 3, 3)


def test_what_is_no_longer_seen_says_when_it_is_over() -> None:
    """Still raised, and no longer so."""
    found = rounds([WELL, bad(), bad(), WELL])[-1].findings[0]
    assert (found.confirmed, found.present) == (True, False)
    assert found.sentence == "no longer so; over after 2 more such checks (was: it is off)"


def test_the_worst_comes_first_and_pending_last() -> None:
    """In the order in which people want to know."""
    subject = Subject("app", "web")
    both = Signs((sign(2, "held", subject), sign(3)), frozenset())
    third = Signs((*both.found, sign(3, "disk")), frozenset())
    made = rounds([WELL, both, third])
    assert [one.what for one in made[-1].findings] == ["host-off", "held", "disk"]
    assert made[-1].level == "critical"
    assert rounds([WELL, bad()])[-1].level == "ok"


def test_one_of_several_of_a_name_is_the_worst() -> None:
    """Two strangers on one node are one finding."""
    found = judge(Signs((sign(2), sign(3)), frozenset()), NONE, Monitor(), NOW_S).findings
    assert [one.level for one in found] == ["critical"]


def test_checks_of_long_ago_say_nothing_about_now() -> None:
    """Nor do those that are still to come: a clock went back."""
    history = rounds([WELL, WELL])[-1].history
    assert recent(history, NOW_S + 60) == history
    assert recent(history, NOW_S + GAP_S * 2) == NONE
    assert recent(history, NOW_S - 3600) == NONE
    assert judge(bad(), history, Monitor(), NOW_S + GAP_S * 2).findings[0].confirmed


def test_a_line_in_monitor_xml_says_how_many_checks() -> None:
    """`state` is for whatever is not measured."""
    monitor = Monitor(thresholds={"state": Threshold("state", None, None, 1, 1)})
    history = judge(WELL, NONE, monitor, NOW_S).history
    once = Signs((Sign(N1, "host-off", 3, "off"),), frozenset())
    assert judge(once, history, monitor, NOW_S + 10).findings[0].confirmed
    assert judge(WELL, judge(once, history, monitor, NOW_S + 10).history, monitor, NOW_S + 20).findings == ()


def test_memory_is_bounded() -> None:
    """A thousand checks leave no more than the last sixty; what was well leaves nothing."""
    history = rounds([bad()] * 1000)[-1].history
    assert len(history.rounds) == CHECKS_MAX
    assert len(history.entries["node/n1:host-off"].samples) == STATE.of_last
    assert rounds([WELL] * 4, history)[-1].history.entries == {}


# --- the file ------------------------------------------------------------------------------------------------------


def test_the_file_keeps_it_all(tmp_path: Path) -> None:
    """What is written is what is read; only its owner may."""
    file = tmp_path / "monitor" / "c1.json"
    history = remembered(rounds([bad(), WELL])[-1].history, facts())
    save(file, history)
    assert load(file) == history
    assert file.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in file.parent.iterdir()] == ["c1.json"]


GOOD = (
    '{"format":1,"rounds":[1795000000],"entries":{"node/n1:disk":{"samples":[2],"level":2,"since":1795000000,'
    '"said":""}},"ticks":{},"firsts":{"t":1795000000}}'
)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{}", '{"format":2}', '{"format":1,"rounds":"x","entries":{},"ticks":{},"firsts":{}}',
        '{"format":1,"rounds":[],"entries":{"a":{"samples":[9],"level":0,"since":0,"said":""}},"ticks":{},"firsts":{}}',
        '{"format":1,"rounds":[],"entries":{"a":1},"ticks":{},"firsts":{}}', "[" * 100_000, "\0\xff",
        *(GOOD.replace("1795000000", wrong) for wrong in ("NaN", "Infinity", "-1", "1e300", '"x"', "null", "[]")),
        *(GOOD.replace("node/n1:disk", wrong) for wrong in ("", ":", "/:", "node/:disk", "node/n1", "node/n1:")),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_believed_is_none(tmp_path: Path, text: str) -> None:
    """Damaged, cut, of another format, of no time that there is: as if there had been no check before."""
    file = tmp_path / "c1.json"
    file.write_text(GOOD)
    assert load(file).entries["node/n1:disk"].level == 2
    file.write_text(text)
    assert load(file) == NONE
    assert load(tmp_path / "none.json") == NONE


def test_a_file_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    """The check itself is none the worse."""
    (tmp_path / "monitor").write_text("no directory")
    with pytest.raises(K4tError, match="monitor"):
        save(tmp_path / "monitor" / "c1.json", NONE)


def test_the_second_check_measures_processors_already() -> None:
    """What the first one remembers is there for it, though there was none before it to judge by."""
    first = judge(WELL, remembered(NONE, facts()), Monitor(), NOW_S).history
    assert first.ticks["node/n1"] == Ticks(1000, 900)
    assert first.rounds == (NOW_S,)


def test_processors_are_measured_between_two_checks() -> None:
    """Of the ticks that passed, those that were not idle; nothing across a restart."""
    assert busy_percent(Ticks(1000, 500), Ticks(2000, 750)) == 75.0
    assert busy_percent(None, Ticks(2000, 750)) is None
    assert busy_percent(Ticks(5000, 4000), Ticks(100, 50)) is None
    assert busy_percent(Ticks(1000, 500), Ticks(1000, 500)) is None


def test_every_measure_has_sensible_defaults() -> None:
    """A warning comes before it is critical, and n of m can be."""
    for of, one in DEFAULTS.items():
        assert 1 <= one.after <= one.of_last <= CHECKS_MAX, of
        if one.warning is not None and one.critical is not None:
            assert one.severity(one.critical) == 3
            assert one.severity(one.warning) == 2
