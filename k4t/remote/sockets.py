"""What listens on a host: read from the kernel's tables, and whose it is in `ss`'s words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from k4t.errors import StepError

if TYPE_CHECKING:
    from k4t.remote.transport import Transport


def parse_sockets(lines: Sequence[str]) -> frozenset[tuple[str, int]]:
    """Lines of /proc/net/{tcp,tcp6,udp,udp6} as `grep -H` prints them (proc(5)); what can't be read is left out."""
    found = set()
    for line in lines:
        path, _, rest = line.partition(":")
        words = rest.split()
        protocol = path.rpartition("/")[2].rstrip("6")
        try:
            found.add((protocol, int(words[1].rpartition(":")[2], 16)))
        except (IndexError, ValueError):
            continue
    return frozenset(found)


def port_holder(transport: Transport, protocol: str, port: int) -> str:
    """Who listens on a port, as in “nc (pid 7)”; "" where that can't be said."""
    kind = "-Hltnp" if protocol == "tcp" else "-Hlunp"
    try:
        done = transport.run(["ss", kind, "sport", "=", f":{port}"], timeout_s=5.0)
    except StepError:
        return ""
    text = done.stdout.decode("utf-8", "replace")
    _, _, users = text.partition("users:((")
    name, found, pid = users.partition("))")[0].partition(",fd=")[0].replace('"', "").rpartition(",pid=")
    return f"{name} (pid {pid})" if done.ok and found else ""
