"""Copies around other work: `k4t backup` with its lock, and the copies that follow an apply."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from k4t.errors import K4tError
from k4t.master.backup import copy
from k4t.master.backup.report import Report, Result
from k4t.master.backup.targets import targets_of
from k4t.remote import lock

if TYPE_CHECKING:
    from k4t.master.run import Run

AFTER_APPLY_WAIT_S = 60.0
"""A backup that the schedule began has the tree as it was before; it ends within that time."""


def backup(run: Run, *, now_s: float, due_only: bool = False, wait_s: float = 0.0) -> Report:
    """Raises Locked when another backup of this working copy runs, and what `copy.backup` raises."""
    holder = lock.Holder(run.who, socket.gethostname(), os.getpid(), run.at, "backup", "")
    with copy.alone(run.directory, holder, wait_s=wait_s):
        return copy.backup(run.directory, run.fleet, now_s=now_s, due_only=due_only, emit=run.emit)


def after_apply(run: Run, *, now_s: float) -> Report:
    """Copies to all targets; the cluster's locks are given back by now. Never raises a K4tError: what is applied is
    applied, and `backup --due` makes up for copies."""
    try:
        return backup(run, now_s=now_s, wait_s=AFTER_APPLY_WAIT_S)
    except K4tError as error:
        names = [one.name for one in targets_of(run.tree) if not one.dead]
        return Report(tuple(Result(name, "failed", str(error), status=error.exit_status) for name in names))
