"""docs/gateways.md, “Changing the vendor”: a gateway of another vendor joins, is filled and compared, and the old one
retires, while clients go on. The same for DNS."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.e2e.conftest import wipe, wipe_node
from tests.e2e.site import Site, fetch
from tests.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
APP = """\
<app replicas="2">
  <image>{image}</image>
  <port name="http" container="8080"/>
  <env name="PORT">8080</env>
  <env name="VER">{version}</env>
  <health interval="1s"><http path="/"/></health>
  <route domain="web.k4t.lab"/>
  <update max-unavailable="1" drain="1s"/>
  <stop grace="1s"/>
</app>
"""


@pytest.fixture(scope="module")
def pair() -> Iterator[Lab]:
    with Lab(name=f"vendor-{os.getpid()}", nodes=2, gateways=2, registry=True) as up:
        yield up


@pytest.fixture
def site(pair: Lab, tmp_path: Path) -> Iterator[Site]:
    made = Site(pair, tmp_path)
    made.node(pair.host("n1"))
    made.node(pair.host("n2"))
    made.gateway(pair.host("gw1"), "edge1")
    made.k4t("gateway", "install")
    made.write("apps/web/app.xml", APP.format(image=pair.image, version=1))
    yield made
    for host in pair.nodes:
        wipe_node(host)
    wipe(pair.host("gw1"))
    wipe(pair.host("gw2"))


class Clients:
    """Requests to one gateway after the other, as a client with both addresses makes them, until it is left."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self.sent = 0
        self.failed: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _work(self) -> None:
        while not self._stop.is_set():
            for address in list(self.addresses):
                self.sent += 1
                try:
                    status, _ = fetch(f"http://{address}/", "web.k4t.lab")
                except OSError as error:
                    status = 0
                    self.failed.append(f"{address}: {error}")
                if status not in (0, 200):
                    self.failed.append(f"{address}: {status}")
            time.sleep(0.01)


@pytest.mark.parametrize("driver", ["haproxy", "nginx"])
def test_envoy_is_replaced_by_another_vendor_under_load(site: Site, pair: Lab, driver: str) -> None:
    """add, install, sync, check; clients move over; remove: no request is lost, the newcomer holds the same digest, and
    the old one publishes nothing any more."""
    old, new = pair.host("gw1").address, pair.host("gw2").address
    site.k4t("apply", "--yes")
    with Clients([old]) as clients:
        site.k4t("gateway", "add", "edge2", new, "--driver", driver, "--yes")
        site.k4t("gateway", "install", "edge2")
        site.k4t("gateway", "sync", "--yes")
        assert "hold the same" in site.k4t("gateway", "check").stdout
        assert fetch(f"http://{new}/", "web.k4t.lab")[0] == 200
        clients.addresses.append(new)
        time.sleep(0.5)
        clients.addresses.remove(old)
        time.sleep(0.5)
        site.k4t("gateway", "remove", "edge1", "--yes")
        site.write("apps/web/app.xml", APP.format(image=pair.image, version=2))
        site.k4t("apply", "--yes")
    assert clients.sent > 100
    assert clients.failed == []
    assert not (site.db / "gateways/edge1.xml").exists()
    assert fetch(f"http://{old}/", "web.k4t.lab")[0] in (404, 503)
    assert site.k4t("plan", "--detailed-exitcode").stdout.startswith("Nothing to do")
