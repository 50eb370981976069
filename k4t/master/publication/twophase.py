"""Does what the coordinator says, to real participants and a real log: asks members at the same time, writes records,
hands back what became of it. It decides nothing.

Failpoints: before and after each of observe, fence, begin, prepare, decide, commit, verify, end, abort (decide is the
COMMIT record; commit is what each member is told).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from k4t import failpoints
from k4t.errors import HostRefused, K4tError, LogRefused, NotPrepared, Overtaken, Unreachable
from k4t.master.publication.coordinator import advance
from k4t.master.publication.transaction import (
    BLANK,
    Answer,
    Append,
    Ask,
    Done,
    Event,
    Logged,
    Said,
    State,
    lagging,
    newest,
)
from k4t.model.participant import Participant
from k4t.model.state import ParticipantState
from k4t.registrar.document import Document
from k4t.registrar.protocol import Kept, Stamp, stamp, transaction_id

if TYPE_CHECKING:
    from k4t.master.publication.redolog import RedoLog, Transaction

AWAY = (Unreachable, HostRefused)
MAX_MEMBERS_AT_ONCE = 16
RECORDS = {"begin": "begin", "commit": "decide", "end": "end"}


class Conductor:
    """One group of one run. `seen`: each member as it is known now; `failures`: what each raised when it was last
    asked for something; `differences`: what it serves otherwise, as read back last."""

    def __init__(self, members: Sequence[Participant], state: State, log: RedoLog | None) -> None:
        """Without a log nothing is written down: a run that is killed is not rolled forward."""
        self.state = state
        self.kind = members[0].kind
        self.seen: dict[str, ParticipantState] = {}
        self.failures: dict[str, K4tError] = {}
        self.differences: dict[str, tuple[str, ...]] = {}
        self.log_failure: LogRefused | None = None
        self.overtaken: Overtaken | None = None
        self._members = {member.name: member for member in members}
        self._log = log
        self._document: Document | None = None
        self._about: Transaction | None = None
        self._pool: ThreadPoolExecutor | None = None

    def perform(self, event: Event, document: Document | None = None, about: Transaction | None = None) -> Done:
        """Until the machine is done. `document` and `about` (for the log) go with Publish."""
        self._document, self._about = document, about
        self.failures.clear()
        under_way: set[Future[Event]] = set()
        self.state, actions = advance(self.state, event)
        waiting = list(actions)
        while True:
            while waiting:
                action = waiting.pop(0)
                if isinstance(action, Done):
                    return action
                if isinstance(action, Append):
                    waiting += self._step(self._append(action))
                else:
                    under_way.add(self._begin(action))
            ended, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in ended:
                waiting += self._step(future.result())

    def newest(self) -> Document | None:
        """The newest live document among members that answer."""
        best = newest(self.state)
        holders = (one.name for one in self.state.members if one.answers and one.live and one.live is best)
        return next((self.seen[name].document for name in holders), None)

    def silent(self) -> tuple[ParticipantState, ...]:
        """Members that don't answer, each with the problem."""
        names = {member.name for member in self.state.members if not member.answers}
        return tuple(state for name, state in self.seen.items() if name in names)

    def in_step(self) -> bool:
        """Whether all that answer hold the newest document, and serve it."""
        here = [self.seen[member.name] for member in self.state.members if member.answers]
        return not lagging(self.state) and all(state.rendered and not state.differences for state in here)

    def _step(self, event: Event) -> Sequence[Ask | Append | Done]:
        self.state, actions = advance(self.state, event)
        return actions

    def _append(self, action: Append) -> Event:
        place = RECORDS[action.record]
        failpoints.reach(f"before:{place}")
        try:
            if self._log is not None:
                self._log.append(action, self._about if action.record == "begin" else None)
        except LogRefused as error:
            self.log_failure = error
            return Logged(ok=False)
        failpoints.reach(f"after:{place}")
        return Logged()

    def _begin(self, ask: Ask) -> Future[Event]:
        """At the same time where there are several; one alone needs no thread."""
        if len(self._members) == 1:
            future: Future[Event] = Future()
            future.set_result(self._ask(ask))
            return future
        if self._pool is None:
            size = min(MAX_MEMBERS_AT_ONCE, len(self._members))
            self._pool = ThreadPoolExecutor(size, thread_name_prefix=f"publish {self.state.group}")
        return self._pool.submit(self._ask, ask)

    def _ask(self, ask: Ask) -> Event:
        failpoints.reach(f"before:{ask.verb}")
        member = self._members[ask.member]
        try:
            answer = self._observe(member) if ask.verb == "observe" else Answer(ask.member, ask.verb, self._tell(ask))
        except K4tError as error:
            self.failures[ask.member] = error
            said = _said(error)
            if said == "away":
                self.seen[ask.member] = dataclasses.replace(
                    self.seen[ask.member], reachable=False, problem=str(error), exit_status=error.exit_status
                )
            if isinstance(error, Overtaken):
                self.overtaken = error
            return Answer(ask.member, ask.verb, said)
        failpoints.reach(f"after:{ask.verb}")
        return answer

    def _observe(self, member: Participant) -> Answer:
        state = self.seen[member.name] = member.observe()
        kept = Kept(state.epoch, _stamp(state)) if state.reachable else BLANK
        return Answer(member.name, "observe", "yes" if state.reachable else "away", kept)

    def _tell(self, ask: Ask) -> Said:
        member = self._members[ask.member]
        if ask.verb == "fence":
            member.fence(ask.epoch)
            return "yes"
        assert ask.stamp is not None  # noqa: S101 - see Ask
        if ask.verb == "abort":
            member.abort(ask.stamp.transaction)
        elif ask.verb == "prepare":
            assert self._document is not None  # noqa: S101 - goes with Publish
            member.prepare(ask.stamp.transaction, self._document)
        elif ask.verb == "commit":
            return self._commit(member, ask.stamp)
        elif self._document is not None:
            return self._verify(member, self._document)
        return "yes"

    def _commit(self, member: Participant, what: Stamp) -> Said:
        rendered = member.commit(what.transaction)
        self.failures.pop(member.name, None)  # of the first try
        document = self._document
        if document is not None:
            self.seen[member.name] = dataclasses.replace(
                self.seen[member.name], reachable=True, epoch=document.epoch, document=document,
                digest=document.digest, rendered=rendered, differences=(), problem="", ancestors=(),
            )  # fmt: skip
        return "yes" if rendered else "unrendered"

    def _verify(self, member: Participant, document: Document) -> Said:
        try:
            found = member.verify(document)
        except K4tError as error:
            found = (f"could not be read back: {error}",)
        self.differences[member.name] = found
        self.seen[member.name] = dataclasses.replace(self.seen[member.name], differences=found)
        return "differs" if found else "yes"


def _said(error: K4tError) -> Said:
    if isinstance(error, AWAY):
        return "away"
    if isinstance(error, Overtaken):
        return "overtaken"
    return "lost" if isinstance(error, NotPrepared) else "refused"


def _stamp(state: ParticipantState) -> Stamp | None:
    document = state.document
    if document is None:
        return None
    return stamp(document, transaction_id(document.epoch, document.kind, document.group, document.seq))


def first(failures: Mapping[str, K4tError]) -> K4tError | None:
    """What to raise of several: that a run was overtaken, then a refusal, then an absence."""

    def rank(error: K4tError) -> int:
        return 0 if isinstance(error, Overtaken) else 2 if isinstance(error, AWAY) else 1

    return min(failures.values(), key=rank, default=None)
