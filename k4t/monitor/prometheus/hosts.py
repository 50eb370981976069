"""Hosts and nodes → samples. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from k4t.monitor.facts import Docker, Host, Reading
from k4t.monitor.judge import Finding
from k4t.monitor.prometheus.exposition import Sample
from k4t.monitor.signs.hosts import cut_off
from k4t.monitor.signs.sign import NOTHING_CAME, View

MAY_BE_OFF = ("dead", "drained")


def samples(view: View, findings: tuple[Finding, ...]) -> Iterator[Sample]:
    cluster = view.facts.cluster
    cut = is_cut_off(view)
    for host in view.facts.hosts.values():
        labels = {"cluster": cluster, "kind": host.subject.kind, "host": host.subject.name}
        unknown = cut and host.failure is not None and host.failure.kind in NOTHING_CAME
        yield Sample("k4t_host_up", labels, None if unknown else float(host.reading is not None))
        yield Sample("k4t_host_expected_up", labels, float(not _may_be_off(view, host, findings)))
        if host.failure is not None:
            yield Sample("k4t_host_failure", {**labels, "reason": host.failure.kind}, 1)
        if host.reading is not None:
            yield from _read(labels, host, host.reading)
    for name, node in view.facts.nodes.items():
        yield from _node(view, name, node)


def is_cut_off(view: View) -> bool:
    """Whether it is rather the monitor that is away, as signs.hosts has it."""
    hosts = view.facts.hosts.values()
    return cut_off([one for one in hosts if one.failure is None or one.subject.kind != "master"])


def _may_be_off(view: View, host: Host, findings: tuple[Finding, ...]) -> bool:
    """By the tree, by the master's own word, or since whatever judges hosts finds nothing wrong with it."""
    off = view.facts.off
    node = view.tree.nodes.get(host.subject.name) if host.subject.kind == "node" else None
    if node is not None and node.availability in MAY_BE_OFF:
        return True
    if host.subject.kind == "master" and off is not None and off.genuine:
        return True
    mine = [one.level for one in findings if one.present and one.subject == host.subject]
    return host.failure is not None and bool(mine) and set(mine) == {"ok"}


def _read(labels: Mapping[str, str], host: Host, reading: Reading) -> Iterator[Sample]:
    loads = reading.load or (None, None, None)
    found = {
        "k4t_host_uptime_seconds": reading.uptime_s,
        "k4t_host_load1": loads[0],
        "k4t_host_load5": loads[1],
        "k4t_host_load15": loads[2],
        "k4t_host_cpus": reading.cpus,
        "k4t_host_cpu_used_ratio": _ratio(host.cpu_percent),
        "k4t_host_clock_skew_seconds": reading.skew_s,
        "k4t_host_clock_skew_doubt_seconds": None if reading.skew_s is None else reading.skew_doubt_s,
    }
    if memory := reading.memory:
        found |= {
            "k4t_host_memory_size_bytes": memory.total_bytes,
            "k4t_host_memory_available_bytes": memory.available_bytes,
            "k4t_host_memory_used_ratio": _ratio(memory.percent) if memory.total_bytes else None,
            "k4t_host_swap_size_bytes": memory.swap_total_bytes,
            "k4t_host_swap_free_bytes": memory.swap_free_bytes,
        }
    yield from (Sample(name, labels, measured) for name, measured in found.items())
    for disk in reading.disks.values():
        where = {**labels, "disk": disk.name, "mountpoint": disk.mount}
        yield Sample("k4t_host_disk_size_bytes", where, disk.size_bytes)
        yield Sample("k4t_host_disk_available_bytes", where, disk.available_bytes)
        shares = {"space": disk.space_percent, "inodes": disk.inodes_percent if disk.inodes else None}
        for of, percent in shares.items():
            yield Sample("k4t_host_disk_used_ratio", {**where, "of": of}, _ratio(percent))


def _node(view: View, name: str, node: Docker) -> Iterator[Sample]:
    labels = {"cluster": view.facts.cluster, "node": name}
    host, state = view.on(f"node/{name}"), node.state
    tree = view.tree.nodes.get(name)
    about = {"availability": tree.availability if tree else "", "host": host.subject.name if host else ""}
    yield Sample("k4t_node_info", {**labels, **about}, 1)
    if host is not None and host.reading is not None:
        yield Sample("k4t_node_docker_up", labels, float(state.reachable))
    if state.reachable:
        yield Sample("k4t_node_containers", labels, len(state.containers))
        yield Sample("k4t_node_containers_running", labels, sum(one.running for one in state.containers))
        yield Sample("k4t_node_containers_foreign", labels, len(state.strangers))
        yield Sample("k4t_node_images_bytes", labels, node.images_bytes)


def _ratio(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100.0, 5)
