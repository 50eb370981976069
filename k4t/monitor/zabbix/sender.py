"""One check → a Zabbix server or proxy, by Zabbix's own library. It bounds each call of the socket, and follows as many
redirects as it is told of; here all of it together is bounded, and IPv6 is spoken.

https://www.zabbix.com/documentation/6.0/en/manual/appendix/protocols/zabbix_sender
"""

from __future__ import annotations

import re
import socket
import struct
import time
import zlib
from typing import TYPE_CHECKING

from k4t.errors import StepError, Unreachable, Usage
from k4t.monitor.zabbix.template import MASTER
from k4t.monitor.zabbix.values import encode, values

if TYPE_CHECKING:
    from k4t.monitor.check import Looked

PORT = 10051
TIMEOUT_S = 10.0
REDIRECTS = 2
ANSWER_BYTES = 64 * 1024
_SERVER = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[^\s:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")


class NotTaken(StepError):
    """Zabbix answers, and has no item for the value."""


def send(looked: Looked, server: str, host: str, timeout_s: float = TIMEOUT_S) -> None:
    """`server`: HOST or HOST:PORT; `host`: as it is called in Zabbix. Takes no longer than `timeout_s` and what looking
    up a name takes. Raises Usage for what is no server, Unreachable, NotTaken."""
    deliver(encode(values(looked)), server, host, timeout_s)


def deliver(document: str, server: str, host: str, timeout_s: float = TIMEOUT_S) -> None:
    """The same of a document that was made before."""
    name, port = place(server)
    deadline_s = time.monotonic() + timeout_s
    problems: list[str] = []
    for family, address in _addresses(name, port):
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            break
        try:
            refused = _try(document, (address, port), host, family == socket.AF_INET6, deadline_s)
        except _Failed as error:
            problems.append(f"{address}: {error}")
            continue
        if refused:
            remedy = "is there a host of this name, and has it the template? A new one is known to it after a minute"
            raise NotTaken(f"Zabbix at {server} takes nothing for host {host}: {refused}", remedy)
        return
    said = "; ".join(problems) or "no time is left"
    raise Unreachable(f"Zabbix at {server} was not told within {timeout_s:g} s: {said}", "is it up, and this the way?")


def place(server: str) -> tuple[str, int]:
    """Host and port. Raises Usage."""
    found = _SERVER.fullmatch(server)
    port = int(found["port"] or PORT) if found else 0
    if not found or not 1 <= port <= 65535:
        raise Usage(f"--server {server} is no host and port", f"such as zabbix.example.com:{PORT}")
    return found["six"] or found["name"], port


class _Failed(Exception):
    """This address did not do; the text says why."""


class _Bounded:
    """A connection that ends at one moment, whatever comes."""

    def __init__(self, connection: socket.socket, deadline_s: float) -> None:
        self._connection, self._deadline_s, self._left_bytes = connection, deadline_s, ANSWER_BYTES

    def sendall(self, packet: bytes) -> None:
        self._wait()
        self._connection.sendall(packet)

    def recv(self, size: int) -> bytes:
        self._wait()
        found = self._connection.recv(min(size, 4096))
        self._left_bytes -= len(found)
        if self._left_bytes < 0:
            raise OSError("it answers more than anybody asked for")
        return found

    def close(self) -> None:
        self._connection.close()

    def _wait(self) -> None:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left_s)


def _addresses(name: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"nobody knows the address of {name}: {error}", "is the name right?") from None
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _try(document: str, at: tuple[str, int], host: str, six: bool, deadline_s: float) -> str:
    """Why the value was not taken; "" when it was. Raises _Failed."""
    from zabbix_utils import ItemValue, ModuleBaseException, Sender

    opened: list[_Bounded] = []

    def bounded(connection: socket.socket, _tls: object) -> _Bounded:
        opened.append(_Bounded(connection, deadline_s))
        if len(opened) > 1 + REDIRECTS:
            raise OSError("one redirects to the next")
        sender.timeout = max(0.1, deadline_s - time.monotonic())
        return opened[-1]

    left_s = max(0.1, deadline_s - time.monotonic())
    sender = Sender(timeout=left_s, use_ipv6=six, socket_wrapper=bounded, compression=True)
    node = sender.clusters[0].nodes[0]
    node.address, node.port = at  # an IPv6 address would be taken apart at its colons
    try:
        answer = sender.send([ItemValue(host, MASTER, document)])
    except (OSError, ModuleBaseException) as error:
        raise _Failed(_words(error)) from None
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, zlib.error):
        raise _Failed("what answers there is no Zabbix") from None
    finally:
        for one in opened:
            one.close()
    return "" if answer.processed and not answer.failed else f"{answer.failed} of {answer.total} refused"


def _words(error: Exception) -> str:
    said = str(error)
    if said.startswith("Couldn't connect"):
        return "it takes no connection"
    if "Unexpected response" in said or "flag" in said:
        return "what answers there is no Zabbix"
    return said or type(error).__name__
