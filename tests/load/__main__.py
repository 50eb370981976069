"""Send traffic until the time is up or SIGTERM: python -m tests.load --target 10.88.1.21:80 --host web.k4t.lab …

Says what became of it; --save keeps every sample.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from pathlib import Path

from tests.load.client import Client, Traffic
from tests.load.names import Address
from tests.load.report import Report


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    traffic = Traffic(
        options.target, options.host, options.rate, options.duration, options.fresh_every, options.timeout,
        options.resolver, options.port,
    )  # fmt: skip
    gc.disable()  # its pauses would count as the servers'
    report = asyncio.run(_send(traffic))
    if options.save:
        report.save(options.save)
    print(report.words())
    return 1 if report.lost else 0


async def _send(traffic: Traffic) -> Report:
    client = Client(traffic)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, setattr, client, "stopping", True)
    print("sending", file=sys.stderr, flush=True)
    began_at, samples = await client.run()
    return Report(began_at, samples)


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--target", type=_address, action="append", default=[], help="ADDRESS:PORT, taken in turn")
    parser.add_argument(
        "--resolver", type=_address, help="ADDRESS:PORT of a DNS server: hosts are asked there, without targets"
    )
    parser.add_argument("--port", type=int, default=80, help="of what the resolver's answers lead to")
    parser.add_argument("--host", action="append", required=True, help="the Host header, taken in turn")
    parser.add_argument("--rate", type=float, default=500, help="requests a second (default 500)")
    parser.add_argument("--duration", type=float, default=10, help="seconds (default 10)")
    parser.add_argument("--fresh-every", type=int, default=5, help="each so many-th comes on a new connection")
    parser.add_argument("--timeout", type=float, default=10, help="seconds until an answer counts as lost")
    parser.add_argument("--save", type=Path, help="a JSON file for all samples")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
