"""How long a publication takes, from start to confirmed by reading back. Run with `pytest -m bench -s`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import pytest

from k4t.model.participant import Kind
from k4t.registrar.document import Document, Endpoint, Record, Route
from tests.publication.conftest import PROD, Site, backend, changing, record, route, tcp

pytestmark = pytest.mark.bench
ROUNDS = 40


def spent_ms(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return (time.monotonic() - started) * 1000


@pytest.mark.parametrize("kind", ["gateway", "dns"])
def test_one_publication(clean: Site, kind: Kind) -> None:
    """One endpoint more, one less, within one run."""
    publisher = clean.publisher()
    rest = {"routes": (route(),), "checks": (tcp(),)} if kind == "gateway" else {"records": (record(),)}

    def publish(*ports: int) -> None:
        publisher.publish(kind, "default", changing(kind, PROD, endpoints=backend(clean, *ports), **rest))

    first = spent_ms(lambda: publish(8001))
    ports = ((8001, 8002), (8001,))
    times = sorted(spent_ms(partial(publish, *ports[n % 2])) for n in range(ROUNDS))
    print(f"{kind}: first {first:.0f} ms, median {statistics.median(times):.1f} ms, worst {times[-1]:.1f} ms")
    assert statistics.median(times) < 150


def test_a_thousand_endpoints(clean: Site) -> None:
    """1,000 endpoints in 20 names, in one publication."""
    apps = [f"app{n}" for n in range(20)]
    endpoints = tuple(
        Endpoint(app, f"10.{n}.{m // 250}.{m % 250}", 80) for n, app in enumerate(apps) for m in range(50)
    )

    def big(kind: Kind) -> Callable[[Document | None], Document]:
        if kind == "gateway":
            routes = tuple(Route(app, domains=(f"{app}.example.com",)) for app in apps)
            return changing(kind, PROD, endpoints=endpoints, routes=routes)
        return changing(kind, PROD, endpoints=endpoints, records=tuple(Record(app, app) for app in apps))

    kinds: tuple[Kind, ...] = ("gateway", "dns")
    for kind in kinds:
        publisher = clean.publisher()
        for member in clean.members:
            member.observe()  # which starts the registrar
        ms = spent_ms(partial(publisher.publish, kind, "default", big(kind)))
        print(f"{kind}: 1,000 endpoints in 20 names {ms:.0f} ms")
        assert ms < 2000


def test_observing(clean: Site) -> None:
    """The first question of a run (starts the registrar), and the next."""
    for kind in ("gateway", "dns"):
        member = clean.envoy() if kind == "gateway" else clean.dnsmasq()
        first, second = spent_ms(member.observe), spent_ms(member.observe)
        print(f"{kind}: first observe {first:.0f} ms, next {second:.1f} ms")
