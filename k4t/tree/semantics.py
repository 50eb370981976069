"""What must hold between the things of a tree: names that must exist, addresses, cycles, routes. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from k4t.errors import Finding
from k4t.model.app import App, Image
from k4t.model.hosts import Dns, Gateway, Node
from k4t.model.monitor import Monitor
from k4t.model.publish import Certificate, srv_name
from k4t.model.shared import Where
from k4t.model.snapshot import Recovery
from k4t.model.spec import Cluster, SecretRef
from k4t.tree.check import Reference
from k4t.tree.nearest import did_you_mean
from k4t.tree.semantics_app import finding
from k4t.tree.semantics_routes import check_certificates, check_routes

Findings = Iterator[Finding]
OWN_LABELS = ("node", "os", "arch")


@dataclass(slots=True)
class Reading:
    """What could be built. `names` holds, by kind, also those whose file is wrong, so that one error is told once."""

    cluster: Cluster | None = None
    nodes: dict[str, Node] = field(default_factory=dict)
    apps: dict[str, App] = field(default_factory=dict)
    gateways: dict[str, Gateway] = field(default_factory=dict)
    dns: dict[str, Dns] = field(default_factory=dict)
    certificates: dict[str, Certificate] = field(default_factory=dict)
    secrets: dict[str, SecretRef] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    references: list[Reference] = field(default_factory=list)
    certificate_files: set[str] = field(default_factory=set)
    recovery: Recovery | None = None
    monitor: Monitor = field(default_factory=Monitor)
    gone: App = field(default_factory=lambda: App("", Image("")))


def check_tree(reading: Reading) -> Findings:
    yield from _references(reading)
    yield from _node_addresses(reading.nodes)
    yield from _pools(reading.nodes)
    yield from _node_labels(reading.nodes)
    yield from _spares(reading.nodes)
    yield from _participants(reading)
    yield from _scripts(reading)
    yield from _cluster(reading.cluster)
    known = reading.names.get("certificates", set())
    yield from check_certificates(reading.certificates, reading.certificate_files, known)
    yield from _secrets(reading.secrets)
    yield from _cycles(reading)
    yield from _routes(reading)
    yield from _records(reading)
    yield from _pins(reading.apps)


# --- names -------------------------------------------------------------------------------------------------

_WORDS = {"apps": "app", "nodes": "node", "secrets": "secret", "certificates": "certificate"}
_HINTS_MAX = 100  # a nearest name among thousands takes milliseconds
_PLACES = {"apps": "apps/{}/app.xml", "nodes": "nodes/{}.xml", "certificates": "certificates/{}.xml"}


def _references(reading: Reading) -> Findings:
    known = dict(reading.names)
    known["label"] = {label for node in reading.nodes.values() for label in node.labels} | set(OWN_LABELS)
    told: set[tuple[str, str, Where]] = set()
    for reference in reading.references:
        kind, name, where = reference.kind, reference.name, reference.where
        near = known.get(kind, ()) if len(told) < _HINTS_MAX else ()
        if kind == "port" or kind.endswith(" group") or name in known.get(kind, ()) or (kind, name, where) in told:
            continue
        told.add((kind, name, where))
        if kind == "label":
            if len(reading.nodes) == len(known.get("nodes", ())) > 0:
                remedy = did_you_mean(name, near, 'add <label name="…"> to nodes')
                yield finding(where, "unknown-label", f"no node has the label {name!r}", remedy)
        else:
            place = _PLACES.get(kind, "secrets/{}.xml").format(name)
            remedy = did_you_mean(name, near, f"write {place}")
            yield finding(where, f"unknown-{_WORDS[kind]}", f"no {_WORDS[kind]} {name!r}", remedy)


# --- hosts -------------------------------------------------------------------------------------------------


def _node_addresses(nodes: Mapping[str, Node]) -> Findings:
    taken: dict[str, Node] = {}
    hosts: dict[tuple[str, int], Node] = {}
    for node in nodes.values():
        for address in filter(None, (node.address, node.address6)):
            if (other := taken.setdefault(address, node)) is not node:
                message = f"{node.name} has the address {address}, and so has {other.name} ({other.where})"
                yield finding(node.where, "duplicate-address", message, "give each node its own")
                break
        else:
            other = hosts.setdefault((node.ssh.host, node.ssh.port or 22), node)
            if other is not node:
                message = f"{node.name} is reached at {node.ssh.host}, and so is {other.name} ({other.where})"
                yield finding(node.where, "duplicate-host", message, "two nodes can't be one host")


def _pools(nodes: Mapping[str, Node]) -> Findings:
    pooled = any(node.pool for node in nodes.values())
    service = [(ipaddress.ip_address(a), n) for n in nodes.values() for a in (n.address, n.address6) if a and pooled]
    ranges: list[tuple[int, int, int, Node]] = []
    for node in nodes.values():
        if (pool := node.pool) is None:
            continue
        first, last = ipaddress.ip_address(pool.first), ipaddress.ip_address(pool.last)
        subnet = ipaddress.ip_network(pool.subnet)
        if first not in subnet or last not in subnet:
            yield finding(
                node.where, "pool", f"addresses {first}-{last} are not all in {subnet}", "correct one of them"
            )
        if pool.gateway and ipaddress.ip_address(pool.gateway) not in subnet:
            yield finding(node.where, "pool", f"gateway {pool.gateway} is not in {subnet}", "correct one of them")
        own = [(ipaddress.ip_address(pool.gateway), node)] if pool.gateway else []
        for found, owner in (*service, *own):
            if found.version == first.version and int(first) <= int(found) <= int(last):
                message = f"addresses {first}-{last} hold {found} ({owner.where})"
                yield finding(node.where, "pool", message, "leave it out of the range")
        ranges.append((first.version, int(first), int(last), node))
    ranges.sort(key=lambda one: one[:3])
    for (version, _, last_number, node), (version2, first2, _, node2) in pairwise(ranges):
        if version == version2 and first2 <= last_number:
            message = f"{node2.name}'s addresses overlap {node.name}'s ({node.where})"
            yield finding(node2.where, "pool", message, "give each node a range of its own")


def _spares(nodes: Mapping[str, Node]) -> Findings:
    for node in nodes.values():
        if node.power is not None and node.power.spare and not (node.power.on and node.power.off):
            message = f"{node.name} is a spare node, and nothing says how to switch it on and off"
            yield finding(node.where, "power", message, "write on= and off=")


def _node_labels(nodes: Mapping[str, Node]) -> Findings:
    for node in nodes.values():
        for label in OWN_LABELS:
            if label in node.labels:
                yield finding(node.where, "reserved-label", f"the label {label!r} comes by itself", "remove it")


def _participants(reading: Reading) -> Findings:
    gateways: dict[tuple[str, str], Gateway] = {}
    for gateway in reading.gateways.values():
        other = gateways.setdefault((gateway.address, gateway.driver), gateway)
        if other is not gateway:
            message = f"{gateway.name} has the address {gateway.address}, and so has {other.name} ({other.where})"
            yield finding(gateway.where, "duplicate-address", message, "one host holds one gateway of a driver")
        if gateway.http and gateway.http == gateway.https:
            yield finding(gateway.where, "port-clash", f"http and https are both {gateway.http}", "change one of them")
    servers: dict[tuple[str, int, str], Dns] = {}
    for server in reading.dns.values():
        same = servers.setdefault((server.address, server.port, server.zone), server)
        if same is not server:
            message = f"{server.name} is zone {server.zone} at {server.address}, and so is {same.name} ({same.where})"
            yield finding(server.where, "duplicate-address", message, "keep one of them")
        if bool(server.key_name) != bool(server.secret):
            yield finding(server.where, "tsig", "key-name and secret go together", "write both, or none")
        if server.driver != "rfc2136" and server.key_name:
            message = f"driver {server.driver} has no key-name or secret"
            yield finding(server.where, "driver", message, 'they belong to driver="rfc2136"')
        if server.driver not in ("rfc2136", "windows") and server.reverse:
            message = f"driver {server.driver} has no reverse"
            yield finding(server.where, "driver", message, 'it belongs to driver="rfc2136" and driver="windows"')
        if server.driver != "hosts" and server.path:
            yield finding(server.where, "driver", f"driver {server.driver} has no path", 'it belongs to driver="hosts"')


def _scripts(reading: Reading) -> Findings:
    participants: list[Gateway | Dns] = [*reading.gateways.values(), *reading.dns.values()]
    for one in participants:
        if one.driver == "script" and not one.scripts:
            yield finding(one.where, "script", 'driver="script" needs <script> elements', 'write <script verb="add">')
        if one.driver != "script" and one.scripts:
            yield finding(one.where, "script", f'driver="{one.driver}" runs no scripts', "remove <script>")
        for script in one.scripts:
            if not script.args:
                yield finding(one.where, "script", f"<script verb={script.verb!r}> holds no <arg>", "write the program")
        if one.driver == "script" and one.scripts and all(script.args for script in one.scripts):
            yield from _verbs(one)


def _verbs(one: Gateway | Dns) -> Findings:
    from k4t.registrar.calls import BadVerbs, check_verbs

    try:
        check_verbs("dns" if isinstance(one, Dns) else "gateway", {script.verb: script.args for script in one.scripts})
    except BadVerbs as error:
        page = "dns" if isinstance(one, Dns) else "gateways"
        yield finding(one.where, "script", str(error), f"see docs/{page}.md, “Your own commands”")


# --- cluster, secrets ------------------------------------------------------------------------


def _cluster(cluster: Cluster | None) -> Findings:
    if cluster is None:
        return
    places: set[str] = set()
    for backup in cluster.backups:
        place = backup.node or backup.host
        if place and place in places:
            yield finding(backup.where, "backup", f"two <backup> are {place}", "keep one: its copies are one history")
        places.add(place)
        if bool(backup.node) == bool(backup.host):
            yield finding(backup.where, "backup", "a backup has either node or host", "write exactly one of them")
        elif not backup.encrypted:
            message = f"copies on {place} are not encrypted: whoever reads them reads the tree"
            yield finding(backup.where, "backup-in-the-clear", message, 'remove encrypted="false"')
    power = cluster.power
    if power is not None and power.after_apply == "off" and not (power.host and power.off):
        message = '<power after-apply="off"> needs the host that goes off, and the command that does it'
        yield finding(cluster.where, "power", message, "write host= and off=")
    for name, text in cluster.variables.items():
        if "${" in text:
            message = f"variable {name} holds ${{: variables don't use each other"
            yield finding(cluster.where, "variable", message, "write its value out")


def _secrets(secrets: Mapping[str, SecretRef]) -> Findings:
    for one in secrets.values():
        if not one.source and one.kind != "age":
            message = "a secret has exactly one of environment, command and file"
            yield finding(one.where, "secret", message, "write one of them")


# --- apps --------------------------------------------------------------------------------------------------


def _cycles(reading: Reading) -> Findings:
    """Each cycle of <depends> is told once, at its app that comes first."""
    done: set[str] = set()
    lines = {(r.where.file, r.name): r.where for r in reading.references if r.kind == "apps"}
    for start in reading.apps:
        path: list[str] = []
        on_path: set[str] = {start}
        stack: list[tuple[str, Iterator[str]]] = (
            [(start, iter(reading.apps[start].depends))] if start not in done else []
        )
        if stack:
            path.append(start)
        while stack:
            step = next((name for name in stack[-1][1] if name in reading.apps and name not in done), None)
            if step is None:
                done.add(stack.pop()[0])
                on_path.discard(path.pop())
            elif step in on_path:
                cycle = [*path[path.index(step) :], step]
                where = lines.get((reading.apps[path[-1]].where.file, step), reading.apps[path[-1]].where)
                message = f"apps wait for each other: {' → '.join(cycle)}"
                yield finding(where, "cycle", message, "remove one <depends>")
            else:
                path.append(step)
                on_path.add(step)
                stack.append((step, iter(reading.apps[step].depends)))


def _routes(reading: Reading) -> Findings:
    for app in reading.apps.values():
        for route in app.routes:
            yield from _group(reading, "gateway", "gateway", route.group, route.where)
    yield from check_routes(reading.apps, reading.gateways.values(), reading.certificates)


def _group(reading: Reading, kind: str, what: str, group: str, where: Where) -> Findings:
    known = reading.names.get(f"{kind} group", set())
    if group not in known:
        remedy = did_you_mean(group, known, f"`k4t {kind} add` makes one")
        code = "no-group" if group == "default" else "unknown-group"
        yield finding(where, code, f"no {what} is in the group {group!r}", remedy)


def _records(reading: Reading) -> Findings:
    taken: dict[tuple[str, str, str], tuple[str, Where]] = {}
    for app in reading.apps.values():
        for record in app.records:
            yield from _group(reading, "dns", "DNS server", record.group, record.where)
            port = app.port(record.port)
            asked = srv_name(record.name, port.name, port.protocol) if record.type == "srv" and port else record.name
            name, other = taken.setdefault((record.group, asked, record.type), (app.name, record.where))
            if other is not record.where:
                message = f"the {record.type} record {record.name} is already {name}'s ({other})"
                yield finding(record.where, "duplicate-record", message, "give one another name")


def _pins(apps: Mapping[str, App]) -> Findings:
    taken: dict[str, App] = {}
    for app in apps.values():
        for address in (pin.address for pin in app.placement.pins if pin.address):
            other = taken.setdefault(address, app)
            if other is not app:
                message = f"{app.name} pins the address {address}, and so does {other.name} ({other.where})"
                yield finding(app.where, "pin", message, "give each its own")
