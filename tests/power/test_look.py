"""What is read off hosts and this machine before it goes off."""

from __future__ import annotations

import fcntl
import os
from dataclasses import replace
from pathlib import Path

import pytest

from k4t.master.power import look
from k4t.model.hosts import Node
from k4t.model.spec import Cluster, Tree
from k4t.model.state import Container, Dead, Head, NodeState, Observed, ParticipantState
from k4t.monitor.acting import acts
from k4t.registrar.document import Document, Epoch
from k4t.remote.lock import Holder, LocalLock

pytestmark = pytest.mark.unit
LIVE = Document("k7f3q2m9", "prod", "gateway", "default", epoch=Epoch(3, "a"), seq=5)
GOOD = ParticipantState("gateway", "gw1", "default", "envoy", True, document=LIVE)
AWAY = ParticipantState("gateway", "gw2", "default", "envoy", False, problem="no answer", exit_status=77)


def members(*states: ParticipantState) -> list[tuple[str, str, int]]:
    return list(look._members(Observed(gateways={one.name: one for one in states})))


def test_members_that_are_well_are_no_reason() -> None:
    """Alone, and in a group."""
    assert members(GOOD) == []
    assert members(GOOD, replace(GOOD, name="gw2")) == []


def test_a_member_that_is_not_in_step_is_named_with_what_it_lacks() -> None:
    """Away, stale, not rendered, in the middle of a transaction, or served otherwise than it was told."""
    older = replace(LIVE, seq=4)
    assert members(GOOD, AWAY) == [("gw2", "no answer", 77)]
    assert members(replace(AWAY, exit_status=0)) == [("gw2", "no answer", 69)]
    assert members(GOOD, replace(GOOD, name="gw2", document=older)) == [
        ("gw2", "gw2 is stale: it has 3.4, gw1 has 3.5", 1),
    ]  # fmt: skip
    assert members(GOOD, replace(GOOD, name="gw2", group="other", document=older)) == []
    assert members(replace(GOOD, rendered=False)) == [("gw1", "it does not serve what it was given", 1)]
    assert members(replace(GOOD, staged="7:4be1")) == [("gw1", "transaction 7:4be1 waits there for its end", 1)]
    assert members(replace(GOOD, differences=("web is missing", "more"))) == [("gw1", "web is missing", 1)]


def test_a_node_that_is_drained_is_empty_or_named() -> None:
    """What an active one has is no reason."""
    nodes = {name: Node(name, "10.0.0.1", availability="drained") for name in ("n1", "n2", "n3")}
    tree = Tree(Cluster("prod", "k7f3q2m9"), {**nodes, "n4": Node("n4", "10.0.0.4")})
    one = Container("1", "prod.web.0.1", "n1", "web", "0", 1, 1, "v1:", "", "10.0.0.1")
    seen = {
        "n1": NodeState("n1", True, (one,)),
        "n2": NodeState("n2", False, problem="time-out"),
        "n3": NodeState("n3", True),
        "n4": NodeState("n4", True, (one,)),
    }
    assert list(look._leaving(tree, Observed(seen))) == [
        ("n1", "it still has prod.web.0.1"), ("n2", "it can't be asked whether it is empty: time-out"),
    ]  # fmt: skip
    asleep = replace(seen["n3"], head=Head(tree.cluster.id, 4, dead={"n2": Dead(4, fenced=True)}))
    assert [name for name, _ in look._leaving(tree, Observed({**seen, "n3": asleep}))] == ["n1"]


def test_a_monitor_that_acts_from_here_is_told_by_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just now, and with policies that are enabled: one on another machine needs no master that is awake. A monitor.xml
    that can't be read is no empty one."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert not look.acts_here("k7f3q2m9")
    file = acts.path("k7f3q2m9")
    acts.save(file, acts.NONE)
    assert look.acts_here("k7f3q2m9")
    assert not look.acts_here("another1")
    os.utime(file, (0, 0))
    assert not look.acts_here("k7f3q2m9")
    assert look.policies(tmp_path) == ()
    (tmp_path / "monitor.xml").write_text(
        '<monitor><policy when="nodes-idle" enabled="true"/><policy when="nodes-short"/>'
        '<policy when="node-gone" enabled="1"/></monitor>'
    )
    assert look.policies(tmp_path) == ("nodes-idle", "node-gone")
    (tmp_path / "monitor.xml").write_text("<monitor>")
    assert look.policies(tmp_path) == ("(monitor.xml can't be read)",)


def test_a_monitor_here_is_told_by_its_lock(tmp_path: Path) -> None:
    """Held, not merely there: a file that was left behind says nothing."""
    path = tmp_path / ".k4t" / look.MONITOR_LOCK
    assert look.holder_of(path) == ""
    held = LocalLock(path).take(Holder("root@m1", "m1", 7, "2026-11-20T12:00:00Z", "monitor", ""))
    assert look.holder_of(path) == "root@m1 on m1 (process 7) since 2026-11-20T12:00:00Z, for monitor"
    held.release()
    assert look.holder_of(path) == ""
    path.write_text("garbage")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert look.holder_of(path) == "one that left no name"


def test_who_is_logged_in_is_asked_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that can't say is no reason to stop."""
    program = tmp_path / "who"
    program.write_text("#!/bin/sh\necho 'ann  pts/1  2026-11-20 11:58 (10.0.0.9)'; echo; echo 'bob tty1 now'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert look.logins() == ("ann on pts/1", "bob on tty1")
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert look.logins() == ()
