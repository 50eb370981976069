"""A checked item → an app of the model. What stands in its directory is added by `attached`."""

from __future__ import annotations

from typing import Any

from k4t.model import spec
from k4t.tree.build import args
from k4t.tree.check import Item


def app(name: str, item: Item) -> spec.App:
    values: dict[str, Any] = item.values
    volumes = tuple(_volume(one) for one in item.all("volume"))
    recycle, scale, docker = item.one("recycle"), item.one("scale"), item.one("docker")
    health = item.one("health")
    return spec.App(
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
    """With `<scale>` its `min` stands until a monitor observes more."""
    if scale := item.one("scale"):
        return int(_get(scale, "min"))
    replicas = _get(item, "replicas")
    return None if replicas == "per-node" else int(replicas)


def _pair(item: Item, name: str) -> tuple[str, str]:
    return _get(item, name), str(item.text)


def _optional_args(item: Item | None) -> tuple[str, ...] | None:
    return args(item) if item else None


def _image(item: Item) -> spec.Image:
    found = item.children["image"][0]
    return spec.Image(str(found.text), _get(found, "archive") or "", _get(found, "pull"))


def _container(item: Item | None) -> spec.ContainerSettings:
    if item is None:
        return spec.ContainerSettings()
    values: dict[str, Any] = item.values
    return spec.ContainerSettings(
        user=values["user"] or "",
        workdir=values["workdir"] or "",
        restart=values["restart"],
        read_only=values["read-only"],
        init=values["init"],
        cap_add=values["cap-add"] or (),
        cap_drop=values["cap-drop"] or (),
    )


def _network(item: Item | None) -> spec.Network:
    if item is None:
        return spec.Network()
    values: dict[str, Any] = item.values
    return spec.Network(values["mode"], values["resolvers"] or (), values["search"] or ())


def _port(item: Item) -> spec.Port:
    values: dict[str, Any] = item.values
    return spec.Port(values["name"], values["container"], values["host"], values["protocol"], item.where)


def _env(item: Item) -> tuple[spec.Env, ...]:
    return tuple(spec.Env(_get(one, "name"), str(one.text), _get(one, "secret") or "") for one in item.all("env"))


def _file(item: Item) -> spec.File:
    values: dict[str, Any] = item.values
    mode = values["mode"]
    return spec.File(
        target=values["target"],
        source=values["source"] or "",
        secret=values["secret"] or "",
        mode=mode if mode is not None else 0o400 if values["secret"] else 0o444,
        owner=values["owner"] or "",
        expand=values["expand"],
        on_change=values["on-change"],
    )


def _volume(item: Item) -> spec.Volume:
    values: dict[str, Any] = item.values
    kind, source = values["source"]
    return spec.Volume(
        target=values["target"],
        path=source if kind == "path" else "",
        name=source if kind == "name" else "",
        tmpfs_bytes=source if kind == "tmpfs" else None,
        scope=values["scope"],
        owner=values["owner"] or "",
        read_only=values["read-only"],
        shared_writers=values["shared-writers"],
    )


def _resources(item: Item | None) -> spec.Resources:
    if item is None:
        return spec.Resources()
    values: dict[str, Any] = item.values
    return spec.Resources(values["cpus"], values["memory"], values["gpus"] or "", values["shm"], values["pids"])


def _health(item: Item) -> spec.Health:
    values: dict[str, Any] = item.values
    return spec.Health(_probe(item), values["interval"], values["timeout"], values["retries"], values["start-period"])


def _probe(item: Item) -> spec.Probe:
    if http := item.one("http"):
        values: dict[str, Any] = http.values
        headers = tuple(_pair(one, "name") for one in http.all("header"))
        return spec.HttpProbe(values["port"] or "", values["path"], values["status"], headers)
    if tcp := item.one("tcp"):
        return spec.TcpProbe(_get(tcp, "port") or "")
    if command := item.one("exec"):
        return spec.ExecProbe(args(command))
    return spec.ImageProbe()


def _log(item: Item | None) -> spec.Log:
    if item is None:
        return spec.Log()
    return spec.Log(_get(item, "driver"), _get(item, "max-size"), _get(item, "max-files"))


def _stop(item: Item | None) -> spec.Stop:
    return spec.Stop(_get(item, "signal") or "", _get(item, "grace")) if item else spec.Stop()


def _placement(item: Item | None) -> spec.Placement:
    if item is None:
        return spec.Placement()
    return spec.Placement(
        require=tuple(_pair(one, "label") for one in item.all("require")),
        spread=tuple(spec.Spread(_get(one, "by"), _get(one, "max")) for one in item.all("spread")),
        avoid=tuple(_get(one, "app") for one in item.all("avoid")),
        pins=tuple(_pin(one) for one in item.all("pin")),
    )


def _pin(item: Item) -> spec.Pin:
    values: dict[str, Any] = item.values
    return spec.Pin(values["replica"], values["node"] or "", values["address"] or "", values["port"])


def _update(item: Item | None, binds_to_node: bool) -> spec.Update:
    natural: Any = "recreate" if binds_to_node else "rolling"
    if item is None:
        return spec.Update(strategy=natural)
    values: dict[str, Any] = item.values
    return spec.Update(
        strategy=values["strategy"] or natural,
        max_surge=values["max-surge"],
        max_unavailable=values["max-unavailable"],
        drain_s=values["drain"],
        pause_after=values["pause-after"],
        timeout_s=values["timeout"],
        on_failure=values["on-failure"],
    )


def _job(item: Item) -> spec.Job:
    values: dict[str, Any] = item.values
    image = item.one("image")
    return spec.Job(
        name=values["name"],
        before_update=values["before"] == "update",
        schedule=values["schedule"] or "",
        timezone=values["timezone"],
        timeout_s=values["timeout"],
        image=str(image.text) if image else "",
        command=_optional_args(item.one("command")),
        env=_env(item),
    )


def _scale(item: Item) -> spec.Scale:
    values: dict[str, Any] = item.values
    return spec.Scale(
        values["min"], values["max"], values["cpu"], values["memory"], values["requests"], values["command"] or ""
    )


def _route(item: Item) -> spec.Route:
    values: dict[str, Any] = item.values
    return spec.Route(
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


def _record(item: Item, app_name: str) -> spec.Record:
    values: dict[str, Any] = item.values
    return spec.Record(
        name=values["name"] or app_name,
        type=values["type"],
        port=values["port"] or "",
        to=values["to"],
        ttl_s=values["ttl"],
        group=values["group"],
        where=item.where,
    )
