"""What goes over a connection to a real sshd: commands, files, streams; by keys, agents and jump hosts."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from k4t.errors import ConnectionLost, HostFull, HostUnreachable, LoginRefused, StepError
from k4t.model.hosts import Ssh
from k4t.remote.connection import MAX_COMMANDS, SshTransport
from tests.remote import sshd
from tests.remote.sshd import Sshd

pytestmark = pytest.mark.integration


# --- commands -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["a b", "$HOME", "'", '"', "`id`", "a\nb", "", "\\", "ü", "*", "-n", "!"])
def test_words_arrive_as_they_are(transport: SshTransport, word: str) -> None:
    """No shell on the way changes an argument."""
    done = transport.run(["printf", "%s|", word, "end"])
    assert done.stdout.decode() == f"{word}|end|"


def test_streams_status_and_input(transport: SshTransport) -> None:
    """Both streams, the exit status and the input are the command's own."""
    done = transport.run(["sh", "-c", "cat; echo oops >&2; exit 3"], input=b"hello")
    assert (done.exit_status, done.stdout, done.stderr) == (3, b"hello", b"oops\n")


def test_both_streams_are_read_at_once(transport: SshTransport) -> None:
    """A command that fills one stream while the other is awaited does not hang."""
    script = "dd if=/dev/zero bs=1M count=5 >&2 2>/dev/null; head -c 6000000 /dev/zero; head -c 5000000 /dev/zero >&2"
    done = transport.run(["sh", "-c", script], max_output_bytes=20_000_000)
    assert (len(done.stdout), len(done.stderr)) == (6_000_000, 5_242_880 + 5_000_000)


def test_large_input_against_large_output(transport: SshTransport) -> None:
    """Input and output larger than any window flow at the same time."""
    data = os.urandom(12_000_000)
    assert transport.run(["cat"], input=data, max_output_bytes=13_000_000).stdout == data


def test_input_that_nobody_reads(transport: SshTransport) -> None:
    """A command that ends without reading its input is no error."""
    assert transport.run(["true"], input=b"x" * 12_000_000).ok


def test_time_limit(transport: SshTransport) -> None:
    """A command has its time, and is named when it is over."""
    with pytest.raises(StepError, match=r"h1: sleep took longer than 0\.3 s"):
        transport.run(["sleep", "2"], timeout_s=0.3)


def test_output_limit(transport: SshTransport) -> None:
    """Output without end is cut off with a message."""
    with pytest.raises(StepError, match="yes said more than 1000 bytes"):
        transport.run(["yes"], max_output_bytes=1000)


def test_background_child_does_not_hold_the_command(transport: SshTransport) -> None:
    """A child that keeps the output open delays the answer by a second, not for ever."""
    done = transport.run(["sh", "-c", "sleep 30 & echo done"], timeout_s=10)
    assert (done.exit_status, done.stdout) == (0, b"done\n")


def test_status_lost_is_in_doubt(transport: SshTransport) -> None:
    """A command that ends without a status (killed by a signal) is neither done nor failed."""
    assert transport.run(["sh", "-c", "kill -9 $$"]).exit_status is None


def test_more_commands_than_sessions(transport: SshTransport) -> None:
    """Many commands at once wait for one another instead of running into sshd's MaxSessions."""
    count = 4 * MAX_COMMANDS
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda n: transport.run(["echo", str(n)]).stdout, range(count)))
    assert answers == [f"{n}\n".encode() for n in range(count)]


def test_commands_carry_the_runs_mark(transport: SshTransport) -> None:
    """Every command can be told to be this run's."""
    assert transport.run(["printenv", "K4T_RUN"]).stdout == b"test-run\n"


def test_process(transport: SshTransport) -> None:
    """A command can be talked to while it runs."""
    process = transport.start(["sh", "-c", "while read -r x; do echo got $x; done; echo end; exit 5"])
    process.write(b"1\n")
    assert process.read_line(5) == b"got 1"
    with pytest.raises(StepError, match="sh said nothing"):
        process.read_line(0.1)
    process.write(b"2\n3\n")
    assert process.read_line(5) == b"got 2"
    process.close_input()
    done = process.wait(5)
    process.close()
    assert (done.exit_status, done.stdout) == (5, b"got 3\nend\n")


def test_end_of_the_connection(server: Sshd) -> None:
    """A command under way when the connection dies is in doubt, and whatever follows says that it has ended."""
    transport = server.connector().connect("h1", server.ssh, "127.0.0.1")
    session = transport.run(["sh", "-c", "ps -o ppid= $$"]).stdout.decode().strip()
    threading.Timer(0.3, lambda: os.kill(int(session), 9)).start()
    with pytest.raises(ConnectionLost, match="sleep was under way: in doubt"):
        transport.run(["sleep", "5"])
    assert not transport.alive
    for call in (
        lambda: transport.run(["true"]),
        lambda: transport.start(["true"]),
        lambda: transport.put("/tmp/x", b""),
        lambda: transport.get("/tmp/x"),
        lambda: transport.connect_tcp("127.0.0.1", 22, 1),
        transport.connect_docker,
    ):
        with pytest.raises(ConnectionLost):
            call()


def test_the_end_of_a_connection_says_who_ended_it(server: Sshd) -> None:
    """The host with its reason (RFC 4253, 11.1), the network, or this run itself."""
    ours, cut, refused = (server.connector().connect("h1", server.ssh, "127.0.0.1") for _ in range(3))
    ours.close()
    with pytest.raises(ConnectionLost, match=r"has ended \(ended by this run\)"):
        ours.run(["true"])
    os.kill(int(cut.run(["sh", "-c", "ps -o ppid= $$"]).stdout.decode()), 9)
    wait_until_dead(cut)
    with pytest.raises(ConnectionLost, match=r"closed by the host or the network|reset by peer"):
        cut.run(["true"])
    raw: Any = refused._session._transport  # type: ignore[attr-defined]
    raw._send_message(unasked())
    wait_until_dead(refused)
    with pytest.raises(ConnectionLost, match=r"the host said: .+, code \d+"):
        refused.run(["true"])


def wait_until_dead(transport: SshTransport) -> None:
    deadline = time.monotonic() + 10
    while transport.alive:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def unasked() -> Any:
    """Data for a channel that was never opened: sshd ends the connection, and says why."""
    from paramiko import Message

    message = Message()
    message.add_byte(bytes([94]))  # SSH_MSG_CHANNEL_DATA
    message.add_int(4711)
    message.add_string("x")
    return message


# --- files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100_000, 9_000_000])
def test_file_there_and_back(transport: SshTransport, tmp_path: Path, size: int) -> None:
    """A file arrives whole, with its mode, in a directory that is made; and comes back."""
    data = os.urandom(size)
    path = tmp_path / "new dir" / "file"
    transport.put(str(path), data, 0o750)
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o7777 == 0o750
    assert transport.get(str(path), max_bytes=10_000_000) == data
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_file_that_is_not_there(transport: SshTransport, tmp_path: Path) -> None:
    """No file is None, not an error; a directory is an error."""
    assert transport.get(str(tmp_path / "none")) is None
    with pytest.raises(StepError, match="can't read"):
        transport.get(str(tmp_path))
    with pytest.raises(StepError, match="is a directory"):
        transport.put(str(tmp_path), b"x")


def test_replacing_is_atomic(transport: SshTransport, tmp_path: Path) -> None:
    """The old file is replaced by another, never rewritten."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("rb") as old:
        transport.put(str(path), b"new")
        assert old.read() == b"old"
    assert path.read_bytes() == b"new"


def test_full_disk(transport: SshTransport, tmp_path: Path) -> None:
    """A full disk leaves the old file whole and nothing beside it, and says so."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "k4t-test", small], check=True)
    try:
        (small / "file").write_bytes(b"old")
        with pytest.raises(HostFull, match=r"h1: no space left to write .*small/file \(100000 bytes\)"):
            transport.put(str(small / "file"), b"x" * 100_000)
        assert (small / "file").read_bytes() == b"old"
        assert len(list(small.iterdir())) == 1
    finally:
        subprocess.run(["umount", small], check=True)


# --- streams --------------------------------------------------------------------------------------------------


def test_tcp(transport: SshTransport, server: Sshd) -> None:
    """A connection is made as the host makes it."""
    stream = transport.connect_tcp("127.0.0.1", server.port, 5)
    assert stream.recv(4) == b"SSH-"
    stream.close()
    with pytest.raises(StepError, match=r"h1: no connection to 127\.0\.0\.1:1: Connection refused"):
        transport.connect_tcp("127.0.0.1", 1, 5)


def test_stream_serves_http_client(transport: SshTransport) -> None:
    """A stream can stand for the socket of http.client, also when the server closes at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answer = b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 300_000

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        threading.Thread(target=serve).start()
        client = http.client.HTTPConnection("host")
        client.sock = transport.connect_tcp("127.0.0.1", listener.getsockname()[1], 5)
        client.request("GET", "/")
        response = client.getresponse()
        assert (response.status, len(response.read())) == (200, 300_000)
        client.close()


def test_streams_do_not_count_as_sessions(transport: SshTransport, server: Sshd) -> None:
    """Many streams leave room for commands."""
    streams = [transport.connect_tcp("127.0.0.1", server.port, 5) for _ in range(8)]
    assert transport.run(["true"]).ok
    for stream in streams:
        stream.close()


# --- the way in -----------------------------------------------------------------------------------------------


def test_agents_key(server: Sshd, tmp_path: Path) -> None:
    """A key that only the agent holds logs in; one with a passphrase does too, when the agent holds it."""
    with agent(tmp_path, server.key) as path:
        home = tmp_path / "home"
        home.mkdir()
        connector = server.connector(HOME=str(home), SSH_AUTH_SOCK=path)
        connector.connect("h1", replace(server.ssh, key=""), "127.0.0.1").close()
        locked = tmp_path / "locked"
        locked.write_bytes(server.key.read_bytes())
        locked.chmod(0o600)
        subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", locked], check=True, stdout=subprocess.DEVNULL)
        (tmp_path / "locked.pub").write_bytes(Path(f"{server.key}.pub").read_bytes())
        connector.connect("h1", replace(server.ssh, key=str(locked)), "127.0.0.1").close()
    with pytest.raises(LoginRefused, match=r"locked has a passphrase, and the SSH agent doesn't hold it.*ssh-add"):
        server.connector().connect("h1", replace(server.ssh, key=str(locked)), "127.0.0.1")


class agent:  # noqa: N801 — reads as a function
    """An agent that holds one key, and ends."""

    def __init__(self, directory: Path, key: Path) -> None:
        self._path = directory / "agent"
        self._key = key

    def __enter__(self) -> str:
        self._process = subprocess.Popen(["ssh-agent", "-D", "-a", self._path], stdout=subprocess.DEVNULL)
        for _ in range(100):
            if self._path.exists():
                break
            time.sleep(0.02)
        environ = {**os.environ, "SSH_AUTH_SOCK": str(self._path)}
        subprocess.run(["ssh-add", "-q", self._key], env=environ, check=True)
        return str(self._path)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


def test_default_key_of_the_home(server: Sshd) -> None:
    """Without a word in the tree, the usual key files are offered."""
    server.connector().connect("h1", replace(server.ssh, key=""), "127.0.0.1").close()


def test_configured_alias(server: Sshd, tmp_path: Path) -> None:
    """The user's configuration names host, port, user and key, as it does for ssh."""
    configure(tmp_path, f"Host box\n HostName 127.0.0.1\n Port {server.port}\n User root\n IdentityFile {server.key}\n")
    connector = server.connector(HOME=str(tmp_path))
    transport = connector.connect("h1", Ssh(host="box"), "10.9.9.9")
    assert transport.run(["id", "-un"]).stdout == b"root\n"
    transport.close()


def configure(home: Path, text: str) -> None:
    (home / ".ssh").mkdir(mode=0o700)
    (home / ".ssh" / "config").write_text(text)
    (home / ".ssh" / "config").chmod(0o600)


def test_proxy_command(server: Sshd, tmp_path: Path) -> None:
    """A ProxyCommand is run, with its tokens, by a shell."""
    program = tmp_path / "relay.py"
    program.write_text(
        "import socket, sys, threading, os\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while data := os.read(0, 65536): s.sendall(data)\n"
        "    s.shutdown(socket.SHUT_WR)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536): os.write(1, data)\n"
    )
    configure(tmp_path, f"Host 127.0.0.1\n ProxyCommand python3 {program} %h %p\n")
    transport = server.connector(HOME=str(tmp_path)).connect("h1", server.ssh, "127.0.0.1")
    assert transport.run(["echo", "through"]).stdout == b"through\n"
    transport.close()


@pytest.fixture(scope="module")
def bastion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd.serve(tmp_path_factory.mktemp("bastion")) as running:
        yield running


def test_jump_host(server: Sshd, bastion: Sshd) -> None:
    """The way leads through a jump host, shared by all who take it, whose key is checked too."""
    jump = f"root@127.0.0.1:{bastion.port}"
    connector = server.connector(known_hosts=[server.known_hosts, bastion.known_hosts])
    with ThreadPoolExecutor(4) as pool:
        connected = list(
            pool.map(lambda n: connector.connect(n, replace(server.ssh, jump=jump), "127.0.0.1"), ["a", "b", "c", "d"])
        )
    assert all(transport.run(["true"]).ok for transport in connected)
    ways = subprocess.run(["ps", "-o", "args=", "--ppid", str(bastion.pid)], capture_output=True, text=True, check=True)
    assert ways.stdout.count("root") == 1
    connector.close()
    with pytest.raises(ConnectionLost):
        connected[0].run(["true"])


def test_chain_of_jumps(server: Sshd, bastion: Sshd) -> None:
    """Jumps are taken one after the other."""
    jump = f"root@127.0.0.1:{bastion.port},root@127.0.0.1:{server.port}"
    connector = server.connector(known_hosts=[server.known_hosts, bastion.known_hosts])
    transport = connector.connect("h1", replace(server.ssh, jump=jump), "127.0.0.1")
    assert transport.run(["true"]).ok
    connector.close()


def test_jump_of_the_configuration(server: Sshd, bastion: Sshd, tmp_path: Path) -> None:
    """ProxyJump of the user's configuration is followed; a circle is refused."""
    configure(
        tmp_path,
        f"Host bastion\n HostName 127.0.0.1\n Port {bastion.port}\n User root\n IdentityFile {server.key}\n"
        f"Host box\n HostName 127.0.0.1\n Port {server.port}\n ProxyJump bastion\n"
        "Host c1\n ProxyJump c2\nHost c2\n ProxyJump c1\n",
    )
    connector = server.connector(known_hosts=[server.known_hosts, bastion.known_hosts], HOME=str(tmp_path))
    ssh = Ssh(host="box", user="root", key=str(server.key))
    assert connector.connect("h1", ssh, "").run(["true"]).ok
    connector.close()
    with pytest.raises(HostUnreachable, match="more than 8 jumps"):
        connector.connect("h1", Ssh(host="c1"), "")


def test_scan(server: Sshd) -> None:
    """A host's keys can be asked for without trusting it, under the name that they are kept by."""
    name, keys = server.connector(known_hosts=[]).scan("h1", server.ssh, "127.0.0.1")
    assert name == server.name
    assert [key.type for key in keys] == ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"]
    shown = subprocess.run(
        ["ssh-keygen", "-lf", server.directory / "host_rsa.pub"], capture_output=True, text=True, check=True
    )
    assert keys[2].fingerprint in shown.stdout


def test_scan_behind_a_jump_host(server: Sshd, bastion: Sshd) -> None:
    """A jump host that isn't known is asked for first; once it is, what stands behind it."""
    ssh = replace(server.ssh, jump=f"root@127.0.0.1:{bastion.port}")
    name, keys = server.connector(known_hosts=[]).scan("h1", ssh, "127.0.0.1")
    assert (name, len(keys)) == (bastion.name, 3)
    connector = server.connector(known_hosts=[bastion.known_hosts])
    name, keys = connector.scan("h1", replace(ssh, key=""), "127.0.0.1")
    assert (name, len(keys)) == (server.name, 3)
    connector.close()


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_the_enrolled_type_is_asked_for(server: Sshd, tmp_path: Path, kind: str) -> None:
    """A host enrolled with one of its keys is met by that one."""
    (tmp_path / "known").write_text(f"{server.name} {server.host_key(kind)}")
    server.connector(known_hosts=[tmp_path / "known"]).connect("h1", server.ssh, "127.0.0.1").close()
