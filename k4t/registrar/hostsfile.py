"""The text of a hosts file (hosts(5)): `address name` a line, sorted. dnsmasq and CoreDNS read the same."""

from __future__ import annotations

import ipaddress
from typing import Dict, Iterator, Sequence, Set, Tuple

from .document import Document
from .errors import VendorRefused
from .union import Union


def supports(document: Document, driver: str) -> None:
    """Raises VendorRefused for what a hosts file can't say."""
    for record in document.records:
        if record.type != "address":
            raise VendorRefused("record %s: the %s driver has no %s records" % (record.name, driver, record.type))


def text(union: Union) -> str:
    """A name without endpoints has no line."""
    lines: Set[Tuple[str, str]] = set()
    for named in union.records:
        record = named.record
        found: Sequence[str] = record.to or [
            endpoint.ip
            for endpoint in union.endpoints
            if endpoint.app == record.app and record.port_name in ("", endpoint.port_name)
        ]
        if record.type == "address":
            lines.update((named.name, str(ipaddress.ip_address(ip))) for ip in found)
    return "".join("%s %s\n" % (ip, name) for name, ip in sorted(lines))


def check(content: str) -> None:
    """Hold names to DNS's limits. Raises VendorRefused."""
    for name in names(content):
        if len(name) > 253 or any(not 0 < len(label) <= 63 for label in name.split(".")):
            raise VendorRefused("%s is too long for a DNS name" % name[:80])


def names(content: str) -> Dict[str, Set[str]]:
    """Name to addresses."""
    found: Dict[str, Set[str]] = {}
    for line in content.splitlines():
        words = line.split("#")[0].split()
        for name in words[1:]:
            found.setdefault(name, set()).add(words[0])
    return found


def differences(wanted: str, there: str) -> Iterator[str]:
    """How a file's content differs, one sentence for each name and address."""
    mine, theirs = names(wanted), names(there)
    for name in sorted({*mine, *theirs}):
        given, found = mine.get(name, set()), theirs.get(name, set())
        for ip in sorted(given - found):
            yield "%s does not give %s" % (name, ip)
        for ip in sorted(found - given):
            yield "%s gives %s, which is not published" % (name, ip)
