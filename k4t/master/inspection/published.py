"""What gateways and DNS servers hold, by owner: every cluster's, and what was added by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from k4t.master.fleet import Fleet, at_once
from k4t.model.participant import Kind
from k4t.model.state import ParticipantState
from k4t.registrar.document import Endpoint

MANUAL = "manual"


def published(fleet: Fleet, kind: Kind) -> dict[str, dict[str, Any]]:
    """By member: `reachable`, `problem`, and `endpoints` (None when it can't be asked: unknown, not empty)."""
    members = [one for (of, _), one in fleet.participants.items() if of == kind]
    return {state.name: _held(state) for state in at_once(lambda member: member.observe(), members)}


def _held(state: ParticipantState) -> dict[str, Any]:
    return {
        "reachable": state.reachable,
        "problem": state.problem,
        "endpoints": list(_rows(state)) if state.reachable else None,
    }


def _rows(state: ParticipantState) -> Iterable[dict[str, Any]]:
    out = {(one.cluster, one.ip, one.port, one.container): one for one in state.withdrawn}
    documents = [*([state.document] if state.document else []), *state.others]
    for document in sorted(documents, key=lambda one: (one.name, one.cluster)):
        for endpoint in document.endpoints:
            gone = out.get((document.cluster, endpoint.ip, endpoint.port, endpoint.container))
            withdrawn = f"{gone.by or 'somebody'}: {gone.why or 'no reason given'}" if gone else ""
            yield _row(document.name, document.cluster, endpoint, withdrawn)
    for endpoint in state.manual:
        yield _row(MANUAL, "", endpoint, "")


def _row(owner: str, cluster: str, endpoint: Endpoint, withdrawn: str) -> dict[str, Any]:
    return {
        "owner": owner, "cluster": cluster, "app": endpoint.app, "ip": endpoint.ip, "port": endpoint.port,
        "port_name": endpoint.port_name, "node": endpoint.node, "replica": endpoint.replica, "withdrawn": withdrawn,
    }  # fmt: skip
