"""Every way in which a host can't be had: its own message, its own type, within its time."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from k4t.errors import HostKeyChanged, HostKeyUnknown, HostUnreachable, K4tError, LoginRefused
from k4t.model.hosts import Ssh
from k4t.remote.connection import SshTransport
from k4t.remote.ssh import Connector
from tests.remote import sshd
from tests.remote.sshd import Sshd

pytestmark = pytest.mark.integration


def refused(server: Sshd, kind: type[K4tError], ssh: Ssh, address: str = "127.0.0.1") -> str:
    with pytest.raises(kind) as caught:
        server.connector().connect("h1", ssh, address)
    return str(caught.value)


def test_nothing_listens(server: Sshd) -> None:
    """A refused connection says so, and where."""
    port = sshd.free_port()
    message = refused(server, HostUnreachable, replace(server.ssh, port=port))
    assert message == f"h1: 127.0.0.1:{port} refuses the connection; is sshd running there, and on this port?"


def test_no_answer(server: Sshd) -> None:
    """Dropped packets are a time-out, within the time that the tree gives."""
    with socket.socket() as full:  # a backlog that is full drops what comes
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        started = time.monotonic()
        message = refused(server, HostUnreachable, replace(server.ssh, port=port, connect_timeout_s=0.5))
        assert time.monotonic() - started < 20
        watcher = Connector([], run_id="r", environ=server.environ(), dial_s=0.2)  # looks again soon, and waits less
        with pytest.raises(HostUnreachable, match=r"does not answer within 0\.2 s"):
            watcher.connect("h1", replace(server.ssh, port=port, connect_timeout_s=30.0), "127.0.0.1")
        for filler in fillers:
            filler.close()
    assert message.startswith(f"h1: 127.0.0.1:{port} does not answer within 0.5 s; is the host up")


def test_no_route(server: Sshd) -> None:
    """No route is its own message."""
    subprocess.run(["ip", "route", "add", "unreachable", "198.51.100.77/32"], check=True)
    try:
        message = refused(server, HostUnreachable, replace(server.ssh, port=22), "198.51.100.77")
    finally:
        subprocess.run(["ip", "route", "del", "unreachable", "198.51.100.77/32"], check=True)
    assert message.startswith("h1: there is no route to 198.51.100.77:22; is the address right")


def test_unknown_name(server: Sshd) -> None:
    """A name that nobody knows is its own message."""
    assert "h1: no such host name: nowhere.invalid" in refused(server, HostUnreachable, server.ssh, "nowhere.invalid")


@contextmanager
def listener(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """Something that listens and is no sshd."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with ExitStack() as connections:
                while True:
                    try:
                        connection = connections.enter_context(server.accept()[0])
                    except OSError:
                        return
                    handle(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_silent_host(server: Sshd) -> None:
    """A host that accepts and says nothing costs 8 s (and what a busy machine adds)."""
    with listener(lambda _: None) as port:
        started = time.monotonic()
        message = refused(server, HostUnreachable, replace(server.ssh, port=port))
        assert time.monotonic() - started < 30
    assert f"127.0.0.1:{port} accepts the connection and says nothing for 8 s" in message


def test_not_ssh(server: Sshd) -> None:
    """Something else on the port is told as that."""
    with listener(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200)) as port:
        assert f"127.0.0.1:{port} does not speak SSH" in refused(
            server, HostUnreachable, replace(server.ssh, port=port)
        )


def test_always_closed(server: Sshd) -> None:
    """A host that closes at once is tried a few times, and then told as that."""
    count = []

    def close(connection: socket.socket) -> None:
        count.append(1)
        connection.close()

    with listener(close) as port:
        message = refused(server, HostUnreachable, replace(server.ssh, port=port))
    assert "closes the connection before its banner, 5 times in a row" in message
    assert len(count) == 5


def test_max_startups(tmp_path: Path) -> None:
    """Logins that sshd drops under load are tried again, until all are in."""
    with sshd.serve(tmp_path, options=["MaxStartups 1"]) as server, ThreadPoolExecutor(6) as pool:
        connector = server.connector()
        connected = list(pool.map(lambda n: connector.connect(f"h{n}", server.ssh, "127.0.0.1"), range(6)))
        assert all(transport.run(["true"]).ok for transport in connected)
        assert b"MaxStartups" in (tmp_path / "log").read_bytes()
        for transport in connected:
            transport.close()


def test_weak_algorithms_are_not_taken(tmp_path: Path) -> None:
    """A host that offers only CBC, or only SHA-1, is not talked to."""
    for name, option in (("cbc", "Ciphers aes128-cbc,3des-cbc"), ("mac", "MACs hmac-sha1,hmac-md5")):
        directory = tmp_path / name
        directory.mkdir()
        options = [option] if name == "cbc" else [option, "Ciphers aes128-ctr"]
        with sshd.serve(directory, options=options) as server:
            assert "share no safe algorithm" in refused(server, HostUnreachable, server.ssh)


def test_key_exchange_by_sha1_is_not_taken(tmp_path: Path) -> None:
    """A key exchange that rests on SHA-1 is not taken."""
    with sshd.serve(tmp_path, options=["KexAlgorithms diffie-hellman-group14-sha1"]) as server:
        assert "share no safe algorithm" in refused(server, HostUnreachable, server.ssh)


# --- host keys --------------------------------------------------------------------------------------------------


def test_unknown_host_key(server: Sshd) -> None:
    """A host that was never enrolled is refused with its fingerprint; it learns of no user and no key."""
    with pytest.raises(HostKeyUnknown) as caught:
        server.connector(known_hosts=[]).connect("h1", replace(server.ssh, user="nosuchuser"), "127.0.0.1")
    assert f"h1: the host key of {server.name} is not known; it presents ED25519 SHA256:" in str(caught.value)
    assert "k4t trust h1" in str(caught.value)
    assert "nosuchuser" not in (server.directory / "log").read_text()


def test_changed_host_key(server: Sshd, tmp_path: Path) -> None:
    """A changed key is refused with both fingerprints, file and line; nothing was sent."""
    other = sshd.new_key(tmp_path / "other").with_suffix(".pub").read_text()
    (tmp_path / "known").write_text(f"# the lab\n{server.name} {other}")
    with pytest.raises(HostKeyChanged) as caught:
        server.connector(known_hosts=[tmp_path / "known"]).connect(
            "h1", replace(server.ssh, user="nosuchuser2"), "127.0.0.1"
        )
    message = str(caught.value)
    assert message.count("ED25519 SHA256:") == 2
    assert f"{tmp_path}/known:2" in message
    assert "nosuchuser2" not in (server.directory / "log").read_text()


def test_revoked_host_key(server: Sshd, tmp_path: Path) -> None:
    """A revoked key is refused, whatever file enrols it."""
    (tmp_path / "known").write_text(f"@cert-authority * {server.host_key()}@revoked * {server.host_key()}")
    with pytest.raises(HostKeyChanged, match=r"is revoked at .*known:2; nothing was sent"):
        server.connector(known_hosts=[server.known_hosts, tmp_path / "known"]).connect("h1", server.ssh, "127.0.0.1")


def test_jump_hosts_key_is_checked(server: Sshd, tmp_path: Path) -> None:
    """A jump host that isn't known is refused, and named."""
    with sshd.serve(tmp_path) as bastion:
        message = refused(server, HostKeyUnknown, replace(server.ssh, jump=f"root@127.0.0.1:{bastion.port}"))
    assert message.startswith("h1 (jump host 127.0.0.1): the host key of")
    assert message.endswith("k4t trust h1")


def test_behind_a_jump_host(server: Sshd) -> None:
    """What can't be reached from the jump host is told as that."""
    port = sshd.free_port()
    message = refused(server, HostUnreachable, replace(server.ssh, port=port, jump=f"root@127.0.0.1:{server.port}"))
    assert f"127.0.0.1:{port} can't be reached from h1 (jump host 127.0.0.1): Connection refused" in message


# --- logins -----------------------------------------------------------------------------------------------------


def test_wrong_key(server: Sshd, tmp_path: Path) -> None:
    """A key that the host doesn't take is named, with user and host, after a single attempt."""
    stranger = sshd.new_key(tmp_path / "stranger")
    log = server.directory / "log"
    before = log.read_text().count("closed by authenticating user")
    message = refused(server, LoginRefused, replace(server.ssh, key=str(stranger)))
    assert f"the login of root at 127.0.0.1:{server.port} is refused, with {stranger};" in message
    assert "~root/.ssh/authorized_keys" in message
    deadline = time.monotonic() + 5
    while log.read_text().count("closed by authenticating user") != before + 1:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_wrong_user(server: Sshd) -> None:
    """A user that the host doesn't know is named."""
    assert "the login of nobody2 at 127.0.0.1" in refused(server, LoginRefused, replace(server.ssh, user="nobody2"))


def test_missing_key(server: Sshd, tmp_path: Path) -> None:
    """A key file that isn't there, or is none, is named."""
    path = tmp_path / "none"
    assert f"the key {path} does not exist" in refused(server, LoginRefused, replace(server.ssh, key=str(path)))
    path.write_text("no key")
    assert f"the key {path} can't be used" in refused(server, LoginRefused, replace(server.ssh, key=str(path)))


def test_no_key_at_all(server: Sshd, tmp_path: Path) -> None:
    """Without any key, the message says how to name one."""
    with pytest.raises(LoginRefused, match=r"there is no key to log in with as root at 127\.0\.0\.1.*ssh-add"):
        server.connector(HOME=str(tmp_path)).connect("h1", replace(server.ssh, key=""), "127.0.0.1")


def test_nothing_is_left_behind(server: Sshd) -> None:
    """After refusals and closed connections no thread of ours goes on."""
    before = threading.active_count()
    for _ in range(3):
        transport: SshTransport = server.connector().connect("h1", server.ssh, "127.0.0.1")
        transport.close()
        refused(server, LoginRefused, replace(server.ssh, user="nobody2"))
    deadline = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
