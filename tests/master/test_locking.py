"""A run acts on hosts whose lock it holds, and on no others; late ones are locked when they have answered."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path

import pytest

from k4t.errors import HostUnreachable, Locked
from k4t.master.fleet import Fleet
from k4t.master.locking import locked
from k4t.master.observe import NOT_YET, observe, open_questions
from k4t.model.hosts import Node, Ssh
from k4t.model.spec import Cluster, Tree
from k4t.model.state import NodeState
from k4t.remote.fake import FakeHost, FakeTransport
from k4t.remote.lock import Holder, HostLock
from k4t.remote.transport import Transport

pytestmark = pytest.mark.unit
CLUSTER = Cluster("prod", "k7f3q2m9")
HOLDER = Holder("anna", "laptop", 4711, "2026-01-01T00:00:00Z", "apply web", "run-1")
LOCK = f"/var/lib/k4t/{CLUSTER.id}/lock"


class World:
    """Three nodes; `away` ones can't be connected to."""

    def __init__(self, *, away: tuple[str, ...] = ()) -> None:
        self.hosts = {name: FakeHost(name) for name in ("n1", "n2", "n3")}
        self._away = away
        nodes = {name: Node(name, f"10.0.0.{number}") for number, name in enumerate(self.hosts, 1)}
        self.fleet = Fleet(Tree(CLUSTER, nodes), self._connect, {})

    def _connect(self, name: str, ssh: Ssh, address: str) -> Transport:
        del ssh, address
        if name in self._away:
            raise HostUnreachable("no route", host=name)
        return FakeTransport(self.hosts[name])

    def locked(self) -> list[str]:
        return [name for name, host in self.hosts.items() if LOCK in host.locks]

    def mine(self) -> list[str]:
        return [transport.host for transport in self.fleet.mine().values()]


def test_all_that_can_be_reached_is_locked_though_nothing_was_asked_before(tmp_path: Path) -> None:
    """A command that locks before it looks holds the lock everywhere all the same."""
    world = World(away=("n2",))
    with locked(tmp_path / "lock", world.fleet, HOLDER, print, wait_s=0):
        assert world.locked() == world.mine() == ["n1", "n3"]
    assert not world.locked()


def test_a_late_node_is_neither_locked_nor_used_before_it_has_answered(tmp_path: Path) -> None:
    """Then its lock is taken like the others', and given back with them."""
    world = World()
    world.fleet.meet()
    question = world.fleet.asking["n2"] = Future[NodeState]()
    with locked(tmp_path / "lock", world.fleet, HOLDER, print, wait_s=0) as locks:
        assert world.locked() == world.mine() == ["n1", "n3"]
        assert open_questions(world.fleet) == ("n2",)
        seen = observe(world.fleet).nodes["n2"]
        assert (seen.reachable, seen.late, seen.problem) == (False, True, NOT_YET)
        question.set_result(seen)
        assert observe(world.fleet).nodes["n2"].late, "what it said is older than its lock"
        locks.take_late()
        assert world.locked() == world.mine() == ["n1", "n2", "n3"]
    assert not world.locked()


def test_a_late_node_that_another_run_holds_stays_alone(tmp_path: Path) -> None:
    """It is unreachable in the holder's name, for the rest of the run; the locks that are held are kept."""
    world = World()
    world.fleet.meet()
    question = world.fleet.asking["n2"] = Future[NodeState]()
    other = HostLock.take(FakeTransport(world.hosts["n2"]), CLUSTER.id, Holder("ben", "ci", 7, "", "", "run-2"))
    with locked(tmp_path / "lock", world.fleet, HOLDER, print, wait_s=0) as locks:
        question.set_result(NodeState("n2", reachable=True))
        locks.take_late()
        assert world.mine() == ["n1", "n3"]
        seen = observe(world.fleet).nodes["n2"]
        assert not seen.reachable
        assert not seen.late
        assert "locked by ben on ci" in seen.problem
    assert world.locked() == ["n2"]
    other.release()


def test_one_that_is_not_late_and_held_elsewhere_stops_the_run(tmp_path: Path) -> None:
    """75 with the holder's name, and nothing is kept."""
    world = World()
    other = HostLock.take(FakeTransport(world.hosts["n1"]), CLUSTER.id, Holder("ben", "ci", 7, "", "", "run-2"))
    with pytest.raises(Locked, match="ben on ci"), locked(tmp_path / "lock", world.fleet, HOLDER, print, wait_s=0):
        pass
    assert world.locked() == ["n1"]
    assert world.fleet.locked is None
    other.release()
