"""A small cluster as one check saw it, all well; tests take something away from it."""

from __future__ import annotations

import dataclasses
from typing import Any

from k4t.model.app import App, Image, Port
from k4t.model.hosts import Dns, Gateway, Node
from k4t.model.monitor import Monitor, Threshold
from k4t.model.publish import Record, Route
from k4t.model.spec import Backup, Cluster, Tree
from k4t.model.state import BoundPort, Container, Head, NodeState, ParticipantState
from k4t.monitor.facts import Answer, Disk, Docker, Facts, Failure, Host, Memory, Reading, Subject, Target, Ticks
from k4t.registrar.document import Document, Endpoint, Epoch

NOW_S = 1_795_000_000.0
GIB = 1 << 30


def container(replica: int, node: str, **fields: Any) -> Container:
    found = Container(
        id=f"id{replica}", name=f"prod.web.{replica}.1", node=node, app="web", replica=str(replica), generation=1,
        revision=1, spec="v1:ab", resources="", address=f"10.0.0.{11 + replica}", ports=(BoundPort("http", 8080),),
        status="Up 2 hours", created_s=int(NOW_S) - 7200,
    )  # fmt: skip
    return dataclasses.replace(found, **fields)


def endpoint(replica: int, node: str) -> Endpoint:
    return Endpoint(
        "web", f"10.0.0.{11 + replica}", 8080, "http", node=node, replica=str(replica), container=f"id{replica}"
    )  # fmt: skip


def reading(**fields: Any) -> Reading:
    disks = {"root": Disk("root", "/", 100 * GIB, 20 * GIB, 80 * GIB, 1000, 10)}
    disks["docker"] = Disk("docker", "/var/lib/docker", 100 * GIB, 20 * GIB, 80 * GIB, 1000, 10)
    found = Reading(
        clock_s=NOW_S, skew_s=0.01, skew_doubt_s=0.02, uptime_s=9999.0, load=(0.5, 0.5, 0.5), cpus=4,
        ticks=Ticks(1000, 900), memory=Memory(16 * GIB, 12 * GIB), disks=disks,
        processes={"sshd": 1, "dockerd": 1, "envoy": 1, "dnsmasq": 1}, head=Head("k7f3q2m9", 4),
    )  # fmt: skip
    return dataclasses.replace(found, **fields)


def host(name: str, *others: Subject, **fields: Any) -> Host:
    subject = Subject("gateway" if name == "gw1" else "node", name)
    return dataclasses.replace(Host(name, subject, (subject, *others), reading()), **fields)


def member(kind: str, name: str, **fields: Any) -> ParticipantState:
    ends = tuple(endpoint(number, f"n{number + 1}") for number in range(2))
    document = Document("k7f3q2m9", "prod", kind, "default", Epoch(3, "r"), 7, endpoints=ends)
    driver = "envoy" if kind == "gateway" else "dnsmasq"
    found = ParticipantState(
        kind, name, "default", driver, True, Epoch(3, "r"), document, document.digest  # type: ignore[arg-type]
    )  # fmt: skip
    return dataclasses.replace(found, **fields)


def tree(*thresholds: Threshold, **fields: Any) -> Tree:
    web = App("web", Image("web:1"), replicas=2, ports=(Port("http", container=8080),),
              routes=(Route(domains=("web.k4t.lab",)),), records=(Record("web"),))  # fmt: skip
    found = Tree(
        Cluster("prod", "k7f3q2m9", backups=(Backup(node="n1", every_s=60.0),)),
        {name: Node(name, f"10.0.0.1{number}") for number, name in enumerate(("n1", "n2"), 1)},
        {"web": web},
        {"gw1": Gateway("gw1", "envoy", "10.0.0.21")},
        {"names": Dns("names", "dnsmasq", "10.0.0.21", "k4t.lab")},
        monitor=Monitor(thresholds={one.of: one for one in thresholds}),
    )
    return dataclasses.replace(found, **fields)


def facts(**fields: Any) -> Facts:
    hosts = {one.subject.key: one for one in (host("n1"), host("n2"), host("gw1", Subject("dns", "names")))}
    nodes = {
        name: Docker(NodeState(name, True, (container(number, name),))) for number, name in enumerate(("n1", "n2"))
    }
    found = Facts(
        at_s=NOW_S, took_s=0.5, cluster="prod", cluster_id="k7f3q2m9", hosts=hosts,
        host_of={"node/n1": "node/n1", "node/n2": "node/n2", "gateway/gw1": "gateway/gw1", "dns/names": "gateway/gw1"},
        nodes=nodes, gateways={"gw1": member("gateway", "gw1")}, dns={"names": member("dns", "names")},
        serving={"gateway/gw1": ""}, probed={"id0": Answer("", "n1"), "id1": Answer("", "n2")},
        reached={("id0", 8080): Answer("", "gw1"), ("id1", 8080): Answer("", "gw1")},
        targets=(Target("n1", 60.0, "node/n1", NOW_S - 30),), desired={"web": ("0", "1")},
    )  # fmt: skip
    return dataclasses.replace(found, **fields)


def with_host(found: Facts, key: str, **fields: Any) -> Facts:
    changed = dataclasses.replace(found.hosts[key], **fields)
    return dataclasses.replace(found, hosts={**found.hosts, key: changed})


def with_reading(found: Facts, key: str, **fields: Any) -> Facts:
    return with_host(found, key, reading=reading(**fields))


def with_node(found: Facts, name: str, *containers: Container, **fields: Any) -> Facts:
    node = Docker(NodeState(name, True, containers), **fields)
    return dataclasses.replace(found, nodes={**found.nodes, name: node})


def away(found: Facts, key: str, failure: Failure) -> Facts:
    """The host doesn't answer, and so its Docker doesn't either."""
    changed = with_host(found, key, reading=None, failure=failure)
    name = key.partition("/")[2]
    if name not in changed.nodes:
        return changed
    node = Docker(NodeState(name, reachable=False, problem=failure.message))
    return dataclasses.replace(changed, nodes={**changed.nodes, name: node})
