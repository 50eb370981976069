"""Who is the master: a working copy that was replaced may not go on by accident."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t.master.planning.lineage import fenced, newest, recorded, taken_over
from k4t.master.planning.plan import Options, UnsafeChange
from k4t.master.planning.reconcile import reconcile
from k4t.master.planning.serials import newest as newest_head
from k4t.model.snapshot import Lineage
from k4t.model.state import Head, NodeState, Observed
from tests.planning import world

pytestmark = pytest.mark.unit

FIRST = Lineage(1, "aaaa", 1, "anna@laptop", "2026-01-01T00:00:00Z")
SECOND = Lineage(2, "bbbb", 45, "ben@master2", "2026-02-01T00:00:00Z")
NEW = Lineage(9, "cccc", 46, "anna@laptop", "2026-03-01T00:00:00Z")
lineages = st.none() | st.builds(Lineage, st.integers(1, 3), st.sampled_from(("aaaa", "bbbb", "cccc")))


def test_the_one_that_was_replaced_is_told_by_whom() -> None:
    """Who took over, when, at which serial."""
    assert fenced(FIRST, SECOND) == (
        "this working copy was replaced: ben@master2 took over at 2026-02-01T00:00:00Z (serial 45)"
    )


def test_of_two_that_took_over_at_once_one_is_fenced_wherever_it_looks() -> None:
    """Each was heard by other hosts: the newest is the same in whichever order they are asked."""
    other = dataclasses.replace(SECOND, id="dddd", at="2026-02-01T00:00:05Z")
    heads = [Head("c", 45, lineage=SECOND), Head("c", 45, lineage=other), Head("c", 44, lineage=FIRST), Head("c", 1)]
    assert newest(heads) == newest(heads[::-1]) == other
    assert fenced(SECOND, other)


def test_a_clone_joins() -> None:
    """A CI checkout has no `.k4t/`: it works for whoever is the master."""
    assert fenced(None, SECOND) == ""
    assert recorded(None, SECOND, NEW) == SECOND


def test_one_that_was_restored_goes_on_where_hosts_have_not_heard_of_it() -> None:
    """And they hear of it at its next apply."""
    assert fenced(SECOND, FIRST) == fenced(SECOND, None) == ""
    assert recorded(SECOND, FIRST, NEW) == recorded(SECOND, None, NEW) == SECOND


def test_the_first_apply_begins_the_first_lineage() -> None:
    """Nobody knows of one."""
    assert recorded(None, None, NEW) == dataclasses.replace(NEW, generation=1)


def test_allow_rewind_makes_it_the_master_again() -> None:
    """Under a new lineage, so that the other one is fenced now."""
    again = recorded(FIRST, SECOND, NEW)
    assert again == dataclasses.replace(NEW, generation=3)
    assert fenced(SECOND, again)


@given(st.lists(lineages), lineages, lineages)
def test_who_takes_over_fences_all_others_and_nobody_itself(
    known: list[Lineage | None], own: Lineage | None, live: Lineage | None
) -> None:
    """Whatever was known before."""
    taken = taken_over(known, NEW)
    assert all(fenced(one, taken) for one in known if one is not None and one.id != NEW.id)
    assert all(not fenced(taken, one) for one in known)
    mine = recorded(own, live, dataclasses.replace(NEW, id="eeee"))
    assert not fenced(mine, mine)
    assert live is None or live.id == mine.id or fenced(live, mine)


def test_a_host_on_which_the_old_master_worked_last_does_not_unfence_it() -> None:
    """The head of the highest serial counts, and the lineage of the highest generation."""
    late = Head("c", 46, lineage=FIRST)
    assert newest_head([late, Head("c", 45, lineage=SECOND)]) == dataclasses.replace(late, lineage=SECOND)


def test_the_plan_of_a_replaced_copy_is_unsafe() -> None:
    """Also one with nothing to do. `--allow rewind` permits it, a command that goes back (`rollback`) does not; what is
    behind is said in one breath."""
    desired = dataclasses.replace(world.tree({"nodes": {"node1": None}, "apps": {}}), sha256="t41")
    head = dataclasses.replace(
        world.head({"serial": 45, "revisions": [{"serial": 41, "tree": "t41"}, {"serial": 45, "tree": "t45"}]}),
        lineage=SECOND,
    )
    seen = Observed({"node1": NodeState("node1", reachable=True, facts=world.SMALL, head=head)})
    plan = reconcile(desired, seen, images={}, scope=None, options=Options(lineage=FIRST))
    assert plan.unsafe == (UnsafeChange("rewind", "", f"{fenced(FIRST, SECOND)}; serial 41 is behind 45"),)
    rollback = Options(lineage=FIRST, named=frozenset({"rewind"}))
    plan = reconcile(desired, seen, images={}, scope=None, options=rollback)
    assert plan.unsafe == (UnsafeChange("rewind", "", fenced(FIRST, SECOND)),)
    allowed = Options(lineage=None, named=frozenset({"rewind"}))
    assert not reconcile(desired, seen, images={}, scope=None, options=allowed).unsafe
