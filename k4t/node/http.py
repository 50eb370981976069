"""HTTP/1.1 over a Stream: requests to the Engine and health probes, and the pool of connections to one Engine.

http.client would do, at 12 ms of imports (the email package) and without a deadline for the whole of a reply;
both count here. Message framing after RFC 9112, sections 6 and 7: Content-Length, chunked, or until close.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k4t.errors import StepError
from k4t.remote.transport import Stream

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_LINE_BYTES = 64 * 1024
MAX_HEADERS = 200
RECEIVE_BYTES = 64 * 1024


class Broken(Exception):
    """The other side closed or broke the connection. `silent`: not one byte of a reply had come."""

    def __init__(self, message: str, *, silent: bool = False) -> None:
        super().__init__(message)
        self.silent = silent


class TooSlow(Exception):
    """The deadline passed before the reply was whole."""


class Garbled(Exception):
    """What came is not HTTP/1.1, or larger than allowed."""


@dataclass(frozen=True, slots=True)
class Reply:
    """`headers` by lower-case name; `reusable`: the connection can carry another request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    reusable: bool


class Wire:
    """A Stream read and written to one deadline (of time.monotonic), keeping what was read too far."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.used = False
        self._deadline = 0.0
        self._ahead = b""
        self._received = False

    def begin(self, deadline: float) -> None:
        """A new exchange starts; it has to be over by `deadline`."""
        self._deadline = deadline
        self._received = False

    def send(self, data: bytes) -> None:
        try:
            self.stream.settimeout(self._left_s())
            self.stream.sendall(data)
        except TimeoutError as error:
            raise TooSlow from error
        except (OSError, EOFError) as error:
            raise Broken(str(error) or "closed", silent=True) from error

    def line(self) -> bytes:
        """One line without its end."""
        while (end := self._ahead.find(b"\n")) < 0:
            if len(self._ahead) > MAX_LINE_BYTES:
                raise Garbled("a line without end")
            self._ahead += self._receive()
        line, self._ahead = self._ahead[:end], self._ahead[end + 1 :]
        return line.removesuffix(b"\r")

    def exactly(self, size: int) -> bytes:
        parts = [self._ahead[:size]]
        self._ahead = self._ahead[size:]
        missing = size - len(parts[0])
        while missing:
            part = self._receive()
            parts.append(part[:missing])
            self._ahead = part[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    def rest(self, limit: int) -> bytes:
        """Everything until the other side closes."""
        data = bytearray(self._ahead)
        self._ahead = b""
        try:
            while len(data) <= limit:
                data += self._receive()
        except Broken:
            return bytes(data)
        raise Garbled(f"a body of more than {limit} bytes")

    def some(self) -> bytes:
        """What has come, at least one byte; b"" when the other side has closed."""
        data, self._ahead = self._ahead, b""
        if data:
            return data
        try:
            return self._receive()
        except Broken:
            return b""

    def close(self) -> None:
        self.stream.close()

    def _receive(self) -> bytes:
        try:
            self.stream.settimeout(self._left_s())
            data = self.stream.recv(RECEIVE_BYTES)
        except TimeoutError as error:
            raise TooSlow from error
        except (OSError, EOFError) as error:
            raise Broken(str(error) or "closed", silent=not self._received) from error
        if not data:
            raise Broken("closed", silent=not self._received)
        self._received = True
        return data

    def _left_s(self) -> float:
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            raise TooSlow
        return left_s


def send_request(wire: Wire, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None) -> None:
    """Send one request. `headers` must hold Host; Content-Length is added where there is a body.

    Raises Broken, TooSlow.
    """
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    wire.send("\r\n".join([*lines, "", ""]).encode() + (body or b""))


def read_reply(wire: Wire, method: str, *, max_body_bytes: int) -> Reply:
    """Read one whole reply. Raises Broken, TooSlow, Garbled."""
    status = 100
    headers: dict[str, str] = {}
    for _ in range(10):  # informational replies (1xx) may stand before the real one
        status, headers = _head(wire)
        if status >= 200:
            break
    body, framed = _body(wire, method, status, headers, max_body_bytes)
    return Reply(status, headers, body, framed and headers.get("connection", "").lower() != "close")


def read_status(wire: Wire) -> int:
    """Only the status of the final reply, for a probe that closes the connection then."""
    return next((status for status, _ in (_head(wire) for _ in range(10)) if status >= 200), 100)


def read_head(wire: Wire) -> tuple[int, dict[str, str]]:
    """Status and headers of the final reply, or of the switch to another protocol (101); the body is still to come."""
    return next((head for head in (_head(wire) for _ in range(10)) if head[0] >= 200 or head[0] == 101), (100, {}))


def read_body(wire: Wire, method: str, status: int, headers: Mapping[str, str], *, max_body_bytes: int) -> bytes:
    return _body(wire, method, status, headers, max_body_bytes)[0]


def _head(wire: Wire) -> tuple[int, dict[str, str]]:
    words = wire.line().split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise Garbled("the reply is not HTTP/1.1")
    headers: dict[str, str] = {}
    for _ in range(MAX_HEADERS):
        line = wire.line()
        if not line:
            return int(words[1]), headers
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    raise Garbled(f"more than {MAX_HEADERS} headers")


def _body(wire: Wire, method: str, status: int, headers: Mapping[str, str], limit: int) -> tuple[bytes, bool]:
    """The body, and whether its end was marked (so that the connection can go on)."""
    if method == "HEAD" or status in (204, 304):
        return b"", True
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return _chunks(wire, limit), True
    length = headers.get("content-length", "")
    if not length:
        return wire.rest(limit), False
    if not length.isdigit() or int(length) > limit:
        raise Garbled(f"a body of {length} bytes, where {limit} are the limit")
    return wire.exactly(int(length)), True


def _chunks(wire: Wire, limit: int) -> bytes:
    data = bytearray()
    while size := _chunk_size(wire.line()):
        if len(data) + size > limit:
            raise Garbled(f"a body of more than {limit} bytes")
        data += wire.exactly(size)
        wire.line()
    while wire.line():  # trailers; each line is bounded, and so is the deadline
        pass
    return bytes(data)


def _chunk_size(line: bytes) -> int:
    try:
        return int(line.split(b";")[0], 16)
    except ValueError as error:
        raise Garbled("a chunk without a size") from error


class Pool:
    """Connections to one Engine: at most `limit` in use at once, the idle ones kept. Safe for many threads."""

    def __init__(self, connect: Callable[[], Stream], limit: int) -> None:
        self._connect = connect
        self._permits = threading.BoundedSemaphore(limit)
        self._lock = threading.Lock()
        self._idle: list[Wire] = []
        self._closed = False

    def take(self, deadline: float, *, fresh: bool = False) -> Wire:
        """A connection for one exchange; give it back. `fresh`: a new one, since an idle one was found dead.

        Raises StepError when all are in use until the deadline, and what connecting raises.
        """
        if not self._permits.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StepError("all connections to the Docker Engine are busy")
        try:
            wire = self._reuse(fresh) or Wire(self._connect())
        except BaseException:
            self._permits.release()
            raise
        wire.begin(deadline)
        return wire

    def give(self, wire: Wire, *, reusable: bool) -> None:
        with self._lock:
            keep = reusable and not self._closed
            if keep:
                wire.used = True
                self._idle.append(wire)
        if not keep:
            wire.close()
        self._permits.release()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for wire in idle:
            wire.close()

    def _reuse(self, fresh: bool) -> Wire | None:
        with self._lock:
            if not fresh:
                return self._idle.pop() if self._idle else None
            idle, self._idle = self._idle, []
        for wire in idle:
            wire.close()
        return None


class FileLike(io.RawIOBase):
    """A Stream as the file object that http.client, and so the Docker SDK, reads replies from."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._stream.recv(len(view))
        view[: len(data)] = data
        return len(data)
