"""What a host keeps for one driver: each cluster's fence, live and staged document; manual entries; withdrawals.

One directory a driver, shared by all clusters, under ROOT/var/lib/k4t/registrar/DRIVER:

    state.json                    {"format", "id": random, written once; a blank replacement has another}
    config.json                   how the vendor was set up here (see the vendor's file)
    clusters/CLUSTER/fence.json   {"format", "epoch": [number, run]}
    clusters/CLUSTER/live.json    {"format", "transaction", "zone", "sha256", "ancestors", "document"}
    clusters/CLUSTER/staged.json  the same; a commit renames it to live.json, so it either happened or not. One below
                                  the fence is void, one that can't be read counts as none
    manual.json  withdrawals.json rendered.json

Every file carries `format`. This version writes FORMAT and reads what READS says; a newer one is refused by name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from typing import Any, ContextManager, Dict, List, Optional, Tuple

from . import files, protocol
from .document import BadDocument, Document, Endpoint, Epoch, from_json, to_json
from .errors import BadRequest, Damaged, Newer
from .protocol import NO_EPOCH, Kept, Stamp

FORMAT = 1
READS = (1,)  # N and N-1, once there is a 2
CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
DRIVER = re.compile(r"[a-z0-9]{1,20}\Z")


@dataclasses.dataclass(frozen=True)
class Holding:
    """One cluster's document as it is kept here; `zone` is where a DNS server puts its relative names. `sha256` is
    the document's, where it was checked already; `ancestors` as a Stamp has them."""

    document: Document
    transaction: str
    zone: str = ""
    sha256: str = ""
    ancestors: Tuple[Tuple[int, str], ...] = ()

    @property
    def stamp(self) -> Stamp:
        made = protocol.stamp(self.document, self.transaction, self.sha256)
        return dataclasses.replace(made, ancestors=self.ancestors)


@dataclasses.dataclass(frozen=True)
class Withdrawal:
    """An endpoint taken out before its cluster's next document says so: by whom and why."""

    cluster: str
    ip: str
    port: int
    container: str
    by: str
    why: str


@dataclasses.dataclass(frozen=True, order=True)
class Entry:
    """An endpoint that was added by hand. `cluster`: whose restricted key added it; "" for root's own hands."""

    endpoint: Endpoint
    cluster: str = ""
    by: str = ""


NO_FILE = (0, 0, 0)


def _signature(path: str) -> Tuple[int, int, int]:
    """What a file has another of when it was written since."""
    try:
        found = os.stat(path)
    except OSError:
        return NO_FILE
    return (found.st_ino, found.st_mtime_ns, found.st_size)


class Store:
    def __init__(self, root: str, driver: str) -> None:
        if not DRIVER.match(driver):
            raise BadRequest("no such driver: %r" % driver[:40])
        self.home = os.path.join(root, "var/lib/k4t")
        self.directory = os.path.join(self.home, "registrar", driver)
        self._read: Dict[str, Tuple[Tuple[int, int, int], Holding]] = {}

    def locked(self) -> ContextManager[None]:
        return files.locked(os.path.join(self.home, "host.lock"))

    # --- plain files ---------------------------------------------------------------------------------------

    def read(self, name: str) -> Optional[Dict[str, Any]]:
        """Raises Damaged, Newer."""
        path = os.path.join(self.directory, name)
        value = files.read_json(path)
        if value is None:
            return None
        if not isinstance(value, dict) or not isinstance(value.get("format"), int):
            raise Damaged("%s is damaged: it has no format" % path)
        if value["format"] > FORMAT:
            raise Newer(
                "%s was written by a newer registrar (format %d; this one reads up to %d)"
                % (path, value["format"], FORMAT)
            )
        if value["format"] not in READS:
            raise Damaged("%s has format %d, too old for this registrar" % (path, value["format"]))
        return value

    def write(self, name: str, content: Dict[str, Any]) -> None:
        path = os.path.join(self.directory, name)
        files.make_directory(os.path.dirname(path), 0o700)
        files.write_json(path, dict(content, format=FORMAT))

    # --- the host ------------------------------------------------------------------------------------------

    def id(self) -> str:
        """Random, made when the driver is set up here; "" before. A host that was replaced has another one."""
        return str((self.read("state.json") or {}).get("id", ""))

    def make_id(self) -> None:
        if not self.id():
            self.write("state.json", {"id": os.urandom(8).hex()})

    def config(self) -> Optional[Dict[str, Any]]:
        return self.read("config.json")

    # --- clusters ------------------------------------------------------------------------------------------

    def clusters(self) -> List[str]:
        directory = os.path.join(self.directory, "clusters")
        with contextlib.suppress(FileNotFoundError):
            return sorted(name for name in os.listdir(directory) if CLUSTER.match(name))
        return []

    def epoch(self, cluster: str) -> Epoch:
        fence = self.read(self._file(cluster, "fence"))
        if fence is None:
            return NO_EPOCH
        number, run = fence["epoch"]
        return Epoch(int(number), str(run))

    def live(self, cluster: str) -> Optional[Holding]:
        return self._holding(cluster, "live")

    def staged(self, cluster: str) -> Optional[Holding]:
        """None also for what can't be read: it can't be committed either."""
        with contextlib.suppress(Damaged):
            return self._holding(cluster, "staged")
        return None

    def kept(self, cluster: str) -> Kept:
        """What the protocol goes by. A live document that can't be read counts as none: `live` says why."""
        live = None
        with contextlib.suppress(Damaged):
            live = self.live(cluster)
        staged = self.staged(cluster)
        stamps = [holding.stamp if holding else None for holding in (live, staged)]
        return protocol.settled(Kept(self.epoch(cluster), stamps[0], stamps[1]))

    def persist(self, cluster: str, old: Kept, new: Kept, holding: Optional[Holding] = None) -> None:
        """Bring the files from `old` to `new`, fence first. `holding`: what is newly staged."""
        if new.fence > self.epoch(cluster):
            self.write(self._file(cluster, "fence"), {"epoch": [new.fence.number, new.fence.run]})
        names = (self._file(cluster, "staged"), self._file(cluster, "live"))
        staged, live = (os.path.join(self.directory, name) for name in names)
        if new.live != old.live:
            files.rename(staged, live)
            if names[0] in self._read:  # the same file: it needn't be read again
                self._read[names[1]] = self._read.pop(names[0])
        elif new.staged is None:
            files.remove(staged)
        elif holding is not None:
            self._stage(cluster, dataclasses.replace(holding, ancestors=new.staged.ancestors))

    def _stage(self, cluster: str, holding: Holding) -> None:
        sha256 = holding.sha256 or holding.document.sha256
        content = {
            "transaction": holding.transaction,
            "zone": holding.zone,
            "sha256": sha256,
            "ancestors": holding.ancestors,
            "document": to_json(holding.document),
        }
        name = self._file(cluster, "staged")
        self.write(name, content)
        self._read[name] = (_signature(os.path.join(self.directory, name)), dataclasses.replace(holding, sha256=sha256))

    def _file(self, cluster: str, kind: str) -> str:
        if not CLUSTER.match(cluster):
            raise BadRequest("no cluster id: %r" % cluster[:80])
        return "clusters/%s/%s.json" % (cluster, kind)

    def _holding(self, cluster: str, kind: str) -> Optional[Holding]:
        """Read and checked, once a file: that takes 30 ms with 1,000 endpoints, and several operations want it."""
        name = self._file(cluster, kind)
        signature = _signature(os.path.join(self.directory, name))
        known, holding = self._read.get(name, (NO_FILE, None))
        if holding is not None and known == signature:
            return holding
        self._read.pop(name, None)
        holding = self._checked(cluster, name)
        if holding is not None:
            self._read[name] = (signature, holding)
        return holding

    def _checked(self, cluster: str, name: str) -> Optional[Holding]:
        value = self.read(name)
        if value is None:
            return None
        path = os.path.join(self.directory, name)
        try:
            document = from_json(value.get("document"))
        except BadDocument as error:
            raise Damaged("%s is damaged: %s" % (path, error)) from error
        if document.sha256 != value.get("sha256") or document.cluster != cluster:
            raise Damaged("%s is damaged: its checksum or cluster is wrong" % path)
        ancestors = tuple((int(seq), str(sha256)) for seq, sha256 in value.get("ancestors", ()))
        words = [str(value.get(key, "")) for key in ("transaction", "zone", "sha256")]
        return Holding(document, words[0], words[1], words[2], ancestors)

    # --- by hand -------------------------------------------------------------------------------------------

    def entries(self) -> Tuple[Entry, ...]:
        value = self.read("manual.json") or {"entries": []}
        return tuple(sorted(Entry(Endpoint(**row["endpoint"]), row["cluster"], row["by"]) for row in value["entries"]))

    def manual(self) -> Tuple[Endpoint, ...]:
        return tuple(entry.endpoint for entry in self.entries())

    def set_entries(self, entries: List[Entry]) -> None:
        self.write("manual.json", {"entries": [dataclasses.asdict(entry) for entry in sorted(set(entries))]})

    def withdrawals(self) -> Tuple[Withdrawal, ...]:
        value = self.read("withdrawals.json") or {"withdrawals": []}
        return tuple(Withdrawal(**entry) for entry in value["withdrawals"])

    def set_withdrawals(self, entries: List[Withdrawal]) -> None:
        self.write("withdrawals.json", {"withdrawals": [dataclasses.asdict(entry) for entry in entries]})

    # --- what was rendered ---------------------------------------------------------------------------------

    def problem(self) -> str:
        """Why the vendor would not take the last rendering; "" when it did."""
        return str((self.read("rendered.json") or {}).get("problem", ""))

    def set_problem(self, problem: str) -> None:
        if problem != self.problem():
            self.write("rendered.json", {"problem": problem})
