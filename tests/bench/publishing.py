"""Publishing to Envoy and HAProxy, dnsmasq and BIND, each on a host of its own, all on this machine.

python -m tests.bench --only publishing. Connections are open and registrars run, as they are after a plan; each
publication is a run of its own: what is live is read, fenced, prepared, committed, read back.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from k4t.master.publication.publish import Publisher
from k4t.master.publication.redolog import LogPlace
from k4t.model.participant import Kind
from k4t.registrar.document import Check, Document, Endpoint, Record, Route, make
from tests.bench.figures import Row
from tests.publication.changes import port
from tests.publication.four import DRIVERS, Four, new_lab, set_up

GROUPS: tuple[Kind, ...] = ("gateway", "dns")
TITLES = {"gateway": "Envoy + HAProxy", "dns": "dnsmasq + BIND"}
TIMES = 200
CHANGES = 1000
BIG_TIMES = 5
WINDOW_S = 0.3
BIG_S = 2.0
SETS = ((0,), (0, 1), (1, 2), (0, 2), (1,))


class Bench:
    """`run` numbers runs; a log in a directory of its own makes each publication wait for a real disk."""

    def __init__(self, four: Four, directory: Path) -> None:
        self.four = four
        self.directory = directory
        self.runs = itertools.count(1)
        self.log = LogPlace(directory, four.looker.cluster.id, directory, lambda: "2026-11-20T12:00:00Z")

    def publisher(self, *kinds: Kind) -> Publisher:
        members = [member for kind in kinds for member in self.four.members(kind)]
        return Publisher(members, self.four.looker.cluster, f"bench{next(self.runs)}", log=self.log, who="bench")

    def document(self, kind: Kind, endpoints: Sequence[Endpoint], apps: Sequence[str]) -> Document:
        cluster = self.four.looker.cluster
        made = Document(cluster.id, cluster.name, kind, "default", endpoints=tuple(endpoints))
        if kind == "dns":
            return make(replace(made, records=tuple(Record(app, app) for app in apps)))
        routes = tuple(Route(app, domains=(f"{app}.example.com",)) for app in apps)
        return make(replace(made, routes=routes, checks=(Check("web", "main", "tcp"),)))

    def web(self, kind: Kind, *which: int) -> Document:
        """App web with these of its backends; names lead to as many addresses."""
        ips = [self.four.back if kind == "gateway" else f"10.1.0.{one + 1}" for one in which]
        found = [Endpoint("web", ip, port("web", one), container=f"c{one}") for ip, one in zip(ips, which, strict=True)]
        return self.document(kind, found, ["web"])

    def big(self, kind: Kind) -> Document:
        """1,000 endpoints in 20 names."""
        apps = [f"app{number}" for number in range(20)]
        found = [Endpoint(app, f"10.2.{n}.{one + 1}", 80) for n, app in enumerate(apps) for one in range(50)]
        return self.document(kind, found, apps)

    def publish(self, documents: Mapping[Kind, Document]) -> float:
        """A run; the groups at the same time, as an apply does. Seconds until the last is confirmed."""
        publisher = self.publisher(*documents)
        began_s = time.perf_counter()
        with ThreadPoolExecutor(len(documents)) as pool:
            asked = [
                pool.submit(publisher.publish, kind, "default", _becomes(document))
                for kind, document in documents.items()
            ]
            for published in asked:
                published.result()
        took_s = time.perf_counter() - began_s
        publisher.close()
        return took_s


def _becomes(document: Document) -> Callable[[Document | None], Document]:
    return lambda _: document


def measure(directory: Path, *, quick: bool) -> list[Row]:
    times = 20 if quick else TIMES
    with new_lab("bench-pub") as lab:
        bench = Bench(set_up(lab, directory / "four"), directory)
        rows = [_all_four(bench, times)]
        rows += [_window(bench, kind, times) for kind in GROUPS]
        rows += [_big(bench, kind, 2 if quick else BIG_TIMES) for kind in GROUPS]
        rows.append(_traffic(bench, 50 if quick else CHANGES))
        for member in bench.four.looker.members.values():
            member.close()
    return rows


def _all_four(bench: Bench, times: int) -> Row:
    """One endpoint more, one less, …"""
    bench.publish({kind: bench.web(kind, 0) for kind in GROUPS})
    seconds = [
        bench.publish({kind: bench.web(kind, *((0, 1) if turn % 2 == 0 else (0,))) for kind in GROUPS})
        for turn in range(times)
    ]
    return _row(f"a publication to all four, {times} times", seconds, float("inf"), "-")


def _window(bench: Bench, kind: Kind, times: int) -> Row:
    """All endpoints exchanged: from the first new answer of one member to the last old one of the other."""
    bench.publish({kind: bench.web(kind, 0)})
    addresses = [bench.four.address(driver) for driver in DRIVERS[kind]]
    with _client("watch-http" if kind == "gateway" else "watch-dns", addresses) as watcher:
        time.sleep(0.5)
        began = []
        for turn in range(times):
            began.append(time.monotonic())
            bench.publish({kind: bench.web(kind, (turn + 1) % 2)})
            time.sleep(0.05)
    seen = [json.loads(line) for line in watcher.said]
    windows = [
        _apart(seen, since_s, until_s) for since_s, until_s in zip(began, [*began[1:], float("inf")], strict=True)
    ]
    name = f"{TITLES[kind]} differ, {times} exchanges"
    return _row(name, windows, WINDOW_S, f"p99 <= {WINDOW_S:g} s", of_p99=True)


def _apart(seen: Sequence[Any], since_s: float, until_s: float) -> float:
    mine = [(float(old_s), float(new_s)) for _, _, old_s, _, new_s in seen if since_s <= new_s < until_s]
    return max(0.0, max(old_s for old_s, _ in mine) - min(new_s for _, new_s in mine))


def _big(bench: Bench, kind: Kind, times: int) -> Row:
    seconds = []
    for _ in range(times):
        bench.publish({kind: bench.web(kind, 0)})
        seconds.append(bench.publish({kind: bench.big(kind)}))
    return _row(f"1,000 endpoints in 20 names, {TITLES[kind]}", seconds, BIG_S, f"<= {BIG_S:g} s")


def _traffic(bench: Bench, changes: int) -> Row:
    bench.publish({"gateway": bench.web("gateway", 0, 1)})
    addresses = [bench.four.address(driver) for driver in DRIVERS["gateway"]]
    with _client("load", addresses) as client:
        for turn in range(changes):
            bench.publish({"gateway": bench.web("gateway", *SETS[turn % len(SETS)])})
    answered, wrong = json.loads(client.said[-1])
    print("\n".join(sorted(set(wrong))), file=sys.stderr)
    name = f"lost of {answered:,} requests during {changes:,} membership changes"
    return Row(name, ("", "", str(len(wrong)), "", ""), float(len(wrong)), 0.0, "0")


def _row(name: str, seconds: Sequence[float], most: float, target: str, *, of_p99: bool = False) -> Row:
    p99_s = quantiles(seconds, n=100, method="inclusive")[98]
    cells = (f"{median(seconds):.3f} ({min(seconds):.3f}-{max(seconds):.3f})", "", f"p99 {p99_s:.3f} s", "", "")
    return Row(name, cells, p99_s if of_p99 else median(seconds), most, target)


class Client:
    def __init__(self, kind: str, addresses: Sequence[str]) -> None:
        argv = [sys.executable, "-m", "tests.bench.clients", kind, *addresses]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.said: list[str] = []

    def end(self) -> None:
        self.said = self.process.communicate(timeout=60)[0].splitlines()


@contextmanager
def _client(kind: str, addresses: Sequence[str]) -> Iterator[Client]:
    client = Client(kind, addresses)
    try:
        yield client
    finally:
        client.end()
