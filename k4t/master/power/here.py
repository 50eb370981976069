"""Whether this machine is the one that `<power host=…>` names. A laptop or a CI runner is never switched off."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

NOBODY = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "(none)"})
"""What machines are called that nobody has named: they may be any."""


def names(wanted: str = "") -> tuple[str, ...]:
    """What this machine calls itself. Its domain is asked of the resolver, which may take its time, only where it
    decides: it has none in its own name, and the wanted one begins like it."""
    own = socket.gethostname()
    same = _plain(wanted).partition(".")[0] == _plain(own)
    full = socket.getfqdn(own) if "." in _plain(wanted) and same else own
    return tuple(dict.fromkeys(name for name in (own, full) if name))


def is_one_of(wanted: str, own: Sequence[str]) -> bool:
    """Pure. A name with a domain is compared whole, where this machine knows its domain; else the first labels are."""
    name = _plain(wanted)
    mine = [_plain(one) for one in own]
    mine = [one for one in mine if one and one not in NOBODY]
    if not name or name in NOBODY or _is_address(name):
        return False
    if name in mine:
        return True
    domains = [one for one in mine if "." in one]
    if "." in name and domains:
        return False
    return name.partition(".")[0] in {one.partition(".")[0] for one in mine}


def is_here(wanted: str) -> bool:
    """As `is_one_of`; an address is compared with this machine's own ones."""
    return _is_own_address(wanted) if _is_address(wanted) else is_one_of(wanted, names(wanted))


def boot() -> str:
    """This boot of this machine, and of this container or namespace on it: its kernel's id (random(4)), and when its
    first process was started (proc(5), field 22 of stat). "" where that can't be known."""
    with suppress(OSError, IndexError):
        fields = Path("/proc/1/stat").read_text().rpartition(")")[2].split()
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {fields[19]}"
    return ""


def _plain(name: str) -> str:
    return name.strip().rstrip(".").lower()


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_own_address(text: str) -> bool:
    """Only what a machine has itself can be bound to. One that every machine has says nothing."""
    address = ipaddress.ip_address(text)
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return False
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((text, 0))
    except OSError:
        return False
    return True
