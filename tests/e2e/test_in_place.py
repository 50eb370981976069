"""What Docker can change without a new container is changed so."""

from __future__ import annotations

import json

import pytest

from tests.e2e.site import Site, containers
from tests.lab import Lab

pytestmark = pytest.mark.integration


def test_resources_change_in_place_and_stay_changed(site: Site, lab: Lab) -> None:
    """Memory and CPU are set on the running container; the next plan has nothing to do."""
    site.app("web", replicas=1)
    site.k4t("apply", "--yes")
    host = next(one for one in lab.nodes if containers(one))
    before = host.docker(["inspect", "prod.web.0.1"]).stdout
    site.app("web", replicas=1, more='  <resources cpus="0.5" memory="64MiB"/>')
    plan = site.json("plan")
    assert [step["action"] for step in plan["steps"]] == ["resize"]
    site.k4t("apply", "--yes")
    after = json.loads(host.docker(["inspect", "prod.web.0.1"]).stdout)[0]
    assert after["Id"] == json.loads(before)[0]["Id"]
    assert after["State"]["StartedAt"] == json.loads(before)[0]["State"]["StartedAt"]
    assert after["HostConfig"]["Memory"] == 64 * 1024 * 1024
    assert after["HostConfig"]["CpuQuota"] * 2 == after["HostConfig"]["CpuPeriod"]
    assert site.json("plan")["steps"] == []


def test_a_probe_can_be_changed_without_a_new_container(site: Site) -> None:
    """Health checks that k4t makes are no part of the container's spec."""
    site.app("web", replicas=1)
    site.k4t("apply", "--yes")
    site.app("web", replicas=1, more='  <health interval="2s"><http port="http" path="/healthz"/></health>')
    assert site.json("plan")["steps"] == []


def test_a_moved_tag_is_named_when_asked_for(site: Site, lab: Lab) -> None:
    """The digest of a revision holds until --pull; then the plan says that the tag has moved."""
    image = lab.push("moving", VER="1")
    site.app("web", replicas=1, image=image)
    site.k4t("apply", "--yes")
    lab.push("moving", VER="2")
    assert site.json("plan")["steps"] == []
    plan = site.json("plan", "--pull")
    assert {step["cause"] for step in plan["steps"] if step["action"] == "create"} == {"image moving moved"} or any(
        "moving moved" in step["cause"] for step in plan["steps"]
    )
