"""Two gateways of different vendors and a DNS server, published to by the real command line."""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from subprocess import Popen
from typing import Any

from tests.e2e.conftest import wipe_node
from tests.e2e.site import Site, fetch
from tests.lab import Host, Lab

VENDORS = ("envoy", "dnsmasq", "haproxy")
APP = """\
<app>
  <image>{image}</image>
  <port name="http" container="8080"/>
  <env name="PORT">8080</env>
  <health interval="1s" retries="2" start-period="2s"><http port="http" path="/healthz"/></health>
  <update max-unavailable="100%" drain="0s"/>
  <stop grace="1s"/>
  <route port="http" domain="{domains}"/>
  <record name="web" ttl="1s"/>
</app>
"""


def members(lab: Lab) -> tuple[Host, Host]:
    return lab.host("gw1"), lab.host("gw2")


def begin(site: Site, lab: Lab, *, policy: str = "refuse") -> None:
    """One node, Envoy on gw1, HAProxy on gw2, dnsmasq on gw1, and web published at v0.k4t.lab."""
    first, second = members(lab)
    text = (site.db / "cluster.xml").read_text()
    site.write("cluster.xml", text.replace("</cluster>", f'<publication when-unreachable="{policy}"/>\n</cluster>'))
    site.node(lab.host("n1"))
    site.gateway(first)
    site.write("gateways/gw2.xml", f'<gateway driver="haproxy" address="{second.address}" http="80"/>\n')
    site.dns(first)
    site.k4t("gateway", "install")
    site.k4t("dns", "install")
    change(site, "v0")
    site.k4t("apply", "--yes")


def change(site: Site, *names: str) -> None:
    """Only routes are other ones: a plan of one publication."""
    domains = " ".join(f"{name}.k4t.lab" for name in names)
    site.write("apps/web/app.xml", APP.format(image=site.lab.image, domains=domains))


def check(site: Site, lab: Lab, name: str, about: str) -> None:
    """Both serve this and are in step, nothing is open, nothing is left to do."""
    for host in members(lab):
        assert served(host, name), f"{about}: {host.name} does not serve {name}"
    status = site.json("status")
    assert all(member["in_step"] for member in status["gateways"] + status["dns"]), f"{about}: {status}"
    assert len({member["digest"] for member in status["gateways"]}) == 1, about
    assert status["transactions"] == [], f"{about}: {status['transactions']}"
    again = site.json("apply", "--yes")
    assert (again["result"], again["done"]) == ("nothing", 0), f"{about}: {again}"


def served(host: Host, name: str) -> bool:
    for _ in range(20):  # HAProxy's own check may still be under way
        if fetch(f"http://{host.address}/", f"{name}.k4t.lab")[0] == 200:
            return True
        time.sleep(0.1)
    return False


def kept(host: Host) -> Mapping[str, str]:
    """Every file that a publication may change on a host, by its hash; without fences, which only keep others out."""
    script = "find /var/lib/k4t/registrar/*/clusters /var/lib/k4t/envoy /var/lib/k4t/haproxy -type f 2>/dev/null"
    paths = [path for path in host.exec(["sh", "-c", script], check=False).stdout.split() if "/fence" not in path]
    return {path: hashlib.sha256(host.exec(["cat", path]).stdout.encode()).hexdigest() for path in sorted(paths)}


def stopped_at(site: Site, place: str, *words: str) -> Popen[str]:
    """A run that stands still there (SIGSTOP)."""
    process = site.start("apply", "--yes", *words, extra={"K4T_FAILPOINT": f"{place}=stop"})
    deadline = time.monotonic() + 60
    while (state := _state(process.pid)) != "T":
        assert process.poll() is None, f"{place}: {process.communicate()}"
        assert time.monotonic() < deadline, f"{place}: {state}"
        time.sleep(0.02)
    return process


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def woken(process: Popen[str], timeout_s: float = 120) -> tuple[int, str]:
    """Its exit status, and all it said."""
    process.send_signal(signal.SIGCONT)
    out, said = process.communicate(timeout=timeout_s)
    assert "Traceback" not in said, said
    return process.returncode, out + said


def clear(lab: Lab) -> None:
    for host in members(lab):
        for vendor in VENDORS:
            script = f'kill -9 "$(cat /run/k4t-{vendor}.pid)"; rm -f /run/k4t-{vendor}.pid'
            host.exec(["sh", "-c", script], check=False)
        host.exec(["rm", "-rf", "/var/lib/k4t", "/etc/k4t"])
    wipe_node(lab.host("n1"))


def documents(status: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """(epoch, seq) of what each gateway holds."""
    return {member["name"]: (member["epoch"], member["seq"]) for member in status["gateways"]}
