"""A DNS server without a POSIX shell, over the real SSH: a stand-in for Windows (see tests/dns), beside a dnsmasq."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site
from tests.lab import Host, Lab

pytestmark = pytest.mark.integration
FAKE = Path(__file__).resolve().parents[1] / "dns"
ROUTED = '  <record name="web" ttl="2s"/>'
SRV = '  <record type="srv" port="http" ttl="2s"/>'


@pytest.fixture
def windows(site: Site, lab: Lab) -> Iterator[Host]:
    host = lab.host("gw1")
    host.exec(["mkdir", "-p", "/srv/windows", "/opt/powershell/golden"])
    for name in ("fake_powershell.py", "golden/bootstrap.ps1", "golden/program.ps1"):
        host.exec(["sh", "-c", f"cat > /opt/powershell/{name}"], input=(FAKE / name).read_text())
    host.exec(["sh", "-c", "chmod 755 /opt/powershell/*.py; ln -sf /opt/powershell/*.py /usr/local/bin/powershell"])
    host.exec(["sh", "-c", "cat > /srv/windows/zones.json"], input=json.dumps({"k4t.lab": []}))
    site.write("dns/win1.xml", f'<dns driver="windows" address="{host.address}" zone="k4t.lab"/>\n')
    yield host
    host.exec(["sh", "-c", "rm -rf /srv/windows /opt/powershell /usr/local/bin/powershell /var/lib/k4t"])


def rows(host: Host) -> list[str]:
    zones = json.loads(host.exec(["cat", "/srv/windows/zones.json"]).stdout)
    return sorted(" ".join(map(str, row)) for row in zones["k4t.lab"])


def test_an_app_is_named(site: Site, lab: Lab, windows: Host) -> None:
    """Install (there is nothing to), publish, a second replica with SRV, drift told and healed, all gone; and nothing
    of k4t's for hosts with a shell is on that host: no registrar, no lock, no head."""
    assert "nothing to install: PowerShell answers for k4t.lab" in site.k4t("dns", "install").stdout
    site.app("web", replicas=1, more=ROUTED)
    site.k4t("apply", "--yes")
    (first,) = rows(windows)
    assert first.startswith("web A 2 10.")
    assert site.json("status")["dns"][0]["in_step"]
    site.app("web", replicas=2, more=ROUTED + SRV)
    site.k4t("apply", "--yes")
    assert len([row for row in rows(windows) if row.startswith("web A 2 ")]) == 2
    assert len([row for row in rows(windows) if row.startswith("_http._tcp.web SRV 2 0 1 8080 ")]) == 2
    windows.exec(["sed", "-i", 's/"web"/"wob"/', "/srv/windows/zones.json"])
    assert any("web.k4t.lab does not give" in line for line in site.json("status")["dns"][0]["differences"])
    site.k4t("apply", "--yes")
    assert len([row for row in rows(windows) if row.startswith("web A 2 ")]) == 2
    assert "ok   windows: serves what it was told" in site.k4t("dns", "check").stdout
    site.k4t("app", "remove", "web", "--yes")
    assert [row for row in rows(windows) if not row.startswith("wob")] == []
    assert windows.exec(["test", "-e", "/var/lib/k4t"], check=False).returncode == 1


def test_beside_a_dnsmasq(site: Site, lab: Lab, windows: Host) -> None:
    """One group, two vendors: equal digests; what the weaker one can't is refused; what one refuses, neither does."""
    site.write("dns/names.xml", f'<dns driver="dnsmasq" address="{windows.address}" port="5353" zone="k4t.lab"/>\n')
    site.k4t("dns", "install")
    site.app("web", replicas=2, more=ROUTED)
    site.k4t("apply", "--yes")
    assert len({one["digest"] for one in site.json("status")["dns"]}) == 1
    served = rows(windows)
    site.app("web", replicas=2, more=ROUTED + SRV)
    assert "names (dnsmasq) can't serve srv records" in site.k4t("plan", status=65).stderr
    site.app("web", replicas=1, more=ROUTED)
    fault = ["WIN32 9717,Get-DnsServerZone", "NotSpecified", "DNS zone is shut down."]
    windows.exec(["sh", "-c", "cat > /srv/windows/fault"], input=json.dumps(fault))
    away = site.k4t("apply", "--yes", status=None)
    assert away.returncode not in (0, 2)
    assert "DNS zone is shut down." in away.stdout + away.stderr
    windows.exec(["rm", "/srv/windows/fault"])
    assert rows(windows) == served
    site.k4t("apply", "--yes")
    assert len(rows(windows)) == 1
    windows.exec(["sh", "-c", 'kill -9 "$(cat /run/k4t-dnsmasq.pid)"; rm -f /run/k4t-dnsmasq.pid; rm -rf /etc/k4t'])
