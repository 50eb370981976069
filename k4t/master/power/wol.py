"""Wake-on-LAN: six bytes 0xFF, then the MAC address sixteen times, in a UDP broadcast (AMD's “Magic Packet”)."""

from __future__ import annotations

import re
import socket

from k4t.errors import StepError

PORT = 9
EVERYBODY = "255.255.255.255"
SENT_TIMES = 3
"""A datagram may be lost, and one too many does nothing."""
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}")


def packet(mac: str) -> bytes:
    """Raises StepError for what is no MAC address."""
    if not _MAC.fullmatch(mac):
        raise StepError(f"{mac} is no MAC address such as 52:54:00:12:34:56")
    return b"\xff" * 6 + bytes.fromhex(re.sub("[:-]", "", mac)) * 16


def wake(mac: str, broadcast: str = EVERYBODY, *, port: int = PORT) -> None:
    """Raises StepError when it can't be sent. That it arrives, nobody says."""
    data = packet(mac)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            for _ in range(SENT_TIMES):
                sender.sendto(data, (broadcast, port))
    except OSError as error:
        raise StepError(f"no wake-on-LAN packet could be sent to {broadcast}: {error.strerror or error}") from error
