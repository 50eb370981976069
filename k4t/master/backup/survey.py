"""How old the copies are, for `k4t status`: every target is asked, and what it holds is believed by its signature."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from k4t.errors import K4tError
from k4t.master.backup import judge, memory
from k4t.master.backup.copy import rfc3339
from k4t.master.backup.judge import HEADERS, Trust
from k4t.master.backup.targets import TargetSpec, open_target, targets_of
from k4t.master.fleet import Fleet, begun
from k4t.model.value import value

PATIENCE_S = 15.0
GRACE_S = 90.0
"""Two calls of the schedule, one a minute, and a run."""


@value
class Standing:
    """`last_s`: since 1970, when the newest good copy was last known to be what the tree is; of a target that can't be
    asked, as far as this working copy remembers. `count`: None where it can't be asked."""

    target: str
    every_s: float
    last_s: float | None = None
    count: int | None = None
    reachable: bool = True
    problem: str = ""

    def late(self, now_s: float) -> bool:
        return self.last_s is None or now_s - self.last_s > self.every_s + GRACE_S


class Survey:
    """Asks all targets at once, from when it is made, while others go on."""

    def __init__(self, fleet: Fleet, db: Path) -> None:
        self._fleet = fleet
        self._specs: Sequence[TargetSpec] = targets_of(fleet.tree)
        self._known = memory.load(db, fleet.tree.cluster.id)
        self._asked: list[Future[Standing]] = begun(self._ask, self._specs)

    def rows(self, now_s: float) -> list[dict[str, Any]]:
        """As `status -o json` has them (design.md)."""
        return [_row(self._answer(spec, asked), now_s) for spec, asked in zip(self._specs, self._asked, strict=True)]

    def _answer(self, spec: TargetSpec, asked: Future[Standing]) -> Standing:
        try:
            return asked.result(timeout=PATIENCE_S)
        except TimeoutError:
            return self._away(spec, f"it did not answer within {PATIENCE_S:g} s")

    def _away(self, spec: TargetSpec, why: str) -> Standing:
        last_s = self._known.of(spec.name).confirmed_s
        return Standing(spec.name, spec.every_s, last_s, reachable=False, problem=why)

    def _ask(self, spec: TargetSpec) -> Standing:
        if spec.dead:
            return self._away(spec, "the node is declared dead: nothing is copied there")
        try:
            listing = open_target(self._fleet, spec).look(HEADERS)
        except K4tError as error:
            return self._away(spec, error.words)
        recovery = self._fleet.tree.recovery
        count = len(listing.files)
        if recovery is None:
            return Standing(spec.name, spec.every_s, None, count, problem=_NO_KEYS if count else "")
        trust = Trust(self._fleet.tree.cluster.id, recovery.key)
        found = judge.judge(listing, trust)
        refused = "; ".join(f"{name} is no good copy: {why}" for name, why in found.refused[:2])
        if found.newest is None:
            return Standing(spec.name, spec.every_s, None, count, problem=refused)
        last_s = judge.seconds(judge.confirmed_at(listing, found.newest, trust))
        gone = judge.rolled_back(judge.remembered(self._known.of(spec.name).header, trust), found.newest)
        return Standing(spec.name, spec.every_s, last_s, count, problem=refused or gone)


_NO_KEYS = "its copies can't be verified: the tree has no recovery.xml"


def _row(one: Standing, now_s: float) -> dict[str, Any]:
    return {
        "node": one.target,
        "every_s": int(one.every_s) if one.every_s == int(one.every_s) else one.every_s,
        "last": None if one.last_s is None else rfc3339(one.last_s),
        "age_s": None if one.last_s is None else max(0, int(now_s - one.last_s)),
        "count": one.count,
        "reachable": one.reachable,
        "late": one.late(now_s),
        "problem": one.problem,
    }
