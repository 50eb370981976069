"""What the monitor acts by: its own withdrawals, and the master, which is this machine or another one."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from k4t.errors import Locked
from k4t.monitor.acting.act import Handed, Handing, Order

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from k4t.command import Completed
    from k4t.master.fleet import Fleet
    from k4t.master.power.intents import Intent
    from k4t.model.spec import Tree
    from k4t.monitor.acting.action import Action
    from k4t.monitor.check import Looked

ROUSE_S = 300.0
"""Queueing on hosts, and the master's power command, are bounded by less."""
APPLY_S = 7200.0


class Hands:
    """Of one tree. Connections are its own, so that none outlasts what it was opened for."""

    def __init__(self, db: Path, cluster_id: str) -> None:
        self._db = db.absolute()
        self._cluster_id = cluster_id
        self._here = False
        self._closing = threading.Event()
        self._over = threading.Event()
        self._over.set()

    @property
    def longest_s(self) -> float:
        return APPLY_S + 60.0 if self._here else ROUSE_S

    def taken(self, tree: Tree) -> None:
        """Whether this machine is the master stands in the tree."""
        from k4t.monitor.acting import rouse

        self._here = rouse.is_here(tree)

    def withdraw(self, looked: Looked, action: Action) -> str:
        from k4t.monitor.acting import withdraw

        with self._fleet(looked) as fleet:
            return withdraw.withdraw(fleet, looked, action.name, action.cause)

    def give_back(self, looked: Looked, action: Action) -> str:
        from k4t.monitor.acting import withdraw

        with self._fleet(looked) as fleet:
            return withdraw.give_back(fleet, looked, action.name)

    def pending(self) -> frozenset[str]:
        """Here: of what lies in this working copy, what a monitor queued; a person's waits for `k4t wake`."""
        from k4t.commands.perform import MONITOR
        from k4t.master.power import queue
        from k4t.monitor.acting import rouse

        if not self._here:
            return frozenset(rouse.load(rouse.path(self._cluster_id)).queued)
        return frozenset(id for id, data in queue.files_here(self._db).items() if MONITOR.encode() in data)

    def hand_over(self, looked: Looked, orders: Sequence[Order]) -> Handing:
        from k4t.monitor.acting import rouse

        intents = [_intent(order, self._cluster_id) for order in orders]
        if self._here:
            rouse.queue_here(self._db, intents)
            return self._done_here(intents)
        with self._fleet(looked) as fleet:
            if not intents:
                again = rouse.again(fleet, time.time(), looked.facts)
                return Handing(note=(again.problem or again.words) if again else "")
            found = rouse.rouse(fleet, intents, time.time(), looked.facts)
        on = f"queued on {', '.join(found.on)}"
        if found.problem:
            words = f"{on}, but the master was not woken: {found.problem}"
            return Handing(tuple(Handed("failed", words, one.id) for one in intents))
        return Handing(tuple(Handed("queued", f"{on}; {found.words}", one.id) for one in intents))

    def close(self) -> None:
        """What the master does here is asked to end, and ends within seconds; the next one goes on with it."""
        self._closing.set()
        self._over.wait(10.0)

    def _fleet(self, looked: Looked) -> AbstractContextManager[Fleet]:
        from k4t import wiring

        return wiring.watched(looked.tree, self._db)

    def _done_here(self, intents: Sequence[Intent]) -> Handing:
        """By a process of its own, as `k4t wake` does it: this one goes on looking, whatever that one does."""
        from k4t import command
        from k4t.master.power.memory import DONE, Memory

        before = self.pending()
        self._over.clear()
        try:
            argv = [sys.executable, "-m", "k4t.cli", "--db", os.fspath(self._db), "monitor", "act"]
            done = command.fed(
                argv, b"", env=os.environ, directory=Path.cwd(), timeout_s=APPLY_S, is_over=self._closing.is_set
            )
        finally:
            self._over.set()
        entries, left, results = Memory(self._db).entries(), self.pending(), []
        for one in intents:
            entry = entries.get(one.id)
            if entry is not None and entry.result == DONE:
                results.append(Handed("done", f"intent {one.id}", one.id))
            elif one.id in left and done.exit_status == Locked.exit_status:
                results.append(Handed("queued", f"another one is at work here: {_last(done)}", one.id))
            else:
                results.append(Handed("failed", (entry.error if entry else "") or _last(done)))
        named = {one.id for one in intents}
        others = [
            f"{entry.action} {entry.result}{f': {entry.error}' if entry.error else ''}"
            for id, entry in entries.items() if id in before - left - named
        ]  # fmt: skip
        failed = [] if intents or others or not done.exit_status else [_last(done)]
        return Handing(tuple(results), "; ".join([*(f"queued before: {one}" for one in others), *failed]))


def _intent(order: Order, cluster_id: str) -> Intent:
    from k4t.commands.perform import MONITOR
    from k4t.master.power import intents
    from k4t.wiring import who

    action = order.action
    return intents.made(
        action.verb, id=order.id, cluster=cluster_id, who=f"{who()} {MONITOR}", at=datetime.now(UTC), name=action.name,
        replicas=action.replicas, replica=action.replica,
        note="".join(one if one.isprintable() else " " for one in action.cause),
    )  # fmt: skip


def _last(done: Completed) -> str:
    """What it said last, of what is kept."""
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"exit status {done.exit_status}"
