"""One run's hands: every host of the tree, connected at most once, with its Engine and its participants."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TypeVar

from k4t.errors import K4tError
from k4t.model.hosts import Dns, Gateway, Node, Ssh
from k4t.model.participant import Kind, Participant
from k4t.model.spec import Backup, Tree
from k4t.model.state import NodeState
from k4t.model.value import value
from k4t.node.docker import Engine
from k4t.remote.ssh_config import split_hop
from k4t.remote.transport import Transport

MAX_HOSTS_AT_ONCE = 64
DEAD_CONNECT_S = 2.0
WITHOUT_SHELL = ("rfc2136", "windows")

T = TypeVar("T")
R = TypeVar("R")
Connect = Callable[[str, Ssh, str], Transport]
Key = tuple[str, int | None, str, str]


@value
class Host:
    """A machine of the tree. A node, a gateway and a DNS server may share one: `key` tells machines apart."""

    name: str
    address: str
    ssh: Ssh

    @property
    def key(self) -> Key:
        return (self.ssh.host or self.address, self.ssh.port, self.ssh.user, self.ssh.jump)


def merged(default: Ssh, own: Ssh) -> Ssh:
    """The cluster's settings with a host's own on top. The host's name never comes from the cluster."""
    fields = (field.name for field in dataclasses.fields(Ssh))
    chosen = {name: own_value for name in fields if (own_value := getattr(own, name)) not in ("", None)}
    return dataclasses.replace(dataclasses.replace(default, host=""), **chosen)


def hosts_of(tree: Tree) -> dict[Key, Host]:
    """Every machine with a shell, once, in the order in which locks are taken (the same in every working copy)."""
    things: list[Node | Gateway | Dns] = [*tree.nodes.values(), *tree.gateways.values()]
    things += [dns for dns in tree.dns.values() if dns.driver not in WITHOUT_SHELL]
    found: dict[Key, Host] = {}
    alive: set[Key] = set()
    for thing in sorted(things, key=lambda thing: (thing.ssh.host or thing.address, thing.name)):
        host = Host(thing.name, thing.address, merged(tree.cluster.ssh, thing.ssh))
        found.setdefault(host.key, host)
        if not (isinstance(thing, Node) and rests(thing)):
            alive.add(host.key)
    return {key: host if key in alive else _given_up(host) for key, host in found.items()}


def rests(node: Node) -> bool:
    """Whether nobody expects it to answer: it was given up, or is a spare one that nothing runs on."""
    spare = node.power is not None and node.power.spare
    return node.availability == "dead" or (node.availability == "drained" and spare)


def backup_host(tree: Tree, backup: Backup) -> Host:
    """Where copies go. A host that is no node is reached as the cluster's <ssh> says, but for what its text says."""
    if backup.node:
        node = tree.nodes[backup.node]
        return Host(node.name, node.address, merged(tree.cluster.ssh, node.ssh))
    user, address, port = split_hop(backup.host)
    return Host(backup.host, address, merged(tree.cluster.ssh, Ssh(host=address, port=port, user=user)))


def _given_up(host: Host) -> Host:
    """It is asked whether it has returned, in every run: nobody waits long for that."""
    timeout_s = min(host.ssh.connect_timeout_s or DEAD_CONNECT_S, DEAD_CONNECT_S)
    return dataclasses.replace(host, ssh=dataclasses.replace(host.ssh, connect_timeout_s=timeout_s))


def at_once(action: Callable[[T], R], things: Iterable[T]) -> list[R]:
    """Do something to many hosts at the same time; the results in order. The first error is raised."""
    listed = list(things)
    if len(listed) <= 1:
        return [action(thing) for thing in listed]
    with ThreadPoolExecutor(max_workers=min(MAX_HOSTS_AT_ONCE, len(listed)), thread_name_prefix="host") as pool:
        return list(pool.map(action, listed))


def begun(action: Callable[[T], R], things: Iterable[T], *, most: int = MAX_HOSTS_AT_ONCE) -> list[Future[R]]:
    """As `at_once`, and not waited for. What is never waited for does not keep the program from ending."""
    work = deque((thing, Future[R]()) for thing in things)
    futures = [future for _, future in work]

    def worker() -> None:
        while work:
            try:
                thing, future = work.popleft()
            except IndexError:
                return
            try:
                future.set_result(action(thing))
            except BaseException as error:  # noqa: BLE001 - who waits for it is told
                future.set_exception(error)

    for number in range(min(most, len(futures))):
        threading.Thread(target=worker, name=f"host {number}", daemon=True).start()
    return futures


class Fleet:
    """Connections are opened when first asked for, once; a host that refused is not asked again in this run."""

    def __init__(self, tree: Tree, connect: Connect, participants: Mapping[tuple[Kind, str], Participant]) -> None:
        self.tree = tree
        self.hosts = hosts_of(tree)
        self.participants = participants
        self._connect = connect
        self.hanging: dict[str, NodeState] = {}
        """Nodes that took the question and never answered, as they were then seen."""
        self.asking: dict[str, Future[NodeState]] = {}
        """The last question to each node. One that is still open makes the node late."""
        self.locked: frozenset[Key] | None = None
        """The machines on which this run holds the cluster's lock: it does nothing on others. None: it holds none."""
        self.barred: dict[Key, K4tError] = {}
        """Machines that answered late, and whose lock could not be had then."""
        self.began_s = time.monotonic()
        self._connections: dict[Key, Future[Transport]] = {}
        self._engines: dict[str, Engine] = {}
        self._guard = threading.Lock()
        self._closed = False

    def connect_ahead(self) -> None:
        """Begin to connect to the first hosts and their Engines, and don't wait: who asks is told how that went."""
        nodes = {self.host_of(node).key: node.name for node in self.tree.nodes.values()}
        for key, host in islice(self.hosts.items(), MAX_HOSTS_AT_ONCE):
            arguments = (host, nodes.get(key))
            threading.Thread(target=self._try, args=arguments, name=f"connect {host.name}", daemon=True).start()

    def _try(self, host: Host, node: str | None) -> None:
        with suppress(K4tError):
            self.connection(host)
            if node is not None:
                self.engine(node).connect_ahead()

    def transport(self, thing: Node | Gateway | Dns) -> Transport:
        """The connection to the host of a node, gateway or DNS server. Raises what connecting raised."""
        return self.connection(self.host_of(thing))

    def host_of(self, thing: Node | Gateway | Dns) -> Host:
        host = Host(thing.name, thing.address, merged(self.tree.cluster.ssh, thing.ssh))
        return self.hosts.get(host.key, host)  # a DNS server without a shell is on no list

    def connection(self, host: Host) -> Transport:
        with self._guard:
            future = self._connections.get(host.key)
            mine = future is None
            if future is None:
                future = self._connections[host.key] = Future()
        if mine:
            self._open(host, future)
        return future.result()

    def afresh(self, host: Host, ssh: Ssh) -> Transport:
        """A connection of its own, by other settings than the tree's; who asks for it closes it. Raises what
        connecting raises."""
        return self._connect(host.name, ssh, host.address)

    def _open(self, host: Host, future: Future[Transport]) -> None:
        try:
            transport = self._connect(host.name, host.ssh, host.address)
            with self._guard:
                if self._closed:  # begun ahead, and nobody needs it any more
                    transport.close()
                future.set_result(transport)
        except BaseException as error:
            future.set_exception(error)
            if not isinstance(error, K4tError):
                raise

    def engine(self, node: str) -> Engine:
        """The Engine of a node. Raises what connecting raised."""
        transport = self.transport(self.tree.nodes[node])
        with self._guard:
            if node not in self._engines:
                self._engines[node] = Engine(transport)
            return self._engines[node]

    def connected(self) -> dict[Key, Transport]:
        """The hosts that answered so far, in the order of locks."""
        found = {}
        for key in self.hosts:
            future = self._connections.get(key)
            if future is not None and future.done() and future.exception() is None and future.result().alive:
                found[key] = future.result()
        return found

    def lockable(self) -> dict[Key, Transport]:
        """Those of them that are no node, or a node that has answered its last question."""
        late, others = set[Key](), set[Key]()
        for node in self.tree.nodes.values():
            question = self.asking.get(node.name)
            (late if question is not None and not question.done() else others).add(self.host_of(node).key)
        members: list[Gateway | Dns] = [*self.tree.gateways.values(), *self.tree.dns.values()]
        others |= {Host(one.name, one.address, merged(self.tree.cluster.ssh, one.ssh)).key for one in members}
        return {key: transport for key, transport in self.connected().items() if key in others or key not in late}

    def mine(self) -> dict[Key, Transport]:
        """Those on which this run may act: under its locks, the locked ones."""
        connected = self.connected()
        if self.locked is None:
            return connected
        return {key: transport for key, transport in connected.items() if key in self.locked}

    def meet(self) -> None:
        """Have every host connected that can be, but for nodes that are late."""
        late = {self.host_of(self.tree.nodes[name]).key for name, asked in self.asking.items() if not asked.done()}

        def connect(host: Host) -> None:
            with suppress(K4tError):
                self.connection(host)

        known = {key for key, future in list(self._connections.items()) if future.done()}
        at_once(connect, [host for key, host in self.hosts.items() if key not in late | known])

    def close(self) -> None:
        with self._guard:
            self._closed = True
            engines, self._engines = list(self._engines.values()), {}
        for engine in engines:
            engine.close()
        for future in self._connections.values():  # a DNS server's way may lead through a host that is on no list
            if future.done() and future.exception() is None:
                future.result().close()
