"""A machine that boots waits for the network, and says that it is no longer off. Where it did so since it booted is
remembered in `.k4t/awake`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING

from k4t.errors import HostRefused, K4tError, Unreachable
from k4t.master.fleet import at_once, rests
from k4t.master.power import announce, here

if TYPE_CHECKING:
    from pathlib import Path

    from k4t.master.fleet import Host
    from k4t.master.run import Run

AWAKE = "awake"
PAUSE_S = 2.0


def arrive(opened: Callable[[], AbstractContextManager[Run]], timeout_s: float, say: Callable[[str], None]) -> None:
    """Nodes that were given up, or sleep, are not waited for; nobody is, where this machine has been awake already.
    `opened`: connections that were never used before. Raises Unreachable when no host answers."""
    deadline = time.monotonic() + timeout_s
    answered = 0
    while True:
        with opened() as run:
            if _is_awake(run.directory):
                _take_away(run, say)
                return
            gone = {run.fleet.host_of(one).key for one in run.tree.nodes.values() if rests(one)}
            hosts = [host for host in run.fleet.hosts.values() if host.key not in gone]
            before, answered = answered, _answering(run, hosts)
            if answered == len(hosts) or (before and (answered == before or time.monotonic() >= deadline)):
                _take_away(run, say)
                _say_awake(run.directory)
                return
        if time.monotonic() >= deadline and not answered:  # else it looks once more, and takes what there is
            raise Unreachable(f"no host answers after {timeout_s:g} s: is the network up?", "run k4t wake when it is")
        time.sleep(PAUSE_S)


def _answering(run: Run, hosts: Iterable[Host]) -> int:
    """How many do: one that refuses the key answers too."""

    def answers(host: Host) -> bool:
        try:
            run.fleet.connection(host)
        except HostRefused:
            return True
        except K4tError:
            return False
        return True

    return sum(at_once(answers, hosts))


def _take_away(run: Run, say: Callable[[str], None]) -> None:
    for failure in announce.take_away(run.fleet):
        say(f"{failure.name} may still say that this machine is off: {failure.error.message}")


def _is_awake(tree: Path) -> bool:
    try:
        return bool(here.boot()) and (tree / ".k4t" / AWAKE).read_text() == here.boot()
    except (OSError, ValueError):
        return False


def _say_awake(tree: Path) -> None:
    """Where it can't be remembered, the next one waits too."""
    with suppress(OSError):
        (tree / ".k4t").mkdir(mode=0o700, exist_ok=True)
        (tree / ".k4t" / AWAKE).write_text(here.boot())
