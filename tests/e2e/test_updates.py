"""Updates that fail, wait and are interrupted: the old version serves, and every message says so."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.site import Site, containers, fetch
from tests.lab import Lab

pytestmark = pytest.mark.integration
APP = """\
<app replicas="{replicas}">
  <image>{image}</image>
  <port name="http" container="8080"/>
  <env name="PORT">8080</env>
{more}
  <update {update} drain="0s"/>
  <stop grace="1s"/>
</app>
"""
QUICK = '  <health interval="1s" retries="2" start-period="2s"><http port="http" path="/healthz"/></health>'
ROUTED = QUICK + '\n  <route port="http" domain="web.k4t.lab"/>'


def write(
    site: Site, *, replicas: int = 2, update: str = 'max-unavailable="1"', more: str = QUICK, env: str = ""
) -> None:
    site.write(
        "apps/web/app.xml", APP.format(replicas=replicas, image=site.lab.image, update=update, more=more + "\n" + env)
    )


def names(lab: Lab, *, all: bool = True) -> list[str]:
    return sorted(name for host in lab.nodes for name in containers(host, all))


VERSION = '  <env name="VER">{0}</env>'
ILL = '  <env name="UNHEALTHY">1</env>'
ILL_WHERE_MARKED = """\
  <command><arg>sh</arg><arg>-c</arg><arg>test -e /host/ill &amp;&amp; exit 3; exec /run</arg></command>
  <volume source="/var/lib" target="/host" read-only="true"/>"""


def test_an_image_that_never_gets_healthy_leaves_the_old_version_serving(published: Site, lab: Lab) -> None:
    """Exit 1; containers and page are the old ones; the spec is held; a second apply does nothing, --retry tries."""
    write(published, more=ROUTED)
    published.k4t("apply", "--yes")
    before = names(lab)
    write(published, more=ROUTED, env=ILL)
    failed = published.k4t("apply", "--yes", status=1)
    assert "web is rolled back: spec v1:" in failed.stdout
    assert "what this run changed is put back" in failed.stderr
    assert names(lab) == before
    assert names(lab, all=False) == before
    for _ in range(10):
        assert fetch(f"http://{lab.host('gw1').address}/", "web.k4t.lab")[0] == 200
    status = published.json("status")
    assert status["apps"][0]["held"].startswith("v1:")
    assert len(status["apps"][0]["endpoints"]) == 2

    again = published.json("apply", "--yes", status=3)
    assert again["done"] == 0
    assert again["serial"] == status["serial"]
    assert f"did not get healthy at serial {status['serial']}; change it, or --retry" in again["not_done"][0]

    assert published.json("plan", status=None)["steps"] == []
    assert "create" in {step["action"] for step in published.json("plan", "--retry")["steps"]}
    retried = published.json("apply", "--yes", "--retry", status=1)
    assert retried["done"] > 0
    assert names(lab) == before

    write(published, more=ROUTED, env=VERSION.format(2))
    published.k4t("apply", "--yes")
    assert names(lab) == ["prod.web.0.2", "prod.web.1.2"]
    assert published.json("status")["apps"][0]["held"] is None


def test_a_second_wave_that_fails_ends_with_the_old_version_everywhere(site: Site, lab: Lab) -> None:
    """Both containers are the very same as before: stopped ones were kept until the update was complete."""
    write(site)
    site.k4t("apply", "--yes")
    ids = [lab.host(n).docker(["inspect", "-f", "{{.Id}}", name]).stdout for n, name in place(lab)]
    lab.host("n2").exec(["touch", "/var/lib/ill"])
    write(site, env=ILL_WHERE_MARKED)
    site.k4t("apply", "--yes", status=1)
    assert names(lab, all=False) == names(lab) == ["prod.web.0.1", "prod.web.1.1"]
    assert [lab.host(n).docker(["inspect", "-f", "{{.Id}}", name]).stdout for n, name in place(lab)] == ids
    copy = site.copy(site.directory / "other")
    assert "held" in copy.json("apply", "--yes", status=3)["not_done"][0]


def place(lab: Lab) -> list[tuple[str, str]]:
    return [("n1", "prod.web.0.1"), ("n2", "prod.web.1.1")]


def test_a_canary_waits_to_be_continued(site: Site, lab: Lab, tmp_path: Path) -> None:
    """After one of two it waits, for every run, from everywhere; a changed spec begins anew; continue goes on."""
    canary = 'max-unavailable="1" pause-after="1"'
    write(site, update=canary)
    site.k4t("apply", "--yes")
    write(site, update=canary, env=VERSION.format(2))
    first = site.json("apply", "--yes", status=3)
    assert first["not_done"] == ["web is paused after 1 of 2; k4t continue web"]
    assert names(lab, all=False) == ["prod.web.0.2", "prod.web.1.1"]
    other = site.copy(tmp_path / "other")
    assert other.json("apply", "--yes", status=3)["done"] == 0
    write(site, update=canary, env=VERSION.format(3))
    site.k4t("apply", "--yes", status=3)
    assert names(lab, all=False) == ["prod.web.0.3", "prod.web.1.1"]
    assert site.json("continue", "--yes")["result"] == "done"
    assert names(lab) == ["prod.web.0.3", "prod.web.1.2"]
    assert site.json("apply", "--yes")["result"] == "nothing"


def test_a_canary_is_undone_by_the_old_spec_without_a_pause(site: Site, lab: Lab) -> None:
    """What it replaced was kept: the very same containers serve again."""
    canary = 'max-unavailable="1" pause-after="1"'
    write(site, replicas=2, update=canary)
    site.k4t("apply", "--yes")
    write(site, replicas=2, update=canary, env=VERSION.format(2))
    site.k4t("apply", "--yes", status=3)
    write(site, replicas=2, update=canary)
    site.k4t("apply", "--yes")
    assert len(names(lab)) == 2
    assert site.json("apply", "--yes")["result"] == "nothing"


STOPPING = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)


@STOPPING
def test_ctrl_c_finishes_the_step_at_hand_and_the_next_run_goes_on(
    site: Site, lab: Lab, number: signal.Signals
) -> None:
    """130 and an account of what is done and what is not; locks are free at once. The same for `kill`, and for the
    end of the terminal's session."""
    write(site)
    site.k4t("apply", "--yes")
    write(site, more='  <health start-period="2m"><tcp/></health>', env='  <env name="DELAY">60</env>')
    process = site.start("apply", "--yes")
    wait_for(lab, "prod.web.0.2", process)
    process.send_signal(number)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Interrupted: " in out
    assert "n2: create prod.web.1.2" in out
    assert "(interrupted)" in out
    write(site, env=VERSION.format(2))
    site.k4t("apply", "--yes")
    assert len(names(lab)) == 2
    assert site.json("plan")["steps"] == []


@STOPPING
def test_a_second_ctrl_c_stops_at_once(site: Site, lab: Lab, tmp_path: Path, number: signal.Signals) -> None:
    """Also while Docker has not answered; the next run, from elsewhere, repairs."""
    write(site)
    site.k4t("apply", "--yes")
    write(site, env=VERSION.format(2))
    process = site.start("apply", "--yes", extra={"K4T_FAILPOINT": "before:create=stall"})
    assert process.stderr is not None
    assert any(": pull" in line for line in iter(process.stderr.readline, "")), "it was to create something next"
    time.sleep(1)
    process.send_signal(number)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(number)
    started_s = time.monotonic()
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert time.monotonic() - started_s < 30  # it would stand still for a minute
    other = site.copy(tmp_path / "other")
    other.k4t("apply", "--yes", "--wait")
    assert len(names(lab)) == 2


def test_a_closed_terminal_acts_as_ctrl_c(site: Site, lab: Lab) -> None:
    """Nobody reads it any more: the steps at hand are finished all the same, 130, and the next run goes on at once."""
    write(site, replicas=1)
    site.k4t("apply", "--yes")
    write(site, replicas=1, more='  <health start-period="2m"><tcp/></health>', env='  <env name="DELAY">60</env>')
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *site.argv("apply", "--yes")], env=site.environment({"TERM": "xterm"}),
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    reader = threading.Thread(target=drain, args=(ours, lab), daemon=True)
    reader.start()
    reader.join(60)
    os.close(ours)
    assert process.wait(120) == 130
    write(site, replicas=1, env=VERSION.format(2))
    site.k4t("apply", "--yes")
    assert len(names(lab)) == 1


def drain(terminal: int, lab: Lab) -> None:
    """Read what a terminal is told until the new container runs, and then a little."""
    while "prod.web.0.2" not in names(lab, all=False):
        os.read(terminal, 65536)
    os.read(terminal, 65536)


def wait_for(lab: Lab, name: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while name not in names(lab, all=False):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{name} never ran"
        time.sleep(0.1)
