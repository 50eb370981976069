"""Clients of two gateways or two DNS servers, in a process of their own: python -m tests.bench.clients KIND ADDRESS ….

watch-http, watch-dns  ask each address again and again; a line `time before after where` whenever one answers otherwise
load                   ask each address with two clients, one on a connection that it keeps; what came of it at the end

They end when their standard input does.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections.abc import Callable

import dns.message
import dns.query

HOST = "web.example.com"
NAME = "web.k4t.lab."
PAUSE_S = 0.003


def ask_http(address: str) -> str:
    """A connection each: whichever of the gateway's workers takes it."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", "/", headers={"Host": HOST})
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def ask_dns(address: str) -> str:
    answer = dns.query.udp(dns.message.make_query(NAME, "A"), address, timeout=5)
    return ",".join(sorted(item.address for found in answer.answer for item in found))


def watch(ask: Callable[[str], str], address: str, ended: threading.Event) -> None:
    """`before`: when it was last seen to answer as it did."""
    value, seen_s = "", 0.0
    while not ended.is_set():
        began_s = time.monotonic()
        found = ask(address)
        if found != value:
            print(json.dumps([address, value, seen_s, found, time.monotonic()]), flush=True)
        value, seen_s = found, began_s
        time.sleep(PAUSE_S)


def load(address: str, *, keep: bool, ended: threading.Event, counts: list[int], wrong: list[str]) -> None:
    connection = http.client.HTTPConnection(address, timeout=10)
    while not ended.is_set():
        try:
            connection.request("GET", "/", headers={"Host": HOST})
            answer = connection.getresponse()
            answer.read()
            counts.append(answer.status)
            if answer.status != 200:
                wrong.append(f"{address}: {answer.status}")
        except (OSError, http.client.HTTPException) as error:
            wrong.append(f"{address}: {error!r}")
            connection.close()
        if not keep:
            connection.close()
        time.sleep(PAUSE_S)
    connection.close()


def main(kind: str, *addresses: str) -> None:
    ended = threading.Event()
    counts: list[int] = []
    wrong: list[str] = []
    threads = []
    for address in addresses:
        if kind == "load":
            for keep in (True, False):
                more = {"keep": keep, "ended": ended, "counts": counts, "wrong": wrong}
                threads.append(threading.Thread(target=load, args=(address,), kwargs=more))
        else:
            ask = ask_http if kind == "watch-http" else ask_dns
            threads.append(threading.Thread(target=watch, args=(ask, address, ended)))
    for thread in threads:
        thread.start()
    sys.stdin.read()
    ended.set()
    for thread in threads:
        thread.join()
    if kind == "load":
        print(json.dumps([len(counts), wrong]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
