"""Making a host ready for a driver: what is there already, the registrar's zipapp, its configuration, a service.

Used by k4t.gateway.install and k4t.dns.install, which know the vendors.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from k4t.errors import K4tError, StepError
from k4t.model.participant import Kind
from k4t.model.value import value
from k4t.remote.registrar import BIN, RegistrarClient, build, source, zipapp_path

if TYPE_CHECKING:
    from k4t.remote.transport import Transport

ANSWERS_WITHIN_S = 8.0
POLL_S = 0.1
ANSWER_TIMEOUT_S = 300.0
RUN_MARK = "K4T_RUN"
"""Commands of a run are ended with its lock; a daemon must not look like one of them."""

DAEMON = """\
log=$1; pid=$2; shift 2
mkdir -p -- "${log%/*}" "${pid%/*}"
setsid "$@" >>"$log" 2>&1 </dev/null &
echo $! >"$pid"
"""
COMMAND = "/usr/local/bin/k4t-registrar"
NEWEST = f"""\
#!/bin/sh
# Written by k4t: the newest registrar that a k4t installed here.
exec python3 -IS "$(ls -t {BIN}/k4t-registrar-*.pyz | head -n 1)" "$@"
"""
SERVICE_ENABLE = 'systemctl daemon-reload && systemctl enable --quiet "$1" && systemctl restart "$1"'


@value
class Survey:
    """What a host has. `processes`: (pid, argv) of the vendor's, whoever started them."""

    systemd: bool
    binary: str
    processes: tuple[tuple[int, tuple[str, ...]], ...]
    registrar: bool
    conf_dir: str = ""
    ipv6: bool = True

    def ours(self, path: str) -> int:
        """The pid of the one that was started with our configuration file, or 0."""
        return next((pid for pid, argv in self.processes if any(path in part for part in argv)), 0)


@value
class InstallPlan:
    """`own`: the vendor runs by our configuration. `pid`: of the one we started, 0 when it doesn't run. `put`: the
    registrar is missing. `notes`: what people must know or do themselves."""

    own: bool
    pid: int
    put: bool
    config: dict[str, Any]
    notes: tuple[str, ...] = ()


@value
class Service:
    """How a vendor is run where nobody else runs it. `file`: the configuration that a change of means a restart.
    `shown`: what people are told of `argv`, where that is a script."""

    vendor: str
    unit: str
    file: str
    argv: tuple[str, ...]
    shown: str = ""

    @property
    def log(self) -> str:
        return f"/var/log/k4t/{self.unit.removeprefix('k4t-').removesuffix('.service')}.log"

    @property
    def pid_file(self) -> str:
        return f"/run/{self.unit.removesuffix('.service')}.pid"


def carry_out(
    transport: Transport, found: Survey, plan: InstallPlan, at_work: Setup, service: Service
) -> Iterator[str]:
    """Do what the plan says; what was done, line by line. Raises StepError when the vendor doesn't serve in the end."""
    yield from plan.notes
    if plan.put:
        yield f"wrote {put_registrar(transport)}"
    try:
        changed = at_work.configure(plan.config)
        yield from (f"wrote {path}" for path in changed)
        if plan.own and (not plan.pid or any(path.endswith(service.file) for path in changed)):
            stop(transport, found, plan.pid)
            yield start(transport, found, service)
        elif not changed and not plan.put:
            yield "nothing to do"
        problems = at_work.await_answer() if plan.own else []
        if problems:
            said = "" if found.systemd else f" ({tail(transport, service.log)})"
            raise StepError(
                f"{service.vendor} was started, but: {problems[0]}{said}", f"see {service.log}", host=transport.host
            )
    finally:
        at_work.close()


def survey(transport: Transport, binary: str) -> Survey:
    """Raises StepError when python3 is missing or too old; changes nothing."""
    sha256 = build()[1]
    script = 'command -v python3 >/dev/null 2>&1 || exit 92; exec python3 -IS -c "$@"'
    argv = ["sh", "-c", script, "k4t-survey", source("survey.py"), binary, zipapp_path(sha256), sha256]
    done = transport.run(argv)
    if done.exit_status == 92:
        raise StepError("python3 is not installed", "install python3 (3.8 or newer) there", host=transport.host)
    if not done.ok:
        raise StepError(f"can't look around: {done.words()}", host=transport.host)
    found = json.loads(done.stdout)
    if found["python"] < [3, 8]:
        version = ".".join(map(str, found["python"]))
        raise StepError(f"python3 is {version}; 3.8 or newer is needed", "install it there", host=transport.host)
    processes = tuple((pid, tuple(argv)) for pid, argv in found["processes"])
    return Survey(found["systemd"], found["binary"], processes, found["registrar"], found["conf_dir"], found["ipv6"])


def put_registrar(transport: Transport) -> str:
    """Beside whatever other versions are there; where it went. By hand and for restricted keys, the newest is used."""
    data, sha256 = build()
    path = zipapp_path(sha256)
    transport.put(path, data, 0o755)
    transport.put(COMMAND, NEWEST.encode(), 0o755)
    return path


class Setup:
    """The registrar of one driver on one host while it is being set up."""

    def __init__(self, transport: Transport, kind: Kind, name: str, driver: str) -> None:
        self._transport = transport
        self._client = RegistrarClient(transport, driver, kind=kind, name=name)
        self._client.answer_timeout_s = ANSWER_TIMEOUT_S

    def configure(self, config: Mapping[str, Any], *, dry: bool = False) -> list[str]:
        """Write the configuration and the vendor's first files; the paths that changed (or would)."""
        changed: list[str] = self._client.call("install", config=dict(config), dry=dry)["changed"]
        return changed

    def problems(self) -> list[str]:
        """What the vendor does not serve as it should; its silence too."""
        try:
            found: list[str] = self._client.call("check")["differences"]
        except K4tError as error:
            return [error.message]
        return found

    def render(self) -> list[str]:
        """Everything the host holds, rendered by this version; the vendor's words when it refuses."""
        problem: str = self._client.call("render")["problem"]
        return [problem] if problem else []

    def await_answer(self) -> list[str]:
        """Until it serves what it should; what is still wrong after ANSWERS_WITHIN_S."""
        deadline = time.monotonic() + ANSWERS_WITHIN_S
        while (found := self.problems()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
            found = self.render() or found
        return found

    def close(self) -> None:
        self._client.close()


def scripts(transport: Transport, kind: Kind, name: str, driver: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Driver script: the registrar and the operator's commands, which are then told what is published. Nothing is
    started. Raises StepError when one of them fails."""
    if not survey(transport, "sh").registrar:
        yield f"wrote {put_registrar(transport)}"
    at_work = Setup(transport, kind, name, driver)
    try:
        changed = at_work.configure(config)
        yield from (f"wrote {path}" for path in changed)
        problems = at_work.render() if changed else at_work.problems()
    finally:
        at_work.close()
    if problems:
        raise StepError(problems[0], "run it by hand there", host=transport.host)
    yield f"its commands are run by k4t: {', '.join(sorted(config['verbs']))}" if changed else "nothing to do"


def start(transport: Transport, found: Survey, service: Service) -> str:
    """Start (again) by systemd where it runs, else as a daemon in a session of its own. How it was done, in words."""
    if found.systemd:
        done = transport.run(["sh", "-c", SERVICE_ENABLE, "k4t", service.unit], timeout_s=60)
        words = f"started by systemd: systemctl status {service.unit}"
    else:
        command = ["env", "-u", RUN_MARK, *service.argv]
        done = transport.run(["sh", "-c", DAEMON, "k4t-daemon", service.log, service.pid_file, *command])
        files = f"log {service.log}, pid in {service.pid_file}"
        words = f"started as a daemon (no systemd here; {files}): {service.shown or ' '.join(service.argv)}"
    if not done.ok:
        raise StepError(f"{service.unit} did not start: {done.words()}", host=transport.host)
    return words


def stop(transport: Transport, found: Survey, pid: int) -> None:
    """End the daemon that we started; systemd restarts its own."""
    if pid and not found.systemd:
        script = 'kill "$1" && for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do '
        script += '[ -d "/proc/$1" ] || exit 0; sleep 0.25; done; kill -9 "$1"'
        transport.run(["sh", "-c", script, "k4t", str(pid)])


def tail(transport: Transport, path: str) -> str:
    """The last lines of a log, for a message."""
    return transport.run(["tail", "-n", "3", path]).stdout.decode("utf-8", "replace").strip().replace("\n", " | ")
