"""What a publication changes, in short sentences: for the redo log, and for whoever reads it. Names and addresses
alone; nothing of a document that could be a secret (a check's headers)."""

from __future__ import annotations

from collections.abc import Iterable

from k4t.registrar.document import Document

MAX_SENTENCES = 100


def changes(before: Document | None, after: Document) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(what is added, what is removed); of each the first hundred."""
    old = set(_sentences(before)) if before is not None else set()
    new = set(_sentences(after))
    return _shortened(new - old), _shortened(old - new)


def _sentences(document: Document) -> Iterable[str]:
    for endpoint in document.endpoints:
        address = f"[{endpoint.ip}]" if ":" in endpoint.ip else endpoint.ip
        yield f"{endpoint.app} {address}:{endpoint.port}" if endpoint.port else f"{endpoint.app} {endpoint.ip}"
    for route in document.routes:
        place = f"port {route.listen}" if route.listen else f"{','.join(route.domains) or '*'}{route.prefix}"
        yield f"route {place} to {route.app}"
    for record in document.records:
        yield f"record {record.name} of {record.app}"


def _shortened(sentences: Iterable[str]) -> tuple[str, ...]:
    found = sorted(sentences)
    more = len(found) - MAX_SENTENCES
    return tuple(found) if more <= 0 else (*found[:MAX_SENTENCES], f"and {more} more")
