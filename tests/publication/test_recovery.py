"""Publisher and redo log together: a master that dies anywhere, and who goes on; debts; a log that fails."""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from k4t.errors import ConnectionLost, K4tError, LogRefused, NotPrepared, Overtaken, ParticipantAway, VendorRefused
from k4t.master.publication.account import changes
from k4t.master.publication.fake import FakeParticipant
from k4t.master.publication.publish import Change, Publisher
from k4t.master.publication.redolog import LogPlace, read
from k4t.master.publication.transaction import Append
from k4t.model.spec import Cluster
from k4t.model.state import ParticipantState
from k4t.registrar import protocol
from k4t.registrar.document import Document, Endpoint, Epoch, Record, Route, make

pytestmark = pytest.mark.unit
CLUSTER = Cluster("prod", "k7f3q2m9")
DEGRADE = dataclasses.replace(CLUSTER, when_unreachable="degrade")
VERBS = ("observe", "fence", "prepare", "commit", "verify")


class Killed(BaseException):
    """The master is gone."""


@dataclass
class Mortal(FakeParticipant):
    """Its master dies before, or after, it has done something."""

    deadly: str = ""

    def _enter(self, verb: str) -> None:
        if self.deadly == f"before {verb}":
            raise Killed
        super()._enter(verb)

    def _leave(self, verb: str) -> None:
        super()._leave(verb)
        if self.deadly == f"after {verb}":
            raise Killed


@dataclass
class Site:
    """Two gateways, and a working copy with its log."""

    directory: Path
    one: Mortal = field(default_factory=lambda: Mortal("gw1"))
    two: Mortal = field(default_factory=lambda: Mortal("gw2"))
    runs: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def place(self, copy: str = "db") -> LogPlace:
        directory = self.directory / copy / ".k4t"
        directory.mkdir(parents=True, exist_ok=True)
        return LogPlace(directory, CLUSTER.id, self.directory / "state", lambda: "2026-11-20T12:00:00Z")

    def run(self, copy: str = "db", cluster: Cluster = CLUSTER) -> Publisher:
        run_id = f"run{next(self.runs)}"
        return Publisher((self.one, self.two), cluster, run_id, log=self.place(copy), who="me@here")

    def publish(self, *ports: int, copy: str = "db", cluster: Cluster = CLUSTER) -> None:
        self.run(copy, cluster).publish("gateway", "default", having(*ports))

    def ports(self) -> list[list[int]]:
        return [
            [endpoint.port for endpoint in member.live.endpoints] if member.live else []
            for member in (self.one, self.two)
        ]

    def states(self) -> list[str]:
        return [one.state for one in read(self.place().directory).transactions]

    def killed(self, place: str, *ports: int) -> None:
        self.one.deadly = place
        with pytest.raises(Killed):
            self.publish(*ports)
        self.one.deadly = ""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def having(*ports: int) -> Change:
    def change(live: Document | None) -> Document:
        base = live or Document(CLUSTER.id, CLUSTER.name, "gateway", "default")
        return make(
            dataclasses.replace(base, endpoints=tuple(Endpoint("web", "10.0.0.1", port) for port in ports))
        )  # fmt: skip

    return change


PLACES = [
    f"{when} {verb}"
    for verb in VERBS
    for when in ("before", "after")
    if f"{when} {verb}" not in ("after observe", "after verify")
]


@pytest.mark.parametrize("place", PLACES)
def test_killed_and_recovered_by_the_same_copy(site: Site, place: str) -> None:
    """Undecided: as before. Decided: everywhere. Recovery twice is recovery once."""
    site.publish(80)
    site.killed(place, 80, 81)
    decided = PLACES.index(place) >= PLACES.index("before commit")
    told = site.run().recover()
    assert site.ports() == ([[80, 81]] * 2 if decided else [[80]] * 2)
    begun = PLACES.index(place) >= PLACES.index("before prepare")
    assert len(told) == begun
    assert not begun or ("rolled forward" in told[0]) == decided
    before = site.states()
    assert site.run().recover() == []
    assert site.states() == before
    assert site.run().unfinished() == ()
    site.publish(82)
    assert site.ports() == [[82], [82]]


@pytest.mark.parametrize("place", PLACES)
def test_killed_and_taken_over_by_another_copy(site: Site, place: str) -> None:
    """It knows nothing of what was begun; what it publishes is everywhere. Then the first copy changes nothing more by
    recovering."""
    site.publish(80)
    site.killed(place, 80, 81)
    site.publish(90, copy="other")
    assert site.ports() == [[90], [90]]
    site.run().recover()
    assert site.ports() == [[90], [90]]
    assert site.run().unfinished() == ()


def test_a_rolled_forward_one_that_was_overtaken_is_superseded(site: Site) -> None:
    """And said to be."""
    site.killed("before commit", 80)
    site.two.kept = protocol.fence(site.two.kept, Epoch(9, "other"))
    (told,) = site.run().recover()
    assert "was superseded" in told


def test_nobody_to_recover_with(site: Site) -> None:
    """It stays open, and says why."""
    site.killed("before commit", 80)
    for member in (site.one, site.two):
        member.faults["observe"] = [ParticipantAway(f"no route to {member.name}")]
    (told,) = site.run().recover()
    assert "stays open: none of its members answers" in told
    assert site.states() == ["decided"]
    site.run().recover()
    assert site.states() == ["done"]


def test_recovered_on_the_way(site: Site) -> None:
    """A publication finishes what is open of its group, also when nobody called recover."""
    site.killed("before commit", 80)
    site.publish(81)
    assert site.states() == ["done", "done"]


def test_a_group_that_the_tree_has_no_more(site: Site) -> None:
    """Nobody is left to be told: closed."""
    site.killed("before commit", 80)
    (told,) = Publisher((), CLUSTER, "later", log=site.place()).recover()
    assert "the tree has no gateway/default any more" in told
    assert site.run().unfinished() == ()


def test_two_open_ones_of_a_group(site: Site) -> None:
    """That can't be, but by a log that lost an end: the last one counts."""
    site.killed("before commit", 80)
    log = site.place().open()
    (first,) = log.unfinished()
    second = dataclasses.replace(first.stamp, transaction=f"{first.id}0", sha256="x")
    log.append(Append("begin", second, first.members), dataclasses.replace(first, stamp=second))
    log.close()
    told = site.run().recover()
    assert "another one followed it" in told[0]
    assert "aborted" in told[1]
    assert site.states() == ["superseded", "aborted"]


def test_only_one_of_them(site: Site) -> None:
    """`txn resume ID`."""
    site.killed("before commit", 80)
    assert site.run().recover(only="another") == []
    assert site.states() == ["decided"]


def fsync_fails(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The Nth from now on, and all after it."""
    count = itertools.count(1)
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if next(count) >= number:
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("number", [1, 2])
def test_fsync_fails(site: Site, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """At BEGIN nothing is sent; at COMMIT all is taken back. Either way nothing is live, and this run publishes no
    more."""
    site.publish(80)
    publisher = site.run()
    publisher.recover()
    fsync_fails(monkeypatch, number)
    for _ in range(2):
        with pytest.raises(LogRefused, match="Input/output error"):
            publisher.publish("gateway", "default", having(81))
    monkeypatch.undo()
    assert site.ports() == [[80], [80]]
    assert site.one.staged is None
    assert site.one.calls.count("abort") == number - 1
    site.publish(82)
    assert site.ports() == [[82], [82]]


def test_a_damaged_log_sends_nothing(site: Site) -> None:
    site.publish(80)
    path = site.place().directory / "redo.log"
    data = bytearray(path.read_bytes())
    data[100] ^= 4
    path.write_bytes(data)
    before = list(site.one.calls)
    for action in (lambda: site.publish(81), lambda: site.run().recover(), lambda: site.run().unfinished()):
        with pytest.raises(LogRefused, match="damaged at byte 0"):
            action()
    assert site.one.calls == before


def test_the_log_tells_what_was_done(site: Site) -> None:
    """By whom, why, on whom, what."""
    publisher = site.run()
    publisher.message = "because"
    publisher.publish("gateway", "default", having(80))
    publisher.publish("gateway", "default", having(81))
    last = read(site.place().directory).transactions[-1]
    assert (last.who, last.message, last.members, last.state) == ("me@here", "because", ("gw1", "gw2"), "done")
    assert (last.add, last.remove) == (("web 10.0.0.1:81",), ("web 10.0.0.1:80",))


def test_owed_and_paid_first(site: Site) -> None:
    """What a member missed is published to it before what is new, though that is refused then."""
    site.publish(80)
    site.two.faults["observe"] = [ParticipantAway("no route")]
    site.publish(81, cluster=DEGRADE)
    assert site.ports() == [[81], [80]]
    assert read(site.place().directory).transactions[-1].owed == ("gw2",)

    def clashing(live: Document | None) -> Document:
        raise VendorRefused("no")

    with pytest.raises(VendorRefused):
        site.run().publish("gateway", "default", clashing)
    assert site.ports() == [[81], [81]]


def test_a_blank_member_is_filled(site: Site) -> None:
    """Whatever epoch its predecessor had."""
    site.publish(80)
    site.two = Mortal("gw2", id="another")
    site.publish(80)
    assert site.ports() == [[80], [80]]


def test_both_are_blank(site: Site) -> None:
    """The epoch goes on from what the log knows."""
    for port in (80, 81, 82):
        site.publish(port)
    site.one, site.two = Mortal("gw1"), Mortal("gw2")
    site.publish(83)
    assert site.one.epoch.number == 4


def test_staging_lost_between_the_phases(site: Site) -> None:
    """A member that was replaced after the decision is owed the document, and gets it next."""
    real = site.two.commit

    def commit(transaction: str) -> bool:
        site.two.kept = protocol.Kept()
        return real(transaction)

    site.two.commit = commit  # type: ignore[method-assign]
    published = site.run().publish("gateway", "default", having(80))
    assert [name for name, _ in published.stale] == ["gw2"]
    del site.two.commit
    site.publish(80)
    assert site.ports() == [[80], [80]]


def test_overtaken_between_the_phases(site: Site) -> None:
    """The error says so, and this run publishes no more."""
    publisher = site.run()
    publisher.publish("gateway", "default", having(80))
    site.two.kept = protocol.fence(site.two.kept, Epoch(7, "other"))
    for _ in range(2):
        with pytest.raises(Overtaken, match="overtaken by run other"):
            publisher.publish("gateway", "default", having(81))
    assert site.ports() == [[80], [80]]
    assert site.one.staged is None


def test_away_at_prepare_and_back(site: Site) -> None:
    """The next publication of the same run asks again."""
    publisher = site.run()
    site.two.faults["prepare"] = [ConnectionLost("reset")]
    with pytest.raises(ConnectionLost):
        publisher.publish("gateway", "default", having(80))
    assert site.ports() == [[], []]
    publisher.publish("gateway", "default", having(80))
    assert site.ports() == [[80], [80]]


def test_degraded_at_prepare(site: Site) -> None:
    """It is published without the one that went away, which is named."""
    site.two.faults["prepare"] = [ConnectionLost("reset")]
    published = site.run(cluster=DEGRADE).publish("gateway", "default", having(80))
    assert published.stale == (("gw2", "reset"),)
    assert site.ports() == [[80], []]


def test_a_paused_master_asks_afresh(site: Site) -> None:
    """All its connections have ended: whether another run went on is asked over a new one."""
    asked: list[str] = []

    def afresh(kind: str, name: str) -> ParticipantState:
        asked.append(name)
        return {"gw1": site.one, "gw2": site.two}[name].observe()

    publisher = Publisher((site.one, site.two), CLUSTER, "paused", afresh=afresh)
    publisher.publish("gateway", "default", having(80))
    for _ in range(2):
        for member in (site.one, site.two):
            member.faults["prepare"] = [ConnectionLost("closed")]
            member.faults["observe"] = []
        with pytest.raises(ConnectionLost):
            publisher.publish("gateway", "default", having(81))
    site.publish(90)
    for member in (site.one, site.two):
        member.faults["observe"] = [ConnectionLost("closed")]
    with pytest.raises(ParticipantAway):
        publisher.publish("gateway", "default", having(81))
    assert site.ports() == [[90], [90]]


def test_a_paused_master_says_that_it_was_overtaken(site: Site) -> None:
    once, meanwhile = threading.Lock(), [90]

    def afresh(kind: str, name: str) -> ParticipantState:
        with once:
            if meanwhile:
                site.publish(meanwhile.pop())
        return site.one.observe()

    publisher = Publisher((site.one, site.two), CLUSTER, "paused", afresh=afresh)
    publisher.publish("gateway", "default", having(80))
    for member in (site.one, site.two):
        member.faults["prepare"] = [ConnectionLost("closed")]
    with pytest.raises(Overtaken, match=r"run paused \(epoch 1\) was overtaken by run run1 \(epoch 2\)"):
        publisher.publish("gateway", "default", having(81))
    assert site.ports() == [[90], [90]]


def test_what_is_owed_is_told(site: Site) -> None:
    """Until it is paid, in this run or another."""
    publisher = site.run(cluster=DEGRADE)
    site.two.faults["commit"] = [ConnectionLost("reset"), ConnectionLost("reset")]
    publisher.publish("gateway", "default", having(80))
    assert publisher.owed() == ["gateway/default is owed to gw2"]
    publisher.publish("gateway", "default", having(81))
    assert publisher.owed() == []
    publisher.close()


def test_without_a_log_there_is_nothing_to_recover(site: Site) -> None:
    publisher = Publisher((site.one, site.two), CLUSTER, "run")
    assert publisher.recover() == []
    assert publisher.unfinished() == ()
    publisher.close()


def test_nobody_could_be_told_of_the_decision(site: Site) -> None:
    """The error is theirs; the next run rolls it forward."""
    for member in (site.one, site.two):
        member.faults["commit"] = [ConnectionLost("reset"), ConnectionLost("reset")]
    with pytest.raises(ConnectionLost):
        site.publish(80)
    assert site.states() == ["decided"]
    site.run().recover()
    assert site.ports() == [[80], [80]]


@pytest.mark.parametrize(
    ("error", "words"),
    [(NotPrepared("never prepared"), "never prepared"), (VendorRefused("a full disk"), "a full disk")],
)
def test_refused_at_commit(site: Site, error: K4tError, words: str) -> None:
    """It is owed the document, and why is said."""
    site.two.faults["commit"] = [error]
    published = site.run().publish("gateway", "default", having(80))
    assert len(published.stale) == 1
    assert words in published.stale[0][1]


def test_changes_hold_no_secret() -> None:
    """Names and addresses alone, each list bounded."""
    document = Document(
        "k7", "prod", "gateway", "default",
        endpoints=(Endpoint("db", "10.0.0.1", 0), Endpoint("web", "fd00::1", 80)),
        routes=(Route("web", listen=5432), Route("web", domains=("a.b",))),
        records=(Record("w", "web"),),
    )  # fmt: skip
    assert changes(None, document) == (
        ("db 10.0.0.1", "record w of web", "route a.b/ to web", "route port 5432 to web", "web [fd00::1]:80"), (),
    )  # fmt: skip
    many = dataclasses.replace(document, endpoints=tuple(Endpoint("web", "10.0.0.1", n) for n in range(1, 500)))
    assert len(changes(None, many)[0]) == 101
    assert changes(None, many)[0][-1] == "and 402 more"
