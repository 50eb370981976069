"""What runs on hosts and here: the queue's scripts in real shells, wake-on-LAN on a real socket, services."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from k4t.errors import K4tError, StepError, Usage
from k4t.master.power import queue, service, signed, switch, wol
from k4t.master.power.queue import MAX_ASIDE, MAX_FILES
from k4t.master.power.service import System

pytestmark = pytest.mark.unit
SHELLS = [["sh"], ["busybox", "sh"]]
ID = "0123456789abcdef"


def ran(shell: list[str], script: str, *words: str | Path) -> bytes:
    done = subprocess.run([*shell, "-c", script, "sh", *words], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return bytes(done.stdout)


@pytest.mark.parametrize("shell", SHELLS)
def test_only_regular_files_with_proper_names_are_read(shell: list[str], tmp_path: Path) -> None:
    """In one round trip, bounded in number and size, without being held up by what a hacked host puts there."""
    (tmp_path / f"{ID}.json").write_bytes(b'{"k4t-intent":1}\n')
    (tmp_path / ("f" * 16 + ".json")).write_bytes(b"x" * 100_000)
    os.mkfifo(tmp_path / ("a" * 16 + ".json"))
    (tmp_path / ("b" * 16 + ".json")).symlink_to("/etc/passwd")
    (tmp_path / ("c" * 16 + ".json")).mkdir()
    for name in ("$(touch pwned).json", "a b.json", "-rf.json", "new\nline.json", ".json", "UPPER.json"):
        (tmp_path / name).write_bytes(b"{}")
    found = queue._parsed(ran(shell, queue.LIST, tmp_path))
    assert sorted(found) == [ID, "f" * 16]
    assert found[ID] == b'{"k4t-intent":1}\n'
    assert len(found["f" * 16]) == signed.MAX_BYTES + 1
    assert not (tmp_path / "pwned").exists()
    assert ran(shell, queue.LIST, tmp_path / "none") == b""
    for number in range(MAX_FILES + 5):
        (tmp_path / f"{number:016x}.json").write_bytes(b"{}\n")
    assert len(queue._parsed(ran(shell, queue.LIST, tmp_path))) == MAX_FILES


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_refused_is_put_aside(shell: list[str], tmp_path: Path) -> None:
    """Where people can look at it; the newest stay."""
    for number in range(MAX_ASIDE + 7):
        name = f"{number:016x}.json"
        (tmp_path / name).write_bytes(b"{}\n")
        if number % 10 == 0 or number == MAX_ASIDE + 6:
            ran(shell, queue.ASIDE, tmp_path, *sorted(path.name for path in tmp_path.glob("*.json")))
    assert not list(tmp_path.glob("*.json"))
    assert len(list((tmp_path / "refused").iterdir())) == MAX_ASIDE


def test_garbage_from_a_host_is_nothing() -> None:
    """Whatever it says."""
    data = base64.b64encode(b"x").decode()
    assert queue._parsed(b"\xff\xfe\n\n/etc/passwd eA==\n../x.json eA==\n" + f"{ID}.json {data}\n".encode()) == {
        ID: b"x"
    }
    assert queue._parsed(f"{ID}.json not base64\n".encode()) == {ID: b""}


def test_a_magic_packet_arrives() -> None:
    """Six times 0xFF and sixteen times the address, in one datagram."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(10)
        wol.wake("52:54:00:aB:34:56", "127.0.0.1", port=listener.getsockname()[1])
        for _ in range(wol.SENT_TIMES):
            assert listener.recv(200) == b"\xff" * 6 + bytes.fromhex("525400ab3456") * 16
    for wrong in ("52:54:00:ab:34", "52:54:00:ab:34:5g", ""):
        with pytest.raises(StepError):
            wol.packet(wrong)
    with pytest.raises(StepError, match="no wake-on-LAN packet"):
        wol.wake("52-54-00-ab-34-56", "no.such.host.invalid")


def test_a_power_command_is_no_shells(tmp_path: Path) -> None:
    """Words and nothing else; only its success counts, and what it says is passed on."""
    touched = tmp_path / "a b; touch c"
    assert switch.on(f"touch '{touched}'", "n1") == f"n1 was switched on: `touch '{touched}'`"
    assert [path.name for path in tmp_path.iterdir()] == ["a b; touch c"]
    with pytest.raises(K4tError, match="n1 was not switched on: `false` said: exit status 1"):
        switch.on("false", "n1")
    with pytest.raises(K4tError, match="m1 was not switched off: no such program: no-such-program"):
        switch.off("no-such-program now", "m1")
    with pytest.raises(K4tError, match="m1 was not switched off: `ls /no/such` said: ls: "):
        switch.off("ls /no/such", "m1")


# --- the service -----------------------------------------------------------------------------------------------

ODD = Path('/srv/a b/100% "$db"')


def test_a_systemd_unit_runs_it_at_boot(tmp_path: Path) -> None:
    """Paths stand in it so that systemd reads them as they are."""
    text = service.text(System("systemd"), ODD, "prod", "k7f3q2m9", {"HOME": "/root", "XDG_CONFIG_HOME": "/a b/$x%"})
    assert '"--db" "/srv/a b/100%% \\"$$db\\"" "wake" "--timeout" "900"' in text
    assert 'Environment="HOME=/root"\nEnvironment="XDG_CONFIG_HOME=/a b/$x%%"\n' in text
    assert "\nAfter=network-online.target\n" in text
    assert "\nWantedBy=multi-user.target\n" in text
    if shutil.which("systemd-analyze"):
        unit = tmp_path / "k4t-wake-x.service"
        unit.write_text(text)
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_an_openrc_script_runs_it_at_boot(tmp_path: Path) -> None:
    """What OpenRC evaluates comes out as the words that went in (start-stop-daemon's arguments are evaluated again)."""
    text = service.text(System("openrc"), ODD, "prod", "k7f3q2m9", {"HOME": "/root", "XDG_CONFIG_HOME": "/a b/$x%"})
    script = tmp_path / "script"
    show = 'eval "set -- $command_args"; for one; do echo "[$one]"; done; echo "$XDG_CONFIG_HOME"; depend'
    script.write_text(f'need() {{ :; }}; after() {{ echo "after $*"; }}\n{text}\n{show}\n')
    for shell in SHELLS:
        said = subprocess.run([*shell, script], capture_output=True, text=True, timeout=30, check=True).stdout
        assert said.splitlines() == [
            "[-m]", "[k4t.cli]", "[--db]", f"[{ODD}]", "[wake]", "[--timeout]", "[900]", "/a b/$x%",
            "after firewall sshd ntp-client chronyd",
        ]  # fmt: skip


@pytest.mark.parametrize("kind", ["systemd", "openrc"])
def test_a_service_comes_and_goes(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the commands that this system knows; where they fail, nothing is left."""
    program = {"systemd": "systemctl", "openrc": "rc-update"}[kind]
    directory = tmp_path / {"systemd": "etc/systemd/system", "openrc": "etc/init.d"}[kind]
    directory.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    fake = tmp_path / "bin" / program
    fake.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    with pytest.raises(Usage, match="neither systemd nor OpenRC"):
        service.here(tmp_path / "none")
    if kind == "systemd":
        (tmp_path / "run/systemd/system").mkdir(parents=True)
    system = service.here(tmp_path)
    assert system == System(kind, tmp_path)
    path = service.install(system, Path("/srv/db"), "prod", "k7f3q2m9")
    assert path.parent == directory
    assert path.stat().st_mode & 0o777 == (0o644 if kind == "systemd" else 0o755)
    assert service.remove(system, "k7f3q2m9") == path
    assert service.remove(system, "k7f3q2m9") is None
    assert (tmp_path / "calls").read_text().splitlines() == {
        "systemd": ["daemon-reload", "enable k4t-wake-k7f3q2m9.service", "disable k4t-wake-k7f3q2m9.service"],
        "openrc": ["add k4t-wake-k7f3q2m9 default", "del k4t-wake-k7f3q2m9 default"],
    }[kind]
    fake.write_text("#!/bin/sh\necho no >&2; exit 1\n")
    with pytest.raises(K4tError, match="said: no"):
        service.install(system, Path("/srv/db"), "prod", "k7f3q2m9")
    assert not path.exists()
