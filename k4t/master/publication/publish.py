"""One run's publications: one at a time a group; what several steps want at the same time goes out together.

What is decided about a group is decided by `coordinator`, and done by `twophase`. Here changes are gathered, composed
on top of what is live, and their callers told how it ended. Debts come first: what our own log has open is finished
(`recover`), and a member that lags is brought on, before anything new is published.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from k4t.errors import Differs, HostRefused, K4tError, Overtaken, ParticipantAway, StepError, VendorRefused, gravest
from k4t.master.fleet import at_once
from k4t.master.publication.transaction import Done, Go, Publish, issue, lagging, start
from k4t.master.publication.twophase import Conductor, first
from k4t.model.participant import Kind, Participant
from k4t.model.spec import Cluster
from k4t.model.state import ParticipantState
from k4t.model.value import value
from k4t.registrar.document import BadDocument, Document, make
from k4t.registrar.protocol import NO_EPOCH

if TYPE_CHECKING:
    from k4t.master.publication.redolog import LogPlace, RedoLog, Transaction

Change = Callable[[Document | None], Document]
Afresh = Callable[[Kind, str], ParticipantState]
GATHER_S = 0.15
"""How long a publication waits for others that are to come: each costs the vendor a check, a reload and a read-back."""


@value
class Published:
    """How a publication ended. `members`: how many hold it; `stale`: (name, why) of those that are owed it."""

    document: Document | None
    changed: bool = False
    members: int = 0
    stale: tuple[tuple[str, str], ...] = ()
    not_rendered: tuple[tuple[str, str], ...] = ()
    differences: tuple[tuple[str, str], ...] = ()

    def words(self) -> str:
        if not self.changed:
            return "nothing to publish"
        late = "".join(f"; {name} is stale: {why}" for name, why in self.stale)
        return f"{self.members} in step{late}"

    def check(self) -> None:
        """Raises VendorRefused, Differs for what is not served as published (it stays published)."""
        if self.not_rendered:
            raise VendorRefused(
                _listed(self.not_rendered), "accepted, not rendered: what it served before still serves"
            )
        if self.differences:
            raise Differs(_listed(self.differences[:5]), self._next_step())

    def _next_step(self) -> str:
        if self.document is None:
            return "k4t apply puts it right"
        names = " ".join(dict.fromkeys(name for name, _ in self.differences))
        return f"k4t apply puts it right; k4t {self.document.kind} install {names} starts what does not run"


def _listed(pairs: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{name}: {text}" for name, text in pairs)


def _unpublishable(silent: Sequence[ParticipantState], *, others: bool) -> K4tError:
    """The error for members that must answer and don't, with the gravest of their exit statuses."""
    kinds: dict[int, type[K4tError]] = {69: ParticipantAway, 77: HostRefused}
    kind = kinds.get(gravest(state.exit_status or 69 for state in silent), StepError)
    said = "; ".join(
        state.problem if state.problem.startswith(f"{state.name}: ") else f"{state.name}: {state.problem}"
        for state in silent
    )
    return kind(said, "the others can be published to with --degraded" if others else "")


@dataclass(slots=True)
class _Ticket:
    """A change that waits for its turn, and how it ended."""

    change: Change
    published: Published | None = None
    error: K4tError | None = None


@dataclass(slots=True)
class _Group:
    """What this run knows of one group. `turn` is held for one publication; `guard` for a moment.

    `to_come`: publications that the plan still has for it.
    """

    key: tuple[Kind, str]
    members: tuple[Participant, ...]
    conductor: Conductor | None = None
    waiting: list[_Ticket] = field(default_factory=list)
    to_come: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)
    guard: threading.Condition = field(default_factory=threading.Condition)

    @property
    def on(self) -> str:
        return "/".join(self.key)


class Publisher:
    """Publishes for one cluster and run. Use it under the cluster's lock."""

    def __init__(
        self,
        participants: Sequence[Participant],
        cluster: Cluster,
        run_id: str,
        *,
        log: LogPlace | None = None,
        who: str = "",
        afresh: Afresh | None = None,
    ) -> None:
        """`log`: this working copy's, opened when it is first needed. Without one nothing is written down. `afresh`:
        asks a member over a new connection, when all that this run had have ended."""
        self._cluster = cluster
        self._run = run_id
        self._who = who
        self._place = log
        self._afresh = afresh
        self._owed: dict[str, tuple[str, ...]] = {}
        self._log: RedoLog | None = None
        self._guard = threading.Lock()
        self.message = ""
        grouped: dict[tuple[Kind, str], list[Participant]] = {}
        for participant in participants:
            grouped.setdefault((participant.kind, participant.group), []).append(participant)
        self._groups = {key: _Group(key, tuple(members)) for key, members in grouped.items()}

    def expect(self, publications: Mapping[tuple[Kind, str], int]) -> None:
        """So many are to come, by group: one that could wait a moment for the others then does."""
        for key, count in publications.items():
            if key in self._groups:
                self._groups[key].to_come = count

    def owed(self) -> list[str]:
        """What this run could not tell everyone, a sentence for each group."""
        return [f"{on} is owed to {', '.join(names)}" for on, names in sorted(self._owed.items()) if names]

    def unfinished(self) -> tuple[Transaction, ...]:
        """What our own log has open, read without a lock. Raises LogRefused."""
        return self._place.unfinished() if self._place else ()

    def recover(self, *, degraded: bool | None = None, only: str = "") -> list[str]:
        """Finish what our own log has open (or one transaction of it): decided is rolled forward, undecided aborted. A
        sentence about each, and about the log. Under the lock. Raises LogRefused; nothing was sent then."""
        log = self._redo_log()
        if log is None:
            return []
        told, log.notes = list(log.notes), []
        last = {one.on: one for one in log.unfinished()}
        for one in log.unfinished():
            if only not in ("", one.id):
                continue
            group = next((found for found in self._groups.values() if found.on == one.on), None)
            if group is None or one is not last[one.on]:
                why = "another one followed it" if group else f"the tree has no {one.on} any more"
                log.forget(one)
                told.append(f"transaction {one.id}: {why}; closed as superseded")
                continue
            with group.turn:
                told.append(self._finish(group, one, self._degraded(degraded)))
        return told

    def publish(self, kind: Kind, group: str, change: Change, *, degraded: bool | None = None) -> Published:
        """Apply `change` to what is live, on all members, confirmed by reading back.

        `degraded` overrides the tree's `when-unreachable`: members that are away are then stale in the result.
        Raises ParticipantAway, Overtaken, VendorRefused, RegistrarMismatch, HostFull, StepError, LogRefused before
        anything has changed; VendorRefused and Differs also when the document is out, and not served as it says.
        """
        found = self._groups.get((kind, group))
        if found is None:
            return Published(None)
        ticket = _Ticket(change)
        with found.guard:
            found.waiting.append(ticket)
            found.to_come -= 1
            found.guard.notify_all()
        with found.turn:
            if ticket.published is None and ticket.error is None:
                with found.guard:
                    found.guard.wait_for(lambda: found.to_come <= 0, GATHER_S)
                    batch, found.waiting = found.waiting, []
                self._run_batch(found, batch, self._degraded(degraded))
        if ticket.error is not None:
            raise ticket.error
        assert ticket.published is not None  # noqa: S101 - a batch settles each of its tickets
        ticket.published.check()
        return ticket.published

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    # --- one group -----------------------------------------------------------------------------------------------

    def _degraded(self, said: bool | None) -> bool:
        return self._cluster.when_unreachable == "degrade" if said is None else said

    def _redo_log(self) -> RedoLog | None:
        with self._guard:
            if self._log is None and self._place is not None:
                self._log = self._place.open()
            return self._log

    def _conductor(self, group: _Group) -> Conductor:
        if group.conductor is None:
            log = self._redo_log()
            known = log.standing(group.on) if log else (0, None)
            names = (member.name for member in group.members)
            group.conductor = Conductor(group.members, start(*group.key, self._run, names, log=known), log)
        return group.conductor

    def _finish(self, group: _Group, one: Transaction, degraded: bool) -> str:
        """What becomes of a transaction that our log has open, in words."""
        conductor = self._conductor(group)
        try:
            done = conductor.perform(Go(degraded, only_recover=True))
        except K4tError as error:
            return f"transaction {one.id} of {one.on} stays open: {error}"
        if done.result != "recovered":
            reason = conductor.log_failure or first(conductor.failures) or "none of its members answers"
            return f"transaction {one.id} of {one.on} stays open: {reason}"
        state = self._log.state_of(one.id) if self._log else ""
        words = {"done": "rolled forward", "aborted": "aborted: it was never decided"}
        return f"transaction {one.id} of {one.on}, begun {one.at} by {one.who}, was {words.get(state, state)}"

    def _run_batch(self, group: _Group, batch: Sequence[_Ticket], degraded: bool) -> None:
        """One publication for all; when it is refused, one each, so that nobody pays for another's change."""
        try:
            conductor = self._ready(group, degraded)
            healed = self._heal(group, conductor, degraded)
            content, composed = self._compose(conductor, batch)
            if content is not None and composed:
                published = self._settle(group, content, degraded, healed)
                for ticket in composed:
                    ticket.published = published
        except K4tError as error:
            unsettled = [ticket for ticket in batch if ticket.published is None and ticket.error is None]
            if isinstance(error, StepError) and len(unsettled) > 1:
                for ticket in unsettled:
                    self._run_batch(group, [ticket], degraded)
                return
            for ticket in unsettled:
                ticket.error = error
        except BaseException:
            # The others that wait must not wait for nothing.
            for ticket in batch:
                if ticket.published is None:
                    ticket.error = StepError("the publication was broken off")
            raise

    def _ready(self, group: _Group, degraded: bool) -> Conductor:
        """Members that answer are fenced, once a run; nothing is open in our log. Raises ParticipantAway, Overtaken."""
        conductor = self._conductor(group)
        if conductor.state.open is not None:
            self._expect(conductor, conductor.perform(Go(degraded, only_recover=True)), "recovered")
        if conductor.state.phase in ("new", "over"):
            self._expect(conductor, conductor.perform(Go(degraded)), "ready")
        if (silent := conductor.silent()) and not degraded:
            raise _unpublishable(silent, others=len(silent) < len(group.members))
        return conductor

    def _expect(self, conductor: Conductor, done: Done, wanted: str) -> None:
        """Raises what stands in the way of anything else."""
        if done.result == wanted:
            return
        if done.result == "log-failed" and conductor.log_failure is not None:
            raise conductor.log_failure
        reason = first(conductor.failures)
        if done.result == "overtaken":
            raise reason or conductor.overtaken or Overtaken("another run went on from here", "k4t plan shows what is")
        if reason is not None:
            raise self._overtaken(conductor) or reason
        silent = conductor.silent()
        raise _unpublishable(silent, others=len(silent) < len(conductor.seen))

    def _overtaken(self, conductor: Conductor) -> Overtaken | None:
        """Hosts end the connections of a master that was paused or cut off for long, and let another one in: when none
        is left, whether that has happened is asked over a new one."""
        state = conductor.state
        if self._afresh is None or state.epoch == NO_EPOCH or any(member.answers for member in state.members):
            return None
        afresh, kind = self._afresh, conductor.kind
        for found in at_once(lambda member: afresh(kind, member.name), state.members):
            if found.reachable and found.epoch > state.epoch:
                return Overtaken(
                    f"run {state.epoch.run} (epoch {state.epoch.number}) was overtaken by run {found.epoch.run} "
                    f"(epoch {found.epoch.number})",
                    "another run went on from here; run k4t plan to see what is",
                    host=found.name,
                )
        return None

    def _heal(self, group: _Group, conductor: Conductor, degraded: bool) -> Published | None:
        """A member that lags is owed what the others hold: it gets that first, whatever becomes of what is new."""
        live = conductor.newest()
        if live is None or not lagging(conductor.state):
            return None
        healed = self._publish(group, live, degraded)
        self._ready(group, degraded)
        return healed

    def _compose(self, conductor: Conductor, batch: Sequence[_Ticket]) -> tuple[Document | None, list[_Ticket]]:
        """All changes, one on top of the other; a change that can't be made is its own caller's error."""
        document = conductor.newest()
        composed = []
        for ticket in batch:
            try:
                document = make(ticket.change(document))
            except BadDocument as error:
                ticket.error = StepError(f"can't publish: {error}")
            except K4tError as error:
                ticket.error = error
            else:
                composed.append(ticket)
        return document, composed

    def _settle(self, group: _Group, content: Document, degraded: bool, healed: Published | None) -> Published:
        conductor = self._conductor(group)
        live = conductor.newest()
        if live is not None and content.digest == live.digest:
            if healed is not None:
                return healed
            if conductor.in_step():
                here = len(group.members) - len(conductor.silent())
                return Published(live, members=here, stale=_problems(conductor.silent()))
        return self._publish(group, content, degraded)

    def _publish(self, group: _Group, content: Document, degraded: bool) -> Published:
        from k4t.master.publication.account import changes
        from k4t.master.publication.redolog import Transaction

        conductor = self._conductor(group)
        live, place = conductor.newest(), issue(conductor.state)
        document = dataclasses.replace(
            content, name=self._cluster.name, epoch=place.epoch, seq=place.seq, parent=place.parent
        )
        stamp = dataclasses.replace(place, sha256=document.sha256)
        add, remove = changes(live, document)
        about = Transaction(
            stamp, group.on, (), digest=document.digest, who=self._who, message=self.message, add=add, remove=remove
        )
        done = conductor.perform(Publish(stamp, degraded), document, about)
        self._expect(conductor, done, "published")
        return self._published(group, document, done)

    def _published(self, group: _Group, document: Document, done: Done) -> Published:
        conductor = self._conductor(group)
        members = {member.name: member for member in group.members}
        refused = tuple(
            (name, members[name].observe().problem or "its vendor would not take it") for name in done.unrendered
        )
        wrong = ((name, text) for name in done.holders for text in conductor.differences.get(name, ()))
        self._owed[group.on] = done.owed
        problems = {name: str(conductor.failures.get(name) or conductor.seen[name].problem) for name in done.owed}
        return Published(
            document,
            changed=True,
            members=len(done.holders),
            stale=tuple(problems.items()),
            not_rendered=refused,
            differences=tuple(pair for pair in wrong if pair[0] not in done.unrendered),
        )


def _problems(states: Iterable[ParticipantState]) -> tuple[tuple[str, str], ...]:
    return tuple((state.name, state.problem) for state in states)
