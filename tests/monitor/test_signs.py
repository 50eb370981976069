"""What one check says is wrong: each thing by its name, one root cause once, and nothing of what is well."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import pytest

from k4t.model.hosts import Power
from k4t.model.monitor import DAY, Monitor, Policy, Threshold
from k4t.model.publish import Certificate as TreeCertificate
from k4t.model.state import BoundPort, Head, NodeState, Stranger, Withdrawn
from k4t.monitor.facts import (
    Answer,
    Disk,
    Docker,
    Facts,
    Failure,
    Host,
    Memory,
    OffNotice,
    OpenTransaction,
    Subject,
    Target,
)  # fmt: skip
from k4t.monitor.signs import signs
from k4t.monitor.signs.sign import CRITICAL, OK, UNKNOWN, WARNING, ago, sized
from k4t.registrar.document import Certificate
from k4t.remote.lock import Holder
from k4t.remote.restricted import BY
from tests.monitor import world
from tests.monitor.world import GIB, NOW_S, away, container, facts, member, tree, with_node, with_reading

pytestmark = pytest.mark.unit
SILENT = Failure("silent", "10.0.0.12:22 does not answer within 10 s")


def told(found: Facts, *thresholds: Threshold, **more: Any) -> dict[str, int]:
    """Names with severities."""
    return {f"{one.subject}: {one.what}": one.severity for one in signs(found, tree(*thresholds), **more).found}


def sentence(found: Facts) -> str:
    (one,) = signs(found, tree()).found
    return one.sentence


def held(since_s: float) -> Holder:
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(since_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Holder("ops@laptop", "laptop", 4711, at, "apply", "r1")


def skewed(*skews_s: float) -> Facts:
    """Of n1, n2 and gw1, as far as given."""
    found = facts()
    for key, skew_s in zip(found.hosts, skews_s, strict=False):
        found = with_reading(found, key, skew_s=skew_s)
    return found


def members(**fields: Any) -> Facts:
    return facts(gateways={"gw1": member("gateway", "gw1", **fields)})


def copies(age_s: float) -> Facts:
    return facts(targets=(Target("n1", 60.0, "node/n1", NOW_S - age_s),))


def no_copies(state: Literal["none", "denied", "refused"]) -> Facts:
    return facts(targets=(Target("n1", 60.0, "node/n1", state=state),))


def disk(name: str, mount: str, percent: int) -> Facts:
    return with_reading(facts(), "node/n1", disks=full(name, mount, percent))


def certificate(left_s: float) -> Facts:
    from datetime import UTC, datetime

    ends = datetime.fromtimestamp(NOW_S + left_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = member("gateway", "gw1")
    assert found.document is not None
    document = dataclasses.replace(found.document, certificates=(Certificate("www", "ab" * 32, ends),))
    return facts(gateways={"gw1": dataclasses.replace(found, document=document)})


def full(name: str, mount: str, percent: int, *also: str) -> dict[str, Disk]:
    disk = Disk(name, mount, 100 * GIB, percent * GIB, (100 - percent) * GIB)
    return {**world.reading().disks, **{one: dataclasses.replace(disk, name=one) for one in (name, *also)}}


def inodes() -> dict[str, Disk]:
    return {"root": Disk("root", "/", 100 * GIB, GIB, 99 * GIB, 1000, 990)}


def stranger(name: str, cluster: str = "", port: int = 0) -> Facts:
    one = Stranger("x1", name, "n2", cluster, (BoundPort("", port),) if port else ())
    return facts(nodes={**facts().nodes, "n2": Docker(NodeState("n2", True, (container(1, "n2"),), (one,)))})


def in_the_way() -> Facts:
    """web has no container on n2, and its port is taken there."""
    one = Stranger("x1", "nginx", "n2", "", (BoundPort("", 8080),))
    return facts(nodes={**facts().nodes, "n2": Docker(NodeState("n2", True, (), (one,)))})


GONE = "app web: container-missing"
CASES: dict[str, tuple[Callable[[], Facts], dict[str, int]]] = {
    "all is well": (facts, {}),
    "a host is off": (lambda: away(facts(), "node/n2", SILENT), {"node n2: host-off": CRITICAL}),
    "no way to it from here": (
        lambda: away(facts(), "node/n2", dataclasses.replace(SILENT, reached_from="gw1")),
        {"node n2: network": CRITICAL},
    ),
    "sshd refuses": (lambda: away(facts(), "node/n2", Failure("refused", "refuses")), {"node n2: sshd": CRITICAL}),
    "login refused": (lambda: away(facts(), "node/n2", Failure("login", "no")), {"node n2: login": CRITICAL}),
    "it answers garbage": (lambda: away(facts(), "node/n2", Failure("garbage", "x")), {"node n2: garbage": CRITICAL}),
    "it never ends": (lambda: away(facts(), "node/n2", Failure("slow", "x")), {"node n2: hangs": CRITICAL}),
    "a part is garbage": (lambda: with_reading(facts(), "node/n1", garbage=("load",)), {"node n1: garbage": UNKNOWN}),
    "everything is silent": (
        lambda: away(away(away(facts(), "node/n1", SILENT), "node/n2", SILENT), "gateway/gw1", SILENT),
        {"cluster prod: network": CRITICAL},
    ),
    "disk nearly full": (lambda: disk("root", "/", 86), {"node n1: disk": WARNING}),
    "disk full": (lambda: disk("state", "/s", 99), {"node n1: disk": CRITICAL}),
    "inodes used up": (lambda: with_reading(facts(), "node/n1", disks=inodes()), {"node n1: disk": CRITICAL}),
    "Docker's disk": (
        lambda: with_reading(facts(), "node/n1", disks=full("docker", "/var/lib/docker", 96)),
        {"node n1: docker-disk": CRITICAL},
    ),
    "one file system is told once": (
        lambda: with_reading(facts(), "node/n1", disks=full("root", "/", 96, "docker")),
        {"node n1: disk": CRITICAL},
    ),
    "memory eaten": (
        lambda: with_reading(facts(), "node/n1", memory=Memory(16 * GIB, GIB)), {"node n1: memory": WARNING},
    ),
    "busy": (lambda: world.with_host(facts(), "node/n1", cpu_percent=99.0), {"node n1: cpu": WARNING}),
    "load": (lambda: with_reading(facts(), "node/n1", load=(50.0, 1.0, 1.0)), {"node n1: load": CRITICAL}),
    "clock behind": (lambda: with_reading(facts(), "node/n1", skew_s=-3600.0), {"node n1: clock-skew": CRITICAL}),
    "two clocks of three": (
        lambda: skewed(-3600.0, -3600.5), {"node n1: clock-skew": CRITICAL, "node n2: clock-skew": CRITICAL}
    ),
    "our own clock": (lambda: skewed(-3600.0, -3600.5, -3599.2), {"cluster prod: clock-skew": CRITICAL}),
    "all clocks differ": (
        lambda: skewed(-3600.0, 3600.0, 9.0),
        {"node n1: clock-skew": CRITICAL, "node n2: clock-skew": CRITICAL, "gateway gw1: clock-skew": WARNING},
    ),
    "clock in doubt": (lambda: with_reading(facts(), "node/n1", skew_s=9.0, skew_doubt_s=8.0), {}),
    "Docker away": (
        lambda: facts(nodes={**facts().nodes, "n2": Docker(NodeState("n2", False, problem="does not run"))}),
        {"node n2: docker": CRITICAL},
    ),
    "a container is gone": (lambda: with_node(facts(), "n2"), {GONE: WARNING}),
    "both are gone": (lambda: with_node(with_node(facts(), "n1"), "n2"), {GONE: CRITICAL}),
    "one restarts again and again": (
        lambda: with_node(facts(), "n2", container(1, "n2", state="restarting"), deaths={"prod.web.1.1": 5}),
        {"app web: restarting": WARNING},
    ),
    "one ended often and runs": (
        lambda: with_node(facts(), "n2", container(1, "n2"), deaths={"prod.web.1.1": 12}),
        {"app web: restarting": CRITICAL},
    ),
    "one ended once": (lambda: with_node(facts(), "n2", container(1, "n2"), deaths={"prod.web.1.1": 1}), {}),
    "one has exited": (
        lambda: with_node(facts(), "n2", container(1, "n2", state="exited")), {"app web: container-stopped": WARNING},
    ),
    "one is unhealthy": (
        lambda: facts(probed={**facts().probed, "id1": Answer("refused", "n2")}), {"app web: unhealthy": WARNING},
    ),
    "its own check says so": (
        lambda: with_node(facts(), "n2", container(1, "n2", health="unhealthy")), {"app web: unhealthy": WARNING},
    ),
    "one has just begun": (
        lambda: with_node(
            facts(probed={**facts().probed, "id1": Answer("refused", "n2")}), "n2",
            container(1, "n2", created_s=int(NOW_S) - 5),
        ),
        {},
    ),
    "one was not asked in time": (lambda: facts(probed={"id0": Answer("", "n1"), "id1": Answer(None, "n2")}), {}),
    "out of the gateway's reach": (
        lambda: facts(reached={**facts().reached, ("id1", 8080): Answer("times out", "gw1")}),
        {"app web: endpoint-dead": WARNING},
    ),
    "nobody knows of it": (
        lambda: with_node(facts(), "n2", container(1, "n2", id="other")), {"app web: unpublished": WARNING},
    ),
    "gateway stopped": (
        lambda: with_reading(members(differences=("silent",)), "gateway/gw1", processes={"envoy": 0, "dnsmasq": 1}),
        {"gateway gw1: gateway-stopped": CRITICAL},
    ),
    "nobody takes connections": (
        lambda: facts(serving={"gateway/gw1": "refused"}), {"gateway gw1: gateway-stopped": CRITICAL},
    ),
    "gateway away": (
        lambda: members(reachable=False, document=None, problem="no registrar"),
        {"gateway gw1: gateway-away": CRITICAL},
    ),
    "serves something else": (lambda: members(differences=("edited",)), {"gateway gw1: out-of-step": CRITICAL}),
    "configuration refused": (
        lambda: members(rendered=False, problem="line 3"), {"gateway gw1: rejected-config": CRITICAL},
    ),
    "withdrawn": (
        lambda: members(withdrawn=(Withdrawn("k7f3q2m9", "10.0.0.11", 8080, "id0", "me", "why"),)),
        {"gateway gw1: withdrawn": WARNING},
    ),
    "withdrawn by another cluster": (
        lambda: members(withdrawn=(Withdrawn("other", "10.0.0.11", 8080, "id0", "me", "why"),)), {},
    ),
    "certificate ends soon": (lambda: certificate(5 * DAY), {"certificate www: certificate-expiry": WARNING}),
    "certificate has ended": (lambda: certificate(-5.0), {"certificate www: certificate-expiry": CRITICAL}),
    "copy late": (lambda: copies(300), {"backup n1: backup-age": WARNING}),
    "copy overdue": (lambda: copies(900), {"backup n1: backup-age": CRITICAL}),
    "no copy yet": (lambda: no_copies("none"), {"backup n1: backup-age": WARNING}),
    "copy forged": (
        lambda: no_copies("refused"), {"backup n1: backup-refused": CRITICAL},
    ),
    "copy not to be read": (
        lambda: no_copies("denied"), {"backup n1: backup-age": UNKNOWN},
    ),
    "lock just taken": (lambda: with_reading(facts(), "node/n1", lock_held=True, lock=held(NOW_S - 5)), {}),
    "lock held for long": (
        lambda: with_reading(facts(), "node/n1", lock_held=True, lock=held(NOW_S - 2400)),
        {"cluster prod: lock-held": WARNING},
    ),
    "publication open": (
        lambda: facts(transactions=(OpenTransaction("t1", "gateway/default", "begun", NOW_S - 700),)),
        {"cluster prod: transaction-open": WARNING},
    ),
    "an app is held": (
        lambda: with_reading(facts(), "node/n1", head=Head("k7f3q2m9", 9, held={"web": "v1:ab"})),
        {"app web: held": WARNING},
    ),
    "a stranger has our name": (lambda: stranger("prod.web.9.1"), {"node n2: stranger": WARNING}),
    "a stranger of another cluster": (lambda: stranger("prod.web.9.1", "other"), {}),
    "a stranger is not in the way": (lambda: stranger("postgres", port=5432), {}),
    "a stranger has our port": (in_the_way, {GONE: WARNING, "node n2: stranger": WARNING}),
}  # fmt: skip


def test_what_the_monitor_took_out_is_no_alarm_while_it_also_gives_back() -> None:
    """With node-gone in force it gives back by itself. Without, or where a person took one out too, nobody does."""
    ours = Withdrawn("k7f3q2m9", "10.0.0.11", 8080, "id0", BY, "host-off")
    theirs = dataclasses.replace(ours, by="ada", container="id1")
    acts = dataclasses.replace(tree(), monitor=Monitor(policies={"node-gone": Policy("node-gone", enabled=True)}))
    for wanted, out, severity in ((acts, (ours,), OK), (tree(), (ours,), WARNING), (acts, (ours, theirs), WARNING)):
        found = signs(members(withdrawn=out), wanted).found
        assert {one.what: one.severity for one in found} == {"withdrawn": severity}


@pytest.mark.parametrize("case", CASES)
def test_each_thing_is_told_by_its_name_and_once(case: str) -> None:
    """And nothing else is."""
    make, expected = CASES[case]
    assert told(make()) == expected


def test_a_host_that_is_off_stands_for_all_that_is_on_it() -> None:
    """Its replica, its endpoints, the gateway and DNS server on it, and the copies there: one sign."""
    off = away(facts(), "gateway/gw1", SILENT)
    blind = {name: dataclasses.replace(member(kind, name), reachable=False, document=None, problem="away")
             for kind, name in (("gateway", "gw1"), ("dns", "names"))}  # fmt: skip
    off = dataclasses.replace(
        off, gateways={"gw1": blind["gw1"]}, dns={"names": blind["names"]}, reached={}, serving={}
    )
    assert told(off) == {"gateway gw1: host-off": CRITICAL}
    assert "with it DNS names" in sentence(off)
    node = away(facts(reached={("id0", 8080): Answer("", "gw1")}), "node/n2", SILENT)
    node = dataclasses.replace(node, targets=(Target("n1", 60.0, "node/n2", state="none"),))
    differs = member("gateway", "gw1", differences=("Envoy says that 10.0.0.12:8080 is unhealthy",))
    assert told(dataclasses.replace(node, gateways={"gw1": differs})) == {"node n2: host-off": CRITICAL}


def test_ages_are_told_by_the_clock_that_can_be_believed() -> None:
    """Ours jumped ahead by a day: the copies are no older for that."""
    late = dataclasses.replace(skewed(-86400.0, -86400.0, -86400.0), at_s=NOW_S + 86400)
    assert told(late) == {"cluster prod: clock-skew": CRITICAL}
    assert "backup n1: backup-age" in told(dataclasses.replace(facts(), at_s=NOW_S + 86400))


def test_it_is_said_when_nothing_else_serves_an_app() -> None:
    """The sentence about the node names the app."""
    found = away(with_node(facts(), "n1"), "node/n2", SILENT)
    documents = {}
    for kind, name in (("gateway", "gw1"), ("dns", "names")):
        one = member(kind, name)
        assert one.document is not None
        documents[name] = dataclasses.replace(
            one, document=dataclasses.replace(one.document, endpoints=one.document.endpoints[1:])
        )
    found = dataclasses.replace(found, gateways={"gw1": documents["gw1"]}, dns={"names": documents["names"]})
    assert "nothing else serves web" in sentence(found)


def test_a_master_that_is_off_on_purpose_is_no_alarm() -> None:
    """With a notice that is genuine, nor are the ages of its copies; with a doubtful one it is off."""
    subject = Subject("master", "k4t-master")
    down = facts(targets=(Target("n1", 60.0, "node/n1", NOW_S - 9000),))
    off = Host("k4t-master", subject, (subject,), failure=SILENT)
    down = dataclasses.replace(down, hosts={**down.hosts, subject.key: off}, master=subject.key)
    genuine = OffNotice("ops@k4t-master", "2026-11-20T12:00:00Z", "after apply", True, "gw1, n1")
    assert told(dataclasses.replace(down, off=genuine)) == {"master k4t-master: master-off-on-purpose": OK}
    doubtful = dataclasses.replace(genuine, genuine=False)
    assert told(dataclasses.replace(down, off=doubtful)) == {
        "master k4t-master: host-off": CRITICAL, "backup n1: backup-age": CRITICAL,
    }  # fmt: skip
    assert told(dataclasses.replace(down, off=None))["master k4t-master: host-off"] == CRITICAL


def test_a_master_that_does_not_let_the_monitor_in_is_on() -> None:
    """It need not; a monitor's key may have nothing to look for there. Another key of the host's is another thing."""
    master = Subject("master", "k4t-master")
    for strange, severity in ((True, OK), (False, CRITICAL)):
        failure = Failure("login", "the login of root is refused", strange=strange)
        hosts = {**facts().hosts, master.key: Host(master.name, master, (master,), failure=failure)}
        found = facts(hosts=hosts, master=master.key)
        assert told(found) == {"master k4t-master: login": severity}


def test_what_a_run_is_just_changing_is_not_held_against_it() -> None:
    """For ten minutes; a host that is off is told all the same."""
    changing = with_reading(with_node(facts(), "n2"), "node/n1", lock_held=True, lock=held(NOW_S - 60))
    assert told(changing) == {}
    assert told(away(changing, "node/n2", SILENT)) == {"node n2: host-off": CRITICAL}
    long = with_reading(with_node(facts(), "n2"), "node/n1", lock_held=True, lock=held(NOW_S - 700))
    assert told(long) == {GONE: WARNING}


def test_a_node_that_was_given_up_or_emptied_may_be_off() -> None:
    """Dead is worth knowing, drained a warning."""
    off = away(facts(desired={"web": ("0",)}), "node/n2", SILENT)
    for availability, severity in (("dead", OK), ("drained", WARNING)):
        nodes = {**tree().nodes}
        nodes["n2"] = dataclasses.replace(nodes["n2"], availability=availability)  # type: ignore[arg-type]
        found = signs(off, tree(nodes=nodes)).found
        assert [(one.what, one.severity) for one in found] == [("host-off", severity)]


def test_a_spare_node_is_off_until_it_is_needed() -> None:
    """No alarm, and what is missing elsewhere is told all the same; one that is on and in use is like any other."""
    off = away(facts(), "node/n2", SILENT)
    power = Power(on="wol 52:54:00:12:34:56", off="poweroff", spare=True)
    for availability, expected in (
        ("drained", {"node n2: host-off": OK, "app web: container-missing": WARNING}),
        ("active", {"node n2: host-off": CRITICAL}),
    ):
        wanted = tree()
        n2 = dataclasses.replace(wanted.nodes["n2"], availability=availability, power=power)  # type: ignore[arg-type]
        wanted = dataclasses.replace(wanted, nodes={**wanted.nodes, "n2": n2})
        found = {f"{one.subject}: {one.what}": one.severity for one in signs(off, wanted).found}
        assert found == expected


def test_thresholds_of_the_tree_count() -> None:
    """A line in monitor.xml replaces the default."""
    warm = with_reading(facts(), "node/n1", disks=full("root", "/", 60))
    assert told(warm) == {}
    assert told(warm, Threshold("disk", 50.0, 70.0)) == {"node n1: disk": WARNING}
    assert told(with_reading(facts(), "node/n1", disks=full("root", "/", 99)), Threshold("disk", None, None)) == {}
    late = facts(targets=(Target("n1", 60.0, "node/n1", NOW_S - 300),))
    assert told(late, Threshold("backup-age", 3600.0, 7200.0)) == {}


def test_an_open_publication_without_a_time_counts_from_when_it_was_first_seen() -> None:
    """A member that has something staged doesn't know since when."""
    staged = facts(transactions=(OpenTransaction("t9", "gateway gw1", "staged"),))
    assert told(staged) == {}
    assert told(staged, firsts={"t9": NOW_S - 4000}) == {"cluster prod: transaction-open": CRITICAL}


def group(*members: str, older: str = "") -> Facts:
    """Gateways of one group, one of which may hold what was published before."""
    found = {}
    for name in members:
        one = member("gateway", name)
        assert one.document is not None
        document = dataclasses.replace(one.document, seq=6, endpoints=()) if name == older else one.document
        found[name] = dataclasses.replace(one, document=document)
    return facts(gateways=found)


def test_a_member_that_holds_less_than_its_group_is_out_of_step() -> None:
    """It alone, and not for what a run is just publishing."""
    assert told(group("gw1", "gw2")) == {}
    assert told(group("gw1", "gw2", older="gw2")) == {"gateway gw2: out-of-step": CRITICAL}
    changing = with_reading(group("gw1", "gw2", older="gw2"), "node/n1", lock_held=True, lock=held(NOW_S - 5))
    assert told(changing) == {}


def test_members_are_held_against_the_tree_that_was_applied() -> None:
    """An app it lost that is still sent to, a route that is not there; nothing while the tree is ahead of the hosts."""
    applied = with_reading(facts(), "node/n1", head=Head("k7f3q2m9", 9, tree="t1"))
    found = signs(applied, tree(sha256="t1")).found
    assert {f"{one.subject}: {one.sentence}" for one in found} == {
        "gateway gw1: has no route of web", "DNS names: has no record of web",
    }  # fmt: skip
    found = signs(dataclasses.replace(applied, desired={}), tree(sha256="t1", apps={})).found
    assert {one.sentence for one in found} == {"still sends to web, which the tree no longer has"}
    assert signs(applied, tree(sha256="t2")).found == ()


def test_an_app_that_is_stopped_should_have_nothing() -> None:
    """Whatever there is of it."""
    assert told(facts(desired={"web": ()})) == {}


def test_certificates_of_the_tree_count_where_a_route_names_them() -> None:
    """What ends first of what is served and what the tree has; a time that is none says nothing."""
    known = tree()
    web = known.apps["web"]
    named = dataclasses.replace(web, routes=(dataclasses.replace(web.routes[0], tls="www"),))
    chains = {name: TreeCertificate(name, expires="2026-11-18T00:00:00Z") for name in ("www", "unused")}
    found = signs(facts(), dataclasses.replace(known, apps={"web": named}, certificates=chains)).found
    assert [(str(one.subject), one.what) for one in found] == [("certificate www", "certificate-expiry")]
    chains["www"] = TreeCertificate("www", expires="soon")
    assert signs(facts(), dataclasses.replace(known, apps={"web": named}, certificates=chains)).found == ()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.5, "0.5 s"), (90.0, "90 s"), (600.0, "10 min"), (9000.0, "2 h"), (864000.0, "10 d")]
)
def test_ages_are_one_figure(seconds: float, words: str) -> None:
    """As people say them."""
    assert ago(seconds) == words


def test_sizes_are_one_figure() -> None:
    """Up to the largest disks."""
    assert [sized(one) for one in (5, 2048, 3 << 30, 7 << 40)] == ["5 B", "2 KiB", "3 GiB", "7 TiB"]
