"""Replies that go on, cut into pieces at every place."""

from __future__ import annotations

import struct

import pytest

from k4t.errors import ConnectionLost
from k4t.model.state import Container
from k4t.node.call import Caller, Request
from k4t.node.flow import Flow
from k4t.node.logs import lines
from k4t.remote.fake import FakeTransport

pytestmark = pytest.mark.unit
CONTAINER = Container("i", "prod.web.0.1", "n1", "web", "0", 1, 1, "v1:x", "", "")


class Pieces:
    """A stream that hands out given pieces, whatever is asked."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self.sent = b""

    def settimeout(self, timeout: float | None) -> None: ...
    def recv(self, size: int) -> bytes:
        assert size
        return self._pieces.pop(0) if self._pieces else b""

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None: ...


class Hands(FakeTransport):
    """A host whose Engine says what it is told."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self.pieces = Pieces(pieces)

    def connect_docker(self) -> Pieces:
        return self.pieces


def flow(reply: bytes, size: int, *, chunked: bool = True) -> Flow:
    framing = b"Transfer-Encoding: chunked" if chunked else b"Connection: close"
    whole = b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n" + reply
    transport = Hands([whole[at : at + size] for at in range(0, len(whole), size)])
    return Flow(Caller(transport), transport, Request("GET", "/x"), upgrade=False)


def frame(channel: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", channel, len(data)) + data


def chunks(data: bytes, size: int) -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


AT = b"2026-11-20T10:00:0%d.000000000Z "
LOG = (
    frame(1, AT % 1 + b"one\n")
    + frame(2, AT % 2 + b"two \xc3\xbc\n")
    + frame(1, AT % 3 + b"begun ")
    + frame(2, AT % 4 + b"between\n")
    + frame(1, AT % 5 + b"and ended\n")
    + frame(1, AT % 6 + b"no end")
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 64, 10_000])
@pytest.mark.parametrize("chunk", [1, 5, 8, 9, 1000])
def test_a_log_is_the_same_however_it_comes(size: int, chunk: int) -> None:
    """Lines of both streams with their times; a line that Docker kept in parts is one; the last needs no end."""
    found = [(line.at[17:19], line.channel, line.text) for line in lines(flow(chunks(LOG, chunk), size), CONTAINER)]
    assert found == [
        ("01", "stdout", "one"),
        ("02", "stderr", "two ü"),
        ("04", "stderr", "between"),
        ("03", "stdout", "begun and ended"),
        ("06", "stdout", "no end"),
    ]


@pytest.mark.parametrize("size", [1, 4, 31, 10_000])
def test_the_log_of_a_container_with_a_terminal_is_not_framed(size: int) -> None:
    """It begins with a timestamp instead of a frame, and its lines end as terminals' do."""
    text = AT % 1 + b"one\r\n" + AT % 2 + b"two\r\n"
    found = [(line.at[17:19], line.text) for line in lines(flow(text, size, chunked=False), CONTAINER)]
    assert found == [("01", "one"), ("02", "two")]


def test_messages_are_objects_a_line_each() -> None:
    """Cut anywhere; an empty line is none."""
    found = flow(chunks(b'{"a":1}\n\n{"b":\n"x"}'.replace(b'\n"', b'"') + b"\n", 3), 5).messages()
    assert list(found) == [{"a": 1}, {"b": "x"}]


def test_half_a_log_does_not_pass_for_a_whole_one() -> None:
    """What came is given, and then that the connection broke; after our own close it is just the end."""
    cut = chunks(LOG, 50)[:-5]
    found: list[str] = []
    with pytest.raises(ConnectionLost):
        found.extend(line.text for line in lines(flow(cut, 10), CONTAINER))
    assert found[:2] == ["one", "two ü"]
    begun = flow(cut, 10)
    taken = [next(pieces := begun.pieces())]
    begun.close()
    taken += pieces
    assert b"one" in b"".join(taken)
