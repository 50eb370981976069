"""Two-phase commit over the members of one group: prepare on all, decide, commit on all, read back.

Nothing here knows a vendor. What is decided is decided by `Publisher`; this makes it happen, or leaves all as it was.
The redo log's BEGIN belongs before `prepare`, COMMIT between the two phases, END after `verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from k4t.errors import HostRefused, K4tError, Unreachable
from k4t.model.participant import Participant
from k4t.registrar.document import Document, Epoch

T = TypeVar("T")
AWAY = (Unreachable, HostRefused)
MAX_MEMBERS_AT_ONCE = 16
COMMIT_TRIES = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """After the decision. `stale`: members that could not be told (name, why); they are owed the document.

    `not_rendered`: they hold it, but their vendor would not take it. `differences`: what is served otherwise.
    """

    stale: tuple[tuple[str, str], ...] = ()
    not_rendered: tuple[str, ...] = ()
    differences: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class _Answers(Generic[T]):
    """Of one round: results by member, and what was raised."""

    results: list[tuple[Participant, T]] = field(default_factory=list)
    failures: list[tuple[Participant, K4tError]] = field(default_factory=list)


def fence(members: Sequence[Participant], epoch: Epoch) -> None:
    """Raises Overtaken, or what the first member that failed raised."""
    _first(_ask(members, lambda member: member.fence(epoch)).failures)


def publish(members: Sequence[Participant], transaction: str, document: Document) -> Outcome:
    """All members take the document, or none: what fails before the decision is raised, and nothing has changed."""
    prepared = _ask(members, lambda member: member.prepare(transaction, document))
    if prepared.failures:
        _ask(members, lambda member: member.abort(transaction))
        _first(prepared.failures)
    committed = _ask(members, lambda member: _commit(member, transaction))
    done = [member for member, _ in committed.results]
    read = _ask(done, lambda member: member.verify(document))
    unread = [(member.name, f"could not be read back: {error}") for member, error in read.failures]
    return Outcome(
        stale=tuple((member.name, str(error)) for member, error in committed.failures),
        not_rendered=tuple(member.name for member, rendered in committed.results if not rendered),
        differences=tuple((member.name, text) for member, texts in read.results for text in texts) + tuple(unread),
    )


def _commit(member: Participant, transaction: str) -> bool:
    """Decided is decided: in doubt it is said again, since a commit can be done twice."""
    for _ in range(COMMIT_TRIES - 1):
        try:
            return member.commit(transaction)
        except AWAY:
            continue
    return member.commit(transaction)


def _ask(members: Sequence[Participant], question: Callable[[Participant], T]) -> _Answers[T]:
    """All at once; every member is waited for."""
    answers = _Answers[T]()

    def one(member: Participant) -> tuple[T | None, K4tError | None]:
        try:
            return question(member), None
        except K4tError as error:
            return None, error

    if len(members) <= 1:
        found = [one(member) for member in members]
    else:
        with ThreadPoolExecutor(min(MAX_MEMBERS_AT_ONCE, len(members)), thread_name_prefix="publish") as pool:
            found = list(pool.map(one, members))
    for member, (result, error) in zip(members, found, strict=True):
        if error is not None:
            answers.failures.append((member, error))
        else:
            answers.results.append((member, result))  # type: ignore[arg-type]
    return answers


def _first(failures: Sequence[tuple[Participant, K4tError]]) -> None:
    """A refusal says more than an absence."""
    ordered = sorted(failures, key=lambda failure: isinstance(failure[1], AWAY))
    if ordered:
        raise ordered[0][1]
