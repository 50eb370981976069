"""What the monitor wants of the master is queued on hosts, and the master is made to look: one that is on is told by a
key that can do only that (remote.restricted), one that is off is switched on by `<power on=>`. It boots, and `k4t wake`
does what is queued. On the master's own machine neither is needed: `is_here`.

What is remembered of it, in XDG_STATE_HOME/k4t/monitor/CLUSTERID.roused.json; times are Unix seconds:

    {"format":1,"called_s":…,"told_s":…,"tries":N,"queued":{ID:{"on":[HOST…],"until_s":…}}}
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from k4t.errors import K4tError, LoginRefused, NotCertified, StepError, Unreachable
from k4t.master.backup import keys as signing_keys
from k4t.master.fleet import Fleet, Host, merged
from k4t.master.power import here, intents, queue, switch
from k4t.master.power.intents import Intent
from k4t.master.power.places import directory, everywhere, places
from k4t.model.hosts import Ssh
from k4t.model.spec import Tree
from k4t.model.value import value
from k4t.monitor import statefile
from k4t.monitor.acting import keys
from k4t.monitor.facts import Facts
from k4t.monitor.signs.sign import unix_s
from k4t.remote import restricted
from k4t.remote.transport import Transport

FORMAT = 1
MAX_BYTES = 1024 * 1024
MAX_QUEUED = 200
LIFE_S = 7 * 86400.0
BOOT_S = 300.0
"""A machine that was called is given so long to boot, then ever longer."""
LOOK_AGAIN_S = 30.0
"""One that is on was told, and is given so long to look at its queue, then ever longer."""
FAILED_S = 60.0
LONGEST_S = 3600.0
SILENT_S = 5.0
ON_S = 60.0
ANSWER_S = 20.0


@value
class Roused:
    """`on`: the hosts where it is queued; “this machine” for the working copy. `words`: how the master was made to
    look. `problem`: why it was not, "" where it was; what is queued stays queued, and `again` tries again. `boots`: it
    was called already, and is given time."""

    on: tuple[str, ...] = ()
    words: str = ""
    problem: str = ""
    boots: bool = False


@value
class Memory:
    """`called_s`: when the master was last switched on; `told_s`: when it was last told to look; `tries`: how often
    since the last intent was queued. `queued`: by id, the hosts that took it, and until when it may count."""

    called_s: float = 0.0
    told_s: float = 0.0
    tries: int = 0
    queued: Mapping[str, tuple[tuple[str, ...], float]] = field(default_factory=dict)


_guard = threading.Lock()
"""Of two threads that want the master awake, one calls it."""


def is_here(tree: Tree) -> bool:
    """Whether this machine is the master: then what is queued is done here."""
    power = tree.cluster.power
    return power is None or not power.host or here.is_here(power.host)


def queue_here(db: Path, wanted: Sequence[Intent]) -> Roused:
    """In this working copy, for whoever does what is queued there. Raises K4tError."""
    for intent in wanted:
        queue.put_here(db, intent, intents.encode(intent, None))
    return Roused((queue.HERE,), "this machine is the master")


def rouse(fleet: Fleet, wanted: Sequence[Intent], now_s: float, facts: Facts | None = None) -> Roused:
    """Queue intents on hosts, and make the master look. `facts`: what the last check saw of it. Bounded. Raises
    NotCertified and Unreachable, with the remedy, when nothing was queued."""
    on = _queue(fleet, wanted, now_s, facts)
    return dataclasses.replace(_roused(fleet, now_s, facts), on=on)


def again(fleet: Fleet, now_s: float, facts: Facts | None = None) -> Roused | None:
    """The same for what was queued before and still is, such as when the master went off at that very moment. None when
    nothing is, or it was called or told just now. To be called once a round."""
    if not pending(fleet, now_s, facts):
        return None
    memory = load(path(fleet.tree.cluster.id))
    if now_s < memory.told_s + _pause_s(LOOK_AGAIN_S, memory.tries):
        return None
    found = _roused(fleet, now_s, facts)
    return None if found.boots else found


def pending(fleet: Fleet, now_s: float, facts: Facts | None = None) -> tuple[str, ...]:
    """Which of the intents that were queued from here the master has not taken yet. It takes one away from all places
    that it reaches; so one that is gone somewhere was taken. What can't be asked is unknown: it counts as queued."""
    file = path(fleet.tree.cluster.id)
    memory = load(file)
    if not memory.queued:
        return ()
    names = {name for on, _ in memory.queued.values() for name in on}
    lying, _ = everywhere(fleet, [host for host in _places(fleet, facts) if host.name in names], _ids(fleet))
    left = {
        id: (on, until_s)
        for id, (on, until_s) in memory.queued.items()
        if now_s < until_s and all(id in lying[name] for name in on if name in lying)
    }
    if left != memory.queued:
        with _guard:
            now = load(file)
            taken = set(memory.queued) - set(left)
            kept = {id: one for id, one in now.queued.items() if id not in taken}
            save(file, dataclasses.replace(now, queued=kept, tries=now.tries if kept else 0))
    return tuple(sorted(left))


# --- to queue --------------------------------------------------------------------------------------------------------


def _queue(fleet: Fleet, wanted: Sequence[Intent], now_s: float, facts: Facts | None) -> tuple[str, ...]:
    own = signing_keys.load(fleet.tree, "intents")
    if own is None:
        raise not_certified()
    hosts = _places(fleet, facts)
    if not hosts:
        raise Unreachable("the tree has no gateway, DNS server or backup target that could hold an intent", "add one")
    taken: dict[str, tuple[tuple[str, ...], float]] = {}
    for intent in wanted:
        done, failed = queue.put(fleet, hosts, intent, intents.encode(intent, own))
        if not done:
            raise Unreachable(f"no host took the intent {intent.words}: {failed[0].error}", "it is tried again")
        taken[intent.id] = (tuple(done), now_s + LIFE_S)
    with _guard:
        file = path(fleet.tree.cluster.id)
        memory = load(file)
        queued = dict([*memory.queued.items(), *taken.items()][-MAX_QUEUED:])
        save(file, dataclasses.replace(memory, queued=queued, tries=0))
    return tuple(dict.fromkeys(name for on, _ in taken.values() for name in on))


def not_certified() -> NotCertified:
    return NotCertified(
        "this machine may queue nothing for the master: its key is not certified for intents",
        "k4t kit certify --kit FILE --uses intents, with the cluster's recovery kit",
    )


def _places(fleet: Fleet, facts: Facts | None) -> list[Host]:
    """Where intents lie, but for who didn't answer just now: the dead node may be one, and nobody waits for that."""
    hosts = list(places(fleet))
    if facts is None:
        return hosts
    known_as = {
        host.name: [facts.host_of.get(f"{kind}/{host.name}", "") for kind in ("node", "gateway", "dns", "host")]
        for host in hosts
    }
    silent = {key for key, host in facts.hosts.items() if host.reading is None}
    return [host for host in hosts if not silent & set(known_as[host.name])] or hosts


def _ids(fleet: Fleet) -> Any:
    where = f"{directory(fleet.tree.cluster.id)}/intents"

    def listed(transport: Transport) -> set[str]:
        done = transport.run(["sh", "-c", 'cd "$1" 2>/dev/null || exit 0; ls', "sh", where], timeout_s=ANSWER_S)
        if not done.ok:
            raise StepError(done.words(), host=transport.host)
        return {name.removesuffix(".json") for name in done.stdout.decode("ascii", "replace").split()}

    return listed


# --- to wake ---------------------------------------------------------------------------------------------------------


def _roused(fleet: Fleet, now_s: float, facts: Facts | None) -> Roused:
    try:
        with _guard:
            return _woken(fleet, now_s, facts)
    except K4tError as error:
        return Roused(problem=str(error))


def _woken(fleet: Fleet, now_s: float, facts: Facts | None) -> Roused:
    """Raises K4tError that names the master and the remedy."""
    file = path(fleet.tree.cluster.id)
    memory, host = load(file), master_of(fleet.tree)
    try:
        said = _told(fleet, host)
    except Unreachable:
        ago_s = now_s - memory.called_s
        if 0 <= ago_s < _pause_s(BOOT_S, memory.tries) and not _off_since(facts, memory.called_s):
            return Roused(words=f"{host.name} was called {ago_s:.0f} s ago, and is given time to boot", boots=True)
        return Roused(words=_called(fleet.tree, host, memory, now_s))
    save(file, dataclasses.replace(memory, called_s=0.0, told_s=now_s, tries=memory.tries + 1))
    return Roused(words=f"{host.name} is on, and was told to look: {said}")


def master_of(tree: Tree) -> Host:
    """Another machine, which is asked for a short time. Raises K4tError where this is it."""
    power = tree.cluster.power
    if power is None or not power.host or here.is_here(power.host):
        raise K4tError("this machine is the master: there is nobody to wake")
    ssh = merged(tree.cluster.ssh, Ssh(host=power.host))
    quick_s = min(ssh.connect_timeout_s or SILENT_S, SILENT_S)
    return Host(power.host, power.host, dataclasses.replace(ssh, connect_timeout_s=quick_s))


def _told(fleet: Fleet, host: Host) -> str:
    """What the forced command there says. Raises Unreachable where nobody is on, HostRefused and StepError with the
    remedy where somebody is."""
    key = keys.private_file(fleet.tree.cluster.id)
    ssh = restricted.login(host.ssh, str(key)) if key else host.ssh
    remedy = restricted.REMEDY if key else "k4t monitor key makes one"
    try:
        transport = fleet.afresh(host, ssh)
    except LoginRefused as error:
        message = error.message if key else f"{host.name} is on, and this machine has no key to tell it to look"
        raise LoginRefused(message, remedy, host=host.name) from None
    try:
        if not key:
            raise StepError(f"{host.name} is on, and this machine has no key to tell it to look", remedy)
        done = transport.run([restricted.ROUSE], timeout_s=ANSWER_S, bare=True)
    finally:
        transport.close()
    if not done.ok:
        raise StepError(f"{host.name} was told to look at its queue, and said: {done.words()}", remedy)
    return done.words()


def _called(tree: Tree, host: Host, memory: Memory, now_s: float) -> str:
    power, file = tree.cluster.power, path(tree.cluster.id)
    if power is None or not power.on:
        raise K4tError(
            f"{host.name} is off, and cluster.xml has no <power on=>, so nothing here can wake it", "write one"
        )
    try:
        said = switch.on(power.on, host.name, timeout_s=ON_S)
    except K4tError:
        soon_s = now_s - _pause_s(BOOT_S, memory.tries) + FAILED_S
        save(file, dataclasses.replace(memory, called_s=soon_s))
        raise
    save(file, dataclasses.replace(memory, called_s=now_s, tries=memory.tries + 1))
    return said


def _off_since(facts: Facts | None, called_s: float) -> bool:
    """It has said since then that it goes off: it was on in between."""
    off = facts.off if facts else None
    return off is not None and off.genuine and (unix_s(off.at) or 0.0) > called_s


def _pause_s(first_s: float, tries: int) -> float:
    return float(min(first_s * 2 ** min(max(0, tries - 1), 10), max(LONGEST_S, first_s)))


# --- to remember -----------------------------------------------------------------------------------------------------


def path(cluster_id: str) -> Path:
    return statefile.path(cluster_id, "roused")


def load(file: Path) -> Memory:
    """One that is lost or damaged is as if nobody had been called: a machine that is on is called once too often."""
    return statefile.read(file, _decoded, Memory(), max_bytes=MAX_BYTES)[0]


def save(file: Path, memory: Memory) -> None:
    """Raises K4tError with the path."""
    found = {
        "format": FORMAT, "called_s": memory.called_s, "told_s": memory.told_s, "tries": memory.tries,
        "queued": {id: {"on": on, "until_s": until_s} for id, (on, until_s) in memory.queued.items()},
    }  # fmt: skip
    statefile.write(file, found)


def _decoded(found: Mapping[str, Any]) -> Memory:
    if found["format"] != FORMAT:
        raise ValueError(found["format"])
    queued = {
        str(id): (tuple(str(name) for name in one["on"]), float(one["until_s"])) for id, one in found["queued"].items()
    }
    return Memory(float(found["called_s"]), float(found["told_s"]), int(found["tries"]), queued)
