"""All hosts at once, each bounded: who hangs holds nobody up, who lies breaks nothing, and 200 take as long as one."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k4t.command import Completed
from k4t.errors import HostKeyChanged, HostUnreachable, K4tError
from k4t.master.fleet import Fleet
from k4t.model.hosts import Node, Ssh
from k4t.model.spec import Cluster, Tree
from k4t.monitor.check import Looked, check
from k4t.monitor.history import NONE
from k4t.monitor.looking import gather
from k4t.monitor.signs.hosts import cut_off
from k4t.remote.fake import FakeTransport
from k4t.remote.transport import Transport
from tests.monitor.test_answer import GOOD

pytestmark = pytest.mark.unit
CONNECT_S = 0.2


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    """An Engine that has no containers."""
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1024)
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        yield str(path)


def _serve(server: socket.socket) -> None:
    while True:
        try:
            sock, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(sock,), daemon=True).start()


def _answer(sock: socket.socket) -> None:
    with sock:
        while sock.recv(65536):
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]")


def good(name: str, engine: str) -> FakeTransport:
    """A host that says that its clock is ours."""
    host = FakeTransport(name, docker_socket=engine)
    host.answer(["sh"], f"{GOOD.replace('clock 1000 500000000', f'clock {int(time.time())} %N')}".encode())
    return host


def fleet(number: int, connect: Callable[[str], Transport]) -> Fleet:
    nodes = {
        f"n{one}": Node(f"n{one}", f"127.9.{one // 250}.{one % 250}", ssh=Ssh(port=1, connect_timeout_s=CONNECT_S))
        for one in range(number)
    }
    return Fleet(Tree(Cluster("prod", "k7f3q2m9"), nodes), lambda name, _ssh, _address: connect(name), {})


def look(hosts: Fleet, over: threading.Event | None = None) -> Looked:
    """`over` ends what hangs, once nobody waits for it any more."""
    try:
        return check(hosts, NONE, at_s=time.time(), has_tree=False)
    finally:
        if over is not None:
            over.set()
        for thread in threading.enumerate():
            if thread.name.startswith("host "):
                thread.join(10)
        hosts.close()


def told(looked: Looked) -> set[str]:
    return {f"{one.subject}: {one.what}" for one in looked.judgement.findings}


def test_two_hundred_hosts_are_asked_at_once(engine: str) -> None:
    """Each takes 0.3 s to connect, which is a minute one after another; nobody waits for another here."""

    def connect(name: str) -> Transport:
        time.sleep(0.3)
        return good(name, engine)

    looked = look(fleet(200, connect))
    assert told(looked) == set()
    assert sum(host.reading is not None for host in looked.facts.hosts.values()) == 200
    assert sum(node.state.reachable for node in looked.facts.nodes.values()) == 200
    assert looked.facts.took_s < 30


def test_a_hundred_silent_hosts_take_as_long_as_one(engine: str) -> None:
    """Their time-out is waited for once."""

    def connect(name: str) -> Transport:
        if int(name[1:]) % 2:
            time.sleep(1.0)
            raise HostUnreachable(f"{name} does not answer within 1 s", host=name, why="silent")
        return good(name, engine)

    looked = look(fleet(200, connect))
    assert len(looked.judgement.findings) == 100
    assert {one.what for one in looked.judgement.findings} == {"host-off"}
    assert looked.facts.took_s < 30


def test_a_host_that_hangs_is_not_waited_for(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when it connects nor when it is asked; what it is called says so, and the others are known."""
    monkeypatch.setattr(gather, "ANSWER_S", 1.5)
    over = threading.Event()

    def connect(name: str) -> Transport:
        host = good(name, engine)
        if name == "n1":
            over.wait(60)
        if name == "n2":
            host.answer(["sh"], lambda _argv, _input: Completed(0, b"late" if over.wait(60) else b"", b""))
        return host

    looked = look(fleet(5, connect), over)
    assert told(looked) == {"node n1: hangs", "node n2: hangs"}
    assert looked.facts.took_s < 30


def test_a_host_that_answers_garbage_breaks_nothing(engine: str) -> None:
    """It is named; so is one of which a part can't be believed."""

    def connect(name: str) -> Transport:
        host = good(name, engine)
        if name == "n1":
            host.answer(["sh"], b"\xff\0<html>404</html>" * 1000)
        if name == "n2":
            host.answer(["sh"], b"k4t-probe 1\nload 1 2 3\n")
        return host

    looked = look(fleet(3, connect))
    assert told(looked) == {"node n1: garbage", "node n2: garbage"}
    assert {one.level for one in looked.judgement.findings} == {"critical", "unknown"}


def test_an_engine_that_answers_nothing_is_dockers_trouble() -> None:
    """The host itself is well."""
    looked = look(fleet(2, lambda name: good(name, "")))
    assert told(looked) == {"node n0: docker", "node n1: docker"}


def test_why_a_host_is_not_reached_is_told_apart(engine: str) -> None:
    """By the kind of the error, not by its words."""
    errors: dict[str, K4tError] = {
        "n1": HostKeyChanged("another key"),
        "n2": HostUnreachable("refuses", why="refused"),
        "n3": HostUnreachable("no such name", why="no-name"),
        "n4": HostUnreachable("says nothing", why="mute"),
        "n5": HostUnreachable("no route", why="no-route"),
    }

    def connect(name: str) -> Transport:
        if name in errors:
            raise errors[name]
        return good(name, engine)

    assert told(look(fleet(6, connect))) == {
        "node n1: login", "node n2: sshd", "node n3: network", "node n4: sshd", "node n5: host-off",
    }  # fmt: skip


def test_a_host_that_another_one_reaches_is_not_off(engine: str) -> None:
    """Nothing came to us, but its port answers from n0: it is the way from here."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        place = server.getsockname()

        def connect(name: str) -> Transport:
            if name == "n1":
                raise HostUnreachable("does not answer", why="silent")
            host = good(name, engine)
            host.serve("127.9.0.1", 1, lambda: socket.create_connection(place))
            return host

        looked = look(fleet(3, connect))
    assert told(looked) == {"node n1: network"}
    assert " reaches it" in looked.judgement.findings[0].sentence


def test_when_nothing_comes_from_anywhere_it_is_us() -> None:
    """One finding about this machine's network, none about each host."""

    def connect(name: str) -> Transport:
        raise HostUnreachable("does not answer", host=name, why="silent")

    looked = look(fleet(5, connect))
    assert told(looked) == {"cluster prod: network"}
    assert cut_off(list(looked.facts.hosts.values()))
