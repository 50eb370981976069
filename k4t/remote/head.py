"""The head: the cluster's newest serial and what goes with it, kept on every host as one small JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress

from k4t.errors import K4tError
from k4t.model.snapshot import Lineage
from k4t.model.state import Dead, Former, Head, Revision, Size
from k4t.registrar.document import Document, from_json, to_json
from k4t.remote.transport import Transport

FORMAT = 1
MAX_REVISIONS = 100
MAX_MESSAGE = 200


def path(cluster_id: str) -> str:
    return f"/var/lib/k4t/{cluster_id}/head"


def encode(head: Head) -> bytes:
    """The newest 100 revisions go along."""
    newest = sorted(head.revisions, key=lambda revision: revision.serial)[-MAX_REVISIONS:]
    content = {
        "format": FORMAT,
        "cluster": head.cluster,
        "serial": head.serial,
        "tree": head.tree,
        "revisions": [_written(revision) for revision in newest],
        "held": dict(head.held),
        "held_at": dict(head.held_at),
        "continued": dict(head.continued),
        "digests": dict(head.digests),
        "who": head.who,
        "at": head.at,
        "dead": {name: {"serial": one.serial, "fenced": one.fenced} for name, one in head.dead.items()},
    }
    if head.jobs:
        content["jobs"] = dict(head.jobs)
    if head.members:
        content["members"] = dict(head.members)
    if head.former:
        content["former"] = {
            app: {"spec": one.spec, "documents": [to_json(document) for document in one.documents]}
            for app, one in head.former.items()
        }
    if head.sizes:
        content["sizes"] = {app: _size(one) for app, one in head.sizes.items()}
    if head.lineage is not None:
        content["lineage"] = lineage_to_json(head.lineage)
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _written(revision: Revision) -> dict[str, object]:
    """Who, when and why only where it is known, so that the file stays small."""
    remarks = {"who": revision.who, "at": revision.at, "message": revision.message[:MAX_MESSAGE]}
    found: dict[str, object] = {"serial": revision.serial, "tree": revision.tree, "apps": dict(revision.apps)}
    return found | {key: text for key, text in remarks.items() if text}


def _size(size: Size) -> dict[str, object]:
    remarks = {"who": size.who, "at": size.at, "why": size.why[:MAX_MESSAGE]}
    return {"replicas": size.replicas, **{key: text for key, text in remarks.items() if text}}


def parse(data: bytes) -> Head | None:
    """None for what is no head (empty, cut, garbage): as if there were none. Raises K4tError for a newer format."""
    try:
        found = json.loads(data)
        written = int(found["format"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    if written > FORMAT:
        raise K4tError(f"the head is of format {written}, this k4t reads up to {FORMAT}", "update k4t")
    try:
        return _head(found)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _head(found: Mapping[str, object]) -> Head:
    return Head(
        cluster=_text(found["cluster"]),
        serial=_number(found["serial"]),
        tree=_text(found.get("tree", "")),
        revisions=tuple(_revision(item) for item in _list(found.get("revisions", []))),
        held=_texts(found.get("held", {})),
        held_at=_numbers(found.get("held_at", {})),
        continued=_texts(found.get("continued", {})),
        digests=_texts(found.get("digests", {})),
        who=_text(found.get("who", "")),
        at=_text(found.get("at", "")),
        dead=_dead(found.get("dead", {})),
        jobs=_texts(found.get("jobs", {})),
        members=_texts(found.get("members", {})),
        former=_former(found.get("former", {})),
        lineage=lineage_from_json(found.get("lineage")),
        sizes=_sizes(found.get("sizes", {})),
    )


def lineage_to_json(lineage: Lineage) -> dict[str, object]:
    return {name: getattr(lineage, name) for name in ("generation", "id", "serial", "who", "at")}


def lineage_from_json(value: object) -> Lineage | None:
    """None for what is none."""
    if not isinstance(value, dict):
        return None
    try:
        return Lineage(
            _number(value["generation"]), _text(value["id"]), _number(value.get("serial", 0)),
            _text(value.get("who", "")), _text(value.get("at", "")),
        )  # fmt: skip
    except (KeyError, TypeError):
        return None


def read(transport: Transport, cluster_id: str) -> Head | None:
    """The host's head of this cluster, or None. Raises as the transport does, and K4tError for a newer format."""
    data = transport.get(path(cluster_id))
    try:
        head = None if data is None else parse(data)
    except K4tError as error:
        raise K4tError(error.message, error.remedy, host=transport.host) from error
    return head if head is not None and head.cluster == cluster_id else None


def write(transport: Transport, head: Head) -> None:
    transport.put(path(head.cluster), encode(head))


def _revision(item: object) -> Revision:
    if not isinstance(item, dict):
        raise TypeError(item)
    remarks = (_text(item.get(key, "")) for key in ("who", "at", "message"))
    return Revision(_number(item["serial"]), _text(item.get("tree", "")), _texts(item.get("apps", {})), *remarks)


def _dead(value: object) -> dict[str, Dead]:
    if not isinstance(value, dict):
        raise TypeError(value)
    return {_text(name): Dead(_number(one["serial"]), bool(one["fenced"])) for name, one in value.items()}


def _former(value: object) -> dict[str, Former]:
    """Without those that a newer k4t wrote in words unknown here: the rest of the head counts all the same."""
    if not isinstance(value, dict):
        raise TypeError(value)
    found = {}
    for app, one in value.items():
        with suppress(ValueError, KeyError, TypeError):
            documents: tuple[Document, ...] = tuple(from_json(item) for item in _list(one["documents"]))
            found[_text(app)] = Former(_text(one["spec"]), documents)
    return found


def _sizes(value: object) -> dict[str, Size]:
    """Without those that are none: what runs counts then."""
    if not isinstance(value, dict):
        raise TypeError(value)
    found = {}
    for app, one in value.items():
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            remarks = (_text(one.get(key, "")) for key in ("who", "at", "why"))
            found[_text(app)] = Size(_number(one["replicas"]), *remarks)
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(value)
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(value)
    return value


def _numbers(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise TypeError(value)
    return {_text(key): _number(number) for key, number in value.items()}


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TypeError(value)
    return {_text(key): _text(text) for key, text in value.items()}
