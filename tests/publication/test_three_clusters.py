"""Three masters of three clusters that know nothing of each other, at once, on the same gateways and DNS servers.

K4T_FULL=1: 200 publications a kind; else a few.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from k4t.model.participant import Kind
from k4t.registrar.document import Document
from tests.publication.changes import CLUSTERS, Author, chain, mark, played
from tests.publication.four import DRIVERS, Four, Process, four, hosts, until
from tests.publication.master import Ended, Job

__all__ = ["four", "hosts"]
pytestmark = [pytest.mark.integration, pytest.mark.timeout(3600 if "K4T_FULL" in os.environ else 300)]
PUBLICATIONS = int(os.environ.get("K4T_RACE_ROUNDS", "200" if "K4T_FULL" in os.environ else "15"))
TRIES = 3


def race(master: Process, cluster: int, kind: Kind) -> list[Ended]:
    """A third of the publications; one that was refused is tried again, as somebody would who is told so."""
    done: list[Ended] = []
    for number in range(1, PUBLICATIONS * TRIES):
        done.append(master.do(Job(number, kind)))
        if sum(one.acknowledged for one in done) * len(CLUSTERS) >= PUBLICATIONS:
            break
    return done


@pytest.mark.parametrize("kind", ["gateway", "dns"])
def test_three_race(four: Four, kind: Kind) -> None:
    """The same app names from all three: in the end each one's own document is whole on both members, and both serve
    exactly the union."""
    began_s = time.monotonic()
    masters = [
        four.master(four.config(f"race-{kind}-{number}", DRIVERS[kind], cluster=number, seed=7))
        for number in range(len(CLUSTERS))
    ]
    with ThreadPoolExecutor(len(masters)) as pool:
        all_done = list(pool.map(lambda one: race(one, masters.index(one), kind), masters))
    took_s = time.monotonic() - began_s
    published = sum(one.acknowledged for done in all_done for one in done)
    refused = [one.error for done in all_done for one in done if not one.acknowledged]
    print(f"\n{'/'.join(DRIVERS[kind])}: {published} in {took_s:.1f} s, {len(refused)} tried again: {set(refused)}")
    assert published >= PUBLICATIONS
    expected = tuple(_expected(four, kind, number, done) for number, done in enumerate(all_done))
    for state in four.settled(kind):
        assert state.differences == ()
        assert state.document
        live = {one.cluster: one.digest for one in (state.document, *state.others)}
        assert live == {one.cluster: one.digest for one in expected}, state.name
    wrong = until(lambda: four.served(kind, expected), lambda found: not found)
    assert wrong == []


def _expected(four: Four, kind: Kind, cluster: int, done: list[Ended]) -> Document:
    """All that this cluster's master was told is published, one on top of the other."""
    built_on = four.built_on(cluster)
    last = max(one.number for one in done if one.acknowledged)
    inside = chain(last, built_on)
    assert {one.number for one in done if one.acknowledged} <= set(inside)
    document = played(Author(four.back, kind, 7, cluster), inside)
    assert mark(document)[0] == last
    return document
