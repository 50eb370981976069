"""Installing beside what a host already has. What is there already is not touched."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from k4t.dns import install as dns_install
from k4t.errors import StepError, VendorRefused
from k4t.gateway import install as gateway_install
from k4t.gateway.envoy import Envoy
from k4t.master.publication.publish import Publisher
from k4t.model.hosts import Dns, Gateway
from k4t.registrar.document import Certificate, Route
from k4t.remote.setup import Survey
from tests.authority import Authority
from tests.publication.conftest import PROD, Site, backend, changing, route

GATEWAY = Gateway("gw1", "envoy", "10.0.0.1", http=80, https=443)
DNS = Dns("dns1", "dnsmasq", "10.0.0.1", "k4t.lab")
BARE = Survey(False, "/usr/bin/it", (), False)


@pytest.mark.unit
def test_a_bare_host() -> None:
    """Ours to start, with both ports."""
    plan = gateway_install.plan_install(BARE, GATEWAY)
    assert plan.own
    assert plan.put
    assert (plan.config["http"], plan.config["https"]) == (80, 443)
    assert plan.notes == ()
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
    """Nothing of it is touched; with the lines that the install says, its listener serves k4t's routes, and k4t's own
    what needs TLS or a port; without those, that alone is refused."""
    host, gateway = site.ns, Gateway("gw2", "envoy", site.ns.address, https=443)
    host.exec(["mkdir", "-p", "/etc/envoy"])
    start(site, {"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9901}}}})
    said = list(gateway_install.install(site.connection("dns1"), gateway))
    host.stop("foreign")
    assert re.match(r"an Envoy that is not k4t's runs here \(pid \d+\); nothing of it was touched", said[0])
    assert not any("bootstrap.json" in line or "started" in line for line in said)
    admin, sources, rds = (json.loads(line.split(": ", 2)[2]) for line in said[0].splitlines()[2:])
    theirs = {"admin": admin, "static_resources": {"listeners": [listener(rds)]}}
    member = Envoy(gateway, PROD, lambda: site.connection("dns1"))
    chain, key = Authority().pair("web.example.com")
    member.certificates = lambda _: (chain, key)
    certificate = Certificate("web", hashlib.sha256(chain.encode()).hexdigest())
    plain = {"endpoints": backend(site, 8001), "routes": (route(),)}
    secure = {"routes": (route(tls="web"), Route("web", listen=9000)), "certificates": (certificate,)}

    def publish(run: str, parts: Mapping[str, object]) -> None:
        Publisher([member], PROD, run).publish("gateway", "default", changing("gateway", PROD, **parts))

    def ask(url: str) -> str:
        argv = ["curl", "-sk", "--resolve", f"web.example.com:443:{host.address}", "-H", "Host: web.example.com", url]
        return host.exec(argv, check=False).stdout[:6]

    try:
        start(site, {**theirs, "dynamic_resources": {"cds_config": sources["cds_config"]}})
        publish("plain", plain)
        assert ask(f"http://{host.address}:8080/") == "8001 /"
        with pytest.raises(VendorRefused, match=r"has not read .*/lds\.json in .* must include k4t's files"):
            publish("secure", secure)
        assert ask(f"http://{host.address}:8080/") == "8001 /"
        host.stop("foreign")
        start(site, {**theirs, "dynamic_resources": sources})
        publish("again", {"name": "prod"})
        assert ask(f"http://{host.address}:8080/") == "8001 /"
        assert ask("https://web.example.com/") == "8001 /"
        assert ask(f"http://{host.address}:9000/") == "8001 /"
        assert member.observe().differences == ()
    finally:
        member.close()
        host.stop("foreign")


def start(site: Site, config: Mapping[str, object]) -> None:
    text = json.dumps({"node": {"id": "theirs", "cluster": "theirs"}, **config})
    site.ns.exec(["sh", "-c", "cat > /etc/envoy/envoy.json"], input=text)
    site.ns.spawn("foreign", ["envoy", "-c", "/etc/envoy/envoy.json", "--disable-hot-restart", "--log-level", "error"])
    for _ in range(100):
        if site.ns.exec(["curl", "-s", "http://127.0.0.1:9901/ready"], check=False).stdout == "LIVE\n":
            return
        time.sleep(0.05)
    raise AssertionError("their Envoy is not ready")


def listener(rds: dict[str, object]) -> dict[str, object]:
    golden = json.loads((Path(__file__).parent.parent / "registrar/golden/envoy-setup.json").read_text())
    made: dict[str, object] = json.loads(golden["/var/lib/k4t/envoy/lds/lds.json"])["resources"][0]
    del made["@type"]
    made["address"] = {"socket_address": {"address": "0.0.0.0", "port_value": 8080}}
    chain: list[dict[str, list[dict[str, dict[str, object]]]]] = made["filter_chains"]  # type: ignore[assignment]
    chain[0]["filters"][0]["typed_config"]["rds"] = rds
    return made
