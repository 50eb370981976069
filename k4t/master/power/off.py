"""The story of going off: lock → look → refuse, or say so where a monitor looks → look at the queue once more → switch
off, or take that back.

The locks are held to the end, so no run, wake or backup can begin in between; hosts let go of theirs when this machine
is gone. Whoever queues something looks whether this machine is off *after* that; it looks at the queue *after* it said
that it is off: so either it sees what is queued, or is seen to be off, and is woken.
"""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from k4t import failpoints
from k4t.errors import K4tError, Locked
from k4t.master.backup import copy
from k4t.master.power import announce, switch
from k4t.master.power.announce import Off
from k4t.master.power.look import look
from k4t.master.power.places import places
from k4t.master.power.situation import Situation, exit_status, reasons
from k4t.master.power.turns import Turns
from k4t.remote import lock

if TYPE_CHECKING:
    from k4t.master.backup.keys import Keys
    from k4t.master.run import Run

Say = Callable[[str], None]
Copies = Callable[["Run"], tuple[tuple[str, str], ...]]
Queued = Callable[["Run"], tuple[str, ...]]


class StaysOn(K4tError):
    """It may not go off; `reasons` are all of them, a sentence each. `queued`: there is something to be done."""

    def __init__(self, found: Situation) -> None:
        listed = reasons(found)
        self.queued = bool(found.intents)
        self.reasons = tuple(one.text for one in listed)
        number = len(listed)
        super().__init__(f"not switched off, for {number} reason{'' if number == 1 else 's'}: see above")
        self.exit_status = exit_status(listed)


def go_off(
    run: Run,
    keys: Keys | None,
    *,
    copies: Copies,
    queued: Queued,
    turns: Turns,
    has_turn: bool,
    why: str,
    say: Say,
    going: Say,
    copying_wait_s: float = 0.0,
) -> None:
    """Switch this machine off, if nothing is open; `going` is told of that before. `queued`: what is queued now, in
    words. `has_turn`: of doing that, which else is taken here. `copying_wait_s`: for a backup that is under way. Raises
    StaysOn; K4tError when it could not be switched off."""
    run.copy.prepare()
    holder = lock.Holder(run.who, socket.gethostname(), os.getpid(), run.at, "power off", "")
    with ExitStack() as held:
        wanted: list[Callable[[], AbstractContextManager[object]]] = [] if has_turn else [turns.taken]
        wanted += [run.lock, lambda: copy.alone(run.directory, holder, wait_s=copying_wait_s)]
        locks = []
        for lock_of in wanted:
            try:
                held.enter_context(lock_of())
            except Locked as error:
                locks.append(f"{error.host}: {error.message}" if error.host else error.message)
        if not locks:
            turns.answer()
        found = look(run, copies=copies(run), intents=queued(run), locks=tuple(locks))
        if reasons(found):
            raise StaysOn(found)
        if found.logins:
            say(f"still logged in here: {', '.join(found.logins)}")
        _announce(run, keys, found, why, say)
        failpoints.reach("power:announced")
        try:
            _look_once_more(run, found, queued, turns)
            going(found.host)
            turns.go()
            failpoints.reach("power:going")
            switch.off(found.command, found.host)
        except K4tError:
            turns.stay()
            _take_back(run, say)
            raise


def _look_once_more(run: Run, found: Situation, queued: Queued, turns: Turns) -> None:
    """At what came while it looked at everything else, and said that it goes off."""
    intents = queued(run)
    if intents or turns.asked:
        raise StaysOn(dataclasses.replace(found, intents=intents or ("whatever k4t wake was called for",)))


def _take_back(run: Run, say: Say) -> None:
    for failure in announce.take_away(run.fleet):
        say(f"“off on purpose” still stands on {failure.name}: {failure.error.message}")


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
