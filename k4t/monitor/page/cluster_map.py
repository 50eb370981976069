"""The map: who brings traffic in and who names it, and the nodes with their containers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from k4t.model.state import Container, NodeState, ParticipantState
from k4t.monitor.facts import Docker, Host
from k4t.monitor.page.markup import Html, element, hidden
from k4t.monitor.page.view import SIGNS, Page, badge, bar, more, named
from k4t.monitor.signs.sign import ago

NODES_SHOWN = 500
DENSE = 24
"""With more nodes than this, and of a node with more containers, apps are counted."""
CHIPS_SHOWN = 40
APPS_SHOWN = 12
CAUSES_SHOWN = 4


def section(page: Page) -> Html:
    members = [*page.facts.gateways.values(), *page.facts.dns.values()]
    nodes = list(page.facts.nodes.values())
    dense = len(nodes) > DENSE
    shape = "grid dense" if dense else "grid"
    parts = [element("h2", "The cluster", id="map")]
    if members:
        parts += [element("h3", "Gateways and DNS servers"),
                  element("ul", *(_member(page, one) for one in members), class_="grid")]  # fmt: skip
    if nodes:
        shown = [_node(page, one, dense=dense) for one in nodes[:NODES_SHOWN]]
        parts += [element("h3", f"Nodes ({len(nodes)})"), element("ul", *shown, class_=shape)]
        parts += more(len(nodes) - NODES_SHOWN, "nodes")
    others = [host for host in page.facts.hosts.values() if host.subject.kind in ("master", "host")]
    if others:
        parts += [element("h3", "Other machines"),
                  element("ul", *(_machine(page, one) for one in others), class_=shape)]  # fmt: skip
    return element("section", *parts, aria_labelledby="map")


# --- gateways, DNS servers, other machines ---------------------------------------------------------------------------


def _member(page: Page, one: ParticipantState) -> Html:
    key = f"{one.kind}/{one.name}"
    found = page.tree.gateways.get(one.name) if one.kind == "gateway" else page.tree.dns.get(one.name)
    word = "gateway" if one.kind == "gateway" else "DNS server"
    facts = f"{one.driver} {word} · group {one.group}" + (f" · {found.address}" if found else "")
    parts = [_head(page, one.name, "in step", key, page.facts.host_of.get(key, "")), _facts(facts)]
    if not one.reachable:
        parts.append(element("p", named(one.problem), class_="why"))
    elif one.document is not None:
        apps = Counter(end.app for end in one.document.endpoints)
        parts.append(_facts(_sends(one)))
        parts += _withdrawn(page, one)
        parts += [element("ul", *_apps(apps), class_="chips plain")] if apps else []
    machine = page.facts.host_of.get(key, "")
    if machine == key and machine in page.facts.hosts:
        parts += _meters(page, page.facts.hosts[machine])
    return _card(page, key, parts, machine)


def _withdrawn(page: Page, one: ParticipantState) -> Iterator[Html]:
    """By whom and why, each once."""
    causes = Counter((out.by or "somebody", out.why) for out in one.withdrawn if out.cluster == page.facts.cluster_id)
    for (by, why), number in causes.most_common(CAUSES_SHOWN):
        words = f"{number} taken out by {by}" + (f": {why}" if why else "")
        yield element("p", named(words), class_="why")


def _sends(one: ParticipantState) -> str:
    document = one.document
    if document is None:
        return ""
    of = f"{len(document.routes)} routes" if one.kind == "gateway" else f"{len(document.records)} records"
    manual = f" · {len(one.manual)} by hand" if one.manual else ""
    return f"{len(document.endpoints)} endpoints · {of}{manual} · epoch {document.epoch.number}, seq {document.seq}"


def _machine(page: Page, host: Host) -> Html:
    words = ", ".join(dict.fromkeys("holds copies" if one.kind == "host" else one.kind for one in host.things))
    parts = [_head(page, host.name, _answers(page, host), host.subject.key), _facts(words), *_meters(page, host)]
    return _card(page, host.subject.key, parts)


def _answers(page: Page, host: Host) -> str:
    """Or what is noted of one that need not."""
    if host.reading is not None:
        return "answers"
    noted = next((one for one in page.mentioned if one.subject.key == host.subject.key), None)
    return {"master-off-on-purpose": "off on purpose", "login": "on"}.get(noted.what if noted else "", "not known")


WELL = ("well", "in step", "answers")


# --- nodes -------------------------------------------------------------------------------------------------------


def _node(page: Page, docker: Docker, *, dense: bool) -> Html:
    state, key = docker.state, f"node/{docker.state.name}"
    node = page.tree.nodes.get(state.name)
    machine = page.facts.host_of.get(key, key)
    availability = node.availability if node else "active"
    parts = [_head(page, state.name, _well(page, state, availability), key, machine)]
    count = f"{len(state.containers)} containers" if len(state.containers) != 1 else "1 container"
    parts.append(_facts(" · ".join(filter(None, (node.address if node else "", count if state.reachable else "")))))
    if not state.reachable:
        parts.append(element("p", named(state.problem or "it can't be asked"), class_="why"))
    if number := page.withdrawn.get(state.name, 0):
        parts.append(element("p", f"taken out of service: {number} endpoint{'' if number == 1 else 's'}", class_="why"))
    host = page.facts.hosts.get(machine)
    if host is not None:
        parts += _meters(page, host)
    if state.containers:
        parts.append(_chips(page, state.containers, counted=dense or len(state.containers) > DENSE))
    return _card(page, key, parts, machine)


def _well(page: Page, state: NodeState, availability: str) -> str:
    """What its badge says when nothing is found about the node itself."""
    well = sum(1 for one in state.containers if page.container(one)[0] == "ok")
    if availability != "active":
        spare = page.tree.nodes[state.name].power
        return "spare, off" if spare and spare.spare and not state.reachable else availability
    return "well" if well == len(state.containers) else f"{well} of {len(state.containers)} well"


def _chips(page: Page, containers: tuple[Container, ...], *, counted: bool) -> Html:
    """What is well may be counted; what isn't is named."""
    looked = [(one, *page.container(one)) for one in containers]
    items = [_chip(*one) for one in looked if one[1] != "ok"]
    items += [_chip(*one) for one in looked if one[1] == "ok" and not counted]
    rest = _rest(len(items) - CHIPS_SHOWN, "containers")
    apps = Counter(one.app for one, level, _ in looked if level == "ok" and counted)
    return element("ul", *items[:CHIPS_SHOWN], *rest, *_apps(apps, " well"), class_="chips")


def _chip(one: Container, level: str, words: str) -> Html:
    name = named(f"{one.app}.{one.replica}")
    if level == "ok":
        return element("li", name, hidden(" is well"))
    return element("li", f"{SIGNS[level]} ", name, ": ", named(words), class_=f"at-{level}")


def _apps(apps: Counter[str], heard: str = "") -> Iterator[Html]:
    for app, number in sorted(apps.items())[:APPS_SHOWN]:
        yield element("li", named(app), f" ×{number}" if number > 1 else "", hidden(heard) if heard else "")
    yield from _rest(len(apps) - APPS_SHOWN, "apps")


def _rest(left: int, what: str) -> Iterator[Html]:
    if left > 0:
        yield element("li", f"and {left} more {what}")


# --- what cards share --------------------------------------------------------------------------------------------


def _card(page: Page, key: str, parts: list[Html], machine: str = "") -> Html:
    worst = page.worst(key, machine)
    return element("li", *parts, class_=f"card edge-{worst[1].level}" if worst else "card")


def _head(page: Page, name: str, well: str, key: str, machine: str = "") -> Html:
    """The name, and the worst of its findings, which is a way there."""
    worst = page.worst(key, machine)
    state = badge("ok", well) if well in WELL else badge("warning" if well[:1].isdigit() else "plain", well)
    if worst is not None:
        number, finding = worst
        state = element("a", badge(finding.level, finding.what), href=f"#finding-{number}")
    return element("div", element("h4", named(name)), state, class_="head")


def _facts(words: str) -> Html:
    return element("p", named(words), class_="facts") if words else Html("")


def _meters(page: Page, host: Host) -> Iterator[Html]:
    items = [
        element("li", element("span", name), element("b", f"{percent:.0f} %"), bar(percent), class_=f"at-{level}")
        for name, percent, level in _shares(page, host)
    ]
    if items:
        yield element("ul", *items, class_="meters")
    if host.reading is not None and host.reading.uptime_s is not None and not items:
        yield _facts(f"up for {ago(host.reading.uptime_s)}")


def _shares(page: Page, host: Host) -> Iterator[tuple[str, float, str]]:
    reading = host.reading
    if reading is None:
        return
    if host.cpu_percent is not None:
        yield "CPU", host.cpu_percent, page.level("cpu", host.cpu_percent)
    if reading.memory is not None:
        yield "Memory", reading.memory.percent, page.level("memory", reading.memory.percent)
    mounts = set()
    for name, words in (("root", "Disk"), ("docker", "Docker"), ("state", "State")):
        disk = reading.disks.get(name)
        if disk is not None and disk.mount not in mounts:
            mounts.add(disk.mount)
            yield words, disk.percent, page.level("docker-disk" if name == "docker" else "disk", disk.percent)
