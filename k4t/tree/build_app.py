"""A checked item → an app of the model. What stands in its directory is added by `attached`."""

from __future__ import annotations

from typing import Any

from k4t.model.app import (
    App,
    ContainerSettings,
    Env,
    ExecProbe,
    File,
    Health,
    HttpProbe,
    Image,
    ImageProbe,
    Job,
    Log,
    Network,
    Pin,
    Placement,
    Port,
    Probe,
    Resources,
    Scale,
    Spread,
    Stop,
    TcpProbe,
    Update,
    Volume,
)
from k4t.model.publish import Record, Route
from k4t.tree.build import args
from k4t.tree.check import Item


def app(name: str, item: Item) -> App:
    values: dict[str, Any] = item.values
    volumes = tuple(_volume(one) for one in item.all("volume"))
    recycle, scale, docker = item.one("recycle"), item.one("scale"), item.one("docker")
    health = item.one("health")
    return App(
        name=name,
        image=_image(item),
        replicas=_replicas(item),
        stopped=values["stopped"],
        restart=values["restart"],
        entrypoint=_optional_args(item.one("entrypoint")),
        command=_optional_args(item.one("command")),
        container=_container(item.one("container")),
        network=_network(item.one("network")),
        ports=tuple(_port(one) for one in item.all("port")),
        env=_env(item),
        labels=tuple(_pair(one, "name") for one in item.all("label")),
        files=tuple(_file(one) for one in item.all("file")),
        volumes=volumes,
        resources=_resources(item.one("resources")),
        health=_health(health) if health else None,
        log=_log(item.one("log")),
        stop=_stop(item.one("stop")),
        placement=_placement(item.one("placement")),
        update=_update(item.one("update"), any(volume.binds_to_node for volume in volumes)),
        recycle_every_s=_get(recycle, "every") if recycle else None,
        depends=tuple(_get(one, "on") for one in item.all("depends")),
        jobs=tuple(_job(one) for one in item.all("job")),
        scale=_scale(scale) if scale else None,
        routes=tuple(_route(one) for one in item.all("route")),
        records=tuple(_record(one, name) for one in item.all("record")),
        docker_file=_get(docker, "file") if docker else "",
        where=item.where,
    )


def _get(item: Item, name: str) -> Any:
    return item.values[name]


def _replicas(item: Item) -> int | None:
    """With `<scale>` its `min`: the number that holds is not in the tree, and counted when a plan is made."""
    if scale := item.one("scale"):
        return int(_get(scale, "min"))
    replicas = _get(item, "replicas")
    return None if replicas == "per-node" else int(replicas)


def _pair(item: Item, name: str) -> tuple[str, str]:
    return _get(item, name), str(item.text)


def _optional_args(item: Item | None) -> tuple[str, ...] | None:
    return args(item) if item else None


def _image(item: Item) -> Image:
    found = item.children["image"][0]
    return Image(str(found.text), _get(found, "archive") or "", _get(found, "pull"))


def _container(item: Item | None) -> ContainerSettings:
    if item is None:
        return ContainerSettings()
    values: dict[str, Any] = item.values
    return ContainerSettings(
        user=values["user"] or "",
        workdir=values["workdir"] or "",
        restart=values["restart"],
        read_only=values["read-only"],
        init=values["init"],
        cap_add=values["cap-add"] or (),
        cap_drop=values["cap-drop"] or (),
    )


def _network(item: Item | None) -> Network:
    if item is None:
        return Network()
    values: dict[str, Any] = item.values
    return Network(values["mode"], values["resolvers"] or (), values["search"] or ())


def _port(item: Item) -> Port:
    values: dict[str, Any] = item.values
    return Port(values["name"], values["container"], values["host"], values["protocol"], item.where)


def _env(item: Item) -> tuple[Env, ...]:
    return tuple(Env(_get(one, "name"), str(one.text), _get(one, "secret") or "") for one in item.all("env"))


def _file(item: Item) -> File:
    values: dict[str, Any] = item.values
    mode = values["mode"]
    return File(
        target=values["target"],
        source=values["source"] or "",
        secret=values["secret"] or "",
        mode=mode if mode is not None else 0o400 if values["secret"] else 0o444,
        owner=values["owner"] or "",
        expand=values["expand"],
        on_change=values["on-change"],
    )


def _volume(item: Item) -> Volume:
    values: dict[str, Any] = item.values
    kind, source = values["source"]
    return Volume(
        target=values["target"],
        path=source if kind == "path" else "",
        name=source if kind == "name" else "",
        tmpfs_bytes=source if kind == "tmpfs" else None,
        scope=values["scope"],
        owner=values["owner"] or "",
        read_only=values["read-only"],
        shared_writers=values["shared-writers"],
    )


def _resources(item: Item | None) -> Resources:
    if item is None:
        return Resources()
    values: dict[str, Any] = item.values
    return Resources(values["cpus"], values["memory"], values["gpus"] or "", values["shm"], values["pids"])


def _health(item: Item) -> Health:
    values: dict[str, Any] = item.values
    return Health(_probe(item), values["interval"], values["timeout"], values["retries"], values["start-period"])


def _probe(item: Item) -> Probe:
    if http := item.one("http"):
        values: dict[str, Any] = http.values
        headers = tuple(_pair(one, "name") for one in http.all("header"))
        return HttpProbe(values["port"] or "", values["path"], values["status"], headers)
    if tcp := item.one("tcp"):
        return TcpProbe(_get(tcp, "port") or "")
    if command := item.one("exec"):
        return ExecProbe(args(command))
    return ImageProbe()


def gone(defaults: Item | None) -> App:
    """What the cluster's defaults say of apps that are no longer in the tree: how they end."""
    if defaults is None:
        return App("", Image(""))
    return App("", Image(""), update=_update(defaults.one("update"), False), stop=_stop(defaults.one("stop")))


def _log(item: Item | None) -> Log:
    if item is None:
        return Log()
    return Log(_get(item, "driver"), _get(item, "max-size"), _get(item, "max-files"))


def _stop(item: Item | None) -> Stop:
    return Stop(_get(item, "signal") or "", _get(item, "grace")) if item else Stop()


def _placement(item: Item | None) -> Placement:
    if item is None:
        return Placement()
    return Placement(
        require=tuple(_pair(one, "label") for one in item.all("require")),
        spread=tuple(Spread(_get(one, "by"), _get(one, "max")) for one in item.all("spread")),
        avoid=tuple(_get(one, "app") for one in item.all("avoid")),
        pins=tuple(_pin(one) for one in item.all("pin")),
    )


def _pin(item: Item) -> Pin:
    values: dict[str, Any] = item.values
    return Pin(values["replica"], values["node"] or "", values["address"] or "", values["port"])


def _update(item: Item | None, binds_to_node: bool) -> Update:
    natural: Any = "recreate" if binds_to_node else "rolling"
    if item is None:
        return Update(strategy=natural)
    values: dict[str, Any] = item.values
    return Update(
        strategy=values["strategy"] or natural,
        max_surge=values["max-surge"],
        max_unavailable=values["max-unavailable"],
        drain_s=values["drain"],
        pause_after=values["pause-after"],
        timeout_s=values["timeout"],
        on_failure=values["on-failure"],
    )


def _job(item: Item) -> Job:
    values: dict[str, Any] = item.values
    image = item.one("image")
    return Job(
        name=values["name"],
        before_update=values["before"] == "update",
        schedule=values["schedule"] or "",
        timezone=values["timezone"],
        timeout_s=values["timeout"],
        image=str(image.text) if image else "",
        command=_optional_args(item.one("command")),
        env=_env(item),
    )


def _scale(item: Item) -> Scale:
    values: dict[str, Any] = item.values
    return Scale(
        values["min"], values["max"], values["cpu"], values["memory"], values["requests"], values["command"] or "",
        values["tolerance"], values["stabilize-up"], values["stabilize-down"], item.where,
    )  # fmt: skip


def _route(item: Item) -> Route:
    values: dict[str, Any] = item.values
    return Route(
        port=values["port"] or "",
        domains=tuple(domain.lower() for domain in values["domain"] or ()),
        prefix=values["prefix"] or "/",
        listen=values["listen"],
        tls=values["tls"] or "",
        redirect=values["redirect"] or "",
        strip_prefix=values["strip-prefix"],
        weight=values["weight"],
        timeout_s=values["timeout"],
        retries=values["retries"],
        balance=values["balance"],
        affinity=values["affinity"],
        upstream=values["upstream"],
        group=values["group"],
        where=item.where,
    )


def _record(item: Item, app_name: str) -> Record:
    values: dict[str, Any] = item.values
    return Record(
        name=values["name"] or app_name,
        type=values["type"],
        port=values["port"] or "",
        to=values["to"],
        ttl_s=values["ttl"],
        group=values["group"],
        where=item.where,
    )
