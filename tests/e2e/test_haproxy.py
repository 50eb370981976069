"""A host with nothing but HAProxy becomes a gateway, and an app is rolled behind it, by the command line alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import wipe
from tests.e2e.site import Site, fetch
from tests.lab import Lab

pytestmark = pytest.mark.integration
ROUTE = '  <route domain="web.example.com"/>'


@pytest.fixture
def behind(site: Site, lab: Lab) -> Iterator[Site]:
    host = lab.host("gw1")
    site.write("gateways/edge.xml", f'<gateway driver="haproxy" address="{host.address}" http="80" https="443"/>\n')
    yield site
    host.exec(["sh", "-c", "kill -9 $(cat /run/k4t-haproxy.pid) $(pgrep -f /var/lib/k4t/haproxy/k4t.cfg)"], check=False)
    wipe(host)


def test_from_nothing_to_a_rolled_app(behind: Site, lab: Lab) -> None:
    """install, check, apply, a rolling update under load, drift shown and put back, nothing left to do."""
    said = behind.k4t("gateway", "install", "edge").stdout
    assert "HAProxy listens on port 80 and serves what it should" in said
    assert "nothing to do" in behind.k4t("gateway", "install", "edge").stdout
    behind.app(replicas=2, more=ROUTE)
    app = behind.db / "apps" / "web" / "app.xml"
    app.write_text(app.read_text().replace('max-unavailable="100%" drain="0s"', 'max-unavailable="1" drain="1s"'))
    behind.k4t("apply", "--yes")
    url = f"http://{lab.host('gw1').address}/"
    assert fetch(url, "web.example.com")[0] == 200
    answers, done = [], threading.Event()

    def ask() -> None:
        while not done.is_set():
            answers.append(fetch(url, "web.example.com")[0])

    client = threading.Thread(target=ask)
    client.start()
    app.write_text(app.read_text().replace("</app>", '  <env name="COLOUR">blue</env>\n</app>'))
    behind.k4t("apply", "--yes")
    done.set()
    client.join()
    assert len(answers) > 20
    assert set(answers) == {200}
    lab.host("gw1").exec(["sed", "-i", "s/retries 1/retries 9/", "/var/lib/k4t/haproxy/k4t.cfg"])
    assert "k4t.cfg is not what k4t wrote" in behind.k4t("plan").stdout
    behind.k4t("apply", "--yes")
    assert json.loads(behind.k4t("plan", "-o", "json").stdout)["changes"] == 0
    behind.k4t("gateway", "check", "edge")


def test_what_haproxy_cannot_is_refused_by_plan(behind: Site) -> None:
    """UDP: the driver is named, with the route's file and line."""
    behind.k4t("gateway", "install", "edge")
    behind.app("dns", more='  <port name="udp" container="5353" protocol="udp"/>\n  <route port="udp" listen="5353"/>')
    said = behind.k4t("plan", status=None)
    assert said.returncode != 0
    assert "haproxy" in said.stdout + said.stderr
    assert "apps/dns/app.xml:6" in said.stdout + said.stderr
