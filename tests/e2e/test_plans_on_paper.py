"""A plan can be kept and carried out later as it was, or printed and run by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.site import Site, containers
from tests.lab import Lab

pytestmark = pytest.mark.integration

# --- saved plans -------------------------------------------------------------------------------------------


def test_a_saved_plan_is_carried_out_as_it_was(site: Site, lab: Lab, tmp_path: Path) -> None:
    """plan --save, then apply FILE does it; a second time there is nothing of it left to do, which is refused."""
    file = tmp_path / "web.plan"
    site.app("web", replicas=2)
    site.k4t("plan", "--save", str(file))
    assert site.json("apply", str(file), "--yes")["result"] == "done"
    assert containers(lab.host("n2")) == ["prod.web.1.1"]
    assert "nothing to do now" in site.k4t("apply", str(file), "--yes", status=4).stderr


def test_a_saved_plan_is_refused_when_tree_or_world_moved_on(site: Site, lab: Lab, tmp_path: Path) -> None:
    """Exit 4, nothing is done, and the message says which of them and what is different."""
    file = tmp_path / "p.json"
    site.app("web", replicas=1)
    site.k4t("apply", "--yes")
    site.app("web", replicas=2)
    site.k4t("plan", "--save", str(file))
    site.app("web", replicas=3)
    assert "the tree has moved on" in site.k4t("apply", str(file), "--yes", status=4).stderr
    site.app("web", replicas=2)
    lab.host("n1").docker(["rm", "-f", "prod.web.0.1"])
    moved = site.k4t("apply", str(file), "--yes", status=4).stderr
    assert "the world has moved on" in moved
    assert "new: pull" in moved
    assert "@n1" in moved
    assert containers(lab.host("n2")) == []
    assert "is no plan file" in site.k4t("apply", str(site.db / "cluster.xml"), status=64).stderr


# --- a plan as commands ------------------------------------------------------------------------------------

BY_HAND = """\
  <network mode="bridge"/>
  <port name="http" container="8080" host="auto"/>
  <port name="admin" container="8081" host="auto"/>
  <env name="HARD">it's "quoted" $HOME `x` \\ and ü; done</env>
  <label name="team">a b</label>
  <file source="page's.html" target="/www/page.html"/>
  <volume source="/srv/by hand" target="/data" owner="1000:1000"/>
  <volume source="tmpfs:1MiB" target="/scratch"/>
  <resources cpus="0.5" memory="64MiB"/>
  <health interval="1s"><exec><arg>sh</arg><arg>-c</arg><arg>test "$HARD"</arg></exec></health>
  <stop grace="1s"/>"""


def test_a_plan_printed_as_commands_does_what_k4t_would(site: Site, lab: Lab) -> None:
    """bash runs the lines; then plan finds nothing to do, and a change printed so is carried out as well."""
    shutil.copy(lab.known_hosts, site.db / "known_hosts")
    (site.db / "apps/web").mkdir()
    (site.db / "apps/web/page's.html").write_text("by hand\n")
    _by_hand(site, lab.image)
    _bash(site.k4t("plan", "--commands").stdout)
    assert site.k4t("plan", "--detailed-exitcode").stdout.startswith("Nothing to do")
    found = json.loads(lab.host("n1").docker(["inspect", "prod.web.0.1"]).stdout)[0]
    assert 'HARD=it\'s "quoted" $HOME `x` \\ and ü; done' in found["Config"]["Env"]
    assert found["HostConfig"]["CpuQuota"] == 50_000
    ports = json.loads(found["Config"]["Labels"]["io.k4t.ports"])
    assert len(set(ports.values())) == 2
    assert lab.host("n1").docker(["exec", "prod.web.0.1", "cat", "/www/page.html"]).stdout == "by hand\n"
    assert lab.host("n1").exec(["stat", "-c", "%u", "/srv/by hand"]).stdout == "1000\n"
    _by_hand(site, lab.push("hand2", VER="hand2"))
    printed = site.k4t("plan", "--commands").stdout
    assert "docker rm" in printed
    _bash(printed)
    assert containers(lab.host("n1")) == ["prod.web.0.2"]
    assert site.k4t("plan", "--detailed-exitcode").stdout.startswith("Nothing to do")


def _by_hand(site: Site, image: str) -> None:
    site.write("apps/web/app.xml", f'<app replicas="2">\n  <image>{image}</image>\n{BY_HAND}\n</app>\n')


def _bash(lines: str) -> None:
    done = subprocess.run(["bash", "-s"], input=lines, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, f"{done.stderr}\n{lines}"
