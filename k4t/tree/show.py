"""An app as XML with variables and defaults resolved; what is shown can be read again and means the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from k4t.model.app import App, Env, ExecProbe, File, Health, HttpProbe, Job, Placement, Scale, TcpProbe, Update, Volume
from k4t.model.shared import Share
from k4t.model.spec import Tree
from k4t.tree.edit import attribute_escaped, text_escaped
from k4t.tree.schema import FILES
from k4t.tree.variables import escape

Value = str | int | float | bool | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class _Shown:
    name: str
    attributes: Mapping[str, Value]
    children: tuple[_Shown, ...] = ()
    text: str = ""


def resolved(app: App, tree: Tree) -> str:
    """The app's file as k4t understands it. `tree` says which files the references name."""
    children = (*_container(app), *_behaviour(app), *_published(app))
    counted = "per-node" if app.replicas is None else app.replicas
    attributes: dict[str, Value] = {"name": app.name, "replicas": None if app.scale else counted}
    attributes |= {"stopped": app.stopped, "restart": app.restart}
    order = {row.name: place for place, row in enumerate(FILES["apps/NAME/app.xml"].children)}
    ordered = tuple(sorted(children, key=lambda child: order[child.name]))
    head = f"<!-- {app.where.file or app.name}, cluster {tree.cluster.name}: variables and defaults resolved -->\n"
    return head + "\n".join(_lines(_Shown("app", attributes, ordered), 0)) + "\n"


def _lines(shown: _Shown, depth: int) -> Iterator[str]:
    pad = "  " * depth
    tag = shown.name
    for name, value in shown.attributes.items():
        if (text := _text(value)) is not None:
            tag += f' {name}="{attribute_escaped(escape(text))}"'
    if shown.children:
        yield f"{pad}<{tag}>"
        for child in shown.children:
            yield from _lines(child, depth + 1)
        yield f"{pad}</{shown.name}>"
    elif shown.text:
        yield f"{pad}<{tag}>{text_escaped(escape(shown.text))}</{shown.name}>"
    else:
        yield f"{pad}<{tag}/>"


def _text(value: Value) -> str | None:
    """None: the attribute is left out."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return " ".join(value) or None
    if value is None or value == "":
        return None
    return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """As it is written in a tree, in the largest unit that fits without a rest."""
    if seconds != int(seconds):
        return f"{round(seconds * 1000)}ms"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and not seconds % length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def size(size_bytes: int | None) -> str | None:
    if size_bytes is None:
        return None
    for unit, length in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes and not size_bytes % length:
            return f"{size_bytes // length}{unit}"
    return str(size_bytes)


def _share(share: Share) -> str:
    return str(share.count) if share.percent is None else f"{_text(share.percent)}%"


def _args(name: str, args: tuple[str, ...] | None) -> Iterator[_Shown]:
    if args is not None:
        yield _Shown(name, {}, tuple(_Shown("arg", {}, (), arg) for arg in args))


def _env(env: tuple[Env, ...]) -> Iterator[_Shown]:
    return (_Shown("env", {"name": one.name, "secret": one.secret}, (), one.value) for one in env)


def _container(app: App) -> Iterator[_Shown]:
    image, container, network = app.image, app.container, app.network
    yield _Shown("image", {"archive": image.archive, "pull": image.pull}, (), image.reference)
    yield from _args("entrypoint", app.entrypoint)
    yield from _args("command", app.command)
    attributes: dict[str, Value] = {"user": container.user, "workdir": container.workdir}
    attributes |= {"restart": container.restart, "read-only": container.read_only, "init": container.init}
    attributes |= {"cap-add": container.cap_add, "cap-drop": container.cap_drop}
    yield _Shown("container", attributes)
    yield _Shown("network", {"mode": network.mode, "resolvers": network.resolvers, "search": network.search})
    for port in app.ports:
        told: dict[str, Value] = {"name": port.name, "container": port.container, "host": port.host}
        yield _Shown("port", {**told, "protocol": port.protocol})
    yield from _env(app.env)
    yield from (_Shown("label", {"name": name}, (), text) for name, text in app.labels)
    yield from (_file(file) for file in app.files)
    yield from (_volume(volume) for volume in app.volumes)
    if app.docker_file:
        yield _Shown("docker", {"file": app.docker_file})


def _file(file: File) -> _Shown:
    attributes: dict[str, Value] = {"source": file.source, "secret": file.secret, "target": file.target}
    attributes |= {"mode": f"{file.mode:04o}", "owner": file.owner, "expand": file.expand, "on-change": file.on_change}
    return _Shown("file", attributes)


def _volume(volume: Volume) -> _Shown:
    source = volume.path or volume.name or f"tmpfs:{size(volume.tmpfs_bytes)}"
    attributes: dict[str, Value] = {"source": source, "target": volume.target}
    if volume.tmpfs_bytes is None:
        attributes |= {"scope": volume.scope, "shared-writers": volume.shared_writers}
    return _Shown("volume", {**attributes, "owner": volume.owner, "read-only": volume.read_only})


def _behaviour(app: App) -> Iterator[_Shown]:
    resources, log, stop = app.resources, app.log, app.stop
    limits: dict[str, Value] = {"cpus": resources.cpus, "memory": size(resources.memory_bytes), "gpus": resources.gpus}
    yield _Shown("resources", {**limits, "shm": size(resources.shm_bytes), "pids": resources.pids})
    if app.health is not None:
        yield _health(app.health)
    yield _Shown("log", {"driver": log.driver, "max-size": size(log.max_size_bytes), "max-files": log.max_files})
    yield _Shown("stop", {"signal": stop.signal, "grace": duration(stop.grace_s)})
    if app.placement != Placement():
        yield _placement(app.placement)
    yield _update(app.update)
    if app.recycle_every_s is not None:
        yield _Shown("recycle", {"every": duration(app.recycle_every_s)})
    yield from (_Shown("depends", {"on": name}) for name in app.depends)
    yield from (_job(job) for job in app.jobs)
    if app.scale is not None:
        yield _scale(app.scale)


def _health(health: Health) -> _Shown:
    probe = health.probe
    if isinstance(probe, HttpProbe):
        headers = tuple(_Shown("header", {"name": name}, (), text) for name, text in probe.headers)
        status = "-".join(str(number) for number in probe.status)
        shown = _Shown("http", {"port": probe.port, "path": probe.path, "status": status}, headers)
    elif isinstance(probe, TcpProbe):
        shown = _Shown("tcp", {"port": probe.port})
    elif isinstance(probe, ExecProbe):
        shown = next(_args("exec", probe.args))
    else:
        shown = _Shown("image", {})
    attributes: dict[str, Value] = {"interval": duration(health.interval_s), "timeout": duration(health.timeout_s)}
    attributes |= {"retries": health.retries, "start-period": duration(health.start_period_s)}
    return _Shown("health", attributes, (shown,))


def _placement(placement: Placement) -> _Shown:
    children = [_Shown("require", {"label": label}, (), text) for label, text in placement.require]
    children += [_Shown("spread", {"by": spread.by, "max": spread.max}) for spread in placement.spread]
    children += [_Shown("avoid", {"app": name}) for name in placement.avoid]
    for pin in placement.pins:
        place: dict[str, Value] = {"replica": pin.replica, "node": pin.node, "address": pin.address, "port": pin.port}
        children.append(_Shown("pin", place))
    return _Shown("placement", {}, tuple(children))


def _update(update: Update) -> _Shown:
    attributes: dict[str, Value] = {"strategy": update.strategy, "max-surge": _share(update.max_surge)}
    attributes |= {"max-unavailable": _share(update.max_unavailable), "drain": duration(update.drain_s)}
    attributes |= {"pause-after": update.pause_after, "timeout": duration(update.timeout_s)}
    return _Shown("update", {**attributes, "on-failure": update.on_failure})


def _job(job: Job) -> _Shown:
    children = [_Shown("image", {}, (), job.image)] if job.image else []
    children += [*_args("command", job.command), *_env(job.env)]
    attributes: dict[str, Value] = {"name": job.name, "before": "update" if job.before_update else None}
    attributes |= {"schedule": job.schedule, "timezone": job.timezone, "timeout": duration(job.timeout_s)}
    return _Shown("job", attributes, tuple(children))


def _scale(scale: Scale) -> _Shown:
    attributes: dict[str, Value] = {"min": scale.min, "max": scale.max}
    for name, percent in (("cpu", scale.cpu_percent), ("memory", scale.memory_percent)):
        attributes[name] = None if percent is None else f"{_text(percent)}%"
    attributes |= {"requests": scale.requests, "command": scale.command}
    attributes["tolerance"] = f"{_text(scale.tolerance_percent)}%"
    attributes |= {"stabilize-up": duration(scale.up_after_s), "stabilize-down": duration(scale.down_after_s)}
    return _Shown("scale", attributes)


def _published(app: App) -> Iterator[_Shown]:
    for route in app.routes:
        where: dict[str, Value] = {"domain": route.domains, "prefix": route.prefix}
        attributes: dict[str, Value] = {"port": route.port, **({"listen": route.listen} if route.listen else where)}
        attributes |= {"tls": route.tls, "redirect": route.redirect, "strip-prefix": route.strip_prefix}
        attributes |= {"weight": route.weight, "timeout": duration(route.timeout_s), "retries": route.retries}
        attributes |= {"balance": route.balance, "affinity": route.affinity, "upstream": route.upstream}
        yield _Shown("route", {**attributes, "group": route.group})
    for record in app.records:
        told: dict[str, Value] = {"name": record.name, "type": record.type, "port": record.port}
        told |= {"to": record.to or "endpoints", "ttl": duration(record.ttl_s), "group": record.group}
        yield _Shown("record", told)
