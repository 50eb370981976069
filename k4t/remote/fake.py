"""A Transport that needs no host: files in a dict, scripted answers, locks, and faults on demand."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from k4t.command import Completed
from k4t.errors import AnswerTooLong, ConnectionLost, DockerUnavailable, HostFull, StepError
from k4t.remote.transport import Process, Stream

FaultKind = Literal["cut", "lost-reply", "slow", "full"]
"""cut: the connection ends before anything is done. lost-reply: it is done, and nobody hears of it. slow: the
time-out comes before it is done. full: no space left."""

Answer = Completed | bytes | Callable[[Sequence[str], bytes], Completed]


@dataclass(slots=True)
class FakeHost:
    """What outlives a connection. Several transports may share one."""

    name: str = "fake"
    files: dict[str, bytes] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    locks: dict[str, str] = field(default_factory=dict)
    listening: set[tuple[str, int]] = field(default_factory=set)
    """(protocol, port), as the host's lock reports them."""


@dataclass(slots=True)
class _Fault:
    kind: FaultKind
    word: str
    after: int


class FakeTransport:
    """Implements `k4t.remote.transport.Transport`.

    A command that no answer is scripted for succeeds and says nothing. `calls` remembers what was asked, in order, as
    ("run", "docker", "ps"), ("put", "/path"), ("get", "/path") ….
    """

    def __init__(self, host: str | FakeHost = "fake", *, docker_socket: str = "", user: str = "root") -> None:
        self.at = host if isinstance(host, FakeHost) else FakeHost(host)
        self.host = self.at.name
        self.user = user
        self.sudo = False
        self.calls: list[tuple[str, ...]] = []
        self._alive = True
        self._docker_socket = docker_socket
        self._answers: list[tuple[tuple[str, ...], Answer]] = []
        self._faults: list[_Fault] = []
        self._streams: dict[tuple[str, int], Callable[[], Stream]] = {}
        self._lock = threading.Lock()

    # --- scripting --------------------------------------------------------------------------------------------

    def answer(self, prefix: Sequence[str], answer: Answer) -> None:
        """What commands that begin with these words say; the newest that fits counts. Bytes: that output, status 0."""
        self._answers.insert(0, (tuple(prefix), answer))

    def serve(self, address: str, port: int, connect: Callable[[], Stream]) -> None:
        """What answers at that place; elsewhere a real connection is made from this machine."""
        self._streams[address, port] = connect

    def fail(self, kind: FaultKind, word: str = "", *, after: int = 0) -> None:
        """One fault, at the first call that holds `word`, but for `after` such calls that pass."""
        self._faults.append(_Fault(kind, word, after))

    # --- the contract -----------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return self._alive

    def close(self) -> None:
        self._alive = False

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",
        timeout_s: float = 30.0,
        max_output_bytes: int = 4 * 1024 * 1024,
        bare: bool = False,  # noqa: ARG002 - there is nothing around it here
    ) -> Completed:
        fault = self._enter("run", *argv)
        self._before(fault, argv[0], timeout_s)
        done = self._say(argv, input)
        if len(done.stdout) + len(done.stderr) > max_output_bytes:
            raise AnswerTooLong(f"{argv[0]} said more than {max_output_bytes} bytes", host=self.host)
        return Completed(None, b"", b"") if fault == "lost-reply" else done

    def start(self, argv: Sequence[str]) -> Process:
        fault = self._enter("start", *argv)
        self._before(fault, argv[0], 15.0)
        if "k4t-lock" in argv[:4]:
            return _FakeLock(self, argv)
        return FakeProcess(self, self._say(argv, b""))

    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        fault = self._enter("put", path)
        self._before(fault, "put", 60.0)
        if fault == "full":
            raise HostFull(f"no space left to write {path} ({len(data)} bytes)", "make room there", host=self.host)
        self.at.files[path], self.at.modes[path] = data, mode
        if fault == "lost-reply":
            raise ConnectionLost(f"the connection was lost while {path} was written: in doubt", host=self.host)

    def get(self, path: str, *, max_bytes: int = 4 * 1024 * 1024) -> bytes | None:
        fault = self._enter("get", path)
        self._before(fault, "get", 60.0)
        data = self.at.files.get(path)
        if data is not None and len(data) > max_bytes:
            raise StepError(f"{path} has more than {max_bytes} bytes", host=self.host)
        return data

    def connect_tcp(self, address: str, port: int, timeout_s: float) -> Stream:
        fault = self._enter("connect", address, str(port))
        self._before(fault, "connect", timeout_s)
        if (address, port) in self._streams:
            return self._streams[address, port]()
        try:
            return socket.create_connection((address, port), timeout_s)
        except OSError as error:
            words = error.strerror or "timed out"
            raise StepError(f"no connection to {address}:{port}: {words}", host=self.host) from error

    def connect_docker(self) -> Stream:
        fault = self._enter("docker")
        self._before(fault, "docker", 15.0)
        if not self._docker_socket:
            raise DockerUnavailable("Docker is not installed", "install Docker Engine there", host=self.host)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self._docker_socket)
        except OSError as error:
            sock.close()
            raise DockerUnavailable("Docker is installed, but not running", "start it", host=self.host) from error
        return sock

    # --- inside -----------------------------------------------------------------------------------------------

    def _enter(self, *call: str) -> FaultKind | None:
        with self._lock:
            if not self._alive:
                raise ConnectionLost("the SSH connection has ended (closed)", host=self.host)
            self.calls.append(call)
            for fault in self._faults:
                if fault.word and not any(fault.word in word for word in call):
                    continue
                if fault.after == 0:
                    self._faults.remove(fault)
                    return fault.kind
                fault.after -= 1
        return None

    def _before(self, fault: FaultKind | None, what: str, timeout_s: float) -> None:
        if fault == "cut":
            self._alive = False
            raise ConnectionLost("the SSH connection has ended (cut)", host=self.host)
        if fault == "slow":
            raise StepError(f"{what} took longer than {timeout_s:g} s", host=self.host)

    def _say(self, argv: Sequence[str], input: bytes) -> Completed:
        for prefix, answer in self._answers:
            if tuple(argv[: len(prefix)]) == prefix:
                if callable(answer):
                    return answer(argv, input)
                return Completed(0, answer, b"") if isinstance(answer, bytes) else answer
        return Completed(0, b"", b"")


class FakeProcess:
    """A command whose whole output is there at once."""

    def __init__(self, transport: FakeTransport, done: Completed) -> None:
        self._transport = transport
        self._done = done
        self._lines = itertools.chain(done.stdout.splitlines(), itertools.repeat(b""))
        self.written = b""

    def write(self, data: bytes) -> None:
        if not self._transport.alive:
            raise ConnectionLost("the SSH connection has ended (closed)", host=self._transport.host)
        self.written += data

    def read_line(self, timeout_s: float) -> bytes:  # noqa: ARG002 — the contract's
        self.write(b"")
        return next(self._lines)

    def close_input(self) -> None:
        self.write(b"")

    def wait(self, timeout_s: float) -> Completed:  # noqa: ARG002 — the contract's
        self.write(b"")
        return self._done

    def close(self) -> None:
        pass


class _FakeLock(FakeProcess):
    """Answers as `k4t.remote.lock_script` does; the host's dict is the lock."""

    def __init__(self, transport: FakeTransport, argv: Sequence[str]) -> None:
        directory, file, record = argv[4:7]
        self._path = f"{directory}/{file}"
        holder = transport.at.locks.setdefault(self._path, record)
        self._held = holder is record
        ports = sorted(transport.at.listening) if file == "host.lock" else []
        lines = [f"/proc/net/{protocol}:   0: 00000000:{port:04X} 00000000:0000 0A" for protocol, port in ports]
        said = [*lines, "held"] if self._held else [f"busy {holder}"]
        super().__init__(transport, Completed(0, "\n".join(said).encode(), b""))

    def write(self, data: bytes) -> None:
        super().write(data)
        if data == b".":
            self._lines = itertools.chain([b"."], self._lines)
        if data == b"r":
            self.close()

    def close(self) -> None:
        if self._held:
            self._held = False
            self._transport.at.locks.pop(self._path, None)
