"""Puts the parts together for `cli`: which driver, which transport, whose lock."""

from __future__ import annotations

import dataclasses
import functools
import getpass
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from k4t.dns.dnsmasq import Dnsmasq
from k4t.dns.hosts import Hosts
from k4t.dns.script import Script as DnsScript
from k4t.errors import InvalidTree, K4tError, Usage
from k4t.gateway.envoy import Envoy
from k4t.gateway.haproxy import HAProxy
from k4t.gateway.nginx import Nginx
from k4t.gateway.script import Script as GatewayScript
from k4t.master.fleet import Fleet, Host, backup_host, hosts_of
from k4t.master.run import Run
from k4t.model.events import Emit, silent
from k4t.model.hosts import Dns, Gateway, Node, Ssh
from k4t.model.participant import Kind, Participant
from k4t.model.spec import Cluster, Tree
from k4t.remote import known_hosts
from k4t.remote.registrar import RegistrarParticipant
from k4t.remote.ssh import Connector
from k4t.tree.read import read_tree
from k4t.tree.secrets import digest_key, value

if TYPE_CHECKING:
    from k4t.master.publication.publish import Publisher
    from k4t.master.publication.redolog import LogPlace
    from k4t.model.state import ParticipantState
    from k4t.node.allocator import Locker
    from k4t.remote import lock
    from k4t.remote.ssh_config import Target
    from k4t.remote.transport import Stream, Transport

T = TypeVar("T")
WAIT_S = 3600.0
LOGINS = 64
"""At once, of what looks at all hosts."""
WATCH_ANSWER_S = 15.0
WATCH_DIAL_S = 4.0
"""For a host to take a TCP connection: two more attempts of the kernel's. A monitor looks again soon, and who is gone
should be known within two looks."""
SILENT_S = 5.0
GATEWAYS: Mapping[str, Callable[[Gateway, Cluster, Callable[[], Transport]], RegistrarParticipant]] = {
    "envoy": Envoy,
    "haproxy": HAProxy,
    "nginx": Nginx,
    "script": GatewayScript,
}
DNS_SERVERS: Mapping[str, Callable[[Dns, Cluster, Callable[[], Transport]], RegistrarParticipant]] = {
    "dnsmasq": Dnsmasq,
    "hosts": Hosts,
    "script": DnsScript,
}
RFC2136 = "rfc2136"
WINDOWS = "windows"


def read(db: Path) -> Tree:
    """The tree, whole and checked. Raises InvalidTree, Usage."""
    return read_tree(db)


def check_drivers(tree: Tree, db: Path) -> None:
    """Whether its gateways and DNS servers can do what it asks of them; connects to nobody. Raises InvalidTree."""
    from k4t.master.planning.capable import inexpressible

    participants = _participants(tree, Fleet(tree, _connector(db, "").connect, {}), db)
    if findings := inexpressible(tree, participants.values()):
        raise InvalidTree(findings)


def thing(things: Mapping[str, T], word: str, name: str) -> T:
    """The one of that name. Raises Usage with the names there are."""
    if name not in things:
        raise Usage(f"the tree has no {word} {name!r}", f"it has: {', '.join(sorted(things)) or 'none'}")
    return things[name]


def chosen(tree: Tree, kind: str, names: Sequence[str]) -> list[Node | Gateway | Dns]:
    """Things of one kind ("nodes", "gateways", "dns", or "all"), by name, or every one when no name is given."""
    kinds = ("nodes", "gateways", "dns") if kind == "all" else (kind,)
    found: dict[str, Any] = {name: one for key in kinds for name, one in getattr(tree, key).items()}
    word = {"nodes": "node", "gateways": "gateway", "dns": "DNS server", "all": "host"}[kind]
    return [thing(found, word, name) for name in names] if names else list(found.values())


@contextmanager
def opened(
    db: Path,
    emit: Emit = silent,
    *,
    wait: bool = False,
    ahead: bool = False,
    changed: Callable[[Tree], Tree] = lambda tree: tree,
    trusted: known_hosts.KnownHosts | None = None,
) -> Iterator[Run]:
    """Everything one run works with. Connections are opened when they are first needed, and closed at the end.

    `ahead`: all of them are begun now, so that hosts answer while the rest of the program is loaded. `changed`: of the
    tree, for this run alone. `trusted`: the hosts that are known, in place of the known_hosts files.
    """
    tree = changed(read(db))
    run_id = secrets.token_hex(8)
    connector = _connector(db, run_id, trusted)
    participants: dict[tuple[Kind, str], Participant] = {}
    fleet = Fleet(tree, connector.connect, participants)
    participants.update(_participants(tree, fleet, db))
    try:
        if ahead:
            fleet.connect_ahead()
            for participant in participants.values():
                if isinstance(participant, RegistrarParticipant):
                    threading.Thread(target=participant.connect_ahead, name=participant.name, daemon=True).start()
        from k4t.master.history import WorkingCopy
        from k4t.master.locking import locked
        from k4t.master.pairs import Pairs
        from k4t.master.vault import Vault
        from k4t.remote import lock

        vault = Vault(tree, lambda secret: value(secret, db), lambda: digest_key(db))
        for participant in participants.values():
            if isinstance(participant, RegistrarParticipant):
                participant.certificates = Pairs(db, tree, vault.value)
        holder = lock.Holder(who(), socket.gethostname(), os.getpid(), now(), "apply", run_id)
        yield Run(
            directory=db,
            tree=tree,
            fleet=fleet,
            publishing=functools.cache(lambda: _publisher(tree, db, participants, connector, run_id)),
            who=holder.who,
            at=holder.since,
            emit=emit,
            lock=lambda: locked(WorkingCopy(db).lock_path, fleet, holder, emit, wait_s=WAIT_S if wait else 0.0),
            host_lock={node.name: _host_lock(fleet, node, holder) for node in tree.nodes.values()},
            vault=vault,
        )
    finally:
        for participant in participants.values():
            participant.close()
        fleet.close()
        connector.close()


@contextmanager
def watched(tree: Tree, db: Path, keys: Sequence[Path] = ()) -> Iterator[Fleet]:
    """What looks and never acts works with this: connections and drivers, no lock, every answer bounded. `keys`: files
    of known hosts that count alone, in place of the tree's and the user's."""
    connector = Connector(
        keys or known_hosts_of(db), run_id=secrets.token_hex(8), max_logins=LOGINS, dial_s=WATCH_DIAL_S
    )
    fleet = Fleet(tree, connector.connect, {})
    watch(fleet, db)
    try:
        yield fleet
    finally:
        fleet.close()  # first: whoever still waits for an answer ends with it
        for participant in fleet.participants.values():
            participant.close()
        connector.close()


def watch(fleet: Fleet, db: Path) -> None:
    """Drivers for the gateways and DNS servers of the fleet's tree."""
    found = _participants(fleet.tree, fleet, db)
    for participant in found.values():
        if isinstance(participant, RegistrarParticipant):
            participant.answer_timeout_s = WATCH_ANSWER_S
    fleet.participants = found


def publisher_for(run: Run, kind: Kind, *, id: str = "", name: str = "", only: str = "") -> Publisher:
    """One that speaks for another cluster (`id`, `name`), or to one member alone (`only`). It writes no redo log."""
    from k4t.master.publication.publish import Publisher

    own = run.tree.cluster
    cluster = dataclasses.replace(own, id=id or own.id, name=name or own.name)
    participants = _participants(dataclasses.replace(run.tree, cluster=cluster), run.fleet, run.directory)
    mine = [one for (of, member), one in participants.items() if of == kind and only in ("", member)]
    return Publisher(mine, cluster, secrets.token_hex(8), who=run.who)


def _publisher(
    tree: Tree, db: Path, participants: Mapping[tuple[Kind, str], Participant], connector: Connector, run_id: str
) -> Publisher:
    from k4t.master.publication.publish import Publisher

    return Publisher(
        list(participants.values()), tree.cluster, run_id, log=redo_log(db, tree), who=who(),
        afresh=lambda kind, name: _asked_afresh(tree, connector, db, (kind, name)),
    )  # fmt: skip


def _asked_afresh(tree: Tree, connector: Connector, db: Path, key: tuple[Kind, str]) -> ParticipantState:
    """What a gateway or DNS server says over a connection of its own."""
    fleet = Fleet(tree, connector.connect, {})
    participant = _participants(tree, fleet, db)[key]
    try:
        return participant.observe()
    finally:
        participant.close()
        fleet.close()


def redo_log(db: Path, tree: Tree) -> LogPlace:
    """This working copy's. Whose it is stands in the user's state directory (XDG), which no copy takes along."""
    from k4t.master.history import WorkingCopy
    from k4t.master.publication.redolog import LogPlace

    state = Path(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"))
    if not state.is_absolute():
        state = Path(os.devnull)  # a user without a home: the log says that it can't be remembered
    return LogPlace(WorkingCopy(db).directory, tree.cluster.id, state / "k4t" / "logs", now)


def way(db: Path) -> Callable[[str, Ssh, str], tuple[tuple[Target, tuple[known_hosts.HostKey, ...]], ...]]:
    """How hosts are reached from here, and by which keys they are known. Connects to nobody."""
    return _connector(db, "").way


def _host_lock(fleet: Fleet, node: Node, holder: lock.Holder) -> Locker:
    from k4t.remote import lock

    return lambda: lock.host_lock(fleet.transport(node), holder)


def who() -> str:
    """Who runs this, for locks, the head and the audit log: user@host."""
    return f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _connector(db: Path, run_id: str, trusted: known_hosts.KnownHosts | None = None) -> Connector:
    return Connector(known_hosts_of(db), run_id=run_id, trusted=trusted)


def known_hosts_of(db: Path) -> list[Path]:
    return [db / "known_hosts", Path("~/.ssh/known_hosts").expanduser(), Path("/etc/ssh/ssh_known_hosts")]


def _participants(tree: Tree, fleet: Fleet, db: Path) -> dict[tuple[Kind, str], Participant]:
    """A driver for each gateway and DNS server; the schema lets no other driver into a tree."""
    found: dict[tuple[Kind, str], Participant] = {}
    for gateway in tree.gateways.values():
        found["gateway", gateway.name] = GATEWAYS[gateway.driver](gateway, tree.cluster, _connect(fleet, gateway))
    for dns in tree.dns.values():
        if dns.driver == RFC2136:
            from k4t.dns.rfc2136 import Rfc2136  # late: half a registrar and a DNS client come with it

            found["dns", dns.name] = Rfc2136(dns, tree.cluster, _secret(tree, dns, db), _dial(fleet, dns))
        elif dns.driver == WINDOWS:
            from k4t.dns.windows import Windows  # late: the same half

            found["dns", dns.name] = Windows(dns, tree.cluster, _connect(fleet, dns))
        else:
            found["dns", dns.name] = DNS_SERVERS[dns.driver](dns, tree.cluster, _connect(fleet, dns))
    return found


def _connect(fleet: Fleet, thing: Gateway | Dns) -> Callable[[], Transport]:
    return lambda: fleet.transport(thing)


def _secret(tree: Tree, dns: Dns, db: Path) -> Callable[[], str]:
    return lambda: value(tree.secrets[dns.secret], db)


def _dial(fleet: Fleet, dns: Dns) -> Callable[[], Stream]:
    """From here; from its SSH host where the tree names one other than the address it answers at."""
    from k4t.dns.wire import CONNECT_TIMEOUT_S, dial

    if dns.ssh.host in ("", dns.address):
        return lambda: dial(dns.address, dns.port)
    return lambda: fleet.transport(dns).connect_tcp(dns.address, dns.port, CONNECT_TIMEOUT_S)


def look(db: Path) -> dict[str, Any]:
    """`k4t status`."""
    with opened(db, ahead=True) as run:
        backups = None
        if run.tree.cluster.backups:
            from k4t.master.backup.survey import Survey

            backups = Survey(run.fleet, db)
        from k4t.master.inspection.status import status

        return status(run.fleet, now(), redo_log(db, run.tree), backups)


def enrol(db: Path, names: Sequence[str], say: Callable[[str], None], agree: Callable[[str], None]) -> None:
    """`k4t trust`: show each host's keys, ask once, write them to the tree's known_hosts. A host that is there with the
    same keys, under another thing's name perhaps, is not asked about again."""
    tree = read(db)
    connector = _connector(db, secrets.token_hex(8))
    hosts = _hosts_named(tree, names)
    there = known_hosts.KnownHosts([db / "known_hosts"])
    found, new = [], []
    for host in hosts:
        key_name, keys = connector.scan(host.name, host.ssh, host.address)
        if keys and set(keys) <= {entry.key for entry in there.known(key_name)}:
            say(f"{host.name} ({key_name}) is enrolled already, with the keys that it shows")
            continue
        found.append((key_name, keys))
        new.append(host)
        for key in keys:
            say(f"{host.name} ({key_name}): {key.type} {key.fingerprint}")
    if not found:
        return
    agree("Are these the hosts' own keys? Enrol them?")
    for key_name, keys in found:
        known_hosts.enrol(db / "known_hosts", [key_name], keys)
    who = ", ".join(host.name for host in new) if len(new) <= 5 else f"{len(new)} hosts"
    say(f"enrolled {who} in {db / 'known_hosts'}")


def ssh_silent(db: Path, host: Host, within_s: float = 0.0) -> str:
    """Why SSH doesn't answer there; "" as soon as it does. Nobody logs in, and no key is trusted for it."""
    deadline = time.monotonic() + within_s
    quick = dataclasses.replace(host.ssh, connect_timeout_s=min(host.ssh.connect_timeout_s or SILENT_S, SILENT_S))
    while True:
        connector = _connector(db, "")
        try:
            connector.scan(host.name, quick, host.address)
        except K4tError as error:
            why = error.message
        else:
            return ""
        finally:
            connector.close()
        if time.monotonic() >= deadline:
            return why
        time.sleep(min(1.0, max(0.05, deadline - time.monotonic())))


def _hosts_named(tree: Tree, names: Sequence[str]) -> list[Host]:
    fleet = Fleet(tree, _connector(Path(), "").connect, {})
    copies = {one.host: backup_host(tree, one) for one in tree.cluster.backups if one.host}
    if names:
        found = {one.name: fleet.host_of(one) for one in chosen(tree, "all", [n for n in names if n not in copies])}
        return [copies[name] if name in copies else found[name] for name in names]
    hosts = hosts_of(tree)
    others = [fleet.host_of(one) for one in tree.dns.values() if one.driver == WINDOWS]  # on no list, and asked by SSH
    return list({**{host.key: host for host in (*others, *copies.values())}, **hosts}.values())


def install(run: Run, thing: Node | Gateway | Dns) -> Iterator[str]:
    """`gateway install`, `dns install`: what was done, line by line."""
    from k4t.dns import install as dns_install
    from k4t.gateway import install as gateway_install

    if isinstance(thing, Gateway):
        yield from gateway_install.install(run.fleet.transport(thing), thing)
    elif isinstance(thing, Dns):
        if thing.driver == RFC2136:
            from k4t.dns import install_bind
            from k4t.dns.tsig import tsig_key

            key = tsig_key(thing, _secret(run.tree, thing, run.directory))
            yield from install_bind.install(run.fleet.transport(thing), thing, key)
        elif thing.driver == WINDOWS:
            from k4t.dns import windows

            yield from windows.install(run.fleet.transport(thing), thing)
        else:
            yield from dns_install.install(run.fleet.transport(thing), thing)
