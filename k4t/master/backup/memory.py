"""What this working copy remembers of its copies: `.k4t/backup/state.json`. It saves round trips, and tells when a
target holds less than was written there; lost or damaged, the targets are asked instead. Never part of a copy.

    {"version":1,"cluster":ID,"sequence":N,"previous":sha256 of the last manifest,"settings":[stat of cluster.xml],
     "periods":{TARGET:seconds},"targets":{TARGET:{"header","confirmed_s","newest","lineage","problem"}}}

Imports nothing heavy: `backup --due` reads this every minute and mostly finds nothing to do.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from k4t.errors import K4tError
from k4t.master.backup.due import Next, is_due, left_s
from k4t.model.value import value

VERSION = 1
MAX_BYTES = 4 << 20


@value
class Remembered:
    """Of one target. `header`: the first line of the newest copy that we left there. `confirmed_s`: since 1970; when it
    was last known to be what the tree is. `newest`, `lineage`: what was seen there then (`target.Seen`). `problem`: why
    the last attempt failed, "" if it didn't; more may be there than is known."""

    header: str = ""
    confirmed_s: float | None = None
    newest: str = ""
    lineage: str = ""
    problem: str = ""


@value
class Memory:
    """`sequence`: the highest that was ever given out; `previous`: the digest of that manifest. `settings`: cluster.xml
    as it was when `periods` were read from it."""

    cluster: str = ""
    sequence: int = 0
    previous: str = ""
    settings: tuple[int, ...] = ()
    periods: Mapping[str, float] = field(default_factory=dict)
    targets: Mapping[str, Remembered] = field(default_factory=dict)

    def of(self, name: str) -> Remembered:
        return self.targets.get(name, Remembered())

    def with_target(self, name: str, one: Remembered) -> Memory:
        return dataclasses.replace(self, targets={**self.targets, name: one})


def directory(db: Path) -> Path:
    return db / ".k4t" / "backup"


def load(db: Path, cluster: str = "") -> Memory:
    """An empty one where there is none that can be read, or (`cluster`) another cluster's."""
    try:
        path = directory(db) / "state.json"
        if path.stat().st_size > MAX_BYTES:
            return Memory(cluster)
        found = _memory(json.loads(path.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Memory(cluster)
    return found if cluster in ("", found.cluster) else Memory(cluster)


def save(db: Path, memory: Memory) -> None:
    """The old file or the new one. Raises K4tError naming the path."""
    from k4t.tree.edit import write_file

    content = {
        "version": VERSION, "cluster": memory.cluster, "sequence": memory.sequence, "previous": memory.previous,
        "settings": list(memory.settings), "periods": dict(memory.periods),
        "targets": {
            name: {key: getattr(one, key) for key in Remembered.__match_args__} for name, one in memory.targets.items()
        },
    }  # fmt: skip
    where = directory(db)
    try:
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise K4tError(f"can't write {where}: {error.strerror}", "copies are made from a tree you may write") from error
    write_file(where / "state.json", json.dumps(content, separators=(",", ":")).encode() + b"\n", 0o600)


def settings_of(db: Path) -> tuple[int, ...]:
    """Tells one cluster.xml from another without reading it; () for none."""
    try:
        status = os.lstat(db / "cluster.xml")
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def nothing_due(db: Path, now_s: float) -> Next | None:
    """The target that comes next, if none is due and cluster.xml is still the one whose periods are remembered. None:
    look closer."""
    memory = load(db)
    if not memory.settings or memory.settings != settings_of(db) or not memory.periods:
        return None
    confirmed = {name: memory.of(name).confirmed_s for name in memory.periods}
    if any(is_due(confirmed[name], every_s, now_s) for name, every_s in memory.periods.items()):
        return None
    left = {name: left_s(confirmed[name], every_s, now_s) for name, every_s in memory.periods.items()}
    first = min(left, key=lambda name: left[name])
    return Next(first, left[first])


def _memory(found: Any) -> Memory:
    if found["version"] != VERSION:
        raise ValueError(found["version"])
    return Memory(
        cluster=str(found["cluster"]),
        sequence=_number(found["sequence"]),
        previous=str(found["previous"]),
        settings=tuple(_number(one) for one in found["settings"]),
        periods={str(name): float(every_s) for name, every_s in found["periods"].items()},
        targets={str(name): _remembered(one) for name, one in found["targets"].items()},
    )


def _remembered(one: Any) -> Remembered:
    confirmed_s = one["confirmed_s"]
    texts = {key: one[key] for key in ("header", "newest", "lineage", "problem")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError(texts)
    return Remembered(confirmed_s=None if confirmed_s is None else float(confirmed_s), **texts)


def _number(found: Any) -> int:
    if type(found) is not int or found < 0:
        raise TypeError(found)
    return found
