"""The redo log, `.k4t/redo.log`: what was begun, what was decided, what is done. Append-only, one JSON record a line.

Every record carries its number, its own sha256 and the sha256 of the one before. So a torn tail (the last record was
not whole when the power went) is told from damage: what can't be read *before* a good record is refused, with file and
byte.

    {"number":1, …, "kind":"log", "format":1, "incarnation":random, "cluster":id, "at"}
    {"number":2, …, "kind":"begin", "transaction", "on":"gateway/default", "epoch":[number,run], "seq",
                    "document":sha256, "parent", "digest", "members", "who", "at", "message", "add", "remove"}
    {"number":3, …, "kind":"commit", "transaction", "members", "owed", "at"}         the decision
    {"number":4, …, "kind":"end", "transaction", "result":"done|aborted|superseded", "members", "owed", "at"}

begin and commit are on disk (fsync) before anything is sent because of them. A failed fsync is never retried: the
kernel may have dropped the pages, and say yes the second time. The log then takes nothing more in this run.

It holds no secret and no whole document. It speaks only for the working copy that wrote it: the incarnation also stands
in a file outside the tree, with the path and inode of `.k4t/`. A copy, a clone or a restored tree is told by that, and
goes by what is live instead. An old log that is put back into the very same directory is not told; it is harmless:
what it would roll forward is behind the fences that newer runs have raised.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from k4t.errors import LogRefused
from k4t.master.publication.transaction import Append, Open
from k4t.model.value import value
from k4t.registrar.document import Epoch
from k4t.registrar.protocol import Stamp

FORMAT = 1
NAME = "redo.log"
FORMER = "redo.log.old"
COMPACT_BYTES = 256 * 1024
KEPT_TRANSACTIONS = 100
MARK = re.compile(rb'\{"number":')
REMEDY = "nothing was sent. Move it away: the next run fences, reads what is live, and goes on from there"


@value
class Transaction:
    """As the log tells it. `state`: begun | decided | done | aborted | superseded. `on`: “gateway/default”. `add` and
    `remove` are sentences, the first few of each. `owed`: members that were to get it later. `at`: RFC 3339 UTC."""

    stamp: Stamp
    on: str
    members: tuple[str, ...]
    digest: str = ""
    state: str = "begun"
    owed: tuple[str, ...] = ()
    who: str = ""
    at: str = ""
    ended: str = ""
    message: str = ""
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return self.stamp.transaction

    @property
    def finished(self) -> bool:
        return self.state not in ("begun", "decided")


@value
class Contents:
    """What a log holds. `whole_bytes`: up to the end of the last whole record; `torn_bytes`: what follows it."""

    incarnation: str = ""
    transactions: tuple[Transaction, ...] = ()
    numbered: int = 0
    last_sha256: str = ""
    whole_bytes: int = 0
    torn_bytes: int = 0


# --- what stands in it -------------------------------------------------------------------------------------------


def encoded(number: int, previous: str, fields: Mapping[str, Any]) -> tuple[bytes, str]:
    """One line, and its sha256: of the record without that field."""
    record = {"number": number, "sha256": "", "previous": previous, **fields}
    record["sha256"] = _sha256(record)
    return _json(record).encode() + b"\n", str(record["sha256"])


def parse(data: bytes, path: str = NAME) -> Contents:
    """What the whole records say. Raises LogRefused for one that is damaged before a good one, or of a newer format."""
    place, number, last, found = 0, 0, "", Contents()
    transactions: dict[str, Transaction] = {}
    while (record := _record(data, place)) is not None:
        if (record["number"], record["previous"]) != (number + 1, last):
            break
        try:
            found = _noted(found, transactions, record, path)
        except (KeyError, ValueError, TypeError) as error:
            raise LogRefused(f"{path}: record {number + 1} (byte {place}) is none of k4t's: {error}", REMEDY) from error
        number, last = number + 1, str(record["sha256"])
        place = data.index(b"\n", place) + 1
    # The first record is put there whole, by a rename: it can't be torn.
    damaged = place == 0 and b"\n" in data
    for mark in MARK.finditer(data, place):
        damaged = damaged or _record(data, mark.start()) is not None
    if damaged:
        raise LogRefused(f"{path} is damaged at byte {place} (record {number + 1})", REMEDY)
    return replace(
        found, transactions=tuple(transactions.values()), numbered=number, last_sha256=last,
        whole_bytes=place, torn_bytes=len(data) - place,
    )  # fmt: skip


def _record(data: bytes, place: int) -> dict[str, Any] | None:
    """The record that begins there, if it is whole and its own sha256 is right."""
    end = data.find(b"\n", place)
    if end < 0 or not data.startswith(b'{"number":', place):
        return None
    try:
        record = json.loads(data[place:end])
        right = record["sha256"] == _sha256({**record, "sha256": ""})
        return record if right and _json(record).encode() == data[place:end] else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _noted(found: Contents, transactions: dict[str, Transaction], record: Mapping[str, Any], path: str) -> Contents:
    kind = record["kind"]
    if kind == "log":
        if record["format"] > FORMAT:
            raise LogRefused(f"{path} is of format {record['format']}, this k4t reads up to {FORMAT}", "use that k4t")
        return replace(found, incarnation=str(record["incarnation"]))
    id = str(record["transaction"])
    if kind == "begin":
        transactions[id] = _begun(record)
    elif id in transactions:
        state = "decided" if kind == "commit" else str(record["result"])
        members = tuple(record["members"]) if kind == "commit" else transactions[id].members
        transactions[id] = replace(
            transactions[id], state=state, members=members, owed=tuple(record["owed"]), ended=str(record["at"])
        )
    return found


def _begun(record: Mapping[str, Any]) -> Transaction:
    number, run = record["epoch"]
    stamp = Stamp(record["transaction"], Epoch(number, run), record["seq"], record["document"], record["parent"])
    return Transaction(
        stamp, str(record["on"]), tuple(record["members"]), digest=str(record["digest"]), who=str(record["who"]),
        at=str(record["at"]), message=str(record["message"]), add=tuple(record["add"]), remove=tuple(record["remove"]),
    )  # fmt: skip


def _rewritten(contents: Contents, cluster: str, at: str) -> bytes:
    """A log with what is still worth knowing: what is open, and the last of what isn't."""
    kept = set(contents.transactions[-KEPT_TRANSACTIONS:])
    transactions = [one for one in contents.transactions if one in kept or not one.finished]
    data, number, last = b"", 1, ""
    for fields in [_head(contents.incarnation, cluster, at), *(f for one in transactions for f in _records_of(one))]:
        line, last = encoded(number, last, fields)
        data, number = data + line, number + 1
    return data


def _head(incarnation: str, cluster: str, at: str) -> dict[str, Any]:
    return {"kind": "log", "format": FORMAT, "incarnation": incarnation, "cluster": cluster, "at": at}


def _records_of(one: Transaction) -> Iterable[dict[str, Any]]:
    yield _begin(one)
    if one.state not in {"begun", "aborted"}:
        yield _closing("commit", one)
    if one.finished:
        yield {**_closing("end", one), "result": one.state}


def _begin(one: Transaction) -> dict[str, Any]:
    stamp = one.stamp
    return {
        "kind": "begin", "transaction": stamp.transaction, "on": one.on, "epoch": [stamp.epoch.number, stamp.epoch.run],
        "seq": stamp.seq, "document": stamp.sha256, "parent": stamp.parent, "digest": one.digest,
        "members": one.members, "who": one.who, "at": one.at, "message": one.message,
        "add": one.add, "remove": one.remove,
    }  # fmt: skip


def _closing(kind: str, one: Transaction) -> dict[str, Any]:
    return {"kind": kind, "transaction": one.id, "members": one.members, "owed": one.owed, "at": one.ended}


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":"))


def _sha256(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(_json(record).encode()).hexdigest()


def unfinished(contents: Contents) -> tuple[Transaction, ...]:
    return tuple(one for one in contents.transactions if not one.finished)


# --- the file ----------------------------------------------------------------------------------------------------


def read(directory: Path) -> Contents:
    """The log of this working copy, as it is; nothing when there is none. Raises LogRefused."""
    path = directory / NAME
    try:
        return parse(path.read_bytes(), str(path))
    except FileNotFoundError:
        return Contents()
    except OSError as error:
        raise LogRefused(f"can't read {path}: {error.strerror}", "nothing was sent") from error


def is_ours(directory: Path, incarnation: str, outside: Path) -> bool:
    """Whether this very working copy wrote the log of that incarnation."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((outside / f"{incarnation}.json").read_text())
        return bool(incarnation) and found == _place(directory)
    return False


def _place(directory: Path) -> dict[str, Any]:
    return {"path": str(directory.resolve()), "inode": directory.stat().st_ino}


@value
class LogPlace:
    """Where a working copy's log is, and where its incarnation is remembered (not in the tree). `now`: RFC 3339."""

    directory: Path
    cluster: str
    outside: Path
    now: Callable[[], str]

    def open(self) -> RedoLog:
        """Under the tree's lock alone. Raises LogRefused."""
        return RedoLog(self.directory, self.cluster, self.outside, self.now)

    def read(self) -> Contents:
        """Without a lock, and without touching it. Raises LogRefused."""
        return read(self.directory)

    def is_ours(self, contents: Contents) -> bool:
        return is_ours(self.directory, contents.incarnation, self.outside)

    def unfinished(self) -> tuple[Transaction, ...]:
        """What the next run that publishes will finish. Raises LogRefused."""
        contents = self.read()
        return unfinished(contents) if self.is_ours(contents) else ()


class RedoLog:
    """Open for writing, under the tree's lock. One for all groups; threads may append at the same time."""

    def __init__(self, directory: Path, cluster: str, outside: Path, now: Callable[[], str]) -> None:
        """`outside`: where incarnations are remembered, not in the tree. Raises LogRefused; nothing is changed then.

        `notes`: what an operator should hear about it. A log that isn't ours is set aside.
        """
        self.path = directory / NAME
        self.notes: list[str] = []
        self._now = now
        self._guard = threading.Lock()
        self._failed = ""
        contents = read(directory)
        self._check_format_of(contents)
        try:
            contents = self._taken_over(contents, cluster, outside)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise LogRefused(f"can't write {self.path}: {error.strerror}", "nothing was sent") from error
        self._number, self._last, self._size_bytes = contents.numbered, contents.last_sha256, contents.whole_bytes
        self._transactions = {one.id: one for one in contents.transactions}

    def standing(self, on: str) -> tuple[int, Open | None]:
        """The highest epoch number that it knows of a group, and what is open there."""
        of_it = [one for one in self._transactions.values() if one.on == on]
        highest = max((one.stamp.epoch.number for one in of_it), default=0)
        open_ones = [Open(one.stamp, one.members, one.state == "decided") for one in of_it if not one.finished]
        return highest, open_ones[-1] if open_ones else None

    def unfinished(self) -> tuple[Transaction, ...]:
        return tuple(one for one in self._transactions.values() if not one.finished)

    def state_of(self, id: str) -> str:
        return self._transactions[id].state

    def forget(self, one: Transaction) -> None:
        """Close a transaction that nobody can be told of any more. Raises LogRefused."""
        self.append(Append("end", one.stamp, (), "superseded"))

    def append(self, action: Append, about: Transaction | None = None) -> None:
        """Write what the coordinator wants written. `about`: what a begin tells of its transaction. Raises LogRefused:
        the record may stand there or not, and nothing more is taken in this run."""
        with self._guard:
            known = about or self._transactions.get(action.stamp.transaction)
            if known is None:
                raise LogRefused(f"{self.path} knows nothing of transaction {action.stamp.transaction}", REMEDY)
            one = replace(known, stamp=action.stamp, owed=action.owed)
            if action.record == "begin":
                one = replace(one, at=self._now(), members=action.members)
                fields = _begin(one)
            elif action.record == "commit":
                one = replace(one, state="decided", members=action.members, ended=self._now())
                fields = _closing("commit", one)
            else:
                one = replace(one, state=action.closed, ended=self._now())
                fields = {**_closing("end", one), "result": one.state}
            # Without its end a transaction is rolled forward once more, which changes nothing: that need not wait.
            self._write(fields, sync=action.record != "end")
            self._transactions[one.id] = one

    def close(self) -> None:
        with self._guard, contextlib.suppress(OSError):
            os.close(self._descriptor)
            self._failed = self._failed or "it was closed"

    def _write(self, fields: Mapping[str, Any], *, sync: bool) -> None:
        if self._failed:
            raise LogRefused(f"can't write {self.path}: {self._failed}", "nothing more is published in this run")
        line, sha256 = encoded(self._number + 1, self._last, fields)
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError(0, "the record could not be written whole")  # noqa: TRY301 - one place for all failures
            if sync:
                os.fsync(self._descriptor)
        except OSError as error:
            self._failed = error.strerror or str(error)
            with contextlib.suppress(OSError):  # so that it isn't read as written, if the kernel still listens
                os.ftruncate(self._descriptor, self._size_bytes)
            raise LogRefused(
                f"can't write {self.path}: {self._failed}", "nothing more is published in this run; see to the disk"
            ) from error
        self._number, self._last, self._size_bytes = self._number + 1, sha256, self._size_bytes + len(line)

    def _check_format_of(self, contents: Contents) -> None:
        if contents.numbered and not contents.incarnation:
            raise LogRefused(f"{self.path} has no first record", REMEDY)

    def _taken_over(self, contents: Contents, cluster: str, outside: Path) -> Contents:
        """Bring the file in order: the torn tail cut, one that isn't ours set aside, a new one begun."""
        directory = self.path.parent
        if contents.incarnation and not is_ours(directory, contents.incarnation, outside):
            if left := len(unfinished(contents)):
                self.notes.append(
                    f"{self.path} is of another working copy: its {left} unfinished transaction(s) are not taken up; "
                    f"what is live counts"
                )
            os.replace(self.path, directory / FORMER)
            contents = Contents()
        if not contents.incarnation:
            return self._begun_anew(cluster, outside)
        if contents.torn_bytes:
            self.notes.append(f"{self.path}: {contents.torn_bytes} bytes of a torn last record were cut")
            self._cut(contents.whole_bytes)
        if contents.whole_bytes > COMPACT_BYTES:
            return self._replaced(_rewritten(contents, cluster, self._now()))
        return contents

    def _begun_anew(self, cluster: str, outside: Path) -> Contents:
        incarnation = secrets.token_hex(16)
        try:
            _remember(self.path.parent, incarnation, outside)
        except OSError as error:
            self.notes.append(
                f"can't write {outside}: {error.strerror}; a run that is killed is not rolled forward by the next one, "
                f"which goes by what is live"
            )
        line, _ = encoded(1, "", _head(incarnation, cluster, self._now()))
        return self._replaced(line)

    def _cut(self, size_bytes: int) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(descriptor, size_bytes)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _replaced(self, data: bytes) -> Contents:
        """The whole file anew: temporary one, fsync, rename, fsync of the directory."""
        _put(self.path, data)
        return parse(data, str(self.path))


def _remember(directory: Path, incarnation: str, outside: Path) -> None:
    """Note outside the tree which copy writes this log; what is noted of earlier logs of this copy is forgotten."""
    outside.mkdir(mode=0o700, parents=True, exist_ok=True)
    mine = _place(directory)
    for other in sorted(outside.glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            if json.loads(other.read_text()).get("path") == mine["path"]:
                other.unlink()
    _put(outside / f"{incarnation}.json", json.dumps(mine).encode())


def _put(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
