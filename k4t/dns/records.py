"""What a zone should hold for a union, which names that claims, and how what it holds differs. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from k4t.dns.wire import Change, Name, Records
from k4t.dns.zonestate import FORMAT, owner_name
from k4t.registrar.document import Endpoint, Record
from k4t.registrar.union import Union

RECORDS_PER_NAME = 100
"""Of one type. BIND's max-records-per-type (9.18.28 and later); it answers more with SERVFAIL."""
OWNER_TTL_S = 0
SRV_PRIORITY, SRV_WEIGHT = 0, 1  # equal shares: with weight 0 everywhere RFC 2782 would always try the first one
ADDRESS_TYPES = ("A", "AAAA")

Wanted = dict[Name, Records]


@dataclass(frozen=True, slots=True)
class Claim:
    """A name and the types of it that are k4t's alone. `owned_by`: the TXT that says so. `target`: of an SRV record,
    whose own mark it shares."""

    name: str
    types: tuple[str, ...]
    owned_by: Name
    target: bool = False

    @property
    def asked(self) -> tuple[Name, ...]:
        """What to ask for: an alias in the way shows in any of these answers."""
        return (*((self.name, kind) for kind in self.types), self.owned_by)


# --- from a union to records -------------------------------------------------------------------------------


def render(union: Union) -> Wanted:
    """Records by name and type. A name without endpoints has its TXT alone: it stays k4t's."""
    wanted: Wanted = {}
    for named in union.records:
        record = named.record
        _add(wanted, owner_name(named.name), OWNER_TTL_S, f"k4t={FORMAT} app={record.app} cluster={named.cluster}")
        if record.type == "srv":
            for port, ips in _hosts(union, record):
                target = srv_target(named.name, ips[0])
                _add(wanted, (named.name, "SRV"), record.ttl_s, f"{SRV_PRIORITY} {SRV_WEIGHT} {port} {target}.")
                for ip in ips:
                    _add_address(wanted, target, record.ttl_s, ip)
        else:
            for ip in record.to or [endpoint.ip for endpoint in _endpoints(union, record)]:
                _add_address(wanted, named.name, record.ttl_s, ip)
    return wanted


def _endpoints(union: Union, record: Record) -> Iterator[Endpoint]:
    for endpoint in union.endpoints:
        if endpoint.app == record.app and record.port_name in ("", endpoint.port_name):
            yield endpoint


def _hosts(union: Union, record: Record) -> Iterator[tuple[int, list[str]]]:
    """(port, addresses) of each endpoint: one that is reached in both families is one host, named by IPv4."""
    found: dict[tuple[int, str], list[str]] = {}
    for endpoint in _endpoints(union, record):
        found.setdefault((endpoint.port, endpoint.container or endpoint.ip), []).append(endpoint.ip)
    for (port, _), ips in found.items():
        yield port, sorted(ips, key=lambda ip: (":" in ip, ip))


def _add_address(wanted: Wanted, name: str, ttl_s: int, ip: str) -> None:
    address = ipaddress.ip_address(ip)
    _add(wanted, (name, "A" if address.version == 4 else "AAAA"), ttl_s, str(address))


def _add(wanted: Wanted, name: Name, ttl_s: int, value: str) -> None:
    """All records of a name and type have one TTL (RFC 2181 section 5.2): the least."""
    known = wanted.get(name)
    if known is None:
        wanted[name] = Records(ttl_s, frozenset((value,)))
    else:
        wanted[name] = Records(min(known.ttl_s, ttl_s), known.values | {value})


def srv_target(name: str, ip: str) -> str:
    """The host that an SRV record points to: `10-0-0-1.web.k4t.lab` for `_http._tcp.web.k4t.lab`.

    IPv6 addresses are written out (`fd88-0-0-0-0-0-0-1`): a label neither begins nor ends with a hyphen.
    """
    labels = name.split(".")
    while len(labels) > 1 and labels[0].startswith("_"):
        labels = labels[1:]
    address = ipaddress.ip_address(ip)
    if address.version == 4:
        return ".".join([str(address).replace(".", "-"), *labels])
    groups = [f"{int(group, 16):x}" for group in address.exploded.split(":")]
    return ".".join(["-".join(groups), *labels])


def claims(union: Union) -> tuple[Claim, ...]:
    """Every name that a union needs, once."""
    found: dict[tuple[str, tuple[str, ...]], Claim] = {}
    targets: dict[str, Name] = {}
    for named in union.records:
        types, mark = ("SRV",) if named.record.type == "srv" else ADDRESS_TYPES, owner_name(named.name)
        found[named.name, types] = Claim(named.name, types, mark)
        if named.record.type == "srv":
            names = {srv_target(named.name, ips[0]) for _, ips in _hosts(union, named.record)}
            targets |= dict.fromkeys(sorted(names), mark)
    for target, mark in targets.items():
        found.setdefault((target, ADDRESS_TYPES), Claim(target, ADDRESS_TYPES, mark, target=True))
    return tuple(found.values())


# --- limits ------------------------------------------------------------------------------------------------


def beyond_limits(wanted: Wanted, per_name: int = RECORDS_PER_NAME) -> Iterator[str]:
    """What no server would take, one sentence each."""
    for (name, kind), records in sorted(wanted.items()):
        if len(records.values) > per_name:
            holds = f"BIND holds {per_name}" if per_name == RECORDS_PER_NAME else f"{per_name} are the most"
            yield f"{name} would have {len(records.values)} {kind} records; {holds} of a name"
        if len(name) > 253 or any(not 0 < len(label) <= 63 for label in name.split(".")):
            yield f"{name[:80]} is too long for a DNS name"


def beyond_message(size_bytes: int, limit_bytes: int, wanted: Wanted) -> str:
    """A sentence when not all of it goes into one update message, else "": a blank server is filled by one."""
    if size_bytes <= limit_bytes:
        return ""
    count = sum(len(records.values) for records in wanted.values())
    return f"{count} records of {len(wanted)} names take more than {limit_bytes} bytes, and an update has one message"


# --- what is there -----------------------------------------------------------------------------------------


def strangers(fresh: Iterable[Claim], found: Mapping[Name, Records]) -> dict[Name, str]:
    """Of names that no document claimed so far: those that exist and are nobody's of k4t, with a sentence each."""
    said = {}
    for claim in fresh:
        for kind in () if _is_ours(claim, found) else (*claim.types, "CNAME"):
            records = found.get((claim.name, kind))
            if records is not None:
                words = f"{claim.name} {kind} {_some(records.values)} is in the zone already, and not k4t's"
                said[claim.name, kind] = words
    return said


def _is_ours(claim: Claim, found: Mapping[Name, Records]) -> bool:
    text = found.get(claim.owned_by)
    return text is not None and any(value.startswith("k4t=") for value in text.values)


def _some(values: Iterable[str]) -> str:
    listed = sorted(values)
    return ", ".join(listed[:3]) + (" …" if len(listed) > 3 else "")


def difference(wanted: Wanted, claimed: Iterable[Claim], found: Mapping[Name, Records]) -> Change:
    """What to put and remove, so that all claimed names are as wanted; nothing when they are."""
    asked = {name for claim in claimed for name in (*claim.asked, (claim.name, "CNAME"))}
    return Change(
        put={name: records for name, records in wanted.items() if found.get(name) != records},
        remove=tuple(sorted(name for name in asked if name in found and name not in wanted)),
    )


def must_be_absent(fresh: Iterable[Claim], found: Mapping[Name, Records]) -> tuple[Name, ...]:
    """Nobody's names, as they were looked at: an update is made only if they still are."""
    return tuple(
        sorted((claim.name, kind) for claim in fresh if not _is_ours(claim, found) for kind in (*claim.types, "CNAME"))
    )


def words(wanted: Wanted, claimed: Iterable[Claim], found: Mapping[Name, Records]) -> list[str]:
    """How what is served differs, one sentence each."""
    asked = {name for claim in claimed for name in (*claim.asked, (claim.name, "CNAME"))}
    said: list[str] = []
    for name in sorted(asked | set(wanted)):
        said += _differs(name, wanted.get(name), found.get(name))
    return said


def _differs(name: Name, wanted: Records | None, found: Records | None) -> Iterator[str]:
    host, kind = name
    if kind == "TXT":
        if wanted != found:
            yield f"{host} {'has another text' if found and wanted else 'is missing' if wanted else 'is left over'}"
        return
    if kind == "CNAME":
        if found is not None:
            yield f"{host} is an alias of {_some(found.values)}, which is not published"
        return
    mine = wanted.values if wanted else frozenset[str]()
    theirs = found.values if found else frozenset[str]()
    yield from (f"{host} does not give {value}" for value in sorted(mine - theirs))
    yield from (f"{host} gives {value}, which is not published" for value in sorted(theirs - mine))
    if wanted and found and mine == theirs and wanted.ttl_s != found.ttl_s:
        yield f"{host} {kind} has TTL {found.ttl_s} s, not {wanted.ttl_s} s"


def merged(first: Change, second: Change) -> Change:
    """Both in one message."""
    return replace(
        first,
        absent=(*first.absent, *second.absent),
        equal={**first.equal, **second.equal},
        put={**first.put, **second.put},
        remove=tuple(name for name in (*first.remove, *second.remove) if name not in second.put),
        add={**first.add, **second.add},
        drop={**first.drop, **second.drop},
    )
