"""Ask every host at once: one connection and one command each, the Engine and the registrar beside it. Raises nothing:
what can't be asked, or not in time, is a Failure that says why.

How long it takes at most: the connect time-out, and ANSWER_S. Who has not answered then is not waited for.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, TypeVar

from k4t import command
from k4t.errors import (
    AnswerTooLong,
    ConnectionLost,
    HostKeyUnknown,
    HostRefused,
    HostUnreachable,
    K4tError,
    LoginRefused,
)
from k4t.master import fleet as fleets
from k4t.master.backup.targets import targets_of
from k4t.master.fleet import WITHOUT_SHELL, Fleet, Key, begun, merged
from k4t.master.power import here
from k4t.model.hosts import Node, Ssh
from k4t.model.participant import Participant
from k4t.model.state import NodeState, ParticipantState
from k4t.model.value import value
from k4t.monitor.acting import keys
from k4t.monitor.facts import Docker, Failure, FailureKind, Host, Reading, Subject, Ticks
from k4t.monitor.looking import probe
from k4t.monitor.looking.answer import Garbage
from k4t.node import events
from k4t.node.call import Request
from k4t.node.docker import Engine
from k4t.node.joblist import runs
from k4t.node.listing import sort_out
from k4t.node.observe import begin_listing, unreachable
from k4t.remote import restricted
from k4t.remote.transport import Transport

AT_ONCE = 256
CONNECT_S = 10.0
ANSWER_S = 20.0
ASIDE_S = 3.0
"""For what is told beside the main thing: how often containers ended, how large the images are."""
DEATHS_WINDOW_S = 600.0
VANTAGES = 2
VANTAGE_S = 2.0

T = TypeVar("T")
R = TypeVar("R")


@value
class Machine:
    """A machine to be asked: `host` None is this one. `things`: what of the tree is on it, the first names it."""

    host: fleets.Host | None
    things: tuple[Subject, ...]

    @property
    def subject(self) -> Subject:
        return self.things[0]


@value
class Before:
    """What the check before this one left. `short_percent`: a Docker disk as full as this has its images counted."""

    ticks: Mapping[str, Ticks]
    short_percent: float | None = None


@value
class Doubt:
    """Whether `host` (a key), from which nothing came, is reached from another one; it is being asked."""

    host: str
    vantage: str
    reached: Future[bool]


@value
class Asked:
    """Keys of `hosts` as in Facts. `doubts`: see `settled`."""

    hosts: Mapping[str, Host]
    host_of: Mapping[str, str]
    nodes: Mapping[str, Docker]
    gateways: Mapping[str, ParticipantState]
    dns: Mapping[str, ParticipantState]
    master: str
    doubts: tuple[Doubt, ...] = ()


def machines(fleet: Fleet, *, with_master: bool) -> list[Machine]:
    """Every machine once: those of the tree, those that only hold copies, and the master's where that is wanted."""
    tree, found = fleet.tree, dict[Key, tuple[fleets.Host, list[Subject]]]()

    def add(host: fleets.Host, subject: Subject) -> None:
        found.setdefault(host.key, (fleet.hosts.get(host.key, host), []))[1].append(subject)

    for node in tree.nodes.values():
        add(fleet.host_of(node), Subject("node", node.name))
    for gateway in tree.gateways.values():
        add(fleet.host_of(gateway), Subject("gateway", gateway.name))
    for dns in tree.dns.values():
        if dns.driver not in WITHOUT_SHELL:
            add(fleet.host_of(dns), Subject("dns", dns.name))
    for target in targets_of(tree):
        if target.name not in tree.nodes:
            add(target.host, Subject("host", target.name))
    master = _master(fleet) if with_master else None
    if isinstance(master, fleets.Host):
        add(master, Subject("master", master.name))
    listed = [Machine(host, tuple(dict.fromkeys(things))) for host, things in found.values()]
    return [*listed, Machine(None, (Subject("master", master),))] if isinstance(master, str) else listed


def _master(fleet: Fleet) -> fleets.Host | str:
    """Another machine, this one where it is a host of the tree too, or else what this one calls itself."""
    power = fleet.tree.cluster.power
    if power is None or not power.host or here.is_here(power.host):
        own = (host for host in fleet.hosts.values() if here.is_here(host.ssh.host or host.address))
        return next(own, (here.names() or ("this machine",))[0])
    return fleets.Host(power.host, power.host, merged(fleet.tree.cluster.ssh, Ssh(host=power.host)))


def gather(fleet: Fleet, before: Before, *, with_master: bool = True) -> Asked:
    """Everything the first questions tell."""
    listed = machines(fleet, with_master=with_master)
    node_on = {fleet.host_of(node).key: node for node in fleet.tree.nodes.values()}
    members = list(fleet.participants.values())
    deadline_s = time.monotonic() + ANSWER_S + max(
        (one.host.ssh.connect_timeout_s or CONNECT_S for one in listed if one.host), default=0.0
    )  # fmt: skip
    looks = begun(lambda one: _look(fleet, one, node_on, before), listed, most=AT_ONCE)
    states = begun(lambda member: member.observe(), members, most=AT_ONCE)
    futures: list[Future[Any]] = [*looks, *states]
    wait(futures, timeout=max(0.0, deadline_s - time.monotonic()))
    seen = [_result(look) or _slow(one) for look, one in zip(looks, listed, strict=True)]
    told = [_result(state) or _silent(one) for state, one in zip(states, members, strict=True)]
    hosts = {host.subject.key: host for host, _ in seen}
    return Asked(
        hosts=hosts,
        host_of={thing.key: one.subject.key for one in listed for thing in one.things},
        nodes={docker.state.name: docker for _, docker in seen if docker is not None},
        gateways={state.name: state for state in told if state.kind == "gateway"},
        dns={state.name: state for state in told if state.kind == "dns"},
        master=next((one.subject.key for one in listed for thing in one.things if thing.kind == "master"), ""),
        doubts=tuple(_doubts(fleet, listed, hosts)),
    )


def _result(future: Future[R]) -> R | None:
    """None for what has not ended, or not well."""
    return future.result() if future.done() and future.exception() is None else None


def _slow(machine: Machine) -> tuple[Host, Docker | None]:
    failure = Failure("slow", f"it has not answered within {ANSWER_S:g} s", "look at its load and its disks")
    return _failed(machine, failure)


def _silent(member: Participant) -> ParticipantState:
    problem = f"{member.name} has not answered within {ANSWER_S:g} s"
    return ParticipantState(member.kind, member.name, member.group, member.driver, reachable=False, problem=problem)


# --- one machine -------------------------------------------------------------------------------------------------


def _look(fleet: Fleet, machine: Machine, node_on: Mapping[Key, Node], before: Before) -> tuple[Host, Docker | None]:
    node = node_on.get(machine.host.key) if machine.host else None
    try:
        if machine.host is None:
            return _read(machine, _here(fleet.tree.cluster.id), before), None
        if (reading := _by_own_key(fleet, machine)) is not None:
            return _read(machine, reading, before), None
        transport = fleet.connection(machine.host)
        if node is None:
            return _read(machine, probe.ask(transport, fleet.tree.cluster.id), before), None
        return _node(fleet, machine, node, before)
    except K4tError as error:
        return _failed(machine, failure_of(error))


def _by_own_key(fleet: Fleet, machine: Machine) -> Reading | None:
    """The master, by the key that may ask it this (remote.restricted): a monitor needs no other login there. None where
    that is no way. Raises as asking a host does."""
    if machine.host is None or any(thing.kind != "master" for thing in machine.things):
        return None
    try:
        key = keys.private_file(fleet.tree.cluster.id)
    except K4tError:
        return None
    if key is None:
        return None
    try:
        transport = fleet.afresh(machine.host, restricted.login(machine.host.ssh, str(key)))
    except LoginRefused:
        return None
    try:
        return probe.ask_by_own_key(transport)
    finally:
        transport.close()


def _node(fleet: Fleet, machine: Machine, node: Node, before: Before) -> tuple[Host, Docker]:
    """The Engine works on its listing while the host answers. Raises as the connection does."""
    engine, cluster = fleet.engine(node.name), fleet.tree.cluster.id
    listing: Callable[[], list[dict[str, object]]] | K4tError
    try:
        listing = begin_listing(engine)
    except K4tError as error:
        listing = error
    host = _read(machine, _probed(engine, cluster), before)
    if isinstance(listing, K4tError):
        return host, Docker(unreachable(node.name, listing))
    try:
        entries = listing()
    except K4tError as error:
        return host, Docker(unreachable(node.name, error))
    ours, strangers = sort_out(node.name, entries, cluster)
    state = NodeState(node.name, True, ours, strangers, jobs=runs(node.name, entries, cluster))
    return host, _aside(engine, cluster, state, host.reading, before)


def _probed(engine: Engine, cluster: str) -> Reading | Failure:
    try:
        return probe.ask(engine.transport, cluster)
    except ConnectionLost:
        raise
    except K4tError as error:
        return failure_of(error)


def _aside(engine: Engine, cluster: str, state: NodeState, reading: Reading | None, before: Before) -> Docker:
    """What is worth a question more, each bounded; unknown when it fails."""
    deaths: dict[str, int] = {}
    images_bytes = None
    if reading is not None and reading.clock_s is not None and state.containers:
        until_s = reading.clock_s
        with suppress(K4tError):
            deaths = events.ends(
                engine, cluster, since_s=until_s - DEATHS_WINDOW_S, until_s=until_s, timeout_s=ASIDE_S
            )  # fmt: skip
    disk = reading.disks.get("docker") if reading else None
    if disk is not None and before.short_percent is not None and disk.percent >= before.short_percent:
        with suppress(K4tError, TypeError, ValueError):
            listed = engine.call(Request("GET", "/images/json", timeout_s=ASIDE_S))
            images_bytes = sum(int(one["Size"]) for one in listed)
    return Docker(state, deaths, images_bytes)


def _here(cluster: str) -> Reading:
    """Of this machine. Raises as asking a host does."""
    sent_s, began_s = time.time(), time.monotonic()
    done = command.run(probe.argv(cluster), timeout_s=probe.TIMEOUT_S)
    return probe.taken_in(done, sent_s, time.monotonic() - began_s, "")


def _read(machine: Machine, reading: Reading | Failure, before: Before) -> Host:
    if isinstance(reading, Failure):
        return Host(machine.subject.name, machine.subject, machine.things, failure=reading)
    cpu_percent = busy_percent(before.ticks.get(machine.subject.key), reading.ticks)
    return Host(machine.subject.name, machine.subject, machine.things, reading, cpu_percent=cpu_percent)


def busy_percent(before: Ticks | None, now: Ticks | None) -> float | None:
    """How busy all processors were between two readings; None across a restart, or without two."""
    if before is None or now is None or now.total <= before.total or now.idle < before.idle:
        return None
    return 100.0 - 100.0 * min(1.0, (now.idle - before.idle) / (now.total - before.total))


def _failed(machine: Machine, failure: Failure) -> tuple[Host, Docker | None]:
    host = Host(machine.subject.name, machine.subject, machine.things, failure=failure)
    node = next((thing for thing in machine.things if thing.kind == "node"), None)
    if node is None:
        return host, None
    return host, Docker(NodeState(node.name, reachable=False, problem=failure.message, exit_status=69))


def failure_of(error: K4tError) -> Failure:
    kinds: Mapping[str, FailureKind] = {
        "silent": "silent", "no-route": "no-route", "no-name": "no-name", "refused": "refused", "mute": "mute",
    }  # fmt: skip
    kind: FailureKind = "slow"
    if isinstance(error, Garbage | AnswerTooLong):
        kind = "garbage"
    elif isinstance(error, HostRefused):
        kind = "login"
    elif isinstance(error, HostUnreachable):
        kind = kinds.get(error.why, "mute")
    elif isinstance(error, ConnectionLost):
        kind = "lost"
    return Failure(kind, error.message, error.remedy, strange=isinstance(error, LoginRefused | HostKeyUnknown))


# --- is it off, or only away from here? ----------------------------------------------------------------------------


def _doubts(fleet: Fleet, listed: Sequence[Machine], hosts: Mapping[str, Host]) -> list[Doubt]:
    """Hosts from which nothing came are looked for from others. Nobody waits for it here."""
    connected = list(fleet.connected().values())[:VANTAGES]
    silent = {
        one.subject.key: one.host
        for one in listed
        if one.host and (failure := hosts[one.subject.key].failure) and failure.kind in ("silent", "no-route")
    }
    pairs = [(key, host, transport) for key, host in silent.items() for transport in connected]
    asked = begun(_reached, [(host, transport) for _, host, transport in pairs], most=AT_ONCE)
    return [Doubt(key, way.host, future) for (key, _, way), future in zip(pairs, asked, strict=True)]


def settled(asked: Asked) -> dict[str, Host]:
    """The hosts; one that is reached from another one is not off, and says from where."""
    wait([one.reached for one in asked.doubts], timeout=VANTAGE_S + 1.0)
    hosts = dict(asked.hosts)
    for one in asked.doubts:
        failure = hosts[one.host].failure
        if _result(one.reached) and failure is not None:
            hosts[one.host] = dataclasses.replace(
                hosts[one.host], failure=dataclasses.replace(failure, reached_from=one.vantage)
            )
    return hosts


def _reached(way: tuple[fleets.Host, Transport]) -> bool:
    host, transport = way
    try:
        transport.connect_tcp(host.ssh.host or host.address, host.ssh.port or 22, VANTAGE_S).close()
    except K4tError:
        return False
    return True
