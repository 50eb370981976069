"""Hosts: away (and why), short of something, their clock, their Docker. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from k4t.monitor.facts import Disk, Docker, Failure, Host, Reading, Subject
from k4t.monitor.signs.sign import CRITICAL, NOTHING_CAME, OK, UNKNOWN, WARNING, Sign, View, ago, judged, listed, sized

NAMES = {
    "no-name": "network", "refused": "sshd", "mute": "sshd", "slow": "hangs", "lost": "sshd", "login": "login",
    "garbage": "garbage",
}  # fmt: skip
"""What a failure is called, where the host is known not to be simply off."""


def signs(view: View) -> Iterator[Sign]:
    hosts = view.facts.hosts
    asked = [host for host in hosts.values() if host.failure is None or host.subject.kind != "master"]
    if cut_off(asked):
        sentence = f"none of {len(_others(asked))} hosts answers: this machine is cut off, or all of them are off"
        yield Sign(
            Subject("cluster", view.facts.cluster), "network", CRITICAL, sentence, "look at its own network first"
        )
        asked = [host for host in asked if host.failure is None]
        hosts = {host.subject.key: host for host in asked}
    if view.ahead_s:
        yield from _own_clock(view)
    for host in hosts.values():
        if host.failure is not None:
            yield _failed(view, host, host.failure)
        elif host.reading is not None:
            yield from _read(view, host, host.reading)
    for node in view.facts.nodes.values():
        yield from _docker(view, node)


def cut_off(hosts: list[Host]) -> bool:
    """Whether it is rather we who are away: nothing came from any of several hosts."""
    others = _others(hosts)
    silent = [host for host in others if host.failure is not None and host.failure.kind in NOTHING_CAME]
    return len(others) > 1 and len(silent) == len(others)


def _others(hosts: list[Host]) -> list[Host]:
    return [host for host in hosts if host.subject.kind != "master"]


# --- away ----------------------------------------------------------------------------------------------------------


def _failed(view: View, host: Host, failure: Failure) -> Sign:
    subject, off = host.subject, view.facts.off
    if subject.kind == "master" and failure.kind in (*NOTHING_CAME, "refused") and off is not None:
        if off.genuine:
            why = f" ({off.why})" if off.why else ""
            sentence = f"off on purpose since {off.at}, by {off.who}{why}; said on {off.read_on}"
            return Sign(subject, "master-off-on-purpose", OK, sentence, "k4t power on wakes it")
        doubt = f"; {off.read_on} says that it is off on purpose, which nobody can vouch for"
        return Sign(subject, "host-off", CRITICAL, failure.message + doubt, "look at it")
    if subject.kind == "master" and failure.strange:
        sentence = f"it is on, and how it is can't be asked from here: {failure.message}"
        return Sign(subject, "login", OK, sentence, failure.remedy)
    node = view.tree.nodes.get(subject.name) if subject.kind == "node" else None
    severity = CRITICAL
    if node is not None and node.availability in ("dead", "drained"):
        severity = OK if node.availability == "dead" else WARNING
    what, words = _named(failure)
    if view.resting(subject.name) and subject.kind == "node":
        return Sign(
            subject, what, OK, "a spare node, emptied and off until it is needed", f"k4t power on {subject.name}"
        )
    if failure.kind in NOTHING_CAME and not failure.reached_from and severity == OK:
        words = f"given up ({node.where if node else ''}), and does not answer"
    return Sign(subject, what, severity, words + _with_it(view, host), failure.remedy or _remedy(host))


def _named(failure: Failure) -> tuple[str, str]:
    if failure.kind in NOTHING_CAME:
        if failure.reached_from:
            return (
                "network",
                f"{failure.message}; it is on: {failure.reached_from} reaches it, so it is the way from here",
            )
        return "host-off", f"off, or cut off: {failure.message}"
    return NAMES[failure.kind], failure.message


def _with_it(view: View, host: Host) -> str:
    """What else is there, and which apps have nothing elsewhere."""
    others = [str(thing) for thing in host.things[1:] if thing.kind != "host"]
    lost = sorted(_only_there(view, host))
    words = f"; with it {listed(others)}" if others else ""
    return words + (f"; nothing else serves {listed(lost)}" if lost else "")


def _only_there(view: View, host: Host) -> set[str]:
    """Apps all of whose published endpoints are on this host's node."""
    nodes = {thing.name for thing in host.things if thing.kind == "node"}
    places: dict[str, set[str]] = {}
    for member in (*view.facts.gateways.values(), *view.facts.dns.values()):
        for endpoint in member.document.endpoints if member.document else ():
            places.setdefault(endpoint.app, set()).add(endpoint.node)
    return {app for app, on in places.items() if on and on <= nodes}


def _remedy(host: Host) -> str:
    return (
        f"k4t {host.subject.kind} check {host.subject.name}" if host.subject.kind in ("node", "gateway", "dns") else ""
    )


# --- short of something ----------------------------------------------------------------------------------------------


def _read(view: View, host: Host, reading: Reading) -> Iterator[Sign]:
    if reading.garbage:
        sentence = f"answers garbage for {listed(reading.garbage)}: what it is there is unknown"
        yield Sign(
            host.subject, "garbage", UNKNOWN, sentence, f"run what it should say by hand: {_remedy(host)}".rstrip(": ")
        )
    yield from _disks(view, host, reading)
    if reading.memory is not None:
        memory = reading.memory
        left, total = sized(memory.available_bytes), sized(memory.total_bytes)
        sentence = f"{memory.percent:.0f} % of its memory is used, {left} of {total} left"
        yield from judged(
            Sign(host.subject, "memory", OK, sentence, "k4t top shows by whom", memory.percent),
            view.tree.monitor.threshold("memory"),
        )
    if host.cpu_percent is not None:
        sentence = f"its {reading.cpus or ''} processors are {host.cpu_percent:.0f} % busy".replace("  ", " ")
        yield from judged(
            Sign(host.subject, "cpu", OK, sentence, "k4t top shows by whom", host.cpu_percent),
            view.tree.monitor.threshold("cpu"),
        )
    if reading.load is not None and reading.cpus:
        each = reading.load[0] / reading.cpus
        sentence = f"load {reading.load[0]:.1f} on {reading.cpus} processors: {each:.1f} wait for each"
        yield from judged(
            Sign(host.subject, "load", OK, sentence, "look for slow disks and for what runs there", each),
            view.tree.monitor.threshold("load"),
        )
    yield from _clock(view, host, reading)


def _disks(view: View, host: Host, reading: Reading) -> Iterator[Sign]:
    """One file system is told once, whatever is on it."""
    disks = reading.disks
    ours = {one.mount: one for name in ("state", "root") if (one := disks.get(name)) is not None}
    if ours:
        fullest = max(ours.values(), key=lambda one: one.percent)
        yield from judged(
            Sign(host.subject, "disk", OK, _full(fullest), "make room there", fullest.percent),
            view.tree.monitor.threshold("disk"),
        )
    docker = disks.get("docker")
    node = next((thing.name for thing in host.things if thing.kind == "node"), "")
    if docker is not None and docker.mount not in ours and node:
        images = view.facts.nodes[node].images_bytes if node in view.facts.nodes else None
        sentence = _full(docker) + (f"; images take {sized(images)}" if images else "")
        sign = Sign(host.subject, "docker-disk", OK, sentence, "k4t prune removes old images", docker.percent)
        yield from judged(sign, view.tree.monitor.threshold("docker-disk"))


def _full(disk: Disk) -> str:
    whose = "Docker's disk" if disk.name == "docker" else "its disk"
    if disk.inodes_percent > disk.space_percent:
        return f"{whose} {disk.mount} has used {disk.inodes_used} of {disk.inodes} inodes, {disk.inodes_percent:.0f} %"
    left, total = sized(disk.available_bytes), sized(disk.size_bytes)
    return f"{whose} {disk.mount} is {disk.space_percent:.0f} % full, {left} of {total} left"


def _clock(view: View, host: Host, reading: Reading) -> Iterator[Sign]:
    """What may be our own doubt is not held against it."""
    if reading.skew_s is None or view.ahead_s:
        return
    sure_s = max(0.0, abs(reading.skew_s) - reading.skew_doubt_s)
    way = "ahead of" if reading.skew_s > 0 else "behind"
    sentence = f"its clock is {ago(abs(reading.skew_s))} {way} ours, give or take {reading.skew_doubt_s:.2f} s"
    sign = Sign(host.subject, "clock-skew", OK, sentence, "let it keep time: chrony, systemd-timesyncd", sure_s)
    yield from judged(sign, view.tree.monitor.threshold("clock-skew"))


def _own_clock(view: View) -> Iterator[Sign]:
    way = "ahead of" if view.ahead_s > 0 else "behind"
    sentence = f"this machine's clock is {ago(abs(view.ahead_s))} {way} those of all hosts; ages are told by theirs"
    subject, remedy = Subject("cluster", view.facts.cluster), "let it keep time: chrony, systemd-timesyncd"
    sign = Sign(subject, "clock-skew", OK, sentence, remedy, abs(view.ahead_s))
    yield from judged(sign, view.tree.monitor.threshold("clock-skew"))


# --- Docker ----------------------------------------------------------------------------------------------------------


def _docker(view: View, node: Docker) -> Iterator[Sign]:
    host = view.on(f"node/{node.state.name}")
    if host is None or host.reading is None:
        return
    subject = Subject("node", node.state.name)
    if not node.state.reachable:
        if view.given_up(node.state.name):
            return
        runs = host.reading.processes.get("dockerd", 0)
        words = node.state.problem if runs else f"Docker does not run: {node.state.problem}"
        sentence = words + _with_it(view, Host(host.name, subject, (subject,)))
        yield Sign(subject, "docker", CRITICAL, sentence, "systemctl restart docker there")
        return
    yield from _strangers(view, node)


def _strangers(view: View, node: Docker) -> Iterator[Sign]:
    """Containers of nobody's that hold a name, or a port, of ours."""
    if not node.state.strangers:
        return
    prefix = f"{view.facts.cluster}."
    names = {f"{prefix}{app}." for app in view.tree.apps}
    wanted = _missing_ports(view, node.state.name)
    for one in node.state.strangers:
        taken = sorted({port.number for port in one.ports} & wanted.keys())
        if not one.cluster and any(one.name.startswith(name) for name in names):
            sentence = f"container {one.name} has a name of ours, and is not k4t's"
        elif taken:
            sentence = f"container {one.name} holds port {taken[0]}, which {wanted[taken[0]]} needs"
        else:
            continue
        yield Sign(
            Subject("node", node.state.name),
            "stranger",
            WARNING,
            sentence,
            f"docker rm -f {one.name} there, if nobody needs it",
        )


def _missing_ports(view: View, node: str) -> dict[int, str]:
    """Fixed ports of apps that have no container there."""
    here = {one.app for one in view.facts.nodes[node].state.containers}
    return {
        number: app.name
        for app in view.tree.apps.values()
        if app.name not in here and not app.stopped
        for port in app.ports
        if isinstance(number := port.host if isinstance(port.host, int) else port.container, int)
    }
