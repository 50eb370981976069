"""Channels of a session that has logged in: paramiko's, with the corners taken off.

It is handed the library by `k4t.remote.ssh`, the only one to import it.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
from collections.abc import Iterator
from typing import Any

from k4t.errors import ConnectionLost, StepError
from k4t.remote.process import ChannelRefused

MESSAGE_CHANNEL_OPEN_FAILURE = 92
MESSAGE_CHANNEL_REQUEST = 98


def end(transport: Any) -> None:
    """Close without waiting for the reader's poll (paramiko joins its thread; that thread wakes at once this way)."""
    with contextlib.suppress(Exception):
        if isinstance(transport.sock, socket.socket):
            transport.sock.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(Exception):
        transport.close()
    with contextlib.suppress(Exception):
        for event in list(transport.channel_events.values()):
            event.set()  # who waits for a channel is told; paramiko does so only when it was the other side that ended


@functools.cache
def _channel_class(paramiko: Any) -> Any:
    """A channel to which the end of its connection is an OSError, and no error at all at `close`.

    (A jump's channel is closed in paramiko's own thread, where an exception ends up on standard error.)
    """

    @contextlib.contextmanager
    def as_os_error() -> Iterator[None]:
        try:
            yield
        except (EOFError, paramiko.SSHException) as error:
            raise ConnectionResetError(str(error) or "the connection has ended") from error

    class Channel(paramiko.Channel):  # type: ignore[misc]
        def send(self, s: Any) -> Any:
            with as_os_error():
                return super().send(s)

        def recv(self, nbytes: int) -> Any:
            with as_os_error():
                return super().recv(nbytes)

        def recv_stderr(self, nbytes: int) -> Any:
            with as_os_error():
                return super().recv_stderr(nbytes)

        def shutdown(self, how: int) -> None:
            with as_os_error():
                super().shutdown(how)

        def close(self) -> None:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                super().close()

    return Channel


class ParamikoSession:
    """Implements `k4t.remote.process.Session` on a paramiko transport that has logged in.

    paramiko's own `open_channel` knows no direct-streamlocal, waits for an hour, and hands one thread's refusal to
    another; so channels are opened here, the way it does (Transport.open_channel).
    """

    def __init__(self, paramiko: Any, transport: Any, host: str) -> None:
        self._paramiko = paramiko
        self.host = host
        self._transport = transport
        self._refusals: dict[int, ChannelRefused] = {}
        self._why = ""
        transport._parse_disconnect = self._disconnected  # noqa: SLF001
        self._paramiko_refusal = transport._handler_table[MESSAGE_CHANNEL_OPEN_FAILURE]  # noqa: SLF001
        transport._handler_table[MESSAGE_CHANNEL_OPEN_FAILURE] = self._refused  # noqa: SLF001

    @property
    def alive(self) -> bool:
        return bool(self._transport.is_active())

    def end(self) -> None:
        self._why = self._why or ("ended by this run" if self.alive else "")
        end(self._transport)

    def _disconnected(self, message: Any) -> None:
        """Runs in paramiko's thread, at the host's last message (RFC 4253, 11.1): its reason."""
        code, words = message.get_int(), message.get_text()
        self._why = self._why or f"the host said: {words}, code {code}"

    def open(self, kind: str, *fields: str | int, timeout_s: float) -> Any:
        transport: Any = self._transport
        message = self._paramiko.Message()
        message.add_byte(self._paramiko.common.cMSG_CHANNEL_OPEN)
        message.add_string(kind)
        try:
            with transport.lock:
                channel, event = self._new_channel(message)
            for field in fields:
                message.add_int(field) if isinstance(field, int) else message.add_string(field)
            transport._send_user_message(message)  # noqa: SLF001
            answered = event.wait(timeout_s)
        except (OSError, EOFError, self._paramiko.SSHException) as error:
            raise self._lost(error) from error
        if refusal := self._refusals.pop(channel.chanid, None):
            raise refusal
        if not self.alive:
            raise self._lost(transport.saved_exception)
        if not answered:
            channel.close()
            raise StepError(f"sshd opens no channel within {timeout_s:g} s", host=self.host)
        return channel

    def _new_channel(self, message: Any) -> tuple[Any, threading.Event]:
        """Registers a channel and writes the common part of the request. The transport's lock is held."""
        transport: Any = self._transport
        if not transport.active:
            raise EOFError(str(transport.saved_exception or ""))
        number = transport._next_channel()  # noqa: SLF001
        message.add_int(number)
        message.add_int(transport.default_window_size)
        message.add_int(transport.default_max_packet_size)
        channel: Any = _channel_class(self._paramiko)(number)
        transport._channels.put(number, channel)  # noqa: SLF001
        transport.channel_events[number] = event = threading.Event()
        transport.channels_seen[number] = True
        channel._set_transport(transport)  # noqa: SLF001
        channel._set_window(transport.default_window_size, transport.default_max_packet_size)  # noqa: SLF001
        return channel, event

    def _refused(self, message: Any) -> None:
        """Runs in paramiko's thread: remember which channel was refused, and why in sshd's words."""
        number, code, words = message.get_int(), message.get_int(), message.get_text()
        self._refusals[number] = ChannelRefused(code, words)
        message.rewind()
        self._paramiko_refusal(message)

    def execute(self, channel: Any, line: str) -> None:
        """The answer to the request comes before any output; a refusal closes the channel. So nobody waits for it."""
        self._request(channel, "exec", True, line)

    def kill(self, channel: Any) -> None:
        with contextlib.suppress(ConnectionLost):
            self._request(channel, "signal", False, "KILL")

    def _request(self, channel: Any, kind: str, reply: bool, text: str) -> None:
        message = self._paramiko.Message()
        message.add_byte(bytes([MESSAGE_CHANNEL_REQUEST]))
        message.add_int(channel.remote_chanid)
        message.add_string(kind)
        message.add_boolean(reply)
        message.add_string(text)
        try:
            self._transport._send_user_message(message)  # noqa: SLF001
        except (OSError, EOFError, self._paramiko.SSHException) as error:
            raise self._lost(error) from error

    def _lost(self, error: BaseException | None) -> ConnectionLost:
        words = self._why or str(error or "") or "closed by the host or the network"
        return ConnectionLost(f"the SSH connection has ended ({words})", host=self.host)
