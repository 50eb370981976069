"""Random publications that can be played again: what each changes follows from its number and what was live before.

Each leaves a mark in the document: an endpoint of the app `mark` that says which publication it was and on which one
it was built. So of any document it can be told which publications are in it, and what it must say in full.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence

from k4t.model.participant import Kind
from k4t.model.spec import Cluster
from k4t.registrar.document import Check, Document, Endpoint, Record, Route, make

CLUSTERS = (Cluster("prod", "k7f3q2m9"), Cluster("other", "z9z9z9z9"), Cluster("third", "m5m5m5m5"))
APPS = ("web", "api", "shop", "mail")
CHECKED = "mail"
PER_APP = 5
MARK = "mark"


def port(app: str, one: int, cluster: int = 0) -> int:
    """Of a backend: none belongs to two apps or two clusters."""
    return 9000 + 100 * cluster + 10 * APPS.index(app) + one


PORTS = tuple(port(app, one, cluster) for cluster in range(3) for app in APPS for one in range(PER_APP))


@dataclasses.dataclass(frozen=True)
class Author:
    """`back`: where all backends are. `cluster`: which of CLUSTERS."""

    back: str
    kind: Kind
    seed: int
    cluster: int = 0

    def blank(self) -> Document:
        whose = CLUSTERS[self.cluster]
        return Document(whose.id, whose.name, self.kind, "default")

    def changed(self, before: Document, number: int) -> Document:
        """One to three things of one to three apps, and the mark."""
        chance = random.Random(f"{self.seed}:{self.cluster}:{number}")  # noqa: S311 - test data
        after = before
        for _ in range(chance.randint(1, 3)):
            after = self._step(after, chance.choice(APPS), chance)
        first, _, _ = mark(before)
        marked = Endpoint(
            MARK, f"10.{90 + self.cluster}.{number // 250}.{number % 250 + 1}", 9, container=f"n{number}-on-{first}"
        )
        rest = tuple(one for one in after.endpoints if one.app != MARK)
        records = {*after.records, Record(MARK, MARK)} if self.kind == "dns" else after.records
        return make(dataclasses.replace(after, endpoints=(*rest, marked), records=tuple(records)))

    def _step(self, before: Document, app: str, chance: random.Random) -> Document:
        have = {one.port for one in before.endpoints if one.app == app}
        every = [port(app, one, self.cluster) for one in range(PER_APP)]
        what = chance.choice(("add", "add", "remove", "replace", "name", "clear"))
        if what == "name":
            return self._named(before, app, chance)
        if what == "clear":
            return self._having(_without(before, app), app, ())
        wanted = {
            "add": have | {chance.choice(every)},
            "remove": have - {chance.choice(every)},
            "replace": set(chance.sample(every, chance.randint(0, 4))),
        }[what]
        return self._having(before, app, sorted(wanted))

    def _having(self, before: Document, app: str, ports: Sequence[int]) -> Document:
        mine = tuple(self.endpoint(app, number) for number in ports)
        return dataclasses.replace(before, endpoints=tuple(one for one in before.endpoints if one.app != app) + mine)

    def endpoint(self, app: str, number: int) -> Endpoint:
        """To a gateway an address and port that answer; to a DNS server an address for each port."""
        ip = self.back if self.kind == "gateway" else f"10.1.{self.cluster}.{number % 100 + 1}"
        return Endpoint(app, ip, number, container=f"c{number}")

    def _named(self, before: Document, app: str, chance: random.Random) -> Document:
        """Its routes or records: others, or none."""
        rest = _without(before, app)
        if chance.random() < 0.25:
            return rest
        if self.kind == "dns":
            ttl_s = 30  # one for all: dnsmasq has no more
            more = {Record(app, app, ttl_s=ttl_s), *chance.sample([Record(f"{app}-2", app, ttl_s=ttl_s)], 1)}
            return dataclasses.replace(rest, records=(*rest.records, *more))
        routes = [
            Route(app, domains=(f"{app}.example.com",), timeout_ms=chance.choice((20_000, 60_000))),
            Route(app, domains=(f"{app}2.example.com",), prefix="/deep/", strip_prefix=chance.random() < 0.5),
        ]
        checks = (Check(app, "main", "tcp", interval_ms=300, timeout_ms=2000),) if app == CHECKED else ()
        kept = routes if chance.random() < 0.5 else routes[:1]
        return dataclasses.replace(rest, routes=(*rest.routes, *kept), checks=(*rest.checks, *checks))


def _without(before: Document, app: str) -> Document:
    """Its endpoints alone are left of an app."""
    return dataclasses.replace(
        before,
        routes=tuple(one for one in before.routes if one.app != app),
        records=tuple(one for one in before.records if one.app != app),
        checks=tuple(one for one in before.checks if one.app != app),
    )


def mark(document: Document | None) -> tuple[int, int, str]:
    """(which publication this is, which one it was built on, the address that says so); zeros for a blank one."""
    for one in document.endpoints if document else ():
        if one.app == MARK:
            first, _, second = one.container.removeprefix("n").partition("-on-")
            return int(first), int(second), one.ip
    return 0, 0, ""


def chain(last: int, built_on: Mapping[int, int]) -> list[int]:
    """The publications that are in number `last`, oldest first."""
    found = []
    while last:
        found.append(last)
        last = built_on[last]
    return found[::-1]


def played(author: Author, numbers: Sequence[int]) -> Document:
    """What must be live when these were published, one on top of the other."""
    document = author.blank()
    for number in numbers:
        document = author.changed(document, number)
    return document


def numbered(author: Author, number: int, write: Callable[[int, int], None]) -> Callable[[Document | None], Document]:
    """A change for the publisher; `write` is told (number, what it is built on) before anything is sent."""

    def change(live: Document | None) -> Document:
        before = live or author.blank()
        write(number, mark(before)[0])
        return author.changed(before, number)

    return change
