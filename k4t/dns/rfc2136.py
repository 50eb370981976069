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
from dataclasses import replace
from typing import TypeVar

from k4t.dns import records
from k4t.dns.book import Book, Own, Picture
from k4t.dns.reverse import Pointing
from k4t.dns.tsig import Key, tsig_key
from k4t.dns.wire import MESSAGE_BYTES, Change, Name, Raced, Records, Server, ZoneServer
from k4t.dns.zone import UPLOAD_BYTES, Seen, Zone
from k4t.dns.zonestate import MAX_WITHDRAWALS, ClusterState, Unreadable, pack
from k4t.errors import K4tError, StepError, VendorRefused
from k4t.model.hosts import Dns
from k4t.model.participant import Capabilities, Kind
from k4t.model.spec import Cluster
from k4t.model.state import NO_EPOCH, ParticipantState
from k4t.registrar import document as documents
from k4t.registrar import protocol
from k4t.registrar.document import BadDocument, Document, Epoch
from k4t.registrar.errors import Refused
from k4t.registrar.protocol import Kept
from k4t.registrar.store import Withdrawal
from k4t.registrar.union import Union, record_clashes
from k4t.remote.registrar import ERRORS
from k4t.remote.transport import Stream

T = TypeVar("T")
RACES = 60
PAUSE_S = 0.03
MAX_SAID = 5
STATE_BYTES = 4_000
"""Of an update message: what is not records (the state, prerequisites, the signature)."""
RECORDS_BYTES = MESSAGE_BYTES - STATE_BYTES


class ZoneParticipant:
    """Implements k4t.model.participant.Participant for a server whose zones can be asked and updated.

    `server_of` makes the client of a zone; it connects when it is first asked.
    """

    kind: Kind = "dns"
    driver: str
    capabilities: Capabilities

    def __init__(self, dns: Dns, cluster: Cluster, server_of: Callable[[str], ZoneServer]) -> None:
        self.name = dns.name
        self.group = dns.group
        self._cluster = cluster.id
        self._zone = Zone(server_of(dns.zone), cluster.id)
        self._book = Book(self._zone)
        self._pointing = Pointing([server_of(zone) for zone in dns.reverse])
        self._epoch = NO_EPOCH
        self._seen = ""

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
        self._pointing.close()

    def withdraw(self, app: str, ip: str, port: int, *, by: str, why: str) -> bool:
        """Take an endpoint out until a document comes that doesn't name its container. False: as `commit`."""

        def out(live: Document, known: tuple[Withdrawal, ...]) -> Sequence[Withdrawal]:
            found = [one for one in live.endpoints if (one.app, one.ip, one.port) == (app, ip, port)]
            if not found:
                raise StepError(f"this cluster does not publish {app} {ip}:{port}", host=self.name)
            return [*known, *(Withdrawal(self._cluster, ip, port, one.container, by, why) for one in found)]

        return self._rounds(lambda seen: self._withdrawn(seen, out))

    def restore(self, ip: str, port: int) -> bool:
        """Take a withdrawal back. False: as `commit`."""
        return self._rounds(
            lambda seen: self._withdrawn(
                seen, lambda _, known: [one for one in known if (one.ip, one.port) != (ip, port)]
            )
        )

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
        own = self._book.mine(seen)
        differences = self._differences(seen, self._book.union(seen, own.document, own.state.out))
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
            others=tuple(other.document for other in self._book.others(seen, "live")),
            differences=((own.damage,) if own.damage else ()) + differences,
            problem=own.state.problem,
            id=seen.index.id,
            ancestors=own.kept.live.ancestors if own.kept.live else (),
            staged=own.kept.staged.transaction if own.kept.staged else "",
        )

    def _verified(self, seen: Seen, document: Document) -> tuple[str, ...]:
        own = self._book.mine(seen)
        held = own.document.sha256 if own.document else ""
        if held != document.sha256:
            return (f"holds document {held[:12] or 'none'}, not {document.sha256[:12]}",)
        said = (f"not rendered: {own.state.problem}",) if own.state.problem else ()
        return said + self._differences(seen, self._book.union(seen, document, own.state.out))

    def _differences(self, seen: Seen, union: Union) -> tuple[str, ...]:
        """Raises Raced where another cluster has published since the zone was read: what it has now would be compared
        with what it had."""
        claims, wanted = records.claims(union), records.render(union)
        found = self._zone.server.ask(name for claim in claims for name in claim.asked)
        said = (*records.words(wanted, claims, found), *self._pointing.differences(wanted, claims))
        if said and self._zone.moved(seen):
            raise Raced("another cluster wrote first")
        return said

    def _fenced(self, seen: Seen, epoch: Epoch) -> None:
        own = self._book.mine(seen)
        self._keep(seen, own, protocol.fence(own.kept, epoch))

    def _aborted(self, seen: Seen, transaction: str) -> None:
        own = self._book.mine(seen)
        self._keep(seen, own, protocol.abort(own.kept, transaction))

    def _keep(self, seen: Seen, own: Own, kept: Kept) -> None:
        """What became of the fence and of what was staged."""
        state = replace(own.state, fence=kept.fence, staged=own.state.staged if kept.staged else None)
        if state != own.state:
            self._zone.write(seen, state, Change())

    def _staged(self, seen: Seen, transaction: str, document: Document) -> None:
        own = self._book.mine(seen)
        rivals = self._book.others(seen, "live", "staged")
        clashes = documents.clashes(document, [rival.document for rival in rivals])
        clashes += record_clashes(self._book.holding(document), rivals)
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

    def _check(self, seen: Seen, own: Own, document: Document) -> None:
        """All that commit would be refused for. Raises VendorRefused."""
        picture = self._book.look(seen, own, self._book.union(seen, document, ()), whole=False)
        gone = {name for claim in picture.claims for name in claim.asked if name not in picture.wanted}
        size_bytes = self._zone.server.size_bytes(Change(put=picture.wanted, remove=tuple(gone)))
        refused = [*records.beyond_limits(picture.wanted, self.capabilities.addresses_per_name), *picture.strangers]
        refused += filter(None, [records.beyond_message(size_bytes, RECORDS_BYTES, picture.wanted)])
        if refused:
            more = f"; and {len(refused) - MAX_SAID} more" if len(refused) > MAX_SAID else ""
            raise VendorRefused("; ".join(refused[:MAX_SAID]) + more, host=self.name)

    def _committed(self, seen: Seen, transaction: str) -> bool:
        own = self._book.mine(seen)
        epoch = protocol.epoch_of(transaction)
        made = protocol.commit(own.kept, transaction, self._epoch if epoch == NO_EPOCH else epoch)
        state = own.state
        if made != own.kept:
            state = replace(state, fence=made.fence, live=state.staged, staged=None)
        live = state.live
        assert live is not None  # noqa: S101 - commit says so
        document = self._zone.document(self._cluster, live)[0]
        named = {endpoint.container for endpoint in document.endpoints}
        state = replace(state, out=tuple(protocol.withdrawals_left(state.out, self._cluster, named)))
        served = self._serve(seen, own, state, document)
        self._seen = live.sha256
        return served

    def _serve(self, seen: Seen, own: Own, state: ClusterState, document: Document) -> bool:
        """Records and state in one update. False: the state alone, since the server won't have the records."""
        picture = self._book.look(seen, own, self._book.union(seen, document, state.out), whole=True)
        problem = "; ".join(picture.strangers[:MAX_SAID])
        if not problem:
            change = records.difference(picture.wanted, picture.claims, picture.found)
            good = replace(state, problem="", rendered=None)
            if good != own.state or change.put or change.remove:
                problem = self._try(seen, own, good, picture, change)
        if not problem:
            self._pointing.add(picture.wanted, picture.claims)
            return True
        rendered = own.state.rendered if own.state.problem else own.state.live
        bad = replace(state, problem=problem, rendered=rendered)
        if bad != own.state:
            self._zone.write(seen, bad, Change())
        return False

    def _try(self, seen: Seen, own: Own, good: ClusterState, picture: Picture, change: Change) -> str:
        """The server's words when it won't have it."""
        before = self._book.union(seen, own.document, own.state.out)
        self._pointing.take_out(records.render(before), picture.wanted, picture.claims)
        absent = records.must_be_absent(picture.fresh, picture.found)
        try:
            self._zone.write(seen, good, replace(change, absent=absent))
        except VendorRefused as refusal:
            return refusal.message
        return ""

    def _withdrawn(
        self, seen: Seen, change: Callable[[Document, tuple[Withdrawal, ...]], Sequence[Withdrawal]]
    ) -> bool:
        own = self._book.mine(seen)
        if own.document is None:
            raise StepError("nothing of this cluster is published there", host=self.name)
        out = tuple(dict.fromkeys(change(own.document, own.state.out)))
        if len(out) > MAX_WITHDRAWALS:
            raise StepError(
                f"{len(out)} endpoints would be withdrawn; a zone remembers {MAX_WITHDRAWALS}", host=self.name
            )
        return self._serve(seen, own, replace(own.state, out=out), own.document)


class Rfc2136(ZoneParticipant):
    """`secret` gives the TSIG key's text, and is asked when the server first is; `dial` opens a TCP connection."""

    driver = "rfc2136"
    capabilities = Capabilities(addresses_per_name=records.RECORDS_PER_NAME, update_bytes=RECORDS_BYTES)

    def __init__(self, dns: Dns, cluster: Cluster, secret: Callable[[], str], dial: Callable[[], Stream]) -> None:
        self._dns = dns
        self._secret = secret
        self._key: Key | None = None
        super().__init__(dns, cluster, lambda zone: Server(dns.name, zone, self._signed, dial))

    def _signed(self) -> Key | None:
        if self._key is None:
            self._key = tsig_key(self._dns, self._secret)
        return self._key


def _size_bytes(pieces: Mapping[Name, Records]) -> int:
    return sum(len(value) for piece in pieces.values() for value in piece.values)
