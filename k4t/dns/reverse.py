"""PTR records: for the addresses of address records, in the reverse zones that <dns reverse="…"> names.

They follow the records and never stand in their way. A reverse zone is another zone, and an update is of one: what goes
is taken out before the commit, what comes is added after it, so that a run that dies in between leaves an address
without a name, which the next read-back tells, and none with a wrong one. Values are added and taken out one by one:
what others say of an address stays.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from k4t.dns.records import Claim, Wanted
from k4t.dns.wire import Change, Name, Records, ZoneServer
from k4t.errors import K4tError

NAMES_PER_ADDRESS = 20
"""The first ones in alphabetical order: on a host network one address can have hundreds."""

Pointers = Mapping[Name, Records]


class Pointing:
    """The reverse zones of one server, asked and updated as the forward one is. Nothing here holds a publication up:
    what could not be done is told by `differences`."""

    def __init__(self, zones: Sequence[ZoneServer]) -> None:
        self._zones = zones
        self._failed = ""

    def take_out(self, before: Wanted, now: Wanted, claims: Sequence[Claim]) -> None:
        """What was published and no longer is."""
        left = _pointers(now, claims)
        for zone, mine in self._by_zone(before, claims):
            gone = {at: one.values - (left[at].values if at in left else frozenset()) for at, one in mine.items()}
            drop = {at: values for at, values in gone.items() if values}
            if drop:
                with suppress(K4tError):
                    zone.update(Change(drop=drop))

    def add(self, now: Wanted, claims: Sequence[Claim]) -> None:
        """What is missing, with the TTL that the address's other names have."""
        self._failed = ""
        try:
            for zone, mine in self._by_zone(now, claims):
                found = zone.ask(mine)
                missing = {at: _missing(one, found.get(at)) for at, one in mine.items()}
                change = Change(add={at: one for at, one in missing.items() if one.values})
                if change.add:
                    zone.update(change)
        except K4tError as error:
            self._failed = f"reverse zone: {error.words}"

    def differences(self, now: Wanted, claims: Sequence[Claim]) -> tuple[str, ...]:
        """One sentence each. A reverse zone that can't be asked is told like one that differs."""
        said: list[str] = []
        try:
            for zone, mine in self._by_zone(now, claims):
                found = zone.ask(mine)
                for at, wanted in sorted(mine.items()):
                    names = sorted(_missing(wanted, found.get(at)).values)
                    said += [f"{at[0]} does not give {name.rstrip('.')}" for name in names]
        except K4tError as error:
            return (f"reverse zone: {error.words}",)
        return (self._failed, *said) if said and self._failed else tuple(said)

    def close(self) -> None:
        for zone in self._zones:
            zone.close()

    def _by_zone(self, wanted: Wanted, claims: Sequence[Claim]) -> Iterator[tuple[ZoneServer, Pointers]]:
        pointers = _pointers(wanted, claims) if self._zones else {}
        for zone in self._zones:
            mine = {at: one for at, one in pointers.items() if at[0].endswith("." + zone.zone)}
            if mine:
                yield zone, mine


def _pointers(wanted: Wanted, claims: Sequence[Claim]) -> Pointers:
    """PTR records for the claimed names that have addresses. A wildcard is no host's name, nor is an SRV's target."""
    found: dict[Name, Records] = {}
    for name in sorted({claim.name for claim in claims if not claim.target and not claim.name.startswith("*")}):
        for kind in ("A", "AAAA"):
            records = wanted.get((name, kind))
            for ip in records.values if records is not None else ():
                at = (ipaddress.ip_address(ip).reverse_pointer, "PTR")
                known = found.get(at, Records(records.ttl_s if records else 0, frozenset()))
                if len(known.values) < NAMES_PER_ADDRESS:
                    found[at] = Records(known.ttl_s, known.values | {name + "."})
    return found


def _missing(wanted: Records, found: Records | None) -> Records:
    return Records(found.ttl_s, wanted.values - found.values) if found is not None else wanted
