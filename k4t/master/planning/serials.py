"""Heads and serials: which head is the newest, what the next one holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from k4t.master.planning import lineage
from k4t.model.state import Dead, Head, Revision

REVISIONS_KEPT = 100


def newest(heads: Iterable[Head]) -> Head | None:
    """The head with the highest serial; of two with one serial, the one written later, then by its text. Its lineage is
    the newest of all: one that took over may not have reached the host on which an old master worked last."""
    seen = list(heads)
    head = max(seen, key=lambda head: (head.serial, head.at, head.tree, head.who), default=None)
    live = lineage.newest(seen)
    return head if head is None or head.lineage == live else dataclasses.replace(head, lineage=live)


def next_serial(head: Head | None) -> int:
    return head.serial + 1 if head else 1


def advance(
    head: Head | None,
    *,
    cluster: str,
    serial: int,
    tree: str,
    apps: Mapping[str, str],
    digests: Mapping[str, str],
    who: str,
    at: str,
    message: str = "",
    dead: Mapping[str, Dead] | None = None,
) -> Head:
    """The head after an apply: `tree` is "" for a partial one; `apps` are the apps it was about, with their hashes.

    The digests of apps that this apply was not about stay as they were.
    """
    before = head or Head(cluster)
    revisions = [revision for revision in before.revisions if revision.serial < serial]
    revisions.append(Revision(serial, tree, dict(apps), who, at, message))
    return dataclasses.replace(
        before,
        cluster=cluster,
        serial=serial,
        tree=tree or before.tree,
        revisions=tuple(revisions[-REVISIONS_KEPT:]),
        digests={**before.digests, **digests},
        who=who,
        at=at,
        dead=before.dead if dead is None else dict(dead),
    )


def complete(head: Head | None) -> bool:
    """Whether the revisions go back to the first one, so that an app they don't name never was."""
    return head is None or head.serial == 0 or (bool(head.revisions) and head.revisions[0].serial == 1)


def names_app(head: Head | None, app: str) -> bool:
    return head is not None and any(app in revision.apps for revision in head.revisions)
