"""A pair of gateways behind one address that moves, and two DNS servers in one list: the files of docs/keepalived."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import wipe, wipe_node
from tests.e2e.site import Site, fetch
from tests.lab import Host, Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
FILES = Path(__file__).parents[2] / "docs" / "keepalived"
WRITTEN_FIRST, WRITTEN_SECOND, WRITTEN_MOVING = "10.88.0.21", "10.88.0.22", "10.88.0.20"
MOVES_WITHIN_S = 20
ROUTED = '<route domain="web.k4t.lab"/><record name="web" ttl="1s"/><health interval="1s"><http path="/"/></health>'


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    with Lab(name=f"pair-{os.getpid()}", nodes=1, gateways=2, registry=True) as up:
        yield up


@pytest.fixture
def site(pair: Lab, tmp_path: Path) -> Iterator[Site]:
    """One app, published on two gateways and two DNS servers; the address that moves is held by gw1."""
    made = Site(pair, tmp_path)
    made.node(pair.host("n1"))
    for name in ("gw1", "gw2"):
        made.gateway(pair.host(name), name)
        made.dns(pair.host(name), f"names-{name}")
    made.k4t("gateway", "install")
    made.k4t("dns", "install")
    made.app("web", more=ROUTED)
    made.k4t("apply", "--yes")
    for name in ("gw1", "gw2"):
        keepalived(pair, name)
    yield made
    for name in ("gw1", "gw2"):
        if pair.host(name).is_on:
            pair.host(name).stop("keepalived")
            wipe(pair.host(name))
    wipe_node(pair.host("n1"))


def moving(lab: Lab) -> str:
    return lab.address.rpartition(".")[0] + ".200"


def keepalived(lab: Lab, name: str) -> None:
    """The documented files, with this lab's addresses, on one gateway."""
    first, second = lab.host("gw1").address, lab.host("gw2").address
    if name == "gw2":
        first, second = second, first
    text = (FILES / "keepalived.conf").read_text().replace("priority 110", f"priority {110 if name == 'gw1' else 100}")
    # In one go: an address may be the beginning of another one.
    for written, mark in ((WRITTEN_FIRST, "@1"), (WRITTEN_SECOND, "@2"), (WRITTEN_MOVING, "@3")):
        text = text.replace(written, mark)
    text = text.replace("@1", first).replace("@2", second).replace("@3", moving(lab))
    host = lab.host(name)
    host.exec(["mkdir", "-p", "/etc/keepalived"])
    host.exec(["tee", "/etc/keepalived/keepalived.conf"], input=text)
    host.exec(["tee", "/etc/keepalived/check-gateway"], input=(FILES / "check-gateway").read_text())
    host.exec(["chmod", "755", "/etc/keepalived/check-gateway"])
    host.spawn("keepalived", ["/usr/sbin/keepalived", "--dont-fork", "--log-console", "--vrrp"])
    if name == "gw1":
        until(lambda: holds(lab, host))


def holds(lab: Lab, host: Host) -> bool:
    return f" {moving(lab)}/" in host.exec(["ip", "-4", "addr", "show"]).stdout


def until(truth: object, within_s: float = MOVES_WITHIN_S) -> float:
    """Seconds until it was true."""
    assert callable(truth)
    started = time.monotonic()
    while not truth():
        assert time.monotonic() - started < within_s, "it did not happen"
        time.sleep(0.1)
    return time.monotonic() - started


def serves(lab: Lab) -> bool:
    try:
        return fetch(f"http://{moving(lab)}/", "web.k4t.lab", timeout_s=1)[0] == 200
    except OSError:
        return False


def test_the_address_moves_from_a_gateway_that_lost_its_power(site: Site, pair: Lab) -> None:
    """Traffic at the moving address goes on through the other gateway, and stays there when the first is back; k4t then
    finds both in step."""
    until(lambda: serves(pair))
    pair.host("gw1").power_off()
    until(lambda: holds(pair, pair.host("gw2")) and serves(pair))
    pair.host("gw1").power_on()
    assert holds(pair, pair.host("gw2"))
    assert serves(pair)


def test_the_address_moves_from_a_gateway_whose_process_died(site: Site, pair: Lab) -> None:
    """The host lives on; the check takes the address away."""
    until(lambda: serves(pair))
    gateway = pair.host("gw1")
    gateway.exec(["sh", "-c", "kill -9 $(cat /run/k4t-envoy.pid)"])
    until(lambda: holds(pair, pair.host("gw2")) and not holds(pair, gateway) and serves(pair))


def test_names_resolve_while_the_first_dns_server_is_away(site: Site, pair: Lab) -> None:
    """A client with both servers in its list, as documented, gets the answer from the second one."""
    client = pair.host("n1")
    listed = (FILES / "resolv.conf").read_text()
    listed = listed.replace(WRITTEN_FIRST, pair.host("gw1").address).replace(WRITTEN_SECOND, pair.host("gw2").address)
    client.exec(["tee", "/etc/resolv.conf"], input=listed)
    lookup = ["getent", "ahostsv4", "web.k4t.lab"]
    assert client.address in client.exec(lookup).stdout
    pair.host("gw1").cut()
    try:
        assert client.address in client.exec(lookup).stdout
    finally:
        pair.host("gw1").restore()
