"""The loop: a round each interval, never two at once. A round that took longer than its interval makes the ones skipped
that it ran into. The tree is read again when it has changed; one that is invalid leaves the last good one in force."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from k4t.errors import InvalidTree, K4tError
from k4t.model.spec import Tree
from k4t.monitor.round import Round
from k4t.tree.files import FILES_MAX, ignored

if TYPE_CHECKING:
    from k4t.master.fleet import Fleet

MAX_FAILURES = 20
"""Rounds in a row that could not even begin; then it is better to end, and be started anew."""
Signature = tuple[tuple[str, int, int, int], ...]


class Eyes(Protocol):
    """What a loop works with, put together by the command."""

    def read(self) -> Tree:
        """Raises InvalidTree, Usage."""
        ...

    def taken(self, tree: Tree) -> None:
        """This tree holds from now on."""
        ...

    def fleet(self, tree: Tree) -> AbstractContextManager[Fleet]: ...
    def round(self, fleet: Fleet, now_s: float) -> Round: ...
    def told(self, one: Round) -> None: ...
    def note(self, text: str) -> None: ...


def run(eyes: Eyes, db: Path, stop: threading.Event, *, clock: Callable[[], float] = time.monotonic) -> None:
    """Until `stop` is set. Raises what the first reading of the tree raises, and what round after round raised."""
    signature, tree = sign(db), eyes.read()
    eyes.taken(tree)
    began_s, failures, said = clock(), 0, ""
    while not stop.is_set():
        try:
            with eyes.fleet(tree) as fleet:
                eyes.told(eyes.round(fleet, time.time()))
            failures, said = 0, ""
        except K4tError as error:
            failures += 1
            if failures >= MAX_FAILURES:
                raise
            if str(error) != said:
                said = str(error)
                eyes.note(f"this round came to nothing: {said}")
        if stop.wait(max(0.0, next_s(began_s, tree.monitor.interval_s, clock()) - clock())):
            return
        if (now := sign(db)) != signature:
            signature, tree = now, _again(eyes, tree)


def _again(eyes: Eyes, tree: Tree) -> Tree:
    """The tree as it is now, or the last good one; said once each time that it changes."""
    try:
        found = eyes.read()
    except InvalidTree as error:
        first = error.findings[0] if error.findings else error
        eyes.note(f"the tree is invalid, and what it was before still holds: {first} (k4t validate names all)")
        return tree
    except K4tError as error:
        eyes.note(f"the tree can't be read, and what it was before still holds: {error}")
        return tree
    if found.cluster.id != tree.cluster.id:
        eyes.note(f"the tree is of another cluster now ({found.cluster.id}): start the monitor anew for that one")
        return tree
    eyes.note("the tree has changed, and was read again")
    eyes.taken(found)
    return found


def next_s(began_s: float, interval_s: float, now_s: float) -> float:
    """Pure. When the next round is due: on the beat that the first one began; what is past is skipped."""
    return began_s + interval_s * (math.floor((now_s - began_s) / interval_s) + 1)


def sign(db: Path) -> Signature:
    """What differs when a file of the tree does. Cheap: nothing is read."""
    found: list[tuple[str, int, int, int]] = []
    for place, directories, files in os.walk(db):
        directories[:] = sorted(name for name in directories if not ignored(name))
        for name in files:
            if ignored(name) or len(found) >= FILES_MAX:
                continue
            try:
                status = os.lstat(os.path.join(place, name))
            except OSError:
                continue
            found.append((os.path.join(place, name), status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(sorted(found))
