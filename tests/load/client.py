"""An open-loop HTTP/1.1 client: request k is sent at k / rate, however slow the answers are.

Connections are kept and used again as browsers do; a share of the requests comes on a connection of its own that is
closed after it. With `resolver`, targets are what DNS says of the host at that moment: an answer is used for its TTL,
and a kept connection as long as DNS names its far end. Nothing is tried again: an answer that isn't a 2xx or 3xx, a
connection refused or reset, also one that was idle, and no answer in time each count as a lost request. Latencies
count from when the request was due.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from tests.load.names import Address, Names
from tests.load.report import OK, Sample

MAX_UNDER_WAY = 4000
MAX_HEAD_BYTES = 65536
SHOWN_BYTES = 200
TICK_S = 0.001


@dataclass(frozen=True, slots=True)
class Traffic:
    """What to send. Targets and hosts are taken in turn. `fresh_every`: each so many-th request on a new connection.
    `resolver`: the DNS server to ask for targets, where there are none; `port` is theirs."""

    targets: Sequence[Address]
    hosts: Sequence[str]
    rate_per_s: float
    duration_s: float
    fresh_every: int = 5
    timeout_s: float = 10.0
    resolver: Address | None = None
    port: int = 80


class Request:
    """One request: when it was due, and how it ended."""

    def __init__(self, client: Client, number: int, due_s: float, *, fresh: bool) -> None:
        self.client, self.number, self.due_s, self.fresh = client, number, due_s, fresh
        traffic = client.traffic
        self.target: Address = ("", 0)
        self.host = traffic.hosts[number // max(1, len(traffic.targets)) % len(traffic.hosts)]
        closing = "Connection: close\r\n" if fresh else ""
        self.message = f"GET /?{number} HTTP/1.1\r\nHost: {self.host}\r\n{closing}\r\n".encode()
        self.sent_s = client.loop.time()
        self.connection: Connection | None = None
        self.timer = client.loop.call_later(traffic.timeout_s, self.end, "time-out")

    def end(self, outcome: str) -> None:
        """Once; later words don't count."""
        if self not in self.client.under_way:
            return
        self.client.under_way.discard(self)
        self.timer.cancel()
        now_s = self.client.loop.time()
        self.client.note(self, outcome, now_s)
        connection = self.connection
        if connection is not None and (outcome == "time-out" or self.fresh):
            connection.close()


class Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    def __init__(self, client: Client, target: Address) -> None:
        self.client, self.target = client, target
        self.transport: asyncio.Transport | None = None
        self.request: Request | None = None
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, request: Request) -> None:
        assert self.transport is not None
        self.request, self.received = request, b""
        request.connection = self
        self.transport.write(request.message)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.request is None:
            self.close()
            return
        try:
            status, keep = parse(self.received)
        except ValueError as error:
            self._ended(f"garbled: {error}")
            self.close()
            return
        if status:
            self._ended(OK if 200 <= status < 400 else self._refusal(status))
            if keep and self.transport is not None and self._is_named():
                self.client.idle[self.target].append(self)
            else:
                self.close()

    def _is_named(self) -> bool:
        names = self.client.names
        return names is None or self.target in names.current()

    def _refusal(self, status: int) -> str:
        """With the first of its words, and who was asked: a gateway says there why it has no answer."""
        host = self.request.host if self.request else ""
        words = " ".join(self.received.partition(b"\r\n\r\n")[2][:SHOWN_BYTES].decode("latin-1").split())
        return f"status {status} for {host}: {words}"

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self in self.client.idle[self.target]:
            self.client.idle[self.target].remove(self)
        self._ended("reset" if error else "closed without an answer")

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def _ended(self, outcome: str) -> None:
        request, self.request = self.request, None
        if request is not None:
            request.end(outcome)


class Client:
    """Sends the traffic and keeps a sample of each request."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.loop = asyncio.get_running_loop()
        self.names = Names(traffic.resolver, traffic.port) if traffic.resolver else None
        self.idle: defaultdict[Address, deque[Connection]] = defaultdict(deque)
        self.under_way: set[Request] = set()
        self.samples: list[Sample] = []
        self.stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> tuple[float, list[Sample]]:
        """Until the time is up or `stopping` is set. Returns the wall time of the beginning (Unix, s), and samples."""
        self.began_s, began_at = self.loop.time(), time.time()
        number, total = 0, int(self.traffic.rate_per_s * self.traffic.duration_s)
        while number < total and not self.stopping:
            due_s = self.began_s + number / self.traffic.rate_per_s
            wait_s = due_s - self.loop.time()
            if wait_s > 0:
                await asyncio.sleep(max(wait_s, TICK_S))
                continue
            self._fire(number, due_s)
            number += 1
        deadline_s = self.loop.time() + self.traffic.timeout_s + 1
        while self.under_way and self.loop.time() < deadline_s:
            await asyncio.sleep(0.02)
        return began_at, self.samples

    def note(self, request: Request, outcome: str, now_s: float) -> None:
        at_s = request.due_s - self.began_s
        self.samples.append(Sample(at_s, now_s - request.due_s, request.sent_s - request.due_s, outcome))

    def _fire(self, number: int, due_s: float) -> None:
        fresh = number % self.traffic.fresh_every == 0
        request = Request(self, number, due_s, fresh=fresh)
        self.under_way.add(request)
        known = self.names.now(request.host) if self.names else self.traffic.targets
        if known is None:
            self._begin(self._ask(request))
        else:
            self._send(request, known)

    async def _ask(self, request: Request) -> None:
        assert self.names is not None
        found = await self.names.ask(request.host)
        for target in self.idle.keys() - self.names.current():
            for connection in self.idle.pop(target):
                connection.close()
        self._send(request, found)

    def _send(self, request: Request, targets: Sequence[Address]) -> None:
        if not targets:
            request.end("no address")
            return
        request.target = targets[request.number % len(targets)]
        idle = self.idle[request.target]
        if not request.fresh and idle:
            idle.pop().send(request)
        elif len(self.under_way) > MAX_UNDER_WAY:
            request.end(f"not sent: {MAX_UNDER_WAY} are under way")
        else:
            self._begin(self._connect(request))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, request: Request) -> None:
        host, port = request.target
        try:
            async with asyncio.timeout(self.traffic.timeout_s):
                _, made = await self.loop.create_connection(lambda: Connection(self, request.target), host, port)
        except ConnectionRefusedError:
            request.end("refused")
        except TimeoutError:
            request.end("time-out")
        except OSError as error:
            request.end(f"no connection: {error.strerror}")
        else:
            if made.transport is None:
                request.end("reset")
            else:
                made.send(request)


def parse(received: bytes) -> tuple[int, bool]:
    """The status of a complete answer and whether its connection may be kept; (0, False) while more is to come.

    Raises ValueError for what is no answer.
    """
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        if len(received) > MAX_HEAD_BYTES:
            raise ValueError("the head is too long")
        return 0, False
    lines = head.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
        raise ValueError(f"{lines[0][:40]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    keep = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    if "content-length" in headers:
        complete = len(body) >= int(headers["content-length"])
    elif headers.get("transfer-encoding", "").lower() == "chunked":
        complete = body.endswith(b"0\r\n\r\n")
    else:
        raise ValueError("an answer whose end can't be told")
    return (int(rest[:3]), keep) if complete else (0, False)
