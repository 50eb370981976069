"""Many real sshds on this machine: what it costs to look at all of them at once. K4T_FULL=1: two hundred."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from k4t import wiring
from k4t.model.hosts import Ssh
from k4t.model.spec import Backup, Cluster, Tree
from k4t.monitor.check import check
from k4t.monitor.history import NONE
from tests.remote.sshd import free_port

pytestmark = pytest.mark.integration
HOSTS = 200 if "K4T_FULL" in os.environ else 12
CONFIG = """\
ListenAddress {address}:{port}
HostKey {directory}/host
AuthorizedKeysFile {directory}/authorized
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
SetEnv SHLVL=5
"""  # with a depth, bash doesn't read root's .bashrc, whatever this machine has in it


def key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


@contextmanager
def running(directory: Path, addresses: list[str], port: int) -> Iterator[None]:
    directory.chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)
    host = " ".join(key(directory / "host").split()[:2])
    (directory / "authorized").write_text(key(directory / "login"))
    (directory / "known_hosts").write_text("".join(f"[{address}]:{port} {host}\n" for address in addresses))
    begun = []
    try:
        for address in addresses:
            config = directory / f"sshd-{address}"
            config.write_text(CONFIG.format(address=address, port=port, directory=directory))
            begun.append(subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", config], stderr=subprocess.DEVNULL))
        yield
    finally:
        for process in begun:
            process.kill()
        for process in begun:
            process.wait()


def wait_for(addresses: list[str], port: int) -> None:
    """Until each takes connections."""
    deadline_s = time.monotonic() + 60
    for address in addresses:
        while True:
            try:
                socket.create_connection((address, port), 5).close()
                break
            except OSError:
                assert time.monotonic() < deadline_s
                time.sleep(0.1)


def test_all_hosts_are_asked_over_one_connection_each(tmp_path: Path) -> None:
    """One login and one command a host; together they take no longer than their logins do."""
    addresses = [f"127.77.{number // 250}.{number % 250 + 1}" for number in range(HOSTS)]
    port = free_port()
    with running(tmp_path, addresses, port):
        ssh = Ssh(port=port, user="root", key=str(tmp_path / "login"))
        wait_for(addresses, port)
        targets = tuple(Backup(host=f"{address}:{port}") for address in addresses)
        tree = Tree(Cluster("many", "m1", ssh=ssh, backups=targets))
        with wiring.watched(tree, tmp_path, [tmp_path / "known_hosts"]) as fleet:
            looked = check(fleet, NONE, at_s=time.time(), has_tree=False)
    failed = [host.failure.message for host in looked.facts.hosts.values() if host.failure]
    assert failed == []
    assert len(looked.facts.hosts) == HOSTS
    assert looked.facts.took_s < 30 + HOSTS / 5
