"""PTR records: for the addresses of address records, in the reverse zones that <dns reverse="…"> names.

They follow the records and never stand in their way. A reverse zone is another zone, and an update is of one: what goes
is taken out before the commit, what comes is added after it, so that a run that dies in between leaves an address
without a name, which the next read-back tells, and none with a wrong one. Values are added and taken out one by one:
what others say of an address stays.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence

from k4t.dns.records import Wanted
from k4t.dns.wire import Change, Name, Records, Server

NAMES_PER_ADDRESS = 20
"""The first ones in alphabetical order: on a host network one address can have hundreds."""

Pointers = Mapping[Name, Records]


def pointers(wanted: Wanted, names: Sequence[str]) -> Pointers:
    """PTR records for those of the `names` that have addresses. A wildcard is no host's name."""
    found: dict[Name, Records] = {}
    for name in sorted(names):
        for kind in ("A", "AAAA"):
            records = wanted.get((name, kind))
            for ip in records.values if records is not None and not name.startswith("*") else ():
                at = (ipaddress.ip_address(ip).reverse_pointer, "PTR")
                known = found.get(at, Records(records.ttl_s if records else 0, frozenset()))
                if len(known.values) < NAMES_PER_ADDRESS:
                    found[at] = Records(known.ttl_s, known.values | {name + "."})
    return found


class Reverse:
    """`zones`: asked and updated as the forward one is."""

    def __init__(self, zones: Sequence[Server]) -> None:
        self._zones = zones

    def take_out(self, before: Pointers, now: Pointers) -> None:
        """What was published and no longer is."""
        for zone, mine in self._by_zone(before):
            left = {at: one.values - (now[at].values if at in now else frozenset()) for at, one in mine.items()}
            drop = {at: values for at, values in left.items() if values}
            if drop:
                zone.update(Change(drop=drop))

    def add(self, now: Pointers) -> None:
        """What is missing, with the TTL that the address's other names have."""
        for zone, mine in self._by_zone(now):
            found = zone.ask(mine)
            missing = {at: self._missing(one, found.get(at)) for at, one in mine.items()}
            change = Change(add={at: one for at, one in missing.items() if one.values})
            if change.add:
                zone.update(change)

    def differences(self, now: Pointers) -> Iterator[str]:
        for zone, mine in self._by_zone(now):
            found = zone.ask(mine)
            for at, wanted in sorted(mine.items()):
                missing = self._missing(wanted, found.get(at)).values
                yield from (f"{at[0]} does not give {name.rstrip('.')}" for name in sorted(missing))

    def close(self) -> None:
        for zone in self._zones:
            zone.close()

    @staticmethod
    def _missing(wanted: Records, found: Records | None) -> Records:
        return Records(found.ttl_s, wanted.values - found.values) if found is not None else wanted

    def _by_zone(self, wanted: Pointers) -> Iterator[tuple[Server, dict[Name, Records]]]:
        for zone in self._zones:
            mine = {at: one for at, one in wanted.items() if at[0].endswith("." + zone.zone)}
            if mine:
                yield zone, mine
