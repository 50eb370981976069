"""The protocol over members that break on demand."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable

import pytest

from k4t.errors import ConnectionLost, Differs, Overtaken, ParticipantAway, RegistrarMismatch, StepError, VendorRefused
from k4t.master.publication.fake import FakeParticipant
from k4t.master.publication.publish import Change, Published, Publisher
from k4t.model.spec import Cluster
from k4t.registrar.document import Document, Endpoint, Epoch, Route, make

pytestmark = pytest.mark.unit
CLUSTER = Cluster("prod", "k7f3q2m9")
DEGRADE = dataclasses.replace(CLUSTER, when_unreachable="degrade")


def adding(*ports: int) -> Change:
    def change(live: Document | None) -> Document:
        base = live or Document("k7f3q2m9", "prod", "gateway", "default")
        more = tuple(Endpoint("web", "10.0.0.1", port) for port in ports)
        return make(dataclasses.replace(base, endpoints=base.endpoints + more))

    return change


def pair() -> tuple[FakeParticipant, FakeParticipant]:
    return FakeParticipant("gw1"), FakeParticipant("gw2")


def publish(
    members: tuple[FakeParticipant, ...], change: Change, run: str = "run1", cluster: Cluster = CLUSTER
) -> Published:
    return Publisher(members, cluster, run).publish("gateway", "default", change)


def test_all_members_hold_the_same() -> None:
    """A publication ends with one document on all members, fenced by this run."""
    members = pair()
    published = publish(members, adding(80))
    assert published.changed
    assert published.members == 2
    assert members[0].live == members[1].live == published.document
    assert members[0].epoch == Epoch(1, "run1")


def test_documents_follow_each_other() -> None:
    """Each names its parent, and its epoch is the highest seen and one."""
    members = pair()
    publish(members, adding(80))
    first = members[0].live
    publish(members, adding(81), run="run2")
    second = members[1].live
    assert first is not None
    assert second is not None
    assert second.parent == first.sha256
    assert second.seq == first.seq + 1
    assert second.epoch == Epoch(2, "run2")
    assert [endpoint.port for endpoint in second.endpoints] == [80, 81]


def test_nothing_to_publish() -> None:
    """A change that changes nothing sends nothing to members in step."""
    members = pair()
    publish(members, adding(80))
    published = publish(members, adding(80), run="run2")
    assert not published.changed
    assert members[0].calls.count("commit") == 1


def test_refused_by_one_changes_neither() -> None:
    """When one vendor's checker says no, the other member is as it was, and nothing stays staged."""
    good, bad = FakeParticipant("gw1"), FakeParticipant("gw2", faults={"prepare": [VendorRefused("no such filter")]})
    with pytest.raises(VendorRefused, match="no such filter"):
        publish((good, bad), adding(80))
    assert good.live is None
    assert good.staged is None
    assert "commit" not in good.calls


def test_away_refuses() -> None:
    """With `refuse`, a member that is away stops the publication before anything starts."""
    here, away = pair()
    away.faults["observe"] = [ParticipantAway("no route to gw2")]
    with pytest.raises(ParticipantAway, match="no route to gw2") as caught:
        publish((here, away), adding(80))
    assert caught.value.exit_status == 69
    assert here.calls == ["observe"]


def test_away_degrades() -> None:
    """With `degrade`, the others commit, and the absent one is named stale."""
    here, away = pair()
    away.faults["observe"] = [ParticipantAway("no route to gw2")]
    published = publish((here, away), adding(80), cluster=DEGRADE)
    assert here.live is not None
    assert [name for name, _ in published.stale] == ["gw2"]
    assert "gw2 is stale" in published.words()


def test_healed_when_back() -> None:
    """A member that missed a publication takes the next document, whatever its own parent is."""
    here, away = pair()
    away.faults["observe"] = [ParticipantAway("no route to gw2")]
    publish((here, away), adding(80), cluster=DEGRADE)
    publish((here, away), adding(80), run="run2")
    assert here.live == away.live


def test_nobody_answers() -> None:
    """`degrade` doesn't publish to nobody."""
    alone = FakeParticipant("gw1", faults={"observe": [ParticipantAway("silent")]})
    with pytest.raises(ParticipantAway, match=r"^gw1: silent$"):
        publish((alone,), adding(80), cluster=DEGRADE)


def test_a_registrar_that_does_not_match() -> None:
    """… is no absence: the run ends 1, with its remedy."""
    alone = FakeParticipant("gw1", faults={"observe": [RegistrarMismatch("altered", "k4t gateway install gw1")]})
    with pytest.raises(StepError, match="gw1: altered; k4t gateway install gw1") as caught:
        publish((alone,), adding(80))
    assert caught.value.exit_status == 1


def test_overtaken_at_the_fence() -> None:
    """A run that another one has overtaken changes nothing any more."""
    members = pair()
    slow = Publisher(members, CLUSTER, "slow")
    slow.publish("gateway", "default", adding(80))
    publish(members, adding(81), run="fast")
    before = members[0].live
    with pytest.raises(Overtaken):
        slow.publish("gateway", "default", adding(82))
    assert members[0].live == members[1].live == before


def test_commit_whose_answer_was_lost() -> None:
    """In doubt, a commit is said again: it can be done twice."""
    members = pair()
    members[1].lost["commit"] = [ConnectionLost("reset")]
    published = publish(members, adding(80))
    assert published.stale == ()
    assert members[0].live == members[1].live
    assert members[1].calls.count("commit") == 2


def test_gone_after_the_decision() -> None:
    """A member that goes away between the phases is owed the document; the others hold it."""
    members = pair()
    members[1].faults["commit"] = [ConnectionLost("reset"), ConnectionLost("reset")]
    published = publish(members, adding(80))
    assert [name for name, _ in published.stale] == ["gw2"]
    assert members[0].live is not None


def test_vendor_refuses_at_commit() -> None:
    """Accepted, not rendered: the caller gets the vendor's words, the document stays."""
    members = pair()
    members[1].refuses = "bad regex"
    with pytest.raises(VendorRefused, match="gw2: bad regex"):
        publish(members, adding(80))
    assert members[0].live == members[1].live


def test_served_otherwise() -> None:
    """What is read back and differs is an error that says what."""
    member = FakeParticipant("gw1", served=("web.main: 10.0.0.1:80 is not served",))
    with pytest.raises(Differs, match=r"gw1: web\.main"):
        publish((member,), adding(80))


def test_drift_is_healed() -> None:
    """A member that serves otherwise is published to again, though the document is what it should be."""
    member = FakeParticipant("gw1")
    publish((member,), adding(80))
    member.served = ("edited by hand",)
    with pytest.raises(Differs):
        publish((member,), adding(80), run="run2")
    assert member.calls.count("commit") == 2


def test_a_bad_change_is_its_callers_error() -> None:
    """A change that can't be made fails before anything is sent."""

    def bad(live: Document | None) -> Document:
        return Document("k7f3q2m9", "prod", "gateway", "default", routes=(Route("web", prefix="no slash"),))

    member = FakeParticipant("gw1")
    with pytest.raises(StepError, match=r"routes\.prefix"):
        publish((member,), bad)
    assert "prepare" not in member.calls


def test_what_is_expected_is_waited_for_and_published_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three are to come, three come within a moment: one publication. The wait ends when the last has come."""
    monkeypatch.setattr("k4t.master.publication.publish.GATHER_S", 60.0)
    members = pair()
    publisher = Publisher(members, CLUSTER, "run1")
    publisher.expect({("gateway", "default"): 3})
    threads = [
        threading.Thread(target=publisher.publish, args=("gateway", "default", adding(port))) for port in (80, 81, 82)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert members[0].calls.count("prepare") == 1
    assert members[0].live is not None
    assert {one.port for one in members[0].live.endpoints} == {80, 81, 82}


def test_what_is_expected_and_never_comes_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that fails publishes nothing: the others wait a moment, and go."""
    monkeypatch.setattr("k4t.master.publication.publish.GATHER_S", 0.01)
    members = pair()
    publisher = Publisher(members, CLUSTER, "run1")
    publisher.expect({("gateway", "default"): 2, ("dns", "nobody"): 1})
    assert publisher.publish("gateway", "default", adding(80)).changed


def test_who_waits_together_is_published_together() -> None:
    """Callers that wait at the same time share one publication, and each gets its result."""
    member = FakeParticipant("gw1")
    publisher = Publisher([member], CLUSTER, "run1")
    entered, go = threading.Event(), threading.Event()

    def slow(live: Document | None) -> Document:
        entered.set()
        go.wait(10)
        return adding(80)(live)

    results: list[Published] = []

    def call(change: Callable[[Document | None], Document]) -> None:
        results.append(publisher.publish("gateway", "default", change))

    threads = [threading.Thread(target=call, args=(slow,))]
    threads[0].start()
    entered.wait(10)
    threads += [threading.Thread(target=call, args=(adding(port),)) for port in (81, 82, 83)]
    for thread in threads[1:]:
        thread.start()
    group = publisher._groups["gateway", "default"]
    while len(group.waiting) < 3:
        time.sleep(0.001)
    go.set()
    for thread in threads:
        thread.join(10)
    assert member.calls.count("commit") == 2
    assert len({result.document.sha256 for result in results if result.document}) == 2
    assert member.live is not None
    assert [endpoint.port for endpoint in member.live.endpoints] == [80, 81, 82, 83]


def test_nobody_pays_for_anothers_change() -> None:
    """When what was composed is refused, each change is tried by itself."""

    class Picky(FakeParticipant):
        def prepare(self, transaction: str, document: Document) -> None:
            if any(endpoint.port == 666 for endpoint in document.endpoints):
                raise StepError("10.0.0.1:666 is published by cluster other")
            FakeParticipant.prepare(self, transaction, document)

    member = Picky("gw1")
    publisher = Publisher([member], CLUSTER, "run1")
    group = publisher._groups["gateway", "default"]
    outcomes: dict[int, str] = {}

    def call(port: int) -> None:
        try:
            outcomes[port] = publisher.publish("gateway", "default", adding(port)).words()
        except StepError as error:
            outcomes[port] = str(error)

    with group.turn:
        threads = [threading.Thread(target=call, args=(port,)) for port in (80, 666)]
        for thread in threads:
            thread.start()
        while len(group.waiting) < 2:
            time.sleep(0.001)
    for thread in threads:
        thread.join(10)
    assert outcomes == {80: "1 in step", 666: "10.0.0.1:666 is published by cluster other"}
    assert member.live is not None
    assert [endpoint.port for endpoint in member.live.endpoints] == [80]


def test_no_members() -> None:
    """A group that the tree doesn't have publishes nothing."""
    assert not publish((), adding(80)).changed


def test_newest_wins() -> None:
    """Of several live documents the one with the highest (epoch, seq) counts, and its members' neighbours get it."""
    members = pair()
    publish((members[0],), adding(80), run="a")
    publish((members[1],), adding(81), run="b")
    publish((members[1],), adding(82), run="c")
    publish(members, adding(83), run="d")
    assert members[0].live == members[1].live
    assert members[0].live is not None
    assert [endpoint.port for endpoint in members[0].live.endpoints] == [81, 82, 83]
