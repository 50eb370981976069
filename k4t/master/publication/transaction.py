"""What the coordinator knows and says: the values of one group's transactions. See `coordinator` for what they mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from k4t.model.value import value
from k4t.registrar.document import Epoch
from k4t.registrar.protocol import NO_EPOCH, Kept, Stamp, transaction_id

Verb = Literal["observe", "fence", "prepare", "commit", "abort", "verify"]
Said = Literal["yes", "away", "refused", "overtaken", "lost", "unrendered", "differs"]
Phase = Literal[
    "new", "observing", "fencing", "ready", "beginning", "preparing", "deciding", "committing", "aborting",
    "verifying", "ending", "over",
]  # fmt: skip
Result = Literal["ready", "recovered", "published", "refused", "away", "overtaken", "log-failed"]
Failing = Result | Literal[""]
Record = Literal["begin", "commit", "end"]
Closed = Literal["", "done", "aborted", "superseded"]

BLANK = Kept()


@value
class Open:
    """A transaction that our own log began and didn't end. `members`: who prepared it, or was to."""

    stamp: Stamp
    members: tuple[str, ...]
    decided: bool


@value
class Member:
    """As this run knows it. `said`: its answer in this phase, "" while it is waited for; `tries`: times asked.
    `rendered` False: it holds the transaction's document, and its vendor doesn't take it."""

    name: str
    answers: bool = True
    fence: Epoch = NO_EPOCH
    live: Stamp | None = None
    asked: bool = False
    said: Said | Literal[""] = ""
    tries: int = 0
    rendered: bool = True


@value
class State:
    """`highest`: the epoch number that our log knows. `epoch`: this run's, NO_EPOCH before it has fenced. `stamp`: the
    transaction under way, `taking`: who is to get it, `degraded`: whether it goes on without who is away. `issued`: the
    last seq given out. `failing`: how the publication under way will end. `closing`: what END is to say."""

    kind: str
    group: str
    run: str
    members: tuple[Member, ...]
    highest: int = 0
    open: Open | None = None
    phase: Phase = "new"
    epoch: Epoch = NO_EPOCH
    stamp: Stamp | None = None
    taking: tuple[str, ...] = ()
    degraded: bool = False
    recovering: bool = False
    only_recover: bool = False
    issued: int = 0
    failing: Failing = ""
    closing: Closed = ""
    owed: tuple[str, ...] = ()


@value
class Go:
    """Begin. `degraded`: without whom is away. `only_recover`: stop when our log has nothing open any more."""

    degraded: bool = False
    only_recover: bool = False


@value
class Publish:
    """Publish what `issue` gave a place to."""

    stamp: Stamp
    degraded: bool = False


@value
class Answer:
    """`kept` goes with the answer to observe. `lost`: nothing of that transaction is there. `unrendered`: accepted, but
    the vendor would not take it. `differs`: served otherwise."""

    member: str
    verb: Verb
    said: Said
    kept: Kept = BLANK


@value
class Logged:
    """The record last asked for stands on disk; `ok` False: it may stand there or not, and is not tried again."""

    ok: bool = True


Event = Go | Publish | Answer | Logged


@value
class Ask:
    """`epoch` goes with fence, `stamp` with prepare, commit, abort, verify."""

    member: str
    verb: Verb
    epoch: Epoch = NO_EPOCH
    stamp: Stamp | None = None


@value
class Append:
    """Write this record. begin and commit are on disk (fsync) before `Logged` is answered; an end may follow: without
    it the transaction is rolled forward once more, which changes nothing."""

    record: Record
    stamp: Stamp
    members: tuple[str, ...]
    closed: Closed = ""
    owed: tuple[str, ...] = ()


@value
class Done:
    """`holders` have it; `owed` are to get it; `unrendered` have it and their vendor doesn't take it."""

    result: Result
    stamp: Stamp | None = None
    holders: tuple[str, ...] = ()
    owed: tuple[str, ...] = ()
    unrendered: tuple[str, ...] = ()


Action = Ask | Append | Done
Step = tuple[State, tuple[Action, ...]]


def start(kind: str, group: str, run: str, names: Iterable[str], *, log: tuple[int, Open | None] = (0, None)) -> State:
    """`log`: the highest epoch number that our own log knows, and what it has open; nothing when it isn't ours."""
    return State(kind, group, run, tuple(Member(name) for name in names), *log)


def newest(state: State) -> Stamp | None:
    """The newest live document among members that answered."""
    live = [member.live for member in state.members if member.live is not None and member.answers]
    return max(live, key=lambda stamp: stamp.version, default=None)


def lagging(state: State) -> tuple[str, ...]:
    """Members that answer and don't hold the newest document: they are owed it."""
    best = newest(state)
    held = best.sha256 if best else ""
    return tuple(one.name for one in state.members if one.answers and (one.live.sha256 if one.live else "") != held)


def issue(state: State) -> Stamp:
    """The next document's place, without its sha256: epoch, seq, parent, transaction. The state must be `ready`."""
    best = newest(state)
    seq = max(best.seq if best else 0, state.issued) + 1
    transaction = transaction_id(state.epoch, state.kind, state.group, seq)
    return Stamp(transaction, state.epoch, seq, "", best.sha256 if best else "")
