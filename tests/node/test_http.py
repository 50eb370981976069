"""HTTP/1.1 over a stream: every framing, every cut, within one deadline."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t.errors import StepError
from k4t.node.http import Broken, Garbled, Pool, Reply, TooSlow, Wire, read_reply, read_status, send_request

pytestmark = pytest.mark.unit

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n5;x=y\r\npedia\r\n0\r\nT: 1\r\n\r\n"
SIZED = b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nWikipedia"
CLOSED = b"HTTP/1.0 200 OK\r\n\r\nWikipedia"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
EARLY = b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED


class Script:
    """A stream that says what it was given, in pieces, then ends (or is silent)."""

    def __init__(self, *pieces: bytes, silent: bool = False) -> None:
        self.pieces = list(pieces)
        self.silent = silent
        self.sent = b""
        self.closed = False

    def settimeout(self, timeout: float | None) -> None:
        self.timeout = timeout

    def recv(self, size: int) -> bytes:
        if not self.pieces:
            if self.silent:
                raise TimeoutError
            return b""
        piece = self.pieces.pop(0)
        if len(piece) > size:
            self.pieces.insert(0, piece[size:])
        return piece[:size]

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True


def wire(*pieces: bytes, silent: bool = False, seconds: float = 5.0) -> Wire:
    made = Wire(Script(*pieces, silent=silent))
    made.begin(time.monotonic() + seconds)
    return made


def read(*pieces: bytes, limit: int = 1000) -> Reply:
    return read_reply(wire(*pieces), "GET", max_body_bytes=limit)


def test_a_request_is_written_whole() -> None:
    """One request: its line, its headers, its length, its body."""
    made = wire()
    send_request(made, "POST", "/x?a=1", {"Host": "h"}, b"{}")
    assert made.stream.sent == b"POST /x?a=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("data", "status", "body", "reusable"),
    [
        (CHUNKED, 200, b"Wikipedia", True),
        (SIZED, 404, b"Wikipedia", True),
        (CLOSED, 200, b"Wikipedia", False),
        (EMPTY, 204, b"", True),
        (EARLY, 404, b"Wikipedia", True),
    ],
)
def test_every_framing_is_read(data: bytes, status: int, body: bytes, reusable: bool) -> None:
    """Chunked, sized, until close, empty, and after an informational reply."""
    reply = read(data)
    assert (reply.status, reply.body, reply.reusable) == (status, body, reusable)


@given(st.sampled_from([CHUNKED, SIZED, EMPTY, EARLY]), st.lists(st.integers(0, 120), max_size=12))
def test_pieces_do_not_matter(data: bytes, cuts: list[int]) -> None:
    """However the network cuts it, the reply is the same."""
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    pieces = [data[a:b] for a, b in itertools.pairwise(edges) if a < b]
    assert read(*pieces) == read(data)


@given(st.sampled_from([CHUNKED, SIZED]), st.integers(0, 200))
def test_a_cut_reply_is_broken(data: bytes, end: int) -> None:
    """A reply that ends early is never taken for a whole one; nothing at all is told apart from something."""
    cut = data[: min(end, len(data) - 1)]
    with pytest.raises(Broken) as broken:
        read(cut)
    assert broken.value.silent is (not cut)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3E9\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 201,
        b"x" * 70_000,
        b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 1001,
    ],
)
def test_what_is_no_reply_is_garbled(data: bytes) -> None:
    """Another protocol, broken framing and more than the limit are refused."""
    with pytest.raises(Garbled):
        read(data)


def test_silence_is_too_slow() -> None:
    """A deadline holds for the whole exchange."""
    with pytest.raises(TooSlow):
        read_reply(wire(SIZED[:20], silent=True), "GET", max_body_bytes=100)
    with pytest.raises(TooSlow):
        read_status(wire(SIZED, seconds=-1.0))


def test_connections_are_reused_and_bounded() -> None:
    """An idle connection serves the next exchange; the limit makes the next one wait, not for ever."""
    streams: list[Script] = []

    def connect() -> Script:
        streams.append(Script())
        return streams[-1]

    pool = Pool(connect, limit=1)
    first = pool.take(time.monotonic() + 1)
    with pytest.raises(StepError, match="busy"):
        pool.take(time.monotonic() + 0.01)
    pool.give(first, reusable=True)
    assert pool.take(time.monotonic() + 1) is first
    pool.give(first, reusable=False)
    assert streams[0].closed
    other = pool.take(time.monotonic() + 1)
    assert other is not first
    pool.close()
    pool.give(other, reusable=True)
    assert streams[1].closed


def test_a_failed_dial_gives_its_place_back() -> None:
    """Connecting may fail any number of times without using the pool up."""

    def refuse() -> Script:
        raise StepError("no")

    pool = Pool(refuse, limit=1)
    for _ in range(3):
        with pytest.raises(StepError, match="no"):
            pool.take(time.monotonic() + 1)


def test_many_threads_share_a_pool() -> None:
    """Never more connections in use than the limit."""
    pool = Pool(Script, limit=3)
    busy, most, guard = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal busy, most
        for _ in range(50):
            wire = pool.take(time.monotonic() + 30)
            with guard:
                busy += 1
                most = max(most, busy)
            with guard:
                busy -= 1
            pool.give(wire, reusable=True)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 3
