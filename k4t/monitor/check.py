"""The story of one look: ask every host → who answers → what is wrong → what of it is worth telling. Changes nothing
on any host and takes no lock, so it may run beside an apply. Whatever looks goes through here.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from k4t.errors import BadCopy, K4tError
from k4t.master.fleet import Fleet
from k4t.master.planning import sizes
from k4t.master.planning.assess import wanted
from k4t.master.planning.placement import Board
from k4t.master.planning.survey import survey
from k4t.master.power import announce
from k4t.master.power.signed import Refused, Trust
from k4t.model.spec import Tree
from k4t.model.state import Head, Observed
from k4t.model.value import value
from k4t.monitor.facts import Facts, Host, OffNotice, OpenTransaction, Target
from k4t.monitor.history import NONE, History
from k4t.monitor.judge import Judgement, judge, remembered
from k4t.monitor.looking import gather, reach
from k4t.monitor.looking.blind import named
from k4t.monitor.signs import signs
from k4t.monitor.signs.sign import unix_s

if TYPE_CHECKING:
    from k4t.master.publication.redolog import LogPlace


@value
class Looked:
    """`has_tree` False: hosts were named by hand, and what should be is not known."""

    facts: Facts
    judgement: Judgement
    tree: Tree
    has_tree: bool = True


def check(
    fleet: Fleet, history: History = NONE, *, at_s: float, log: LogPlace | None = None, has_tree: bool = True
) -> Looked:
    """One check. `at_s`: now, Unix seconds; `log`: this working copy's redo log. Raises nothing that a host could
    raise."""
    facts = look(fleet, history, at_s=at_s, log=log, has_tree=has_tree)
    facts = facts if has_tree else named(facts)
    known = remembered(history, facts)
    found = signs(facts, fleet.tree, dict(known.firsts))
    return Looked(facts, judge(found, known, fleet.tree.monitor, at_s), fleet.tree, has_tree)


def look(fleet: Fleet, history: History, *, at_s: float, log: LogPlace | None = None, has_tree: bool = True) -> Facts:
    """What is there now."""
    began_s, tree = time.monotonic(), fleet.tree
    short = tree.monitor.threshold("docker-disk")
    asked = gather.gather(fleet, gather.Before(history.ticks, short.warning), with_master=has_tree)
    reached = reach.reach(fleet, asked)
    hosts = gather.settled(asked)
    observed = Observed({name: one.state for name, one in asked.nodes.items()}, asked.gateways, asked.dns)
    facts = Facts(
        at_s=at_s,
        took_s=time.monotonic() - began_s,
        cluster=tree.cluster.name,
        cluster_id=tree.cluster.id,
        hosts=hosts,
        host_of=asked.host_of,
        nodes=asked.nodes,
        gateways=asked.gateways,
        dns=asked.dns,
        serving=reached.serving,
        probed=reached.probed,
        reached=reached.endpoints,
        alive=reached.alive,
        targets=tuple(_targets(fleet, hosts, asked.host_of)),
        transactions=tuple(_transactions(observed, log)),
        off=_off(tree, hosts),
        master=asked.master,
    )
    desired = _desired(tree, observed, facts.head) if has_tree else {}
    return dataclasses.replace(facts, desired=desired)


def _desired(tree: Tree, observed: Observed, head: Head | None) -> dict[str, tuple[str, ...]]:
    """As an apply would see it now; of a `per-node` app those of the nodes that may have it, of one with `<scale>` as
    many as its size is."""
    seen = survey(tree, observed)
    tree = sizes.sized(tree, observed, head)
    board = Board(tree, observed, seen)
    return {
        app.name: () if app.stopped else tuple(wanted(app, None, board, seen.replicas(app.name)))
        for app in tree.apps.values()
    }


# --- copies, off on purpose ------------------------------------------------------------------------------------------


def _targets(fleet: Fleet, hosts: Mapping[str, Host], host_of: Mapping[str, str]) -> Iterator[Target]:
    """The age that counts is the newest copy's, or that of its confirmation, as far as their signatures hold."""
    from k4t.master.backup.targets import targets_of

    for one in targets_of(fleet.tree):
        key = host_of.get(f"node/{one.name}") or host_of.get(f"host/{one.name}", "")
        host = hosts.get(key)
        if host is not None and host.reading is not None and not one.dead:
            yield _target(Target(one.name, one.every_s, key), fleet.tree, host)


def _target(target: Target, tree: Tree, host: Host) -> Target:
    from k4t.master.backup.snapshot import check, check_confirmation, digest

    reading = host.reading
    if reading is None or "confirmed" in reading.denied:
        return dataclasses.replace(target, state="denied", problem="it may not be read")
    if not reading.copy:
        return dataclasses.replace(target, state="none", problem="there is none")
    key = tree.recovery.key if tree.recovery else ""
    if not key:
        return dataclasses.replace(target, state="refused", problem="the tree has no recovery.xml to check it by")
    try:
        newest = check(reading.copy.encode() + b"\n", cluster=tree.cluster.id, cluster_key=key)
        times = [newest.time]
        if reading.confirmed:
            said = check_confirmation(reading.confirmed.encode() + b"\n", cluster=tree.cluster.id, cluster_key=key)
            times += [said.time] if said.snapshot == digest(newest) else []
    except BadCopy as error:
        return dataclasses.replace(target, state="refused", problem=error.message)
    return dataclasses.replace(target, confirmed_s=unix_s(max(times)))


def _off(tree: Tree, hosts: Mapping[str, Host]) -> OffNotice | None:
    """What most of the places say where it would be said (power.places). A host that was away when the master woke may
    still have the old notice, and one that is hacked any."""
    copies = {backup.node for backup in tree.cluster.backups}
    read = [host for host in hosts.values() if host.reading and _is_place(host, copies)]
    trust = Trust(tree.cluster.id, tree.recovery.key if tree.recovery else "")
    genuine: dict[announce.Off, list[str]] = {}
    doubtful = None
    for host in read:
        text = host.reading.off if host.reading else ""
        try:
            if text:
                genuine.setdefault(announce.decode(text.encode() + b"\n", trust), []).append(host.name)
        except Refused as error:
            doubtful = OffNotice("somebody", "an unknown time", error.message, False, host.name)
    if not genuine:
        return doubtful
    off, on = max(genuine.items(), key=lambda item: len(item[1]))
    return OffNotice(off.who, off.at, off.why, len(on) * 2 > len(read), ", ".join(on))


def _is_place(host: Host, copies: Collection[str]) -> bool:
    kinds = {thing.kind for thing in host.things}
    return bool(kinds & {"gateway", "dns", "host"}) or any(
        thing.kind == "node" and thing.name in copies for thing in host.things
    )


# --- publications ----------------------------------------------------------------------------------------------------


def _transactions(observed: Observed, log: LogPlace | None) -> Iterator[OpenTransaction]:
    """Those of our own log, and what members still have staged."""
    told = set()
    for one in _logged(log):
        told.add(one.id)
        yield one
    for member in (*observed.gateways.values(), *observed.dns.values()):
        if member.staged and member.staged not in told:
            told.add(member.staged)
            yield OpenTransaction(member.staged, f"{member.kind} {member.name}", "staged")


def _logged(log: LogPlace | None) -> Iterator[OpenTransaction]:
    if log is None:
        return
    try:
        contents = log.read()
    except K4tError as error:
        yield OpenTransaction("redo log", "this working copy", f"unreadable: {error.message}")
        return
    for one in contents.transactions if log.is_ours(contents) else ():
        if not one.finished:
            yield OpenTransaction(one.id, one.on, one.state, unix_s(one.at))
