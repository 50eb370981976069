"""What is news, and when: nothing is lost, nothing is told twice; however much happens, messages are few and short."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k4t.model.monitor import Alert
from k4t.monitor.acting.action import Action, Outcome
from k4t.monitor.alerts import box
from k4t.monitor.alerts import step as steps
from k4t.monitor.alerts.box import Box
from k4t.monitor.alerts.message import NAMED_FINDINGS, Message, Sender, as_json, subject, text
from k4t.monitor.alerts.step import MESSAGES_PER_HOUR, State, step
from k4t.monitor.facts import Subject
from k4t.monitor.judge import Finding
from tests.monitor.world import NOW_S

pytestmark = pytest.mark.unit
EVERY_S = 10.0
OPS = Alert(mail="ops@example.com")
PROD = Sender("prod", "k7f3q2m9")
LEVEL = {"w": "warning", "c": "critical", "u": "unknown", "o": "ok", "p": "critical"}
Told = list[tuple[int, Message]]


def finding(name: str, level: str = "c", since_s: float = NOW_S, **fields: object) -> Finding:
    """By its letter: w, c, u(nknown), o(k), p(ending: not yet confirmed)."""
    made = Finding(
        Subject("node", name), "host-off", LEVEL[level], level != "p", since_s, 2, 3, f"{name} is off", "look"
    )
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


def outcome(result: str = "done", verb: str = "withdraw", policy: str = "node-gone", name: str = "n2") -> Outcome:
    return Outcome(Action(policy, verb, name, f"{name}: host-off for 3 checks"), result, NOW_S, "so it is")  # type: ignore[arg-type]


def rounds(
    seen: Iterable[Sequence[Finding]],
    alert: Alert = OPS,
    *,
    done: dict[int, list[Outcome]] | None = None,
    blind: dict[int, set[str]] | None = None,
    every_s: float = EVERY_S,
    state: State | None = None,
    start: int = 0,
) -> tuple[State, Told]:
    """One check after another; what was told, by the number of the check."""
    state, told = state or State(), []
    for number, findings in enumerate(seen, start):
        state, messages = step(
            state, findings, (done or {}).get(number, ()), alert, NOW_S + number * every_s,
            blind=(blind or {}).get(number, set()), interval_s=every_s,
        )  # fmt: skip
        told += [(number, one) for one in messages]
    return state, told


def line(series: str, name: str = "n2") -> list[list[Finding]]:
    """A check a letter; . is well."""
    return [[] if one == "." else [finding(name, one)] for one in series]


def events(told: Told) -> str:
    """“3:begun 9:over”."""
    return " ".join(f"{number}:{','.join(item.event for item in one.items)}" for number, one in told)


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (".....", ""),
        ("ccccc", "3:begun"),  # 30 s for more, and no longer
        ("pppp.", ""),  # what is pending is no news
        ("oooo.", ""),  # off on purpose is no alarm
        ("uuuu.", ""),  # what isn't known isn't either
        ("wwwwww", "3:begun"),
        ("wwwwwcccc", "3:begun 5:worse"),  # at once
        ("wwcc", "3:begun"),  # worse before it was told: told as it is
        ("ccccwwwwcccc", "3:begun"),  # easing is told with the next repeat, so it is no news that it is back
        ("cccc....", "3:begun 7:over"),
        ("cccc.cccccc", "3:begun"),  # back before its end was told: it was never away
        ("cc.....", "3:passed"),  # over before it was told: told as both, at the time when it was due
        ("cc.ccc..", "3:begun"),
        ("ccccuuuu....", "3:begun 11:over"),  # unknown is not over
        ("c...c...c...", "3:passed 7:passed 11:passed"),
    ],
)
def test_a_series_of_checks_is_told_so(series: str, expected: str) -> None:
    """A check every 10 s, `group` is 30 s; w warning, c critical, u unknown, o ok, p not confirmed."""
    assert events(rounds(line(series))[1]) == expected


def test_what_can_not_be_looked_at_is_not_over() -> None:
    """A disk that was full, on a host that is off now."""
    disk = finding("n2", "w", what="disk")
    off = finding("n2")
    seen = [[disk]] * 4 + [[off]] * 5 + [[]] * 4
    blind = {number: {"node/n2"} for number in range(4, 9)}
    told = rounds(seen, blind=blind)[1]
    assert [(number, [item.key for item in one.items]) for number, one in told] == [
        (3, ["node/n2:disk"]),
        (7, ["node/n2:host-off"]),
        (12, ["node/n2:host-off", "node/n2:disk"]),
    ]
    assert {item.event for item in told[-1][1].items} == {"over"}


def test_what_happens_together_is_one_message() -> None:
    """Within `group`; what is worst comes first."""
    seen = [[finding("n1", "w")], [finding("n1", "w"), finding("n2")], [finding("n1", "w"), finding("n2")]] + [
        [finding("n1", "w"), finding("n2")]
    ] * 4
    ((number, message),) = rounds(seen)[1]
    assert number == 3
    assert [(item.name, item.level) for item in message.items] == [("n2", "critical"), ("n1", "warning")]
    assert (message.critical, message.warning, message.level) == (1, 1, "critical")


def test_a_group_that_ends_before_the_next_check_is_told_now() -> None:
    """From cron every minute `group` of 30 s would be a minute: nobody waits longer than he asked for."""
    assert events(rounds(line("cc"), every_s=60.0)[1]) == "0:begun"
    assert events(rounds(line("cccccc"), dataclasses.replace(OPS, group_s=180.0), every_s=60.0)[1]) == "3:begun"


def test_while_it_lasts_it_is_told_again() -> None:
    """Every `repeat`, all that is open in one, and its level is then the present one."""
    alert = dataclasses.replace(OPS, repeat_s=100.0)
    seen = [[finding("n1")]] * 5 + [[finding("n1", "w"), finding("n2")]] * 14 + [[finding("n1"), finding("n2")]]
    told = rounds(seen, alert)[1]
    assert events(told) == "3:begun 8:begun 13:still,still 19:worse"
    assert [(item.name, item.level) for item in told[2][1].items] == [("n2", "critical"), ("n1", "warning")]


def test_an_alert_for_what_is_critical_hears_of_nothing_else() -> None:
    """And what is only a warning any more is over for it."""
    alert = dataclasses.replace(OPS, level="critical")
    told = rounds(line("wwwwwcccccwwwww"), alert)[1]
    assert events(told) == "8:begun 13:over"
    assert told[1][1].items[0].sentence == "now warning: n2 is off"
    assert told[1][1].level == "ok"


def test_without_all_clear_the_end_is_not_told() -> None:
    """But what nobody heard of is told as both."""
    alert = dataclasses.replace(OPS, all_clear=False)
    assert events(rounds(line("ccccc....."), alert)[1]) == "3:begun"
    assert events(rounds(line("cc......."), alert)[1]) == "3:passed"


def test_what_the_monitor_did_is_told_with_it() -> None:
    """In the same message, with its cause."""
    ((_, message),) = rounds(line("cccc"), done={1: [outcome()], 2: [outcome("queued", "dead")]})[1]
    assert [one.action.words for one in message.outcomes] == ["withdraw n2", "dead n2"]
    said = text(message, PROD)
    assert "  done: withdraw n2 (node-gone): so it is\n    because n2: host-off for 3 checks\n" in said


def test_a_refusal_that_repeats_itself_is_told_once() -> None:
    """In `repeat`; two successes are two."""
    done = {number: [outcome("refused", "dead"), outcome("done", "restart", "app-unhealthy")] for number in range(4)}
    told = rounds(line("....."), done=done)[1]
    assert [one.result for _, message in told for one in message.outcomes] == ["refused", *["done"] * 4]


def test_scaling_that_succeeds_is_no_news() -> None:
    """It is everyday business; that it could not be done is."""
    assert rounds(line("....."), done={0: [outcome("done", "scale", "scale", "web")]})[1] == []
    ((_, message),) = rounds(line("....."), done={0: [outcome("failed", "scale", "scale", "web")]})[1]
    assert subject(message, PROD) == "[prod] failed: scale web 0 (scale)"


def test_who_wants_to_hear_of_what_is_critical_hears_what_was_done_about_it() -> None:
    """A node that was given up, not a replica that was restarted."""
    done = {0: [outcome(), outcome("done", "restart", "app-unhealthy")]}
    ((_, message),) = rounds(line("....."), dataclasses.replace(OPS, level="critical"), done=done)[1]
    assert [one.action.verb for one in message.outcomes] == ["withdraw"]


def test_a_cluster_that_falls_over_is_one_short_message() -> None:
    """Some are named, the rest is counted; what are too many to follow are counted too."""
    many = [finding(f"n{number}") for number in range(400)]
    state, told = rounds([many] * 6)
    ((_, message),) = told
    told_json = as_json(message, PROD)
    assert len(told_json["findings"]) == NAMED_FINDINGS
    assert told_json["more"]["findings"] == 400 - NAMED_FINDINGS
    assert subject(message, PROD) == "[prod] CRITICAL: node n0: host-off and 299 more"
    assert len(text(message, PROD).splitlines()) < 60
    assert len(state.open) == steps.MAX_OPEN
    _, later = rounds([[*many[300:]]] * 6, state=state)
    assert sorted(item.event for _, one in later for item in one.items) == ["begun"] * 100 + ["over"] * 300


def test_so_many_messages_an_hour_and_the_rest_is_in_the_next() -> None:
    """A node that comes and goes all the time; one that is critical has room left."""
    alert = dataclasses.replace(OPS, group_s=0.0)
    flapping = [[finding("n1", "w")] if number % 2 else [] for number in range(201)]
    state, told = rounds(flapping, alert)
    assert len(told) == MESSAGES_PER_HOUR - steps.KEPT_FOR_CRITICAL
    state, told = rounds([[finding("n2")]], alert, state=state, start=201)
    assert [item.event for item in told[0][1].items if item.name == "n2"] == ["begun"]
    assert told[0][1].held


def test_a_clock_that_is_put_back_makes_nobody_wait() -> None:
    """Not longer than `group` and `repeat` from now on."""
    alert = dataclasses.replace(OPS, repeat_s=60.0)
    state, _ = rounds(line("ccccc"), alert)
    told = []
    for number in range(20):
        state, messages = step(state, [finding("n2")], (), alert, NOW_S - 86400 + number * EVERY_S)
        told += [item.event for one in messages for item in one.items]
    assert told == ["still"] * 3


def test_words_of_hosts_are_one_line_that_can_be_shown() -> None:
    """Whatever a host, or a container's name, has put into them."""
    bad = finding("n2", sentence="a\nb\x1b[31m\u202ec\ud800" + "x" * 5000, remedy="\r\nBcc: x")
    ((_, message),) = rounds([[bad]] * 4)[1]
    item = message.items[0]
    assert item.sentence.startswith("a b [31m c x")
    assert len(item.sentence) == 300
    assert item.remedy == "Bcc: x"
    assert "\n" not in subject(message, PROD)
    text(message, PROD).encode()


def test_what_came_back_before_its_end_was_delivered_was_never_away() -> None:
    """Who heard of the beginning alone hears that it lasts, or that it is worse."""
    (_, over), (_, begun) = rounds(line("wwww....ccccc"))[1][1:]
    assert [item.event for item in box.merged(over, begun).items] == ["worse"]
    (_, over), (_, begun) = rounds(line("cccc....wwwww"))[1][1:]
    assert [item.event for item in box.merged(over, begun).items] == ["still"]


# --- properties ------------------------------------------------------------------------------------------------------

NAMES = ("n1", "n2", "n3")
LETTERS = st.text(alphabet=".wcuop", min_size=1, max_size=40)
ALERTS = st.builds(
    Alert,
    mail=st.just("x@y"),
    level=st.sampled_from(["warning", "critical"]),
    group_s=st.sampled_from([0.0, 10.0, 30.0, 200.0]),
    repeat_s=st.sampled_from([30.0, 100.0, 14400.0]),
    all_clear=st.booleans(),
)


class Reader:
    """What somebody who reads every message holds to be the case; it counts what would puzzle him."""

    def __init__(self) -> None:
        self.open: dict[str, str] = {}
        self.puzzles: list[str] = []

    def reads(self, message: Message, *, all_clear: bool) -> None:
        for item in message.items:
            known = item.key in self.open
            good = {
                "begun": not known or not all_clear,
                "worse": known,
                "still": known,
                "over": known,
                "passed": not known or not all_clear,
            }
            if not good[item.event]:
                self.puzzles.append(f"{item.key} {item.event}, {'' if known else 'un'}known")
            if item.event in ("over", "passed"):
                self.open.pop(item.key, None)
            else:
                self.open[item.key] = item.level


def checks(series: Sequence[str]) -> list[list[Finding]]:
    longest = max(map(len, series))
    return [
        [
            finding(name, one[number])
            for name, one in zip(NAMES, series, strict=False)
            if one[number : number + 1].strip(".")
        ]
        for number in range(longest)
    ]


@settings(deadline=None, max_examples=60)
@given(st.lists(LETTERS, min_size=1, max_size=3), ALERTS)
def test_nothing_is_lost_and_nothing_is_told_twice(series: list[str], alert: Alert) -> None:
    """Whatever is seen: who reads the messages knows in the end what is open, was told of each beginning once before
    its end, and of each end once."""
    seen = checks(series)
    quiet = [[one for one in seen[-1] if one.level != "unknown" and one.confirmed]] * 500
    state, told = rounds([*seen, *quiet], alert)
    reader = Reader()
    for _, message in told:
        reader.reads(message, all_clear=alert.all_clear)
    assert reader.puzzles == []
    wanted = {"warning": ("warning", "critical"), "critical": ("critical",)}[alert.level]
    last = {one.key for one in quiet[0] if one.level in wanted}
    if alert.all_clear:
        assert set(reader.open) == last
    assert last <= set(reader.open)
    assert not state.ended
    assert not state.outcomes


@settings(deadline=None, max_examples=60)
@given(st.lists(LETTERS, min_size=1, max_size=3), ALERTS)
def test_messages_are_bounded(series: list[str], alert: Alert) -> None:
    """In any hour; and none is empty."""
    told = rounds(checks(series) * 10, alert)[1]
    for first, _ in told:
        assert sum(first <= number < first + 360 for number, _ in told) <= MESSAGES_PER_HOUR
    assert all(one.items or one.outcomes for _, one in told)
    assert len({one.id for _, one in told}) == len(told)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(LETTERS, min_size=1, max_size=3),
    ALERTS,
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=30),
)
def test_a_way_that_fails_at_times_loses_nothing_and_tells_nothing_twice(
    series: list[str], alert: Alert, tries: list[tuple[bool, int]]
) -> None:
    """Each try works or not, and takes some checks; what could not be delivered and what came since are one message:
    the same reader knows the same in the end, and hears of every deed once."""
    seen = checks(series)
    quiet = [[one for one in seen[-1] if one.level != "unknown" and one.confirmed]] * 600
    coming, reader, deeds = iter(tries), Reader(), []
    kept, state = Box(), State()
    under_way: tuple[Message, bool, int] | None = None
    for number, findings in enumerate([*seen, *quiet]):
        now_s = NOW_S + number * EVERY_S
        if under_way is not None and number >= under_way[2]:
            message, works, _ = under_way
            under_way = None
            if works:
                reader.reads(message, all_clear=alert.all_clear)
                deeds += [one.action.name for one in message.outcomes]
            kept = box.delivered(kept, now_s) if works else box.failed(kept, "away", now_s)
        done = [outcome(name=f"m{number}")] if number < 20 else []
        state, messages = step(state, findings, done, alert, now_s, interval_s=EVERY_S)
        for message in messages:
            kept = box.put(kept, message, now_s, under_way=under_way is not None)
        if kept.first is not None and under_way is None and now_s >= kept.next_s:
            works, takes = next(coming, (True, 0))
            under_way = box.fresh(kept.first, state, now_s), works, number + takes
    assert kept.first is None
    assert reader.puzzles == []
    assert deeds == [f"m{number}" for number in range(min(20, len(seen) + len(quiet)))]
    wanted = {"warning": ("warning", "critical"), "critical": ("critical",)}[alert.level]
    last = {one.key for one in quiet[0] if one.level in wanted}
    if alert.all_clear:
        assert set(reader.open) == last
    assert last <= set(reader.open)
