"""Replicas that are replaced though nothing is wrong with them: for their age, or to spread them anew."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.site import Site, containers
from tests.e2e.test_day_two import ROUTED, running
from tests.e2e.test_moving_away import Load
from tests.lab import Lab

pytestmark = pytest.mark.integration
APP = """\
<app replicas="{replicas}">
  <image>{image}</image>
  <port name="http" host="auto"/>
{more}
  <update drain="1s"/>
  <stop grace="1s"/>
</app>
"""


def write(site: Site, replicas: int = 2, recycle: str = "") -> None:
    more = ROUTED.replace("<record name", '<record to="addresses" name') + (
        f'\n  <recycle every="{recycle}"/>' if recycle else ""
    )
    site.write("apps/web/app.xml", APP.format(replicas=replicas, image=site.lab.image, more=more))


@contextmanager
def counted(lab: Lab) -> Iterator[list[int]]:
    """How many containers of the app run, asked again and again."""
    found: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            found.append(len(running(lab)))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def test_recycle_replaces_the_oldest_replica_and_loses_no_request(published: Site, lab: Lab) -> None:
    """One at a time: the new one serves before the old one goes; the next time it is the other's turn."""
    write(published, 1)
    published.k4t("apply", "--yes")
    published.k4t("scale", "web", "2", "--yes")
    with Load(lab) as load, counted(lab) as seen:
        done = published.json("recycle", "web", "--yes")
        assert done["result"] == "done"
        assert running(lab) == ["prod.web.0.2", "prod.web.1.1"]
        published.k4t("recycle", "web", "--yes")
    assert running(lab) == ["prod.web.0.2", "prod.web.1.2"]
    assert (min(seen), max(seen)) == (2, 3)
    assert load.asked > 50
    assert load.failed == []
    assert published.json("plan")["steps"] == []


def test_recycle_says_why_it_cannot(published: Site) -> None:
    """What is stopped has no oldest replica in service: nothing is done, exit 3."""
    write(published, 1)
    published.k4t("apply", "--yes")
    published.k4t("stop", "web", "--yes")
    done = published.json("recycle", "web", "--yes", status=3)
    assert done["done"] == 0
    assert done["not_done"] == ["web is not recycled: it is stopped"]


def test_apply_recycles_one_replica_in_each_period(published: Site, lab: Lab) -> None:
    """Not before it is due; then the oldest, and no other before the period has passed again; plan shows it."""
    write(published, 2, recycle="1d")
    published.k4t("apply", "--yes")
    assert published.json("plan")["steps"] == []
    write(published, 2, recycle="1s")
    planned = published.json("plan")["steps"]
    assert {(step["replica"], step["cause"]) for step in planned if step["action"] == "create"} == {
        (0, "is the oldest")
    }
    published.k4t("apply", "--yes")
    assert running(lab) == ["prod.web.0.2", "prod.web.1.1"]
    write(published, 2, recycle="1d")
    assert published.json("plan")["steps"] == []
    write(published, 2, recycle="1s")
    published.k4t("apply", "--yes")
    assert running(lab) == ["prod.web.0.2", "prod.web.1.2"]


def begin_on_one(published: Site, replicas: int) -> None:
    """All of them on n1; n2 comes later."""
    second = published.db / "nodes/n2.xml"
    node = second.read_text()
    second.unlink()
    write(published, replicas)
    published.k4t("apply", "--yes")
    second.write_text(node)
    published.k4t("apply", "--yes")


def test_a_new_node_gets_replicas_by_rebalance_alone(published: Site, lab: Lab) -> None:
    """An apply moves nothing there; --rebalance shows the moves first, makes them one by one, and loses no request."""
    begin_on_one(published, 4)
    assert containers(lab.host("n2")) == []
    assert published.json("plan")["steps"] == []

    planned = published.json("plan", "--rebalance")["steps"]
    moves = [step for step in planned if step["action"] == "create"]
    assert [(step["replica"], step["node"]) for step in moves] == [(3, "n2"), (2, "n2")]
    assert moves[0]["cause"] == "rebalance: n1 has 4 replicas, n2 has 0"
    asked = published.k4t("apply", "--rebalance", status=64)
    assert "rebalance: n1 has 4 replicas, n2 has 0" in asked.stdout + asked.stderr
    assert containers(lab.host("n2")) == []

    with Load(lab) as load, counted(lab) as seen:
        published.k4t("apply", "--rebalance", "--yes")
    assert containers(lab.host("n1")) == ["prod.web.0.1", "prod.web.1.1"]
    assert containers(lab.host("n2")) == ["prod.web.2.2", "prod.web.3.2"]
    assert min(seen) == 4
    assert max(seen) <= 6  # the second comes while the first still drains
    assert load.asked > 50
    assert load.failed == []
    assert published.json("plan", "--rebalance")["steps"] == []


def test_a_saved_plan_with_moves_is_carried_out_as_it_was_shown(published: Site, lab: Lab) -> None:
    """`plan --rebalance --save` and `apply FILE`: the file knows what it was asked for."""
    begin_on_one(published, 2)
    file = published.directory / "moves.plan"
    published.k4t("plan", "--rebalance", "--save", str(file))
    published.k4t("apply", str(file), "--yes")
    assert len(containers(lab.host("n2"))) == 1
