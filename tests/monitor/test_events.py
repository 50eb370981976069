"""What the monitor saw and did is kept, line by line, whatever happens to the file; and told among the rest."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from k4t.errors import K4tError
from k4t.monitor import eventlog
from k4t.monitor.acting.action import Action, Outcome
from k4t.monitor.aside import Aside
from k4t.monitor.check import Looked
from k4t.monitor.events import Event, changes, decode, encode, happenings, of_outcome
from k4t.monitor.facts import Failure, Subject
from tests.monitor.course import SILENT, Course, Picture, tree
from tests.monitor.world import NOW_S

pytestmark = pytest.mark.unit
N3 = Subject("node", "node3")


def event(number: int = 0, **fields: str) -> Event:
    return Event(NOW_S + number, fields.get("kind", "raised"), N3, "disk", "warning", fields.get("words", "it is full"))


def told(course: Course, picture: Picture) -> list[str]:
    """What one check more brings."""
    course.now_s += 10.0
    before = course.history
    looked = course.look(picture)
    return [f"{one.kind} {one.level} {one.what}" for one in changes(before, looked.judgement, course.now_s)]


def test_each_change_is_told_once() -> None:
    """When it is raised, gets worse or better, and is over; nothing in between, and nothing of what is only pending."""
    course = Course(tree())
    off, rest = Picture({"node3": SILENT}), Picture()
    assert [told(course, rest) for _ in range(3)] == [[], [], []]
    assert [told(course, off) for _ in range(4)] == [[], ["raised critical host-off"], [], []]
    assert [told(course, rest) for _ in range(5)] == [[], [], ["over critical host-off"], [], []]
    full = Picture({"node3": Failure("garbage", "nonsense")})
    assert [told(course, full) for _ in range(3)] == [[], ["raised critical garbage"], []]


def test_what_is_over_says_what_it_was() -> None:
    course = Course(tree())
    for _ in range(3):
        told(course, Picture({"node3": SILENT}))
    found: list[Event] = []
    while not found:
        before = course.history
        course.now_s += 10.0
        found = list(changes(before, course.look(Picture()).judgement, course.now_s))
    assert [one.kind for one in found] == ["over"]
    assert found[0].words.startswith("was: off, or cut off")


def test_what_can_not_be_known_is_not_over() -> None:
    """While a node can't be asked, it isn't known whether it still has a full disk."""
    course = Course(tree())
    full = Picture(full={"node3": 1})
    assert "raised critical docker-disk" in [one for _ in range(3) for one in told(course, full)]
    later = [one for _ in range(5) for one in told(course, Picture({"node3": SILENT}))]
    assert later == ["raised critical host-off"]


def test_an_event_is_read_as_it_was_written() -> None:
    for one in (event(), event(1, kind="over", words="was: <b>&\u202e"), of_outcome(outcome("failed", "no way"))):
        assert decode(json.loads(json.dumps(encode(one)))) == one


def outcome(result: str, words: str = "") -> Outcome:
    action = Action("node-gone", "dead", "node3", "node node3: host-off for 3 checks")
    return Outcome(action, result, NOW_S, words)  # type: ignore[arg-type]


def test_a_torn_tail_costs_itself_alone(tmp_path: Path) -> None:
    """And so does any line that is none."""
    file = tmp_path / "state" / "events.jsonl"
    eventlog.append(file, [event(1), event(2)])
    with file.open("ab") as log:
        log.write(b'{"at":"2026-11-20T20:00:00Z","ki')
    eventlog.append(file, [event(3)])
    with file.open("ab") as log:
        log.write(b'{}\n[]\nnull\n"x"\n{"at":"never","kind":"x","subject":{"kind":"node","name":"n"}}\n\xff\xfe\n')
    eventlog.append(file, [event(4)])
    assert [one.at_s - NOW_S for one in eventlog.read(file)] == [1, 2, 3, 4]
    assert file.stat().st_mode & 0o777 == 0o600


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One older file is kept beside it."""
    monkeypatch.setattr(eventlog, "MAX_BYTES", 4000)
    file = tmp_path / "c.events.jsonl"
    for number in range(200):
        eventlog.append(file, [event(number)])
    found = [one.at_s - NOW_S for one in eventlog.read(file)]
    assert found == sorted(found)
    assert found[-1] == 199
    assert 20 < len(found) < 100
    assert sorted(one.name for one in tmp_path.iterdir()) == ["c.events.1.jsonl", "c.events.jsonl"]


def test_several_append_at_once_and_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "c.events.jsonl"

    def write(number: int) -> None:
        for place in range(20):
            eventlog.append(file, [event(number * 100 + place)])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(eventlog.read(file)) == 80


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(K4tError, match="can't write"):
        eventlog.append(tmp_path / "file" / "c.events.jsonl", [event()])
    assert eventlog.read(tmp_path / "none.jsonl") == []
    eventlog.append(tmp_path / "file" / "c.events.jsonl", [])


def test_k4t_events_shows_them_among_the_rest() -> None:
    (seen, done) = happenings([event(), of_outcome(outcome("done"))])
    assert (seen.source, seen.node, seen.subject) == ("monitor", "node3", "node node3")
    assert seen.what == "raised warning disk: it is full"
    assert done.what == "done node-gone: dead node3: node node3: host-off for 3 checks"


def test_what_takes_long_is_done_beside_the_rounds() -> None:
    """One at a time; what became of it is said as long as it is a problem."""
    looked = Course(tree()).look(Picture())
    go, calls = threading.Event(), []

    def action(_: Looked) -> None:
        calls.append(1)
        go.wait(30)
        if len(calls) == 1:
            raise K4tError("Zabbix is away")

    aside = Aside(action)
    for _ in range(5):
        aside(looked)
    assert len(calls) == 1
    go.set()
    thread = aside._thread
    assert thread is not None
    thread.join()
    with pytest.raises(K4tError, match="Zabbix is away"):
        aside(looked)
    assert aside._thread is not None
    aside._thread.join()
    aside(looked)
    assert len(calls) == 3
