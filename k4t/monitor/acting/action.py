"""What the monitor decides to do, and what became of it. Values, no more."""

from __future__ import annotations

from typing import Literal

from k4t.model.value import value

Verb = Literal["withdraw", "give-back", "dead", "back", "restart", "prune", "scale", "node-on", "node-off"]
"""The first two are done by the monitor itself; the rest are intents of these names, which the master does."""
OWN: frozenset[Verb] = frozenset({"withdraw", "give-back"})


@value
class Action:
    """`policy`: the `when` of the policy that wants it, or “scale”. `name`: of the node or app; `replica`: of restart;
    `replicas`: of scale. `cause`: a sentence for people. `dry_run`: it is only said."""

    policy: str
    verb: Verb
    name: str
    cause: str
    replica: str = ""
    replicas: int = 0
    dry_run: bool = False

    @property
    def key(self) -> str:
        """What the same thing, wanted again, is known by."""
        return "/".join(word for word in (self.verb, self.name, self.replica) if word)

    @property
    def words(self) -> str:
        """As it would be typed: “restart web 1”, “scale web 4”."""
        number = (str(self.replicas),) if self.verb == "scale" else ()
        return " ".join(word for word in (self.verb, self.name, self.replica, *number) if word)


@value
class Outcome:
    """`words`: what is to be said of it (why it failed or was refused). `intent`: the id of the one that was queued."""

    action: Action
    result: Literal["done", "queued", "dry-run", "refused", "failed"]
    at_s: float
    words: str = ""
    intent: str = ""
