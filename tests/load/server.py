"""A web server in a container, as application servers are: it keeps connections, takes a moment for each answer, and
ends at once on SIGTERM, whatever is under way. PORT, VER, SLOWEST_MS; KEEP_S: an idle connection is closed after it, 0
closes each after its answer. (The tiny image's own server lets 9 connections wait: too few for a machine that is busy.)
"""

from __future__ import annotations

import asyncio
import os
import signal

SLOWEST_S = int(os.environ.get("SLOWEST_MS", "20")) / 1000
KEEP_S = float(os.environ.get("KEEP_S", "3600"))
BODY = f"node={os.uname().nodename} port={os.environ.get('PORT')} version={os.environ.get('VER', '1')}\n".encode()
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: " + str(len(BODY)).encode() + b"\r\n"


class Connection(asyncio.Protocol):
    served = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.received = transport, b""
        self.timer = asyncio.get_running_loop().call_later(KEEP_S or 3600, transport.close)

    def data_received(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            Connection.served += 1
            delay_s = SLOWEST_S * (Connection.served % 16) / 15
            self.timer.cancel()
            asyncio.get_running_loop().call_later(
                delay_s, self._answer, KEEP_S == 0 or b"connection: close" in head.lower()
            )

    def _answer(self, closing: bool) -> None:
        self.transport.write(HEAD + (b"Connection: close\r\n\r\n" if closing else b"\r\n") + BODY)
        if closing:
            self.transport.close()
        else:
            self.timer = asyncio.get_running_loop().call_later(KEEP_S, self.transport.close)

    def connection_lost(self, _error: Exception | None) -> None:
        self.timer.cancel()


async def serve() -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, os._exit, 0)
    server = await loop.create_server(Connection, os.environ.get("ADDRESS", ""), int(os.environ["PORT"]), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
