"""A zone as k4t reads and writes it: one reading of its state, and writes that succeed only if that still holds."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from k4t.dns.records import merged
from k4t.dns.wire import Change, Name, Raced, Records, ZoneServer
from k4t.dns.zonestate import (
    MAX_CLUSTERS,
    Ancestors,
    ClusterState,
    Index,
    Pointer,
    Unreadable,
    cluster_name,
    index_name,
    piece_names,
    read_cluster,
    read_index,
    unpack,
    write_cluster,
    write_index,
)
from k4t.errors import StepError
from k4t.registrar.document import Document

CACHED = 64
UPLOAD_BYTES = 40_000
"""Pieces that go into one message."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a zone said when it was read. `raw`: the index as it must still be when something is written."""

    index: Index
    raw: Records | None
    states: Mapping[str, ClusterState]

    def state(self, cluster: str) -> ClusterState:
        return self.states.get(cluster, ClusterState())


class Zone:
    """Raises what ZoneServer raises; Unreadable for what k4t can't have written."""

    def __init__(self, server: ZoneServer, cluster: str) -> None:
        self.server = server
        self.name = server.zone
        self.cluster = cluster
        self._documents: dict[tuple[str, Pointer], tuple[Document, Ancestors]] = {}

    def read(self) -> Seen:
        index_at, own = index_name(self.name), cluster_name(self.name, self.cluster)
        found = self.server.ask((index_at, own))
        raw = found.get(index_at)
        try:
            index = read_index(self.name, raw)
        except Unreadable:
            if not self.lacks(index_at):
                raise
            index, raw = Index(), None  # a wildcard of the zone answered
        if self.cluster not in index.clusters and self._was_here(found.get(own)):
            raise Unreadable(
                f"{own[0]} TXT says that cluster {self.cluster} writes to this zone, and {index_at[0]} TXT doesn't"
            )
        found |= self.server.ask(cluster_name(self.name, other) for other in index.clusters if other != self.cluster)
        states = {
            cluster: read_cluster(self.name, cluster, found.get(cluster_name(self.name, cluster)))
            for cluster in index.clusters
        }
        return Seen(index, raw, states)

    def _was_here(self, found: Records | None) -> bool:
        """Whether that is really this cluster's state: a wildcard of the zone may have answered."""
        try:
            return read_cluster(self.name, self.cluster, found) != ClusterState()
        except Unreadable:
            return False

    def moved(self, seen: Seen) -> bool:
        """Whether somebody has written since."""
        at = index_name(self.name)
        return self.server.ask((at,)).get(at) != seen.raw

    def write(self, seen: Seen, state: ClusterState, change: Change) -> None:
        """This cluster's state and a change beside it, in one update. Raises Raced when the zone is not as it was."""
        index = seen.index.written(secrets.token_hex(8), self.cluster)
        if len(index.clusters) > MAX_CLUSTERS:
            raise StepError(f"{self.name} has {len(index.clusters)} clusters; it takes {MAX_CLUSTERS}")
        at = index_name(self.name)
        put = {at: write_index(index), cluster_name(self.name, self.cluster): write_cluster(state)}
        guard = Change(put=put, equal={at: seen.raw.values}) if seen.raw else Change(put=put, absent=(at,))
        change = merged(Change(remove=self._dropped(seen, state)), merged(guard, change))
        self.server.update(change, known=seen.raw is not None)

    def _dropped(self, seen: Seen, state: ClusterState) -> tuple[Name, ...]:
        """Pieces that nothing points to any more."""
        kept = {name for pointer in state.pointers for name in piece_names(self.name, self.cluster, pointer)}
        old = seen.state(self.cluster).pointers
        return tuple(
            name for pointer in old for name in piece_names(self.name, self.cluster, pointer) if name not in kept
        )

    def upload(self, pieces: Mapping[Name, Records]) -> None:
        """Ahead of what will point to them, in as many messages as it takes."""
        part: dict[Name, Records] = {}
        size_bytes = 0
        for name, records in pieces.items():
            (value,) = records.values
            if part and size_bytes + len(value) > UPLOAD_BYTES:
                self.server.update(Change(put=part))
                part, size_bytes = {}, 0
            part[name] = records
            size_bytes += len(value)
        self.server.update(Change(put=part))

    def document(self, cluster: str, pointer: Pointer) -> tuple[Document, Ancestors]:
        key = (cluster, pointer)
        if key not in self._documents:
            names = piece_names(self.name, cluster, pointer)
            found = self.server.ask(names)
            if len(self._documents) >= CACHED:
                self._documents.clear()
            self._documents[key] = unpack(self.name, cluster, pointer, [found.get(name) for name in names])
        return self._documents[key]

    def lacks(self, name: Name) -> bool:
        """Whether there is really nothing, even where a wildcard of the zone answers (RFC 2136 section 2.4)."""
        try:
            self.server.update(Change(absent=(name,)))
        except Raced:
            return False
        return True
