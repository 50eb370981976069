"""What is there now, in the form that `k4t status -o json` promises (design.md). Observes; changes nothing."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TYPE_CHECKING, Any

from k4t.errors import K4tError, LogRefused
from k4t.master.fleet import Fleet
from k4t.master.observe import observe
from k4t.master.planning import serials, sizes
from k4t.master.planning.assess import wanted
from k4t.master.planning.lag import ahead, lag, replaced
from k4t.master.planning.placement import Board
from k4t.master.planning.survey import survey
from k4t.master.probing import healthy
from k4t.master.transactions import debts
from k4t.model.app import App
from k4t.model.state import Container, Head, NodeState, Observed, ParticipantState
from k4t.remote.lock_holder import holder_of

if TYPE_CHECKING:
    from k4t.master.backup.survey import Survey
    from k4t.master.publication.redolog import LogPlace, Transaction


def status(
    fleet: Fleet, observed_at: str, log: LogPlace | None = None, backups: Survey | None = None
) -> dict[str, Any]:
    """One look at every host, and one probe of every running replica. `log`: this working copy's redo log. `backups`:
    asks the targets of copies meanwhile."""
    observed = observe(fleet)
    head, own = serials.newest(observed.heads), fleet.tree.cluster.id
    well = healthy(fleet, observed)
    desired = _desired(fleet, observed)
    return {
        "version": 1,
        "cluster": fleet.tree.cluster.name,
        "serial": head.serial if head else 0,
        "tree": fleet.tree.sha256,
        "observed_at": observed_at,
        "lock": _lock(fleet),
        "nodes": [_node(fleet, state) for state in observed.nodes.values()],
        "apps": [_app(app, observed, head, well, desired[app.name]) for app in fleet.tree.apps.values()],
        "gateways": [_member(state, observed, head, own) for state in observed.gateways.values()],
        "dns": [_member(state, observed, head, own) for state in observed.dns.values()],
        **_transactions(log, observed),
        "backups": backups.rows(datetime.fromisoformat(observed_at).timestamp()) if backups else [],
    }


def _transactions(log: LogPlace | None, observed: Observed) -> dict[str, Any]:
    """What our own log has open, and what its last publications owe to members that have not got it since."""
    if log is None:
        return {"transactions": [], "redo_log": ""}
    try:
        contents = log.read()
    except LogRefused as error:
        return {"transactions": [], "redo_log": str(error)}
    if not log.is_ours(contents):
        return {"transactions": [], "redo_log": ""}
    rows = [_transaction(one, one.state, one.members) for one in contents.transactions if not one.finished]
    members = (*observed.gateways.values(), *observed.dns.values())
    rows += [_transaction(one, "owed", owed) for one, owed in debts(contents, members)]
    return {"transactions": rows, "redo_log": ""}


def _transaction(one: Transaction, state: str, members: tuple[str, ...]) -> dict[str, Any]:
    """`state`: begun (will be aborted), decided (will be rolled forward), owed (to these `members`)."""
    return {
        "id": one.id, "on": one.on, "state": state, "members": list(members), "who": one.who, "at": one.at,
        "message": one.message,
    }  # fmt: skip


def _lock(fleet: Fleet) -> dict[str, Any] | None:
    """Who works on the cluster now, as the first host that answers knows it."""
    for transport in fleet.connected().values():
        try:
            holder = holder_of(transport, fleet.tree.cluster.id)
        except K4tError:
            continue
        return dataclasses.asdict(holder) if holder else None
    return None


def _node(fleet: Fleet, state: NodeState) -> dict[str, Any]:
    node = fleet.tree.nodes[state.name]
    return {
        "name": node.name,
        "address": node.address,
        "reachable": state.reachable,
        "availability": node.availability,
        "container_count": len(state.containers) if state.reachable else None,
        "problem": state.problem,
    }


def _app(app: App, observed: Observed, head: Head | None, answering: frozenset[str], desired: int) -> dict[str, Any]:
    containers = [one for state in observed.nodes.values() for one in state.containers if one.app == app.name]
    running = [one for one in containers if one.running]
    well = [one for one in running if one.id in answering]
    return {
        "name": app.name,
        "image": app.image.reference,
        "digest": head.digests.get(app.image.reference) if head else None,
        "desired": desired,
        "running": len(running),
        "healthy": len(well),
        "stopped": app.stopped,
        "held": (head.held.get(app.name) or None) if head else None,
        "endpoints": [endpoint for one in well for endpoint in _endpoints(one)],
    }


def _desired(fleet: Fleet, observed: Observed) -> dict[str, int]:
    """By app; of a `per-node` app as many as there are nodes that may have it, of one with `<scale>` its size now."""
    seen = survey(fleet.tree, observed)
    tree = sizes.sized(fleet.tree, observed, seen.head)
    board = Board(tree, observed, seen)
    apps = tree.apps.values()
    return {app.name: 0 if app.stopped else len(wanted(app, None, board, seen.replicas(app.name))) for app in apps}


def _endpoints(container: Container) -> list[dict[str, Any]]:
    return [
        {
            "ip": container.address,
            "port": port.number,
            "port_name": port.name,
            "node": container.node,
            "replica": int(container.replica) if container.replica.isdigit() else container.replica,
        }
        for port in container.ports
    ]


def _member(state: ParticipantState, observed: Observed, head: Head | None, cluster: str) -> dict[str, Any]:
    seen = observed.gateways if state.kind == "gateway" else observed.dns
    peers = [peer for peer in seen.values() if peer.group == state.group and peer.reachable]
    live = max((peer.document for peer in peers if peer.document), key=lambda one: one.version, default=None)
    pinned = head.members.get(f"{state.kind}/{state.name}", "") if head else ""
    behind = lag(state, ahead(peers, live), pinned) if state.reachable else ""
    version = state.document.version if state.document else None
    current = version == (live.version if live else None)
    in_step = state.reachable and state.rendered and not state.differences and not behind and current
    return {
        "name": state.name,
        "group": state.group,
        "driver": state.driver,
        "reachable": state.reachable,
        "in_step": in_step,
        "epoch": state.epoch.number,
        "seq": state.document.seq if state.document else 0,
        "digest": state.digest,
        "problem": state.problem,
        "differences": list(state.differences),
        "withdrawn": [
            {"ip": one.ip, "port": one.port, "by": one.by, "why": one.why}
            for one in state.withdrawn
            if one.cluster == cluster
        ],
        "behind": behind or replaced(state, pinned),
        "id": state.id,
    }
