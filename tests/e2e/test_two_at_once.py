"""Two runs, two working copies, a killed master: one works, nothing is lost, no lock goes stale."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.site import Site, containers
from tests.lab import Host, Lab

pytestmark = [pytest.mark.integration, pytest.mark.crash]
SLOW = '  <env name="DELAY">60</env>\n  <health start-period="2m"><tcp/></health>'


def wait_for(host: Host, name: str, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while name not in containers(host, all=False):
        assert time.monotonic() < deadline, f"{name} never ran"
        time.sleep(0.1)


@pytest.fixture
def busy(site: Site, lab: Lab) -> subprocess.Popen[str]:
    """A run that holds the lock: it waits for a replica that takes a minute to listen."""
    site.app("slow", replicas=1, more=SLOW)
    process = site.start("apply", "--yes")
    deadline = time.monotonic() + 60
    while not any(containers(host, all=False) for host in lab.nodes):
        assert time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=30)


def test_a_second_run_is_refused_with_the_holders_name(
    site: Site, lab: Lab, tmp_path: Path, busy: subprocess.Popen[str]
) -> None:
    """75 from the same copy and from another one; who, where and since when are named."""
    other = site.copy(tmp_path / "other")
    try:
        for copy in (site, other):
            copy.app("web", replicas=1)
            refused = copy.k4t("apply", "web", "--yes", status=75)
            assert "locked by" in refused.stderr
            assert f"process {busy.pid}" in refused.stderr
            assert "since 20" in refused.stderr
        assert other.json("status")["lock"]["pid"] == busy.pid
    finally:
        end(busy)


def test_a_killed_master_frees_the_lock_and_the_next_run_goes_on(
    site: Site, lab: Lab, tmp_path: Path, busy: subprocess.Popen[str]
) -> None:
    """kill -9: within 20 s another copy gets the lock and takes over what was begun, without a double."""
    other = site.copy(tmp_path / "other")
    end(busy)
    other.app("slow", replicas=1)
    started = time.monotonic()
    while other.k4t("apply", "--yes", status=None).returncode == 75:
        assert time.monotonic() - started < 90  # a busy machine takes its time for each try
        time.sleep(0.5)
    assert other.json("status")["lock"] is None
    names = [name for host in lab.nodes for name in containers(host)]
    assert len(names) == 1
    assert names[0].startswith("prod.slow.0.")


def test_a_stopped_master_loses_the_lock_and_can_change_nothing_when_it_wakes(
    site: Site, lab: Lab, tmp_path: Path, busy: subprocess.Popen[str]
) -> None:
    """SIGSTOP: the hosts give the lock away; after SIGCONT its connections are dead and it says so."""
    other = site.copy(tmp_path / "other")
    busy.send_signal(signal.SIGSTOP)
    try:
        other.app("slow", replicas=1)
        other.app("web", replicas=1, port=8090)
        started = time.monotonic()
        while other.k4t("apply", "web", "--yes", status=None).returncode == 75:
            assert time.monotonic() - started < 90
            time.sleep(0.5)
        before = {host.name: containers(host) for host in lab.nodes}
        busy.send_signal(signal.SIGCONT)
        _, said = busy.communicate(timeout=60)
        assert busy.returncode in (1, 3, 69), said
        assert {host.name: containers(host) for host in lab.nodes} == before
    finally:
        busy.send_signal(signal.SIGCONT)
        end(busy)


def test_two_copies_apply_different_apps_at_the_same_time(site: Site, lab: Lab, tmp_path: Path) -> None:
    """With --wait both get through, and nothing of one is removed by the other."""
    one, two = site, site.copy(tmp_path / "two")
    one.app("red", replicas=2, port=8081)
    two.app("blue", replicas=2, port=8082)
    runs = [one.start("apply", "red", "--yes", "--wait"), two.start("apply", "blue", "--yes", "--wait")]
    for process in runs:
        out, said = process.communicate(timeout=120)
        assert process.returncode == 0, out + said
    names = [name for host in lab.nodes for name in containers(host, all=False)]
    assert sorted(names) == ["prod.blue.0.1", "prod.blue.1.1", "prod.red.0.1", "prod.red.1.1"]


def test_one_after_the_other_from_machines_without_memory(published: Site, lab: Lab, tmp_path: Path) -> None:
    """Two checkouts without `.k4t/`, each with one app: endpoints and containers of both stay."""
    route = '  <route port="http" domain="{0}.k4t.lab"/>\n  <record name="{0}" ttl="1s"/>'
    one, two = published, published.copy(tmp_path / "two")
    one.app("red", replicas=2, port=8081, more=route.format("red"))
    two.app("blue", replicas=2, port=8082, more=route.format("blue"))
    first = one.json("apply", "red", "--yes")
    second = two.json("apply", "blue", "--yes")
    assert second["serial"] == first["serial"] + 1
    again = published.copy(tmp_path / "three")
    assert again.json("apply", "red", "--yes")["result"] == "nothing"
    names = [name for host in lab.nodes for name in containers(host, all=False)]
    assert len(names) == 4
    seen = {app["name"]: len(app["endpoints"]) for copy in (one, two) for app in copy.json("status")["apps"]}
    assert seen == {"red": 2, "blue": 2}


def test_an_older_clone_is_told_that_it_is_behind(site: Site, tmp_path: Path) -> None:
    """A checkout of an older commit is refused, naming both serials; so is a command that edits an app there first,
    which leaves the file as it was."""
    site.app("web", replicas=1)
    site.k4t("apply", "--yes")
    old = site.copy(tmp_path / "old")
    site.app("web", replicas=2)
    site.k4t("apply", "--yes")
    refused = old.k4t("apply", "--yes", status=4)
    assert "serial 1 is behind 2" in refused.stderr
    assert "--allow rewind" in refused.stderr
    before = (old.db / "apps/web/app.xml").read_bytes()
    assert "web of serial 1 is behind 2" in old.k4t("scale", "web", "4", "--yes", status=4).stderr
    assert (old.db / "apps/web/app.xml").read_bytes() == before
    site.k4t("scale", "web", "1", "--yes")
