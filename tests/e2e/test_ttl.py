"""Names are remembered for a while: that a run was killed after DNS had lost an address is no reason to hurry."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.e2e.site import Site, containers
from tests.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.crash]
TTL_S = 3
APP = """\
<app replicas="{replicas}">
  <image>{image}</image>
  <port name="http" container="8080"/>
  <env name="PORT">8080</env>
  <env name="VER">{version}</env>
  <health interval="1s" retries="2" start-period="2s"><http port="http" path="/healthz"/></health>
  {route}
  <record name="web" ttl="{ttl_s}s"/>
  <update max-unavailable="1" drain="1s"/>
  <stop grace="1s"/>
</app>
"""
ROUTE = '<route port="http" domain="web.k4t.lab"/>'


def write(site: Site, version: int, *, route: str = ROUTE, replicas: int = 2) -> None:
    text = APP.format(image=site.lab.image, version=version, ttl_s=TTL_S, route=route, replicas=replicas)
    site.write("apps/web/app.xml", text)


def killed(site: Site, place: str, *words: str) -> float:
    """When it was."""
    process = site.start(*(words or ("apply",)), "--yes", extra={"K4T_FAILPOINT": place})
    out, said = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, out + said
    return time.monotonic()


def actions(plan: list[dict[str, str]]) -> list[str]:
    return [step["action"] for step in plan]


@pytest.mark.parametrize(
    ("place", "route"),
    [("before:wait", ROUTE), ("before:drain", "")],
    ids=["gateway", "name-alone"],
)
def test_an_update_killed_after_dns_lost_an_address_waits_a_ttl_again(
    published: Site, lab: Lab, tmp_path: Path, place: str, route: str
) -> None:
    """Another machine takes the container out of the gateways, or stops it, a TTL after it began, and not sooner."""
    write(published, 1, route=route)
    published.k4t("apply", "--yes")
    write(published, 2, route=route)
    killed(published, place)
    other = published.copy(tmp_path / "other")
    steps = other.json("plan", status=None)["steps"]
    first = min(actions(steps).index(name) for name in ("stop", "publish") if name in actions(steps))
    assert "wait" in actions(steps)[:first]
    began = time.monotonic()
    other.k4t("apply", "--yes", "--wait")
    assert time.monotonic() - began > TTL_S
    assert sorted(name for host in lab.nodes for name in containers(host)) == ["prod.web.0.2", "prod.web.1.2"]
    assert other.json("plan")["steps"] == []


def test_an_app_whose_removal_was_killed_is_remembered_for_its_ttl(published: Site, lab: Lab, tmp_path: Path) -> None:
    """Neither the tree nor DNS has its name any more: the head on the hosts tells the TTL, to another machine too."""
    write(published, 1, replicas=1)
    published.k4t("apply", "--yes")
    killed(published, "before:wait", "app", "remove", "web")
    other = published.copy(tmp_path / "other")
    assert not (other.db / "apps/web").exists()
    steps = other.json("plan", "--allow", "remove-app:web")["steps"]
    assert actions(steps)[0] == "wait"
    began = time.monotonic()
    other.k4t("apply", "--yes", "--wait", "--allow", "remove-app:web")
    assert time.monotonic() - began > TTL_S
    assert containers(lab.host("n1")) == containers(lab.host("n2")) == []
