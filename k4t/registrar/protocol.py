"""A participant's side of the commit protocol: what one host keeps for one cluster, and what each message makes of it.

Pure. `service` persists what these functions return, the fake participant keeps it in memory, and the explorer in the
tests runs every interleaving of them. A document stands here as its `Stamp`; what it says is nobody's business but the
clash check's, whose findings are passed in.

    message     accepted when                                             makes
    fence e     e >= fence                                                fence = e; what an older epoch staged is void
    prepare d   d.epoch >= fence, newer than live and not older than      fence = d.epoch, staged = d
                staged, live is d's parent or what its writer saw,
                no clash with live and staged documents of other
                clusters (and the vendor's checker takes it)
    commit t    t is staged and t's epoch >= fence, or t is live          live = staged, staged = nothing
    abort t     always                                                    staged = nothing, if it is t

Each can be done twice, and arrive late: an old message is either refused (Overtaken) or changes nothing. Epochs are
ordered by number, then by the run's random id, so two runs that pick one number don't tie.

On disk the order is fence, staged, live. A crash between two files leaves a fence that is higher than what is staged:
`settled` says that this is void. A commit is one rename, so it either happened or not.
"""

from __future__ import annotations

import dataclasses
from typing import AbstractSet, Iterable, List, Optional, Sequence, Tuple, TypeVar

from .document import Document, Epoch
from .errors import Clash, NotPrepared, Overtaken

NO_EPOCH = Epoch(0, "")
MAX_ANCESTORS = 64
MAX_CLASHES_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Stamp:
    """What the protocol knows of a document. `ancestors`: (seq, sha256) of documents that it follows, parent first,
    without a gap, as far as this participant saw them go by."""

    transaction: str
    epoch: Epoch
    seq: int
    sha256: str
    parent: str = ""
    ancestors: Tuple[Tuple[int, str], ...] = ()

    @property
    def version(self) -> Tuple[Epoch, int]:
        return (self.epoch, self.seq)


@dataclasses.dataclass(frozen=True)
class Kept:
    """One cluster on one participant. A blank one is Kept()."""

    fence: Epoch = NO_EPOCH
    live: Optional[Stamp] = None
    staged: Optional[Stamp] = None


def stamp(document: Document, transaction: str, sha256: str = "") -> Stamp:
    """`sha256` where it is known already: making it of 1,000 endpoints takes 10 ms."""
    return Stamp(transaction, document.epoch, document.seq, sha256 or document.sha256, document.parent)


def transaction_id(epoch: Epoch, kind: str, group: str, seq: int) -> str:
    """No two documents ever have one id: a run never gives out a seq twice, not even after an abort."""
    return "%d:%s:%s:%s:%d" % (epoch.number, epoch.run, kind, group, seq)


def epoch_of(transaction: str) -> Epoch:
    """The epoch in a transaction's id. NO_EPOCH for an id that `transaction_id` didn't make."""
    number, _, rest = transaction.partition(":")
    run, _, more = rest.partition(":")
    return Epoch(int(number), run) if number.isdigit() and run and more else NO_EPOCH


def settled(kept: Kept) -> Kept:
    """What was read from disk, whatever crash came before: nothing live is above the fence, nothing staged below."""
    fence = max(kept.fence, kept.live.epoch) if kept.live else kept.fence
    staged = kept.staged
    if staged is not None and (staged.epoch < fence or (kept.live and staged.version <= kept.live.version)):
        staged = None
    return Kept(fence, kept.live, staged)


def fence(kept: Kept, epoch: Epoch) -> Kept:
    """From here on nothing older than `epoch` is accepted. Raises Overtaken."""
    kept = _accepted(kept, epoch)
    return settled(kept)


def prepare(kept: Kept, new: Stamp, seen: str = "", clashes: Sequence[str] = ()) -> Kept:
    """Stage `new`. `seen`: sha256 of what its writer saw live here, "" for nothing; a member that lags is brought on
    with a document whose parent it never held. `clashes`: with `rivals`. Raises Overtaken, Clash."""
    if kept.live is not None and is_same(kept.live, new):
        return kept  # committed already
    accepted = _accepted(kept, new.epoch)
    _check_order(kept, new, seen)
    if clashes:
        raise Clash(_shown(clashes))
    return dataclasses.replace(accepted, staged=dataclasses.replace(new, ancestors=_ancestors(kept.live, new)))


def commit(kept: Kept, transaction: str, epoch: Epoch) -> Kept:
    """Make what is staged live. `epoch`: the transaction's. Raises Overtaken, NotPrepared."""
    if kept.live is not None and kept.live.transaction == transaction:
        return kept
    if kept.staged is None or kept.staged.transaction != transaction:
        _accepted(kept, epoch)  # overtaken says more than what follows
        if kept.live is not None and kept.live.epoch == epoch:
            raise Overtaken("document %d.%d is live here" % (kept.live.epoch.number, kept.live.seq))
        raise NotPrepared("transaction %s was never prepared here, or was aborted" % transaction)
    accepted = _accepted(kept, kept.staged.epoch)
    return dataclasses.replace(accepted, live=kept.staged, staged=None)


def abort(kept: Kept, transaction: str) -> Kept:
    if kept.staged is not None and kept.staged.transaction == transaction:
        return dataclasses.replace(kept, staged=None)
    return kept


def rivals(others: Iterable[Kept]) -> List[Stamp]:
    """What a new document must not clash with, of other clusters: live *and staged*, since a staged one may be decided
    already."""
    return [held for kept in others for held in (kept.live, kept.staged) if held is not None]


def is_same(one: Stamp, other: Stamp) -> bool:
    return (one.transaction, one.sha256) == (other.transaction, other.sha256)


W = TypeVar("W")


def withdrawals_left(withdrawals: Iterable[W], cluster: str, named: AbstractSet[str]) -> List[W]:
    """A withdrawal ends with a newer document of its cluster that doesn't name its container any more (`named`: the
    containers that it does). Until then it holds, also across documents."""
    return [
        out
        for out in withdrawals
        if out.cluster != cluster or out.container in named  # type: ignore[attr-defined]
    ]


def _accepted(kept: Kept, epoch: Epoch) -> Kept:
    """The fence, raised to `epoch`. Raises Overtaken for less than the fence."""
    if epoch < kept.fence:
        raise Overtaken(
            "run %s (epoch %d) was overtaken by run %s (epoch %d)"
            % (epoch.run, epoch.number, kept.fence.run, kept.fence.number)
        )
    return dataclasses.replace(kept, fence=epoch)


def _check_order(kept: Kept, new: Stamp, seen: str) -> None:
    live = kept.live.sha256 if kept.live else ""
    if live not in (new.parent, seen):
        raise Overtaken(
            "what is live is not what this run saw: %s, not %s"
            % (live[:12] or "nothing", (seen or new.parent)[:12] or "nothing")
        )
    for word, held in (("live", kept.live), ("staged", kept.staged)):
        if held is None or new.version > held.version or (word == "staged" and is_same(held, new)):
            continue
        raise Overtaken(
            "document %d.%d is not newer than the %s %d.%d"
            % (new.epoch.number, new.seq, word, held.epoch.number, held.seq)
        )


def _ancestors(live: Optional[Stamp], new: Stamp) -> Tuple[Tuple[int, str], ...]:
    if not new.parent:
        return ()
    if live is None or live.sha256 != new.parent:
        return ((new.seq - 1, new.parent),)
    return ((live.seq, live.sha256), *live.ancestors)[:MAX_ANCESTORS]


def _shown(clashes: Sequence[str]) -> str:
    found = list(dict.fromkeys(clashes))
    more = len(found) - MAX_CLASHES_SHOWN
    return "; ".join(found[:MAX_CLASHES_SHOWN]) + ("; and %d more" % more if more > 0 else "")
