"""The story of going off: lock → look → refuse, or say so where a monitor looks → switch off, or take that back.

The locks are held to the end, so no run and no backup can begin in between; hosts let go of theirs when this machine is
gone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from k4t import failpoints
from k4t.errors import K4tError, Locked
from k4t.master.backup import copy
from k4t.master.power import announce, switch
from k4t.master.power.announce import Off
from k4t.master.power.look import look
from k4t.master.power.places import places
from k4t.master.power.situation import Situation, exit_status, reasons
from k4t.remote import lock

if TYPE_CHECKING:
    from k4t.master.backup.keys import Keys
    from k4t.master.run import Run

Say = Callable[[str], None]
Copies = Callable[["Run"], tuple[tuple[str, str], ...]]


class StaysOn(K4tError):
    """It may not go off; `reasons` are all of them, a sentence each."""

    def __init__(self, found: Situation) -> None:
        listed = reasons(found)
        self.reasons = tuple(one.text for one in listed)
        number = len(listed)
        super().__init__(f"not switched off, for {number} reason{'' if number == 1 else 's'}: see above")
        self.exit_status = exit_status(listed)


def go_off(
    run: Run,
    keys: Keys | None,
    *,
    copies: Copies,
    intents: tuple[str, ...],
    why: str,
    say: Say,
    going: Say,
    copying_wait_s: float = 0.0,
) -> None:
    """Switch this machine off, if nothing is open; `going` is told of that before. `copying_wait_s`: for a backup that
    is under way. Raises StaysOn; K4tError when it could not be switched off."""
    run.copy.prepare()
    holder = lock.Holder(run.who, socket.gethostname(), os.getpid(), run.at, "power off", "")
    with ExitStack() as held:
        locks = []
        for one in (run.lock(), copy.alone(run.directory, holder, wait_s=copying_wait_s)):
            try:
                held.enter_context(one)
            except Locked as error:
                locks.append(f"{error.host}: {error.message}" if error.host else error.message)
        found = look(run, copies=copies(run), intents=intents, locks=tuple(locks))
        _prepare(run, keys, found, why, say)
        going(found.host)
        failpoints.reach("power:announced")
        _switch_off(run, found, say)


def _prepare(run: Run, keys: Keys | None, found: Situation, why: str, say: Say) -> None:
    if reasons(found):
        raise StaysOn(found)
    if found.logins:
        say(f"still logged in here: {', '.join(found.logins)}")
    _announce(run, keys, found, why, say)


def _switch_off(run: Run, found: Situation, say: Say) -> None:
    try:
        switch.off(found.command, found.host)
    except K4tError:
        for failure in announce.take_away(run.fleet):
            say(f"“off on purpose” still stands on {failure.name}: {failure.error.message}")
        raise


def _announce(run: Run, keys: Keys | None, found: Situation, why: str, say: Say) -> None:
    """Raises K4tError when nobody could be told: a monitor would ring."""
    if not places(run.fleet):
        say("there is no gateway, DNS server or backup target to tell that this machine is off on purpose")
        return
    off = Off(run.tree.cluster.id, found.host, run.who, run.at, why)
    told, failed = announce.announce(run.fleet, off, keys)
    if not told:
        raise K4tError(
            f"not switched off: nobody could be told that it is on purpose: {failed[0].error}", "a monitor would ring"
        )
    for failure in failed:
        say(f"{failure.name} was not told that this machine is off on purpose: {failure.error.message}")
