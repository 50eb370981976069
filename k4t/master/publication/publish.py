"""One run's publications: one at a time a group; what several steps want at the same time goes out together."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from k4t.errors import Differs, HostRefused, K4tError, ParticipantAway, StepError, VendorRefused, gravest
from k4t.master.publication import twophase
from k4t.model.participant import Kind, Participant
from k4t.model.spec import Cluster
from k4t.model.state import ParticipantState
from k4t.registrar.document import BadDocument, Document, Epoch, make
from k4t.registrar.protocol import transaction_id

Change = Callable[[Document | None], Document]
GATHER_S = 0.15
"""How long a publication waits for others that are to come: each costs the vendor a check, a reload and a read-back."""


@dataclass(frozen=True, slots=True)
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
            raise Differs(_listed(self.differences[:5]), "k4t apply puts it right once it answers")


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


def newest(states: Iterable[ParticipantState]) -> Document | None:
    """The newest live document among members."""
    documents = [state.document for state in states if state.document is not None]
    return max(documents, key=lambda document: document.version, default=None)


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

    members: tuple[Participant, ...]
    states: dict[str, ParticipantState] = field(default_factory=dict)
    epoch: Epoch | None = None
    waiting: list[_Ticket] = field(default_factory=list)
    to_come: int = 0
    turn: threading.Lock = field(default_factory=threading.Lock)
    guard: threading.Condition = field(default_factory=threading.Condition)


class Publisher:
    """Publishes for one cluster and run. Use it under the cluster's lock."""

    def __init__(self, participants: Sequence[Participant], cluster: Cluster, run_id: str) -> None:
        self._cluster = cluster
        self._run = run_id
        grouped: dict[tuple[Kind, str], list[Participant]] = {}
        for participant in participants:
            grouped.setdefault((participant.kind, participant.group), []).append(participant)
        self._groups = {key: _Group(tuple(members)) for key, members in grouped.items()}

    def live(self, kind: Kind, group: str) -> Document | None:
        """The newest live document among the members that answer."""
        found = self._groups.get((kind, group))
        if found is None:
            return None
        with found.turn:
            if not found.states:
                self._observe(found)
            return newest(found.states.values())

    def expect(self, publications: Mapping[tuple[Kind, str], int]) -> None:
        """So many are to come, by group: one that could wait a moment for the others then does."""
        for key, count in publications.items():
            if key in self._groups:
                self._groups[key].to_come = count

    def publish(self, kind: Kind, group: str, change: Change, *, degraded: bool | None = None) -> Published:
        """Apply `change` to what is live, on all members, confirmed by reading back.

        `degraded` overrides the tree's `when-unreachable`: members that are away are then stale in the result.
        Raises ParticipantAway, Overtaken, VendorRefused, RegistrarMismatch, HostFull, StepError before anything has
        changed; VendorRefused and Differs also when the document is out, and not served as it says.
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

    def _degraded(self, said: bool | None) -> bool:
        return self._cluster.when_unreachable == "degrade" if said is None else said

    def _run_batch(self, group: _Group, batch: Sequence[_Ticket], degraded: bool) -> None:
        """One publication for all; when it is refused, one each, so that nobody pays for another's change."""
        try:
            members, stale = self._ready(group, degraded)
            content, composed = self._compose(group, batch)
            if content is not None and composed:
                published = self._settle(group, content, members, stale)
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

    def _ready(self, group: _Group, degraded: bool) -> tuple[list[Participant], list[tuple[str, str]]]:
        """Members that answer, fenced once a run; those that don't. Raises ParticipantAway."""
        if group.epoch is None:
            self._observe(group)
        silent = [state for state in group.states.values() if not state.reachable]
        members = [member for member in group.members if group.states[member.name].reachable]
        if silent and (not degraded or not members):
            raise _unpublishable(silent, others=bool(members))
        away = [(state.name, state.problem) for state in silent]
        if group.epoch is None:
            highest = max(state.epoch.number for state in group.states.values())
            epoch = Epoch(highest + 1, self._run)
            twophase.fence(members, epoch)
            group.epoch = epoch
        return members, away

    def _compose(self, group: _Group, batch: Sequence[_Ticket]) -> tuple[Document | None, list[_Ticket]]:
        """All changes, one on top of the other; a change that can't be made is its own caller's error."""
        document = newest(group.states.values())
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

    def _settle(
        self,
        group: _Group,
        content: Document,
        members: Sequence[Participant],
        away: Sequence[tuple[str, str]],
    ) -> Published:
        live = newest(group.states.values())
        if live is not None and content.digest == live.digest and self._in_step(group, members, live):
            return Published(live, members=len(members), stale=tuple(away))
        return self._publish(group, content, live, members, away)

    def _in_step(self, group: _Group, members: Sequence[Participant], live: Document) -> bool:
        states = [group.states[member.name] for member in members]
        return all(
            state.document is not None
            and state.document.sha256 == live.sha256
            and state.rendered
            and not state.differences
            for state in states
        )

    def _publish(
        self,
        group: _Group,
        content: Document,
        live: Document | None,
        members: Sequence[Participant],
        away: Sequence[tuple[str, str]],
    ) -> Published:
        epoch = group.epoch or Epoch(1, self._run)
        seq = live.seq + 1 if live else 1
        parent = live.sha256 if live else ""
        document = dataclasses.replace(content, name=self._cluster.name, epoch=epoch, seq=seq, parent=parent)
        transaction = transaction_id(epoch, document.kind, document.group, seq)
        outcome = twophase.publish(members, transaction, document)
        late = dict(outcome.stale)
        for member in members:
            if member.name not in late:
                group.states[member.name] = self._after(member, document, outcome)
        for name, why in late.items():
            state = group.states[name]
            group.states[name] = dataclasses.replace(state, reachable=False, problem=why)
        problems = self._problems(group, outcome.not_rendered)
        return Published(
            document,
            changed=True,
            members=len(members) - len(late),
            stale=(*away, *outcome.stale),
            not_rendered=problems,
            differences=tuple(pair for pair in outcome.differences if pair[0] not in dict(problems)),
        )

    def _after(self, member: Participant, document: Document, outcome: twophase.Outcome) -> ParticipantState:
        return ParticipantState(
            member.kind,
            member.name,
            member.group,
            member.driver,
            reachable=True,
            epoch=document.epoch,
            document=document,
            digest=document.digest,
            rendered=member.name not in outcome.not_rendered,
            differences=tuple(text for name, text in outcome.differences if name == member.name),
        )

    def _problems(self, group: _Group, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """The vendor's words, asked of the members that would not render."""
        by_name: Mapping[str, Participant] = {member.name: member for member in group.members}
        return tuple((name, by_name[name].observe().problem or "its vendor would not take it") for name in names)

    def _observe(self, group: _Group) -> None:
        if len(group.members) == 1:
            found = [group.members[0].observe()]
        else:
            with ThreadPoolExecutor(len(group.members), thread_name_prefix="observe") as pool:
                found = list(pool.map(lambda member: member.observe(), group.members))
        group.states = {state.name: state for state in found}
