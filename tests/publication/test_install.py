"""Installing beside what a host already has. What is there already is not touched."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from k4t.dns import install as dns_install
from k4t.errors import StepError
from k4t.gateway import install as gateway_install
from k4t.gateway.envoy import Envoy
from k4t.master.publication.publish import Publisher
from k4t.model.hosts import Dns, Gateway
from k4t.remote.setup import Survey
from tests.publication.conftest import PROD, Site, backend, changing, route

GATEWAY = Gateway("gw1", "envoy", "10.0.0.1", http=80, https=443)
DNS = Dns("dns1", "dnsmasq", "10.0.0.1", "k4t.lab")
BARE = Survey(False, "/usr/bin/it", (), False)


@pytest.mark.unit
def test_a_bare_host() -> None:
    """Ours to start; https is named as left out."""
    plan = gateway_install.plan_install(BARE, GATEWAY)
    assert plan.own
    assert plan.put
    assert plan.notes == ("port 443 (https) is left out: this version has no certificates yet",)
    assert dns_install.plan_install(BARE, DNS).own


@pytest.mark.unit
def test_no_vendor() -> None:
    """It says what to install."""
    nothing = Survey(True, "", (), False)
    with pytest.raises(StepError, match="Envoy is not installed"):
        gateway_install.plan_install(nothing, GATEWAY)
    with pytest.raises(StepError, match="apt-get install dnsmasq-base"):
        dns_install.plan_install(nothing, DNS)


@pytest.mark.unit
def test_a_foreign_dnsmasq() -> None:
    """Told what to include; where its conf-dir is in use, a drop-in; a bridge's own dnsmasq is in nobody's way."""
    argv = ("/usr/sbin/dnsmasq", "-x", "/run/dnsmasq/dnsmasq.pid")
    plan = dns_install.plan_install(Survey(True, "/usr/sbin/dnsmasq", ((7, argv),), True), DNS)
    assert not plan.own
    assert not plan.config["drop_in"]
    assert "hostsdir=/var/lib/k4t/dnsmasq/hosts\n  local=/k4t.lab/\n  local-ttl=1" in plan.notes[0]
    used = (*argv, "-7", "/etc/dnsmasq.d,.dpkg-dist")
    plan = dns_install.plan_install(Survey(True, "/usr/sbin/dnsmasq", ((7, used),), True), DNS)
    assert plan.config["drop_in"]
    assert "systemctl restart dnsmasq" in plan.notes[0]
    bridge = ("/usr/sbin/dnsmasq", "--conf-file=/var/lib/libvirt/dnsmasq/default.conf")
    assert dns_install.plan_install(Survey(True, "/usr/sbin/dnsmasq", ((7, bridge),), True), DNS).own


@pytest.mark.integration
def test_a_foreign_envoy(site: Site) -> None:
    """Nothing of it is touched; with the lines that the install says, its listener serves k4t's routes."""
    host, gateway = site.ns, Gateway("gw2", "envoy", site.ns.address)
    host.exec(["mkdir", "-p", "/etc/envoy"])
    start(site, {"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9901}}}})
    said = list(gateway_install.install(site.connection("dns1"), gateway))
    host.stop("foreign")
    assert re.match(r"an Envoy that is not k4t's runs here \(pid \d+\); nothing of it was touched", said[0])
    assert not any("bootstrap.json" in line or "started" in line for line in said)
    admin, clusters, rds = (json.loads(line.split(": ", 2)[2]) for line in said[0].splitlines()[2:])
    start(site, {"admin": admin, "dynamic_resources": clusters, "static_resources": {"listeners": [listener(rds)]}})
    try:
        member = Envoy(gateway, PROD, lambda: site.connection("dns1"))
        change = changing("gateway", PROD, endpoints=backend(site, 8001), routes=(route(),))
        assert Publisher([member], PROD, "foreign").publish("gateway", "default", change).changed
        url = f"http://{host.address}:8080/"
        assert host.exec(["curl", "-s", "-H", "Host: web.example.com", url]).stdout.startswith("8001 /")
        member.close()
    finally:
        host.stop("foreign")


def start(site: Site, config: dict[str, object]) -> None:
    text = json.dumps({"node": {"id": "theirs", "cluster": "theirs"}, **config})
    site.ns.exec(["sh", "-c", "cat > /etc/envoy/envoy.json"], input=text)
    site.ns.spawn("foreign", ["envoy", "-c", "/etc/envoy/envoy.json", "--disable-hot-restart", "--log-level", "error"])


def listener(rds: dict[str, object]) -> dict[str, object]:
    golden = json.loads((Path(__file__).parent.parent / "registrar/golden/envoy-setup.json").read_text())
    made: dict[str, object] = json.loads(golden["/var/lib/k4t/envoy/lds/lds.json"])["resources"][0]
    del made["@type"]
    made["address"] = {"socket_address": {"address": "0.0.0.0", "port_value": 8080}}
    chain: list[dict[str, list[dict[str, dict[str, object]]]]] = made["filter_chains"]  # type: ignore[assignment]
    chain[0]["filters"][0]["typed_config"]["rds"] = rds
    return made
