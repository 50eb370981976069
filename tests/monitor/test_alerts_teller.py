"""The monitor's loop is never held up, nothing that matters is lost, and nobody is told twice by two monitors."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from k4t.errors import K4tError
from k4t.model.monitor import Alert
from k4t.monitor.acting.action import Outcome
from k4t.monitor.alerts import box, memory
from k4t.monitor.alerts.teller import Teller
from k4t.monitor.check import Looked
from k4t.monitor.history import NONE
from k4t.monitor.judge import Finding, Judgement
from tests.monitor.alert_servers import Hook, closed_port, talker
from tests.monitor.test_alerts_step import EVERY_S, finding, outcome
from tests.monitor.world import NOW_S, facts, tree

pytestmark = pytest.mark.unit
LONG_S = 30.0
SECRET = "open-sesame-42"  # noqa: S105 - a made-up one


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "k4t" / "monitor" / "k7f3q2m9.alerts.json"


def seen(*findings: Finding, at_s: float = NOW_S, blind: frozenset[str] = frozenset()) -> Looked:
    return Looked(facts(at_s=at_s), Judgement(findings, NONE, blind), tree())


class Loop:
    """Rounds with a clock of its own."""

    def __init__(self, file: Path, *alerts: Alert, secret_of: Callable[[str], str] = lambda _: SECRET) -> None:
        self.now_s = NOW_S
        self.notes: list[str] = []
        self.teller = Teller(file, "prod", alerts, secret_of, clock=lambda: self.now_s)

    def round(self, *findings: Finding, outcomes: Sequence[Outcome] = (), later_s: float = EVERY_S) -> None:
        self.now_s += later_s
        self.notes += self.teller.round(seen(*findings, at_s=self.now_s), outcomes, self.now_s)

    def until(self, is_so: Callable[[], bool], *findings: Finding, later_s: float = 0.0) -> None:
        """Rounds until it is so."""
        deadline_s = time.monotonic() + LONG_S
        while not is_so():
            assert time.monotonic() < deadline_s, self.notes
            self.round(*findings, later_s=later_s)
            time.sleep(0.01)

    def close(self, patience_s: float = LONG_S) -> None:
        self.notes += self.teller.close(patience_s)


def at_once(address: str, **fields: object) -> Alert:
    return dataclasses.replace(Alert(webhook=address, group_s=0.0), **fields)  # type: ignore[arg-type]


def events(hook: Hook) -> list[list[str]]:
    return [[one["event"] for one in told["findings"]] for told in hook.got]


def test_an_alarm_and_its_end_are_told(file: Path) -> None:
    """With what the monitor did; the log has a line for each."""
    with Hook() as hook:
        loop = Loop(file, at_once(hook.address))
        loop.round(finding("n2"), outcomes=[outcome()])
        loop.until(lambda: len(hook.got) == 1, finding("n2"))
        loop.until(lambda: len(hook.got) == 2)
        loop.close()
    assert events(hook) == [["begun"], ["over"]]
    assert hook.got[0]["actions"][0]["verb"] == "withdraw"
    assert hook.got[1]["in_reply_to"] == [hook.got[0]["id"]]
    told = f"webhook http://127.0.0.1:{hook.port}: told: [prod] "
    assert [note for note in loop.notes if "CRITICAL" in note] == [f"{told}CRITICAL: node n2: host-off: n2 is off"]
    assert any(note.startswith(f"{told}OVER: node n2: host-off after ") for note in loop.notes)


def test_a_webhook_that_hangs_delays_nothing(file: Path) -> None:
    """Neither the loop, nor the others who are told."""
    with talker(b"") as port, Hook() as hook:
        loop = Loop(file, at_once(f"http://127.0.0.1:{port}/x"), at_once(hook.address))
        began_s = time.monotonic()
        for _ in range(20):
            loop.round(finding("n2"))
        assert time.monotonic() - began_s < LONG_S / 3
        loop.until(lambda: len(hook.got) == 1, finding("n2"))
        began_s = time.monotonic()
        loop.close(0.1)
        assert time.monotonic() - began_s < LONG_S / 3
    assert any("cut short, as the monitor ends" in note for note in loop.notes)
    assert memory.load(file)[0].desks


def test_a_secret_that_takes_long_delays_nothing(file: Path) -> None:
    """It is fetched where the message is sent."""

    def secret_of(_: str) -> str:
        time.sleep(1.5)
        return SECRET

    with Hook() as hook:
        loop = Loop(file, at_once(hook.address, secret="hook"), secret_of=secret_of)
        began_s = time.monotonic()
        loop.round(finding("n2"))
        assert time.monotonic() - began_s < 1.0
        loop.close()
        assert len(hook.got) == 1
    assert SECRET not in file.read_text()


def test_while_a_webhook_is_away_what_happens_becomes_one_message(file: Path) -> None:
    """An alarm that ended is one line; what lasts has its newest words."""
    loop = Loop(file, at_once(f"http://127.0.0.1:{closed_port()}/hook"))
    loop.until(lambda: any("try 1," in note for note in loop.notes), finding("n2"))
    loop.until(lambda: any("try 2," in note for note in loop.notes), finding("n2"), finding("n1"), later_s=1.0)
    loop.until(lambda: any("try 3," in note for note in loop.notes), finding("n1"), later_s=1.0)
    loop.close()
    ((_, desk),) = memory.load(file)[0].desks.items()
    assert desk.box.first is not None
    assert {item.name: item.event for item in desk.box.first.items} == {"n1": "begun", "n2": "passed"}
    assert desk.box.first.tries == 3
    assert desk.box.error == "can't be reached: Connection refused"


def test_what_waits_is_told_when_it_is_back(file: Path) -> None:
    """Late, and says so; the waits grow and have an end."""
    with Hook(500) as hook:
        loop = Loop(file, at_once(hook.address))
        loop.round(finding("n2"))
        loop.until(lambda: len(loop.notes) == 1, finding("n2"))
        loop.until(lambda: len(loop.notes) == 4, finding("n2"), later_s=5.0)
        assert [note.partition(" (")[2].partition(")")[0] for note in loop.notes] == [
            "try 1, again in 10 s", "try 2, again in 20 s", "try 3, again in 40 s", "try 4, again in 1 min",
        ]  # fmt: skip
        hook.status = 200
        loop.until(lambda: len(hook.got) == 1, finding("n2", "w", sentence="it is better"), later_s=5.0)
        loop.close()
    assert "Told late: since 2026-11-18T11:06:50Z it could not be delivered (4 tries)." in hook.got[0]["text"]
    assert (hook.got[0]["findings"][0]["level"], hook.got[0]["tries"]) == ("warning", 4)
    assert loop.notes[0].endswith(": answers 500 Internal Server Error: ok")


def test_a_clock_that_is_put_back_delays_no_further_try(file: Path) -> None:
    """Not by a day."""
    with Hook(500) as hook:
        loop = Loop(file, at_once(hook.address))
        loop.until(lambda: len(loop.notes) == 1, finding("n2"))
        loop.now_s -= 86400
        loop.until(lambda: len(loop.notes) == 2, finding("n2"))
        loop.close()


def test_a_monitor_that_is_started_again_goes_on(file: Path) -> None:
    """It tells what was not delivered, and nothing that was."""
    away = at_once(f"http://127.0.0.1:{closed_port()}/hook")
    with Hook() as hook:
        loop = Loop(file, at_once(hook.address, level="critical"), away)
        loop.until(lambda: bool(hook.got) and any("not told" in note for note in loop.notes), finding("n2"))
        loop.close()
        again = Loop(file, at_once(hook.address, level="critical"), away)
        again.now_s = loop.now_s
        again.until(lambda: any("try 2" in note for note in again.notes), finding("n2"), later_s=5.0)
        again.close()
    assert events(hook) == [["begun"]]


def test_from_cron_nobody_waits_for_longer_than_he_asked_for(file: Path) -> None:
    """Each check has a process of its own; the next one would come after `group`."""
    with Hook() as hook:
        for number in range(3):
            loop = Loop(file, Alert(webhook=hook.address, group_s=30.0))
            loop.now_s = NOW_S + number * 3600
            loop.round(*([finding("n2")] if number else []))
            loop.round(*([finding("n2")] if number else []), outcomes=[outcome()] * (number == 1), later_s=0.0)
            loop.close()
    assert [(len(told["findings"]), len(told["actions"])) for told in hook.got] == [(1, 0), (0, 1)]


def test_two_monitors_tell_once(file: Path) -> None:
    """Who comes second says so, once, and takes over when the first has ended."""
    with Hook() as hook:
        first, second = (Loop(file, at_once(hook.address)) for _ in range(2))
        first.round(finding("n2"))
        second.round(finding("n2"))
        second.round(finding("n2"))
        assert second.notes == ["another monitor on this machine tells the alerts of this cluster"]
        first.close()
        second.until(lambda: len(hook.got) == 2)
        second.close()
    assert events(hook) == [["begun"], ["over"]]


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"[]",
        b'{"format":2,"at":0,"alerts":{}}',
        b"null",
        b'{"format":1,"at":0,"alerts":{"x":{"state":1,"box":2}}}',
        b"\xff",
    ],
)
def test_a_damaged_file_is_as_if_there_were_none(file: Path, damaged: bytes) -> None:
    """What is open is told again, and the log says why."""
    file.parent.mkdir(parents=True)
    file.write_bytes(damaged)
    with Hook() as hook:
        loop = Loop(file, at_once(hook.address))
        loop.until(lambda: len(hook.got) == 1, finding("n2"))
        loop.close()
    assert f"{file} is damaged, or of another format: what is open is told again" in loop.notes


def test_any_byte_of_the_file_may_be_lost(file: Path) -> None:
    """It is read, or it isn't: no error comes of it."""
    loop = Loop(file, at_once(f"http://127.0.0.1:{closed_port()}/x"))
    loop.until(lambda: bool(loop.notes), finding("n2"), finding("n1", "w"))
    loop.round(finding("n1"), outcomes=[outcome("failed")])
    loop.close()
    whole = file.read_bytes()
    assert memory.load(file)[1] == ""
    assert memory.encode(memory.load(file)[0]) == json.loads(whole)
    for place in range(0, len(whole), 7):
        for changed in (whole[:place], whole[:place] + b"9" + whole[place + 1 :], whole[:place] + whole[place + 1 :]):
            file.write_bytes(changed)
            memory.load(file)


def test_on_a_disk_that_is_full_alerts_go_on(tmp_path: Path) -> None:
    """From memory; that there is no lock and no file, to read or to write, is said once."""
    (tmp_path / "k4t").write_text("no directory")
    with Hook() as hook:
        loop = Loop(tmp_path / "k4t" / "k7f3q2m9.alerts.json", at_once(hook.address))
        loop.until(lambda: len(hook.got) == 1, finding("n2"))
        loop.until(lambda: len(hook.got) == 2)
        loop.close()
    assert events(hook) == [["begun"], ["over"]]
    said = [note for note in loop.notes if "Not a directory" in note or "File exists" in note]
    assert len(said) == len(set(said)) == 3


def test_what_waits_is_bounded(file: Path) -> None:
    """Nodes that come and go for hours, and a webhook that is away: a small file, and what was dropped is counted."""
    loop = Loop(file, at_once(f"http://127.0.0.1:{closed_port()}/x"))
    for number in range(120):
        names = [finding(f"n{number}-{one}") for one in range(10)] if number % 2 else []
        loop.round(*names, outcomes=[outcome(name=f"n{number}")], later_s=300.0)
    loop.close()
    assert file.stat().st_size < 1_000_000
    ((_, desk),) = memory.load(file)[0].desks.items()
    first = desk.box.first
    assert first is not None
    assert len(first.items) <= box.MAX_ITEMS
    assert first.dropped + desk.state.dropped > 0
    assert SECRET not in file.read_text()


def test_an_alert_that_is_taken_out_is_forgotten_and_one_that_is_new_hears_what_is_open(file: Path) -> None:
    """As monitor.xml is edited while the monitor runs."""
    with Hook() as old, Hook() as new:
        loop = Loop(file, at_once(old.address))
        loop.until(lambda: len(old.got) == 1, finding("n2"))
        loop.teller.take([at_once(new.address)])
        loop.until(lambda: len(new.got) == 1, finding("n2"))
        loop.close()
        assert len(memory.load(file)[0].desks) == 1
    assert events(new) == [["begun"]]


def test_without_alerts_nothing_is_kept(file: Path) -> None:
    """No file, no lock."""
    loop = Loop(file)
    loop.round(finding("n2"))
    loop.close()
    assert not file.parent.exists()


def test_a_way_that_breaks_in_an_unforeseen_manner_is_a_failure_like_any_other(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours in one way leaves the others alone."""
    from k4t.monitor.alerts import program

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(program, "send", broken)
    with Hook() as hook:
        loop = Loop(file, Alert(command=("true",), group_s=0.0), at_once(hook.address))
        loop.until(lambda: len(loop.notes) == 2, finding("n2"))
        loop.close()
    assert any("command true: not told (try 1, again in 10 s): failed: ZeroDivisionError" in one for one in loop.notes)


def test_a_secret_that_can_not_be_had_waits_for_it(file: Path) -> None:
    """And is told when it is there."""
    there: list[str] = []

    def secret_of(name: str) -> str:
        if not there:
            raise K4tError(f"secret {name} is not set", "set it")
        return there[0]

    with Hook() as hook:
        loop = Loop(file, at_once(hook.address, secret="hook"), secret_of=secret_of)
        loop.until(lambda: len(loop.notes) == 1, finding("n2"))
        assert loop.notes[0].endswith("secret hook is not set; set it")
        there.append(SECRET)
        loop.until(lambda: len(hook.got) == 1, finding("n2"), later_s=5.0)
        loop.close()


def test_a_way_that_tells_nobody_is_told_the_others(file: Path) -> None:
    """After ten minutes; when it works again, that is told too. It is as grave as what it should have told."""
    with Hook(500) as bad, Hook() as good:
        loop = Loop(file, at_once(bad.address), at_once(good.address, level="critical"))
        loop.until(lambda: len(loop.notes) == 2, finding("n2"))
        for _ in range(25):
            loop.round(finding("n2"), later_s=30.0)
        loop.until(lambda: len(good.got) == 2, finding("n2"))
        (told,) = good.got[1]["findings"]
        assert (told["what"], told["level"]) == ("alert-undelivered", "critical")
        assert told["sentence"] == (
            f"an alert can't be told: webhook http://127.0.0.1:{bad.port}: answers 500 Internal Server Error: ok"
        )
        bad.status = 200
        loop.until(lambda: len(good.got) == 3, finding("n2"), later_s=30.0)
        loop.close()
    assert [item["event"] for item in good.got[2]["findings"]] == ["over"]
    assert all(one["what"] != "alert-undelivered" for told in bad.got for one in told["findings"])


# --- killed ----------------------------------------------------------------------------------------------------------

PROCESS = """
import sys
from pathlib import Path
from tests.monitor.test_alerts_teller import at_once, seen
from tests.monitor.test_alerts_step import finding
from tests.monitor.world import NOW_S
from k4t.monitor.alerts.teller import Teller
teller = Teller(Path(sys.argv[1]), "prod", [at_once(sys.argv[2])], lambda _: "")
teller.round(seen(finding("n2")), (), NOW_S)
teller.close(30.0)
"""


def run(file: Path, hook: Hook, failpoint: str = "") -> int:
    env = {**os.environ, "K4T_FAILPOINT": failpoint, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    argv = [sys.executable, "-c", PROCESS, str(file), hook.address]
    return subprocess.run(argv, env=env, timeout=120, check=False).returncode


@pytest.mark.crash
@pytest.mark.parametrize(("failpoint", "times"), [("alert:sending", 0), ("alert:sent", 1)])
def test_killed_before_it_is_sent_or_before_that_is_written_down_it_is_sent_again(
    file: Path, failpoint: str, times: int
) -> None:
    """At least once, with the same id, by which a receiver knows it."""
    with Hook() as hook:
        assert run(file, hook, failpoint) == -signal.SIGKILL
        assert len(hook.got) == times
        assert run(file, hook) == 0
        assert run(file, hook) == 0
    assert len(hook.got) == times + 1
    assert len({told["id"] for told in hook.got}) == 1
    assert events(hook) == [["begun"]] * (times + 1)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """What a Teller starts ends with it."""
    import threading

    before = set(threading.enumerate())
    yield
    deadline_s = time.monotonic() + LONG_S
    left = {"webhook", "command", "mail"}
    while any(one.name.partition(" ")[0] in left for one in set(threading.enumerate()) - before):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
