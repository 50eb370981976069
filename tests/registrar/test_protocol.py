"""A participant's side: what each message makes of what it keeps, in whatever order messages come."""

from __future__ import annotations

import dataclasses

import pytest

from k4t.registrar import protocol
from k4t.registrar.document import Epoch
from k4t.registrar.errors import Clash, NotPrepared, Overtaken
from k4t.registrar.protocol import Kept, Stamp

pytestmark = pytest.mark.unit
ONE, TWO, THREE = Epoch(1, "a"), Epoch(2, "b"), Epoch(3, "c")


def stamped(epoch: Epoch, seq: int, sha256: str, parent: str = "") -> Stamp:
    return Stamp(protocol.transaction_id(epoch, "gateway", "default", seq), epoch, seq, sha256, parent)


A = stamped(ONE, 1, "a")
B = stamped(ONE, 2, "b", "a")


def holding(*stamps: Stamp) -> Kept:
    """After these, one after the other."""
    kept = Kept()
    for one in stamps:
        kept = protocol.prepare(kept, one)
        kept = protocol.commit(kept, one.transaction, one.epoch)
    return kept


def test_a_document_goes_live() -> None:
    """prepare raises the fence and stages; commit makes it live."""
    kept = protocol.prepare(Kept(), A)
    assert kept == Kept(ONE, None, A)
    assert protocol.commit(kept, A.transaction, ONE) == Kept(ONE, A, None)


def test_everything_can_be_done_twice() -> None:
    """The second time changes nothing."""
    kept = protocol.fence(Kept(), ONE)
    assert protocol.fence(kept, ONE) == kept
    kept = protocol.prepare(kept, A)
    assert protocol.prepare(kept, A) == kept
    kept = protocol.commit(kept, A.transaction, ONE)
    assert protocol.commit(kept, A.transaction, ONE) == kept
    assert protocol.prepare(kept, A) == kept
    assert protocol.abort(kept, A.transaction) == kept


def test_an_older_run_is_overtaken() -> None:
    """By number, then by run id: two runs that take one number don't tie."""
    kept = protocol.fence(Kept(), TWO)
    for late in (ONE, Epoch(2, "a")):
        with pytest.raises(Overtaken, match="overtaken by run b"):
            protocol.fence(kept, late)
        with pytest.raises(Overtaken):
            protocol.prepare(kept, stamped(late, 1, "x"))
    assert protocol.fence(kept, Epoch(2, "c")).fence == Epoch(2, "c")


def test_a_fence_voids_what_was_staged() -> None:
    """Its commit is overtaken then; so is one that was never staged here."""
    kept = protocol.fence(protocol.prepare(Kept(), A), TWO)
    assert kept.staged is None
    with pytest.raises(Overtaken):
        protocol.commit(kept, A.transaction, ONE)


def test_its_own_fence_voids_nothing() -> None:
    """A fence that comes late, or twice."""
    kept = protocol.prepare(Kept(), A)
    assert protocol.fence(kept, ONE) == kept


def test_live_must_be_what_was_seen() -> None:
    """Else another run has published since."""
    kept = holding(A)
    with pytest.raises(Overtaken, match="not what this run saw"):
        protocol.prepare(kept, stamped(TWO, 2, "x", "other"), "other")
    assert protocol.prepare(kept, stamped(TWO, 5, "x", "other"), "a").staged is not None


def test_nothing_older_than_live_or_staged() -> None:
    """A prepare that comes late, after a newer one."""
    with pytest.raises(Overtaken, match=r"1\.1 is not newer than the live 1\.1"):
        protocol.prepare(holding(A), stamped(ONE, 1, "x", "a"))
    kept = protocol.prepare(Kept(), stamped(ONE, 2, "y"))
    with pytest.raises(Overtaken, match=r"1\.1 is not newer than the staged 1\.2"):
        protocol.prepare(kept, A)


def test_never_prepared() -> None:
    """Or aborted: nothing is made live."""
    with pytest.raises(NotPrepared):
        protocol.commit(protocol.fence(Kept(), ONE), A.transaction, ONE)
    kept = protocol.abort(protocol.prepare(Kept(), A), A.transaction)
    with pytest.raises(NotPrepared):
        protocol.commit(kept, A.transaction, ONE)


def test_an_old_commit_after_a_newer_one() -> None:
    """Overtaken, whether by its own run or another."""
    with pytest.raises(Overtaken, match=r"document 1\.2 is live"):
        protocol.commit(holding(A, B), A.transaction, ONE)


def test_abort_of_another() -> None:
    """An abort that comes late hits nobody else."""
    kept = protocol.prepare(Kept(), A)
    assert protocol.abort(kept, B.transaction) == kept


def test_clashes_are_refused() -> None:
    """The first five are told, each once."""
    with pytest.raises(Clash, match="a; b; c; d; e; and 1 more"):
        protocol.prepare(Kept(), A, clashes=[*"aabcdef"])


def test_rivals_are_live_and_staged() -> None:
    """A staged document may be decided already."""
    kept = protocol.prepare(holding(A), B)
    assert [one.sha256 for one in protocol.rivals([kept, Kept()])] == ["a", "b"]


def test_ancestors() -> None:
    """As far as they went by here without a gap."""
    kept = holding(A, B, stamped(ONE, 3, "c", "b"))
    assert kept.live is not None
    assert kept.live.ancestors == ((2, "b"), (1, "a"))
    kept = protocol.prepare(kept, stamped(TWO, 9, "x", "elsewhere"), "c")
    assert kept.staged is not None
    assert kept.staged.ancestors == ((8, "elsewhere"),)


def test_ancestors_are_bounded() -> None:
    kept = Kept()
    for seq in range(1, 100):
        one = stamped(ONE, seq, str(seq), str(seq - 1) if seq > 1 else "")
        kept = protocol.commit(protocol.prepare(kept, one), one.transaction, ONE)
    assert kept.live is not None
    assert len(kept.live.ancestors) == protocol.MAX_ANCESTORS


def test_after_a_crash_between_two_files() -> None:
    """The fence is written first: what is staged below it is void. What is live is never above it."""
    assert protocol.settled(Kept(TWO, None, A)).staged is None
    assert protocol.settled(Kept(protocol.NO_EPOCH, A, None)).fence == ONE
    assert protocol.settled(Kept(ONE, B, A)).staged is None
    whole = protocol.prepare(holding(A), B)
    assert protocol.settled(whole) == whole


def test_a_transaction_names_its_epoch() -> None:
    assert protocol.epoch_of(A.transaction) == ONE
    for text in ("t1", "", ":x:y", "1:", "1:run"):
        assert protocol.epoch_of(text) == protocol.NO_EPOCH


def test_a_withdrawal_ends_when_its_container_is_named_no_more() -> None:
    """In a newer document of its own cluster; others' stay."""

    @dataclasses.dataclass(frozen=True)
    class Out:
        cluster: str
        container: str

    mine, other = Out("k1", "c1"), Out("k2", "c1")
    assert protocol.withdrawals_left([mine, other], "k1", {"c1"}) == [mine, other]
    assert protocol.withdrawals_left([mine, other], "k1", {"c2"}) == [other]
