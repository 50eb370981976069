"""What a member that isn't in step is called: stale, a fork, blank."""

from __future__ import annotations

import dataclasses

import pytest

from k4t.master.planning.lag import ahead, lag, replaced
from k4t.model.state import ParticipantState
from k4t.registrar.document import Document, Endpoint, Epoch

pytestmark = pytest.mark.unit
FIRST = Document("k7", "prod", "gateway", "default", Epoch(1, "a"), 1, endpoints=(Endpoint("web", "10.0.0.1", 80),))
SECOND = dataclasses.replace(FIRST, epoch=Epoch(2, "b"), seq=2, parent=FIRST.sha256)
FORK = dataclasses.replace(FIRST, epoch=Epoch(1, "z"), seq=2, parent=FIRST.sha256)


def member(name: str, document: Document | None, *ancestors: Document, id: str = "id1") -> ParticipantState:
    older = tuple((one.seq, one.sha256) for one in ancestors)
    return ParticipantState(
        "gateway", name, "default", "envoy", reachable=True, document=document, ancestors=older, id=id
    )  # fmt: skip


NEWEST = member("gw1", SECOND, FIRST)


def test_in_step() -> None:
    assert lag(member("gw2", SECOND), NEWEST) == ""
    assert lag(member("gw2", FIRST), None) == ""


def test_stale() -> None:
    """What it has is what the newest follows."""
    assert lag(member("gw2", FIRST), NEWEST) == "gw2 is stale: it has 1.1, gw1 has 2.2"


def test_a_fork() -> None:
    """It published on its own, while the other did too."""
    assert lag(member("gw2", FORK), NEWEST) == ("gw2 went its own way (a fork): its 1.2 is not what gw1's 2.2 follows")


def test_too_old_to_know() -> None:
    """Older than all that the newest member saw go by: stale, not a fork."""
    late = member("gw1", dataclasses.replace(SECOND, seq=90), dataclasses.replace(SECOND, seq=80))
    assert "is stale" in lag(member("gw2", FORK), late)
    assert "is stale" in lag(member("gw2", FORK), member("gw1", SECOND))


def test_blank() -> None:
    """Told from one that was never filled by the id that the cluster knows."""
    assert lag(member("gw2", None, id="id2"), NEWEST, "id1") == (
        "gw2 is blank: it was replaced (its id is id2, it was id1)"
    )
    assert lag(member("gw2", None), NEWEST, "id1") == "gw2 holds nothing"
    assert lag(member("gw2", None), NEWEST) == "gw2 holds nothing"
    assert replaced(member("gw2", None, id=""), "id1") == ""


def test_nothing_to_hold() -> None:
    empty = dataclasses.replace(SECOND, endpoints=())
    assert lag(member("gw2", None), member("gw1", empty)) == ""


def test_the_one_ahead() -> None:
    """Not one that doesn't answer."""
    gone = dataclasses.replace(NEWEST, name="gw0", reachable=False)
    assert ahead([gone, member("gw2", FIRST), NEWEST], SECOND) is NEWEST
    assert ahead([NEWEST], None) is None
