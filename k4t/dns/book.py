"""What one reading of a zone says: of this cluster and the others, what the zone should hold, and what it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from k4t.dns import records
from k4t.dns.records import Claim, Wanted
from k4t.dns.wire import Name, Records
from k4t.dns.zone import Seen, Zone
from k4t.dns.zonestate import Ancestors, ClusterState, Pointer, Unreadable
from k4t.registrar import protocol
from k4t.registrar.document import Document
from k4t.registrar.protocol import Kept, Stamp
from k4t.registrar.store import Holding, Withdrawal
from k4t.registrar.union import Union, unite


@dataclass(frozen=True, slots=True)
class Own:
    """This cluster in a zone. `document`: the live one. `damage`: why that can't be read."""

    state: ClusterState
    kept: Kept
    document: Document | None
    damage: str


@dataclass(frozen=True, slots=True)
class Picture:
    """`claims`: all names, those that go too; `fresh`: those that no document had so far. `strangers`: in sentences."""

    wanted: Wanted
    claims: Sequence[Claim]
    fresh: Sequence[Claim]
    found: Mapping[Name, Records]
    strangers: tuple[str, ...]


class Book:
    """Reads alone. Raises what Zone raises; Unreadable for another cluster's document: a union without it would take
    out what it holds."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._cluster = zone.cluster

    def mine(self, seen: Seen) -> Own:
        """What is staged and can't be read is void, as if it had never been staged."""
        state = seen.state(self._cluster)
        document, live, damage = self._own(seen, state.live)
        _, staged, _ = self._own(seen, state.staged)
        return Own(state, protocol.settled(Kept(state.fence, live, staged)), document, damage)

    def _own(self, seen: Seen, pointer: Pointer | None) -> tuple[Document | None, Stamp | None, str]:
        """(document, its stamp, why there is none)."""
        if pointer is None:
            return None, None, ""
        try:
            document, ancestors = self._zone.document(self._cluster, pointer)
        except Unreadable as unreadable:
            if self._zone.moved(seen):
                raise
            return None, None, str(unreadable)
        return document, _stamp(document, pointer, ancestors), ""

    def holding(self, document: Document) -> Holding:
        return Holding(document, "", self._zone.name)

    def others(self, seen: Seen, *words: str) -> list[Holding]:
        """Documents of the other clusters: `live`, `staged`, `rendered` (where that is another than the live one)."""
        states = [(cluster, state) for cluster, state in seen.states.items() if cluster != self._cluster]
        pointers = [(cluster, getattr(state, word)) for cluster, state in states for word in words]
        return [self.holding(self._zone.document(cluster, pointer)[0]) for cluster, pointer in pointers if pointer]

    def union(self, seen: Seen, document: Document | None, out: Sequence[Withdrawal]) -> Union:
        """With `document` and the withdrawals `out` for this cluster. Of the others what their records are made of: one
        that was refused at commit serves what it had."""
        served = [self.holding(document)] if document is not None else []
        gone = list(out)
        for cluster, state in seen.states.items():
            pointer = state.rendered if state.problem else state.live
            if cluster != self._cluster:
                gone += state.out
                served += [self.holding(self._zone.document(cluster, pointer)[0])] if pointer is not None else []
        return unite(served, (), gone)

    def before(self, seen: Seen, own: Own) -> list[Claim]:
        """What is claimed by all that was published so far."""
        live = self.others(seen, "live") + ([self.holding(own.document)] if own.document else [])
        rendered = self.others(seen, "rendered")
        document, _, _ = self._own(seen, own.state.rendered)
        if document is not None:
            rendered.append(self.holding(document))
        return list(dict.fromkeys((*records.claims(unite(live)), *records.claims(unite(rendered)))))

    def look(self, seen: Seen, own: Own, union: Union, *, whole: bool) -> Picture:
        """What the zone should hold, and what it does: of all names, or of new ones alone."""
        before = self.before(seen, own)
        known = set(before)
        claims = records.claims(union)
        fresh = [claim for claim in claims if claim not in known]
        every = list(dict.fromkeys((*claims, *before)))
        found = self._zone.server.ask(name for claim in (every if whole else fresh) for name in claim.asked)
        alien = records.strangers(fresh, found)
        unreal = {name for name in alien if self._zone.lacks(name)}  # a wildcard of the zone answered
        found = {name: one for name, one in found.items() if name not in unreal}
        said = tuple(text for name, text in alien.items() if name not in unreal)
        return Picture(records.render(union), every, fresh, found, said)


def _stamp(document: Document, pointer: Pointer, ancestors: Ancestors) -> Stamp:
    return replace(protocol.stamp(document, pointer.transaction, pointer.sha256), ancestors=ancestors)
