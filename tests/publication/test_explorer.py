"""The commit protocol, model-checked: no order of messages, losses, crashes and runs breaks its promises, and each bug
that is put into it on purpose is found.

K4T_FULL=1 explores larger settings to their end; its figures are in docs/publishing.md.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

import pytest

from k4t.master.publication import coordinator
from k4t.master.publication.transaction import Append, Open
from k4t.registrar import protocol
from k4t.registrar.document import Epoch
from k4t.registrar.errors import NotPrepared
from k4t.registrar.protocol import Kept, Stamp
from tests.publication import explorer
from tests.publication.explorer import explore
from tests.publication.world import Faults, Setting, Violation

FULL = "K4T_FULL" in os.environ
pytestmark = [pytest.mark.unit, pytest.mark.timeout(3600 if FULL else 300)]

SETTINGS = [
    Setting("killed, and one message lost", faults=Faults(lost=1, killed=1, started=1)),
    Setting("killed, and one message late", faults=Faults(late=1, killed=1, started=1)),
    Setting("a record that can't be written", faults=Faults(unwritable=1, killed=1, started=1)),
    Setting("two publications", publications=2, faults=Faults(lost=1, killed=1, started=1)),
    Setting("two masters", copies=(0, 0)),
    Setting("two clusters that want one address", copies=(0, 1), contested=True, faults=Faults(killed=1)),
    Setting("a participant is replaced", faults=Faults(blank=1, killed=1, started=1)),
    Setting("degraded", degraded=True, faults=Faults(lost=1, killed=1, started=1)),
    Setting("three participants", members=3, faults=Faults(killed=1, started=1)),
]
LARGER = [
    Setting("everything once", publications=2, faults=Faults(lost=1, late=1, unwritable=1, killed=1, started=1)),
    Setting("two masters, one message lost", copies=(0, 0), faults=Faults(lost=1)),
    Setting("two masters, one message late", copies=(0, 0), faults=Faults(late=1)),
    Setting("two masters, one killed and started", copies=(0, 0), faults=Faults(killed=1, started=1)),
    Setting("two masters, degraded", copies=(0, 0), degraded=True, faults=Faults(lost=1)),
    Setting("two clusters, killed and lost", copies=(0, 1), contested=True, faults=Faults(lost=1, killed=1, started=1)),
    Setting("replaced, lost, killed", faults=Faults(blank=1, lost=1, late=1, killed=1, started=1)),
    Setting("three participants, lost and killed", members=3, faults=Faults(lost=1, late=1, killed=1, started=1)),
]


@pytest.mark.parametrize("setting", [*SETTINGS, *(LARGER if FULL else ())], ids=lambda setting: setting.name)
def test_no_order_of_events_breaks_a_promise(setting: Setting) -> None:
    """Every world that can be reached is reached, and holds every invariant."""
    found = explore(setting)
    print(f"{setting.name}: {found.worlds} worlds, {found.steps} steps")
    assert found.complete
    assert found.worlds > 100


Patch = Callable[[pytest.MonkeyPatch], None]


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """A participant takes what is older than its fence."""
    patch.setattr(protocol, "_accepted", lambda kept, epoch: dataclasses.replace(kept, fence=max(kept.fence, epoch)))


def prepare_leaves_the_fence(patch: pytest.MonkeyPatch) -> None:
    right = protocol.prepare

    def wrong(kept: Kept, new: Stamp, seen: str = "", clashes: tuple[str, ...] = ()) -> Kept:
        return dataclasses.replace(right(kept, new, seen, clashes), fence=kept.fence)

    patch.setattr(protocol, "prepare", wrong)


def a_fence_leaves_what_is_staged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(protocol, "settled", lambda kept: kept)


def nobody_looks_at_the_parent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(protocol, "_check_order", lambda *_: None)


def staged_documents_do_not_clash(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(protocol, "rivals", lambda others: [kept.live for kept in others if kept.live is not None])


def one_yes_is_enough(patch: pytest.MonkeyPatch) -> None:
    """COMMIT is decided although somebody refused, or nobody knows."""
    patch.setattr(coordinator, "_why_not", lambda said, **_: "" if "yes" in said else "away")


def the_decision_is_not_on_disk(patch: pytest.MonkeyPatch) -> None:
    """Commits go out before COMMIT stands (no fsync)."""
    patch.setattr(explorer, "FSYNC", False)


def a_decision_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Recovery aborts a transaction whose COMMIT stands."""
    right = explorer.read

    def wrong(log: tuple[Append, ...]) -> tuple[int, Open | None]:
        highest, found = right(log)
        return highest, dataclasses.replace(found, decided=False) if found else None

    patch.setattr(explorer, "read", wrong)


def no_decision_counts_as_one(patch: pytest.MonkeyPatch) -> None:
    """Recovery rolls a transaction forward that was only begun."""
    right = explorer.read

    def wrong(log: tuple[Append, ...]) -> tuple[int, Open | None]:
        highest, found = right(log)
        return highest, dataclasses.replace(found, decided=True) if found else None

    patch.setattr(explorer, "read", wrong)


def an_epoch_that_was_used(patch: pytest.MonkeyPatch) -> None:
    """A run takes the highest number there is instead of one more."""
    patch.setattr(coordinator, "Epoch", lambda number, run: Epoch(max(number - 1, 1), run))


def a_commit_of_nothing_is_fine(patch: pytest.MonkeyPatch) -> None:
    right = protocol.commit

    def wrong(kept: Kept, transaction: str, epoch: Epoch) -> Kept:
        try:
            return right(kept, transaction, epoch)
        except NotPrepared:
            return kept

    patch.setattr(protocol, "commit", wrong)


def a_commit_takes_whatever_is_staged(patch: pytest.MonkeyPatch) -> None:
    def wrong(kept: Kept, _transaction: str, _epoch: Epoch) -> Kept:
        return dataclasses.replace(kept, live=kept.staged, staged=None) if kept.staged else kept

    patch.setattr(protocol, "commit", wrong)


def a_second_commit_fails(patch: pytest.MonkeyPatch) -> None:
    """A commit that was already made is refused, so that a lost answer makes a run think it is nowhere."""
    right = protocol.commit

    def wrong(kept: Kept, transaction: str, epoch: Epoch) -> Kept:
        if kept.live is not None and kept.live.transaction == transaction:
            raise NotPrepared("committed already")
        return right(kept, transaction, epoch)

    patch.setattr(protocol, "commit", wrong)


def an_abort_takes_back_what_is_live(patch: pytest.MonkeyPatch) -> None:
    right = protocol.abort

    def wrong(kept: Kept, transaction: str) -> Kept:
        if kept.live is not None and kept.live.transaction == transaction:
            return dataclasses.replace(kept, live=None)
        return right(kept, transaction)

    patch.setattr(protocol, "abort", wrong)


SETTING = {setting.name: setting for setting in SETTINGS}
LOST, LATE = SETTING["killed, and one message lost"], SETTING["killed, and one message late"]
BUGS: dict[Patch, Setting] = {
    no_fence: LATE,
    prepare_leaves_the_fence: Setting("a participant is replaced", faults=Faults(blank=1)),
    a_fence_leaves_what_is_staged: LATE,
    nobody_looks_at_the_parent: SETTING["two masters"],
    staged_documents_do_not_clash: SETTING["two clusters that want one address"],
    one_yes_is_enough: LOST,
    the_decision_is_not_on_disk: LOST,
    a_decision_is_forgotten: LOST,
    no_decision_counts_as_one: LOST,
    an_epoch_that_was_used: LOST,
    a_commit_of_nothing_is_fine: SETTING["a record that can't be written"],
    a_commit_takes_whatever_is_staged: LATE,
    a_second_commit_fails: LOST,
    an_abort_takes_back_what_is_live: Setting(
        "a record that may stand, and a message late", faults=Faults(unwritable=1, late=1, started=1)
    ),
}
"""Each with the smallest setting in which it shows."""


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: str(bug.__name__))
def test_a_bug_is_found(bug: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found, and the shortest way there, is printed. Without the bug, nothing is found there."""
    setting = BUGS[bug]
    if setting not in SETTINGS:
        assert explore(setting).complete
    bug(monkeypatch)
    with pytest.raises(Violation) as found:
        explore(setting)
    print(f"{bug.__name__}: in “{setting.name}”: {found.value}")
