"""Where a name leads to, as a client with a resolver of its own sees it: an answer counts for its TTL, no longer."""

from __future__ import annotations

import asyncio

import dns.asyncquery
import dns.exception
import dns.message
import dns.rdatatype

Address = tuple[str, int]
TIMEOUT_S = 2.0
TRIES = 3


class Names:
    """Of all names that the traffic is for; `port` is what their servers listen on."""

    def __init__(self, server: Address, port: int) -> None:
        self.server, self.port = server, port
        self._known: dict[str, tuple[float, tuple[Address, ...]]] = {}
        self._asking: dict[str, asyncio.Task[tuple[Address, ...]]] = {}

    def now(self, name: str) -> tuple[Address, ...] | None:
        """None when it has to be asked for (again)."""
        until_s, addresses = self._known.get(name, (0.0, ()))
        return addresses if asyncio.get_running_loop().time() < until_s else None

    async def ask(self, name: str) -> tuple[Address, ...]:
        """One question at a time, whoever waits for the answer; () for none."""
        if name not in self._asking:
            self._asking[name] = asyncio.create_task(self._ask(name))
            self._asking[name].add_done_callback(lambda _: self._asking.pop(name))
        return await self._asking[name]

    def current(self) -> set[Address]:
        return {address for _, addresses in self._known.values() for address in addresses}

    async def _ask(self, name: str) -> tuple[Address, ...]:
        asked = dns.message.make_query(name, dns.rdatatype.A)
        for _ in range(TRIES):
            try:
                answer = await dns.asyncquery.udp(asked, self.server[0], TIMEOUT_S, self.server[1])
            except (OSError, dns.exception.DNSException):
                continue
            records = [(item.address, group.ttl) for group in answer.answer for item in group if item.rdtype == 1]
            addresses = tuple(sorted((address, self.port) for address, _ in records))
            ttl_s = min((ttl for _, ttl in records), default=0)
            self._known[name] = (asyncio.get_running_loop().time() + ttl_s, addresses)
            return addresses
        return ()
