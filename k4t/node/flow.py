"""A reply of the Engine that is read while it comes: logs, events, and the two-way stream of an exec.

Each has a connection of its own, outside of the pool: it lasts as long as someone looks.
Framing: RFC 9112 (chunked), and for logs and exec “Stream format” of
https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerAttach
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from k4t.errors import StepError
from k4t.node.http import Broken, Garbled, TooSlow, Wire, read_body, read_head, send_request

if TYPE_CHECKING:
    from k4t.node.call import Caller, Request
    from k4t.remote.transport import Transport

HEADER_BYTES = 8
MAX_FRAME_BYTES = 16 * 1024 * 1024
FOREVER_S = 10 * 365 * 86400.0

Channel = Literal["stdout", "stderr"]


class Flow:
    """Raises what Caller raises; `pieces` ends when the Engine, or `close`, ends it."""

    def __init__(self, caller: Caller, transport: Transport, request: Request, *, upgrade: bool) -> None:
        self._wire = Wire(transport.connect_docker())
        self._back = b""
        self._closed = False
        self.silence_s = FOREVER_S
        """How long nothing may come before reading it raises TooSlow."""
        self._caller, self._transport = caller, transport
        try:
            self._chunks = self._opened(caller, request, upgrade=upgrade)
        except (Broken, TooSlow, Garbled) as error:
            self._wire.close()
            raise (caller.silent(request.timeout_s) if isinstance(error, TooSlow) else caller.broken()) from error
        except BaseException:
            self._wire.close()
            raise

    def _opened(self, caller: Caller, request: Request, *, upgrade: bool) -> _Chunks | None:
        headers = {"Host": "docker", "User-Agent": "k4t", **request.headers}
        if upgrade:
            headers |= {"Connection": "Upgrade", "Upgrade": "tcp"}
        body = None if request.body is None else json.dumps(request.body).encode()
        if body is not None:
            headers["Content-Type"] = "application/json"
        self._wire.begin(time.monotonic() + request.timeout_s)
        send_request(self._wire, request.method, f"/v{caller.version}{request.path}", headers, body)
        status, found = read_head(self._wire)
        if status >= 400:
            said = read_body(self._wire, request.method, status, found, max_body_bytes=64 * 1024)
            raise caller.refusal(status, _message(said, status))
        return _Chunks() if "chunked" in found.get("transfer-encoding", "").lower() else None

    def unread(self, piece: bytes) -> None:
        """Put back what was looked at."""
        self._back = piece

    def pieces(self) -> Iterator[bytes]:
        """Bytes as they come."""
        back, self._back = self._back, b""
        if back:
            yield back
        while not (self._chunks and self._chunks.ended):
            self._wire.begin(time.monotonic() + self.silence_s)
            data = self._wire.some()
            if not data:
                self._need_a_good_end()
                return
            if piece := self._chunks.feed(data) if self._chunks else data:
                yield piece

    def _need_a_good_end(self) -> None:
        """Raises ConnectionLost when more should have come: half a log must not pass for a whole one."""
        if not self._closed and (self._chunks is not None or not self._transport.alive):
            raise self._caller.broken()

    def messages(self) -> Iterator[dict[str, Any]]:
        """JSON objects, one a line."""
        rest = b""
        for piece in self.pieces():
            *lines, rest = (rest + piece).split(b"\n")
            yield from (json.loads(line) for line in lines if line.strip())
        if rest.strip():
            yield json.loads(rest)

    def frames(self, *, tty: bool = False) -> Iterator[tuple[Channel, bytes]]:
        """Output by stream. With a terminal (`tty`) there is only one, and nothing is framed."""
        if tty:
            yield from (("stdout", piece) for piece in self.pieces())
            return
        data = bytearray()
        for piece in self.pieces():
            data += piece
            while len(data) >= HEADER_BYTES and len(data) >= HEADER_BYTES + (size := _size(data)):
                channel: Channel = "stderr" if data[0] == 2 else "stdout"
                yield channel, bytes(data[HEADER_BYTES : HEADER_BYTES + size])
                del data[: HEADER_BYTES + size]

    def send(self, data: bytes) -> None:
        """Raises Broken when the other side is gone."""
        self._wire.begin(time.monotonic() + FOREVER_S)
        self._wire.send(data)

    def end_input(self) -> None:
        """No more will be sent; what comes back is still read."""
        shutdown = getattr(self._wire.stream, "shutdown", None)
        if shutdown is not None:
            shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._closed = True
        self._wire.close()


class _Chunks:
    """Takes chunked framing off, piece by piece."""

    def __init__(self) -> None:
        self.ended = False
        self._ahead = b""
        self._left = 0
        self._first = True

    def feed(self, data: bytes) -> bytes:
        self._ahead += data
        found = bytearray()
        while self._ahead and not self.ended:
            if self._left == 0 and not self._next_size():
                break
            part = self._ahead[: self._left]
            found += part
            self._ahead = self._ahead[len(part) :]
            self._left -= len(part)
        return bytes(found)

    def _next_size(self) -> bool:
        """Whether the next chunk's size has come whole. The end of a chunk stands before the size of the next."""
        begin = 0 if self._first else 2
        end = self._ahead.find(b"\r\n", begin)
        if end < 0:
            return False
        self._left = int(self._ahead[begin:end].split(b";")[0] or b"0", 16)
        self._ahead = self._ahead[end + 2 :]
        self._first = False
        self.ended = self._left == 0
        return not self.ended


def _size(data: bytearray) -> int:
    size = int.from_bytes(data[4:8], "big")
    if size > MAX_FRAME_BYTES or data[0] > 2:
        raise StepError("what Docker sends is no framed stream; was the container made with a terminal?")
    return size


def _message(said: bytes, status: int) -> str:
    try:
        return str(json.loads(said)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return said[:500].decode("utf-8", "replace").strip() or f"HTTP status {status}"
