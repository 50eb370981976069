"""A real participant whose messages go astray, by chance: what the protocol must bear between any two of them."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from k4t.errors import ConnectionLost, K4tError
from k4t.model.participant import Participant
from k4t.model.state import ParticipantState
from k4t.registrar.document import Document, Epoch

KINDS = ("cut", "lost", "late", "stray", "stray", "severed")
LATE_S = 0.2
MAX_STRAYS = 20
ARRIVES = 0.3
NOTES = ("_seen", "_epoch")
"""What a client notes of its member: a message that comes late was written with the notes of its time."""


@dataclass(frozen=True)
class Stray:
    """A message that is still under way."""

    verb: str
    arguments: tuple[Any, ...]
    notes: dict[str, Any]


class Faulty:
    """Around `inner`. With `faults` > 0, each message may be

    cut      it never arrives                      late     it arrives, slowly
    lost     it arrives, its answer doesn't        severed  the connection under it is closed
    stray    nobody hears of it now; it arrives when later messages have gone before it, also of later runs
    """

    def __init__(
        self,
        inner: Participant,
        chance: random.Random,
        faults: float,
        *,
        before: Callable[[], None],
        sever: Callable[[], None],
        strays: list[Stray],
    ) -> None:
        """`before`: called before each message. `sever`: closes the connection. `strays`: also of earlier runs."""
        self.before = before
        self.inner, self.chance, self.faults, self.sever, self.strays = inner, chance, faults, sever, strays
        self.kind, self.name, self.group = inner.kind, inner.name, inner.group
        self.driver, self.capabilities = inner.driver, inner.capabilities
        self.done: Counter[str] = Counter()

    def observe(self) -> ParticipantState:
        try:
            state: ParticipantState = self._sent("observe")
        except K4tError as error:
            return ParticipantState(
                self.kind, self.name, self.group, self.driver, reachable=False, problem=str(error), exit_status=69
            )
        return state

    def fence(self, epoch: Epoch) -> None:
        self._sent("fence", epoch)

    def prepare(self, transaction: str, document: Document) -> None:
        self._sent("prepare", transaction, document)

    def commit(self, transaction: str) -> bool:
        return bool(self._sent("commit", transaction))

    def abort(self, transaction: str) -> None:
        self._sent("abort", transaction)

    def verify(self, document: Document) -> tuple[str, ...]:
        found: tuple[str, ...] = self._sent("verify", document)
        return found

    def close(self) -> None:
        self.inner.close()

    def _sent(self, verb: str, *arguments: Any) -> Any:
        self._let_one_arrive()
        self.before()
        what = self.chance.choice(KINDS) if self.chance.random() < self.faults else "passed"
        if what == "stray" and (verb in ("observe", "verify") or len(self.strays) >= MAX_STRAYS):
            what = "cut"
        if what != "passed":
            self.done[what] += 1
        if what == "stray":
            self.strays.append(Stray(verb, arguments, self._notes()))
        if what in ("cut", "stray"):
            raise ConnectionLost(f"{verb} was {what}", host=self.name)
        if what == "late":
            time.sleep(self.chance.uniform(0, LATE_S))
        if what == "severed":
            self.sever()
        answer = getattr(self.inner, verb)(*arguments)
        if what == "lost":
            raise ConnectionLost(f"the answer to {verb} was lost", host=self.name)
        return answer

    def _let_one_arrive(self) -> None:
        if not self.faults or not self.strays or self.chance.random() > ARRIVES:
            return
        stray = self.strays.pop(self.chance.randrange(len(self.strays)))
        now = self._notes()
        self._note(stray.notes)
        try:
            getattr(self.inner, stray.verb)(*stray.arguments)
        except K4tError:
            self.done["stray, refused"] += 1
        else:
            self.done["stray, taken"] += 1
        self._note(now)

    def _notes(self) -> dict[str, Any]:
        return {name: getattr(self.inner, name) for name in NOTES if hasattr(self.inner, name)}

    def _note(self, notes: dict[str, Any]) -> None:
        for name, value in notes.items():
            setattr(self.inner, name, value)
