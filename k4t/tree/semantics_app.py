"""What must hold within one app, beyond what the table says. Pure; each check yields findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from k4t.errors import Finding
from k4t.model.app import App, ExecProbe, HttpProbe, Port, TcpProbe
from k4t.model.publish import Route
from k4t.model.shared import Where
from k4t.tree.check import Item, Reference
from k4t.tree.nearest import did_you_mean

Findings = Iterator[Finding]
MEASURES = ("cpu", "memory", "requests", "command")
STABILIZE_MAX_S = 3600
"""For longer than that the monitor does not remember what was wanted."""


def check_app(app: App, item: Item, references: Sequence[Reference]) -> Findings:
    for check in _CHECKS:
        yield from check(app, item)
    names = [port.name for port in app.ports]
    for reference in references:
        if reference.kind == "port" and reference.name not in names:
            remedy = did_you_mean(reference.name, names, f"its ports: {', '.join(names) or 'none'}")
            yield finding(reference.where, "unknown-port", f"{app.name} has no port {reference.name!r}", remedy)


def finding(where: Where, code: str, message: str, remedy: str) -> Finding:
    return Finding(where.file, where.line, code, message, remedy)


def fixed_number(port: Port, mode: str) -> int | None:
    """The number that this port takes on its node, where it is known before placement."""
    if mode in ("host", "bridge"):
        if isinstance(port.host, int):
            return port.host
        if mode == "host" and port.host is None:
            return port.container
    return None


def _ports(app: App, _item: Item) -> Findings:
    mode = app.network.mode
    for port in app.ports:
        if mode == "none":
            yield finding(port.where, "port-mode", 'network mode="none" has no ports', "remove the port, or the mode")
        elif mode == "host" and (port.container is None) == (port.host is None):
            message = 'in network mode="host" a port has either container or host'
            remedy = 'container="8080" when it listens there by itself, host="auto" when PORT tells it'
            yield finding(port.where, "port-mode", message, remedy)
        elif mode == "bridge" and (port.container is None or port.host is None):
            message = 'in network mode="bridge" a port has both container and host'
            yield finding(port.where, "port-mode", message, 'write container="8080" host="auto"')
        elif mode in ("macvlan", "ipvlan") and (port.container is None or port.host is not None):
            message = f'in network mode="{mode}" a port has container and no host'
            yield finding(port.where, "port-mode", message, "the container has an address of its own")


def _port_numbers(app: App, _item: Item) -> Findings:
    taken: dict[tuple[str, str, int], Port] = {}
    for port in app.ports:
        numbers = {("container", port.container), ("host", fixed_number(port, app.network.mode))}
        for kind, number in sorted(numbers, key=str):
            if number is None:
                continue
            other = taken.setdefault((port.protocol, kind, number), port)
            if other is not port:
                message = f"port {number}/{port.protocol} is also that of {other.name!r}, on line {other.where.line}"
                yield finding(port.where, "port-clash", message, "give one another number")
                break


def _env(app: App, item: Item) -> Findings:
    for one in _envs(item):
        if one.values["secret"] and one.text:
            message = f"env {one.values['name']} has both a text and a secret"
            yield finding(one.where, "env-source", message, "keep one of them")
    told = {"PORT"} if any(port.host is not None for port in app.ports) else set()
    told |= {f"PORT_{port.name.upper().replace('-', '_')}" for port in app.ports if port.host is not None}
    if app.network.mode == "host":
        for one in item.all("env"):
            if one.values["name"] in told:
                message = f"k4t itself sets {one.values['name']}: the port has host, so it is told where to listen"
                yield finding(one.where, "env-port", message, "remove the variable, or write container instead of host")


def _envs(item: Item) -> Iterator[Item]:
    yield from item.all("env")
    for job in item.all("job"):
        yield from job.all("env")


def _labels(_app: App, item: Item) -> Findings:
    for one in item.all("label"):
        if str(one.values["name"]).lower().startswith("io.k4t."):
            yield finding(one.where, "reserved-label", f"label {one.values['name']} is k4t's own", "use another name")


def _files(_app: App, item: Item) -> Findings:
    for one in item.all("file"):
        if bool(one.values["source"]) == bool(one.values["secret"]):
            yield finding(one.where, "file-source", "a file has either source or secret", "write exactly one of them")
        elif one.values["secret"] and one.values["expand"]:
            yield finding(one.where, "file-source", "a secret is not expanded", 'remove expand="true"')


def _targets(_app: App, item: Item) -> Findings:
    taken: dict[str, Where] = {}
    for one in (*item.all("file"), *item.all("volume")):
        target = str(one.values["target"]).rstrip("/") or "/"
        if ".." in target.split("/") or target == "/":
            yield finding(one.where, "target", f"target {target} can't be mounted", "name a path below /, without ..")
        elif (other := taken.setdefault(target, one.where)) is not one.where:
            yield finding(
                one.where, "repeated", f"target {target} is also mounted on line {other.line}", "keep one of them"
            )


def _volumes(_app: App, item: Item) -> Findings:
    for one in item.all("volume"):
        source = one.values["source"]
        if (
            isinstance(source, tuple)
            and source[0] == "tmpfs"
            and ("scope" in one.given or one.values["shared-writers"])
        ):
            message = "a tmpfs is each container's own: scope and shared-writers mean nothing"
            yield finding(one.where, "volume", message, "remove them")
        elif isinstance(source, tuple) and source[0] == "path" and ".." in str(source[1]).split("/"):
            yield finding(one.where, "volume", f"source {source[1]} holds ..", "write the path without it")


def _health(app: App, item: Item) -> Findings:
    if app.health is None:
        return
    probe, where = app.health.probe, item.children["health"][0].where
    if isinstance(probe, ExecProbe) and not probe.args:
        yield finding(where, "health", "<exec> holds no <arg>", "write the command, one <arg> a word")
    if isinstance(probe, (HttpProbe, TcpProbe)):
        port = app.port(probe.port)
        if not app.ports:
            message = f"{app.name} has no port to probe"
            yield finding(where, "health", message, "add a <port>, or probe with <exec>")
        elif port and port.protocol == "udp":
            yield finding(where, "health", f"port {port.name!r} is udp; it can't be probed so", "name a tcp port")


def _placement(app: App, item: Item) -> Findings:
    placement = item.one("placement")
    if placement is None:
        return
    addresses: set[object] = set()
    for pin in placement.all("pin"):
        yield from _pin(app, pin)
        if (address := pin.values["address"]) in addresses:
            yield finding(pin.where, "pin", f"address {address} is pinned twice", "give each replica its own")
        addresses |= {address} - {None}
    for avoid in placement.all("avoid"):
        if avoid.values["app"] == app.name:
            yield finding(avoid.where, "avoid", "an app can't avoid itself", 'write <spread by="node" max="1"/>')


def _pin(app: App, pin: Item) -> Findings:
    values, where = pin.values, pin.where
    if not any(values[key] for key in ("node", "address", "port")):
        yield finding(where, "pin", "a pin needs node, address or port", "write one of them")
    if app.per_node:
        yield finding(where, "pin", "a per-node app can't be pinned", "remove the pin, or give a number of replicas")
    elif app.scale is None and int(str(values["replica"])) >= (app.replicas or 0):
        message = f"there is no replica {values['replica']}: {app.replicas} of them are numbered from 0"
        yield finding(where, "pin", message, "name one that is there, or raise replicas")
    elif app.scale is not None and int(str(values["replica"])) >= app.scale.max:
        message = f"there is never a replica {values['replica']}: at most {app.scale.max} of them, numbered from 0"
        yield finding(where, "pin", message, "name one that may be there, or raise max")
    if values["address"] and app.network.mode not in ("macvlan", "ipvlan"):
        message = f'network mode="{app.network.mode}": a replica has no address of its own'
        yield finding(where, "pin", message, "pin its node instead")
    if values["port"] and not any(port.host is not None for port in app.ports):
        yield finding(where, "pin", "there is no host port to pin", 'write host="auto" in the <port>')


def _update(app: App, item: Item) -> Findings:
    update, found = app.update, item.one("update")
    where = found.where if found else app.where
    rolling = update.strategy == "rolling"
    if rolling and not any(share.count or share.percent for share in (update.max_surge, update.max_unavailable)):
        message = "max-surge and max-unavailable are both 0: nothing could ever be replaced"
        yield finding(where, "update", message, 'write max-unavailable="1"')
    if app.recycle_every_s is not None and not rolling:
        where = item.children["recycle"][0].where
        yield finding(where, "recycle", "recycle never goes with recreate: every replacement is an outage", "remove it")


def _scale(app: App, item: Item) -> Findings:
    found = item.one("scale")
    if app.scale is None or found is None:
        return
    if "replicas" in item.given:
        message = "<scale> says how many replicas there are, and so does replicas"
        yield finding(found.where, "scale", message, "remove one of them")
    if app.scale.min > app.scale.max:
        message = f"min {app.scale.min} is more than max {app.scale.max}"
        yield finding(found.where, "scale", message, "swap them")
    if all(found.values[key] is None for key in MEASURES):
        yield finding(found.where, "scale", "<scale> has nothing to go by", "write cpu, memory, requests or command")
    if app.scale.min == 0 and any(found.values[key] is not None for key in ("cpu", "memory", "requests")):
        message = "min is 0, and of no replica nothing can be measured: there would never be one again"
        yield finding(found.where, "scale", message, 'write min="1"; or command alone, which can want the first one')
    yield from _measured(app, found)
    for name in ("stabilize-up", "stabilize-down"):
        if float(str(found.values[name])) > STABILIZE_MAX_S:
            message = f"{name}={found.given[name]} is longer than is remembered"
            yield finding(found.where, "scale", message, f"write at most {STABILIZE_MAX_S // 3600}h")
    if any(volume.binds_to_node for volume in app.volumes):
        message = f"{app.name} has data on its nodes, which a replica too many would leave behind"
        yield finding(found.where, "scale", message, 'scale it by hand (replicas), or write scope="shared"')


def _measured(app: App, found: Item) -> Findings:
    """What a share is of, and what can be counted."""
    for name, limit in (("cpu", app.resources.cpus), ("memory", app.resources.memory_bytes)):
        if found.values[name] == 0:
            yield finding(found.where, "scale", f'{name}="0%" is nothing to aim at', 'write for example "60%"')
        if found.values[name] is not None and limit is None:
            of = "cpus" if name == "cpu" else "memory"
            message = f"{name} is a share of <resources {of}>, and {app.name} has none"
            yield finding(found.where, "scale", message, f"write <resources {of}=>")
    if found.values["requests"] is None:
        return
    if not app.routes:
        message = f"requests are counted where they are routed, and {app.name} has no route"
        yield finding(found.where, "scale", message, "add a <route>, or scale by something else")
    udp = [route for route in app.routes if (port := app.port(route.port)) is not None and port.protocol == "udp"]
    for route in udp:
        message = "requests over udp are not counted"
        yield finding(route.where, "scale", message, "scale by something else")


def _jobs(_app: App, item: Item) -> Findings:
    for job in item.all("job"):
        if bool(job.values["before"]) == bool(job.values["schedule"]):
            yield finding(job.where, "job", "a job has either before or schedule", "write exactly one of them")
        if not (job.one("command") or job.one("image")):
            message = f"job {job.values['name']} has no command, and would run what the app itself runs"
            yield finding(job.where, "job", message, "write its <command>, or an <image> of its own")


def _routes(app: App, item: Item) -> Findings:
    for one, route in zip(item.all("route"), app.routes, strict=True):
        if not app.ports:
            yield finding(one.where, "route", f"{app.name} has no port to send to", "add a <port>")
        if route.listen is not None:
            yield from _l4(app, one, route)
        yield from _route_protocol(app, route)


def _l4(app: App, one: Item, route: Route) -> Findings:
    """What belongs to HTTP has no meaning on a port of its own."""
    if "domain" in one.given or "prefix" in one.given:
        message = "a route has either listen or domain and prefix"
        yield finding(one.where, "route", message, "keep one of them")
    port = app.port(route.port)
    udp = bool(port and port.protocol == "udp")
    asked = (
        (route.redirect, "redirect"),
        (route.strip_prefix, "strip-prefix"),
        (route.weight is not None, "weight"),
        (route.affinity == "cookie", 'affinity="cookie"'),
        (route.upstream == "h2c", 'upstream="h2c"'),
        (udp and route.upstream == "tls", 'upstream="tls" (for udp)'),
        (udp and route.tls, "tls (for udp)"),
    )
    if wrong := [word for said, word in asked if said]:
        yield finding(one.where, "route", f"with listen there is no {', '.join(wrong)}", "leave it out")


def _route_protocol(app: App, route: Route) -> Findings:
    port = app.port(route.port)
    if port and port.protocol == "udp" and route.listen is None:
        message = f"port {port.name!r} is udp; HTTP needs a tcp one"
        yield finding(route.where, "route", message, "name a tcp port, or route with listen")


def _records(app: App, _item: Item) -> Findings:
    for record in app.records:
        port = app.port(record.port)
        if record.to and record.type == "srv":
            message = "an srv record names endpoints; gateways' addresses have no port"
            yield finding(record.where, "record", message, 'write to="endpoints" or type="address"')
        elif not record.to and not app.ports:
            yield finding(record.where, "record", f"{app.name} has no port, so no endpoints", "add a <port>")
        elif not record.to and record.type == "address" and port and port.host == "auto":
            message = f"an address record can't carry the number that k4t chooses for port {port.name!r}"
            yield finding(record.where, "record-auto-port", message, 'write type="srv", or give the port a number')


_CHECKS: tuple[Callable[[App, Item], Findings], ...] = (
    _ports,
    _port_numbers,
    _env,
    _labels,
    _files,
    _targets,
    _volumes,
    _health,
    _placement,
    _update,
    _scale,
    _jobs,
    _routes,
    _records,
)
