"""What records ask of DNS servers that one can't do, or does otherwise: refused or warned, by line and server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from k4t.errors import Finding
from k4t.master.planning.endpoints import served_name
from k4t.model.app import App
from k4t.model.participant import Participant
from k4t.model.publish import Record
from k4t.model.spec import Tree

DEFAULT_TTL_S = Record("").ttl_s
HEADER_BYTES = 12
"""Of a record in an update message: a pointer to its name, type, class, TTL, length."""
NAME_BYTES = 90
"""Of a name in an update message: taking out what it had, and its ownership."""
SRV_BYTES = 150
"""Of an endpoint of an SRV record beside the names: itself, its host's address, taking out what that had."""


def inexpressible_records(tree: Tree, members: Iterable[Participant]) -> Iterator[Finding]:
    """One finding for each record and member."""
    servers = [member for member in members if member.kind == "dns"]
    for app, record in _records(tree):
        for server in servers:
            if server.group == record.group:
                yield from _refused(tree, app, record, server)
    for server in servers:
        yield from _too_much(tree, server)


def record_warnings(tree: Tree, members: Iterable[Participant]) -> Iterator[str]:
    """TTLs that have no effect, in sentences. The default is nobody's wish."""
    for app, record in _records(tree):
        for server in members:
            means = server.capabilities
            if server.kind != "dns" or server.group != record.group or means.ttl_per_record:
                continue
            if record.ttl_s not in (DEFAULT_TTL_S, means.ttl_s):
                serves = f"TTL {means.ttl_s} s" if means.ttl_s else "a TTL of its own"
                yield (
                    f"{record.where}: ttl={record.ttl_s}s of {app.name}'s record {record.name} has no effect: "
                    f"{server.name} ({server.driver}) serves every name with {serves}"
                )


def _records(tree: Tree) -> Iterator[tuple[App, Record]]:
    return ((app, record) for app in tree.apps.values() for record in app.records)


def _refused(tree: Tree, app: App, record: Record, server: Participant) -> Iterator[Finding]:
    means = server.capabilities
    if record.type == "srv" and not means.srv:
        message = f"{server.name} ({server.driver}) can't serve srv records"
        yield _finding(record, message, 'write type="address" and give the port a number, or use another group')
        return
    count = _count(tree, app, record)
    if count > means.addresses_per_name:
        message = f"{record.name} would have up to {count} records; {server.name} ({server.driver}) holds"
        message += f" {means.addresses_per_name} of one name and type"
        yield _finding(record, message, "use fewer replicas, several names, or a record of the gateways' addresses")


def _count(tree: Tree, app: App, record: Record) -> int:
    """The most records of its name and type that there can be, in the middle of an update too."""
    if record.to:
        return len(record.to)
    if app.replicas is None:
        return len(tree.nodes)
    replicas = max(app.replicas, app.scale.max if app.scale else 0)
    replicas += app.update.max_surge.of(replicas, round_up=True)
    own = app.network.mode in ("macvlan", "ipvlan")
    return replicas if own or record.type == "srv" else min(replicas, len(tree.nodes))


def _too_much(tree: Tree, server: Participant) -> Iterator[Finding]:
    """An update has one message, and a blank server is filled by one."""
    limit_bytes = server.capabilities.update_bytes
    sizes = [(_bytes(tree, app, one), one) for app, one in _records(tree) if one.group == server.group]
    total_bytes = sum(size for size, _ in sizes)
    if limit_bytes and total_bytes > limit_bytes:
        message = f"the records of group {server.group} take about {total_bytes} bytes, this one most of them;"
        message += f" {server.name} ({server.driver}) takes {limit_bytes} in one update"
        yield _finding(_largest(sizes), message, "use several groups, each with a zone of its own")


def _largest(sizes: Sequence[tuple[int, Record]]) -> Record:
    return max(sizes, key=lambda pair: pair[0])[1]


def _bytes(tree: Tree, app: App, record: Record) -> int:
    name_bytes = len(served_name(app, record))
    each = SRV_BYTES + name_bytes if record.type == "srv" else _address_bytes(tree)
    return NAME_BYTES + 2 * name_bytes + each * _count(tree, app, record)


def _address_bytes(tree: Tree) -> int:
    """An A record; an AAAA record where a node has such addresses; both where one has both."""
    nodes = tree.nodes.values()
    if any(node.address6 for node in nodes):
        return 2 * HEADER_BYTES + 4 + 16
    wide = any(":" in node.address or (node.pool is not None and ":" in node.pool.first) for node in nodes)
    return HEADER_BYTES + (16 if wide else 4)


def _finding(record: Record, message: str, remedy: str) -> Finding:
    return Finding(record.where.file, record.where.line, "inexpressible", message, remedy)
