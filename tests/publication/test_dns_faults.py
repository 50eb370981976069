"""dnsmasq and BIND in one group, with everything between them and the master broken at random.

K4T_FAULT_ROUNDS says how many publications (15); K4T_FAULT_SEED which ones.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Literal, TypeVar

import pytest

from k4t.dns import install, install_bind
from k4t.dns.dnsmasq import Dnsmasq
from k4t.dns.rfc2136 import Rfc2136
from k4t.dns.tsig import tsig_key
from k4t.dns.wire import dial
from k4t.errors import ConnectionLost, K4tError
from k4t.master.publication.publish import Published, Publisher
from k4t.model.participant import Participant
from k4t.model.state import ParticipantState
from k4t.registrar.document import Document, Endpoint, Epoch, Record
from tests.publication.between import Between, Fate
from tests.publication.conftest import PROD, changing
from tests.publication.dnspair import SECRET, Pair, pair

__all__ = ["pair"]
pytestmark = [pytest.mark.crash, pytest.mark.timeout(3600)]
ROUNDS = int(os.environ.get("K4T_FAULT_ROUNDS", "15"))
SEED = int(os.environ.get("K4T_FAULT_SEED", "1"))
FAULTS = 0.06
APPS = ("web", "api", "shop")
T = TypeVar("T")


class Meddler:
    """Breaks messages to BIND by chance, or has them come late. Only while `on`."""

    def __init__(self, target: tuple[str, int], chance: random.Random, done: Counter[str]) -> None:
        self.chance = chance
        self.done = done
        self.on = False
        self.between = Between(target, self._decide)

    def _decide(self) -> Fate:
        if not self.on or self.chance.random() > FAULTS:
            return "pass"
        what: Fate | Literal["late"] = self.chance.choice(("cut", "lost", "late"))
        self.done[f"BIND {what}"] += 1
        if what == "late":
            time.sleep(self.chance.uniform(0, 0.3))
            return "pass"
        return what


class Shaky:
    """dnsmasq's participant, whose SSH connection is cut before a message, or whose answer is lost after it."""

    kind, driver, capabilities = Dnsmasq.kind, Dnsmasq.driver, Dnsmasq.capabilities

    def __init__(self, inner: Dnsmasq, pair: Pair, chance: random.Random, done: Counter[str]) -> None:
        self.inner, self.pair, self.chance, self.done = inner, pair, chance, done
        self.name, self.group = inner.name, inner.group

    def observe(self) -> ParticipantState:
        return self.inner.observe()

    def fence(self, epoch: Epoch) -> None:
        self._told(lambda: self.inner.fence(epoch))

    def prepare(self, transaction: str, document: Document) -> None:
        self._told(lambda: self.inner.prepare(transaction, document))

    def commit(self, transaction: str) -> bool:
        return self._told(lambda: self.inner.commit(transaction))

    def abort(self, transaction: str) -> None:
        self._told(lambda: self.inner.abort(transaction))

    def verify(self, document: Document) -> tuple[str, ...]:
        return self._told(lambda: self.inner.verify(document))

    def close(self) -> None:
        self.inner.close()

    def _told(self, message: Callable[[], T]) -> T:
        what = self.chance.choice(("cut", "lost")) if self.chance.random() < FAULTS * 2 else "pass"
        if what != "pass":
            self.done[f"dnsmasq {what}"] += 1
        if what == "cut":
            self.pair.connection("dns1").close()
        answer = message()
        if what == "lost":
            raise ConnectionLost("the answer was lost", host=self.name)
        return answer


@pytest.fixture
def meddler(pair: Pair) -> Iterator[Meddler]:
    made = Meddler((pair.bind.address, pair.bind.port), random.Random(SEED), Counter())  # noqa: S311 - test data
    yield made
    made.between.close()


def repair(pair: Pair) -> None:
    """Power, and whatever was killed."""
    for name in ("dns1", "dns2"):
        if not pair.lab.host(name).is_on:
            pair.lab.host(name).power_on()
            pair.connections.pop(name, None)
    list(install.install(pair.connection("dns1"), pair.dnsmasq))
    list(install_bind.install(pair.connection("dns2"), pair.bind, tsig_key(pair.bind, lambda: SECRET)))


def kill(pair: Pair, what: str) -> None:
    with suppress(Exception):
        if what == "power":
            pair.lab.host("dns2").power_off()
        else:
            host = "dns1" if what == "dnsmasq" else "dns2"
            pair.lab.host(host).exec(["sh", "-c", f"kill -9 $(cat /run/k4t-{what}.pid)"])


def test_random_faults(pair: Pair, meddler: Meddler) -> None:
    """Cuts, lost and late answers at every message, killed servers, a host without power: whatever was acknowledged is
    there afterwards or was followed by something newer; after each healing both serve the same, exactly as desired."""
    chance, done = meddler.chance, meddler.done
    acknowledged = 0
    for number in range(ROUNDS):
        wanted = _wanted(chance)
        members: tuple[Participant, ...] = (
            Shaky(Dnsmasq(pair.dnsmasq, PROD, lambda: pair.connection("dns1")), pair, chance, done),
            Rfc2136(pair.bind, PROD, lambda: SECRET, lambda: dial("127.0.0.1", meddler.between.port)),
        )
        what = chance.choice(("dnsmasq", "named", "power")) if number % 9 == 8 else ""
        timer = threading.Timer(chance.uniform(0, 0.6), kill, (pair, what)) if what else None
        meddler.on = True
        if timer:
            timer.start()
        published = _publish(members, f"f{number}", wanted, degraded=chance.random() < 0.5, done=done)
        meddler.on = False
        if timer:
            timer.join()
            done[f"killed {what}"] += 1
            repair(pair)
        for member in members:
            member.close()
        if published is not None and not published.stale:
            acknowledged += 1
            _holds(pair, published)
        if number % 5 == 4 or what:
            _heal(pair, f"h{number}", wanted)
    _heal(pair, "end", wanted)
    print(f"{ROUNDS} publications, {acknowledged} acknowledged by both; {dict(done)}")
    assert acknowledged
    assert sum(done.values()) >= ROUNDS // 5


def _wanted(chance: random.Random) -> dict[str, object]:
    apps = chance.sample(APPS, chance.randint(0, 3))
    endpoints = tuple(
        Endpoint(app, f"10.{APPS.index(app)}.0.{one}", 80, container=f"{app}{one}")
        for app in apps
        for one in chance.sample(range(1, 30), chance.randint(0, 8))
    )
    return {"endpoints": endpoints, "records": tuple(Record(app, app) for app in apps)}


def _publish(
    members: tuple[Participant, ...], run: str, wanted: dict[str, object], *, degraded: bool, done: Counter[str]
) -> Published | None:
    try:
        found = Publisher(members, PROD, run).publish(
            "dns", "default", changing("dns", PROD, **wanted), degraded=degraded
        )
    except K4tError as error:
        done[f"ended with {type(error).__name__}"] += 1
        return None
    done["degraded"] += bool(found.stale)
    return found


def _holds(pair: Pair, published: Published) -> None:
    """What both acknowledged is live on both."""
    assert published.document is not None
    for member in pair.members():
        state = member.observe()
        assert state.document is not None, state
        assert state.document.digest == published.document.digest, (state.name, state.problem)
    pair.close()


def _heal(pair: Pair, run: str, wanted: dict[str, object]) -> None:
    """All answer and nobody meddles: one run, and both serve exactly this."""
    Publisher(pair.members(), PROD, run).publish("dns", "default", changing("dns", PROD, **wanted))
    pair.close()
    assert len(pair.digests()) == 1
    endpoints: tuple[Endpoint, ...] = wanted["endpoints"]  # type: ignore[assignment]
    for app in APPS:
        expected = sorted(endpoint.ip for endpoint in endpoints if endpoint.app == app)
        assert pair.answers(app) == (expected, expected)
