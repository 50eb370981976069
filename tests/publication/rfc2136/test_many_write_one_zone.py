"""Runs, clusters and withdrawals meet in one zone; messages come twice, or are cut."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from k4t.dns.rfc2136 import Rfc2136
from k4t.dns.wire import dial
from k4t.errors import (
    ConnectionLost,
    Overtaken,
    ParticipantAway,
    StepError,
)
from k4t.master.publication.publish import Publisher
from k4t.model.hosts import Dns
from k4t.model.spec import Cluster
from k4t.registrar.document import Document, Epoch, Record, make
from k4t.registrar.union import Union
from tests.publication.between import Between, Fate
from tests.publication.named import KEY_NAME
from tests.publication.rfc2136.conftest import OTHER, PROD, SRV, WEB, Site, changing, document, web

pytestmark = pytest.mark.integration


# --- withdrawals -------------------------------------------------------------------------------------------


def test_withdraw(site: Site) -> None:
    """An endpoint is out at once, stays out across documents that still name its container, and is no drift; it ends
    with a document that doesn't, or by taking it back. Only one's own can be withdrawn."""
    site.publish(OTHER, endpoints=web("10.0.0.9"), records=(WEB,))
    site.publish(endpoints=web("10.0.0.1", "10.0.0.2"), records=(WEB, SRV))
    member = site.member()
    for _ in range(2):
        assert member.withdraw("web", "10.0.0.2", 80, by="monitor", why="3 probes timed out")
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1", "10.0.0.9"]
    assert len(site.named.dig("_http._tcp.web.k4t.lab", "SRV")) == 2
    assert '"out=10.0.0.2 80 c10.0.0.2 monitor 3 probes timed out"' in site.named.dig("_k4t-k7f3q2m9.k4t.lab", "TXT")
    assert site.observe().differences == ()
    site.publish(endpoints=web("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    site.publish(OTHER, endpoints=web("10.0.0.8"))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1", "10.0.0.3", "10.0.0.8"]
    assert member.restore("10.0.0.2", 80)
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.8"]
    member.withdraw("web", "10.0.0.2", 80, by="", why="")
    site.publish(endpoints=web("10.0.0.1"))
    assert not [line for line in site.named.dump() if '"out=' in line]
    with pytest.raises(StepError, match=r"this cluster does not publish web 10\.0\.0\.8:80"):
        member.withdraw("web", "10.0.0.8", 80, by="monitor", why="dead")


# --- several clusters --------------------------------------------------------------------------------------


def test_two_clusters(site: Site) -> None:
    """One name in two clusters adds up; a name that another app has names its owner; leaving takes only one's own."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    site.publish(OTHER, endpoints=web("10.0.0.2"), records=(WEB,))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1", "10.0.0.2"]
    assert [other.name for other in site.observe().others] == ["other"]
    with pytest.raises(StepError, match=r"record web\.k4t\.lab of app shop belongs to app web of cluster prod"):
        site.publish(OTHER, endpoints=(), records=(Record("web", "shop"),))
    with pytest.raises(StepError, match=r"10\.0\.0\.1:80 of app else is already published by cluster prod"):
        site.publish(OTHER, endpoints=web("10.0.0.1", app="else"), records=())
    site.publish(PROD, endpoints=(), records=())
    assert site.named.dig("web.k4t.lab") == ["10.0.0.2"]


def test_another_cluster_publishes_while_it_is_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other has now is not taken for a difference from what it had a moment before."""
    site.publish(endpoints=web("10.0.0.1"), records=(WEB,))
    site.publish(OTHER, endpoints=web("10.0.0.2"), records=(WEB,))
    member = site.member()
    union, others = member._book.union, iter(("10.0.0.3", "10.0.0.4"))

    def meanwhile(*arguments: Any) -> Union:
        made = union(*arguments)
        for ip in others:
            site.publish(OTHER, endpoints=web(ip), records=(WEB,))
            break
        return made

    monkeypatch.setattr(member, "_book", _With(member._book, union=meanwhile))
    state = member.observe()
    assert state.differences == ()
    assert [one.endpoints for one in state.others] == [web("10.0.0.4")]
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1", "10.0.0.4"]


class _With:
    """Something with other methods."""

    def __init__(self, inner: object, **methods: object) -> None:
        self.inner, self.methods = inner, methods

    def __getattr__(self, name: str) -> object:
        return self.methods.get(name) or getattr(self.inner, name)


def test_a_staged_document_of_another_cluster_counts(site: Site) -> None:
    """Two clusters prepare the same name at the same time: the second one is refused."""
    first, second = site.member(PROD), site.member(OTHER)
    first.fence(Epoch(1, "runA"))
    second.fence(Epoch(1, "runB"))
    first.prepare("t1", document())
    rival = make(
        Document(
            OTHER.id,
            OTHER.name,
            "dns",
            "default",
            Epoch(1, "runB"),
            1,
            "",
            web("10.0.0.2", app="shop"),
            records=(Record("web", "shop"),),
        )
    )
    with pytest.raises(StepError, match="belongs to app web of cluster prod"):
        second.prepare("t2", rival)


def test_racing_clusters(site: Site) -> None:
    """Three clusters publish one app's name at the same time, over and over: the exact union in the end."""
    clusters = [Cluster(f"c{number}", f"cluster{number}") for number in range(3)]
    rounds, last = 12, {}

    def run(cluster: Cluster) -> None:
        number = clusters.index(cluster)
        publisher = Publisher([site.member(cluster)], cluster, f"run{number}")
        chance = random.Random(number)  # noqa: S311 - test data
        for _ in range(rounds):
            ips = [f"10.{number}.0.{one}" for one in chance.sample(range(1, 20), 5)]
            publisher.publish("dns", "default", changing(cluster, endpoints=web(*ips), records=(WEB,)))
            last[cluster.id] = ips

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, clusters))
    assert site.named.dig("web.k4t.lab") == sorted(ip for ips in last.values() for ip in ips)
    assert site.observe(clusters[0]).differences == ()
    assert not [line for line in site.named.dump() if "staged=" in line]


# --- the protocol ------------------------------------------------------------------------------------------


def test_everything_twice(site: Site) -> None:
    """Every message may be sent again; an abort leaves the zone as it was, but for the count of writes."""
    member = site.member()
    member.observe()
    for _ in range(2):
        member.fence(Epoch(1, "runA"))
    fenced = site.content()
    for _ in range(2):
        member.prepare("t1", document())
    for _ in range(2):
        member.abort("t1")
    assert site.content() == fenced
    with pytest.raises(StepError, match="t1 was never prepared here, or was aborted"):
        member.commit("t1")
    member.prepare("t1", document())
    for _ in range(2):
        assert member.commit("t1")
    assert member.verify(document()) == ()
    member.abort("t1")
    assert site.named.dig("web.k4t.lab") == ["10.0.0.1"]


def test_an_overtaken_run(site: Site) -> None:
    """A newer fence voids what was staged, and refuses the older run's every write."""
    old, new = site.member(), site.member()
    old.observe()
    old.fence(Epoch(1, "runA"))
    old.prepare("t1", document())
    new.observe()
    new.fence(Epoch(2, "runB"))
    with pytest.raises(Overtaken, match=r"run runA \(epoch 1\) was overtaken by run runB \(epoch 2\)"):
        old.commit("t1")
    with pytest.raises(Overtaken):
        old.prepare("t1", document())
    new.prepare("t2", document(2, "runB"))
    assert new.commit("t2")
    late = site.member()
    with pytest.raises(Overtaken, match="what is live is not what this run saw"):
        late.prepare("t3", document(3, "runC", 1, "f" * 64))


@pytest.mark.parametrize("cut", range(1, 26))
def test_cut_at_any_message(site: Site, cut: int) -> None:
    """The connection is cut after any number of messages, before or after the server has read the last one: the run
    goes on or ends with the state of before, and the next run always gets there."""
    between = Between(("127.0.0.1", site.named.port), once(cut // 2, "lost" if cut % 2 else "cut"))
    try:
        member = site.member(port=between.port)
        publisher = Publisher([member], PROD, "run1")
        change = changing(PROD, endpoints=web("10.0.0.1"), records=(WEB, SRV))
        with suppress(ConnectionLost, ParticipantAway, StepError):
            publisher.publish("dns", "default", change)
        assert site.named.dig("web.k4t.lab") in ([], ["10.0.0.1"])
    finally:
        between.close()
    site.publish(endpoints=web("10.0.0.2"), records=(WEB, SRV))
    assert site.named.dig("web.k4t.lab") == ["10.0.0.2"]
    assert site.observe().differences == ()
    left = [line for line in site.named.dump() if ("staged=" in line or line.startswith("0."))]
    assert len(left) == 1  # the live document


def once(messages: int, fate: Fate) -> Callable[[], Fate]:
    """The message after so many; all others pass."""
    left = itertools.count(messages, -1)
    return lambda: fate if next(left) == 0 else "pass"


def test_over_ipv6(site: Site) -> None:
    """A server with an IPv6 address is asked there."""
    spec = Dns("ns1", "rfc2136", "::1", "k4t.lab", port=site.named.port, key_name=KEY_NAME, secret="tsig")
    member = Rfc2136(spec, PROD, lambda: site.named.secret, lambda: dial("::1", site.named.port))
    site.open.append(member)
    Publisher([member], PROD, "run1").publish(
        "dns", "default", changing(PROD, endpoints=web("fd88::1"), records=(WEB,))
    )
    assert site.named.dig("web.k4t.lab", "AAAA") == ["fd88::1"]
