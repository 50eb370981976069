"""A channel that looks like a connected socket, also to http.client: `makefile` outlives `close`, as with sockets."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any, BinaryIO


class ChannelStream:
    """Wraps an open channel. `recv` raises TimeoutError; a connection that has ended is an end of file or OSError.

    `on_close` is called once, when the stream and everything made from it is closed. `verdict` is asked at an end of
    file before any byte came: it raises when it knows why (a command that failed to start).
    """

    def __init__(
        self, channel: Any, *, on_close: Callable[[], None] | None = None, verdict: Callable[[], None] | None = None
    ) -> None:
        self._channel = channel
        self._on_close = on_close
        self._verdict = verdict
        self._users = 1
        self._closed = False
        self._lock = threading.Lock()

    def settimeout(self, timeout: float | None) -> None:
        self._channel.settimeout(timeout)

    def gettimeout(self) -> float | None:
        timeout: float | None = self._channel.gettimeout()
        return timeout

    def recv(self, size: int) -> bytes:
        data: bytes = self._channel.recv(size)
        if self._verdict is not None:
            verdict, self._verdict = self._verdict, None
            if not data:
                verdict()
        return data

    def recv_into(self, buffer: Any) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def send(self, data: bytes) -> int:
        sent: int = self._channel.send(data)
        return sent

    def sendall(self, data: bytes) -> None:
        self._channel.sendall(data)

    def shutdown(self, how: int) -> None:
        self._channel.shutdown(how)

    def makefile(self, mode: str = "rb", buffering: int = 64 * 1024) -> BinaryIO:
        """For http.client: a buffered reader ("rb") that keeps the channel open until it is closed itself."""
        if mode not in ("r", "rb"):
            raise ValueError(f"a stream can be read as a file, not {mode!r}")
        with self._lock:
            self._users += 1
        return io.BufferedReader(_Raw(self), max(buffering, 1))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.release()

    def release(self) -> None:
        """One user less; the last one closes the channel."""
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self._channel.close()
            if self._on_close is not None:
                self._on_close()


class _Raw(io.RawIOBase):
    def __init__(self, stream: ChannelStream) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._stream.release()
