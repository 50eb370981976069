"""A TCP connection to an SSH port, and a message of its own for each way in which there is none."""

from __future__ import annotations

import errno
import socket
import time

from k4t.errors import HostUnreachable

KEEPALIVE_S = 5
DEAD_AFTER_S = 20.0
UNSENT_BYTES = 128 * 1024
"""At most this much waits unsent, so that a heartbeat isn't stuck behind an upload."""

ROUTE_ERRORS = frozenset((errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN))


def dial(name: str, host: str, port: int, timeout_s: float) -> socket.socket:
    """A connected socket, tuned. Tries every address of the name within one time limit. Raises HostUnreachable."""
    deadline = time.monotonic() + timeout_s
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        words = error.strerror if isinstance(error, socket.gaierror) else "not a name"
        raise HostUnreachable(
            f"no such host name: {host} ({words})", "is it written right in <ssh host=…> or address=…?", host=name,
            why="no-name",
        ) from error  # fmt: skip
    problem: OSError = TimeoutError()
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        left_s = (deadline - time.monotonic()) / (len(addresses) - number)
        if left_s <= 0:
            break
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(left_s)
            sock.connect(address)
        except OSError as error:
            sock.close()
            problem = error
        else:
            tune(sock)
            return sock
    raise unreachable(name, f"{host}:{port}", problem, timeout_s) from problem


def tune(sock: socket.socket) -> None:
    """No Nagle (40 ms a command), a dead peer found in seconds, little unsent in flight."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option, value in (("TCP_USER_TIMEOUT", int(DEAD_AFTER_S * 1000)), ("TCP_NOTSENT_LOWAT", UNSENT_BYTES)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def unreachable(name: str, place: str, error: OSError, timeout_s: float, by: str = "") -> HostUnreachable:
    """`by` names the jump host that tried, if one did."""
    suffix = f" from the jump host {by}" if by else ""
    why = ""
    if isinstance(error, ConnectionRefusedError):
        why = "refused"
        what, remedy = f"{place} refuses the connection{suffix}", "is sshd running there, and on this port?"
    elif isinstance(error, TimeoutError):
        why = "silent"
        what = f"{place} does not answer within {timeout_s:g} s{suffix}"
        remedy = "is the host up, and does a firewall drop the packets?"
    elif error.errno in ROUTE_ERRORS:
        why = "no-route"
        what, remedy = f"there is no route to {place}{suffix}", "is the address right, and the network up?"
    else:
        what, remedy = f"can't connect to {place}{suffix}: {error.strerror or error}", ""
    return HostUnreachable(what, remedy, host=name, why=why)


class StartRefused(Exception):
    """The connection was closed before the banner: MaxStartups, or something that is no sshd. Worth another try."""


def no_start(name: str, place: str, error: BaseException, banner: str, waited_s: float) -> Exception:
    """Why there was no key exchange: HostUnreachable, or StartRefused. `banner` is what the host said of itself."""
    cause = error.__cause__ or error.__context__ or error
    if banner.startswith("SSH-"):
        return HostUnreachable(f"{place} ended the connection during key exchange: {str(error) or 'closed'}", host=name)
    if isinstance(cause, EOFError | ConnectionError):
        return StartRefused(str(error))
    if isinstance(cause, TimeoutError):
        return HostUnreachable(
            f"{place} accepts the connection and says nothing for {waited_s:g} s",
            "is that sshd, and is the host overloaded?",
            host=name,
            why="mute",
        )
    return HostUnreachable(f"{place} does not speak SSH: {error}", "is that sshd's port?", host=name)


def start_refused(name: str, place: str, tries: int) -> HostUnreachable:
    return HostUnreachable(
        f"{place} closes the connection before its banner, {tries} times in a row",
        "is that sshd, is MaxStartups reached there, or this address penalised?",
        host=name,
        why="refused",
    )
