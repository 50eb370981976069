"""What `monitor run` and `monitor check --act` share: who acts, who tells, what is remembered between rounds."""

from __future__ import annotations

import os
import socket
import time
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from k4t.commands.monitor_hands import Hands
from k4t.errors import Locked

if TYPE_CHECKING:
    from k4t.model.spec import Tree
    from k4t.monitor.acting.action import Outcome
    from k4t.monitor.alerts.teller import Teller
    from k4t.monitor.check import Looked
    from k4t.monitor.round import Course
    from k4t.options import Globals

WAIT_S = 60.0
"""A loop that starts waits so long for a check from cron that acts."""
CLOSE_S = 2.0
TELL_S = 40.0
"""So long a check from cron waits for those who are told; what they have not taken by then the next one tells."""
FINISH_S = 7200.0
"""So long a check from cron waits for the master's work, where that is done on this machine."""


def alone(cluster_id: str, *, wait_s: float = 0.0) -> AbstractContextManager[object]:
    """Of several monitors of a cluster on this machine, one acts. Raises Locked."""
    from k4t.monitor import statefile
    from k4t.remote.lock import Holder, LocalLock
    from k4t.wiring import now, who

    holder = Holder(who(), socket.gethostname(), os.getpid(), now(), "monitor", "")
    file = statefile.path(cluster_id).with_name(f"{cluster_id}.lock")
    return LocalLock(file, f"acting for cluster {cluster_id}").take(holder, wait_s=wait_s)


def one_round(given: Globals) -> tuple[Looked, tuple[Outcome, ...], tuple[str, ...]]:
    """What `monitor run` does each interval, once and to its end: what was seen, what was done, what is to be said."""
    from k4t import wiring
    from k4t.monitor.round import course

    tree = wiring.read(given.db)
    going = course(tree.cluster.id)
    log = wiring.redo_log(given.db, tree)
    with ExitStack() as held:
        notes, actors = list[str](), None
        try:
            held.enter_context(alone(tree.cluster.id))
            actors = Actors(given, going, tree)
            held.callback(actors.close)
        except Locked as error:
            notes.append(f"looked, and did nothing: {error.message}")
        with wiring.watched(tree, given.db) as fleet:
            found = going.round(fleet, log, time.time())
        outcomes = found.outcomes
        if actors is not None:
            late = actors.acting.finish(time.time(), FINISH_S)
            notes += going.done(late)
            outcomes += late
            if late and going.tell is not None:
                notes += going.tell.round(found.looked, late, time.time())
            if going.tell is not None:
                notes += going.tell.close(TELL_S)
    return found.looked, outcomes, (*found.notes, *notes)


class Actors:
    """Whoever acts and tells in a course, by the tree that holds now."""

    def __init__(self, given: Globals, course: Course, tree: Tree) -> None:
        from k4t.commands.intents import new_id
        from k4t.monitor.acting import acts, wants
        from k4t.monitor.acting.act import Acting, Executor

        self._given = given
        self._course = course
        self._tree = tree
        self.hands = Hands(given.db, tree.cluster.id)
        self.hands.taken(tree)
        wanting = (wants.Scaling(tree.cluster.id), wants.Spares(tree.cluster.id))
        self.acting = Acting(acts.path(tree.cluster.id), Executor(self.hands), new_id, wanting)
        course.acts, course.tell = self.acting, self._teller(tree)

    def taken(self, tree: Tree) -> None:
        """Another tree holds from now on."""
        self.hands.taken(tree)
        if (tree.monitor.alerts, tree.secrets) != (self._tree.monitor.alerts, self._tree.secrets):
            if self._course.tell is not None:
                self._course.tell.close(CLOSE_S)
            self._course.tell = self._teller(tree)
        self._tree = tree

    def close(self) -> None:
        self.hands.close()
        if self._course.tell is not None:
            self._course.tell.close(CLOSE_S)

    def _teller(self, tree: Tree) -> Teller | None:
        if not tree.monitor.alerts:
            return None
        from k4t.monitor.alerts.teller import Teller, path
        from k4t.tree.secrets import value

        db = self._given.db
        return Teller(
            path(tree.cluster.id), tree.cluster.name, tree.monitor.alerts, lambda name: value(tree.secrets[name], db)
        )
