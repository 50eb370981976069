"""The service that runs `k4t wake` when this machine boots: a systemd unit, or an OpenRC script (Alpine)."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from k4t import command
from k4t.errors import K4tError, Usage
from k4t.master.backup.timer import PASSED_ON, quoted
from k4t.model.value import value
from k4t.tree.edit import write_file

LONGEST_S = 7200
NETWORK_S = 900

SYSTEMD = """\
# Written by `k4t wake --install-service`; taken away by `k4t wake --remove-service`.
[Unit]
Description=k4t wake: what was queued while this machine was off (cluster {cluster})
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
User={user}
WorkingDirectory=/
{environment}
ExecStart={argv}
TimeoutStartSec={longest_s}
# It ends in good order when the machine goes down; what it leaves, the next one takes up.
TimeoutStopSec=60

[Install]
WantedBy=multi-user.target
"""
OPENRC = """\
#!/sbin/openrc-run
# Written by `k4t wake --install-service`; taken away by `k4t wake --remove-service`.
description="k4t wake: what was queued while this machine was off (cluster {cluster})"
command={program}
command_args={arguments}
command_user={user}
command_background=true
pidfile="/run/{name}.pid"
output_log="/var/log/{name}.log"
error_log="/var/log/{name}.log"
directory=/
{environment}

depend() {{
    need net
    after firewall sshd ntp-client chronyd
}}
"""


@value
class System:
    """Where services are kept on this machine. `root` is / outside tests."""

    kind: str
    root: Path = Path("/")

    def path(self, name: str) -> Path:
        place = f"etc/systemd/system/{name}.service" if self.kind == "systemd" else f"etc/init.d/{name}"
        return self.root / place

    def switching(self, name: str, *, on: bool) -> list[list[str]]:
        """The commands that make it start at boot, or no more."""
        if self.kind == "systemd":
            verbs = [["daemon-reload"], ["enable", f"{name}.service"]] if on else [["disable", f"{name}.service"]]
            return [["systemctl", *verb] for verb in verbs]
        return [["rc-update", *(["add", name, "default"] if on else ["del", name, "default"])]]

    def acting(self, name: str, verb: str) -> list[str]:
        """The command that does this with it now."""
        return ["systemctl", verb, f"{name}.service"] if self.kind == "systemd" else ["rc-service", name, verb]


def here(root: Path = Path("/")) -> System:
    """Raises Usage for a machine that runs neither (systemd: sd_booted(3))."""
    if (root / "run/systemd/system").is_dir() and shutil.which("systemctl"):
        return System("systemd", root)
    if (root / "etc/init.d").is_dir() and shutil.which("rc-update"):
        return System("openrc", root)
    raise Usage("this machine runs neither systemd nor OpenRC", "have it run `k4t wake` when it boots; docs/power.md")


def name_of(cluster_id: str) -> str:
    """One machine may be the master of several clusters."""
    return f"k4t-wake-{cluster_id}"


def text(system: System, db: Path, cluster: str, cluster_id: str, environment: dict[str, str]) -> str:
    argv = [sys.executable, "-m", "k4t.cli", "--db", os.fspath(db), "wake", "--timeout", str(NETWORK_S)]
    return filled(
        SYSTEMD if system.kind == "systemd" else OPENRC, system, argv, environment, cluster=cluster,
        name=name_of(cluster_id), longest_s=LONGEST_S,
    )  # fmt: skip


def filled(form: str, system: System, argv: Sequence[str], environment: Mapping[str, str], **more: object) -> str:
    """A unit or a script that runs a command as this user does. Raises Usage for what can't be written in one."""
    if bad := [word for word in (*argv, *environment.values()) if not word.isprintable()]:
        raise Usage(f"a service can't be written with {bad[0]!a} in it")
    if system.kind == "systemd":
        settings = [f"{key}={at}" for key, at in environment.items()]
        return form.format(
            user=getpass.getuser(), argv=" ".join(quoted(word) for word in argv),
            environment="\n".join(f"Environment={quoted(word, dollar=False)}" for word in settings), **more,
        )  # fmt: skip
    return form.format(
        user=getpass.getuser(), program=shlex.quote(argv[0]), arguments=shlex.quote(command.quote(argv[1:])),
        environment="\n".join(f"export {key}={shlex.quote(at)}" for key, at in environment.items()), **more,
    )  # fmt: skip


def environment() -> dict[str, str]:
    """What finds keys, SSH's configuration and the redo log's other half at boot as it does now."""
    kept = (*PASSED_ON, "PATH")
    home = {"HOME": os.path.expanduser("~")}
    return home | {key: os.environ[key] for key in kept if os.environ.get(key)}


def install(system: System, db: Path, cluster: str, cluster_id: str) -> Path:
    """Write it and have it start at boot. Raises K4tError; nothing is left of it then."""
    return put(system, name_of(cluster_id), text(system, db, cluster, cluster_id, environment()))


def remove(system: System, cluster_id: str) -> Path | None:
    """None when there is none. Raises K4tError."""
    return take_away(system, name_of(cluster_id))


def put(system: System, name: str, text: str, *, now: bool = False) -> Path:
    """Write a service and have it start at boot; `now`: and at once, anew where it runs. Raises K4tError; nothing is
    left of it then."""
    path = system.path(name)
    write_file(path, text.encode(), 0o644 if system.kind == "systemd" else 0o755)
    try:
        _run([*system.switching(name, on=True), *([system.acting(name, "restart")] if now else [])])
    except K4tError:
        path.unlink(missing_ok=True)
        raise
    return path


def take_away(system: System, name: str, *, now: bool = False) -> Path | None:
    """`now`: where it runs, it ends first. None when there is none. Raises K4tError."""
    path = system.path(name)
    if not path.exists():
        return None
    _run([*([system.acting(name, "stop")] if now else []), *system.switching(name, on=False)])
    try:
        path.unlink()
    except OSError as error:
        raise K4tError(f"can't remove {path}: {error.strerror}") from error
    return path


def _run(commands: Sequence[Sequence[str]]) -> None:
    for argv in commands:
        done = command.run(argv, timeout_s=60.0)
        if not done.ok:
            raise K4tError(f"`{command.quote(argv)}` said: {done.words()}")
