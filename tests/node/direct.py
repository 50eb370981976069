"""A Transport to a host on this machine without SSH in between: its Docker socket, its network by setns(2)."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from k4t.command import Completed
from k4t.errors import DockerUnavailable, StepError
from k4t.remote.transport import Process, Stream

CLONE_NEWNET = 0x40000000


class Direct:
    """`pid` is any process of the host; `enter` goes before every command."""

    def __init__(self, host: str, docker_socket: str, pid: int, enter: Sequence[str]) -> None:
        self.host = host
        self.alive = True
        self.docker_socket = docker_socket
        self.commands: list[list[str]] = []
        self.dials = 0
        self._pid = pid
        self._enter = list(enter)

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",
        timeout_s: float = 30.0,
        max_output_bytes: int = 4 * 1024 * 1024,
    ) -> Completed:
        self.commands.append(list(argv))
        done = subprocess.run(
            [*self._enter, *argv], input=input, capture_output=True, timeout=timeout_s, check=False
        )
        return Completed(done.returncode, done.stdout, done.stderr)

    def start(self, argv: Sequence[str]) -> Process:
        raise NotImplementedError

    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        script = 'mkdir -p "$(dirname "$1")" && cat > "$1.new" && chmod "$2" "$1.new" && mv "$1.new" "$1"'
        done = self.run(["sh", "-c", script, "sh", path, f"{mode:o}"], input=data)
        if not done.ok:
            raise StepError(done.words(), host=self.host)

    def get(self, path: str, *, max_bytes: int = 4 * 1024 * 1024) -> bytes | None:
        done = self.run(["cat", path])
        return done.stdout if done.ok else None

    def connect_tcp(self, address: str, port: int, timeout_s: float) -> Stream:
        def connect() -> socket.socket:
            _setns(self._pid)
            return socket.create_connection((address, port), timeout_s)

        try:
            return _in_thread(connect)
        except OSError as error:
            raise StepError(f"{address}:{port}: {error}", host=self.host) from error

    def connect_docker(self) -> Stream:
        self.dials += 1
        dialled = socket.socket(socket.AF_UNIX)
        try:
            dialled.connect(self.docker_socket)
        except OSError as error:
            dialled.close()
            raise DockerUnavailable(f"{self.docker_socket}: {error}", "start docker", host=self.host) from error
        return dialled

    def close(self) -> None:
        self.alive = False


def _setns(pid: int) -> None:
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


def _in_thread(work: Callable[[], socket.socket]) -> socket.socket:
    """In a thread of its own, which ends in the other namespace and takes it along."""
    result: list[socket.socket | BaseException] = []

    def target() -> None:
        try:
            result.append(work())
        except OSError as error:
            result.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


def host_pid(of: int) -> int:
    """The first child of a process."""
    return int(Path(f"/proc/{of}/task/{of}/children").read_text().split()[0])
