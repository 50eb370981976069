"""Nodes leave and come back: cordon, drain, remove, dead; traffic goes on and no data is in use twice."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.e2e.site import Site, containers, fetch
from tests.e2e.test_day_two import ROUTED, running
from tests.lab import Host, Lab

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


class Load:
    """One client that asks again and again; `failed` holds every answer that was none."""

    def __init__(self, lab: Lab) -> None:
        self.url = f"http://{lab.host('gw1').address}/"
        self.asked, self.failed = 0, list[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            self.asked += 1
            try:
                status, body = fetch(self.url, "web.k4t.lab")
            except OSError as error:
                self.failed.append(str(error))
                continue
            if status != 200:
                self.failed.append(f"{status} {body}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def n1_on(lab: Lab) -> Iterator[Host]:
    """A node that is on again after the test, whatever it did to it."""
    host = lab.host("n1")
    yield host
    if not host.is_on:
        host.power_on()


def fenced_by(lab: Lab, host: Host, directory: Path) -> str:
    """A <power> whose off pulls the plug of a lab's host, as an IPMI tool would."""
    script = directory / "fence"
    script.write_text(
        f"#!/bin/sh\ncd {ROOT} && TMPDIR={os.environ.get('TMPDIR', '/tmp')} exec {sys.executable} -m tests.lab kill "
        f'--name {lab.name} "$1"\n'
    )
    script.chmod(0o755)
    return f'<power off="{script} {host.name}"/>'


def test_a_cordoned_node_gets_nothing_new(published: Site, lab: Lab) -> None:
    """What runs there stays; new replicas go elsewhere until it is uncordoned."""
    published.app("web", replicas=1, port=8080, more=ROUTED)
    published.k4t("node", "cordon", "n1", "--yes")
    published.k4t("apply", "--yes")
    assert containers(lab.host("n1")) == []
    published.app("api", replicas=2, port=8081)
    scarce = published.json("apply", "--yes", status=3)
    assert scarce["result"] == "partial"
    assert containers(lab.host("n1")) == []
    published.k4t("node", "uncordon", "n1", "--yes")
    assert containers(lab.host("n1")) == ["prod.api.1.1"]
    assert "availability" not in (published.db / "nodes/n1.xml").read_text()


def test_drain_moves_replicas_and_loses_no_request(published: Site, lab: Lab) -> None:
    """The new replica serves before the old one goes; then the node is empty and can be removed."""
    published.app("web", replicas=1, more=ROUTED)
    published.k4t("apply", "--yes")
    node = next(host for host in lab.nodes if containers(host))
    other = next(host for host in lab.nodes if host.name != node.name)
    with Load(lab) as load:
        drained = published.json("node", "drain", node.name, "--yes")
    assert drained["result"] == "done"
    assert (load.failed, load.asked > 20) == ([], True)
    assert containers(node) == []
    assert containers(other) == ["prod.web.0.2"]
    states = {one["name"]: one["availability"] for one in published.json("status")["nodes"]}
    assert states[node.name] == "drained"
    published.k4t("node", "remove", node.name, "--yes")
    assert not (published.db / f"nodes/{node.name}.xml").exists()
    assert published.id not in node.exec(["ls", "/var/lib/k4t"]).stdout
    published.k4t("apply", "--yes")
    assert published.json("plan")["steps"] == []


def test_a_node_in_use_is_not_removed(site: Site, lab: Lab) -> None:
    """Not before it is drained; and not while something is left there, which is named."""
    site.app("web", replicas="per-node")
    site.k4t("apply", "--yes")
    assert "node drain n1" in site.k4t("node", "remove", "n1", "--yes", status=1).stderr
    site.k4t("node", "drain", "n1", "--no-apply")
    assert "prod.web.n1.1" in site.k4t("node", "remove", "n1", "--yes", status=1).stderr
    site.k4t("apply", "--yes")
    site.k4t("node", "remove", "n1", "--yes")
    assert not (site.db / "nodes/n1.xml").exists()


def test_data_is_not_left_behind_by_accident(site: Site, lab: Lab) -> None:
    """A drain that would start a database without its data is refused, names it and what permits it; the node stays
    as it was."""
    site.app("db", replicas=1, more='  <volume source="data" target="/data"/>')
    site.k4t("apply", "--yes")
    node = next(host for host in lab.nodes if containers(host))
    refused = site.k4t("node", "drain", node.name, "--yes", status=4)
    assert "db.0" in refused.stderr
    assert "--allow abandon-data:db/0" in refused.stderr
    assert "availability" not in (site.db / f"nodes/{node.name}.xml").read_text()
    assert containers(node, all=False) == ["prod.db.0.1"]
    site.k4t("node", "drain", node.name, "--yes", "--allow", "abandon-data:db/0")
    assert containers(node, all=False) == []
    node.docker(["volume", "rm", "-f", "data"])


def test_an_interrupted_drain_goes_on(published: Site, lab: Lab) -> None:
    """Only the edit was made: the next apply moves what is there."""
    published.app("web", replicas=2, more=ROUTED)
    published.k4t("apply", "--yes")
    published.k4t("node", "drain", "n1", "--no-apply")
    with Load(lab) as load:
        published.k4t("apply", "--yes", status=None)
    assert load.failed == []
    assert page_served(lab)


def page_served(lab: Lab) -> bool:
    return fetch(f"http://{lab.host('gw1').address}/", "web.k4t.lab")[0] == 200


def test_a_node_is_not_given_up_on_a_guess(published: Site, lab: Lab) -> None:
    """Without a fence exit 4 names the --allow; a fence that fails or is missing gives nothing up."""
    published.app("web", replicas=1, more=ROUTED)
    published.k4t("apply", "--yes")
    before = (published.db / "nodes/n1.xml").read_bytes()
    assert "--allow unfenced:n1" in published.k4t("node", "dead", "n1", "--yes", status=4).stderr
    published.k4t("node", "dead", "n1", "--fence", "--yes", status=64)
    published.node(lab.host("n1"), inside='<power off="false"/>')
    failed = published.k4t("node", "dead", "n1", "--fence", "--yes", status=1)
    assert "n1 is not known to be off" in failed.stderr
    published.node(lab.host("n1"))
    assert (published.db / "nodes/n1.xml").read_bytes() == before
    assert page_served(lab)


def test_a_fenced_node_is_replaced_and_what_it_runs_is_stopped_when_it_returns(
    published: Site, lab: Lab, n1_on: Host
) -> None:
    """The plug is pulled, its replica runs elsewhere, its endpoint is gone. Powered on, its old container runs again
    but is never published: it is stopped first, then the node serves anew."""
    inside = fenced_by(lab, n1_on, published.directory)
    text = published.app("web", replicas=2, more=ROUTED).read_text()
    port = text.replace('container="8080"', 'host="auto"').replace('<env name="PORT">8080</env>', "")
    published.write("apps/web/app.xml", port.replace('  <record name="web" ttl="1s"/>', ""))
    published.node(n1_on, inside=inside)
    published.k4t("apply", "--yes")
    assert len(containers(n1_on)) == 1
    dead = published.json("node", "dead", "n1", "--fence", "--yes")
    assert dead["result"] == "done"
    assert not n1_on.is_on
    assert len(containers(lab.host("n2"), all=False)) == 2
    assert page_served(lab)
    assert published.json("plan", "--detailed-exitcode")["steps"] == []
    n1_on.power_on()
    assert len(containers(n1_on)) == 1
    published.k4t("node", "uncordon", "n1", "--yes")
    assert containers(n1_on) == []
    assert len({name.rsplit(".", 1)[0] for name in running(lab)}) == 2
    published.k4t("scale", "web", "3", "--yes")
    assert containers(n1_on) == ["prod.web.2.1"]
    assert page_served(lab)


def test_a_node_that_returns_by_an_edit_is_cleaned_before_it_is_used(published: Site, lab: Lab, n1_on: Host) -> None:
    """Set active by hand while its old container runs: one apply stops that (exit 3), the next one uses the node."""
    published.app("web", replicas=2, more=ROUTED)
    published.k4t("apply", "--yes")
    n1_on.power_off()
    published.k4t("node", "dead", "n1", "--yes", "--allow", "unfenced:n1", status=3)
    n1_on.power_on()
    published.node(n1_on)
    first = published.json("apply", "--yes", status=3)
    assert any("n1 was dead" in sentence for sentence in first["not_done"])
    assert containers(n1_on) == []
    published.k4t("apply", "--yes")
    assert len(containers(n1_on)) == 1
    assert published.json("plan")["steps"] == []


def test_a_node_with_data_is_not_switched_off_by_accident(site: Site, lab: Lab) -> None:
    """What an apply would refuse is said before the fence: data that only this node has."""
    mark = site.directory / "fenced"
    site.node(lab.host("n1"), inside=f'<power off="touch {mark}"/>')
    site.app("db", replicas=1, more='  <volume source="data" target="/data"/>')
    site.k4t("node", "cordon", "n2", "--no-apply")
    site.k4t("apply", "--yes")
    site.k4t("node", "uncordon", "n2", "--no-apply")
    assert containers(lab.host("n1"), all=False) == ["prod.db.0.1"]
    before = (site.db / "nodes/n1.xml").read_bytes()
    refused = site.k4t("node", "dead", "n1", "--fence", "--yes", status=4)
    assert "--allow abandon-data:db/0" in refused.stderr
    assert "not switched off" in refused.stderr
    assert not mark.exists()
    assert (site.db / "nodes/n1.xml").read_bytes() == before
    assert containers(lab.host("n1"), all=False) == ["prod.db.0.1"]
    lab.host("n1").docker(["rm", "-f", "prod.db.0.1"])
    lab.host("n1").docker(["volume", "rm", "-f", "data"])
