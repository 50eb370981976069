"""A participant in memory that keeps the protocol's rules and breaks on demand. It ships, so that drivers and the
protocol are tried against the same one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from k4t.errors import K4tError, Overtaken, StepError, VendorRefused
from k4t.model.participant import Capabilities, Kind
from k4t.model.state import NO_EPOCH, ParticipantState
from k4t.registrar.document import Document, Epoch


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
    epoch: Epoch = NO_EPOCH
    live: Document | None = None
    live_transaction: str = ""
    staged: tuple[str, Document] | None = None
    seen: str = ""
    problem: str = ""
    calls: list[str] = field(default_factory=list)

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
            problem=self.problem,
        )  # fmt: skip

    def fence(self, epoch: Epoch) -> None:
        self._enter("fence")
        self._accept(epoch)
        if self.staged and self.staged[1].epoch < epoch:
            self.staged = None
        self._leave("fence")

    def prepare(self, transaction: str, document: Document) -> None:
        self._enter("prepare")
        sha256 = self.live.sha256 if self.live else ""
        if sha256 not in (document.parent, self.seen):
            raise Overtaken("what is live is not what this run saw", host=self.name)
        if self.live and document.version <= self.live.version:
            raise Overtaken("the document is not newer than the live one", host=self.name)
        self._accept(document.epoch)
        self.staged = (transaction, document)
        self._leave("prepare")

    def commit(self, transaction: str) -> bool:
        self._enter("commit")
        if self.staged and self.staged[0] == transaction:
            self._accept(self.staged[1].epoch)
            self.live_transaction, self.live = self.staged
            self.seen, self.staged = self.live.sha256, None
        elif self.live_transaction != transaction:
            raise StepError(f"transaction {transaction} was never prepared here", host=self.name)
        self.problem = self.refuses
        self._leave("commit")
        return not self.refuses

    def abort(self, transaction: str) -> None:
        self._enter("abort")
        if self.staged and self.staged[0] == transaction:
            self.staged = None
        self._leave("abort")

    def verify(self, document: Document) -> tuple[str, ...]:
        self._enter("verify")
        if self.live is None or self.live.sha256 != document.sha256:
            return ("holds another document",)
        return self.served

    def close(self) -> None:
        self.calls.append("close")

    def _accept(self, epoch: Epoch) -> None:
        if epoch < self.epoch:
            raise Overtaken(f"run {epoch.run} was overtaken by run {self.epoch.run}", host=self.name)
        self.epoch = epoch

    def _enter(self, verb: str) -> None:
        self.calls.append(verb)
        _raise(self.faults, verb)

    def _leave(self, verb: str) -> None:
        _raise(self.lost, verb)


def _raise(faults: Mapping[str, list[K4tError]], verb: str) -> None:
    waiting = faults.get(verb)
    if waiting:
        raise waiting.pop(0)


def refusing(words: str) -> FakeParticipant:
    """One whose vendor's checker says no when asked to prepare."""
    return FakeParticipant(faults={"prepare": [VendorRefused(words)]})
