"""A real Prometheus scrapes what k4t exports through a real node exporter, loads its rules, and rings for what is wrong
and for nothing else.

The machine is shared by all hosts of the lab, so its load says nothing of theirs: those thresholds are off. Rules wait
seconds here instead of minutes.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import wipe, wipe_node
from tests.e2e.prometheus import Prometheus, running
from tests.e2e.site import Site
from tests.e2e.test_monitor import MONITOR
from tests.lab import Lab

pytestmark = pytest.mark.integration
APP = '  <route domain="web.k4t.lab"/>\n  <record/>\n  <health interval="1s"><http path="/"/></health>'
COPIES = '<backup node="n1" every="1h"/>'


def power(host: str) -> str:
    return f'  <power host="{host}" on="true" off="true"/>\n'


class Scene:
    """A published app on two nodes, a copy of the tree on one of them, watched by Prometheus."""

    def __init__(self, site: Site, lab: Lab, directory: Path) -> None:
        self.site, self.lab = site, lab
        self.textfiles, self.rules, self.dashboard = (directory / name for name in ("textfiles", "rules", "board.json"))
        self.prometheus: Prometheus
        for path in (self.textfiles, self.rules):
            path.mkdir()

    @property
    def file(self) -> Path:
        return self.textfiles / "k4t.prom"

    def master(self, host: str) -> None:
        """Which machine it is."""
        cluster = self.site.db / "cluster.xml"
        cluster.write_text(re.sub(r"  <power .*/>\n", power(host), cluster.read_text()))

    def export(self) -> None:
        self.site.k4t("monitor", "export", "prometheus", "--textfile", str(self.file))

    def settles_on(self, expected: set[tuple[str, str]]) -> None:
        """Export after export, until just this fires, after several evaluations of each."""

        def settled() -> bool:
            self.export()
            self.prometheus.evaluated()
            return self.prometheus.firing() == expected

        self.prometheus.until(settled, f"not {expected or 'silent'}")


@pytest.fixture(scope="module")
def scene(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("prometheus")
    site = Site(lab, directory)
    cluster = site.db / "cluster.xml"
    text = cluster.read_text().replace('connect-timeout="4s"', 'connect-timeout="2s"')
    cluster.write_text(text.replace("</cluster>", f"  {COPIES}\n{power(socket.gethostname())}</cluster>"))
    for name in ("n1", "n2"):
        site.node(lab.host(name))
    site.gateway(lab.host("gw1"))
    site.dns(lab.host("gw1"))
    site.write("monitor.xml", MONITOR)
    site.app(replicas=2, more=APP)
    for words in (("gateway", "install"), ("dns", "install"), ("apply", "--yes"), ("backup",)):
        site.k4t(*words)
    made = Scene(site, lab, directory)
    made.export()  # the first one does not know how busy processors are
    site.k4t("monitor", "export", "prometheus", "--rules", str(made.rules), "--dashboard", str(made.dashboard))
    quick = directory / "quick.yml"
    quick.write_text(re.sub(r"for: \d+m", "for: 500ms", (made.rules / "k4t.rules.yml").read_text()))
    with running(directory, made.textfiles, quick) as made.prometheus:
        yield made
    for host in lab.nodes:
        wipe_node(host)
    wipe(lab.host("gw1"))


def test_what_is_exported_is_scraped_whole(scene: Scene) -> None:
    """Everybody may read the file, nothing is left beside it, and the node exporter takes every line of it; nothing
    rings."""
    scene.settles_on(set())
    assert (scene.file.stat().st_mode & 0o777, list(scene.textfiles.iterdir())) == (0o644, [scene.file])
    lines = {line for line in scene.file.read_text().splitlines() if not line.startswith("#")}
    assert len(lines) > 150
    asked = scene.prometheus.query('{__name__=~"k4t_.*"}')
    assert len(asked) == len(lines)
    assert [one["value"][1] for one in scene.prometheus.query("node_textfile_scrape_error")] == ["0"]
    assert {one["metric"]["host"] for one in scene.prometheus.query("k4t_host_up == 1")} >= {"n1", "n2", "gw1"}
    replicas = scene.prometheus.query("k4t_app_replicas_reached == k4t_app_replicas_desired")
    assert [(one["metric"]["app"], one["value"][1]) for one in replicas] == [("web", "2")]
    (since,) = scene.prometheus.query("time() - k4t_backup_confirmed_timestamp_seconds")
    assert 0 <= float(since["value"][1]) < 600
    printed = scene.site.k4t("monitor", "export", "prometheus").stdout
    series, again = (_series(text) for text in (scene.file.read_text(), printed))
    assert series == again


def _series(text: str) -> set[str]:
    return {line.partition(" ")[0] for line in text.splitlines()}


def test_its_rules_load(scene: Scene) -> None:
    """promtool has nothing against them, and Prometheus evaluates each of them without an error."""
    file = scene.rules / "k4t.rules.yml"
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    scene.prometheus.evaluated()
    groups = scene.prometheus.ask("/api/v1/rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == file.read_text().count("- alert:")
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]


def test_every_question_of_the_dashboard_is_answered(scene: Scene) -> None:
    """As Grafana would ask it of this cluster; and all but those of what is not there have an answer."""
    model = json.loads(scene.dashboard.read_text())
    silent = {"What is wrong", "Replicas that are not well", "Certificates"}  # all is well, nothing is served by https
    for panel in model["panels"]:
        for target in panel.get("targets", []):
            found = scene.prometheus.query(target["expr"].replace("$cluster", "prod"))
            assert bool(found) != (panel["title"] in silent), (panel["title"], target["expr"])
    (variable,) = [one for one in model["templating"]["list"] if one["type"] == "query"]
    series = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
    assert series is not None
    assert scene.prometheus.ask(f"/api/v1/label/{series[2]}/values", **{"match[]": series[1]}) == ["prod"]


def test_a_node_without_power_rings_once_and_a_master_that_is_off_on_purpose_never(scene: Scene) -> None:
    """The node's plug is pulled: one alert, of the node, and none of all that is on it; what is unknown then is absent.
    The master is off too, and said so before. When its word is gone and the node is back, it is the other way round."""
    node, master = scene.lab.host("n2"), scene.lab.host("m2")
    going = scene.site.start("power", "off", "--yes", extra={"K4T_FAILPOINT": "power:announced"})
    said = going.communicate(timeout=120)
    assert going.returncode == -9, said
    scene.master(master.address)
    node.power_off()
    master.power_off()
    try:
        scene.settles_on({("K4tNodeDown", "n2")})
        assert [one["value"][1] for one in scene.prometheus.query("k4t_master_off_on_purpose")] == ["1"]
        down = {one["metric"]["host"] for one in scene.prometheus.query("k4t_host_up == 0")}
        assert down == {"n2", master.address}
        assert {one["metric"]["node"] for one in scene.prometheus.query("k4t_node_docker_up")} == {"n1"}
        assert [one["value"][1] for one in scene.prometheus.query("k4t_app_replicas > 0")] == ["1", "1"]
        (alert,) = [one for one in scene.prometheus.ask("/api/v1/alerts")["alerts"] if one["state"] == "firing"]
        assert alert["labels"]["severity"] == "critical"
        assert alert["annotations"]["summary"] == "Node n2 of cluster prod does not answer"
        node.power_on()
        for place in (scene.lab.host(name) for name in ("n1", "gw1")):
            place.exec(["rm", "-f", f"/var/lib/k4t/{scene.site.id}/off"])
        scene.settles_on({("K4tHostDown", master.address)})
    finally:
        for host in (node, master):
            if not host.is_on:
                host.power_on()
    scene.master(socket.gethostname())


def test_a_monitor_that_stopped_is_told(scene: Scene) -> None:
    """Nobody exports any more: an old file is told, by the age that it says itself; nothing rings once it is new."""
    text = scene.file.read_text()
    old = re.sub(r"(?m)^(k4t_check_timestamp_seconds\S* )(\d+)", lambda found: f"{found[1]}{int(found[2]) - 900}", text)
    assert old != text
    scene.file.write_text(old)
    scene.prometheus.until(lambda: ("K4tMonitorStale", "") in scene.prometheus.firing(), "an old file is not told")
    scene.settles_on(set())
