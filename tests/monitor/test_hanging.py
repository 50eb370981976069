"""Hosts that hang, lie or go away at every stage of being asked, all at once, with a real SSH between: each is named,
the others are known, and the look ends in its time. K4T_FULL=1: with the time-outs that a real check has."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import paramiko
import pytest

from k4t import wiring
from k4t.model.hosts import Gateway, Ssh
from k4t.model.spec import Backup, Cluster, Tree
from k4t.monitor.check import Looked, check
from k4t.monitor.history import NONE
from k4t.monitor.looking import gather
from tests.lab.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
FULL = "K4T_FULL" in os.environ
ANSWER_S = gather.ANSWER_S if FULL else 3.0
CONNECT_S = 2.0
LOADED_S = 20.0
"""For what a busy machine adds."""
MACHINE = ("disk", "load", "memory", "docker-disk", "cpu")
STAGES = {
    "well": {""},
    "accept": {"sshd"},
    "banner": {"sshd"},
    "login": {"sshd"},
    "channel": {"hangs"},
    "exec": {"hangs"},
    "half": {"hangs"},
    "drip": {"hangs"},
    "endless": {"garbage"},
    "garbage": {"garbage"},
    "no status": {"hangs"},
    "goes away": {"sshd"},
}
"""What each is called; “hangs” where nobody waits as long as it takes to tell more."""


class Stage(paramiko.ServerInterface):
    """One connection to a host that hangs at `stage`."""

    def __init__(self, stage: str, over: threading.Event) -> None:
        self.stage, self.over = stage, over

    def hang(self, stage: str) -> None:
        if self.stage == stage:
            self.over.wait(120)

    def get_allowed_auths(self, _username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, _username: str, _key: paramiko.PKey) -> int:
        self.hang("login")
        return paramiko.common.AUTH_SUCCESSFUL

    def check_channel_request(self, kind: str, _number: int) -> int:
        self.hang("channel")
        return (
            paramiko.common.OPEN_SUCCEEDED
            if kind == "session"
            else paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        )

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.hang("exec")
        threading.Thread(target=self._run, args=(channel, command.decode()), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel, command: str) -> None:
        with suppress(OSError, EOFError, paramiko.SSHException):
            self._answer(channel, command)

    def _answer(self, channel: paramiko.Channel, command: str) -> None:
        done = subprocess.run(["sh", "-c", command], capture_output=True, stdin=subprocess.DEVNULL, check=False)
        said = done.stdout
        if self.stage == "registrar" and "k4t-probe" not in command:
            self.over.wait(120)
        if self.stage == "garbage":
            said = bytes(range(256)) * 64
        if self.stage in ("half", "goes away"):
            said = said[: len(said) // 2]
        channel.sendall(said)
        while self.stage in ("endless", "drip") and not self.over.is_set():
            channel.sendall(b"x" * 32768 if self.stage == "endless" else b"x")
            self.over.wait(0.0 if self.stage == "endless" else 0.2)
        if self.stage in ("half", "no status"):
            self.over.wait(120)
        if self.stage == "goes away":
            channel.get_transport().close()
            return
        channel.send_exit_status(done.returncode)
        channel.close()


class Hosts:
    """A listener a stage, on addresses of this machine."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.over = directory, threading.Event()
        self.listeners: dict[str, socket.socket] = {}
        self.taken: list[socket.socket | paramiko.Transport] = []
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / "login")], check=True)
        self.key = paramiko.ECDSAKey.generate()

    def add(self, stage: str) -> tuple[str, int]:
        listener = socket.create_server((f"127.78.0.{len(self.listeners) + 1}", 0), backlog=64)
        self.listeners[stage] = listener
        threading.Thread(target=self._serve, args=(stage, listener), daemon=True).start()
        address, port = listener.getsockname()
        with (self.directory / "known_hosts").open("a") as known:
            known.write(f"[{address}]:{port} {self.key.get_name()} {self.key.get_base64()}\n")
        return address, port

    def _serve(self, stage: str, listener: socket.socket) -> None:
        while True:
            try:
                taken, _ = listener.accept()
            except OSError:
                return
            self.taken.append(taken)
            if stage == "banner":
                taken.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            elif stage != "accept":
                transport = paramiko.Transport(taken)
                self.taken.append(transport)
                transport.add_server_key(self.key)
                with suppress(paramiko.SSHException, EOFError, OSError):
                    transport.start_server(event=threading.Event(), server=Stage(stage, self.over))

    def forget(self) -> None:
        """Our side of what was taken so far."""
        taken, self.taken = self.taken, []
        for one in taken:
            one.close()

    def close(self) -> None:
        self.over.set()
        for listener in self.listeners.values():
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.forget()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    yield made
    made.close()


def look(tree: Tree, directory: Path) -> Looked:
    with wiring.watched(tree, directory, [directory / "known_hosts"]) as fleet:
        return check(fleet, NONE, at_s=time.time(), has_tree=False)


def test_each_stage_is_named_and_bounded(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven bad hosts and a good one, of which everything is known; and a gateway whose registrar hangs. Whoever still
    waits when the look is over ends with it."""
    monkeypatch.setattr(gather, "ANSWER_S", ANSWER_S)
    places = {stage: "{}:{}".format(*hosts.add(stage)) for stage in STAGES}
    address, port = hosts.add("registrar")
    ssh = Ssh(port=port, user="root", key=str(hosts.directory / "login"), connect_timeout_s=CONNECT_S)
    tree = Tree(
        Cluster("prod", "k7f3q2m9", ssh=ssh, backups=tuple(Backup(host=place) for place in places.values())),
        gateways={"gw1": Gateway("gw1", "envoy", address, ssh=ssh)},
    )
    began_s = time.monotonic()
    looked = look(tree, hosts.directory)
    took_s = time.monotonic() - began_s
    told = {str(one.subject): one for one in looked.judgement.findings if one.what not in MACHINE}
    print("\n".join(f"{one.subject}: {one.what}: {one.sentence}" for one in told.values()))
    names = {stage: one.what if (one := told.get(f"host {place}")) else "" for stage, place in places.items()}
    short = set() if FULL else {"hangs"}
    assert {stage: name for stage, name in names.items() if name not in STAGES[stage] | short} == {}
    assert names["well"] == ""
    assert told["gateway gw1"].what in {"gateway-away", "gateway-stopped"}  # by whether an Envoy runs on this machine
    well = looked.facts.hosts[f"host/{places['well']}"].reading
    assert well is not None
    assert (well.garbage, well.memory is not None) == ((), True)
    assert took_s < CONNECT_S + ANSWER_S + LOADED_S
    assert looked.facts.took_s <= took_s


def test_checks_beside_a_host_that_hangs_leave_nothing_behind(hosts: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Round after round: no thread, no connection and no file stays open of those before."""
    monkeypatch.setattr(gather, "ANSWER_S", 0.5)
    stages = ("accept", "exec", "half", "channel", "endless")
    backups = tuple(Backup(host="{}:{}".format(*hosts.add(stage))) for stage in stages)
    ssh = Ssh(user="root", key=str(hosts.directory / "login"), connect_timeout_s=1.0)
    tree = Tree(Cluster("prod", "k7f3q2m9", ssh=ssh, backups=backups))
    counts = []
    for _ in range(12 if FULL else 3):
        looked = look(tree, hosts.directory)
        assert sum(host.failure is not None for host in looked.facts.hosts.values()) == len(stages)
        assert wait_until(
            lambda: not [one for one in threading.enumerate() if one.name.startswith("host ")], timeout_s=60
        )
        hosts.forget()
        counts.append(len(os.listdir("/proc/self/fd")))
    assert max(counts[1:]) <= counts[1] + 2, counts
