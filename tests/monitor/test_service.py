"""The service that runs the monitor: as systemd and OpenRC read it, and how it comes and goes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from k4t.errors import K4tError
from k4t.master.power.service import System
from k4t.monitor import service

pytestmark = pytest.mark.unit
ID = "k7f3q2m9"
ARGV = [
    "/usr/bin/python3",
    "-m",
    "k4t.cli",
    "--db",
    '/srv/a b/100% "$db"',
    "monitor",
    "run",
    "--page",
    "/var/www/k.html",
]
ENVIRONMENT = {"HOME": "/root", "XDG_STATE_HOME": "/a b/$x%"}


def test_a_systemd_unit_keeps_it_running(tmp_path: Path) -> None:
    """It comes back whenever it ends; paths stand in it so that systemd reads them as they are."""
    text = service.text(System("systemd"), ARGV, "prod", ID, ENVIRONMENT)
    assert '"--db" "/srv/a b/100%% \\"$$db\\"" "monitor" "run" "--page" "/var/www/k.html"\nRestart=always\n' in text
    assert 'Environment="HOME=/root"\nEnvironment="XDG_STATE_HOME=/a b/$x%%"\n' in text
    if shutil.which("systemd-analyze"):
        unit = tmp_path / "k4t-monitor-x.service"
        unit.write_text(text)
        words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr


def test_an_openrc_script_keeps_it_running(tmp_path: Path) -> None:
    """What OpenRC evaluates comes out as the words that went in."""
    script = tmp_path / "script"
    show = 'eval "set -- $command_args"; for one; do echo "[$one]"; done; echo "$supervisor $XDG_STATE_HOME"'
    script.write_text(f"{service.text(System('openrc'), ARGV, 'prod', ID, ENVIRONMENT)}\n{show}\n")
    said = subprocess.run(["sh", script], capture_output=True, text=True, timeout=30, check=True).stdout
    assert said.splitlines() == [*(f"[{word}]" for word in ARGV[1:]), "supervise-daemon /a b/$x%"]


@pytest.mark.parametrize("kind", ["systemd", "openrc"])
def test_it_comes_and_goes_at_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started anew where it runs, ended before it is taken away; where that fails, nothing is left."""
    fakes = [tmp_path / "bin" / name for name in ("systemctl", "rc-update", "rc-service")]
    for path in (fakes[0].parent, tmp_path / "etc/systemd/system", tmp_path / "etc/init.d"):
        path.mkdir(parents=True)
    for fake in fakes:
        fake.write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >>{tmp_path}/calls\n')
        fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fakes[0].parent}:{os.environ['PATH']}")
    system = System(kind, tmp_path)
    path = service.install(system, Path("/srv/db"), "prod", ID, ["--page", "/p"])
    assert "/p" in path.read_text()
    assert service.remove(system, ID) == path
    assert service.remove(system, ID) is None
    name = f"k4t-monitor-{ID}"
    assert (tmp_path / "calls").read_text().splitlines() == {
        "systemd": [
            "systemctl daemon-reload", *(f"systemctl {verb} {name}.service" for verb in ("enable", "restart")),
            *(f"systemctl {verb} {name}.service" for verb in ("stop", "disable")),
        ],
        "openrc": [
            f"rc-update add {name} default", f"rc-service {name} restart",
            f"rc-service {name} stop", f"rc-update del {name} default",
        ],
    }[kind]  # fmt: skip
    for fake in fakes:
        fake.write_text("#!/bin/sh\necho no >&2; exit 1\n")
    with pytest.raises(K4tError, match="said: no"):
        service.install(system, Path("/srv/db"), "prod", ID)
    assert not path.exists()
