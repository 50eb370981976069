"""Which servers of a running HAProxy come, go, stay and are to be proven, and the commands for it. Pure.

All backends of one (app, port) hold the same endpoints, so what one of them has proven, all of them may have.
"""

from __future__ import annotations

import dataclasses
from typing import Dict, Iterable, List, Mapping, Sequence, Set, Tuple

from .haproxy_render import COOKIE_KEY, Members, app_of
from .haproxy_socket import Server

PROBE = "probe:"
"""A server that gets no traffic and is checked often, until it passes: the real one's first check may take as long
as its interval, and it would get traffic before."""

Wanted = Mapping[str, Members]
Key = Tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Change:
    """Keys are (backend, server). `kept`: to leave once `fresh` ones have passed, since till then nothing else serves.
    `sick`: fresh ones that were here already and fail their check: not waited for."""

    leaving: Tuple[Key, ...]
    kept: Tuple[Key, ...]
    fresh: Tuple[Key, ...]
    leftover: Tuple[Key, ...]


def change(wanted: Wanted, running: Sequence[Server]) -> Change:
    """`running`: servers of k4t's backends."""
    serving = serving_of(running)
    ready = {(server.backend, server.name) for server in running if server.ready}
    leaving: List[Key] = []
    kept: List[Key] = []
    leftover: List[Key] = []
    for server in running:
        key = (server.backend, server.name)
        if server.name.startswith(PROBE) or not server.ready:
            if not _wants(wanted, key):
                leftover.append(key)
        elif not _wants(wanted, key):
            (kept if _overlaps(wanted, serving, server.backend) else leaving).append(key)
    fresh = [(name, server) for name in wanted for server in wanted[name].servers if (name, server) not in ready]
    return Change(tuple(leaving), tuple(kept), tuple(sorted(fresh)), tuple(leftover))


def serving_of(running: Iterable[Server]) -> Dict[str, Dict[str, str]]:
    """App and port (`web.main`) to what serves it: name to address."""
    found: Dict[str, Dict[str, str]] = {}
    for server in running:
        if server.ready and server.running and not server.name.startswith(PROBE):
            found.setdefault(app_of(server.backend), {})[server.name] = server.address
    return found


def for_reload(wanted: Wanted, running: Sequence[Server]) -> Dict[str, Dict[str, str]]:
    """The servers that a new process starts with: those wanted ones that serve, or, where all are exchanged, those
    that still do. HAProxy takes what stands in its file as healthy until it fails; the rest is added, proven."""
    serving = serving_of(running)
    made = {}
    for name, members in wanted.items():
        present = serving.get(app_of(name), {})
        stay = {server: at for server, at in members.servers.items() if server in present}
        made[name] = dict(present) if _overlaps(wanted, serving, name) else stay
    return made


def astray(wanted: Wanted, server: Server) -> bool:
    """Its address isn't the one that its name says: somebody led it elsewhere."""
    return _wants(wanted, (server.backend, server.name)) and (
        wanted[server.backend].servers[server.name] != server.address
    )


def _overlaps(wanted: Wanted, serving: Mapping[str, Mapping[str, str]], name: str) -> bool:
    """All endpoints are exchanged, and the new ones are yet to be checked."""
    if name not in wanted or not wanted[name].checked:
        return False
    now, then = set(wanted[name].servers), set(serving.get(app_of(name), ()))
    return bool(now and then and not now & then)


def _wants(wanted: Wanted, key: Key) -> bool:
    return key[0] in wanted and key[1] in wanted[key[0]].servers


# --- commands ------------------------------------------------------------------------------------------------


def withdraw(keys: Iterable[Key]) -> List[str]:
    """From now on no new request."""
    return ["set server %s/%s state maint" % key for key in keys]


def delete(keys: Iterable[Key]) -> List[str]:
    """HAProxy refuses it while a connection is left; then it stays in maintenance, and is deleted another time."""
    return ["del server %s/%s" % key for key in keys]


def probe(wanted: Wanted, keys: Sequence[Key], there: Set[Key]) -> List[str]:
    """Begin to check each of them, often (all together at most 5,000 times a second); first after one interval."""
    interval_ms = max(20, len(keys) // 5)
    lines: List[str] = []
    for backend, name in keys:
        members = wanted[backend]
        path = "%s/%s%s" % (backend, PROBE, name)
        upstream = members.options.partition(" rise 1")[2]
        if (backend, PROBE + name) not in there:
            said = "check inter %dms fall 1 rise 1%s" % (interval_ms, upstream)
            lines += ["add server %s %s %s" % (path, members.servers[name], said), "enable health %s" % path]
        lines += ["set server %s state drain" % path, "set server %s health down" % path]
    return lines


def end_probes(keys: Sequence[Key]) -> List[str]:
    paths = [(backend, PROBE + name) for backend, name in keys]
    return withdraw(paths) + delete(paths)


def add(wanted: Wanted, keys: Sequence[Key], passed: Set[Key], there: Set[Key]) -> List[str]:
    """Those that passed get traffic at once; others as soon as they pass. `there`: in maintenance as yet."""
    lines: List[str] = []
    for backend, name in keys:
        members, path = wanted[backend], "%s/%s" % (backend, name)
        if (backend, name) not in there:
            lines.append("add server %s %s %s" % (path, members.servers[name], members.options))
            if members.checked:
                lines.append("enable health %s" % path)
    cookies = {backend for backend, _ in keys if wanted[backend].cookie}
    lines += ["set dynamic-cookie-key backend %s %s" % (backend, COOKIE_KEY) for backend in sorted(cookies)]
    for backend, name in keys:
        path = "%s/%s" % (backend, name)
        if wanted[backend].checked and (backend, name) not in passed:
            lines += ["set server %s state drain" % path, "set server %s health down" % path]
        lines.append("set server %s state ready" % path)
    return lines
