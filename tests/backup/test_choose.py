"""Which copy is put back: what was signed decides, never a name, a clock or what a target says."""

from __future__ import annotations

import pytest

from k4t.errors import Unreachable, Usage
from k4t.master.backup.choose import (
    At,
    Candidate,
    Choice,
    Live,
    Refusal,
    Shown,
    broken_chain,
    choose,
    goes_on,
    number,
    older_than_live,
    rolled_back,
)
from k4t.model.snapshot import Lineage, Manifest

pytestmark = pytest.mark.unit
FIRST = Lineage(1, "aaaa", 0, "anna@laptop", "2026-11-20T10:00:00Z")
SECOND = Lineage(2, "bbbb", 41, "bert@spare", "2026-11-20T12:00:00Z")


def manifest(serial: int, sequence: int, *, lineage: Lineage = FIRST, time: str = "", previous: str = "p") -> Manifest:
    when = time or f"2026-11-20T11:{sequence:02}:00Z"
    return Manifest("prod1", lineage.generation, lineage.id, serial, sequence, when, "t", previous, "s", 100, True)


def copy(serial: int, sequence: int, target: str = "node1", problem: str = "", lineage: Lineage = FIRST) -> Candidate:
    if problem:
        name = f"0001-{serial:06}-{sequence:07}-x.snapshot"
        return Candidate(target, name, 100, None, "", problem, (1, serial, sequence))
    return Candidate(target, f"{serial}.{sequence}", 100, manifest(serial, sequence, lineage=lineage), f"d{sequence}")


def live(serial: int, lineage: Lineage | None = FIRST) -> Live:
    return Live(3, 3, serial, lineage)


def chosen(found: Choice | Refusal) -> Candidate:
    assert isinstance(found, Choice)
    return found.candidate


def refused(found: Choice | Refusal) -> Refusal:
    assert isinstance(found, Refusal)
    return found


def test_the_newest_is_told_by_generation_serial_and_sequence() -> None:
    """In that order. A clock that was set back changes nothing."""
    copies = [copy(41, 9), copy(40, 11), copy(41, 10), copy(39, 12, lineage=SECOND)]
    assert chosen(choose(copies, live(0, None))).number == "39.12"
    assert chosen(choose(copies[:3], live(41))).number == "41.10"


def test_what_a_target_calls_its_files_counts_for_nothing() -> None:
    """An older copy under a newer name is an older copy."""
    renamed = Candidate("node1", "0009-999999-0000009-x.snapshot", 100, manifest(40, 3), "d3", "", (9, 999999, 9))
    assert chosen(choose([renamed, copy(41, 4, "node2")], live(41))).number == "41.4"
    found = refused(choose([renamed, copy(41, 4, "node2")], live(41), source="node1"))
    assert found.exit_status == 4
    assert "older than what is live: serial 41" in found.reason
    assert found.next is not None
    assert found.next.target == "node2"


def test_a_bad_copy_that_is_asked_for_is_refused_and_the_next_good_one_named() -> None:
    """On whichever target. Without a source the newest good one is taken, and the bad one mentioned."""
    copies = [copy(42, 5, problem="its signature is broken"), copy(41, 4), copy(41, 4, "node2")]
    found = refused(choose(copies, live(41), source="node1"))
    assert (found.exit_status, found.next) == (1, copies[1])
    assert "its signature is broken" in found.reason
    taken = choose(copies, live(41))
    assert chosen(taken) == copies[1]
    assert isinstance(taken, Choice)
    assert any("its signature is broken" in note for note in taken.notes)


def test_only_bad_ones() -> None:
    """Then none is named."""
    found = refused(choose([copy(42, 5, problem="no")], live(41)))
    assert found.next is None


def test_older_than_live_needs_rollback() -> None:
    """Also when its serial is asked for; and it is said then what it is."""
    copies = [copy(41, 4), copy(40, 3)]
    found = refused(choose(copies, live(42)))
    assert (found.exit_status, found.next) == (4, None)
    assert refused(choose(copies, live(41), at=At(40))).next == copies[0]
    taken = choose(copies, live(42), rollback=True)
    assert isinstance(taken, Choice)
    assert any("older than what is live: serial 42" in note for note in taken.notes)


def test_nothing_is_taken_for_known_when_no_host_answers() -> None:
    """Unknown is said to be unknown, and does not refuse."""
    taken = choose([copy(41, 4)], Live(3, 0))
    assert isinstance(taken, Choice)
    assert any("none of 3 hosts answers" in note and "unknown" in note for note in taken.notes)
    assert any("no host to ask" in note for note in chosen_notes(choose([copy(41, 4)], Live())))


def chosen_notes(found: Choice | Refusal) -> tuple[str, ...]:
    assert isinstance(found, Choice)
    return found.notes


def test_a_history_that_was_replaced_is_older_from_there_on() -> None:
    """Up to where the other one began they are one. A copy of a newer history than the hosts know is not old."""
    assert older_than_live(copy(43, 9), live(42, SECOND)).startswith("of a history that was replaced: bert@spare")
    assert older_than_live(copy(41, 8), live(41, SECOND)) == ""
    assert "serial 42" in older_than_live(copy(41, 8), live(42, SECOND))
    assert older_than_live(copy(41, 8, lineage=SECOND), live(44, FIRST)) == ""
    assert "serial 44" in older_than_live(copy(41, 8), live(44, None))


def test_a_time_means_the_last_copy_up_to_it() -> None:
    """A serial its newest copy; serial and sequence that one."""
    copies = [copy(40, 3), copy(41, 4), copy(41, 5)]
    known = live(0, None)
    assert chosen(choose(copies, known, at=At(time="2026-11-20T11:04:30Z"))).number == "41.4"
    assert chosen(choose(copies, known, at=At(41))).number == "41.5"
    assert chosen(choose(copies, known, at=At(41, 4))).number == "41.4"
    with pytest.raises(Usage, match=r"no copy of serial 7 on node1.*40.3 to 41.5"):
        choose(copies, known, source="node1", at=At(7))
    with pytest.raises(Usage, match=r"no copy on node2; the newest good one is copy 41.5"):
        choose(copies, known, source="node2")
    with pytest.raises(Unreachable, match=r"no copy of serial 7 on the targets that answer, and node2 can't be asked"):
        choose(copies, known, at=At(7), away=["node2"])


@pytest.mark.parametrize(
    ("text", "wanted"), [("41", At(41)), ("41.17", At(41, 17)), ("tree", None), ("2026-11-20", None), ("4.5.6", None)]
)
def test_numbers(text: str, wanted: At | None) -> None:
    """Serial, or serial and sequence."""
    assert number(text) == wanted


def test_a_newer_copy_elsewhere_is_mentioned() -> None:
    """A target with a longer period is asked first; the edit since then is on the other."""
    notes = chosen_notes(choose([copy(41, 4), copy(41, 5, "node2")], live(41), source="node1"))
    assert any("41.5" in note and "node2" in note and "newer" in note for note in notes)


def test_whose_history_goes_on() -> None:
    """Only the cluster's newest working copy itself is put back without a new lineage."""
    assert goes_on(FIRST, live(41))
    assert goes_on(FIRST, live(41, None))
    assert not goes_on(FIRST, live(41, SECOND))
    assert not goes_on(None, live(41))


def test_a_target_that_hides_what_it_was_given_is_rolled_back() -> None:
    """By what this machine wrote there, or by a serial that another has; a longer period alone is no reason."""
    assert rolled_back([Shown("node1", manifest(41, 9)), Shown("node2", manifest(41, 4))]) == {}
    found = rolled_back([Shown("node1", manifest(41, 9), (1, 41, 9)), Shown("node2", manifest(41, 4), (1, 41, 8))])
    assert list(found) == ["node2"]
    assert "41.8" in found["node2"]
    found = rolled_back([Shown("node1", manifest(41, 9)), Shown("node2", manifest(40, 4)), Shown("node3", None)])
    assert sorted(found) == ["node2", "node3"]


def test_a_chain_is_broken_by_a_fork_or_by_one_that_does_not_follow() -> None:
    """What was pruned is not missed."""
    first, second = manifest(1, 1, previous=""), manifest(2, 2, previous="d1")
    assert broken_chain([("d1", first), ("d2", second), ("d7", manifest(4, 7, previous="d6"))]) == []
    assert broken_chain([("d1", first), ("d1", first), ("d2", second)]) == []
    assert "does not follow" in broken_chain([("d1", first), ("x", manifest(2, 2, previous="y"))])[0]
    assert "forked" in broken_chain([("d2", second), ("e2", manifest(3, 2, previous="d1"))])[0]
