"""What calls `k4t backup --due` every minute: a systemd timer or a line for cron, whichever this machine has.

Pure but for `Machine`, which is the machine: its files under a root, its programs through `run`. The command names the
interpreter, the tree and HOME in full, so that it does the same wherever it is called from.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Literal

from k4t import command
from k4t.command import Completed
from k4t.errors import K4tError, StepError, Usage
from k4t.model.value import value

Kind = Literal["systemd", "cron.d", "crontab"]
PASSED_ON = ("K4T_KEYS", "K4T_IDENTITY", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
"""Where keys and logs are, if somebody said so when the schedule was installed."""
LOGGED = " 2>&1 | logger -t k4t-backup"
"""cron mails what is said; of a target that is away for a day that would be 1,440 mails. Without a logger it is lost,
and `k4t status` shows the target as late."""


def _run(argv: Sequence[str], input: bytes = b"") -> Completed:
    return command.run(argv, input=input, timeout_s=30.0)


@value
class Machine:
    """`user`: of the schedule, without root's rights."""

    root: Path = Path("/")
    home: str = ""
    user_name: str = "root"
    is_root: bool = True
    user: bool = False
    run: Callable[..., Completed] = _run
    environ: Mapping[str, str] = field(default_factory=dict)

    def has(self, path: str) -> bool:
        return (self.root / path.lstrip("/")).exists()

    def finds(self, program: str) -> bool:
        return any(self.has(f"{where}/{program}") for where in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"))


def this_machine(*, user: bool) -> Machine:
    import pwd

    me = pwd.getpwuid(os.geteuid())
    home = os.environ.get("HOME") or me.pw_dir
    environ = {name: os.environ[name] for name in PASSED_ON if os.environ.get(name)}
    return Machine(
        home=home, user_name=me.pw_name, is_root=os.geteuid() == 0, user=user or os.geteuid() != 0, environ=environ
    )


@value
class Schedule:
    """What is, or is to be, installed. `files`: path on the machine to its text; of a crontab the line alone."""

    kind: Kind
    name: str
    argv: tuple[str, ...]
    files: Mapping[str, str]


def name_of(cluster_id: str) -> str:
    return f"k4t-backup-{cluster_id}"


def argv_of(db: Path, program: Sequence[str] = ()) -> tuple[str, ...]:
    words = tuple(program) or (sys.executable, "-P", "-m", "k4t.cli")  # -P: a directory k4t in HOME is not this program
    return (*words, "--db", str(db.absolute()), "backup", "--due")


def kind_of(machine: Machine) -> Kind:
    """Raises K4tError when this machine has nothing that could call it."""
    if machine.has("/run/systemd/system") and machine.finds("systemctl"):
        return "systemd"
    if not machine.user and machine.is_root and machine.has("/etc/cron.d"):
        return "cron.d"
    if machine.finds("crontab"):
        return "crontab"
    raise K4tError(
        "this machine has neither systemd nor cron to call `k4t backup --due` every minute",
        "install cron, or have anything else call it",
    )


def schedule(cluster_id: str, db: Path, machine: Machine, program: Sequence[str] = ()) -> Schedule:
    kind, name, argv = kind_of(machine), name_of(cluster_id), argv_of(db, program)
    if any(ord(letter) < 32 for word in argv for letter in word):
        raise Usage("the path of the tree holds control characters", "move it")
    return Schedule(kind, name, argv, _files(kind, name, argv, machine))


def _files(kind: Kind, name: str, argv: tuple[str, ...], machine: Machine) -> dict[str, str]:
    if kind == "systemd":
        where = f"{machine.home}/.config/systemd/user" if machine.user else "/etc/systemd/system"
        return {f"{where}/{name}.service": _service(argv, machine), f"{where}/{name}.timer": _timer(name)}
    line = _cron_command(argv, machine, name)
    if kind == "cron.d":
        head = "# Written by k4t: `k4t backup schedule remove` takes it away.\n"
        return {f"/etc/cron.d/{name}": f"{head}* * * * * {machine.user_name} {line}\n"}
    return {"": f"* * * * * {line}"}


# --- systemd (systemd.service(5), systemd.timer(5)) -----------------------------------------------------------------


def _service(argv: Sequence[str], machine: Machine) -> str:
    environment = {"HOME": machine.home, **machine.environ}
    lines = [f"Environment={quoted(f'{name}={text}', dollar=False)}" for name, text in environment.items()]
    online = [] if machine.user else ["Wants=network-online.target", "After=network-online.target"]
    return "\n".join([
        "# Written by k4t: `k4t backup schedule remove` takes it away.",
        "[Unit]",
        "Description=k4t: copies of the tree where they are due",
        *online,
        "",
        "[Service]",
        "Type=oneshot",
        *lines,
        f"ExecStart={' '.join(quoted(word) for word in argv)}",
        "# Another backup of the tree runs already.",
        "SuccessExitStatus=75",
        "",
    ])  # fmt: skip


def _timer(name: str) -> str:
    return "\n".join([
        "# Written by k4t: `k4t backup schedule remove` takes it away.",
        "[Unit]",
        "Description=k4t: copies of the tree where they are due, asked every minute",
        "",
        "[Timer]",
        "OnCalendar=minutely",
        "AccuracySec=1s",
        "Persistent=true",
        f"Unit={name}.service",
        "",
        "[Install]",
        "WantedBy=timers.target",
        "",
    ])  # fmt: skip


def quoted(word: str, *, dollar: bool = True) -> str:
    """A word of a unit file: % are specifiers, $ variables (in commands), quotes and backslashes C's."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped.replace("$", "$$") if dollar else escaped}"'


# --- cron (crontab(5)) ----------------------------------------------------------------------------------------------


def _cron_command(argv: Sequence[str], machine: Machine, name: str) -> str:
    """For sh; cron takes an unescaped % for the end of the line."""
    words = ["env", f"HOME={machine.home}", *(f"{key}={text}" for key, text in machine.environ.items()), *argv]
    logged = LOGGED if machine.finds("logger") else " >/dev/null 2>&1"
    return f"{shlex.join(words)}{logged} # {name}".replace("%", "\\%")


# --- doing it -------------------------------------------------------------------------------------------------------


def install(wanted: Schedule, machine: Machine) -> bool:
    """Answers whether anything changed. What another mechanism had is taken away first. Raises K4tError."""
    others = [_remove_one(kind, wanted.name, machine) for kind in KINDS if kind != wanted.kind]
    removed = any(others)
    if wanted.kind == "crontab":
        before = _crontab(machine)
        after = [*_without(before, wanted.name), *wanted.files.values()]
        if before != after:
            _write_crontab(machine, after)
        return removed or before != after
    changed = [_put(machine, path, text) for path, text in wanted.files.items()]
    if wanted.kind == "systemd":
        _systemctl(machine, "daemon-reload")
        _systemctl(machine, "enable", "--now", f"{wanted.name}.timer")
    return removed or any(changed)


def remove(name: str, machine: Machine) -> bool:
    """Answers whether there was one."""
    found = [_remove_one(kind, name, machine) for kind in KINDS]
    return any(found)


KINDS: tuple[Kind, ...] = ("systemd", "cron.d", "crontab")


def _remove_one(kind: Kind, name: str, machine: Machine) -> bool:
    if kind == "crontab":
        before = _crontab(machine)
        after = _without(before, name)
        if before != after:
            _write_crontab(machine, after)
        return before != after
    paths = [path for path in _paths(kind, name, machine) if machine.has(path)]
    if not paths:
        return False
    live = kind == "systemd" and machine.has("/run/systemd/system")
    if live:
        _systemctl(machine, "disable", "--now", f"{name}.timer")
    for path in paths:
        try:
            (machine.root / path.lstrip("/")).unlink()
        except OSError as error:
            raise K4tError(f"can't remove {path}: {error.strerror}", "run it as the user who installed it") from error
    if live:
        _systemctl(machine, "daemon-reload")
    return True


def installed(name: str, machine: Machine) -> tuple[Kind, dict[str, str]] | None:
    """What calls it now: the files and their text (of a crontab, "" and the line); None for nothing."""
    for kind in KINDS:
        if kind == "crontab":
            lines = [line for line in _crontab(machine) if line not in _without([line], name)]
            if lines:
                return kind, {"": lines[0]}
            continue
        found = {path: (machine.root / path.lstrip("/")).read_text() for path in _paths(kind, name, machine)
                 if machine.has(path)}  # fmt: skip
        if found:
            return kind, found
    return None


def times(kind: Kind, name: str, machine: Machine) -> tuple[str, str]:
    """(last, next) run in systemd's words; "" where cron is asked, which keeps no record."""
    if kind != "systemd":
        return "", ""
    show = ("show", "-p", "LastTriggerUSec", "-p", "NextElapseUSecRealtime", f"{name}.timer")
    said = dict(line.partition("=")[::2] for line in _systemctl(machine, *show).stdout.decode().splitlines())
    return said.get("LastTriggerUSec", ""), said.get("NextElapseUSecRealtime", "")


def _paths(kind: Kind, name: str, machine: Machine) -> list[str]:
    if kind == "cron.d":
        return [] if machine.user else [f"/etc/cron.d/{name}"]
    where = f"{machine.home}/.config/systemd/user" if machine.user else "/etc/systemd/system"
    return [f"{where}/{name}.service", f"{where}/{name}.timer"]


def _put(machine: Machine, path: str, text: str) -> bool:
    from k4t.tree.edit import write_file

    target = machine.root / path.lstrip("/")
    if target.is_file() and target.read_text() == text:
        return False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise K4tError(f"can't write {target.parent}: {error.strerror}", "run it as root, or with --user") from error
    write_file(target, text.encode(), 0o644)
    return True


def _systemctl(machine: Machine, *words: str) -> Completed:
    argv = ["systemctl", *(["--user"] if machine.user else []), *words]
    done = machine.run(argv)
    if not done.ok:
        raise StepError(f"{shlex.join(argv)}: {done.words()}")
    return done


def _crontab(machine: Machine) -> list[str]:
    if not machine.finds("crontab"):
        return []
    done = machine.run(["crontab", "-l"])
    return done.stdout.decode("utf-8", "surrogateescape").splitlines() if done.ok else []


def _without(lines: Sequence[str], name: str) -> list[str]:
    return [line for line in lines if not line.endswith(f" # {name}")]


def _write_crontab(machine: Machine, lines: Sequence[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    done = machine.run(["crontab", "-"], text.encode("utf-8", "surrogateescape"))
    if not done.ok:
        raise StepError(f"crontab: {done.words()}", "may this user have a crontab? see /etc/cron.allow")
