"""What needs an --allow, and heads and serials."""

from __future__ import annotations

import pytest

from k4t.master.planning.plan import UnsafeChange
from k4t.master.planning.safety import allowed, behind
from k4t.master.planning.serials import REVISIONS_KEPT, advance, newest, next_serial
from k4t.model.state import Head, Revision

pytestmark = pytest.mark.unit
HEAD = Head(
    "k7f3q2m9",
    serial=44,
    revisions=(
        Revision(41, "t41", {"web": "w1", "api": "a1"}),
        Revision(43, "t43", {"web": "w2"}),
        Revision(44, "", {"api": "a2"}),
    ),
)


def test_an_older_tree_is_behind() -> None:
    """A tree that was applied, and then another one."""
    assert behind("t41", {}, HEAD, None, None) == "serial 41 is behind 43"


def test_the_newest_tree_is_behind_what_was_applied_alone_after_it() -> None:
    """The whole tree is the newest, but one app was applied by another working copy since."""
    assert behind("t43", {"web": "w2", "api": "a1"}, HEAD, None, None) == "api of serial 41 is behind 44"
    assert behind("t43", {"web": "w2", "api": "a2"}, HEAD, None, None) == ""


def test_a_new_tree_is_never_behind() -> None:
    """Nor is anything, where nothing is known."""
    assert behind("new", {"web": "w3"}, HEAD, None, None) == ""
    assert behind("new", {"web": "w3"}, None, None, ["web"]) == ""


def test_a_partial_apply_looks_at_its_apps() -> None:
    """web at the state of 41 would undo 43."""
    assert behind("t41", {"web": "w1", "api": "a2"}, HEAD, 41, ["web"]) == "web of serial 41 is behind 43"
    assert behind("t41", {"web": "w1", "api": "a2"}, HEAD, 41, ["api"]) == ""


def test_going_back_on_purpose() -> None:
    """A working copy that stands at the newest serial means it."""
    assert behind("t41", {"web": "w1"}, HEAD, 44, None) == ""


def test_allow_by_kind_or_name() -> None:
    """`--allow KIND[:NAME]`."""
    change = UnsafeChange("remove-app", "web", "…")
    assert allowed(change, {"remove-app:web"})
    assert allowed(change, {"remove-app"})
    assert not allowed(change, {"remove-app:api", "rewind"})
    assert UnsafeChange("rewind", "", "…").allow == "rewind"


def test_newest_head_wins() -> None:
    """By serial, whatever the clocks say."""
    assert newest([Head("c", 3, at="2030"), Head("c", 7, at="2020"), Head("c", 5)]) == Head("c", 7, at="2020")
    assert newest([]) is None
    assert (next_serial(None), next_serial(HEAD)) == (1, 45)


def test_advance_keeps_the_last_revisions() -> None:
    """A hundred; digests of other apps stay; a partial apply leaves the tree's hash."""
    head = None
    for serial in range(1, REVISIONS_KEPT + 11):
        head = advance(
            head, cluster="c", serial=serial, tree=f"t{serial}", apps={}, digests={"web": "d"}, who="me", at=""
        )
    assert head is not None
    assert [head.revisions[0].serial, len(head.revisions)] == [11, REVISIONS_KEPT]
    partial = advance(head, cluster="c", serial=111, tree="", apps={"api": "x"}, digests={"api": "e"}, who="me", at="")
    assert partial.tree == "t110"
    assert partial.digests == {"web": "d", "api": "e"}
    assert partial.revisions[-1] == Revision(111, "", {"api": "x"}, "me")
