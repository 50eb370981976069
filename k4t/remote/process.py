"""A command on a host while it runs, and what is asked of an SSH session for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from k4t.command import Completed
from k4t.errors import AnswerTooLong, ConnectionLost, StepError

CHANNEL_TIMEOUT_S = 15.0
AFTER_EXIT_S = 1.0
"""How long output may lag behind the exit status; a background child may hold it open for ever."""


class ChannelRefused(Exception):
    """The host opens no such channel. `code` as in RFC 4254, 5.1: 1 prohibited, 2 connect failed, 4 shortage."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


class Session(Protocol):
    """What `k4t.remote.ssh` makes of its library: an authenticated session that opens channels."""

    @property
    def alive(self) -> bool: ...

    def open(self, kind: str, *fields: str | int, timeout_s: float) -> Any:
        """An open channel. Raises ChannelRefused, StepError (no answer in time), ConnectionLost."""
        ...

    def execute(self, channel: Any, line: str) -> None:
        """Ask for a command, without waiting for the answer. Raises ConnectionLost."""
        ...

    def kill(self, channel: Any) -> None:
        """Ask for the end of a channel's command, best effort (RFC 4254, 6.9)."""
        ...

    def end(self) -> None: ...


class SshProcess:
    """Implements `k4t.remote.transport.Process`. For one thread at a time, but that one may write and another read."""

    def __init__(
        self,
        session: Session,
        channel: Any,
        *,
        host: str,
        program: str,
        release: Callable[[], None],
        judge: Callable[[Completed], None] | None = None,
    ) -> None:
        self.channel = channel
        self._session = session
        self._host = host
        self._program = program
        self._judge = judge
        self._release: Callable[[], None] | None = release
        self._lock = threading.Lock()
        self._line = b""
        self._news = _News()
        channel.in_buffer.set_event(self._news)
        channel.in_stderr_buffer.set_event(self._news)

    def write(self, data: bytes) -> None:
        self.channel.settimeout(CHANNEL_TIMEOUT_S)
        try:
            self.channel.sendall(data)
        except OSError as error:
            raise self._lost() from error

    def close_input(self) -> None:
        try:
            self.channel.shutdown_write()
        except OSError as error:
            raise self._lost() from error

    def feed(self, data: bytes) -> None:
        """All of the input, then its end; a large one from a thread, so that output is read meanwhile."""
        if len(data) <= self.channel.out_window_size:
            self._feed(data)
        else:
            threading.Thread(target=self._feed, args=(data,), daemon=True).start()

    def _feed(self, data: bytes) -> None:
        """What the command doesn't read isn't our concern; that it ended early is."""
        view = memoryview(data)
        self.channel.settimeout(None)
        try:
            while view:
                view = view[self.channel.send(bytes(view[: 1 << 18])) or len(view) :]
            self.channel.shutdown_write()
        except OSError:
            pass

    def read_line(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._line:
            self.channel.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data: bytes = self.channel.recv(65536)
            except TimeoutError as error:
                raise StepError(f"{self._program} said nothing for {timeout_s:g} s", host=self._host) from error
            except OSError as error:
                raise self._lost() from error
            if not data:
                if not self._session.alive:
                    raise self._lost()
                line, self._line = self._line, b""
                return line
            self._line += data
        line, _, self._line = self._line.partition(b"\n")
        return line

    def wait(self, timeout_s: float) -> Completed:
        done = self.collect(time.monotonic() + timeout_s, 4 * 1024 * 1024, timeout_s)
        if self._judge is not None:
            self._judge(done)
        return done

    def collect(self, deadline: float, max_bytes: int, timeout_s: float) -> Completed:
        """Both streams, read as they come, until both end and the status is there, to one deadline."""
        channel = self.channel
        streams = (bytearray(self._line), bytearray())
        self._line = b""
        linger = deadline
        while True:
            self._news.clear_all()
            ended = channel.closed
            moved = self._drain(streams, max_bytes)
            if ended or (channel.eof_received and channel.status_event.is_set() and not moved):
                break
            now = time.monotonic()
            if channel.exit_status != -1 and (moved or linger is deadline):
                linger = min(deadline, now + AFTER_EXIT_S)
            if now >= linger and channel.exit_status != -1:
                break
            if now >= deadline:
                self._stop()
                raise StepError(f"{self._program} took longer than {timeout_s:g} s", host=self._host)
            self._news.wait(min(linger - now, 0.05 if channel.eof_received else 0.5))
        self._drain(streams, max_bytes)
        status = channel.exit_status if channel.exit_status != -1 else None
        if status is None and not self._session.alive:
            raise self._lost()
        return Completed(status, bytes(streams[0]), bytes(streams[1]))

    def _drain(self, streams: tuple[bytearray, bytearray], max_bytes: int) -> bool:
        moved = False
        for stream, ready, receive in (
            (streams[0], self.channel.recv_ready, self.channel.recv),
            (streams[1], self.channel.recv_stderr_ready, self.channel.recv_stderr),
        ):
            while ready():
                try:
                    stream.extend(receive(1 << 16))
                except OSError as error:
                    raise self._lost() from error
                moved = True
                if len(streams[0]) + len(streams[1]) > max_bytes:
                    self._stop()
                    raise AnswerTooLong(f"{self._program} said more than {max_bytes} bytes", host=self._host)
        return moved

    def _stop(self) -> None:
        """Best effort: end what we don't wait for any longer."""
        self._session.kill(self.channel)

    def close(self) -> None:
        with self._lock:
            release, self._release = self._release, None
        if release is not None:
            self.channel.close()
            release()

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(f"the connection ended while {self._program} was under way: in doubt", host=self._host)


class _News:
    """What a channel's buffers set when something came; they share it, so only the reader clears it."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def clear(self) -> None:
        pass

    def clear_all(self) -> None:
        self._event.clear()

    def wait(self, timeout_s: float) -> None:
        self._event.wait(max(0.0, timeout_s))
