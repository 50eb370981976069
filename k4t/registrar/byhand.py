"""What people, nodes and the monitor change on a host by themselves: manual entries and withdrawals.

A manual entry is an endpoint of nobody's document, added by hand (or by a node with a restricted key) and removed the
same way. A withdrawal takes an endpoint of a cluster's document out at once; it ends when it is taken back, or with a
newer document that no longer names that container. Both are part of the union that the vendor serves.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any, List, Mapping, Tuple

from .document import BadDocument, Document, Endpoint, clashes
from .document import check as check_document
from .errors import BadRequest, Clash
from .store import Entry, Holding, Store, Withdrawal

MANUAL = "manual"
VERBS = ("add", "remove", "withdraw", "restore")
WORDS = 200
"""Characters of `by` and `why`: they are shown to people."""
MANY = 2_000
"""Endpoints in one request."""


def change(store: Store, kind: str, held: List[Holding], request: Mapping[str, Any], only: str) -> None:
    """One of VERBS. `only`: the cluster that a restricted key speaks for; "" for root's own hands.

    Raises BadRequest, Clash.
    """
    verb, entry = str(request.get("verb")), _endpoint(request)
    by, why = _said(request, "by"), _said(request, "why")
    if verb == "add":
        _add(store, kind, held, Entry(entry, only, by))
    elif verb == "remove":
        _remove(store, entry, only)
    elif verb == "withdraw":
        store.set_withdrawals(_withdrawn(list(store.withdrawals()), held, entry, only, (by, why)))
    elif verb == "restore":
        store.set_withdrawals(_back(list(store.withdrawals()), entry, only, by))
    else:
        raise BadRequest("no such verb: %r" % verb[:40])


def several(store: Store, held: List[Holding], request: Mapping[str, Any], only: str) -> Tuple[int, List[str]]:
    """Withdraw or restore `entries` of cluster `only` in one go: how many of them changed, and what could not be done,
    a sentence each. What is so already, or is no longer published, is no error. Given back is what `by` took out.

    Raises BadRequest.
    """
    verb, entries = request.get("verb"), request.get("entries")
    if verb not in ("withdraw", "restore"):
        raise BadRequest("no such verb for several: %r" % str(verb)[:40])
    if not isinstance(entries, list) or len(entries) > MANY or not all(isinstance(one, dict) for one in entries):
        raise BadRequest("entries must be a list of at most %d" % MANY)
    by, why = _said(request, "by"), _said(request, "why")
    before = out = list(store.withdrawals())
    left = []
    for entry in [_endpoint(one) for one in entries]:
        try:
            out = _withdrawn(out, held, entry, only, (by, why)) if verb == "withdraw" else _back(out, entry, only, by)
        except BadRequest as refusal:
            left.append(str(refusal))
    if out != before:
        store.set_withdrawals(out)
    return abs(len(out) - len(before)), left


def rows(store: Store, held: List[Holding]) -> Tuple[List[Any], List[Any]]:
    """Every endpoint with its owner, and the withdrawals."""
    endpoints = [
        dict(dataclasses.asdict(endpoint), cluster=holding.document.cluster, owner=holding.document.name)
        for holding in held
        for endpoint in holding.document.endpoints
    ]
    endpoints += [dict(dataclasses.asdict(row.endpoint), cluster=row.cluster, owner=MANUAL) for row in store.entries()]
    return endpoints, [dataclasses.asdict(out) for out in store.withdrawals()]


def _add(store: Store, kind: str, held: List[Holding], new: Entry) -> None:
    entries = store.entries()
    owner = next((row for row in entries if _place(row.endpoint) == _place(new.endpoint)), None)
    if owner is not None and owner.cluster != new.cluster:
        raise Clash("%s was added by %s" % (_words(new.endpoint), owner.by or owner.cluster or "hand"))
    mine = Document(MANUAL, MANUAL, kind, "default", endpoints=(new.endpoint,))
    try:
        check_document(mine)
    except BadDocument as error:
        raise BadRequest(str(error)) from error
    staged = [store.staged(cluster) for cluster in store.clusters()]  # may be decided already
    rivals = [*held, *(holding for holding in staged if holding is not None)]
    found = clashes(mine, [holding.document for holding in rivals])
    if found:
        raise Clash(found[0])
    store.set_entries([*(row for row in entries if _place(row.endpoint) != _place(new.endpoint)), new])


def _remove(store: Store, entry: Endpoint, only: str) -> None:
    entries = store.entries()
    gone = [row for row in entries if _place(row.endpoint) == _place(entry)]
    if not gone:
        raise BadRequest("there is no manual entry %s" % _words(entry))
    if only and gone[0].cluster != only:
        raise BadRequest("%s was not added by cluster %s" % (_words(entry), only))
    store.set_entries([row for row in entries if row not in gone])


def _withdrawn(
    out: List[Withdrawal], held: List[Holding], entry: Endpoint, only: str, said: Tuple[str, str]
) -> List[Withdrawal]:
    """With what is published of it taken out. Said again, it stays as it was said first."""
    found = [
        Withdrawal(holding.document.cluster, listed.ip, listed.port, listed.container, *said)
        for holding in held
        for listed in holding.document.endpoints
        if (listed.app, listed.ip, listed.port) == (entry.app, entry.ip, entry.port)
        and only in ("", holding.document.cluster)
    ]
    if not found:
        raise BadRequest("%s publishes no %s" % ("cluster %s" % only if only else "no cluster", _words(entry)))
    known = {(old.cluster, old.ip, old.port, old.container) for old in out}
    return [*out, *(row for row in found if (row.cluster, row.ip, row.port, row.container) not in known)]


def _back(out: List[Withdrawal], entry: Endpoint, only: str, by: str) -> List[Withdrawal]:
    """Without it. With a restricted key only what that took out: what a person took out, a person puts back."""
    there = [row for row in out if (row.ip, row.port) == (entry.ip, entry.port) and only in ("", row.cluster)]
    if not there:
        raise BadRequest("%s is not withdrawn" % _words(entry))
    back = [row for row in there if not only or row.by == by]
    if not back:
        raise BadRequest("%s was withdrawn by %s, not by %s" % (_words(entry), there[0].by or "hand", by))
    return [row for row in out if row not in back]


def _place(entry: Endpoint) -> Tuple[str, str, int, str]:
    return (entry.app, entry.ip, entry.port, entry.port_name)


def _words(entry: Endpoint) -> str:
    host = "[%s]" % entry.ip if ":" in entry.ip else entry.ip
    return "%s %s:%d" % (entry.app, host, entry.port)


def _said(request: Mapping[str, Any], key: str) -> str:
    text = request.get(key, "")
    if not isinstance(text, str) or len(text) > WORDS or not (text == "" or text.isprintable()):
        raise BadRequest("%s must be one line of at most %d characters" % (key, WORDS))
    return text


def _endpoint(request: Mapping[str, Any]) -> Endpoint:
    app, ip, port = request.get("cname"), request.get("ip"), request.get("port")
    if not (isinstance(app, str) and isinstance(ip, str) and isinstance(port, int) and not isinstance(port, bool)):
        raise BadRequest("cname, ip and port are needed")
    try:
        ip = str(ipaddress.ip_address(ip))
    except ValueError:
        raise BadRequest("ip: %r is no IP address" % ip[:80]) from None
    entry = Endpoint(app=app, ip=ip, port=port, port_name=str(request.get("port_name") or "main"))
    try:
        check_document(Document(MANUAL, MANUAL, "gateway", "default", endpoints=(entry,)))
    except BadDocument as error:
        raise BadRequest(str(error)) from error
    return entry
