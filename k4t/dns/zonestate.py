"""What k4t keeps in a zone beside the records it is there for: whose documents they come from, and who may write.

All of it is TXT, with TTL 0, so that any RFC 2136 server can hold it, its transfers carry it, and dig shows it:

    _k4t.ZONE                 "k4t=1 id=RANDOM writes=COUNT by=RANDOM", and one "cluster=ID" for each cluster
    _k4t-ID.ZONE              "fence=NUMBER RUN", "live=SHA256 PIECES TRANSACTION", "staged=", "upload=" and "rendered="
                              (the same), "problem=WORDS", "out=IP PORT CONTAINER BY WHY" (withdrawals)
    N.SHA40._k4t-ID.ZONE      the N-th piece of a document and its ancestors: base64 of JSON, deflated
    _k4t-owner.NAME           NAME is k4t's: "k4t=1 app=APP clusters=ID,ID"

Every write requires that the first set is what was read, and counts it up: that makes each a compare-and-set of the
whole. Documents are named by their content and written before anything points to them, so that one update message can
switch from one to another whatever their size.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from k4t.dns.wire import Name, Records
from k4t.model.state import NO_EPOCH
from k4t.registrar.document import MAX_BYTES, BadDocument, Document, Epoch, canonical, from_json, to_json
from k4t.registrar.store import Withdrawal

FORMAT = 1
PIECE_BYTES = 12_000
MAX_PIECES = 100
MAX_CLUSTERS = 90
"""BIND holds 100 records of one name and type."""
PROBLEM_CHARACTERS = 1000
MAX_WITHDRAWALS = 80
NONE = "-"
OWNER = "_k4t-owner."


class Unreadable(ValueError):
    """What stands in the zone is not what k4t writes: which name, what is wrong."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """To a document: its pieces are at names made of its sha256."""

    sha256: str
    pieces: int
    transaction: str


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What the zone says of one cluster. `upload`: pieces that may be there without being staged yet. `rendered`: what
    the records were made of, where that is not the live document, for the `problem`."""

    fence: Epoch = NO_EPOCH
    live: Pointer | None = None
    staged: Pointer | None = None
    upload: Pointer | None = None
    rendered: Pointer | None = None
    problem: str = ""
    out: tuple[Withdrawal, ...] = ()

    @property
    def pointers(self) -> tuple[Pointer, ...]:
        every = (self.live, self.staged, self.upload, self.rendered)
        return tuple(pointer for pointer in every if pointer is not None)


@dataclass(frozen=True, slots=True)
class Index:
    """Of a zone. `count` and `by` change with every write; `id` is made with the first, so that a blank replacement
    shows."""

    id: str = ""
    count: int = 0
    by: str = ""
    clusters: tuple[str, ...] = ()

    def written(self, token: str, cluster: str) -> Index:
        clusters = tuple(sorted({*self.clusters, cluster}))
        return Index(self.id or token, self.count + 1, token, clusters)


def index_name(zone: str) -> Name:
    return (f"_k4t.{zone}", "TXT")


def cluster_name(zone: str, cluster: str) -> Name:
    return (f"_k4t-{cluster}.{zone}".lower(), "TXT")


def owner_name(name: str) -> Name:
    return (OWNER + name, "TXT")


def piece_names(zone: str, cluster: str, pointer: Pointer | None) -> tuple[Name, ...]:
    if pointer is None:
        return ()
    base = cluster_name(zone, cluster)[0]
    return tuple((f"{number}.{pointer.sha256[:40]}.{base}", "TXT") for number in range(pointer.pieces))


def text(*values: str) -> Records:
    return Records(0, frozenset(values))


# --- the index ---------------------------------------------------------------------------------------------


def write_index(index: Index) -> Records:
    head = f"k4t={FORMAT} id={index.id} writes={index.count} by={index.by}"
    return text(head, *[f"cluster={cluster}" for cluster in index.clusters])


INDEX = re.compile(r"k4t=(\d{1,6}) id=([0-9a-f]{1,40}) writes=(\d{1,18}) by=([0-9a-f]{1,40})\Z")
CLUSTER = re.compile(r"cluster=([A-Za-z0-9][A-Za-z0-9_-]{0,63})\Z")


def read_index(zone: str, found: Records | None) -> Index:
    """None: a blank server, or one that k4t never wrote to. Raises Unreadable."""
    if found is None:
        return Index()
    name = index_name(zone)[0]
    heads = [match for value in found.values if (match := INDEX.match(value))]
    clusters = sorted(match[1] for value in found.values if (match := CLUSTER.match(value)))
    if len(heads) != 1 or len(clusters) + 1 != len(found.values):
        raise Unreadable(f"{name} TXT is not what k4t writes")
    _check_format(name, int(heads[0][1]))
    return Index(heads[0][2], int(heads[0][3]), heads[0][4], tuple(clusters))


def _check_format(name: str, format: int) -> None:
    if format > FORMAT:
        raise Unreadable(f"{name} TXT was written by a newer k4t (format {format}; this one reads up to {FORMAT})")


# --- a cluster ---------------------------------------------------------------------------------------------


def write_cluster(state: ClusterState) -> Records:
    values = [f"fence={state.fence.number} {state.fence.run}"]
    for word in ("live", "staged", "upload", "rendered"):
        pointer: Pointer | None = getattr(state, word)
        if pointer is not None:
            values.append(f"{word}={pointer.sha256} {pointer.pieces} {pointer.transaction}")
    values += [
        f"out={out.ip} {out.port} {out.container or NONE} {out.by or NONE} {' '.join(out.why.split())[:200]}"
        for out in state.out
    ]
    if state.problem:
        values.append("problem=" + " ".join(state.problem.split())[:PROBLEM_CHARACTERS])
    return text(*values)


FENCE = re.compile(r"(\d{1,16}) ([A-Za-z0-9._:@-]{0,200})\Z")
OUT = re.compile(r"([0-9a-f:.]{2,45}) (\d{1,5}) (\S{1,200}) (\S{1,200}) (.*)\Z")
POINTER = re.compile(r"([0-9a-f]{64}) (\d{1,3}) ([A-Za-z0-9._:@-]{1,200})\Z")


def read_cluster(zone: str, cluster: str, found: Records | None) -> ClusterState:
    """Raises Unreadable."""
    state = ClusterState()
    for value in found.values if found is not None else ():
        word, _, rest = value.partition("=")
        fence, pointer = FENCE.match(rest), POINTER.match(rest)
        if word == "fence" and fence:
            state = replace(state, fence=Epoch(int(fence[1]), fence[2]))
        elif word == "live" and pointer:
            state = replace(state, live=_pointer(pointer))
        elif word == "staged" and pointer:
            state = replace(state, staged=_pointer(pointer))
        elif word == "upload" and pointer:
            state = replace(state, upload=_pointer(pointer))
        elif word == "rendered" and pointer:
            state = replace(state, rendered=_pointer(pointer))
        elif word == "out" and (out := OUT.match(rest)):
            gone = Withdrawal(cluster, out[1], int(out[2]), _word(out[3]), _word(out[4]), out[5])
            state = replace(state, out=tuple(sorted((*state.out, gone), key=lambda one: (one.ip, one.port))))
        elif word == "problem":
            state = replace(state, problem=rest)
        else:
            raise Unreadable(f"{cluster_name(zone, cluster)[0]} TXT is not what k4t writes: {value[:60]!r}")
    return state


def _word(text: str) -> str:
    return "" if text == NONE else text


def _pointer(match: re.Match[str]) -> Pointer:
    return Pointer(match[1], int(match[2]), match[3])


# --- documents ---------------------------------------------------------------------------------------------


Ancestors = tuple[tuple[int, str], ...]


def pack(zone: str, document: Document, transaction: str, ancestors: Ancestors) -> tuple[Pointer, dict[Name, Records]]:
    """A document as pieces, and the pointer to them. Raises BadDocument when there would be too many."""
    content = {"ancestors": ancestors, "document": to_json(document)}
    data = base64.b64encode(zlib.compress(canonical(content), 9)).decode()
    parts = [data[place : place + PIECE_BYTES] for place in range(0, len(data), PIECE_BYTES)]
    if len(parts) > MAX_PIECES:
        raise BadDocument(
            f"the document takes {len(data)} bytes in TXT records; a zone holds {MAX_PIECES * PIECE_BYTES} of it"
        )
    pointer = Pointer(document.sha256, len(parts), transaction)
    names = piece_names(zone, document.cluster, pointer)
    return pointer, {name: text(part) for name, part in zip(names, parts, strict=True)}


def unpack(zone: str, cluster: str, pointer: Pointer, found: Iterable[Records | None]) -> tuple[Document, Ancestors]:
    """From the records at `piece_names`, in their order. Raises Unreadable."""
    name = cluster_name(zone, cluster)[0]
    parts = list(found)
    if any(part is None or len(part.values) != 1 for part in parts):
        raise Unreadable(f"a piece of the document at {name} is gone")
    data = "".join(next(iter(part.values)) for part in parts if part is not None)
    try:
        plain = zlib.decompressobj().decompress(base64.b64decode(data, validate=True), MAX_BYTES)
        content = json.loads(plain)
        document = from_json(content["document"])
        ancestors = tuple((int(seq), str(sha256)) for seq, sha256 in content["ancestors"])
    except (binascii.Error, zlib.error, ValueError, KeyError, TypeError) as error:  # BadDocument is a ValueError
        raise Unreadable(f"the document at {name} is damaged: {error}") from error
    if document.sha256 != pointer.sha256 or document.cluster != cluster:
        raise Unreadable(f"the document at {name} is damaged: its checksum or cluster is wrong")
    return document, ancestors
