"""The schedule: files in a root of ours, programs that are only written down; what is written is checked by those who
read it (systemd-analyze, sh)."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from k4t.command import Completed
from k4t.errors import K4tError
from k4t.master.backup import timer
from k4t.master.backup.timer import Machine

pytestmark = pytest.mark.unit

NAME = "k4t-backup-k7f3q2m9"
AWKWARD = "/srv/my trees/100% $HOME 'a' \"b\" \\c/db"
PROGRAM = ("/opt/k4t/bin/python", "-m", "k4t.cli")


class Programs:
    """systemctl and crontab, as far as they matter here."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.crontab: bytes | None = None

    def __call__(self, argv: Sequence[str], input: bytes = b"") -> Completed:
        self.calls.append(list(argv))
        if list(argv) == ["crontab", "-"]:
            self.crontab = input
        if list(argv) == ["crontab", "-l"]:
            if self.crontab is None:
                return Completed(1, b"", b"no crontab for root")
            return Completed(0, self.crontab, b"")
        if "show" in argv:
            last, coming = "Fri 2026-11-20 12:00:00 UTC", "Fri 2026-11-20 12:01:00 UTC"
            return Completed(0, f"LastTriggerUSec={last}\nNextElapseUSecRealtime={coming}\n".encode(), b"")
        return Completed(0, b"", b"")


@pytest.fixture
def programs() -> Programs:
    return Programs()


def machine(root: Path, programs: Programs, *have: str, user: bool = False) -> Machine:
    for path in have:
        (root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    return Machine(root, "/root", "root", is_root=not user, user=user, run=programs)


SYSTEMD = ("/run/systemd/system", "/usr/bin/systemctl", "/usr/bin/logger")
CRON_D = ("/etc/cron.d", "/usr/bin/crontab", "/usr/bin/logger")
CRONTAB = ("/usr/bin/crontab",)


def wanted(of: Machine, db: str = "/srv/db") -> timer.Schedule:
    return timer.schedule("k7f3q2m9", Path(db), of, PROGRAM)


def test_systemd_gets_a_timer_that_catches_up(tmp_path: Path, programs: Programs) -> None:
    """Every minute, after sleep too; enabled at once; a second time changes nothing."""
    host = machine(tmp_path, programs, *SYSTEMD, *CRON_D)
    assert timer.install(wanted(host), host)
    service = (tmp_path / f"etc/systemd/system/{NAME}.service").read_text()
    unit = (tmp_path / f"etc/systemd/system/{NAME}.timer").read_text()
    assert 'ExecStart="/opt/k4t/bin/python" "-m" "k4t.cli" "--db" "/srv/db" "backup" "--due"' in service
    assert 'Environment="HOME=/root"' in service
    assert "OnCalendar=minutely" in unit
    assert "Persistent=true" in unit
    assert programs.calls[-2:] == [["systemctl", "daemon-reload"], ["systemctl", "enable", "--now", f"{NAME}.timer"]]
    assert not timer.install(wanted(host), host)
    assert not (tmp_path / "etc/cron.d" / NAME).exists()
    assert timer.times("systemd", NAME, host) == ("Fri 2026-11-20 12:00:00 UTC", "Fri 2026-11-20 12:01:00 UTC")


def test_a_user_has_a_timer_of_his_own(tmp_path: Path, programs: Programs) -> None:
    host = dataclasses.replace(machine(tmp_path, programs, *SYSTEMD, user=True), home="/home/ada")
    timer.install(wanted(host), host)
    assert (tmp_path / f"home/ada/.config/systemd/user/{NAME}.timer").exists()
    assert ["systemctl", "--user", "enable", "--now", f"{NAME}.timer"] in programs.calls


def test_cron_gets_a_file_of_its_own(tmp_path: Path, programs: Programs) -> None:
    """Where root may; what is said goes to the log, since cron would mail it every minute."""
    host = machine(tmp_path, programs, *CRON_D)
    assert timer.install(wanted(host), host)
    *_, line = (tmp_path / "etc/cron.d" / NAME).read_text().splitlines()
    assert line.startswith(
        "* * * * * root env HOME=/root /opt/k4t/bin/python -m k4t.cli --db /srv/db backup --due 2>&1 |"
    )
    assert not timer.install(wanted(host), host)


def test_a_crontab_keeps_its_other_lines(tmp_path: Path, programs: Programs) -> None:
    """One line is ours, whatever stands around it; installed again with another tree it is replaced."""
    programs.crontab = b"MAILTO=ada\n# notes\n*/5 * * * * true # k4t-backup-other\n"
    host = machine(tmp_path, programs, *CRONTAB, user=True)
    assert timer.install(wanted(host), host)
    assert timer.install(wanted(host, "/srv/other"), host)
    assert not timer.install(wanted(host, "/srv/other"), host)
    *others, line = programs.crontab.decode().splitlines()
    assert others == ["MAILTO=ada", "# notes", "*/5 * * * * true # k4t-backup-other"]
    assert "--db /srv/other backup --due >/dev/null 2>&1 # k4t-backup-k7f3q2m9" in line
    assert timer.installed(NAME, host) == ("crontab", {"": line})
    assert timer.remove(NAME, host)
    assert programs.crontab == b"MAILTO=ada\n# notes\n*/5 * * * * true # k4t-backup-other\n"
    assert not timer.remove(NAME, host)


def test_a_machine_that_gets_systemd_loses_the_cron_line(tmp_path: Path, programs: Programs) -> None:
    """Nothing is called twice a minute."""
    host = machine(tmp_path, programs, *CRON_D)
    timer.install(wanted(host), host)
    machine(tmp_path, programs, *SYSTEMD)
    assert timer.install(wanted(host), host)
    assert not (tmp_path / "etc/cron.d" / NAME).exists()
    found = timer.installed(NAME, host)
    assert found is not None
    assert found[0] == "systemd"
    assert timer.remove(NAME, host)
    assert timer.installed(NAME, host) is None
    assert ["systemctl", "disable", "--now", f"{NAME}.timer"] in programs.calls
    assert list((tmp_path / "etc/systemd/system").iterdir()) == []


def test_a_machine_with_neither_is_told(tmp_path: Path, programs: Programs) -> None:
    with pytest.raises(K4tError, match="neither systemd nor cron"):
        wanted(machine(tmp_path, programs))


def test_a_path_with_control_characters_is_refused(tmp_path: Path, programs: Programs) -> None:
    with pytest.raises(K4tError, match="control characters"):
        wanted(machine(tmp_path, programs, *SYSTEMD), "/srv/a\nb")


def test_cron_calls_exactly_that_command(tmp_path: Path, programs: Programs) -> None:
    """A path with blanks, quotes, $, % and a backslash reaches the program as it is: cron takes \\% for %, then sh."""
    seen = tmp_path / "seen"
    program = tmp_path / "k4t"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" "$HOME" >{shlex.quote(str(seen))}\n')
    program.chmod(0o755)
    host = machine(tmp_path, programs, *CRON_D)
    made = timer.schedule("k7f3q2m9", Path(AWKWARD), host, (str(program),))
    line = next(iter(made.files.values())).splitlines()[-1].removeprefix("* * * * * root ")
    assert "%" not in line.replace("\\%", "")
    command = line.replace("\\%", "%").replace("logger -t k4t-backup", "cat")
    subprocess.run(["/bin/sh", "-c", command], check=True, env={"PATH": "/usr/bin:/bin"}, timeout=30)
    assert seen.read_text().splitlines() == ["--db", AWKWARD, "backup", "--due", "/root"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_reads_the_units_as_they_are_meant(tmp_path: Path, programs: Programs) -> None:
    """Its own checker has nothing to say, also with an awkward path."""
    host = machine(tmp_path, programs, *SYSTEMD)
    made = timer.schedule("k7f3q2m9", Path(AWKWARD), host, ("/bin/true",))
    for path, text in made.files.items():
        (tmp_path / path.rsplit("/", 1)[1]).write_text(text)
    units = [str(tmp_path / path.rsplit("/", 1)[1]) for path in made.files]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False, timeout=60
    )
    said = [line for line in done.stderr.splitlines() if NAME in line]
    assert (done.returncode, said) == (0, [])
    service = next(text for path, text in made.files.items() if path.endswith(".service"))
    assert '"/srv/my trees/100%% $$HOME \'a\' \\"b\\" \\\\c/db"' in service


def test_what_the_keys_need_goes_along(tmp_path: Path, programs: Programs) -> None:
    """Keys that lie elsewhere than in HOME lie there for the schedule too."""
    host = machine(tmp_path, programs, *SYSTEMD)
    host = dataclasses.replace(host, environ={"K4T_KEYS": "/srv/keys 1"})
    service = next(text for path, text in wanted(host).files.items() if path.endswith(".service"))
    assert 'Environment="K4T_KEYS=/srv/keys 1"' in service
