"""The master's state machine against participants in memory: what is asked, written and told, step by step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest

from k4t.master.publication import coordinator
from k4t.master.publication.transaction import (
    Answer,
    Append,
    Ask,
    Done,
    Event,
    Go,
    Logged,
    Open,
    Publish,
    Said,
    State,
    Verb,
    issue,
    lagging,
    start,
)
from k4t.registrar import errors, protocol
from k4t.registrar.document import Epoch
from k4t.registrar.protocol import Kept, Stamp

pytestmark = pytest.mark.unit
Fault = Callable[[str, Verb], Said | None]


def fine(_member: str, _verb: Verb) -> Said | None:
    return None


@dataclass
class World:
    """Members in memory, a log in memory. `fault` may answer in a member's place; `before` may change the world."""

    kept: dict[str, Kept] = field(default_factory=dict)
    log: list[Append] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    broken: frozenset[str] = frozenset()
    fault: Fault = fine
    stop_before: str = ""

    def perform(self, state: State, event: Event) -> tuple[State, Done | None]:
        """Until the machine is done, or its master dies before the action `stop_before`."""
        state, waiting = coordinator.advance(state, event)
        queue = list(waiting)
        while queue:
            action = queue.pop(0)
            if isinstance(action, Done):
                assert not queue
                return state, action
            name = action.record if isinstance(action, Append) else f"{action.verb} {action.member}"
            if name == self.stop_before:
                return state, None
            state, more = coordinator.advance(state, self._do(action))
            queue += more
        raise AssertionError(f"nothing more to do in phase {state.phase}")

    def _do(self, action: Ask | Append) -> Event:
        if isinstance(action, Append):
            self.asked.append(action.record)
            if action.record in self.broken:
                return Logged(ok=False)
            self.log.append(action)
            return Logged()
        self.asked.append(f"{action.verb} {action.member}")
        said = self.fault(action.member, action.verb)
        if said is None:
            said = self._tell(action)
        return Answer(action.member, action.verb, said, self.kept[action.member])

    def _tell(self, ask: Ask) -> Said:
        kept = self.kept[ask.member]
        try:
            if ask.verb == "fence":
                kept = protocol.fence(kept, ask.epoch)
            elif ask.stamp is not None:
                kept = self._hand_over(kept, ask.verb, ask.stamp)
        except errors.Overtaken:
            return "overtaken"
        except errors.NotPrepared:
            return "lost"
        self.kept[ask.member] = kept
        return "yes"

    def _hand_over(self, kept: Kept, verb: Verb, stamp: Stamp) -> Kept:
        if verb == "prepare":
            return protocol.prepare(kept, stamp, kept.live.sha256 if kept.live else "")
        if verb == "commit":
            return protocol.commit(kept, stamp.transaction, stamp.epoch)
        return protocol.abort(kept, stamp.transaction) if verb == "abort" else kept

    def open(self) -> Open | None:
        """What the log says of the last transaction."""
        if not self.log or self.log[-1].record == "end":
            return None
        last = self.log[-1]
        return Open(last.stamp, last.members, last.record == "commit")

    def live(self) -> list[str]:
        return [kept.live.sha256 if kept.live else "" for kept in self.kept.values()]


def world(names: Iterable[str] = ("gw1", "gw2"), **more: object) -> World:
    return World({name: Kept() for name in names}, **more)  # type: ignore[arg-type]


def ready(world: World, run: str = "r1", *, degraded: bool = False) -> State:
    highest = max((one.stamp.epoch.number for one in world.log), default=0)
    state, done = world.perform(begun(world, run, highest), Go(degraded=degraded))
    assert done == Done("ready"), done
    return state


def begun(world: World, run: str = "r2", highest: int = 0) -> State:
    return start("gateway", "default", run, world.kept, log=(highest, world.open()))


def wanted(state: State, sha256: str, *, degraded: bool = False) -> Publish:
    return Publish(dataclasses.replace(issue(state), sha256=sha256), degraded)


def publish(world: World, sha256: str, run: str = "r1", *, degraded: bool = False) -> tuple[State, Done | None]:
    state = ready(world, run, degraded=degraded)
    world.asked.clear()
    return world.perform(state, wanted(state, sha256, degraded=degraded))


def saying(said: Said, *names: str) -> Fault:
    """`names`: “prepare gw2” …"""
    return lambda member, verb: said if f"{verb} {member}" in names else None


def test_the_order_of_things() -> None:
    """BEGIN, prepare on all, COMMIT, commit on all, read back on all, END."""
    here = world()
    state, done = publish(here, "a")
    assert done is not None
    assert (done.result, done.holders, done.owed) == ("published", ("gw1", "gw2"), ())
    assert " ".join(here.asked) == (
        "begin prepare gw1 prepare gw2 commit commit gw1 commit gw2 verify gw1 verify gw2 end"
    )
    assert state.phase == "ready"
    assert here.live() == ["a", "a"]


def test_each_follows_the_one_before() -> None:
    """A second publication of a run has the next seq, and the first as its parent."""
    here = world()
    state, _ = publish(here, "a")
    here.perform(state, wanted(state, "b"))
    live = here.kept["gw1"].live
    assert live is not None
    assert (live.seq, live.parent, live.ancestors) == (2, "a", ((1, "a"),))


@pytest.mark.parametrize("said", ["refused", "away", "overtaken"])
def test_not_prepared_by_all_is_aborted_on_all(said: Said) -> None:
    """Also on who doesn't answer: it may have staged it."""
    here = world(fault=saying(said, "prepare gw2"))
    _, done = publish(here, "a")
    assert done is not None
    assert done.result == said
    assert here.asked[-3:] == ["abort gw1", "abort gw2", "end"]
    assert here.log[-1].closed == "aborted"
    assert here.live() == ["", ""]
    assert all(kept.staged is None for kept in here.kept.values())


def test_degraded_goes_on_without_who_is_away_at_prepare() -> None:
    """It is owed the document, and the log says so."""
    here = world(fault=saying("away", "prepare gw2"))
    _, done = publish(here, "a", degraded=True)
    assert done is not None
    assert (done.result, done.holders, done.owed) == ("published", ("gw1",), ("gw2",))
    assert (here.log[-1].closed, here.log[-1].owed) == ("done", ("gw2",))


@pytest.mark.parametrize("verb", ["observe", "fence"])
def test_away_before_anything_starts(verb: str) -> None:
    """refuse: nothing was written or changed. The next try in this run asks again."""
    here = world(fault=saying("away", f"{verb} gw2"))
    state, done = here.perform(begun(here), Go())
    assert done == Done("away")
    assert here.log == []
    here.fault = fine
    assert here.perform(state, Go())[1] == Done("ready")


def test_nobody_there() -> None:
    """Not even a degraded publication goes to nobody."""
    here = world(fault=saying("away", "observe gw1", "observe gw2"))
    assert here.perform(begun(here), Go(degraded=True))[1] == Done("away")


def test_a_new_seq_after_an_abort() -> None:
    """No two documents ever have one transaction id: an old message can't be taken for a new one."""
    here = world(fault=saying("refused", "prepare gw2"))
    state, _ = publish(here, "a")
    here.fault = fine
    _, done = here.perform(state, wanted(state, "b"))
    assert done is not None
    assert done.stamp is not None
    assert done.stamp.seq == 2


def test_overtaken_at_the_fence_ends_the_run() -> None:
    """Whatever is asked of it afterwards, nothing is sent."""
    here = world(fault=saying("overtaken", "fence gw2"))
    state, done = here.perform(begun(here), Go())
    assert done == Done("overtaken")
    here.asked.clear()
    assert here.perform(state, Go())[1] == Done("overtaken")
    assert here.asked == []


def test_begin_not_written() -> None:
    """Nothing is sent, now or later in this run."""
    here = world(broken=frozenset({"begin"}))
    state, done = publish(here, "a")
    assert done is not None
    assert done.result == "log-failed"
    assert here.asked == ["begin"]
    assert state.phase == "over"


def test_commit_not_written() -> None:
    """Aborted everywhere; nothing is tried again."""
    here = world(broken=frozenset({"commit"}))
    state, done = publish(here, "a")
    assert done is not None
    assert done.result == "log-failed"
    assert here.asked[-2:] == ["abort gw1", "abort gw2"]
    assert here.live() == ["", ""]
    assert state.phase == "over"


def test_end_not_written() -> None:
    """What is published is published; this run publishes no more; the next one rolls it forward once more."""
    here = world(broken=frozenset({"end"}))
    state, done = publish(here, "a")
    assert done is not None
    assert done.result == "published"
    assert state.phase == "over"
    here.broken = frozenset()
    ready(here, "r2")
    assert here.log[-1].closed == "done"


def test_a_commit_in_doubt_is_said_again() -> None:
    """Once; then the member is owed it."""
    lost: list[Said] = ["away"]
    here = world(fault=lambda member, verb: lost.pop() if (member, verb) == ("gw2", "commit") and lost else None)
    _, done = publish(here, "a")
    assert done is not None
    assert done.owed == ()
    assert here.asked.count("commit gw2") == 2


def test_gone_at_commit_is_owed() -> None:
    """And asked again before the next publication, which brings it on."""
    here = world(fault=saying("away", "commit gw2"))
    state, done = publish(here, "a")
    assert done is not None
    assert (done.result, done.owed) == ("published", ("gw2",))
    assert state.phase == "new"
    here.fault = fine
    state, _ = here.perform(state, Go())
    assert lagging(state) == ("gw2",)
    here.perform(state, wanted(state, "b"))
    assert here.live() == ["b", "b"]


def test_nobody_could_be_told() -> None:
    """Decided stays open: the next run rolls it forward."""
    here = world(fault=saying("away", "commit gw1", "commit gw2"))
    state, done = publish(here, "a")
    assert done is not None
    assert (done.result, state.phase) == ("away", "over")
    assert here.open() is not None
    here.fault = fine
    ready(here, "r2")
    assert here.live() == ["a", "a"]
    assert here.log[-1].closed == "done"


def test_lost_at_commit_by_one() -> None:
    """A blank took its place: it is owed the document, and asked what it holds before the next one."""
    here = world(fault=saying("lost", "commit gw2"))
    state, done = publish(here, "a")
    assert done is not None
    assert (done.result, done.owed, state.phase) == ("published", ("gw2",), "new")


def test_lost_at_commit_by_all() -> None:
    """Then it never was: not published, and closed."""
    here = world(fault=saying("lost", "commit gw1", "commit gw2"))
    state, done = publish(here, "a")
    assert done is not None
    assert (done.result, done.holders, state.phase) == ("refused", (), "new")
    assert here.log[-1].closed == "superseded"


def test_overtaken_at_commit() -> None:
    """Closed as superseded; the run publishes no more."""
    here = world(fault=saying("overtaken", "commit gw2"))
    state, done = publish(here, "a")
    assert done is not None
    assert (done.result, state.phase) == ("overtaken", "over")
    assert here.log[-1].closed == "superseded"


def test_not_degraded_and_not_all_there() -> None:
    """A run may fence without one, for what takes out dead endpoints; anything else is not begun then."""
    here = world(fault=saying("away", "observe gw2"))
    state = ready(here, degraded=True)
    assert here.perform(state, wanted(state, "a")) == (state, Done("away"))
    assert here.log == []


def test_accepted_not_rendered() -> None:
    """It holds the document; its vendor doesn't take it."""
    here = world()
    state = ready(here)

    def fault(member: str, verb: Verb) -> Said | None:
        if (member, verb) == ("gw2", "commit"):
            stamp = dataclasses.replace(issue(state), sha256="a")
            here.kept[member] = protocol.commit(here.kept[member], stamp.transaction, stamp.epoch)
            return "unrendered"
        return None

    here.fault = fault
    _, done = here.perform(state, wanted(state, "a"))
    assert done is not None
    assert (done.result, done.unrendered) == ("published", ("gw2",))
    assert here.live() == ["a", "a"]


STEPS = ["begin", "prepare gw1", "prepare gw2", "commit", "commit gw1", "commit gw2", "verify gw1", "verify gw2", "end"]


@pytest.mark.parametrize("place", STEPS)
def test_killed_and_continued_with_the_log(place: str) -> None:
    """Before COMMIT: aborted. From there on: rolled forward, with the epoch it had."""
    here = world()
    publish(here, "a")
    state = ready(here, "r2")
    here.stop_before = place
    assert here.perform(state, wanted(state, "b"))[1] is None
    here.stop_before = ""
    decided = STEPS.index(place) > STEPS.index("commit")
    state = ready(here, "r3")
    assert here.live() == (["b", "b"] if decided else ["a", "a"])
    assert here.open() is None
    assert state.epoch == Epoch(3, "r3")
    assert all(kept.staged is None for kept in here.kept.values())


@pytest.mark.parametrize("place", STEPS)
def test_killed_and_continued_without_the_log(place: str) -> None:
    """Fence, read, go on: the next publication makes them equal, and nothing of the old run can go live any more."""
    here = world()
    state = ready(here)
    here.stop_before = place
    here.perform(state, wanted(state, "a"))
    here.stop_before, here.log = "", []
    _, done = publish(here, "b", "r2")
    assert done is not None
    assert done.result == "published"
    assert here.live() == ["b", "b"]


def test_rolled_forward_and_overtaken() -> None:
    """Another run has fenced since: closed as superseded, and this run goes on above it."""
    here = world()
    state = ready(here)
    here.stop_before = "commit gw2"
    here.perform(state, wanted(state, "a"))
    here.stop_before = ""
    here.kept = {name: protocol.fence(kept, Epoch(5, "other")) for name, kept in here.kept.items()}
    state = ready(here, "r2")
    assert here.log[-1].closed == "superseded"
    assert here.live() == ["a", ""]
    assert state.epoch == Epoch(6, "r2")


def test_recovery_with_a_member_away() -> None:
    """Who answers is told; who doesn't is owed it; `refuse` publishes nothing more."""
    here = world()
    state = ready(here)
    here.stop_before = "commit gw1"
    here.perform(state, wanted(state, "a"))
    here.stop_before, here.fault = "", saying("away", "observe gw2")
    state, done = here.perform(begun(here), Go())
    assert done == Done("away")
    assert (here.log[-1].closed, here.log[-1].owed) == ("done", ("gw2",))
    assert here.live() == ["a", ""]


def test_recovery_alone() -> None:
    """`txn resume` closes what is open and fences nobody. Twice is once."""
    here = world()
    state = ready(here)
    here.stop_before = "commit gw2"
    here.perform(state, wanted(state, "a"))
    here.stop_before = ""
    here.asked.clear()
    assert here.perform(begun(here), Go(only_recover=True))[1] == Done("recovered")
    assert here.live() == ["a", "a"]
    before = list(here.log)
    assert here.perform(begun(here), Go(only_recover=True))[1] == Done("recovered")
    assert here.log == before
    assert not any(asked.startswith("fence") for asked in here.asked)


def test_a_late_answer_changes_nothing() -> None:
    """Nor one that was never asked for."""
    here = world()
    state = ready(here)
    assert coordinator.advance(state, Answer("gw1", "prepare", "yes")) == (state, ())
    state, _ = coordinator.advance(state, wanted(state, "a"))
    state, _ = coordinator.advance(state, Logged())
    assert coordinator.advance(state, Answer("gw9", "prepare", "yes")) == (state, ())
    assert coordinator.advance(state, Answer("gw1", "commit", "yes")) == (state, ())


def test_out_of_place() -> None:
    """An event that the machine didn't ask for is a defect of its driver."""
    state = ready(world())
    for event in (Go(), Logged(), Publish(Stamp("t", Epoch(9, "r"), 1, "a"))):
        with pytest.raises(ValueError, match=r"phase ready|is not"):
            coordinator.advance(state, event)


def test_the_epoch_is_above_what_the_log_knows() -> None:
    """Also when every member is blank."""
    here = world()
    state, _ = here.perform(start("gateway", "default", "r", ("gw1", "gw2"), log=(41, None)), Go())
    assert state.epoch == Epoch(42, "r")
