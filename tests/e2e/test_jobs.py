"""Jobs: before an update, on a schedule and by hand; never two of one at once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.site import Site, containers
from tests.lab import Host, Lab

pytestmark = pytest.mark.integration
COMMAND = "<command><arg>sh</arg><arg>-c</arg><arg>{script}</arg></command>"
JOB = f'  <job name="migrate" before="update" timeout="{{timeout}}">{COMMAND}{{more}}</job>'
MIGRATE = 'echo "migrating to $LEVEL"; echo "$LEVEL $EXTRA" &gt;&gt; /data/log'
TIMER = f'  <job name="clean" schedule="{{schedule}}" timezone="Europe/Berlin" timeout="5s">{COMMAND}</job>'


def app(site: Site, job: str, *, level: str = "1", replicas: int = 2, more: str = "") -> None:
    """An app with data that stay, at /tmp/k4t-jobs on its node, and a level that its job tells."""
    volume = '  <volume source="/tmp/k4t-jobs" target="/data" scope="shared" shared-writers="true"/>'
    env = f'  <env name="LEVEL">{level}</env>'
    site.app("web", replicas=replicas, more=f"{env}\n{volume}\n{job}\n{more}")


def migrate(script: str = MIGRATE, timeout: str = "30s", more: str = "") -> str:
    return JOB.format(script=script, timeout=timeout, more=more)


def data(lab: Lab) -> list[str]:
    """What the jobs wrote, on any node."""
    said = [host.exec(["sh", "-c", "cat /tmp/k4t-jobs/log 2>/dev/null || :"]).stdout for host in lab.nodes]
    return [line for text in said for line in text.splitlines()]


def homes(lab: Lab, name: str) -> list[Host]:
    return [host for host in lab.nodes if name in containers(host)]


def eventually(check: Callable[[], bool]) -> bool:
    for _ in range(600):
        if check():
            return True
        time.sleep(0.1)
    return False


@pytest.fixture(autouse=True)
def clean(lab: Lab) -> None:
    for host in lab.nodes:
        host.exec(["sh", "-c", "rm -rf /tmp/k4t-jobs /etc/cron.d/k4t_*; mkdir -p /etc/cron.d"])


def test_a_job_runs_once_for_a_spec_before_its_first_container(site: Site, lab: Lab) -> None:
    """It runs with the app's environment and volumes and its own, is shown, and comes before the create; a second
    apply, a restart, a scaling run nothing; a new spec runs it again; going back does not."""
    app(site, migrate(more='<env name="EXTRA">x</env>'))
    steps = {step["id"]: step for step in site.json("plan")["steps"]}
    job = next(id for id in steps if id.startswith("job:web.migrate@"))
    creates = [step for step in steps.values() if step["action"] == "create"]
    assert len(creates) == 2
    assert all(job in step["after"] for step in creates)
    done = site.k4t("apply", "--yes")
    assert "web migrate: migrating to 1" in done.stderr
    assert data(lab) == ["1 x"]
    assert site.json("plan")["steps"] == []
    site.k4t("restart", "web", "--yes")
    site.k4t("scale", "web", "1", "--yes")
    assert data(lab) == ["1 x"]
    app(site, migrate(more='<env name="EXTRA">x</env>'), level="2", replicas=1)
    site.k4t("apply", "--yes")
    assert sorted(data(lab)) == ["1 x", "2 x"]
    app(site, migrate(more='<env name="EXTRA">x</env>'), level="1", replicas=1)
    site.k4t("apply", "--yes")
    assert sorted(data(lab)) == ["1 x", "2 x"]


def test_a_failing_job_stops_the_update_and_nothing_is_replaced(site: Site, lab: Lab) -> None:
    """Exit 1, the last it said in the error, the old containers serve; mended, the next apply goes through."""
    app(site, migrate())
    site.k4t("apply", "--yes")
    before = [containers(host) for host in lab.nodes]
    app(site, migrate('echo "table is locked" &gt;&amp;2; exit 7'), level="2")
    failed = site.k4t("apply", "--yes", status=1)
    assert "exit status 7" in failed.stderr + failed.stdout
    assert "table is locked" in failed.stderr
    assert [containers(host, all=False) for host in lab.nodes] == [
        [name for name in names if "job" not in name] for names in before
    ]
    app(site, migrate(), level="2")
    site.k4t("apply", "--yes")
    assert "2 " in data(lab)
    assert site.json("plan")["steps"] == []


def test_a_job_that_takes_too_long_is_stopped(site: Site, lab: Lab) -> None:
    """Its time-out ends it, and the update."""
    app(site, migrate("echo begun; sleep 60", timeout="2s"))
    failed = site.k4t("apply", "--yes", status=1)
    assert "took longer than 2 s" in failed.stderr
    assert all(not containers(host, all=False) for host in lab.nodes)


def test_a_job_that_outlives_its_master_is_waited_for(site: Site, lab: Lab, tmp_path: Path) -> None:
    """Killed in the middle of the job, then run from another working copy: one job, and the update goes on."""
    app(site, migrate('sleep 4; echo "$LEVEL" &gt;&gt; /data/log'))
    process = site.start("apply", "--yes")
    assert eventually(lambda: any("job-migrate" in name for host in lab.nodes for name in containers(host, all=False)))
    process.kill()
    process.communicate()
    other = site.copy(tmp_path / "other")
    done = other.k4t("apply", "--yes", "--wait")
    assert "waited for" in done.stderr or "was done before" in done.stderr
    assert data(lab) == ["1"]
    assert other.json("plan")["steps"] == []


def test_a_secret_of_a_job_is_in_no_output(site: Site, lab: Lab) -> None:
    """It reaches the job's environment; it is not in what k4t prints or Docker's labels."""
    site.write("secrets/pass.xml", '<secret environment="K4T_TEST_PASS"/>')
    app(site, migrate('echo "$${#PASS}" &gt;&gt; /data/log', more='<env name="PASS" secret="pass"/>'))
    process = site.start("apply", "--yes", extra={"K4T_TEST_PASS": "s3cr3t-value"})
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "s3cr3t" not in out + err
    assert data(lab) == ["12"]


def test_run_by_hand_follows_output_and_status(site: Site, lab: Lab) -> None:
    """Any number of times; never two at once; the list tells how the last one ended."""
    app(
        site,
        migrate(
            'echo hand; until [ -e "$GO" ]; do sleep 0.1; done; exit 3', more='<env name="GO">/data/go</env>'
        ).replace('before="update"', 'schedule="0 3 * * *"'),
    )
    site.k4t("apply", "--yes")
    results: list[int] = []
    first = threading.Thread(target=lambda: results.append(site.k4t("job", "run", "web", status=None).returncode))
    first.start()
    assert eventually(lambda: any("job-migrate" in name for host in lab.nodes for name in containers(host, all=False)))
    second = site.k4t("job", "run", "web", "migrate", status=75)
    assert "runs already" in second.stderr or "lock" in second.stderr
    assert site.json("job", "list")["jobs"][0]["result"] == "running"
    for host in lab.nodes:
        host.exec(["touch", "/tmp/k4t-jobs/go"])
    first.join()
    assert results == [3]
    done = site.k4t("job", "run", "web", "--wait", status=3)
    assert "hand" in done.stdout.splitlines()
    row = site.json("job", "list", "web")["jobs"][0]
    assert (row["job"], row["result"], row["exit_status"]) == ("migrate", "exit 3", 3)
    assert row["next"].endswith("Z")
    site.k4t("job", "run", "web", "nobody", status=64)


def test_a_timer_is_put_on_one_node_and_taken_away(site: Site, lab: Lab) -> None:
    """One node has script and cron line, root's alone; changed, it is made anew; gone, it is gone."""
    app(site, TIMER.format(schedule="*/5 3 * * 1-5", script='echo "$LEVEL" &gt;&gt; /data/log'))
    site.k4t("apply", "--yes")
    (host,) = homes(lab, "prod.web.job-clean")
    assert site.json("plan")["steps"] == []
    files = host.exec(["sh", "-c", "ls /etc/cron.d | grep k4t_; ls -l /var/lib/k4t/*/timers"]).stdout
    assert files.splitlines()[0] == f"k4t_{site.id}_web_clean"
    assert "-rwx------" in files
    app(site, TIMER.format(schedule="0 4 * * *", script='echo "$LEVEL" &gt;&gt; /data/log'))
    assert [step["action"] for step in site.json("plan")["steps"] if step["action"] != "pull"] == ["timer"]
    site.k4t("apply", "--yes")
    assert "04" in host.exec(["sh", "-c", "cat /var/lib/k4t/*/timers/web_clean"]).stdout
    app(site, "")
    site.k4t("apply", "--yes")
    assert homes(lab, "prod.web.job-clean") == []
    assert host.exec(["sh", "-c", "ls /etc/cron.d /var/lib/k4t/*/timers | grep -c clean || :"]).stdout.strip() == "0"
    assert site.json("plan")["steps"] == []


def test_what_the_timer_starts_runs_once_at_a_time(site: Site, lab: Lab) -> None:
    """The script itself, twice at once: one runs, the other ends with 75; a third that takes too long is stopped."""
    app(site, TIMER.format(schedule="* * * * *", script='echo "$LEVEL" &gt;&gt; /data/log; sleep $(cat /data/nap)'))
    site.k4t("apply", "--yes")
    (host,) = homes(lab, "prod.web.job-clean")
    script = host.exec(["sh", "-c", "echo /var/lib/k4t/*/timers/web_clean"]).stdout.strip()
    host.exec(["sh", "-c", "echo 3 > /tmp/k4t-jobs/nap"])
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(host.exec([script, "due"], check=False).returncode))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [0, 75]
    assert data(lab) == ["1"]
    host.exec(["sh", "-c", "echo 60 > /tmp/k4t-jobs/nap"])
    assert host.exec([script], check=False).returncode == 124
    assert "prod.web.job-clean" not in containers(host, all=False)
    state = json.loads(host.docker(["inspect", "prod.web.job-clean"]).stdout)[0]["State"]
    assert state["Running"] is False


def test_an_app_that_goes_takes_its_jobs_along(site: Site, lab: Lab) -> None:
    """Containers of jobs and timers are gone with it."""
    app(site, migrate() + TIMER.format(schedule="0 4 * * *", script="true"))
    site.k4t("apply", "--yes")
    assert sorted(name for host in lab.nodes for name in containers(host) if "job" in name) == [
        "prod.web.job-clean",
        "prod.web.job-migrate",
    ]
    site.k4t("app", "remove", "web", "--yes")
    assert [name for host in lab.nodes for name in containers(host)] == []
    assert all("k4t_" not in host.exec(["ls", "/etc/cron.d"]).stdout for host in lab.nodes)


def test_a_job_with_an_image_of_its_own(site: Site, lab: Lab) -> None:
    """Pulled by digest to the node on which it runs; its command is its own image's unless it says another."""
    other = lab.push("tools", VER="tools")
    job = f'  <job name="migrate" before="update"><image>{other}</image><command><arg>sh</arg><arg>-c</arg>'
    app(site, job + "<arg>echo $VER &gt;&gt; /data/log</arg></command></job>")
    steps = [step["id"] for step in site.json("plan")["steps"]]
    assert any(id.startswith(f"pull:{other}@") for id in steps)
    site.k4t("apply", "--yes")
    assert data(lab) == ["tools"]
    assert site.json("plan")["steps"] == []


def test_a_node_that_leaves_keeps_nothing_of_jobs(site: Site, lab: Lab) -> None:
    """Drained, its timer moves; removed, the container of a job that ran there goes too."""
    app(site, migrate() + TIMER.format(schedule="0 4 * * *", script="true"), replicas=1)
    site.k4t("apply", "--yes")
    (first,) = homes(lab, "prod.web.job-clean")
    (ran,) = homes(lab, "prod.web.job-migrate")
    assert first.name == ran.name
    site.k4t("node", "drain", first.name, "--yes")
    (second,) = homes(lab, "prod.web.job-clean")
    assert second.name != first.name
    assert "k4t_" not in first.exec(["ls", "/etc/cron.d"]).stdout
    assert containers(first) == ["prod.web.job-migrate"]
    site.k4t("node", "remove", first.name, "--yes")
    assert containers(first) == []


@pytest.mark.crash
@pytest.mark.parametrize("point", ["before:job", "after:job", "before:timer", "after:timer"])
def test_killed_beside_a_job_the_next_run_converges(site: Site, lab: Lab, tmp_path: Path, point: str) -> None:
    """From another working copy: the job has run once, one timer stands, nothing is left to do."""
    app(site, migrate() + TIMER.format(schedule="0 4 * * *", script="true"), replicas=1)
    process = site.start("apply", "--yes", extra={"K4T_FAILPOINT": point})
    process.communicate(timeout=60)
    assert process.returncode == -9
    other = site.copy(tmp_path / "other")
    other.k4t("apply", "--yes", "--wait")
    assert data(lab) == ["1 "]
    assert len(homes(lab, "prod.web.job-clean")) == 1
    assert other.json("plan")["steps"] == []
