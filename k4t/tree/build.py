"""Checked items → the values of the model: the cluster and its hosts. Apps are built in `build_app`."""

from __future__ import annotations

from typing import Any

from k4t.model.hosts import AddressPool, Capacity, Dns, Gateway, Node, Power, Script, Ssh
from k4t.model.publish import Certificate
from k4t.model.snapshot import Recovery, RecoveryRecipient
from k4t.model.spec import Backup, Cluster, Registry, Safety, SecretRef
from k4t.tree.check import Item


def cluster(item: Item) -> Cluster:
    values: dict[str, Any] = item.values
    publication = item.one("publication")
    safety, power = item.one("safety"), item.one("power")
    return Cluster(
        name=values["name"],
        id=values["id"],
        format=int(values["format"]),
        ssh=ssh(item.one("ssh")),
        variables=variables(item),
        registries=tuple(_registry(one) for one in item.all("registry")),
        backups=tuple(_backup(one) for one in item.all("backup")),
        when_unreachable=_get(publication, "when-unreachable") if publication else "refuse",
        safety=Safety(_get(safety, "withdraw"), _get(safety, "min")) if safety else Safety(),
        power=_power(power, after_apply=_get(power, "after-apply")) if power else None,
        where=item.where,
    )


def variables(item: Item) -> dict[str, str]:
    """Those that are right, also of a cluster.xml that isn't."""
    found = ((_get(one, "name"), one.text) for one in item.all("variable"))
    return {name: str(text) for name, text in found if name is not None and text is not None}


def _get(item: Item, name: str) -> Any:
    return item.values[name]


def _registry(item: Item) -> Registry:
    values: dict[str, Any] = item.values
    return Registry(values["host"], values["user"] or "", values["secret"] or "", item.where)


def _backup(item: Item) -> Backup:
    values: dict[str, Any] = item.values
    return Backup(
        node=values["node"] or "",
        host=values["host"] or "",
        every_s=values["every"],
        keep=values["keep"],
        keep_daily=values["keep-daily"],
        where=item.where,
        encrypted=values["encrypted"],
    )


def recovery(item: Item) -> Recovery:
    values: dict[str, Any] = item.values
    recipients = tuple(RecoveryRecipient(str(one.text), _get(one, "name") or "") for one in item.all("recipient"))
    sealed = item.one("sealed-key")
    return Recovery(values["key"], recipients, str(sealed.text) if sealed else "", item.where)


def _power(item: Item | None, after_apply: Any = "stay") -> Power | None:
    if item is None:
        return None
    values: dict[str, Any] = item.values
    spare = bool(values.get("spare"))
    return Power(values.get("host") or "", values["on"] or "", values["off"] or "", after_apply, spare)


def ssh(item: Item | None, address: str = "") -> Ssh:
    if item is None:
        return Ssh(host=address)
    values: dict[str, Any] = item.values
    return Ssh(
        host=values["host"] or address,
        port=values["port"],
        user=values["user"] or "",
        key=values["key"] or "",
        jump=values["jump"] or "",
        sudo=values["sudo"],
        connect_timeout_s=values["connect-timeout"],
    )


def node(name: str, item: Item) -> Node:
    values: dict[str, Any] = item.values
    address, address6 = values["address"]
    ports, addresses = item.one("ports"), item.one("addresses")
    return Node(
        name=name,
        address=address,
        address6=address6,
        availability=values["availability"],
        ssh=ssh(item.one("ssh"), address),
        labels={_get(one, "name"): str(one.text) for one in item.all("label")},
        capacity=_capacity(item.one("capacity")),
        port_range=_get(ports, "range") if ports else (20000, 29999),
        pool=_pool(addresses) if addresses else None,
        power=_power(item.one("power")),
        where=item.where,
    )


def _capacity(item: Item | None) -> Capacity:
    if item is None:
        return Capacity()
    values: dict[str, Any] = item.values
    return Capacity(values["cpus"], values["memory"], values["reserve-memory"])


def _pool(item: Item) -> AddressPool:
    values: dict[str, Any] = item.values
    first, last = values["range"]
    return AddressPool(first, last, values["interface"], values["subnet"], values["gateway"] or "")


def _scripts(item: Item) -> tuple[Script, ...]:
    return tuple(Script(_get(one, "verb"), args(one)) for one in item.all("script"))


def args(item: Item) -> tuple[str, ...]:
    return tuple(str(one.text) for one in item.all("arg"))


def gateway(name: str, item: Item) -> Gateway:
    values: dict[str, Any] = item.values
    return Gateway(
        name=name,
        driver=values["driver"],
        address=values["address"],
        group=values["group"],
        http=values["http"],
        https=values["https"],
        ssh=ssh(item.one("ssh"), values["address"]),
        scripts=_scripts(item),
        where=item.where,
    )


def dns(name: str, item: Item) -> Dns:
    values: dict[str, Any] = item.values
    return Dns(
        name=name,
        driver=values["driver"],
        address=values["address"],
        zone=values["zone"],
        group=values["group"],
        port=values["port"],
        key_name=values["key-name"] or "",
        secret=values["secret"] or "",
        reverse=values["reverse"] or (),
        path=values["path"] or "",
        ssh=ssh(item.one("ssh"), values["address"]),
        scripts=_scripts(item),
        where=item.where,
    )


def certificate(name: str, item: Item) -> Certificate:
    values: dict[str, Any] = item.values
    chain, key_secret, chain_path, key_path = (
        str(values[key] or "") for key in ("chain", "key-secret", "chain-path", "key-path")
    )
    return Certificate(name, chain, key_secret, chain_path, key_path, where=item.where)


def secret(name: str, item: Item) -> SecretRef:
    values: dict[str, Any] = item.values
    if values["environment"]:
        return SecretRef(name, "environment", values["environment"], item.where)
    if values["command"]:
        return SecretRef(name, "command", values["command"], item.where)
    return SecretRef(name, "file", values["file"] or "", item.where)
