"""The master's side of the commit protocol for one group and one run, as a state machine. Pure: what happens comes in
as events, what is to be done comes out as actions; `twophase` does it, the explorer in the tests tries every order.

    new ──Go──▶ observing ──▶ fencing ──▶ ready ──Publish──▶ beginning ──▶ preparing ──▶ deciding ──▶ committing
                    │                       ▲                                  │             │             │
                    │ our log has           │                                  ▼             ▼             ▼
                    │ COMMIT, no END        └───────────────── ending ◀──── aborting ◀───────┘         verifying
                    ├──▶ committing                              ▲                                         │
                    │ BEGIN, no COMMIT                           └─────────────────────────────────────────┘
                    └──▶ aborting                      over: overtaken, or the log failed: nothing more in this run

- beginning: BEGIN is being written. deciding: COMMIT is; once it stands, the transaction is never aborted.
- Whoever doesn't answer, or whose answer is lost, is `away`. At fence and prepare that ends the publication, unless it
  is degraded: then the others go on without it. At commit it is asked once more, then it is *owed* the document.
- Recovery (an open transaction in our own log) comes before this run's fence, since a fence voids what is staged: a
  decided one is rolled forward with its own epoch, unless a newer epoch was seen anywhere: then it is closed as
  superseded. It stays open while nobody it is for can be told. An undecided one is aborted. A log that isn't ours isn't
  given to us: fence, read, derive anew.
- An answer that isn't waited for changes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from k4t.master.publication.transaction import (
    Answer,
    Append,
    Ask,
    Closed,
    Done,
    Event,
    Failing,
    Go,
    Logged,
    Member,
    Open,
    Phase,
    Publish,
    Result,
    State,
    Step,
    Verb,
    issue,
)
from k4t.registrar.document import Epoch
from k4t.registrar.protocol import NO_EPOCH, Stamp

COMMIT_TRIES = 2
ASKS: Mapping[Phase, Verb] = {
    "observing": "observe",
    "fencing": "fence",
    "preparing": "prepare",
    "committing": "commit",
    "aborting": "abort",
    "verifying": "verify",
}


def advance(state: State, event: Event) -> Step:
    """What `event` makes of `state`, and what is to be done then. Raises ValueError for an event out of place."""
    if isinstance(event, Answer):
        return _answered(state, event)
    if isinstance(event, Logged):
        return _logged(state, ok=event.ok)
    if state.phase == "over":
        return state, (Done(state.failing or "overtaken"),)
    if isinstance(event, Go):
        if state.phase != "new":
            raise ValueError(f"Go in phase {state.phase}")
        begun = dataclasses.replace(state, degraded=event.degraded, only_recover=event.only_recover)
        return _ask(begun, "observing", _names(begun))
    return _publish(state, event)


def _publish(state: State, event: Publish) -> Step:
    wanted = issue(state)
    if state.phase != "ready" or dataclasses.replace(event.stamp, sha256="") != wanted:
        raise ValueError(f"in phase {state.phase}: {event.stamp} is not {wanted}")
    here = _answering(state)
    if not here or (len(here) < len(state.members) and not event.degraded):
        return state, (Done("away"),)
    begun = dataclasses.replace(
        state, phase="beginning", stamp=event.stamp, taking=here, degraded=event.degraded, issued=event.stamp.seq,
        failing="", closing="", owed=(),
    )  # fmt: skip
    return begun, (Append("begin", event.stamp, here),)


def _answered(state: State, answer: Answer) -> Step:
    """Note it; when it was the last one, go on."""
    if ASKS.get(state.phase) != answer.verb:
        return state, ()
    found = next((one for one in state.members if one.name == answer.member and one.asked and not one.said), None)
    if found is None:
        return state, ()
    if answer.verb == "commit" and answer.said == "away" and found.tries < COMMIT_TRIES:
        state = _with(state, dataclasses.replace(found, tries=found.tries + 1))
        return state, (Ask(found.name, "commit", stamp=state.stamp),)
    state = _with(state, _noted(found, answer, state.stamp))
    if any(member.asked and not member.said for member in state.members):
        return state, ()
    return _CONCLUDE[state.phase](state)


def _noted(member: Member, answer: Answer, stamp: Stamp | None) -> Member:
    heard = dataclasses.replace(member, said=answer.said)
    if answer.said == "away":
        return heard if answer.verb == "verify" else dataclasses.replace(heard, answers=False)
    if answer.verb == "observe":
        return dataclasses.replace(heard, answers=True, fence=answer.kept.fence, live=answer.kept.live)
    if answer.verb == "commit" and answer.said in ("yes", "unrendered"):
        return dataclasses.replace(heard, live=stamp, rendered=answer.said == "yes")
    return heard


def _observed(state: State) -> Step:
    found = state.open
    if found is None:
        return _to_fence(state)
    here = tuple(name for name in _answering(state) if name in found.members)
    owed = tuple(name for name in found.members if name not in here)
    state = dataclasses.replace(state, stamp=found.stamp, recovering=True, owed=owed)
    if not found.decided:
        return _ask(state, "aborting", here)
    if set(found.members) <= set(_holders(state)):
        return _end(state, "done")
    if _is_superseded(state, found) or (not here and state.degraded):
        return _end(state, "superseded")
    return _ask(state, "committing", here) if here else _not_now(state, "away")


def _is_superseded(state: State, found: Open) -> bool:
    """A newer epoch was seen anywhere: whoever raised it composed without this one, or knows it. Or none of those it
    was for is in the group any more."""
    newer = any(member.answers and member.fence > found.stamp.epoch for member in state.members)
    return newer or not set(found.members) & set(_names(state))


def _to_fence(state: State) -> Step:
    """Our log has nothing open."""
    state = dataclasses.replace(state, recovering=False, open=None, stamp=None, closing="", failing="", owed=())
    if state.only_recover:
        return dataclasses.replace(state, phase="new"), (Done("recovered"),)
    here = _answering(state)
    if not here or (len(here) < len(state.members) and not state.degraded):
        return _not_now(state, "away")
    highest = max(state.highest, *(member.fence.number for member in state.members if member.answers))
    state = dataclasses.replace(state, epoch=Epoch(highest + 1, state.run))
    return _ask(state, "fencing", here)


def _fenced(state: State) -> Step:
    failing = _why_not(_said(state), degraded=state.degraded)
    if failing == "overtaken":
        return _over(state, failing)
    if failing:
        return _not_now(state, failing)
    fenced = dataclasses.replace(state, phase="ready", highest=state.epoch.number)
    return fenced, (Done("ready"),)


def _prepared(state: State) -> Step:
    asked = tuple(member.name for member in state.members if member.asked)
    if failing := _why_not(_said(state), degraded=state.degraded):
        # In doubt counts as prepared: it is told, too, if it can be.
        return _ask(dataclasses.replace(state, failing=failing), "aborting", asked)
    here = tuple(member.name for member in state.members if member.said == "yes")
    owed = tuple(member.name for member in state.members if member.name not in here)
    return dataclasses.replace(state, phase="deciding", owed=owed), (Append("commit", _stamp(state), here, owed=owed),)


def _why_not(said: tuple[str, ...], *, degraded: bool) -> Failing:
    """Why what these members answered to prepare (or fence) can't be decided; "" when it can."""
    if "overtaken" in said:
        return "overtaken"
    if "refused" in said:
        return "refused"
    return "away" if "yes" not in said or ("away" in said and not degraded) else ""


def _aborted(state: State) -> Step:
    if state.failing == "log-failed":
        return _over(state, "log-failed")
    return _end(state, "aborted")


def _committed(state: State) -> Step:
    said = _said(state)
    if "overtaken" in said:
        return _end(dataclasses.replace(state, failing="overtaken"), "superseded")
    late = tuple(one.name for one in state.members if one.asked and one.said in ("away", "refused", "lost"))
    state = dataclasses.replace(state, owed=tuple(dict.fromkeys((*state.owed, *late))))
    if holders := _holders(state):
        return _ask(state, "verifying", holders)
    if set(said) == {"lost"}:  # it stands nowhere any more, so nobody can ever have seen it
        return _end(dataclasses.replace(state, failing="refused"), "superseded")
    # Decided, and nobody could be told: it stays open in the log.
    return _over(state, "away") if not state.recovering else _not_now(state, "away")


def _verified(state: State) -> Step:
    return _end(state, "done")


def _end(state: State, closed: Closed) -> Step:
    ending = dataclasses.replace(state, phase="ending", closing=closed)
    return ending, (Append("end", _stamp(state), _holders(state), closed, state.owed if closed == "done" else ()),)


def _logged(state: State, *, ok: bool) -> Step:
    asked = tuple(member.name for member in state.members if member.asked)
    if state.phase == "beginning":
        return _ask(state, "preparing", _answering(state)) if ok else _over(state, "log-failed")
    if state.phase == "deciding":
        if not ok:
            return _ask(dataclasses.replace(state, failing="log-failed"), "aborting", asked)
        return _ask(state, "committing", tuple(member.name for member in state.members if member.said == "yes"))
    if state.phase != "ending":
        raise ValueError(f"Logged in phase {state.phase}")
    return _ended(state, ok=ok)


def _ended(state: State, *, ok: bool) -> Step:
    """END stands, or doesn't: then the transaction is as it is, and this run publishes no more."""
    if state.recovering:
        return _to_fence(state) if ok else _over(state, "log-failed")
    done = _outcome(state)
    if not ok or done.result == "overtaken":
        return dataclasses.replace(state, phase="over", failing="overtaken" if ok else "log-failed"), (done,)
    # Whoever was lost on the way is asked again before the next publication: it may hold anything now.
    lost = any(name in state.taking for name in state.owed)
    phase: Phase = "new" if lost or done.result == "away" or state.closing == "superseded" else "ready"
    return dataclasses.replace(state, phase=phase, stamp=None, closing="", failing="", owed=()), (done,)


def _outcome(state: State) -> Done:
    holders = _holders(state)
    unrendered = tuple(member.name for member in state.members if member.name in holders and not member.rendered)
    return Done(state.failing or "published", state.stamp, holders, state.owed, unrendered)


# --- small things ----------------------------------------------------------------------------------------------


def _ask(state: State, phase: Phase, names: tuple[str, ...]) -> Step:
    """Enter a phase in which these members are asked. Bounded: each answers, or is away."""
    members = tuple(
        dataclasses.replace(member, asked=member.name in names, said="", tries=1) for member in state.members
    )
    asking = dataclasses.replace(state, phase=phase, members=members)
    verb = ASKS[phase]
    epoch = state.epoch if verb == "fence" else NO_EPOCH
    stamp = None if verb in ("observe", "fence") else state.stamp
    asks = tuple(Ask(name, verb, epoch, stamp) for name in names)
    return (asking, asks) if asks else _CONCLUDE[phase](asking)


def _with(state: State, changed: Member) -> State:
    members = tuple(changed if member.name == changed.name else member for member in state.members)
    return dataclasses.replace(state, members=members)


def _not_now(state: State, result: Result) -> Step:
    """Nothing was begun; another try may follow in this run."""
    back = dataclasses.replace(state, phase="new", epoch=NO_EPOCH, stamp=None, recovering=False, failing="", owed=())
    return back, (Done(result),)


def _over(state: State, result: Result) -> Step:
    ended = dataclasses.replace(state, phase="over", failing=result)
    return ended, (Done(result, state.stamp, owed=state.owed),)


def _names(state: State) -> tuple[str, ...]:
    return tuple(member.name for member in state.members)


def _answering(state: State) -> tuple[str, ...]:
    return tuple(member.name for member in state.members if member.answers)


def _holders(state: State) -> tuple[str, ...]:
    """Who is known to hold the transaction's document."""
    sha256 = _stamp(state).sha256
    return tuple(one.name for one in state.members if one.answers and one.live and one.live.sha256 == sha256)


def _stamp(state: State) -> Stamp:
    """The transaction under way."""
    if state.stamp is None:
        raise ValueError(f"no transaction in phase {state.phase}")
    return state.stamp


def _said(state: State) -> tuple[str, ...]:
    return tuple(member.said for member in state.members if member.asked)


_CONCLUDE: Mapping[Phase, Callable[[State], Step]] = {
    "observing": _observed,
    "fencing": _fenced,
    "preparing": _prepared,
    "committing": _committed,
    "aborting": _aborted,
    "verifying": _verified,
}
