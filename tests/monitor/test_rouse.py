"""How the master is made to look: told where it is on, called where it is off, and not too often; and until when what
was queued for it counts as queued."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from k4t.command import Completed
from k4t.errors import HostUnreachable, K4tError, LoginRefused, NotCertified, Unreachable
from k4t.master.backup import keys as signing_keys
from k4t.master.fleet import Fleet
from k4t.master.power import intents
from k4t.master.power.intents import Intent
from k4t.model.hosts import Dns, Gateway, Node, Power, Ssh
from k4t.model.spec import Cluster as ClusterOf
from k4t.model.spec import Tree
from k4t.monitor.acting import keys, rouse
from k4t.monitor.acting.rouse import Memory
from k4t.monitor.facts import Host, OffNotice, Subject
from k4t.remote.fake import FakeHost, FakeTransport
from tests.backup.trees import Cluster
from tests.monitor.world import NOW_S, facts, reading

pytestmark = pytest.mark.unit
CLUSTER = Cluster()
MASTER = "k4t-master"


class Scene:
    """Two gateways and a master; `answers`: what connecting to the master, or telling it, comes to."""

    def __init__(self, directory: Path) -> None:
        self.calls = directory / "calls"
        self.tree = Tree(
            ClusterOf("prod", CLUSTER.id, power=Power(MASTER, on=f"sh -c 'echo >> {self.calls}'")),
            {"n1": Node("n1", "10.0.0.11")},
            gateways={name: Gateway(name, "envoy", f"10.0.0.2{name[-1]}") for name in ("gw1", "gw2")},
            dns={"bind": Dns("bind", "rfc2136", "10.0.0.9", "k4t.lab")},
        )
        self.hosts = {name: FakeHost(name) for name in ("gw1", "gw2")}
        self.away: set[str] = set()
        self.master: Completed | K4tError = HostUnreachable("it does not answer", why="silent")
        self.told: list[tuple[str, Sequence[str]]] = []

    @property
    def fleet(self) -> Fleet:
        return Fleet(self.tree, self.connect, {})

    def connect(self, name: str, ssh: Ssh, address: str) -> FakeTransport:  # noqa: ARG002 - the contract's
        if name == MASTER:
            return self._master(ssh)
        if name in self.away:
            raise HostUnreachable("it does not answer", host=name)
        found = FakeTransport(self.hosts[name])
        names = "\n".join(path.rpartition("/")[2] for path in found.at.files)
        found.answer(["sh", "-c"], names.encode())
        return found

    def _master(self, ssh: Ssh) -> FakeTransport:
        if isinstance(self.master, K4tError):
            raise self.master
        said = self.master

        def tell(argv: Sequence[str], _: bytes) -> Completed:
            self.told.append((ssh.key, argv))
            return said

        found = FakeTransport(MASTER)
        found.answer([], tell)
        return found

    @property
    def called(self) -> int:
        return len(self.calls.read_text()) if self.calls.exists() else 0

    def done(self, *names: str) -> None:
        """The master has taken it away from these."""
        for name in names or self.hosts:
            self.hosts[name].files.clear()

    def asked(self, number: int = 1, at_s: float = NOW_S, **more: object) -> rouse.Roused:
        return rouse.rouse(self.fleet, [intent(number)], at_s, **more)  # type: ignore[arg-type]


def intent(number: int = 1) -> Intent:
    at = datetime.fromtimestamp(NOW_S, UTC)
    return intents.made("dead", id=f"{number:016x}", cluster=CLUSTER.id, who="root@mon", at=at, name="n1")


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("K4T_KEYS", str(tmp_path / "keys"))
    monkeypatch.setattr(signing_keys, "load", lambda *_: CLUSTER.keys())
    keys.ensure(CLUSTER.id)
    return Scene(tmp_path)


def memory() -> Memory:
    return rouse.load(rouse.path(CLUSTER.id))


def test_a_master_that_is_off_is_called_once_while_it_boots(scene: Scene) -> None:
    """The second intent is queued beside the first; the machine is given time. Then it is called again, ever later."""
    found = scene.asked()
    assert found.on == ("gw1", "gw2")
    assert "was switched on" in found.words
    assert scene.called == 1
    later = scene.asked(2, NOW_S + 20)
    assert later.words == "k4t-master was called 20 s ago, and is given time to boot"
    assert (later.boots, scene.called) == (True, 1)
    assert rouse.again(scene.fleet, NOW_S + 100) is None
    assert rouse.again(scene.fleet, NOW_S + 301) is not None
    assert scene.called == 2
    assert rouse.again(scene.fleet, NOW_S + 602) is not None
    assert rouse.again(scene.fleet, NOW_S + 1100) is None
    assert rouse.again(scene.fleet, NOW_S + 1300) is not None
    assert scene.called == 4
    assert set(scene.hosts["gw1"].files) == {
        f"/var/lib/k4t/{CLUSTER.id}/intents/{number:016x}.json" for number in (1, 2)
    }


def test_one_that_went_off_again_is_called_at_once(scene: Scene) -> None:
    """It has said since that it goes off, genuinely: it was on, and what is queued came too late for it."""
    scene.asked()
    at = datetime.fromtimestamp(NOW_S + 60, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for genuine, calls in ((False, 1), (True, 2)):
        off = facts(off=OffNotice("root@k4t-master", at, "after wake", genuine, "gw1"))
        scene.asked(2, NOW_S + 90, facts=off)
        assert scene.called == calls


def test_one_that_is_on_is_told_by_the_restricted_key(scene: Scene) -> None:
    """And not called; told again when nothing came of it, ever later."""
    scene.master = Completed(0, b"k4t wake has begun\n", b"")
    found = scene.asked()
    assert found.words == "k4t-master is on, and was told to look: k4t wake has begun"
    assert scene.told == [(str(keys.private_file(CLUSTER.id)), ["k4t-rouse"])]
    assert scene.called == 0
    assert rouse.again(scene.fleet, NOW_S + 10) is None
    assert rouse.again(scene.fleet, NOW_S + 40) is not None
    assert rouse.again(scene.fleet, NOW_S + 80) is None
    assert len(scene.told) == 2
    scene.done()
    assert rouse.again(scene.fleet, NOW_S + 4000) is None
    assert memory().queued == {}


def test_it_goes_off_while_it_is_told(scene: Scene) -> None:
    """What is queued still is: the next round calls it."""
    scene.master = Completed(0, b"k4t wake has begun\n", b"")
    scene.asked()
    scene.master = HostUnreachable("it does not answer", why="silent")
    assert scene.called == 0
    found = rouse.again(scene.fleet, NOW_S + 40)
    assert found is not None
    assert (found.problem, scene.called) == ("", 1)


def test_every_failure_names_the_master_and_the_remedy(scene: Scene) -> None:
    """It stays queued; only where nothing could be queued is an error raised."""
    scene.master = LoginRefused("the login of root at k4t-master:22 is refused", host=MASTER)
    assert "k4t monitor authorize KEY.pub, on the master" in scene.asked().problem
    scene.master = Completed(127, b"", b"sh: k4t-rouse: not found\n")
    assert "k4t monitor authorize KEY.pub, on the master" in scene.asked(2).problem
    (keys.directory(CLUSTER.id) / keys.NAME).unlink()
    scene.master = LoginRefused("the login of root at k4t-master:22 is refused", host=MASTER)
    assert scene.asked(3).problem == (
        "k4t-master: k4t-master is on, and this machine has no key to tell it to look; k4t monitor key makes one"
    )
    scene.master = HostUnreachable("it does not answer", why="silent")
    scene.tree = dataclasses.replace(scene.tree, cluster=ClusterOf("prod", CLUSTER.id, power=Power(MASTER, on="false")))
    assert "k4t-master was not switched on: `false` said: exit status 1" in scene.asked(4).problem
    assert rouse.again(scene.fleet, NOW_S + 61) is not None  # a switch that failed is tried again soon
    scene.tree = dataclasses.replace(scene.tree, cluster=ClusterOf("prod", CLUSTER.id, power=Power(MASTER)))
    assert "has no <power on=>" in scene.asked(5, NOW_S + 4000).problem
    assert len(rouse.pending(scene.fleet, NOW_S)) == 5


def test_nothing_queued_is_an_error(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """No host takes it, there is none, or this machine is not certified: nobody is called for it."""
    scene.away = {"gw1", "gw2"}
    with pytest.raises(Unreachable, match="no host took the intent dead n1: gw1: it does not answer"):
        scene.asked()
    scene.tree = dataclasses.replace(scene.tree, gateways={})
    with pytest.raises(Unreachable, match="no gateway, DNS server or backup target"):
        scene.asked()
    monkeypatch.setattr(signing_keys, "load", lambda *_: None)
    with pytest.raises(NotCertified, match="certified for intents") as refused:
        scene.asked()
    assert "k4t kit certify --kit FILE --uses intents" in refused.value.remedy
    assert (scene.called, memory()) == (0, Memory())


def test_what_counts_as_queued(scene: Scene) -> None:
    """The master takes one away from all that it reaches: gone somewhere is taken. A host that is away proves nothing,
    nor does one that never had it; and after a week it is over."""
    scene.away = {"gw2"}
    scene.asked()
    scene.away = set()
    assert rouse.pending(scene.fleet, NOW_S) == (f"{1:016x}",)
    scene.asked(2)
    scene.done("gw1")
    assert rouse.pending(scene.fleet, NOW_S) == ()
    scene.asked(3)
    scene.away = {"gw1", "gw2"}
    assert rouse.pending(scene.fleet, NOW_S) == (f"{3:016x}",)
    assert rouse.pending(scene.fleet, NOW_S + rouse.LIFE_S) == ()


def test_nobody_waits_for_a_host_that_did_not_answer_just_now(scene: Scene) -> None:
    """The dead node may be a backup target. Where none answered, all are tried."""
    for silent, expected in ((("gateway/gw2",), ("gw1",)), (("gateway/gw1", "gateway/gw2"), ("gw1", "gw2"))):
        subjects = {f"gateway/{name}": Subject("gateway", name) for name in ("gw1", "gw2")}
        hosts = {
            key: Host(one.name, one, reading=None if key in silent else reading()) for key, one in subjects.items()
        }
        seen = facts(hosts=hosts, host_of={key: key for key in subjects})
        assert scene.asked(facts=seen).on == expected
    assert rouse.pending(scene.fleet, NOW_S, seen) == (f"{1:016x}",)


def test_what_is_remembered_may_be_lost_or_damaged(scene: Scene) -> None:
    """Then nobody was called: once too often is better than never. It is bounded."""
    scene.asked()
    for damage in (b"", b"[]", b'{"format":2}', b"\xff", b'{"format":1,"called_s":"x"}', b"[" * 100_000):
        rouse.path(CLUSTER.id).write_bytes(damage)
        assert memory() == Memory()
    for number in range(rouse.MAX_QUEUED + 5):
        scene.asked(number)
    assert len(memory().queued) == rouse.MAX_QUEUED


def test_on_the_masters_own_machine_it_is_queued_there(scene: Scene, tmp_path: Path) -> None:
    """No key is needed, and nobody is woken."""
    own = dataclasses.replace(scene.tree, cluster=ClusterOf("prod", CLUSTER.id))
    assert rouse.is_here(own)
    assert not rouse.is_here(scene.tree)
    assert rouse.queue_here(tmp_path, [intent()]).on == ("this machine",)
    assert [path.name for path in (tmp_path / ".k4t/intents").iterdir()] == [f"{1:016x}.json"]
