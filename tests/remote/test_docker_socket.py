"""The Engine's socket over the connection: direct, through a command, or a reason with its remedy."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from k4t.errors import DockerUnavailable, SudoRefused
from k4t.model.hosts import Ssh
from k4t.remote.connection import SshTransport
from k4t.remote.lock import Holder, HostLock
from k4t.remote.ssh import Connector
from tests.lab import Host, Lab
from tests.remote.sshd import wait_for_port

pytestmark = pytest.mark.integration

OTHER_PORT = 2222


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(name=f"dsock-{os.getpid()}", nodes=1, gateways=0, registry=False, extra=("bare",)) as running:
        for host in (running.host("n1"), running.host("bare")):
            prepare(running, host)
        yield running


def prepare(lab: Lab, host: Host) -> None:
    """Users without rights, with sudo, and in the docker group; a second sshd that forwards no sockets."""
    keys = lab.key.with_suffix(".pub").read_text()
    for user in ("plain", "deploy", "member"):
        host.exec(["useradd", "-m", "-s", "/bin/sh", user])
        host.exec(["install", "-d", "-o", user, "-m", "700", f"/home/{user}/.ssh"])
        host.exec(["sh", "-c", f"cat > /home/{user}/.ssh/authorized_keys"], input=keys)
    host.exec(["usermod", "-aG", "docker", "member"])
    host.exec(["sh", "-c", "echo 'deploy ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/k4t"])
    host.spawn("sshd2", ["/usr/sbin/sshd", "-D", "-p", str(OTHER_PORT), "-o", "AllowStreamLocalForwarding=no"])
    wait_for_port(OTHER_PORT, host.address)


def connect(lab: Lab, user: str = "root", *, host: str = "n1", sudo: bool = False, port: int = 22) -> SshTransport:
    address = lab.host(host).address
    known = Path(lab.directory / "known_hosts_2")
    lines = [line for line in lab.known_hosts.read_text().splitlines() if address in line.split()[0].split(",")]
    keys = (line.split(maxsplit=1)[1] for line in lines)
    known.write_text("".join(f"{address},[{address}]:{OTHER_PORT} {key}\n" for key in keys))
    connector = Connector([known], run_id="r", environ={"HOME": "/nonexistent", "PATH": os.environ["PATH"]})
    return connector.connect(host, Ssh(user=user, key=str(lab.key), sudo=sudo, port=port), address)


def ping(transport: SshTransport) -> bytes:
    client = http.client.HTTPConnection("docker")
    client.sock = transport.connect_docker()
    client.request("GET", "/_ping")
    body = client.getresponse().read()
    client.request("GET", "/_ping")  # the same connection serves again
    assert client.getresponse().read() == body
    client.close()
    return body


@pytest.mark.parametrize(
    ("user", "sudo", "port"),
    [("root", False, 22), ("member", False, 22), ("deploy", True, 22), ("root", False, OTHER_PORT), ("root", True, 22)],
)
def test_engine_answers(lab: Lab, user: str, sudo: bool, port: int) -> None:
    """The Engine is reached as root, as a member of its group, with sudo, and where sshd forwards no sockets."""
    transport = connect(lab, user, sudo=sudo, port=port)
    assert ping(transport) == b"OK"
    for _ in range(12):  # each gives its channel back
        assert ping(transport) == b"OK"
    transport.close()


def test_denied(lab: Lab) -> None:
    """A user without the right is told both ways to get it."""
    transport = connect(lab, "plain")
    with pytest.raises(DockerUnavailable, match=r"n1: plain may not use Docker's socket .*docker group.*sudo=\"true\""):
        transport.connect_docker()
    transport.close()


def test_sudo_refused(lab: Lab) -> None:
    """Where sudo wants a password, that is said, and how to change it; for whatever is asked."""
    transport = connect(lab, "plain", sudo=True)
    remedy = r"n1: sudo refuses plain: sudo: a password is required; allow it without a password: echo 'plain ALL"
    with pytest.raises(SudoRefused, match=remedy):
        transport.run(["id"])
    with pytest.raises(SudoRefused):
        transport.put("/tmp/x", b"")
    with pytest.raises(SudoRefused):
        transport.connect_docker()
    with pytest.raises(SudoRefused):
        HostLock.take(transport, "k7f3q2m9", Holder("anna", "laptop", 1, "2026", "apply", "r"))
    transport.close()


def test_sudo_is_root(lab: Lab) -> None:
    """With sudo, commands and files are root's, and a command's own failure is not taken for sudo's."""
    transport = connect(lab, "deploy", sudo=True)
    assert transport.run(["id", "-u"]).stdout == b"0\n"
    transport.put("/root/by-sudo", b"x", 0o600)
    assert transport.get("/root/by-sudo") == b"x"
    assert transport.run(["sh", "-c", "echo 'my sudo: no' >&2; exit 2"]).exit_status == 2
    assert transport.run(["no-such-program"]).exit_status == 127
    transport.close()


@pytest.mark.parametrize("sudo", [False, True])
def test_stopped(lab: Lab, sudo: bool) -> None:
    """A daemon that isn't running is told from one that isn't installed."""
    transport = connect(lab, "deploy" if sudo else "root", host="bare", sudo=sudo)
    with pytest.raises(DockerUnavailable, match="bare: Docker is installed, but not running; start it there"):
        transport.connect_docker()
    transport.close()


@pytest.mark.parametrize("sudo", [False, True])
def test_killed(lab: Lab, sudo: bool) -> None:
    """A daemon that died and left its socket is not running either."""
    host = lab.host("bare")
    program = "import socket; s=socket.socket(socket.AF_UNIX); s.bind('/var/run/docker.sock')"
    host.exec(["python3", "-c", program])
    transport = connect(lab, "deploy" if sudo else "root", host="bare", sudo=sudo)
    try:
        with pytest.raises(DockerUnavailable, match="bare: Docker is installed, but not running"):
            transport.connect_docker()
    finally:
        host.exec(["rm", "/var/run/docker.sock"])
    transport.close()


def test_not_installed(lab: Lab) -> None:
    """A host without Docker is told as that."""
    host = lab.host("bare")
    host.exec(["sh", "-c", "for d in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin; do rm -f $d/dockerd; done"])
    transport = connect(lab, host="bare")
    with pytest.raises(DockerUnavailable, match="bare: Docker is not installed; install Docker Engine"):
        transport.connect_docker()
    transport.close()
