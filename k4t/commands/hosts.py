"""Nodes, gateways and DNS servers of the tree: list, add, check, install."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k4t.commands.common import agree, group, run_check, run_list
from k4t.commands.groups import members, run_remove, run_sync, run_takeover
from k4t.errors import K4tError
from k4t.options import (
    Address,
    ClusterName,
    DnsName,
    DnsNames,
    Driver,
    GatewayName,
    GatewayNames,
    Globals,
    NewName,
    NodeNames,
    SshHost,
    SshPort,
    SshUser,
    Sudo,
)

if TYPE_CHECKING:
    from k4t.model.hosts import Ssh

node_app = group("Docker hosts of the tree.")
gateway_app = group("Gateways of the tree.")
dns_app = group("DNS servers of the tree.")


@node_app.command("list", epilog="Example: k4t node list -o json")
def node_list(ctx: typer.Context) -> None:
    """Nodes as the tree has them."""
    run_list(ctx.obj, "nodes")


@node_app.command("add", epilog="Example: k4t node add node3 10.0.0.13 --ssh-user deploy --sudo")
def node_add(
    ctx: typer.Context,
    name: NewName,
    address: Address,
    ssh_host: SshHost = "",
    ssh_port: SshPort = None,
    ssh_user: SshUser = "",
    sudo: Sudo = False,
) -> None:
    """Write nodes/NAME.xml, enrol the host's key, and check the host."""
    from k4t.tree.create import add_node

    ssh = _ssh(ssh_host, ssh_port, ssh_user, sudo=sudo)
    _added(ctx.obj, "nodes", name, add_node(ctx.obj.db, name, address, ssh=ssh))


def _ssh(host: str, port: int | None, user: str, *, sudo: bool) -> Ssh:
    from k4t.model.hosts import Ssh

    return Ssh(host=host, port=port, user=user, sudo=sudo or None)


def _added(given: Globals, kind: str, name: str, path: Path) -> None:
    """Say which file was written, enrol the host's key, and check what can be checked."""
    from k4t.wiring import enrol

    given.console.note(f"wrote {path}")
    try:
        enrol(given.db, [name], given.console.note, lambda question: agree(given, question))
    except K4tError:
        given.console.note(f"{path} stays: mend it and go on with `k4t trust {name}`, or delete it")
        raise
    if kind == "nodes":
        run_check(given, kind, [name])  # leaves with what the check says
    else:
        given.console.note(f"next: k4t {'dns' if kind == 'dns' else 'gateway'} install {name}")


@node_app.command("check", epilog="Example: k4t node check node1")
def node_check(ctx: typer.Context, names: NodeNames = None) -> None:
    """Connect to nodes and check everything k4t needs there."""
    run_check(ctx.obj, "nodes", names)


@gateway_app.command("list", epilog="Example: k4t gateway list")
def gateway_list(ctx: typer.Context) -> None:
    """Gateways as the tree has them, and every endpoint that they hold with its owner, whatever cluster's it is."""
    members(ctx.obj, "gateways", "gateway")


@gateway_app.command("add", epilog="Example: k4t gateway add edge 10.0.0.21")
def gateway_add(
    ctx: typer.Context,
    name: NewName,
    address: Address,
    driver: Driver = "envoy",
    ssh_host: SshHost = "",
    ssh_port: SshPort = None,
    ssh_user: SshUser = "",
    sudo: Sudo = False,
) -> None:
    """Write gateways/NAME.xml and enrol the host's key."""
    from k4t.tree.create import add_gateway

    ssh = _ssh(ssh_host, ssh_port, ssh_user, sudo=sudo)
    _added(ctx.obj, "gateways", name, add_gateway(ctx.obj.db, name, address, driver=driver, ssh=ssh))


@gateway_app.command("check", epilog="Example: k4t gateway check gw1")
def gateway_check(ctx: typer.Context, names: GatewayNames = None) -> None:
    """Connect to gateways, check what k4t needs there, and compare what they serve with what they were told."""
    run_check(ctx.obj, "gateways", names)


@gateway_app.command("install", epilog="Example: k4t gateway install gw1")
def gateway_install(ctx: typer.Context, names: GatewayNames = None) -> None:
    """Make hosts ready to be gateways: the registrar, the vendor's configuration, its service."""
    _install(ctx.obj, "gateways", names)


@gateway_app.command("remove", epilog="Example: k4t gateway remove gw1")
def gateway_remove(ctx: typer.Context, name: GatewayName) -> None:
    """Take a gateway out of the tree, and what this cluster publishes off it. Move its traffic away first."""
    run_remove(ctx.obj, "gateway", name)


@gateway_app.command("sync", epilog="Example: k4t gateway sync gw2")
def gateway_sync(ctx: typer.Context, names: GatewayNames = None) -> None:
    """Derive what gateways should hold from the running containers, compare, show, heal. Touches no container."""
    run_sync(ctx.obj, "gateway", names or [])


@gateway_app.command("takeover", epilog="Example: k4t gateway takeover old-cluster")
def gateway_takeover(ctx: typer.Context, cluster: ClusterName) -> None:
    """Take out what a cluster that is gone still publishes."""
    run_takeover(ctx.obj, "gateway", cluster)


@dns_app.command("list", epilog="Example: k4t dns list")
def dns_list(ctx: typer.Context) -> None:
    """DNS servers as the tree has them, and every endpoint that they hold with its owner, whatever cluster's it is."""
    members(ctx.obj, "dns", "dns")


@dns_app.command("add", epilog="Example: k4t dns add names 10.0.0.21 --zone example.internal")
def dns_add(
    ctx: typer.Context,
    name: NewName,
    address: Address,
    zone: Annotated[str, typer.Option(help="The zone that records go to.")],
    driver: Driver = "dnsmasq",
    key_name: Annotated[str, typer.Option(help="The TSIG key's name (driver rfc2136).")] = "",
    secret: Annotated[str, typer.Option(help="The secret that holds the TSIG key.")] = "",
    ssh_host: SshHost = "",
    ssh_port: SshPort = None,
    ssh_user: SshUser = "",
    sudo: Sudo = False,
) -> None:
    """Write dns/NAME.xml and enrol the host's key; a server that takes updates (driver rfc2136) is only checked."""
    from k4t.tree.create import add_dns

    given: Globals = ctx.obj
    ssh = _ssh(ssh_host, ssh_port, ssh_user, sudo=sudo)
    path = add_dns(given.db, name, address, zone=zone, driver=driver, ssh=ssh, key_name=key_name, secret=secret)
    if driver != "rfc2136":
        _added(given, "dns", name, path)
        return
    given.console.note(f"wrote {path}")
    run_check(given, "dns", [name])  # leaves with what the check says


@dns_app.command("check", epilog="Example: k4t dns check dns1")
def dns_check(ctx: typer.Context, names: DnsNames = None) -> None:
    """Connect to DNS servers, check what k4t needs there, and compare answers with what they were told."""
    run_check(ctx.obj, "dns", names)


@dns_app.command("install", epilog="Example: k4t dns install dns1")
def dns_install(ctx: typer.Context, names: DnsNames = None) -> None:
    """Make hosts ready to be DNS servers: the registrar, the vendor's configuration, its service."""
    _install(ctx.obj, "dns", names)


@dns_app.command("remove", epilog="Example: k4t dns remove dns1")
def dns_remove(ctx: typer.Context, name: DnsName) -> None:
    """Take a DNS server out of the tree, and this cluster's names off it. Point resolvers elsewhere first."""
    run_remove(ctx.obj, "dns", name)


@dns_app.command("sync", epilog="Example: k4t dns sync")
def dns_sync(ctx: typer.Context, names: DnsNames = None) -> None:
    """Derive what DNS servers should hold from the running containers, compare, show, and heal."""
    run_sync(ctx.obj, "dns", names or [])


@dns_app.command("takeover", epilog="Example: k4t dns takeover old-cluster")
def dns_takeover(ctx: typer.Context, cluster: ClusterName) -> None:
    """Take out what a cluster that is gone still names."""
    run_takeover(ctx.obj, "dns", cluster)


def _install(given: Globals, kind: str, names: list[str] | None) -> None:
    from k4t.wiring import chosen, install, opened

    with opened(given.db) as run:
        for thing in chosen(run.tree, kind, names or []):
            for line in install(run, thing):
                given.console.result(f"{thing.name}: {line}")
