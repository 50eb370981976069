"""An app on a node, named in a real BIND that k4t set up: the command line from the first install to an empty zone."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator

import pytest

from tests.e2e.site import Site
from tests.lab import Host, Lab

pytestmark = pytest.mark.integration
APP = """\
<app replicas="{replicas}">
  <image>{image}</image>
  <port name="http" host="auto"/>
  <health interval="1s" retries="2" start-period="2s"><http port="http" path="/healthz"/></health>
  <update max-unavailable="100%" drain="0s"/>
  <stop grace="1s"/>
  <record type="srv" ttl="1s"/>
  <record name="edge" to="192.0.2.7, 2001:db8::7" ttl="5m"/>
</app>
"""


@pytest.fixture
def names(site: Site, lab: Lab) -> Iterator[Host]:
    """The host that is to be the DNS server; its secret is a file beside the tree."""
    host = lab.host("gw1")
    key = site.directory / "tsig"
    key.write_text(base64.b64encode(os.urandom(32)).decode())
    key.chmod(0o600)
    site.write("secrets/tsig.xml", f'<secret file="{key}"/>\n')
    dns = f'<dns driver="rfc2136" address="{host.address}" zone="k4t.lab" key-name="k4t" secret="tsig"/>\n'
    site.write("dns/names.xml", dns)
    yield host
    host.exec(["sh", "-c", 'kill -9 "$(cat /run/k4t-named.pid)"; rm -f /run/k4t-named.pid'], check=False)
    host.exec(["rm", "-rf", "/var/lib/k4t", "/etc/bind/k4t", "/var/lib/bind/k4t"])


def dig(host: Host, name: str, kind: str) -> list[str]:
    done = host.exec(["dig", "+short", "+time=2", "+tries=1", f"@{host.address}", name, kind], check=False)
    return sorted(line for line in done.stdout.split("\n") if line and not line.startswith(";"))


def nsupdate(site: Site, host: Host, line: str) -> None:
    key = (site.directory / "tsig").read_text()
    text = f"server {host.address}\nzone k4t.lab\n{line}\nsend\n"
    host.exec(["sh", "-c", f"printf '{text}' | nsupdate -y hmac-sha256:k4t:{key}"])


def test_from_an_empty_host_to_names_and_back(site: Site, lab: Lab, names: Host) -> None:
    """Install; a port that k4t chose is found by SRV; a second replica; drift is told and healed; the app goes, and its
    names; the key is in no output."""
    key = (site.directory / "tsig").read_text()
    said = site.k4t("dns", "install").stdout
    assert "and takes updates of k4t.lab" in said
    assert "nothing to do" in site.k4t("dns", "install").stdout
    assert "ok   rfc2136: serves what it was told" in site.k4t("dns", "check").stdout
    site.write("apps/web/app.xml", APP.format(replicas=1, image=lab.image))
    said += site.k4t("apply", "--yes").stderr
    (srv,) = dig(names, "_http._tcp.web.k4t.lab", "SRV")
    priority, weight, port, target = srv.split()
    assert (priority, weight) == ("0", "1")
    (ip,) = dig(names, target, "A")
    assert ip in (lab.host("n1").address, lab.host("n2").address)
    assert names.exec(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{ip}:{port}/"]).stdout == "200"
    assert dig(names, "edge.k4t.lab", "AAAA") == ["2001:db8::7"]
    site.write("apps/web/app.xml", APP.format(replicas=2, image=lab.image))
    site.k4t("apply", "--yes")
    assert len(dig(names, "_http._tcp.web.k4t.lab", "SRV")) == 2
    assert site.json("status")["dns"][0]["in_step"]

    nsupdate(site, names, "update delete edge.k4t.lab. A")
    status = site.json("status")["dns"][0]
    assert status["differences"] == ["edge.k4t.lab does not give 192.0.2.7"]
    assert "edge.k4t.lab does not give 192.0.2.7" in site.k4t("dns", "check", status=1).stdout
    site.k4t("apply", "--yes")
    assert dig(names, "edge.k4t.lab", "A") == ["192.0.2.7"]

    site.k4t("app", "remove", "web", "--yes")
    assert dig(names, "_http._tcp.web.k4t.lab", "SRV") == []
    assert dig(names, "edge.k4t.lab", "A") == []
    assert dig(names, target, "A") == []
    assert key not in said + site.k4t("status").stdout


def test_who_says_no(site: Site, lab: Lab, names: Host) -> None:
    """A wrong key is 77, a server that is off 69, SRV beside dnsmasq 65; each by name, and nothing has changed."""
    site.k4t("dns", "install")
    site.write("apps/web/app.xml", APP.format(replicas=1, image=lab.image))
    site.k4t("apply", "--yes")
    served = dig(names, "_http._tcp.web.k4t.lab", "SRV")
    right = (site.directory / "tsig").read_text()
    (site.directory / "tsig").write_text("c29tZXRoaW5nIGVsc2U=")
    site.write("apps/web/app.xml", APP.format(replicas=2, image=lab.image))
    refused = site.k4t("apply", "--yes", status=77)
    assert "names: TSIG key k4t has another secret there (BADSIG)" in refused.stdout + refused.stderr
    (site.directory / "tsig").write_text(right)
    names.exec(["sh", "-c", 'kill -STOP "$(cat /run/k4t-named.pid)"'])
    away = site.k4t("apply", "--yes", status=69)
    assert "names: no DNS answer: timed out" in away.stdout + away.stderr
    names.exec(["sh", "-c", 'kill -CONT "$(cat /run/k4t-named.pid)"'])
    assert dig(names, "_http._tcp.web.k4t.lab", "SRV") == served
    site.write("dns/plain.xml", f'<dns driver="dnsmasq" address="{names.address}" port="5353" zone="k4t.lab"/>\n')
    found = site.k4t("plan", status=65)
    assert "apps/web/app.xml:7: plain (dnsmasq) can't serve srv records" in found.stderr
    (site.db / "dns/plain.xml").unlink()
    site.k4t("apply", "--yes")
    assert len(dig(names, "_http._tcp.web.k4t.lab", "SRV")) == 2


def test_through_another_host(site: Site, lab: Lab, names: Host) -> None:
    """A server that the master can't reach is asked from the host of its <ssh>; one that is no host of the tree too."""
    site.k4t("dns", "install")
    path = site.db / "dns/names.xml"
    there = path.read_text().replace("/>", f'><ssh host="{lab.host("n2").address}"/></dns>')
    path.write_text(there)
    assert "ok   rfc2136: serves what it was told" in site.k4t("dns", "check", timeout_s=60).stdout
    (site.db / "nodes/n2.xml").unlink()
    assert "ok   rfc2136: serves what it was told" in site.k4t("dns", "check", timeout_s=60).stdout
    path.write_text(there.replace("zone=", 'port="54" zone='))
    refused = site.k4t("dns", "check", status=69, timeout_s=60)
    assert "names: no DNS answer over TCP" in refused.stdout
