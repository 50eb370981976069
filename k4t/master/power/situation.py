"""Whether the master may go off: what is open, as values, and the sentences that say so. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from k4t.errors import HostRefused, K4tError, Locked, Unreachable, gravest
from k4t.master.power.here import is_one_of
from k4t.model.value import value

NAMED = 3
"""So many of a kind are named, the rest is counted."""


@value
class Situation:
    """What was found. Everything but `host`, `names`, `command` and `logins` is something open.

    `host`, `command`: of `<power>`. `names`: what this machine calls itself; `is_host`: it has that address. `locks`:
    sentences of who holds what. `steps`: what an apply would do; `left`: sentences of what it could not. `unknown`:
    why no plan could be made, with its exit status. `leaving`: nodes that are being emptied. `transactions`: unfinished
    ones. `members`: gateways and DNS servers, and what is wrong with them, with an exit status. `copies`: (target, why
    its copy is not the tree). `monitor`: who runs one here; `acting`: policies by which one that cron calls acts from
    here. `intents`: what is still queued. `logins`: people on this machine, who are only warned of.
    """

    host: str = ""
    names: tuple[str, ...] = ()
    is_host: bool = False
    command: str = ""
    locks: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    unknown: tuple[tuple[str, int], ...] = ()
    leaving: tuple[tuple[str, str], ...] = ()
    transactions: tuple[str, ...] = ()
    members: tuple[tuple[str, str, int], ...] = ()
    copies: tuple[tuple[str, str], ...] = ()
    acting: tuple[str, ...] = ()
    monitor: str = ""
    intents: tuple[str, ...] = ()
    logins: tuple[str, ...] = ()


@value
class Reason:
    """One sentence why it stays on, and the exit status that goes with it."""

    text: str
    exit_status: int = K4tError.exit_status


def reasons(found: Situation) -> tuple[Reason, ...]:
    """All of them; none: it may go off."""
    wrong_host = not_this_machine(found.host, found.names, is_host=found.is_host)
    here = (Reason(wrong_host),) if wrong_host else ()
    listed = (*here, *_no_command(found), *_busy(found), *_unfinished(found), *_needed(found))
    return tuple(Reason(" ".join(one.text.split()), one.exit_status) for one in listed)


def not_this_machine(host: str, names: Sequence[str], *, is_host: bool = False) -> str:
    """Why a machine that is called so is not to be switched off; "" when it is the one."""
    own = " or ".join(names) or "a machine without a name"
    if not host:
        return f"this is {own}, and cluster.xml names no <power host=> that may be switched off"
    if is_host or is_one_of(host, names):
        return ""
    return f"this is {own}, and <power host=> names {host}: no other machine is switched off"


def exit_status(found: Sequence[Reason]) -> int:
    return gravest(reason.exit_status for reason in found)


def _no_command(found: Situation) -> Iterator[Reason]:
    if not found.command:
        yield Reason("cluster.xml has no <power off=>: nothing here says how to switch it off")


def _busy(found: Situation) -> Iterator[Reason]:
    for sentence in found.locks:
        yield Reason(f"a run is under way: {sentence}", Locked.exit_status)
    if found.monitor:
        yield Reason(f"a monitor runs on this machine ({found.monitor}): nobody would see to the cluster")
    if found.acting:
        policies = ", ".join(found.acting)
        yield Reason(f"the monitor acts from this machine, and does what monitor.xml has enabled ({policies})")


def _unfinished(found: Situation) -> Iterator[Reason]:
    for why, status in found.unknown:
        yield Reason(f"what is left to do is not known: {why}", status)
    if found.steps:
        yield Reason(f"an apply has {_counted(found.steps, 'step')} to do; k4t apply does it")
    for sentence in found.left:
        yield Reason(f"not finished: {sentence}")
    for node, why in found.leaving:
        yield Reason(f"node {node} is being emptied: {why}")
    if found.intents:
        yield Reason(f"{_counted(found.intents, 'intent')} still queued; k4t wake does them")


def _needed(found: Situation) -> Iterator[Reason]:
    for one in found.transactions:
        yield Reason(f"an unfinished publication: {one}; k4t txn resume finishes it")
    for name, why, status in found.members:
        yield Reason(why if name in why else f"{name}: {why}", _known(status))
    for target, why in found.copies:
        yield Reason(f"no current copy of the tree on {target}: {why}; k4t backup makes one")


def _known(status: int) -> int:
    return status if status in (Unreachable.exit_status, HostRefused.exit_status) else K4tError.exit_status


def _counted(things: Sequence[str], word: str) -> str:
    """“4 steps (a, b, c, …)”."""
    more = ", …" if len(things) > NAMED else ""
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'} ({', '.join(things[:NAMED])}{more})"
