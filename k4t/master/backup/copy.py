"""The story of a backup: one picture of the tree, packed once; every target that is due is confirmed or gets a copy.

    remember → what is due → keys → picture → each target at once: (look → judge →) confirm, or make → store → prune
             → remember

A target whose copy is still what the tree is takes one round trip. Another takes one for the copy and, when old ones
go, one more. It is looked at when this working copy doesn't know what is there, or finds something else than it left.
One that is away or hangs holds up nobody else; it is due again at the next call.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from k4t import failpoints
from k4t.errors import HostUnreachable, K4tError, StepError, Unsafe
from k4t.master.backup import judge, known_parts, memory, retention, targets
from k4t.master.backup.due import is_due
from k4t.master.backup.judge import Trust
from k4t.master.backup.keys import Keys, ensure
from k4t.master.backup.memory import Memory, Remembered
from k4t.master.backup.pack import Picture, picture
from k4t.master.backup.report import Report, Result
from k4t.master.backup.snapshot import Snapshot, confirmation, digest, make, order_of, prepare, tree_mark
from k4t.master.backup.target import ALL, SLOWEST_BYTES_PER_S, Known, Listing, Seen, Target
from k4t.master.backup.targets import TargetSpec
from k4t.master.fleet import Fleet, Host, at_once, begun
from k4t.master.history import WorkingCopy
from k4t.master.planning import serials
from k4t.model.events import Emit, Note
from k4t.model.snapshot import Lineage
from k4t.model.state import Head
from k4t.remote import head as remote_head
from k4t.remote import lock

PATIENCE_S = 30.0
"""How long a target may say nothing before the run ends without it; a transfer gets time for its bytes."""
ATTEMPTS = 3
HEADS = 8
PARTS_AT_ONCE = 2
"""Of large files: each takes some 50 MiB of memory while it is sent."""
Open = Callable[[Fleet, TargetSpec], Target]


def backup(
    db: Path,
    fleet: Fleet,
    *,
    now_s: float,
    due_only: bool = False,
    emit: Emit,
    open_target: Open = targets.open_target,
    patience_s: float = PATIENCE_S,
) -> Report:
    """Copies to all targets, or to those that are due. The caller holds this working copy's backup lock.

    Raises NotCertified when this machine may sign none, InvalidTree and K4tError when no picture can be taken."""
    tree = fleet.tree
    known = _settled(db, memory.load(db, tree.cluster.id), fleet)
    specs = targets.targets_of(tree)
    dead = [Result(one.name, "skipped", f"the node {one.name} is declared dead") for one in specs if one.dead]
    wanted = [
        one for one in specs
        if not one.dead and not (due_only and not is_due(known.of(one.name).confirmed_s, one.every_s, now_s))
    ]  # fmt: skip
    if not wanted:
        return Report(tuple(dead))
    failpoints.reach("backup:begin")
    at = rfc3339(now_s)
    keys, notes = ensure(db, tree, at)
    for note in notes:
        emit(Note(note, warning=True))
    taken = picture(db)
    for note in taken.notes:
        emit(Note(note, warning=True))
    failpoints.reach("backup:picture")
    run = _Run(db, fleet, keys, taken, known, now_s=now_s, open_target=open_target, patience_s=patience_s)
    found = run.serve(wanted)
    by_name = {one.target: one for one in (*found, *dead)}
    return Report(tuple(by_name[one.name] for one in specs if one.name in by_name), run.serial)


@contextmanager
def alone(db: Path, holder: lock.Holder, *, wait_s: float = 0.0) -> Iterator[None]:
    """One backup of a working copy at a time. Raises Locked naming the other one."""
    WorkingCopy(db).prepare()
    held = lock.LocalLock(memory.directory(db) / "lock", f"the backup of {db}").take(holder, wait_s=wait_s)
    try:
        yield
    finally:
        held.release()


def rfc3339(now_s: float) -> str:
    return datetime.fromtimestamp(int(now_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _settled(db: Path, known: Memory, fleet: Fleet) -> Memory:
    """With the periods that the tree has now, and without targets that it no longer names."""
    specs = targets.targets_of(fleet.tree)
    now = dataclasses.replace(
        known,
        settings=memory.settings_of(db),
        periods={one.name: one.every_s for one in specs if not one.dead},
        targets={one.name: known.of(one.name) for one in specs if one.name in known.targets},
    )
    if now != known:
        memory.save(db, now)
    return now


class _Moved(Exception):
    """Something else is on the target than was seen there."""


class _Run:
    """One backup of one picture. What it gives out (sequence numbers) and what it learns is remembered at once."""

    def __init__(
        self, db: Path, fleet: Fleet, keys: Keys, taken: Picture, known: Memory,
        *, now_s: float, open_target: Open, patience_s: float,
    ) -> None:  # fmt: skip
        self._db, self._fleet, self._keys = db, fleet, keys
        self._picture = dataclasses.replace(taken, large=known_parts.recall(db, keys, taken.large))
        self._now_s, self._at, self._open, self._patience_s = now_s, rfc3339(now_s), open_target, patience_s
        self._memory = known
        self._trust = Trust(keys.cluster, keys.recovery.key)
        self._mark = tree_mark(keys, taken.archive)
        self._lineage, self.serial = taken.lineage, taken.serial
        self._snapshots: dict[bool, tuple[Snapshot, bytes]] = {}
        self._guard = threading.Lock()
        self._sealing = threading.Semaphore(PARTS_AT_ONCE)
        self._deadlines: dict[str, float] = {}

    def serve(self, specs: Sequence[TargetSpec]) -> list[Result]:
        for encrypted in {one.encrypted for one in specs}:  # before the time of any target runs
            prepare(self._keys, self._picture.large, encrypted=encrypted)
        known_parts.save(self._db, self._keys, self._picture.large)
        for spec in specs:
            self._wait_for(spec, 0)
        futures = begun(self._served, specs)
        return [self._awaited(spec, future) for spec, future in zip(specs, futures, strict=True)]

    def _wait_for(self, spec: TargetSpec, size_bytes: int) -> None:
        self._deadlines[spec.name] = time.monotonic() + self._patience_s + size_bytes / SLOWEST_BYTES_PER_S

    def _awaited(self, spec: TargetSpec, future: Future[Result]) -> Result:
        while (left_s := self._deadlines[spec.name] - time.monotonic()) > 0:
            try:
                return future.result(timeout=left_s)
            except TimeoutError:
                continue
        words = f"it did not answer within {self._patience_s:g} s"
        return self._failed(spec, HostUnreachable(words, host=spec.name))

    # --- one target ---------------------------------------------------------------------------------------------

    def _served(self, spec: TargetSpec) -> Result:
        try:
            return self._copied(spec, self._open(self._fleet, spec))
        except K4tError as error:
            return self._failed(spec, error)

    def _copied(self, spec: TargetSpec, target: Target) -> Result:
        """Begins with what is remembered; looks when there is nothing, or when something else is found there."""
        before = self._memory.of(spec.name)
        last, seen = self._left_there(spec), Seen(before.newest, before.lineage)
        if before.problem:
            last = None
        remarks: tuple[str, ...] = ()
        looked, denied = last is not None, ("", Seen())
        for _ in range(ATTEMPTS):
            if not looked:
                last, seen, remarks = self._look(spec, target)
                looked = True
            altered = last is not None and (last.name, seen) == denied
            if altered:
                remarks += (f"{denied[0]} is not what was written there: altered, or damaged",)
            try:
                if last is not None and self._same(last, spec) and not altered:
                    return self._confirmed(spec, target, last, seen, remarks)
                return self._stored(spec, target, last, seen, remarks)
            except _Moved:
                denied = last.name if last else "", seen
                looked = False
        raise StepError(
            f"{target.directory} changes while it is written to ({ATTEMPTS} attempts)",
            "does another master copy to it?", host=spec.name,
        )  # fmt: skip

    def _left_there(self, spec: TargetSpec) -> Known | None:
        return judge.remembered(self._memory.of(spec.name).header, self._trust)

    def _same(self, last: Known, spec: TargetSpec) -> bool:
        """Whether that copy is what this tree is now, in the way it is wanted there."""
        one = last.manifest
        return one.tree == self._mark and one.encrypted == spec.encrypted and one.generation == self._generation

    @property
    def _generation(self) -> int:
        return self._lineage.generation if self._lineage else 1

    def _look(self, spec: TargetSpec, target: Target) -> tuple[Known | None, Seen, tuple[str, ...]]:
        listing = target.look(judge.HEADERS)
        found = judge.judge(listing, self._trust)
        if found.newest is None and len(listing.headers) < len(listing.files):
            listing = target.look(ALL)
            found = judge.judge(listing, self._trust)
        self._refuse(spec, target, listing, found.newest)
        remarks = [judge.rolled_back(self._left_there(spec), found.newest)]
        remarks += [f"{name} there is no copy of ours: {why}" for name, why in found.refused[:3]]
        return found.newest, listing.seen, tuple(one for one in remarks if one)

    def _refuse(self, spec: TargetSpec, target: Target, listing: Listing, newest: Known | None) -> None:
        """Raises Unsafe where this working copy is no longer the master, or not the newest tree."""
        manifest = newest.manifest if newest else None
        if why := judge.replaced(self._lineage, listing.master, manifest):
            raise Unsafe(
                why, "leave copies to the new master; `k4t apply --allow rewind` takes it back", host=spec.name
            )
        if not judge.behind(self._lineage, self.serial, listing.master, manifest):
            return
        self._catch_up(target)
        if why := judge.behind(self._lineage, self.serial, listing.master, manifest):
            raise Unsafe(why, "get the newest tree, then apply: copies go on from there", host=spec.name)

    def _catch_up(self, target: Target) -> None:
        """A tree that is what was applied last, from elsewhere (a clone, a pull), is at the head's serial. A host that
        is none of the tree's has no head, or the one of a time when it was: then some that are say it."""
        head = target.head()
        if head is None or head.tree != self._fleet.tree.sha256:
            head = serials.newest([*self._heads(), *([head] if head else [])])
        if head is None or head.tree != self._fleet.tree.sha256:
            return
        with self._guard:
            if (head.serial, head.lineage) != (self.serial, self._lineage):
                self.serial, self._lineage = head.serial, head.lineage or self._lineage
                self._snapshots.clear()

    def _heads(self) -> list[Head]:
        def ask(host: Host) -> Head | None:
            with suppress(K4tError):
                return remote_head.read(self._fleet.connection(host), self._keys.cluster)
            return None

        return [head for head in at_once(ask, islice(self._fleet.hosts.values(), HEADS)) if head is not None]

    def _confirmed(self, spec: TargetSpec, target: Target, last: Known, seen: Seen, remarks: tuple[str, ...]) -> Result:
        statement = confirmation(self._keys, spec.name, last.manifest, self._at)
        self._wait_for(spec, last.size_bytes)
        failpoints.reach("backup:confirm")
        if not target.confirm(last, statement, seen):
            raise _Moved
        failpoints.reach("backup:confirmed")
        self._remember(spec, last, seen)
        return Result(spec.name, "confirmed", size_bytes=last.size_bytes, remarks=remarks)

    def _stored(
        self, spec: TargetSpec, target: Target, last: Known | None, seen: Seen, remarks: tuple[str, ...]
    ) -> Result:
        made, data = self._snapshot(last, encrypted=spec.encrypted)
        self._send_parts(spec, target, made)
        self._wait_for(spec, made.size_bytes)
        failpoints.reach("backup:store")
        names = target.store(made.name, data, seen)
        if names is None:
            raise _Moved
        failpoints.reach("backup:stored")
        self._remember(spec, Known(made.header, made.manifest), Seen(max(names), seen.lineage))
        removed, remark = self._prune(spec, target, names, made.name)
        more = (*remarks, remark) if remark else remarks
        return Result(
            spec.name, "copied", size_bytes=made.size_bytes, remarks=more, count=len(names) - removed
        )  # fmt: skip

    def _send_parts(self, spec: TargetSpec, target: Target, made: Snapshot) -> None:
        """What the target lacks of large files, before the copy that needs it."""
        if not made.parts:
            return
        self._wait_for(spec, sum(one.size_bytes for one in made.parts))
        for name in target.lacking(made.parts):
            failpoints.reach("backup:part")
            with self._sealing:
                target.store_part(name, self._part(made, name))
            failpoints.reach("backup:part-stored")

    def _part(self, made: Snapshot, name: str) -> bytes:
        try:
            return made.part(name)
        except K4tError:
            known_parts.save(self._db, self._keys, self._picture.large)  # without what was wrong
            raise

    def _prune(self, spec: TargetSpec, target: Target, names: Sequence[str], good: str) -> tuple[int, str]:
        """The new copy is there by now; that old ones stay is no failure."""
        copies = [
            retention.Kept(name, order, name.rsplit("-", 1)[1][:8]) for name in names if (order := order_of(name))
        ]
        old = retention.superfluous(copies, keep=spec.keep, keep_daily=spec.keep_daily, good=good)
        if not old:
            return 0, ""
        failpoints.reach("backup:prune")
        try:
            target.remove(old)
        except K4tError as error:
            return 0, f"old copies were not removed: {error.words}"
        failpoints.reach("backup:pruned")
        return len(old), ""

    # --- what they share ----------------------------------------------------------------------------------------

    def _snapshot(self, last: Known | None, *, encrypted: bool) -> tuple[Snapshot, bytes]:
        """And its bytes: made once for all targets; anew only for one that holds a higher sequence than was known."""
        above = last.manifest if last else None
        with self._guard:
            before = self._snapshots.get(encrypted)
            if before is not None and (above is None or before[0].manifest.order > above.order):
                return before
            sequence = max(self._memory.sequence, above.sequence if above else 0) + 1
            previous = self._memory.previous or (digest(above) if above else "")
            made = make(
                self._picture.archive, self._keys, lineage=self._lineage or Lineage(), serial=self.serial,
                sequence=sequence, previous=previous, time=self._at, encrypted=encrypted, large=self._picture.large,
            )  # fmt: skip
            self._save(dataclasses.replace(self._memory, sequence=sequence, previous=digest(made.manifest)))
            failpoints.reach("backup:sequence")
            self._snapshots[encrypted] = made, made.data
            return self._snapshots[encrypted]

    def _remember(self, spec: TargetSpec, one: Known, seen: Seen) -> None:
        found = Remembered(one.header.decode(), self._now_s, seen.newest, seen.lineage)
        with self._guard:
            known = self._memory.with_target(spec.name, found)
            if one.manifest.sequence > known.sequence:  # what was remembered got lost
                known = dataclasses.replace(known, sequence=one.manifest.sequence, previous=digest(one.manifest))
            self._save(known)
        failpoints.reach("backup:remembered")

    def _failed(self, spec: TargetSpec, error: K4tError) -> Result:
        """It is asked what is there when it answers again: something may have been written, and its answer lost."""
        with self._guard:
            before = self._memory.of(spec.name)
            after = dataclasses.replace(before, problem=error.words)
            if before != after:
                with suppress(K4tError):  # the target's own trouble is told
                    self._save(self._memory.with_target(spec.name, after))
        return Result(spec.name, "failed", error.words, status=error.exit_status, unreachable=_away(error))

    def _save(self, new: Memory) -> None:
        """Under the guard."""
        memory.save(self._db, new)
        self._memory = new


def _away(error: K4tError) -> bool:
    return error.exit_status in (69, 77)
