"""A real sshd on 127.0.0.1, with its own port, keys and configuration; ended with everything it started."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from k4t.model.hosts import Ssh
from k4t.remote.ssh import Connector

RUN_ID = "test-run"


@dataclass(frozen=True, slots=True)
class Sshd:
    """`home` is a $HOME whose key may log in as root; `known_hosts` names this server's keys."""

    port: int
    home: Path
    key: Path
    known_hosts: Path
    directory: Path
    pid: int

    @property
    def ssh(self) -> Ssh:
        return Ssh(port=self.port, user="root", key=str(self.key))

    @property
    def name(self) -> str:
        return f"[127.0.0.1]:{self.port}"

    def environ(self, **more: str) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": os.environ["PATH"], **more}

    def connector(self, *, run_id: str = RUN_ID, known_hosts: Sequence[Path] | None = None, **more: str) -> Connector:
        files = [self.known_hosts] if known_hosts is None else known_hosts
        return Connector(files, run_id=run_id, environ=self.environ(**more))

    def host_key(self, kind: str = "ed25519") -> str:
        return (self.directory / f"host_{kind}.pub").read_text()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@functools.cache
def _keys() -> Path:
    """One set of keys for all servers of a test run: making an RSA key is slow."""
    directory = Path(tempfile.mkdtemp(prefix="k4t-keys-"))
    atexit.register(shutil.rmtree, directory)
    for name, kind in (("host_ed25519", "ed25519"), ("host_ecdsa", "ecdsa"), ("host_rsa", "rsa"), ("id", "ed25519")):
        new_key(directory / name, kind)
    return directory


def new_key(path: Path, kind: str = "ed25519", passphrase: str = "", comment: str = "k4t-test") -> Path:
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", comment, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


@contextlib.contextmanager
def serve(directory: Path, *, options: Sequence[str] = (), port: int = 0) -> Iterator[Sshd]:
    """Start one, give its coordinates, end it and its sessions."""
    port = port or free_port()
    home = directory / "home"
    (home / ".ssh").mkdir(parents=True)
    for name in ("host_ed25519", "host_ecdsa", "host_rsa"):
        for suffix in ("", ".pub"):
            shutil.copy(_keys() / f"{name}{suffix}", directory)
    key = home / ".ssh" / "id_ed25519"
    shutil.copy(_keys() / "id", key)
    shutil.copy(_keys() / "id.pub", f"{key}.pub")
    shutil.copy(_keys() / "id.pub", directory / "authorized_keys")
    known_hosts = directory / "known_hosts"
    host_keys = ((directory / f"host_{kind}.pub").read_text() for kind in ("ed25519", "ecdsa", "rsa"))
    known_hosts.write_text("".join(f"[127.0.0.1]:{port} {text}" for text in host_keys))
    config = directory / "sshd_config"
    config.write_text(_config(directory, port, options))
    Path("/run/sshd").mkdir(exist_ok=True)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", config], stderr=log)
    try:
        wait_for_port(port)
        yield Sshd(port, home, key, known_hosts, directory, process.pid)
    finally:
        end_tree(process.pid)
        process.wait()


def _config(directory: Path, port: int, options: Sequence[str]) -> str:
    lines = [*options, f"Port {port}", "ListenAddress 127.0.0.1", "PidFile none", "UsePAM no", "StrictModes no"]
    lines += [f"HostKey {directory}/host_{kind}" for kind in ("ed25519", "ecdsa", "rsa")]
    lines += [f"AuthorizedKeysFile {directory}/authorized_keys", "PasswordAuthentication no", "PermitRootLogin yes"]
    lines += ["SetEnv SHLVL=2"]  # bash reads no ~/.bashrc of the machine that runs the tests
    return "\n".join(lines) + "\n"


def wait_for_port(port: int, address: str = "127.0.0.1") -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on {port}")


def descendants(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [found for child in map(int, children) for found in (child, *descendants(child))]


def end_tree(pid: int) -> None:
    for one in (*descendants(pid), pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
