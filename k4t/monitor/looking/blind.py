"""Looking without a tree: hosts named by hand, and what they themselves say is there. What should be is not known; what
is published and runs is compared with each other.

A host with Docker is a node; one whose registrar serves a vendor is a gateway or a DNS server. Its name is what it was
called by, until a document says how the tree calls the node of a container that runs there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import wait
from dataclasses import replace

from k4t.errors import K4tError, Usage
from k4t.master.fleet import Fleet, begun, hosts_of
from k4t.model.hosts import Dns, Gateway, Node, Ssh
from k4t.model.spec import Cluster, Tree
from k4t.model.state import NodeState
from k4t.monitor.facts import Docker, Facts, Host, Reading, Subject
from k4t.monitor.looking import gather, probe
from k4t.remote.ssh_config import split_hop

GATEWAYS = frozenset({"envoy", "haproxy", "nginx"})
DNS_SERVERS = frozenset({"dnsmasq", "hosts"})
"""What a registrar's directory may be called, of what can be asked without knowing more."""


def tree_of(hosts: Sequence[str]) -> Tree:
    """All of them as nodes, to be asked what they are. Raises Usage for what is no user@host:port."""
    nodes = {}
    for text in dict.fromkeys(hosts):
        try:
            user, address, port = split_hop(text)
        except ValueError as error:
            raise Usage(f"--host {text!r} is no host", "write user@host:port") from error
        nodes[text] = Node(text, address, ssh=Ssh(host=address, port=port, user=user))
    return Tree(Cluster("", ""), nodes)


def find(fleet: Fleet, cluster_id: str) -> Tree:
    """What is on the hosts of `tree_of`: the same tree with their kinds, of one cluster. Raises Usage when they are of
    several and none is chosen, K4tError when no host answers."""
    nodes = list(fleet.tree.nodes.values())
    asked = begun(lambda node: probe.ask(fleet.transport(node), ""), nodes, most=gather.AT_ONCE)
    wait(asked, timeout=gather.CONNECT_S + gather.ANSWER_S)
    readings = {
        node.name: future.result()
        for node, future in zip(nodes, asked, strict=True)
        if future.done() and future.exception() is None
    }
    clusters = sorted({one for reading in readings.values() for one in reading.clusters})
    if not readings:
        first = next((future.exception() for future in asked if future.done()), None)
        raise first if isinstance(first, K4tError) else K4tError("none of the hosts answers")
    return _tree(fleet.tree.nodes, readings, _chosen(clusters, cluster_id))


def _chosen(clusters: Sequence[str], wanted: str) -> str:
    if wanted or len(clusters) == 1:
        return wanted or clusters[0]
    if clusters:
        raise Usage(
            f"these hosts are of {len(clusters)} clusters: {', '.join(clusters)}", "choose one with --cluster ID"
        )
    raise Usage("no cluster has left anything on these hosts", "has it been applied? name it with --cluster ID")


def _tree(asked: Mapping[str, Node], readings: Mapping[str, Reading], cluster_id: str) -> Tree:
    """A host that doesn't answer stays a node: that is told."""
    nodes, gateways, servers = dict[str, Node](), dict[str, Gateway](), dict[str, Dns]()
    for name, node in asked.items():
        reading = readings.get(name)
        drivers = reading.drivers if reading else ()
        for driver in drivers:
            if driver in GATEWAYS:
                gateways[name] = Gateway(name, driver, node.address, http=0, ssh=node.ssh)
            elif driver in DNS_SERVERS:
                servers[name] = Dns(name, driver, node.address, "", ssh=node.ssh)
        if reading is None or reading.processes.get("dockerd") or not drivers:
            nodes[name] = node
    return Tree(Cluster(cluster_id, cluster_id), nodes, gateways=gateways, dns=servers)


def turned(fleet: Fleet, tree: Tree) -> None:
    """The fleet looks at another tree of the same machines, over the connections it has."""
    fleet.tree, fleet.hosts = tree, hosts_of(tree)


def named(facts: Facts) -> Facts:
    """With the names that documents have: the cluster's, and those of nodes whose containers they send to."""
    documents = [one.document for one in (*facts.gateways.values(), *facts.dns.values()) if one.document]
    nodes = {end.container: end.node for document in documents for end in document.endpoints if end.container}
    names: dict[str, str] = {}
    for called, node in facts.nodes.items():
        known = {nodes[one.id] for one in node.state.containers if one.id in nodes} - {""}
        if len(known) == 1 and (name := known.pop()) not in {*names.values(), *facts.nodes}:
            names[called] = name
    keys = {f"node/{called}": f"node/{name}" for called, name in names.items()}
    hosts = [_host(host, names) for host in facts.hosts.values()]
    return replace(
        facts,
        cluster=next((document.name for document in documents), facts.cluster),
        hosts={host.subject.key: host for host in hosts},
        host_of={keys.get(thing, thing): keys.get(host, host) for thing, host in facts.host_of.items()},
        nodes={names.get(called, called): _docker(node, names) for called, node in facts.nodes.items()},
    )


def _host(host: Host, names: Mapping[str, str]) -> Host:
    things = tuple(_subject(thing, names) for thing in host.things)
    subject = _subject(host.subject, names)
    return replace(host, name=subject.name, subject=subject, things=things)


def _subject(one: Subject, names: Mapping[str, str]) -> Subject:
    return Subject("node", names[one.name]) if one.kind == "node" and one.name in names else one


def _docker(node: Docker, names: Mapping[str, str]) -> Docker:
    name = names.get(node.state.name, node.state.name)
    containers = tuple(replace(one, node=name) for one in node.state.containers)
    state: NodeState = replace(node.state, name=name, containers=containers)
    return replace(node, state=state)
