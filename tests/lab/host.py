"""One host of the lab: its power, its network, its processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.lab import boot, network, root
from tests.lab.boot import PATH
from tests.lab.errors import LabError
from tests.lab.processes import Process, child_of, keep, run, wait_until
from tests.lab.state import Spec

READY_S = 60


class Host:
    """A host that can be addressed by several processes at once: all it remembers lies in the lab's directory."""

    def __init__(self, spec: Spec, name: str) -> None:
        self.name = name
        self.address = spec.address(name)
        self.address6 = spec.address6(name)
        self._spec = spec

    def __repr__(self) -> str:
        return f"Host({self.name}, {self.address})"

    # Commands

    def exec(
        self, argv: Sequence[str], *, input: str | None = None, check: bool = True, timeout_s: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the host, as its root and without SSH.

        Raises LabError when it fails (and `check`) or the host is off, subprocess.TimeoutExpired after `timeout_s`.
        """
        return run([*self.enter(), *argv], input=input, check=check, timeout_s=timeout_s, where=self.name)

    def enter(self) -> list[str]:
        """The command that runs another one inside the host."""
        environment = [
            "env",
            "-i",
            "-C",
            "/",
            "HOME=/root",
            f"PATH={PATH}",
            "LANG=C.UTF-8",
            f"TERM={os.environ.get('TERM', 'dumb')}",
        ]
        return ["nsenter", "-t", str(self._pid()), "-m", "-n", "-p", "-u", "-i", "--root", "--wd=/", *environment]

    def docker(
        self, argv: Sequence[str], *, input: str | None = None, check: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """The Docker command line inside the host."""
        return self.exec(["/usr/bin/docker", *argv], input=input, check=check, timeout_s=timeout_s)

    @property
    def docker_socket(self) -> Path:
        """The host's docker.sock as the machine can open it; the path changes with every power-on."""
        return Path(f"/proc/{self._pid()}/root/run/docker.sock")

    def spawn(self, name: str, argv: Sequence[str], *, listens_on: int = 0) -> int:
        """Start a background process; its log is LAB/run/HOST.NAME.log. Returns the pid that the machine sees, once
        something listens on that TCP port."""
        if self._load(name) is not None:
            raise LabError(f"{self.name}: {name} runs already; stop it first")
        with self.log(name).open("ab") as log:
            entered = keep(
                subprocess.Popen(
                    [*self.enter(), *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            )
        # nsenter forks to enter the pid namespace: the command is its child.
        if not wait_until(lambda: child_of(entered.pid) is not None or entered.poll() is not None, timeout_s=5):
            raise LabError(f"{self.name}: {name} did not start within 5 s")
        process = Process.of(child_of(entered.pid) or 0)
        if process is None:
            raise LabError(
                f"{self.name}: {name} ended at once: {self.log(name).read_text()[-500:].strip() or 'it said nothing'}"
            )
        process.save(self._file(name))
        if listens_on and not wait_until(lambda: self.listens(listens_on), timeout_s=READY_S):
            tail = self.log(name).read_text()[-500:].strip()
            raise LabError(f"{self.name}: {name} does not listen on port {listens_on} after {READY_S} s: {tail}")
        return process.pid

    def listens(self, port: int) -> bool:
        """Whether something listens on that TCP port, on whichever address. Format: proc_net_tcp.txt of the kernel."""
        tables = (Path(f"/proc/{self._pid()}/net/{name}").read_text() for name in ("tcp", "tcp6"))
        rows = (line.split() for table in tables for line in table.splitlines()[1:])
        return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)

    def stop(self, name: str, *, grace_s: float = 10) -> None:
        """End a spawned process: SIGTERM, after `grace_s` SIGKILL. Nothing happens when it is gone."""
        process = self._load(name)
        if process is not None:
            process.end(grace_s=grace_s)
        self._file(name).unlink(missing_ok=True)

    def log(self, name: str) -> Path:
        """The log of a spawned process or of `sshd`, `dockerd`, `registry`."""
        return self._spec.path / "run" / f"{self.name}.{name}.log"

    # Power and network

    @property
    def is_on(self) -> bool:
        return self._load("init") is not None

    def power_off(self) -> None:
        """Pull the plug. The link goes first: peers see silence, neither FIN nor RST."""
        network.unplug(self._spec, self.name)
        process = self._load("init")
        if process is not None:
            process.end()
        self._file("init").unlink(missing_ok=True)

    def power_on(self, *, wait: bool = True) -> None:
        """Boot; with `wait`, until its services answer. What was written to its disk is still there."""
        if self.is_on:
            raise LabError(f"{self.name} is on already")
        network.plug(self._spec, self.name)
        self._boot()
        if wait:
            self.wait_ready()

    def cut(self) -> None:
        """Pull the network cable: peers see silence."""
        network.set_port(self._spec, self.name, up=False)

    def restore(self) -> None:
        network.set_port(self._spec, self.name, up=True)

    def wait_ready(self, timeout_s: float = READY_S) -> None:
        """Until sshd, and Docker or the registry where they run, answer."""
        answers = {"sshd": self._ssh_answers, "dockerd": self._docker_answers, "registry": self._registry_answers}
        for service in root.services(self.name):
            if not wait_until(answers[service], timeout_s=timeout_s):
                tail = self.log(service).read_text()[-1500:] if self.log(service).exists() else "(no log)"
                raise LabError(
                    f"{self.name}: {service} does not answer after {timeout_s} s; {self.log(service)}:\n{tail}"
                )

    # Docker's daemon

    def stop_docker(self) -> None:
        """Stop the daemon in an orderly way; like `systemctl stop docker`, this stops the containers too."""
        self.exec(
            ["sh", "-c", 'p=$(cat /run/docker.pid) && kill "$p" && while kill -0 "$p" 2>&-; do sleep 0.05; done'],
            timeout_s=60,
        )

    def start_docker(self) -> None:
        self.exec([root.INIT, "start", "dockerd"])
        self.wait_ready()

    def pause_docker(self) -> None:
        """The daemon hangs: it accepts connections and answers nothing."""
        self._signal_docker("STOP")

    def resume_docker(self) -> None:
        self._signal_docker("CONT")

    def pause_sshd(self) -> None:
        """It hangs: the kernel accepts connections, and nobody says anything. Sessions that are there go on."""
        self.exec(["sh", "-c", "kill -STOP $(cat /run/sshd.pid)"])

    def resume_sshd(self) -> None:
        self.exec(["sh", "-c", "kill -CONT $(cat /run/sshd.pid)"])

    def new_host_key(self) -> str:
        """Replace the host keys, as a reinstalled machine would. Returns the new ed25519 public key line.

        The lab's known_hosts keeps the old ones.
        """
        script = (
            "cd /etc/ssh && rm ssh_host_* && for t in ed25519 ecdsa; do"
            " ssh-keygen -q -t $t -N '' -f ssh_host_${t}_key; done; kill -HUP $(cat /run/sshd.pid)"
        )
        self.exec(["sh", "-c", script])
        self.wait_ready()
        return self.exec(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout.strip()

    def _signal_docker(self, name: str) -> None:
        self.exec(["sh", "-c", f"kill -{name} $(cat /run/docker.pid)"])

    def _pid(self) -> int:
        process = self._load("init")
        if process is None:
            raise LabError(f"{self.name} is off; power_on it first")
        return process.pid

    def _file(self, name: str) -> Path:
        return self._spec.path / "run" / f"{self.name}.{name}.pid"

    def _load(self, name: str) -> Process | None:
        process = Process.load(self._file(name))
        return process if process is not None and process.alive() else None

    def _boot(self) -> None:
        """Start PID 1. Its pid is on disk before it does anything (see `boot`)."""
        ours, theirs = socket.socketpair()
        with ours:
            ours.settimeout(READY_S)
            with theirs:
                self._launch(theirs)
            said = ours.recv(64).decode()
            process = Process.of(int(said)) if said.isdigit() else None
            if process is not None:
                process.save(self._file("init"))
                ours.send(boot.GO)
                said = ours.recv(4096).decode()
        if said != boot.OK.decode():
            said = said or self.log("boot").read_text()[-1500:].strip()
            raise LabError(f"{self.name} did not boot: {said}. The lab needs root with all capabilities of a machine")

    def _launch(self, control: socket.socket) -> None:
        config = {
            "host": self.name,
            "home": str(root.home(self._spec, self.name)),
            "binds": root.binds(self._spec, self.name),
            "control": control.fileno(),
            "init": [root.INIT, "boot"],
        }
        unshare = ["unshare", "-m", "-p", "-u", "-i", "-f", "--propagation", "private", "--"]
        python = [sys.executable, "-S", "-m", "tests.lab.boot", json.dumps(config)]
        with self.log("boot").open("ab") as log:
            keep(
                subprocess.Popen(
                    [*network.enter(self._spec, self.name), *unshare, *python],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env={"PATH": PATH, "PYTHONPATH": str(root.REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
                    pass_fds=[control.fileno()],
                    start_new_session=True,
                )
            )

    def _ssh_answers(self) -> bool:
        return _answers((self.address, 22), b"", b"SSH-")

    def _registry_answers(self) -> bool:
        return _answers((self.address, 5000), b"GET /v2/ HTTP/1.0\r\n\r\n", b"HTTP/1.0 200")

    def _docker_answers(self) -> bool:
        return _answers(str(self.docker_socket), b"GET /_ping HTTP/1.0\r\n\r\n", b"HTTP/1.0 200")


def _answers(address: tuple[str, int] | str, request: bytes, begins: bytes) -> bool:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as connection:
        connection.settimeout(2)
        try:
            connection.connect(address)
            connection.sendall(request)
            return connection.recv(64).startswith(begins)
        except OSError:
            return False
