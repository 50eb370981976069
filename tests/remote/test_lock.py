"""One run at a time: the lock names its holder, and is free within 20 s whatever becomes of it, with all it left.

What a silent master takes goes faster here (SPEED), and at its own pace with K4T_FULL=1.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from k4t.errors import K4tError, Locked
from k4t.model.hosts import Ssh
from k4t.remote import lock
from k4t.remote.connection import SshTransport
from k4t.remote.fake import FakeHost, FakeTransport
from k4t.remote.lock import Holder, HostLock, HostLocks, LocalLock, host_lock, take_all
from k4t.remote.sockets import parse_sockets, port_holder
from k4t.remote.ssh import Connector
from tests.lab import Host, Lab
from tests.remote.sshd import wait_for_port

SPEED = 1.0 if "K4T_FULL" in os.environ else 0.4
SMALL_PORT = 2222
"""There, a host is nothing but busybox and flock (which Debian's busybox lacks)."""

CLUSTER = "k7f3q2m9"
HOLDER = Holder("anna", "laptop", 4711, "2026-01-01T00:00:00Z", "apply web", "run-1")
NAMED = "locked by anna on laptop (process 4711) since 2026-01-01T00:00:00Z, for apply web"


# --- without a host -----------------------------------------------------------------------------------------------


@pytest.mark.unit
def test_local_lock_names_its_holder(tmp_path: Path) -> None:
    """A second run on the same tree is told who is at work; afterwards the lock is free."""
    path = tmp_path / "db" / ".k4t" / "lock"
    with LocalLock(path).take(HOLDER):
        with pytest.raises(Locked) as caught:
            LocalLock(path).take(replace(HOLDER, who="ben"))
        assert f"{tmp_path}/db is {NAMED}" in str(caught.value)
    LocalLock(path).take(replace(HOLDER, who="x")).release()
    assert json.loads(path.read_text())["who"] == "x"


@pytest.mark.unit
def test_local_lock_waits(tmp_path: Path) -> None:
    """With --wait, the second run goes on when the first has ended."""
    path = tmp_path / "lock"
    script = "import fcntl,sys; f=open(sys.argv[1],'a'); fcntl.flock(f,2); print(1,flush=True); sys.stdin.readline()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script, path], stdin=pipe, stdout=pipe) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(Locked, match="a run that left no name"):
            LocalLock(path).take(HOLDER)
        threading.Timer(0.3, other.stdin.close).start()
        LocalLock(path).take(HOLDER, wait_s=60).release()


@pytest.mark.unit
def test_one_host_held_elsewhere_gives_all_back() -> None:
    """When one host is another run's, no host stays locked by this one."""
    hosts = [FakeHost(name) for name in ("a", "b", "c")]
    other = HostLock.take(FakeTransport(hosts[1]), CLUSTER, HOLDER)
    with pytest.raises(Locked) as caught:
        take_all([FakeTransport(host) for host in hosts], CLUSTER, replace(HOLDER, who="ben"))
    assert str(caught.value).startswith(f"b: the cluster is {NAMED}")
    assert not hosts[0].locks
    assert not hosts[2].locks
    other.release()
    with take_all([FakeTransport(host) for host in hosts], CLUSTER, HOLDER) as locks:
        assert sorted(locks.locks) == ["a", "b", "c"]
        assert not locks.lost
    assert not any(host.locks for host in hosts)


@pytest.mark.unit
def test_two_runs_that_reach_different_hosts() -> None:
    """Each has another first host, and finds the other further on: exactly one of them gets on, every time."""
    for _ in range(4):
        hosts = [FakeHost(name) for name in "abcdef"]
        begin, results = threading.Barrier(2), list[object]()

        def run(seen: list[FakeHost], who: str, begin: threading.Barrier, results: list[object]) -> None:
            begin.wait()
            try:
                results.append(take_all([FakeTransport(host) for host in seen], CLUSTER, replace(HOLDER, who=who)))
            except Locked as error:
                results.append(error)

        sights = {"anna": hosts[1:], "ben": [hosts[0], *hosts[2:]]}
        runs = [threading.Thread(target=run, args=(seen, who, begin, results)) for who, seen in sights.items()]
        for one in runs:
            one.start()
        for one in runs:
            one.join()
        won = [one for one in results if isinstance(one, HostLocks)]
        assert len(won) == 1, results
        assert len(won[0].locks) == 5
        won[0].release()
        assert not any(host.locks for host in hosts)


@pytest.mark.unit
def test_host_that_fails_is_told_apart() -> None:
    """A host that dies while it is locked is no other run."""
    transports = [FakeTransport(name) for name in ("a", "b")]
    transports[0].fail("cut", "k4t-lock")
    with take_all(transports, CLUSTER, HOLDER) as locks:
        assert (list(locks.locks), list(locks.failed)) == (["b"], ["a"])


@pytest.mark.unit
def test_clusters_do_not_lock_one_another() -> None:
    """Each cluster has its own lock; what they share on a host has another one."""
    host = FakeHost("a", listening={("tcp", 80)})
    first = HostLock.take(FakeTransport(host), CLUSTER, HOLDER)
    second = HostLock.take(FakeTransport(host), "other", HOLDER)
    with host_lock(FakeTransport(host), HOLDER) as held:
        assert held.listening == {("tcp", 80)}
        with pytest.raises(Locked, match="this host is locked"), host_lock(FakeTransport(host), HOLDER):
            pass
    first.release()
    second.release()


@pytest.mark.unit
def test_sockets() -> None:
    """The kernel's tables give protocol and port; what is garbage is left out."""
    lines = [
        "/proc/net/tcp:   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000",
        "/proc/net/tcp6:   1: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A",
        "/proc/net/udp:  12: 00000000:0035 00000000:0000 07",
        "garbage",
        "/proc/net/udp: sl local_address",
    ]
    assert parse_sockets(lines) == {("tcp", 8080), ("tcp", 22), ("udp", 53)}


# --- on real hosts ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(name=f"locks-{os.getpid()}", nodes=0, gateways=0, registry=False, extra=("h1",)) as running:
        host = running.host("h1")
        keys = running.key.with_suffix(".pub").read_text()
        for user in ("deploy", "plain"):
            host.exec(["useradd", "-m", "-s", "/bin/sh", user])
            host.exec(["install", "-d", "-o", user, "-m", "700", f"/home/{user}/.ssh"])
            host.exec(["sh", "-c", f"cat > /home/{user}/.ssh/authorized_keys"], input=keys)
        host.exec(["sh", "-c", "echo 'deploy ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/k4t"])
        host.exec(["sh", "-c", "install -d -o plain /var/lib/k4t/plain"])
        host.exec(["sh", "-c", "mkdir /bb && busybox --install -s /bb && cp /usr/bin/flock /bb"])
        small = ["-p", str(SMALL_PORT), "-o", "SetEnv=PATH=/bb SHLVL=2", "-o", "PermitUserEnvironment=no"]
        host.spawn("small", ["/usr/sbin/sshd", "-D", *small])
        wait_for_port(SMALL_PORT, host.address)
        known = running.known_hosts.read_text()
        (running.directory / "known").write_text(known + known.replace(host.address, f"[{host.address}]:{SMALL_PORT}"))
        yield running


@pytest.fixture
def host(lab: Lab) -> Host:
    return lab.host("h1")


LOGINS = {
    "root": ("root", False, CLUSTER, 22),
    "sudo": ("deploy", True, CLUSTER, 22),
    "plain": ("plain", False, "plain", 22),
    "busybox": ("root", False, CLUSTER, SMALL_PORT),
}


def connect(lab: Lab, login: str = "root", run: str = "run-1") -> SshTransport:
    user, sudo, _, port = LOGINS[login]
    environ = {"HOME": "/nonexistent", "PATH": os.environ["PATH"]}
    connector = Connector([lab.directory / "known"], run_id=run, environ=environ)
    return connector.connect("h1", Ssh(user=user, key=str(lab.key), sudo=sudo, port=port), lab.host("h1").address)


def eventually(done: Callable[[], bool], timeout_s: float = 60) -> float:
    """Seconds until it holds."""
    started = time.monotonic()
    while not done():
        assert time.monotonic() - started < timeout_s
        time.sleep(0.2)
    return time.monotonic() - started


def is_free(transport: SshTransport, cluster: str = CLUSTER) -> bool:
    try:
        HostLock.take(transport, cluster, replace(HOLDER, run="probe")).release()
    except Locked:
        return False
    return True


@pytest.mark.integration
def test_second_run_is_told_who_holds_it(lab: Lab) -> None:
    """A host's lock is refused with who, where, since when and why; once given back it is free at once."""
    first, second = connect(lab), connect(lab, run="run-2")
    held = HostLock.take(first, CLUSTER, HOLDER)
    with pytest.raises(Locked) as caught:
        HostLock.take(second, CLUSTER, replace(HOLDER, who="ben with a much longer name", run="run-2"))
    assert str(caught.value).startswith(f"h1: the cluster is {NAMED}")
    held.release()
    assert is_free(second)
    assert first.run(["true"]).ok
    first.close()
    second.close()


@pytest.mark.integration
def test_heartbeat_keeps_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is beaten for longer than the silence allowed stays held."""
    monkeypatch.setattr(lock, "SILENCE_S", 3.0)
    monkeypatch.setattr(lock, "BEAT_S", 0.5)
    transport, other = connect(lab), connect(lab, run="run-2")
    held = HostLock.take(transport, CLUSTER, HOLDER)
    time.sleep(4.5)
    assert not held.lost
    assert not is_free(other)
    held.release()
    transport.close()
    other.close()


@pytest.mark.integration
@pytest.mark.parametrize("login", ["root", "sudo", "plain", "busybox"])
def test_silence_ends_the_session_and_what_it_started(
    lab: Lab, host: Host, login: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a heartbeat the connection dies, and every command of the run with it: on other channels, their
    children, those in the background and in sessions of their own; for root, with sudo, and without;
    where sh and all its commands are busybox's."""
    monkeypatch.setattr(lock, "SILENCE_S", 2.0)
    cluster = LOGINS[login][2]
    transport, other = connect(lab, login), connect(lab, login, run="run-2")
    lost: list[str] = []
    held = HostLock.take(transport, cluster, HOLDER, on_lost=lost.append)
    transport.start(["sh", "-c", "trap '' TERM HUP INT; setsid sleep 9001 & (sleep 9002 &); sleep 9003"])
    transport.start(["sleep", "9004"])
    bystander = other.start(["sleep", "9005"])
    eventually(lambda: len(sleepers(host)) == 5)
    monkeypatch.setattr(held._stop, "wait", lambda _: time.sleep(1000))
    eventually(lambda: is_free(other, cluster))
    assert sleepers(host) == ["9005"]
    eventually(lambda: not transport.alive)
    assert held.lost
    bystander.close()
    other.close()
    host.exec(["pkill", "-xf", "sleep 9005"])


def sleepers(host: Host) -> list[str]:
    found = host.exec(["sh", "-c", "ps -eo stat=,args= | grep '[s]leep 900' | grep -v '^Z'"], check=False).stdout
    return sorted({line.split()[-1] for line in found.splitlines() if "sh -c" not in line and "sudo" not in line})


@pytest.mark.integration
def test_the_owner_hears_of_the_loss(lab: Lab) -> None:
    """When the connection ends, the lock is lost, and whoever asked for it is called once."""
    transport = connect(lab)
    lost: list[str] = []
    held = HostLock.take(transport, CLUSTER, HOLDER, on_lost=lost.append)
    transport.close()
    assert held.lost
    eventually(lambda: lost == ["h1"], 5)
    held.release()


@pytest.mark.integration
def test_child_of_the_holder_does_not_keep_it(lab: Lab, host: Host) -> None:
    """The holder's own process is killed while a child of it lives on: the lock is free."""
    transport, other = connect(lab), connect(lab, run="run-2")
    HostLock.take(transport, CLUSTER, HOLDER)
    host.exec(["pkill", "-9", "-f", "^sh -c.*k4t-lock"])
    assert is_free(other)
    transport.close()
    other.close()


@pytest.mark.integration
def test_directory_that_cannot_be_written(lab: Lab) -> None:
    """A user who may not write the state directory is told how to give it."""
    transport = connect(lab, "plain")
    with pytest.raises(K4tError, match=r"h1: plain can't write /var/lib/k4t/k7f3q2m9/lock; there: sudo mkdir -p"):
        HostLock.take(transport, CLUSTER, HOLDER)
    transport.close()


@pytest.mark.integration
def test_host_lock_sees_the_sockets(lab: Lab, host: Host) -> None:
    """Under the host's lock, what listens is known, and who it is can be asked."""
    transport = connect(lab)
    program = "import socket,time; s=socket.create_server(('127.0.0.1',8123)); u=socket.socket(2,2); u.bind(('',8124));"
    host.spawn("listener", ["python3", "-c", f"{program} time.sleep(600)"])
    eventually(lambda: bool(port_holder(transport, "tcp", 8123)))
    with host_lock(transport, HOLDER) as held:
        assert {("tcp", 22), ("tcp", 8123), ("udp", 8124)} <= held.listening
        assert ("tcp", 8124) not in held.listening
    assert "python3" in port_holder(transport, "tcp", 8123)
    assert port_holder(transport, "tcp", 8125) == ""
    host.stop("listener")
    transport.close()


@pytest.mark.integration
def test_host_lock_waits_its_turn(lab: Lab) -> None:
    """Operations on one host come one after the other, and wait only for so long."""
    first, second = connect(lab), connect(lab, run="run-2")
    with host_lock(first, HOLDER):
        started = time.monotonic()
        with pytest.raises(Locked, match="this host is locked by anna"), host_lock(second, HOLDER, wait_s=0.5):
            pass
        assert time.monotonic() - started < 20
    with host_lock(second, HOLDER):
        pass
    first.close()
    second.close()


# --- a master that is killed, paused, cut off ---------------------------------------------------------------------

MASTER = """
import os, sys
from pathlib import Path
from k4t.model.hosts import Ssh
from k4t.remote import lock
from k4t.remote.lock import Holder, HostLock
from k4t.remote.ssh import Connector
address, key, known, speed = sys.argv[1:]
lock.SILENCE_S *= float(speed)
lock.BEAT_S *= float(speed)
connector = Connector([Path(known)], run_id="run-1")
transport = connector.connect("h1", Ssh(user="root", key=key), address)
held = HostLock.take(transport, "k7f3q2m9", Holder("anna", "laptop", os.getpid(), "2026", "apply", "run-1"))
transport.start(["sh", "-c", "(sleep 9001 &); sleep 9002"])
print("held", flush=True)
sys.stdin.readline()
try:
    transport.put("/tmp/changed", b"x")
    print("changed", flush=True)
except Exception as error:
    print(type(error).__name__, held.lost, flush=True)
"""


@pytest.fixture
def master(request: pytest.FixtureRequest, lab: Lab, host: Host) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock, with commands under way on other channels. May be given another SPEED."""
    speed = str(getattr(request, "param", SPEED))
    argv = [sys.executable, "-c", MASTER, host.address, str(lab.key), str(lab.known_hosts), speed]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        eventually(lambda: len(sleepers(host)) == 2)
        yield process
        process.kill()


@pytest.mark.crash
@pytest.mark.parametrize("master", [1.0], indirect=True)
def test_master_killed(lab: Lab, host: Host, master: subprocess.Popen[str]) -> None:
    """A master that is killed frees the lock at once, and leaves nothing running."""
    master.kill()
    other = connect(lab, run="run-2")
    eventually(lambda: is_free(other), lock.SILENCE_S)
    assert sleepers(host) == []
    other.close()


@pytest.mark.crash
def test_master_stopped(lab: Lab, host: Host, master: subprocess.Popen[str]) -> None:
    """A master that is stopped frees the lock within 20 s; woken up, it can change nothing."""
    master.send_signal(signal.SIGSTOP)
    other = connect(lab, run="run-2")
    eventually(lambda: is_free(other), 20)
    assert sleepers(host) == []
    master.send_signal(signal.SIGCONT)
    said, _ = master.communicate("go\n", timeout=30)
    assert said == "ConnectionLost True\n"
    assert other.get("/tmp/changed") is None
    other.close()


@pytest.mark.crash
def test_a_starved_master_keeps_it(lab: Lab, host: Host, master: subprocess.Popen[str]) -> None:
    """A machine that lets it run for a third of a second now and then, never 15 s apart, does not cost the lock."""
    for _ in range(4):
        master.send_signal(signal.SIGSTOP)
        time.sleep(6 * SPEED)
        master.send_signal(signal.SIGCONT)
        time.sleep(0.35)
    assert len(sleepers(host)) == 2
    said, _ = master.communicate("go\n", timeout=30)
    assert said == "changed\n"
    host.exec(["rm", "/tmp/changed"])


@pytest.mark.crash
def test_master_cut_off(lab: Lab, host: Host, master: subprocess.Popen[str]) -> None:
    """A master that is cut off frees the lock within 20 s, and soon knows it."""
    host.cut()
    try:
        started = time.monotonic()
        eventually(lambda: "k4t-lock" not in host.exec(["ps", "-eo", "args="]).stdout, 20)
        assert sleepers(host) == []
        assert master.stdin is not None
        assert master.stdout is not None
        time.sleep(max(0.0, 17 * SPEED - (time.monotonic() - started)))
    finally:
        host.restore()
    master.stdin.write("go\n")
    master.stdin.flush()
    assert master.stdout.readline() == "ConnectionLost True\n"
    other = connect(lab, run="run-2")
    assert is_free(other)
    assert other.get("/tmp/changed") is None
    other.close()
