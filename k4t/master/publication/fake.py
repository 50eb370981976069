"""A participant in memory that keeps the protocol's rules and breaks on demand. It ships, so that drivers and the
protocol are tried against the same one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from k4t.errors import K4tError, NotPrepared, Overtaken
from k4t.model.participant import Capabilities, Kind
from k4t.model.state import ParticipantState
from k4t.registrar import errors, protocol
from k4t.registrar.document import Document, Epoch
from k4t.registrar.protocol import Kept


@dataclass(slots=True)
class FakeParticipant:
    """`faults`: verb to what is raised, once each, before the verb does anything; `lost`: the same, after it has.

    `refuses`: the vendor's words at commit. `served`: what the vendor serves otherwise. `calls`: the verbs so far.
    """

    name: str = "fake1"
    kind: Kind = "gateway"
    group: str = "default"
    driver: str = "fake"
    capabilities: Capabilities = field(default_factory=Capabilities)
    faults: dict[str, list[K4tError]] = field(default_factory=dict)
    lost: dict[str, list[K4tError]] = field(default_factory=dict)
    refuses: str = ""
    served: tuple[str, ...] = ()
    kept: Kept = field(default_factory=Kept)
    id: str = "fake"
    seen: str = ""
    problem: str = ""
    calls: list[str] = field(default_factory=list)
    _documents: dict[str, Document] = field(default_factory=dict)

    def observe(self) -> ParticipantState:
        try:
            self._enter("observe")
        except K4tError as error:
            return ParticipantState(
                self.kind, self.name, self.group, self.driver, reachable=False,
                problem=str(error), exit_status=error.exit_status,
            )  # fmt: skip
        self.seen = self.live.sha256 if self.live else ""
        return ParticipantState(
            self.kind, self.name, self.group, self.driver, reachable=True, epoch=self.epoch, document=self.live,
            digest=self.live.digest if self.live else "", rendered=not self.problem, differences=self.served,
            problem=self.problem, id=self.id, ancestors=self.kept.live.ancestors if self.kept.live else (),
            staged=self.kept.staged.transaction if self.kept.staged else "",
        )  # fmt: skip

    def fence(self, epoch: Epoch) -> None:
        self._enter("fence")
        self._keep(self._told(lambda: protocol.fence(self.kept, epoch)))
        self._leave("fence")

    def prepare(self, transaction: str, document: Document) -> None:
        self._enter("prepare")
        new = protocol.stamp(document, transaction)
        kept = self._told(lambda: protocol.prepare(self.kept, new, self.seen))
        self._documents[new.sha256] = document
        self._keep(kept)
        self._leave("prepare")

    def commit(self, transaction: str) -> bool:
        self._enter("commit")
        self._keep(self._told(lambda: protocol.commit(self.kept, transaction, protocol.epoch_of(transaction))))
        self.seen = self.live.sha256 if self.live else ""
        self.problem = self.refuses
        self._leave("commit")
        return not self.refuses

    def abort(self, transaction: str) -> None:
        self._enter("abort")
        self._keep(protocol.abort(self.kept, transaction))
        self._leave("abort")

    def verify(self, document: Document) -> tuple[str, ...]:
        self._enter("verify")
        if self.live is None or self.live.sha256 != document.sha256:
            return ("holds another document",)
        return self.served

    def close(self) -> None:
        self.calls.append("close")

    @property
    def epoch(self) -> Epoch:
        return self.kept.fence

    @property
    def live(self) -> Document | None:
        return self._documents[self.kept.live.sha256] if self.kept.live else None

    @property
    def staged(self) -> Document | None:
        return self._documents[self.kept.staged.sha256] if self.kept.staged else None

    def _keep(self, kept: Kept) -> None:
        self.kept = kept

    def _told(self, message: Callable[[], Kept]) -> Kept:
        """What the protocol makes of it. Raises k4t's own error for the protocol's."""
        try:
            return message()
        except errors.Overtaken as error:
            raise Overtaken(str(error), host=self.name) from error
        except errors.NotPrepared as error:
            raise NotPrepared(str(error), host=self.name) from error

    def _enter(self, verb: str) -> None:
        self.calls.append(verb)
        _raise(self.faults, verb)

    def _leave(self, verb: str) -> None:
        _raise(self.lost, verb)


def _raise(faults: Mapping[str, list[K4tError]], verb: str) -> None:
    waiting = faults.get(verb)
    if waiting:
        raise waiting.pop(0)
