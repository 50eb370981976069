"""Schedules and the files that make timers of them: one meaning for systemd, for cron and for what k4t tells."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from k4t.model.app import App, Image, Stop
from k4t.node import cron, joblist, jobs

pytestmark = pytest.mark.unit
NOW = datetime(2026, 11, 20, 11, 0, 30, tzinfo=UTC)
"""A Friday."""
SCHEDULES = [
    ("0 3 * * *", "UTC", "2026-11-21T03:00"),
    ("0 3 * * *", "Europe/Berlin", "2026-11-21T02:00"),
    ("*/15 * * * *", "UTC", "2026-11-20T11:15"),
    ("5-20/5 11,13 * * *", "UTC", "2026-11-20T11:05"),
    ("0 0 1 * *", "UTC", "2026-12-01T00:00"),
    ("0 0 * * 1-5", "America/New_York", "2026-11-23T05:00"),
    ("30 4 * * 0", "UTC", "2026-11-22T04:30"),
    ("30 4 * * 7", "UTC", "2026-11-22T04:30"),
    ("0 12 13 * 5", "UTC", "2026-11-20T12:00"),
    ("0 12 13 * 1", "UTC", "2026-11-23T12:00"),
    ("0 6 29 2 *", "UTC", "2028-02-29T06:00"),
]
ORDER = jobs.Order(
    cluster_id="k7f3q2m9", name="prod.web.job-clean", app=App("web", Image("web:1"), stop=Stop(grace_s=3)), job="clean",
    key="0" * 32, image="web@sha256:0", address="10.0.0.1", timeout_s=90, schedule="*/5 3 13 * 1-5",
    timezone="Europe/Berlin", secrets={"p": "s3cr3t"},
)  # fmt: skip


@pytest.mark.parametrize(("schedule", "zone", "expected"), SCHEDULES)
def test_the_next_time_is_in_the_schedules_own_zone(schedule: str, zone: str, expected: str) -> None:
    """Also where both days are restricted (either will do), and on a day that is rare."""
    found = cron.next_run(schedule, zone, NOW)
    assert found is not None
    assert found.astimezone(UTC).strftime("%Y-%m-%dT%H:%M") == expected


def test_a_day_that_never_comes_is_none() -> None:
    """30 February: said, not looked for without end."""
    assert cron.next_run("0 0 30 2 *", "UTC", NOW) is None


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd")
@pytest.mark.parametrize(("schedule", "zone", "expected"), SCHEDULES)
def test_systemd_understands_the_same(schedule: str, zone: str, expected: str) -> None:
    """systemd-analyze, asked for the next time after the same moment, says the same."""
    base = NOW.strftime("%Y-%m-%d %H:%M:%S UTC")
    found = []
    for line in cron.on_calendar(schedule, zone):
        argv = ["systemd-analyze", "calendar", f"--base-time={base}", line]
        said = subprocess.run(argv, capture_output=True, text=True, check=True, env={**_PATH, "TZ": "UTC"}).stdout
        times = [part.split(maxsplit=2) for part in said.splitlines() if "Next elapse" in part or "(in UTC)" in part]
        stamp = times[-1][-1].replace("elapse: ", "").removesuffix(" UTC")[-19:]
        found.append(stamp.replace(" ", "T")[:16])
    assert min(found) == expected


@pytest.mark.parametrize(("schedule", "zone", "expected"), SCHEDULES)
def test_the_scripts_own_test_holds_then_and_not_a_minute_later(schedule: str, zone: str, expected: str) -> None:
    """What cron starts every minute goes on in the minute that is meant, in the schedule's zone."""
    moment = datetime.fromisoformat(f"{expected}:30+00:00")
    assert _goes_on(schedule, zone, moment)
    assert not _goes_on(schedule, zone, moment + timedelta(minutes=1))


_PATH = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def _goes_on(schedule: str, zone: str, moment: datetime) -> bool:
    """Runs it with a `date` that is asked about that moment."""
    fake = f'date() {{ command date -d @{int(moment.timestamp())} "$@"; }}\n'
    script = fake + cron.shell_test(schedule, zone) + "echo on\n"
    # `TZ=… date` is a function's own environment only in POSIX shells that export it: so it is exported here.
    script = script.replace(f"$(TZ={zone} date", f"$(export TZ={zone}; date")
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env=_PATH).stdout == "on\n"


def test_the_units_are_valid(tmp_path: Path) -> None:
    """systemd's own checker has nothing to say."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd")
    (tmp_path / "docker.service").write_text("[Service]\nExecStart=/bin/true\n")
    service = jobs.service(ORDER).replace(jobs.script_path("k7f3q2m9", "web", "clean"), "/bin/true")
    (tmp_path / "k4t_x.service").write_text(service)
    (tmp_path / "k4t_x.timer").write_text(jobs.timer(ORDER))
    argv = [
        "systemd-analyze",
        "verify",
        "--man=no",
        *(str(tmp_path / name) for name in ("k4t_x.service", "k4t_x.timer")),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if "k4t_x" in line]
    assert ours == []


def test_the_script_is_valid_and_tells_no_secret(tmp_path: Path) -> None:
    """sh reads it; no value, image or argument stands in it; its files' names are ones that cron reads."""
    path = tmp_path / "script"
    path.write_text(jobs.script(ORDER))
    subprocess.run(["sh", "-n", str(path)], check=True)
    assert "s3cr3t" not in path.read_text() + jobs.crontab(ORDER) + jobs.service(ORDER)
    assert "timeout -k 5 90 docker wait" in path.read_text()
    name = jobs.stem("k7f3q2m9", "web", "clean")
    assert all(letter.isalnum() or letter in "_-" for letter in name)
    assert jobs.stem("c", "a-b", "c") != jobs.stem("c", "a", "b-c")


def test_labels_come_back_as_they_were_written() -> None:
    """And damaged ones, or another cluster's, are nobody's."""
    written = joblist.build(
        cluster_id="c1", app="web", job="clean", key="a" * 32, schedule="* * * * * UTC", done=["b" * 32],
        secrets={"p": "d"},
    )  # fmt: skip
    entry = {
        "Id": "1",
        "Names": ["/prod.web.job-clean"],
        "Labels": written,
        "State": "exited",
        "Status": "Exited (3) 1s",
    }
    (run,) = joblist.runs("n1", [entry], "c1")
    assert (run.app, run.job, run.key, run.schedule) == ("web", "clean", "a" * 32, "* * * * * UTC")
    assert (run.exit_status, run.done, run.secrets, run.node) == (3, ("b" * 32,), (("p", "d"),), "n1")
    assert run.succeeded == ("b" * 32,)
    assert joblist.runs("n1", [entry], "c2") == ()
    assert joblist.runs("n1", [{**entry, "Labels": {**written, "io.k4t.job-key": "../x"}}], "c1") == ()
    assert joblist.runs("n1", [{**entry, "Labels": None}], "c1") == ()
