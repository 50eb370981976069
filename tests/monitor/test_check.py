"""What hosts say of copies, and of a master that is off on purpose, is believed by its signature; who is the master."""

from __future__ import annotations

import dataclasses

import pytest

from k4t.master.backup.snapshot import Snapshot, confirmation
from k4t.master.fleet import Fleet
from k4t.master.power import announce, here
from k4t.master.power.announce import Off
from k4t.model.hosts import Power
from k4t.model.spec import Backup, Tree
from k4t.monitor import check
from k4t.monitor.facts import Host, OffNotice, Subject, Target
from k4t.monitor.looking import gather
from k4t.monitor.signs.sign import unix_s
from k4t.remote.fake import FakeTransport
from tests.backup.trees import AT, Cluster, make
from tests.monitor import world

pytestmark = pytest.mark.unit
OURS = Cluster(private=bytes(range(32)), machine=bytes(range(32, 64)))
THEIRS = Cluster()
OFF = Off(OURS.id, "k4t-master", "root@k4t-master", AT, "after apply")
NODE = Subject("node", "n1")
GATEWAY = Subject("gateway", "gw1")


def tree(*, key: bool = True) -> Tree:
    return world.tree(recovery=OURS.recovery if key else None)


EARLIER, LATER = "2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z"


def said(copy: bytes, confirmed: bytes = b"") -> Target:
    """Of a target whose newest copy begins so, and whose `confirmed` holds this."""
    reading = world.reading(copy=copy.decode().strip(), confirmed=confirmed.decode().strip())
    return check._target(Target("n1", 60.0, NODE.key), tree(), Host("n1", NODE, (NODE,), reading))


def copied(by: Cluster, archive: bytes = b"archive") -> Snapshot:
    return make(by, archive, time=EARLIER)


def confirmed(by: Cluster, copy: Snapshot) -> bytes:
    return confirmation(by.keys(), "n1", copy.manifest, LATER)


def test_a_copy_counts_by_its_signature_and_so_does_its_confirmation() -> None:
    """A new copy has none yet: its own time counts. Altered, or signed by somebody else, neither says anything."""
    ours, theirs = copied(OURS), copied(THEIRS)
    assert said(ours.header).confirmed_s == unix_s(EARLIER)
    assert said(ours.header, confirmed(OURS, ours)).confirmed_s == unix_s(LATER)
    assert said(ours.header, confirmed(OURS, copied(OURS, b"before"))).confirmed_s == unix_s(EARLIER)
    assert said(theirs.header).state == "refused"
    assert said(ours.header, confirmed(THEIRS, ours)).state == "refused"
    altered = confirmed(OURS, ours).replace(b"2026-11-20", b"2027-11-20")
    assert (said(ours.header, altered).state, said(ours.header, altered).confirmed_s) == ("refused", None)
    assert said(b"").state == "none"
    assert said(b"", confirmed(OURS, ours)).state == "none"
    denied = Host("n1", NODE, (NODE,), world.reading(denied=("confirmed",)))
    assert check._target(Target("n1", 60.0, NODE.key), tree(), denied).state == "denied"


def notice(*texts: bytes, key: bool = True) -> OffNotice | None:
    """Of as many places as there are texts; b"" is a place that says nothing."""
    hosts = {}
    for number, text in enumerate(texts):
        subject = Subject("gateway", f"gw{number}")
        hosts[subject.key] = Host(subject.name, subject, (subject,), world.reading(off=text.decode().strip()))
    return check._off(tree(key=key), hosts)


def test_off_on_purpose_is_believed_of_most_of_the_places() -> None:
    """Signed, and not contradicted by the others: one that was away when the master woke may still say so."""
    ours, theirs = announce.encode(OFF, OURS.keys()), announce.encode(OFF, THEIRS.keys())
    assert notice() is None
    assert notice(b"", b"") is None
    believed = notice(ours, ours, b"")
    assert believed == OffNotice("root@k4t-master", AT, "after apply", True, "gw0, gw1")
    contradicted = notice(ours, b"", b"")
    assert contradicted is not None
    assert not contradicted.genuine
    forged = notice(theirs, theirs)
    assert forged is not None
    assert not forged.genuine
    unsigned = notice(announce.encode(OFF, None))
    assert unsigned is not None
    assert not unsigned.genuine
    without_keys = notice(announce.encode(OFF, None), key=False)
    assert without_keys is not None
    assert without_keys.genuine


@pytest.mark.parametrize("text", ["{}", "garbage", '{"k4t-off":1}', "[]", "x" * 8000])
def test_a_notice_that_is_none_is_doubtful(text: str) -> None:
    """And nothing stumbles over it."""
    found = notice(text.encode())
    assert found is not None
    assert not found.genuine


def machines(found: Tree, *, with_master: bool = True) -> dict[str, tuple[str, ...]]:
    fleet = Fleet(found, lambda name, _ssh, _address: FakeTransport(name), {})
    listed = gather.machines(fleet, with_master=with_master)
    return {one.subject.key: tuple(str(thing) for thing in one.things) for one in listed}


def test_every_machine_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever of the tree is on it; so are places that only hold copies, and the master's."""
    monkeypatch.setattr(here, "is_here", lambda wanted: wanted == "10.0.0.11")
    known = world.tree()
    asked = dataclasses.replace(
        known, cluster=dataclasses.replace(known.cluster, backups=(Backup(node="n1"), Backup(host="ops@vault:2222")))
    )
    assert machines(asked) == {
        "node/n1": ("node n1", "master n1"), "node/n2": ("node n2",), "gateway/gw1": ("gateway gw1", "DNS names"),
        "host/ops@vault:2222": ("host ops@vault:2222",),
    }  # fmt: skip
    power = dataclasses.replace(asked.cluster, power=Power("k4t-master"))
    assert machines(dataclasses.replace(asked, cluster=power))["master/k4t-master"] == ("master k4t-master",)
    assert not [one for one in machines(asked, with_master=False).values() if "master" in " ".join(one)]


def test_a_master_that_is_no_host_of_the_tree_is_asked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As what it calls itself."""
    monkeypatch.setattr(here, "is_here", lambda _wanted: False)
    (own,) = [key for key in machines(world.tree()) if key.startswith("master/")]
    assert own == f"master/{here.names()[0]}"
