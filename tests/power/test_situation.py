"""When the master may go off: never while anything is open, and all that is open is said at once."""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t.master.power import here
from k4t.master.power.situation import Reason, Situation, exit_status, not_this_machine, reasons

pytestmark = pytest.mark.unit
QUIET = Situation(host="k4t-master", names=("k4t-master",), command="systemctl poweroff", logins=("ann on pts/1",))
OPEN: dict[str, Any] = {
    "host": "other",
    "command": "",
    "locks": ("the tree db is locked by ann@laptop",),
    "steps": ("create:web.0.1@n1", "start:web.0.1@n1", "await:web.0.1@n1", "publish:gateway/default:web#1"),
    "left": ("web.2 fits nowhere: 1 of 1 nodes: drained",),
    "unknown": (("no node can be asked: n1: time-out", 69),),
    "leaving": (("n1", "it still has prod.web.0.1"),),
    "transactions": ("7:4be1 on gateway/default is decided",),
    "members": (("gw2", "gw2 is stale: it has 3.4, gw1 has 3.5", 1), ("ns1", "does not answer within 10 s", 69)),
    "copies": (("node1", "none was made from here"),),
    "acting": ("nodes-idle", "node-gone"),
    "monitor": "root@k4t-master",
    "intents": ("scale web 4",),
}
SAID = """\
this is k4t-master, and <power host=> names other: no other machine is switched off
cluster.xml has no <power off=>: nothing here says how to switch it off
a run is under way: the tree db is locked by ann@laptop
a monitor runs on this machine (root@k4t-master): nobody would see to the cluster
the monitor acts from this machine, and does what monitor.xml has enabled (nodes-idle, node-gone)
what is left to do is not known: no node can be asked: n1: time-out
an apply has 4 steps (create:web.0.1@n1, start:web.0.1@n1, await:web.0.1@n1, …) to do; k4t apply does it
not finished: web.2 fits nowhere: 1 of 1 nodes: drained
node n1 is being emptied: it still has prod.web.0.1
1 intent (scale web 4) still queued; k4t wake does them
an unfinished publication: 7:4be1 on gateway/default is decided; k4t txn resume finishes it
gw2 is stale: it has 3.4, gw1 has 3.5
ns1: does not answer within 10 s
no current copy of the tree on node1: none was made from here; k4t backup makes one
"""


def test_with_nothing_open_it_may_go_off() -> None:
    """Somebody who is logged in is warned of, and is no reason."""
    assert reasons(QUIET) == ()


@pytest.mark.parametrize("field", OPEN)
def test_each_open_thing_is_a_reason(field: str) -> None:
    """By itself."""
    assert reasons(dataclasses.replace(QUIET, **{field: OPEN[field]}))


def test_every_field_is_judged() -> None:
    """A new one can't be forgotten here."""
    judged = {*OPEN, "names", "is_host", "logins"}
    assert {field.name for field in dataclasses.fields(Situation)} == judged


@given(st.sets(st.sampled_from(sorted(OPEN)), min_size=1))
def test_it_never_goes_off_while_anything_is_open(fields: set[str]) -> None:
    """Whatever else holds: each open thing adds its own sentences, one line each, and hides no other's."""
    alone = {one.text for field in fields for one in reasons(dataclasses.replace(QUIET, **{field: OPEN[field]}))}
    together = reasons(dataclasses.replace(QUIET, **{field: OPEN[field] for field in fields}))
    assert {one.text for one in together} == alone
    assert together
    assert exit_status(together) != 0


def test_all_reasons_are_said_at_once() -> None:
    """With the command that helps; a lock is the gravest."""
    found = reasons(dataclasses.replace(QUIET, **OPEN))
    assert "".join(f"{one.text}\n" for one in found) == SAID
    assert exit_status(found) == 75


def test_a_sentence_stays_on_its_line() -> None:
    """Whatever a host or a vendor has said."""
    assert reasons(dataclasses.replace(QUIET, left=("a\nb\t c",))) == (Reason("not finished: a b c"),)


@pytest.mark.parametrize(
    ("wanted", "own", "same"),
    [
        ("k4t-master", ("k4t-master",), True),
        ("K4T-Master.", ("k4t-master",), True),
        ("k4t-master", ("k4t-master", "k4t-master.prod.example"), True),
        ("k4t-master.prod.example", ("k4t-master", "k4t-master.prod.example"), True),
        ("k4t-master.prod.example", ("k4t-master",), True),
        ("k4t-master.prod.example", ("k4t-master", "k4t-master.test.example"), False),
        ("k4t-master.prod.example", ("k4t-master.test.example",), False),
        ("k4t-master", ("laptop",), False),
        ("k4t-master", ("k4t-master2",), False),
        ("localhost", ("localhost",), False),
        ("k4t-master", ("localhost", "localhost.localdomain"), False),
        ("10.0.0.5", ("10",), False),
        ("", ("",), False),
        ("k4t-master", (), False),
    ],
)
def test_only_the_named_machine_is_the_master(wanted: str, own: tuple[str, ...], *, same: bool) -> None:
    """By its name, whole where both have a domain; a name that any machine has is nobody's."""
    assert here.is_one_of(wanted, own) == same
    assert bool(not_this_machine(wanted, own)) != same


def test_an_address_is_this_machines_own_or_not() -> None:
    """One that every machine has says nothing about which one this is."""
    assert not here.is_here("127.0.0.1")
    assert not here.is_here("::1")
    assert not here.is_here("0.0.0.0")
    assert not here.is_here("192.0.2.77")


def test_the_resolver_is_asked_only_where_it_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every apply asks whether this is the master, and a resolver that is away takes seconds to say so."""
    asked: list[str] = []
    monkeypatch.setattr(socket, "gethostname", lambda: "k4t-master")

    def getfqdn(name: str) -> str:
        asked.append(name)
        return f"{name}.prod.example"

    monkeypatch.setattr(socket, "getfqdn", getfqdn)
    assert here.is_here("k4t-master")
    assert not here.is_here("laptop")
    assert not here.is_here("laptop.prod.example")
    assert asked == []
    assert here.is_here("k4t-master.prod.example")
    assert not here.is_here("k4t-master.test.example")
    assert asked == ["k4t-master"] * 2


def test_a_machine_without_power_in_its_tree_is_told_so() -> None:
    """Both names stand in every refusal."""
    assert not_this_machine("", ("laptop",)) == (
        "this is laptop, and cluster.xml names no <power host=> that may be switched off"
    )
    assert "laptop" in not_this_machine("m1", ("laptop",))
    assert "m1" in not_this_machine("m1", ("laptop",))
