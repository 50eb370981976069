"""Clusters as one check saw them, to make pages of: one that is well, one where much is wrong, a large one, and one
whose hosts say what nobody should believe."""

from __future__ import annotations

import dataclasses

from k4t.model.app import App, Image, Port, Scale
from k4t.model.hosts import Dns, Gateway, Node
from k4t.model.monitor import Monitor, Policy
from k4t.model.publish import Record, Route
from k4t.model.spec import Backup, Cluster, Tree
from k4t.model.state import (
    BoundPort,
    Container,
    Head,
    NodeState,
    ParticipantState,
    Revision,
    Size,
    Withdrawn,
)  # fmt: skip
from k4t.monitor.check import Looked
from k4t.monitor.events import Event
from k4t.monitor.facts import (
    Answer,
    Disk,
    Docker,
    Facts,
    Failure,
    Host,
    Memory,
    OffNotice,
    Reading,
    Subject,
    Target,
    Ticks,
)  # fmt: skip
from k4t.monitor.history import NONE, Entry, History
from k4t.monitor.judge import judge
from k4t.monitor.signs import signs
from k4t.registrar.document import Document, Endpoint, Epoch
from k4t.registrar.document import Record as Recorded
from k4t.registrar.document import Route as Routed
from tests.monitor.world import GIB, NOW_S

ID = "k7f3q2m9"
APPS = {"web": 6, "api": 4, "cart": 3, "search": 2, "mail": 1}
SIZES = {"search": Size(2, "monitor@watch", "2026-11-18T10:20:00Z", "requests 40 of 100 a second for 300 s")}
HOSTILE = "</style></script><img src=x onerror=alert(1)>\"'&\x00\u202e\ud800<!--"


def revisions(*, hostile: bool = False) -> tuple[Revision, ...]:
    said = HOSTILE if hostile else "the new search, and more memory for it"
    ages = (40.0, 1500.0, 5400.0, 30000.0, 90000.0, 260000.0)
    apps = (
        {"search": "b2"},
        {"web": "a1", "api": "c3"},
        {"web": "a0"},
        {"cart": "d4"},
        {"mail": "e5"},
        dict.fromkeys(APPS, "f6"),
    )
    return tuple(
        Revision(
            46 - place,
            "ab12",
            apps[place],
            "ana@laptop" if place % 2 else "ci@build",
            _at(age_s),
            said if not place else "",
        )
        for place, age_s in enumerate(ages)
    )


def events(*, hostile: bool = False) -> tuple[Event, ...]:
    """What the monitor saw and did in the last day, the oldest first."""
    node, app = Subject("node", "node3"), Subject("app", "api")
    rows = (
        (80000.0, "raised", app, "unhealthy", "warning", "1 of 4: replica 2 on node4: GET /health answered 503"),
        (79950.0, "queued", app, "app-unhealthy", "", "restart api 2: app api: unhealthy for 3 checks"),
        (79900.0, "over", app, "unhealthy", "warning", "was: 1 of 4: replica 2 on node4: GET /health answered 503"),
        (260.0, "raised", node, "host-off", "critical", "off, or cut off: 10.88.0.13:22 does not answer within 10 s"),
        (255.0, "done", node, "node-gone", "", "withdraw node3: 3 withdrawn from gateway gw1, 3 from DNS server ns1"),
        (230.0, "refused", Subject("node", "node2"), "disk-full", "warning", "prune node2: 2 in this hour already"),
        (225.0, "dry-run", app, "app-unhealthy", "", "restart api 1: would be asked for"),
        (220.0, "queued", node, "node-gone", "", "dead node3: host-off for 3 checks: queued on gw1; master was called"),
        (90.0, "failed", Subject("app", "search"), "scale", "critical", "scale search 3: no host took the intent"),
    )  # fmt: skip
    found = tuple(Event(NOW_S - age_s, kind, of, what, level, words) for age_s, kind, of, what, level, words in rows)
    return tuple(dataclasses.replace(one, what=HOSTILE, words=HOSTILE) for one in found) if hostile else found


def sizing(*, hostile: bool = False) -> dict[str, str]:
    return {"search": HOSTILE if hostile else "CPU 81 % of 60 %: 3 replicas would do; wants it for 12 s of 30 s"}


def _at(age_s: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(NOW_S - age_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def tree(nodes: int = 4, apps: dict[str, int] | None = None) -> Tree:
    wanted = apps or APPS
    backups = (
        Backup(node="node1", every_s=120.0), Backup(node="node2", every_s=3600.0), Backup(host="vault", every_s=86400.0)
    )  # fmt: skip
    return Tree(
        Cluster("prod", ID, backups=backups),
        {f"node{number}": Node(f"node{number}", f"10.88.0.{10 + number}") for number in range(1, nodes + 1)},
        {
            name: App(name, Image(f"registry.lab:5000/{name}:1.4"), replicas=count, ports=(Port("http", host="auto"),),
                      routes=(Route(domains=(f"{name}.example.com",)),), records=(Record(name),),
                      scale=Scale(2, 8, cpu_percent=60.0) if name == "search" else None)
            for name, count in wanted.items()
        },
        {"gw1": Gateway("gw1", "envoy", "10.88.0.3"), "gw2": Gateway("gw2", "haproxy", "10.88.0.4")},
        {"ns1": Dns("ns1", "dnsmasq", "10.88.0.3", "k4t.lab"), "ns2": Dns("ns2", "rfc2136", "10.88.0.4", "k4t.lab")},
    )  # fmt: skip


def containers(found: Tree) -> list[Container]:
    made: list[Container] = []
    names = list(found.nodes)
    for app in found.apps.values():
        for replica in range(app.replicas or 0):
            node = names[len(made) % len(names)]
            number = 20000 + len(made) // len(names)
            made.append(
                Container(
                    f"id{len(made)}",
                    f"prod.{app.name}.{replica}.1",
                    node,
                    app.name,
                    str(replica),
                    1,
                    40,
                    "v1:ab",
                    "",
                    found.nodes[node].address,
                    (BoundPort("http", number),),
                    status="Up 2 hours",
                    created_s=int(NOW_S) - 7200,
                    image=app.image.reference,
                )
            )
    return made


def facts(found: Tree) -> Facts:
    made = containers(found)
    nodes = {
        name: Docker(NodeState(name, True, tuple(one for one in made if one.node == name))) for name in found.nodes
    }
    subjects = [Subject("node", name) for name in found.nodes]
    hosts = {
        one.key: Host(one.name, one, (one,), _reading(place), cpu_percent=12.0 + 17 * place % 60)
        for place, one in enumerate(subjects)
    }
    for name, other in (("gw1", "ns1"), ("gw2", "ns2")):
        one = Subject("gateway", name)
        hosts[one.key] = Host(name, one, (one, Subject("dns", other)), _reading(3), cpu_percent=8.0)
    vault = Subject("host", "vault")
    hosts[vault.key] = Host("vault", vault, (vault,), _reading(1), cpu_percent=1.0)
    return Facts(
        at_s=NOW_S, took_s=0.6, cluster="prod", cluster_id=ID, hosts=hosts,
        host_of={thing.key: key for key, host in hosts.items() for thing in host.things}, nodes=nodes,
        gateways={name: _member(found, "gateway", name, made) for name in found.gateways},
        dns={name: _member(found, "dns", name, made) for name in found.dns},
        serving=dict.fromkeys(("gateway/gw1", "gateway/gw2"), ""),
        probed={one.id: Answer("", one.node) for one in made},
        reached={(one.id, port.number): Answer("", "gw1") for one in made for port in one.ports},
        targets=(Target("node1", 120.0, "node/node1", NOW_S - 45), Target("node2", 3600.0, "node/node2", NOW_S - 1700),
                 Target("vault", 86400.0, "host/vault", NOW_S - 40000)),
        desired={app.name: tuple(str(number) for number in range(app.replicas or 0)) for app in found.apps.values()},
    )  # fmt: skip


def _reading(place: int) -> Reading:
    used = (30 + 11 * place % 40) * GIB
    disks = {"root": Disk("root", "/", 100 * GIB, used, 100 * GIB - used, 1000, 10),
             "docker": Disk("docker", "/var/lib/docker", 200 * GIB, used, 200 * GIB - used, 1000, 10)}  # fmt: skip
    processes = {"sshd": 1, "dockerd": 1, "envoy": 1, "haproxy": 1, "dnsmasq": 1, "named": 1}
    return Reading(
        NOW_S, 0.01, 0.02, 999999.0, (0.5, 0.5, 0.5), 4, Ticks(1000, 900), Memory(16 * GIB, (9 - place % 4) * GIB),
        disks=disks, processes=processes, head=Head(ID, 46, revisions=revisions(), sizes=SIZES), clusters=(ID,),
    )  # fmt: skip


def _member(found: Tree, kind: str, name: str, made: list[Container]) -> ParticipantState:
    ends = tuple(
        Endpoint(one.app, one.address, port.number, "http", node=one.node, replica=one.replica, container=one.id)
        for one in made for port in one.ports
    )  # fmt: skip
    routes = tuple(Routed(app, "http", (f"{app}.example.com",)) for app in found.apps)
    document = Document(
        ID,
        "prod",
        kind,
        "default",
        Epoch(12, "r"),
        31,
        endpoints=ends,
        routes=routes,
        records=tuple(Recorded(app, app) for app in found.apps),
    )
    driver = (found.gateways if kind == "gateway" else found.dns)[name].driver
    return ParticipantState(kind, name, "default", driver, True, Epoch(12, "r"), document, document.digest)  # type: ignore[arg-type]


# --- states ----------------------------------------------------------------------------------------------------------


def looked(found: Facts, wanted: Tree, history: History = NONE) -> Looked:
    return Looked(found, judge(signs(found, wanted), history, wanted.monitor, NOW_S), wanted)


def healthy() -> Looked:
    return looked(facts(tree()), tree())


def bad() -> Looked:
    """A node is off, a disk is full, a replica ends again and again, one hangs, a gateway is stopped, a copy is late,
    and two things have just been seen."""
    policies = {"node-gone": Policy("node-gone", True), "app-unhealthy": Policy("app-unhealthy", True, dry_run=True)}
    wanted = dataclasses.replace(tree(), monitor=Monitor(policies=policies))  # type: ignore[arg-type]
    found = facts(wanted)
    silent = Failure("silent", "10.88.0.13:22 does not answer within 10 s", "k4t node check node3")
    hosts, nodes, probed = dict(found.hosts), dict(found.nodes), dict(found.probed)
    hosts["node/node3"] = dataclasses.replace(hosts["node/node3"], reading=None, failure=silent, cpu_percent=None)
    nodes["node3"] = Docker(NodeState("node3", reachable=False, problem=silent.message))
    full = {"root": Disk("root", "/", 100 * GIB, 97 * GIB, 3 * GIB, 1000, 10)}
    reading = dataclasses.replace(hosts["node/node2"].reading or _reading(1), disks=full, memory=Memory(16 * GIB, GIB))
    hosts["node/node2"] = dataclasses.replace(hosts["node/node2"], reading=reading)
    ours = nodes["node1"].state.containers
    ends = dataclasses.replace(ours[0], state="restarting", status="Restarting (1) 4 seconds ago")
    nodes["node1"] = Docker(NodeState("node1", True, (ends, *ours[1:])), {ends.name: 9})
    probed[nodes["node4"].state.containers[1].id] = Answer("GET /health answered 503 after 12 ms", "node4")
    targets = (dataclasses.replace(found.targets[0], confirmed_s=NOW_S - 5200), *found.targets[1:])
    serving = {**found.serving, "gateway/gw2": "10.88.0.4:80: connection refused"}
    found = dataclasses.replace(
        found, hosts=hosts, nodes=nodes, probed=probed, targets=targets, serving=serving, transactions=(),
        gateways={**found.gateways, "gw1": _withdrawn(found.gateways["gw1"], "monitor", "node3: host-off")},
    )  # fmt: skip
    ages_s = {
        "node/node3:host-off": 260.0, "node/node2:disk": 7300.0, "gateway/gw2:gateway-stopped": 90.0,
        "backup/node1:backup-age": 1500.0, "app/web:restarting": 660.0,
    }  # fmt: skip
    entries = {key: Entry((3, 3), 3, NOW_S - age_s) for key, age_s in ages_s.items()}
    since = History((NOW_S - 20, NOW_S - 10), entries)
    return looked(found, wanted, since)


def _withdrawn(member: ParticipantState, by: str, why: str) -> ParticipantState:
    """Without what it had on node3."""
    ends = member.document.endpoints if member.document else ()
    out = tuple(Withdrawn(ID, end.ip, end.port, end.container, by, why) for end in ends if end.node == "node3")
    return dataclasses.replace(member, withdrawn=out)


def large() -> Looked:
    """A hundred nodes with thirty containers each, two of them off."""
    wanted = tree(100, {f"app{number:02}": 50 for number in range(60)})
    found = facts(wanted)
    hosts, nodes = dict(found.hosts), dict(found.nodes)
    for name in ("node17", "node60"):
        silent = Failure("silent", f"{name}:22 does not answer within 10 s", f"k4t node check {name}")
        hosts[f"node/{name}"] = dataclasses.replace(hosts[f"node/{name}"], reading=None, failure=silent)
        nodes[name] = Docker(NodeState(name, reachable=False, problem=silent.message))
    return looked(dataclasses.replace(found, hosts=hosts, nodes=nodes), wanted)


def hostile() -> Looked:
    """Every word that a host, a container, an image or a person can choose tries to be markup."""
    wanted = tree()
    found = facts(wanted)
    hosts, nodes, probed = dict(found.hosts), dict(found.nodes), dict(found.probed)
    failure = Failure("login", HOSTILE, HOSTILE)
    hosts["node/node3"] = dataclasses.replace(hosts["node/node3"], reading=None, failure=failure)
    nodes["node3"] = Docker(NodeState("node3", reachable=False, problem=HOSTILE))
    ours = nodes["node1"].state.containers
    one = dataclasses.replace(
        ours[0], app=HOSTILE, replica=HOSTILE, name=HOSTILE, image=HOSTILE, status=HOSTILE, state="exited"
    )
    nodes["node1"] = Docker(NodeState("node1", True, (one, *ours[1:])))
    probed[ours[1].id] = Answer(HOSTILE, HOSTILE)
    gateways = {
        "gw1": _withdrawn(found.gateways["gw1"], HOSTILE, HOSTILE),
        "gw2": dataclasses.replace(
            found.gateways["gw2"], reachable=False, document=None, problem=HOSTILE, driver=HOSTILE
        ),
    }
    targets = (Target(HOSTILE, 120.0, "node/node1", None, "refused", HOSTILE), *found.targets[1:])
    return looked(
        dataclasses.replace(
            found, cluster=HOSTILE, hosts=hosts, nodes=nodes, probed=probed, gateways=gateways, targets=targets
        ),
        wanted,
    )


def master_off(*, on_purpose: bool) -> Looked:
    """The master, a machine of its own, does not answer; by what the others say, it may have said so before."""
    wanted = tree()
    found = facts(wanted)
    subject = Subject("master", "boss")
    silent = Failure("silent", "10.88.0.2:22 does not answer within 10 s")
    boss = Host("boss", subject, (subject,), failure=silent)
    off = OffNotice("root@boss", _at(600.0), "after apply", True, "gw1, vault") if on_purpose else None
    hosts = {**found.hosts, subject.key: boss}
    return looked(dataclasses.replace(found, hosts=hosts, off=off, master=subject.key), wanted)
