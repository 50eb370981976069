"""The hosts on which the master leaves word while it is off: backup targets, gateways, DNS servers with a shell.
A monitor reads there that it is off on purpose, and other machines leave there what it is to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from k4t.errors import K4tError
from k4t.master.backup.targets import targets_of
from k4t.master.fleet import WITHOUT_SHELL, Fleet, Host, Key, at_once
from k4t.model.hosts import Dns, Gateway
from k4t.model.value import value
from k4t.remote.lock import STATE
from k4t.remote.transport import Transport

R = TypeVar("R")


@value
class Failure:
    """A place where it could not be done."""

    name: str
    error: K4tError


def places(fleet: Fleet) -> tuple[Host, ...]:
    """Each machine once, in the order of the tree. Nodes that were given up are none."""
    tree = fleet.tree
    members: list[Gateway | Dns] = [*tree.gateways.values()]
    members += [dns for dns in tree.dns.values() if dns.driver not in WITHOUT_SHELL]
    hosts = [one.host for one in targets_of(tree) if not one.dead] + [fleet.host_of(one) for one in members]
    found: dict[Key, Host] = {}
    for host in hosts:
        found.setdefault(host.key, fleet.hosts.get(host.key, host))
    return tuple(found.values())


def directory(cluster_id: str) -> str:
    return f"{STATE}/{cluster_id}"


def everywhere(
    fleet: Fleet, hosts: Iterable[Host], action: Callable[[Transport], R]
) -> tuple[dict[str, R], list[Failure]]:
    """Do it on all of them at once: what came of it by name, and where it could not be done."""
    listed = list(hosts)

    def one(host: Host) -> R | Failure:
        try:
            return action(fleet.connection(host))
        except K4tError as error:
            return Failure(host.name, error)

    done: dict[str, R] = {}
    failed = []
    for host, result in zip(listed, at_once(one, listed), strict=True):
        if isinstance(result, Failure):
            failed.append(result)
        else:
            done[host.name] = result
    return done, failed
