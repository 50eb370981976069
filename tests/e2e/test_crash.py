"""kill -9 at every step boundary: a run from another working copy converges, and the one after it has nothing to do.

`make test` kills at a sample of the places; K4T_CRASH=all at every one of them, each time it is passed.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.site import Site, containers, fetch
from tests.lab import Host, Lab

pytestmark = [pytest.mark.integration, pytest.mark.crash]
EVERYWHERE = os.environ.get("K4T_CRASH") == "all"
SURGE = '<port name="http" host="auto"/>', "", ""
STOP_FIRST = '<port name="http" container="8080"/>', 'max-unavailable="1"', '<record name="web" ttl="1s"/>'
# Two replicas with ports of their own, and one with a fixed port that a DNS record names.
MOVING = {"auto": (2, SURGE), "fixed": (1, (STOP_FIRST[0], "", STOP_FIRST[2]))}
DRAINS = {"auto": ("after:create", "before:remove:2"), "fixed": ("after:publish:2",)}
SAMPLES = {
    SURGE: ("after:create", "after:publish:2", "after:stop:2", "before:remove:2"),
    STOP_FIRST: ("after:stop", "before:publish:3"),
}
APP = """\
<app replicas="{replicas}">
  <image>{image}</image>
  {port}
  <env name="VER">{version}</env>
{more}
  <health interval="1s" retries="2" start-period="2s"><http port="http" path="/healthz"/></health>
  <update drain="1s" {update}/>
  <stop grace="1s"/>
  <route port="http" domain="web.k4t.lab"/>
  {record}
</app>
"""


def write(site: Site, version: int, kind: tuple[str, str, str], more: str = "", *, replicas: int = 2) -> None:
    port, update, record = kind
    more += '<env name="PORT">8080</env>' if "container" in port else ""
    text = APP.format(
        replicas=replicas, image=site.lab.image, version=version, more=more, port=port, update=update, record=record
    )
    site.write("apps/web/app.xml", text)


def places(plan: Any) -> Iterator[str]:
    """Before and after each step of a plan, and around what stands between the steps."""
    counts = Counter(step["action"] for step in plan["steps"])
    for action, count in counts.items():
        for number, when in itertools.product(range(1, count + 1), ("before", "after")):
            yield f"{when}:{action}:{number}"
    yield from ("before:lock", "after:lock", "before:record", "after:record")


def killed(site: Site, place: str, *words: str) -> None:
    process = site.start(*(words or ("apply",)), "--yes", extra={"K4T_FAILPOINT": place})
    out, said = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, f"{place}: {process.returncode}\n{out}{said}"


def check(site: Site, lab: Lab, version: int, place: str, *, replicas: int = 2) -> None:
    """No duplicate, no orphan, no wrong endpoint, nothing left to do."""
    names = sorted(name for host in lab.nodes for name in containers(host))
    running = sorted(name for host in lab.nodes for name in containers(host, all=False))
    assert names == running, place
    wanted = [f"prod.web.{number}" for number in range(replicas)]
    assert [name.rsplit(".", 1)[0] for name in names] == wanted, f"{place}: {names}"
    pages = {fetch(f"http://{lab.host('gw1').address}/", "web.k4t.lab") for _ in range(12)}
    assert {status for status, _ in pages} == {200}, place
    assert {page.rpartition("version=")[2].strip() for _, page in pages} == {str(version)}, f"{place}: {pages}"
    assert len(pages) == replicas, f"{place}: {pages}"
    status = site.json("status")
    assert all(member["in_step"] for member in status["gateways"] + status["dns"]), f"{place}: {status}"
    again = site.json("apply", "--yes")
    assert (again["result"], again["done"]) == ("nothing", 0), f"{place}: {again}"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", [SURGE, STOP_FIRST], ids=["surge", "stop-first"])
def test_a_rolling_update_converges_wherever_it_was_killed(
    published: Site, lab: Lab, tmp_path: Path, kind: tuple[str, str, str]
) -> None:
    """Each time the next run is another machine's, without `.k4t/`."""
    write(published, 1, kind)
    published.k4t("apply", "--yes")
    write(published, 2, kind)
    every = tuple(places(published.json("plan")))
    assert set(SAMPLES[kind]) <= {*every, *(place.removesuffix(":1") for place in every)}
    site, version = published, 1
    for place in every if EVERYWHERE else SAMPLES[kind]:
        version += 1
        write(site, version, kind)
        killed(site, place)
        site = site.copy(tmp_path / f"{version}")
        site.k4t("apply", "--yes", "--wait")
        check(site, lab, version, place)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", MOVING)
def test_a_drain_converges_wherever_it_was_killed(published: Site, lab: Lab, tmp_path: Path, kind: str) -> None:
    """`k4t node drain`, the one node and then the other: the next run, another machine's, goes on moving away."""
    replicas, shape = MOVING[kind]
    write(published, 1, shape, replicas=replicas)
    site, full, free = published, lab.host("n1"), lab.host("n2")
    site.k4t("node", "drain", free.name, "--no-apply")
    site.k4t("apply", "--yes")
    every = tuple(places(planned(site, full, free)))
    assert set(DRAINS[kind]) <= {*every, *(place.removesuffix(":1") for place in every)}
    for number, place in enumerate(every if EVERYWHERE else DRAINS[kind]):
        for host in (full, free):  # a tree like an earlier one would be taken for an old checkout
            site.node(host, inside=f'<label name="round">{number}</label>')
        killed(site, place, "node", "drain", full.name)
        site = site.copy(tmp_path / f"{number}")
        site.k4t("apply", "--yes", "--wait")
        assert containers(full) == [], place
        check(site, lab, 1, place, replicas=replicas)
        full, free = free, full


def planned(site: Site, full: Host, free: Host) -> Any:
    """The plan of draining one node while the other takes replicas."""
    site.node(free)
    site.k4t("node", "drain", full.name, "--no-apply")
    return site.json("plan")


@pytest.mark.parametrize("place", ["before:rollback", "before:remove"] if EVERYWHERE else ["before:remove"])
def test_a_rollback_converges_wherever_it_was_killed(published: Site, lab: Lab, tmp_path: Path, place: str) -> None:
    """What was held is held from every machine; the old version serves in the end."""
    write(published, 1, STOP_FIRST)
    published.k4t("apply", "--yes")
    write(published, 2, STOP_FIRST, '  <env name="UNHEALTHY">1</env>')
    killed(published, place)
    other = published.copy(tmp_path / "other")
    other.k4t("apply", "--yes", "--wait", status=None)
    names = sorted(name for host in lab.nodes for name in containers(host))
    assert names == ["prod.web.0.1", "prod.web.1.1"]
    assert {fetch(f"http://{lab.host('gw1').address}/", "web.k4t.lab")[0] for _ in range(8)} == {200}
    assert other.json("apply", "--yes", status=3)["done"] == 0
