"""Any DNS server that takes updates by RFC 2136: BIND, Knot, PowerDNS, Windows DNS with TSIG … No registrar, no shell:
the master asks the server itself, and all that must be remembered stands in the zone (see zonestate).

Who writes says what it read (see zone): a run that was overtaken, two clusters at once, a reply that was lost and an
update that was sent twice all come to the same end as with a registrar, whose rules (k4t.registrar.protocol) these are.
A commit is one update message: all records and what remembers them, or nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

from k4t.dns import records
from k4t.dns.records import Claim, Wanted
from k4t.dns.reverse import Pointers, Reverse, pointers
from k4t.dns.wire import MESSAGE_BYTES, Change, Key, Name, Raced, Records, Server, parse_key
from k4t.dns.zone import UPLOAD_BYTES, Seen, Zone
from k4t.dns.zonestate import Ancestors, ClusterState, Pointer, Unreadable, pack
from k4t.errors import K4tError, StepError, VendorRefused
from k4t.model.hosts import Dns
from k4t.model.participant import Capabilities, Kind
from k4t.model.spec import Cluster
from k4t.model.state import NO_EPOCH, ParticipantState
from k4t.registrar import document as documents
from k4t.registrar import protocol
from k4t.registrar.document import BadDocument, Document, Epoch
from k4t.registrar.errors import Refused
from k4t.registrar.protocol import Kept, Stamp
from k4t.registrar.store import Holding
from k4t.registrar.union import Union, record_clashes, unite
from k4t.remote.registrar import ERRORS
from k4t.remote.transport import Stream

T = TypeVar("T")
RACES = 60
PAUSE_S = 0.03
MAX_SAID = 5
STATE_BYTES = 4_000
"""Of an update message: what is not records (the state, prerequisites, the signature)."""
RECORDS_BYTES = MESSAGE_BYTES - STATE_BYTES


class Rfc2136:
    """Implements k4t.model.participant.Participant.

    `secret` gives the TSIG key's text, and is asked when the server first is; `dial` opens a TCP connection to it.
    """

    kind: Kind = "dns"
    driver = "rfc2136"
    capabilities = Capabilities(addresses_per_name=records.RECORDS_PER_NAME, update_bytes=RECORDS_BYTES)

    def __init__(self, dns: Dns, cluster: Cluster, secret: Callable[[], str], dial: Callable[[], Stream]) -> None:
        self.name = dns.name
        self.group = dns.group
        self._cluster = cluster.id
        self._dns = dns
        self._secret = secret
        self._key: Key | None = None
        self._zone = Zone(Server(dns.name, dns.zone, self._signed, dial), cluster.id)
        self._reverse = Reverse([Server(dns.name, zone, self._signed, dial) for zone in dns.reverse])
        self._epoch = NO_EPOCH
        self._seen = ""
        self._unpointed = ""

    def _signed(self) -> Key | None:
        if self._key is None:
            self._key = tsig_key(self._dns, self._secret)
        return self._key

    # --- the contract --------------------------------------------------------------------------------------

    def observe(self) -> ParticipantState:
        try:
            return self._rounds(self._observed)
        except K4tError as error:
            return ParticipantState(
                self.kind, self.name, self.group, self.driver, reachable=False,
                problem=str(error), exit_status=error.exit_status,
            )  # fmt: skip

    def fence(self, epoch: Epoch) -> None:
        self._rounds(lambda seen: self._fenced(seen, epoch))
        self._epoch = epoch

    def prepare(self, transaction: str, document: Document) -> None:
        self._rounds(lambda seen: self._staged(seen, transaction, document))

    def commit(self, transaction: str) -> bool:
        return self._rounds(lambda seen: self._committed(seen, transaction))

    def abort(self, transaction: str) -> None:
        self._rounds(lambda seen: self._aborted(seen, transaction))

    def verify(self, document: Document) -> tuple[str, ...]:
        return self._rounds(lambda seen: self._verified(seen, document))

    def close(self) -> None:
        self._zone.server.close()
        self._reverse.close()

    def _rounds(self, act: Callable[[Seen], T]) -> T:
        """Read, decide, write; again when somebody else wrote first. Raises what Server raises, and StepError."""
        for _ in range(RACES):
            seen = None
            try:
                seen = self._zone.read()
                return act(seen)
            except Raced:
                time.sleep(random.uniform(0, PAUSE_S))  # noqa: S311 - no secret depends on it
            except Unreadable as damage:
                if seen is None or not self._zone.moved(seen):
                    raise StepError(
                        str(damage), "put it right, or remove it and publish again", host=self.name
                    ) from damage
            except Refused as refusal:
                error, remedy = ERRORS.get(refusal.kind, (StepError, ""))
                raise error(str(refusal), remedy.format(kind="dns", name=self.name), host=self.name) from refusal
        raise StepError(f"{RACES} times somebody else wrote to {self._zone.name} first", "try again", host=self.name)

    # --- what they do with one reading of the zone ----------------------------------------------------------

    def _observed(self, seen: Seen) -> ParticipantState:
        own = self._mine(seen)
        served = self._served(seen) + ([self._holding(own.document)] if own.document else [])
        differences = self._differences(unite(served))
        self._seen = own.document.sha256 if own.document else ""
        return ParticipantState(
            self.kind,
            self.name,
            self.group,
            self.driver,
            reachable=True,
            epoch=own.kept.fence,
            document=own.document,
            digest=own.document.digest if own.document else "",
            rendered=not own.state.problem,
            others=tuple(other.document for other in self._others(seen, "live")),
            differences=((own.damage,) if own.damage else ()) + differences,
            problem=own.state.problem,
            id=seen.index.id,
            ancestors=own.kept.live.ancestors if own.kept.live else (),
            staged=own.kept.staged.transaction if own.kept.staged else "",
        )

    def _fenced(self, seen: Seen, epoch: Epoch) -> None:
        own = self._mine(seen)
        self._keep(seen, own, protocol.fence(own.kept, epoch))

    def _aborted(self, seen: Seen, transaction: str) -> None:
        own = self._mine(seen)
        self._keep(seen, own, protocol.abort(own.kept, transaction))

    def _keep(self, seen: Seen, own: _Own, kept: Kept) -> None:
        """What became of the fence and of what was staged."""
        state = replace(own.state, fence=kept.fence, staged=own.state.staged if kept.staged else None)
        if state != own.state:
            self._zone.write(seen, state, Change())

    def _staged(self, seen: Seen, transaction: str, document: Document) -> None:
        own = self._mine(seen)
        rivals = self._others(seen, "live", "staged")
        clashes = documents.clashes(document, [rival.document for rival in rivals])
        clashes += record_clashes(self._holding(document), rivals)
        made = protocol.prepare(own.kept, protocol.stamp(document, transaction), self._seen, clashes)
        if made.staged is None or made == own.kept:
            return  # it is live, or staged, already
        self._check(seen, own, document)
        try:
            pointer, pieces = pack(self._zone.name, document, transaction, made.staged.ancestors)
        except BadDocument as error:
            raise VendorRefused(str(error), "publish less through this server", host=self.name) from error
        if own.state.upload != pointer and _size_bytes(pieces) > UPLOAD_BYTES:
            # Where pieces will be is written first, so that a run that dies here leaves nothing unknown behind.
            self._zone.write(seen, replace(own.state, upload=pointer), Change())
            self._zone.upload(pieces)
            raise Raced  # by ourselves: now it can be staged
        state = replace(own.state, fence=made.fence, staged=pointer, upload=None)
        self._zone.write(seen, state, Change(put={} if own.state.upload == pointer else pieces))

    def _committed(self, seen: Seen, transaction: str) -> bool:
        own = self._mine(seen)
        epoch = protocol.epoch_of(transaction)
        made = protocol.commit(own.kept, transaction, self._epoch if epoch == NO_EPOCH else epoch)
        state = own.state
        if made != own.kept:
            state = replace(state, fence=made.fence, live=state.staged, staged=None)
        assert state.live is not None  # noqa: S101 - commit says so
        served = self._serve(seen, own, state, self._zone.document(self._cluster, state.live)[0])
        self._seen = state.live.sha256
        return served

    def _verified(self, seen: Seen, document: Document) -> tuple[str, ...]:
        own = self._mine(seen)
        held = own.document.sha256 if own.document else ""
        if held != document.sha256:
            return (f"holds document {held[:12] or 'none'}, not {document.sha256[:12]}",)
        said = (f"not rendered: {own.state.problem}",) if own.state.problem else ()
        return said + self._differences(unite([*self._served(seen), self._holding(document)]))

    # --- reading -------------------------------------------------------------------------------------------

    def _mine(self, seen: Seen) -> _Own:
        """Raises Unreadable for what is staged; of a live document that can't be read, `damage` tells."""
        state = seen.state(self._cluster)
        live: Stamp | None = None
        document: Document | None = None
        damage = ""
        if state.live is not None:
            try:
                document, ancestors = self._zone.document(self._cluster, state.live)
                live = _stamp(document, state.live, ancestors)
            except Unreadable as unreadable:
                if self._zone.moved(seen):
                    raise
                damage = str(unreadable)
        staged = _stamp(*self._found(state.staged)) if state.staged is not None else None
        return _Own(state, protocol.settled(Kept(state.fence, live, staged)), document, damage)

    def _found(self, pointer: Pointer) -> tuple[Document, Pointer, Ancestors]:
        document, ancestors = self._zone.document(self._cluster, pointer)
        return document, pointer, ancestors

    def _holding(self, document: Document) -> Holding:
        return Holding(document, "", self._zone.name)

    def _others(self, seen: Seen, *words: str) -> list[Holding]:
        """Documents of the other clusters: `live`, `staged`, `rendered` (where that is another than the live one)."""
        states = [(cluster, state) for cluster, state in seen.states.items() if cluster != self._cluster]
        pointers = [(cluster, getattr(state, word)) for cluster, state in states for word in words]
        return [self._holding(self._zone.document(cluster, pointer)[0]) for cluster, pointer in pointers if pointer]

    def _served(self, seen: Seen) -> list[Holding]:
        """Of the other clusters, what the records are made of: one that was refused at commit serves what it had."""
        found = []
        for cluster, state in seen.states.items():
            pointer = state.rendered if state.problem else state.live
            if cluster != self._cluster and pointer is not None:
                found.append(self._holding(self._zone.document(cluster, pointer)[0]))
        return found

    def _before(self, seen: Seen, own: _Own) -> list[Claim]:
        """What is claimed by all that was published so far."""
        live = self._others(seen, "live") + ([self._holding(own.document)] if own.document else [])
        rendered = self._others(seen, "rendered")
        if own.state.rendered is not None:
            rendered.append(self._holding(self._found(own.state.rendered)[0]))
        return list(dict.fromkeys((*records.claims(unite(live)), *records.claims(unite(rendered)))))

    def _differences(self, union: Union) -> tuple[str, ...]:
        claims, wanted = records.claims(union), records.render(union)
        found = self._zone.server.ask(name for claim in claims for name in claim.asked)
        return (*records.words(wanted, claims, found), *self._reverse_differences(_pointers(wanted, claims)))

    def _reverse_differences(self, now: Pointers) -> tuple[str, ...]:
        """A reverse zone that can't be asked is told like one that differs: names come first."""
        try:
            found = tuple(self._reverse.differences(now))
        except K4tError as error:
            return (f"reverse zone: {error.words}",)
        return (self._unpointed, *found) if found and self._unpointed else found

    # --- records -------------------------------------------------------------------------------------------

    def _look(self, seen: Seen, own: _Own, document: Document, *, whole: bool) -> _Picture:
        """What the zone should hold with this document, and what it does: all names, or only new ones."""
        union = unite([*self._served(seen), self._holding(document)])
        before = self._before(seen, own)
        known = set(before)
        claims = records.claims(union)
        fresh = [claim for claim in claims if claim not in known]
        every = list(dict.fromkeys((*claims, *before)))
        found = self._zone.server.ask(name for claim in (every if whole else fresh) for name in claim.asked)
        alien = records.strangers(fresh, found)
        unreal = {name for name in alien if self._zone.lacks(name)}  # a wildcard of the zone answered
        found = {name: one for name, one in found.items() if name not in unreal}
        said = tuple(text for name, text in alien.items() if name not in unreal)
        return _Picture(records.render(union), every, fresh, found, said)

    def _check(self, seen: Seen, own: _Own, document: Document) -> None:
        """All that commit would be refused for. Raises VendorRefused."""
        picture = self._look(seen, own, document, whole=False)
        gone = {name for claim in picture.claims for name in claim.asked if name not in picture.wanted}
        size_bytes = self._zone.server.size_bytes(Change(put=picture.wanted, remove=tuple(gone)))
        refused = [*records.beyond_limits(picture.wanted), *picture.strangers]
        refused += filter(None, [records.beyond_message(size_bytes, RECORDS_BYTES, picture.wanted)])
        if refused:
            more = f"; and {len(refused) - MAX_SAID} more" if len(refused) > MAX_SAID else ""
            raise VendorRefused("; ".join(refused[:MAX_SAID]) + more, host=self.name)

    def _serve(self, seen: Seen, own: _Own, state: ClusterState, document: Document) -> bool:
        """Records and state in one update. False: the state alone, since the server won't have the records."""
        picture = self._look(seen, own, document, whole=True)
        problem = "; ".join(picture.strangers[:MAX_SAID])
        now = _pointers(picture.wanted, picture.claims)
        if not problem:
            change = records.difference(picture.wanted, picture.claims, picture.found)
            good = replace(state, problem="", rendered=None)
            if good == own.state and not change.put and not change.remove:
                self._point(now)
                return True
            absent = records.must_be_absent(picture.fresh, picture.found)
            try:
                self._unpoint(seen, own, now)
                self._zone.write(seen, good, replace(change, absent=absent))
            except VendorRefused as refusal:
                problem = refusal.message
            else:
                self._point(now)
                return True
        rendered = own.state.rendered if own.state.problem else own.state.live
        bad = replace(state, problem=problem, rendered=rendered)
        if bad != own.state:
            self._zone.write(seen, bad, Change())
        return False

    def _unpoint(self, seen: Seen, own: _Own, now: Pointers) -> None:
        if self._dns.reverse and own.document is not None:
            union = unite([*self._served(seen), self._holding(own.document)])
            with suppress(K4tError):
                self._reverse.take_out(_pointers(records.render(union), records.claims(union)), now)

    def _point(self, now: Pointers) -> None:
        """Whatever comes of it: the read-back tells."""
        self._unpointed = ""
        try:
            self._reverse.add(now)
        except K4tError as error:
            self._unpointed = f"reverse zone: {error.words}"


def _pointers(wanted: Wanted, claims: Sequence[Claim]) -> Pointers:
    return pointers(wanted, [claim.name for claim in claims if claim.owned_by is not None])


def tsig_key(dns: Dns, secret: Callable[[], str]) -> Key | None:
    """The tree's; None when it names none. Raises StepError, SecretUnavailable."""
    return parse_key(dns.key_name, secret(), dns.secret) if dns.key_name else None


@dataclass(frozen=True, slots=True)
class _Own:
    """This cluster in a zone. `document`: the live one. `damage`: why that can't be read."""

    state: ClusterState
    kept: Kept
    document: Document | None
    damage: str


@dataclass(frozen=True, slots=True)
class _Picture:
    """`claims`: all names, those that go too; `fresh`: those that no document had so far."""

    wanted: Wanted
    claims: Sequence[Claim]
    fresh: Sequence[Claim]
    found: Mapping[Name, Records]
    strangers: tuple[str, ...]


def _stamp(document: Document, pointer: Pointer, ancestors: Ancestors) -> Stamp:
    return replace(protocol.stamp(document, pointer.transaction, pointer.sha256), ancestors=ancestors)


def _size_bytes(pieces: Mapping[Name, Records]) -> int:
    return sum(len(value) for piece in pieces.values() for value in piece.values)
