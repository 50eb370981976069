"""A DNS question over UDP (TCP when the answer is truncated): RFC 1035 section 4, EDNS0 of RFC 6891 for size."""

from __future__ import annotations

import os
import socket
import struct
from typing import Optional, Set, Tuple

from .errors import VendorSilent

TIMEOUT_S = 1.0
TRIES = 3
SIZE_BYTES = 1232
TYPES = {"A": (1, socket.AF_INET), "AAAA": (28, socket.AF_INET6)}


def resolve(address: Tuple[str, int], name: str, kind: str) -> Set[str]:
    """The addresses a server gives for a name; empty for none, an unknown name, an error. Raises VendorSilent."""
    number, family = TYPES[kind]
    identity = struct.unpack("!H", os.urandom(2))[0]
    labels = b"".join(bytes([len(label)]) + label for label in name.rstrip(".").encode("ascii").split(b"."))
    option = struct.pack("!BHHIH", 0, 41, SIZE_BYTES, 0, 0)
    # Header: one question, one additional (EDNS0); recursion desired.
    asked = struct.pack("!6H", identity, 0x0100, 1, 0, 0, 1) + labels + struct.pack("!BHH", 0, number, 1) + option
    answer = _udp(address, asked)
    if answer[2] & 0x02:  # TC
        answer = _tcp(address, asked)
    return _addresses(answer, number, family)


def _udp(address: Tuple[str, int], asked: bytes) -> bytes:
    error: Optional[Exception] = None
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    for _ in range(TRIES):
        with socket.socket(family, socket.SOCK_DGRAM) as connection:
            connection.settimeout(TIMEOUT_S)
            try:
                connection.connect(address)
                connection.send(asked)
                answer = connection.recv(65535)
            except OSError as failure:
                error = failure
                continue
            if answer[:2] == asked[:2] and len(answer) >= 12:
                return answer
    raise VendorSilent("no DNS answer from %s:%d: %s" % (address[0], address[1], error))


def _tcp(address: Tuple[str, int], asked: bytes) -> bytes:
    try:
        with socket.create_connection(address, TIMEOUT_S) as connection:
            connection.sendall(struct.pack("!H", len(asked)) + asked)
            with connection.makefile("rb") as stream:
                (size,) = struct.unpack("!H", stream.read(2))
                return stream.read(size)
    except (OSError, struct.error) as error:
        raise VendorSilent("no DNS answer over TCP from %s:%d: %s" % (address[0], address[1], error)) from error


def _addresses(answer: bytes, number: int, family: int) -> Set[str]:
    questions, answers = struct.unpack("!2H", answer[4:8])
    place, found = 12, set()
    for _ in range(questions):
        place = _skip_name(answer, place) + 4
    for _ in range(answers):
        place = _skip_name(answer, place)
        kind, _, _, size = struct.unpack("!HHIH", answer[place : place + 10])
        if kind == number:
            found.add(socket.inet_ntop(family, answer[place + 10 : place + 10 + size]))
        place += 10 + size
    return found


def _skip_name(answer: bytes, place: int) -> int:
    while answer[place] and answer[place] < 0xC0:
        place += answer[place] + 1
    return place + (2 if answer[place] >= 0xC0 else 1)
