"""A connection that loses replies, cuts streams or pretends to be an older Engine when told so."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from k4t.command import Completed
from k4t.remote.transport import Process, Stream, Transport


class Faulty:
    """Everything goes to `real`, but for what is said here.

    `lose_reply_to`, `lose_request`: the beginning of a request whose reply, or which itself, gets lost, once.
    `answers`: what the next requests to the Engine are answered with, instead of asking it.
    """

    def __init__(self, real: Transport) -> None:
        self.real = real
        self.host = real.host
        self.lose_reply_to = b""
        self.lose_request = b""
        self.answers: list[bytes] = []
        self.dead = False
        self.requests: list[bytes] = []
        self.commands: list[Sequence[str]] = []

    @property
    def alive(self) -> bool:
        return self.real.alive and not self.dead

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",
        timeout_s: float = 30.0,
        max_output_bytes: int = 4 * 1024 * 1024,
        bare: bool = False,
    ) -> Completed:
        self.commands.append(argv)
        return self.real.run(argv, input=input, timeout_s=timeout_s, max_output_bytes=max_output_bytes, bare=bare)

    def start(self, argv: Sequence[str]) -> Process:
        return self.real.start(argv)

    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self.real.put(path, data, mode)

    def get(self, path: str, *, max_bytes: int = 4 * 1024 * 1024) -> bytes | None:
        return self.real.get(path, max_bytes=max_bytes)

    def connect_tcp(self, address: str, port: int, timeout_s: float) -> Stream:
        return self.real.connect_tcp(address, port, timeout_s)

    def connect_docker(self) -> Stream:
        return FaultyStream(self, self.real.connect_docker())

    def close(self) -> None:
        self.real.close()

    def happens(self, fault: str, data: bytes) -> bool:
        """Whether the fault that was asked for is due; it happens once."""
        wanted: bytes = getattr(self, fault)
        if not wanted or not data.startswith(wanted):
            return False
        setattr(self, fault, b"")
        return True


class FaultyStream:
    def __init__(self, owner: Faulty, real: Stream) -> None:
        self._owner = owner
        self._real = real
        self._lost = False
        self._canned = b""

    def settimeout(self, timeout: float | None) -> None:
        self._real.settimeout(timeout)

    def sendall(self, data: bytes) -> None:
        self._owner.requests.append(data.split(b"\r\n")[0])
        if self._owner.answers:
            self._canned = self._owner.answers.pop(0)
            return
        if self._owner.happens("lose_request", data):
            self._lost = True
            return
        self._lost = self._owner.happens("lose_reply_to", data)
        self._real.sendall(data)

    def recv(self, size: int) -> bytes:
        if self._canned:
            canned, self._canned = self._canned[:size], self._canned[size:]
            return canned
        if not self._lost:
            return self._real.recv(size)
        if not self._owner.lose_request:
            self._real.settimeout(2.0)
            with contextlib.suppress(TimeoutError):
                self._real.recv(size)  # the Engine has done its work by now
        return b""

    def close(self) -> None:
        self._real.close()
