"""One look at everything, as every command of the monitor takes it: at the tree's hosts, or at those that are named."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k4t.errors import Usage

if TYPE_CHECKING:
    from k4t.master.fleet import Fleet
    from k4t.master.publication.redolog import LogPlace
    from k4t.monitor.check import Looked
    from k4t.options import Globals

Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", help="Without a tree: look at this host; may be repeated.", metavar="USER@HOST:PORT"),
]
ClusterId = Annotated[str, typer.Option("--cluster", help="--host only: of this cluster.", metavar="ID")]
KnownHosts = Annotated[
    Path | None, typer.Option("--known-hosts", help="--host only: trust the keys in this file alone.", metavar="FILE")
]


@contextmanager
def eyes(
    given: Globals, hosts: list[str], cluster: str, known_hosts: Path | None
) -> Iterator[tuple[Fleet, LogPlace | None]]:
    """The tree's hosts, or those that were named. Raises Usage for options that contradict each other, InvalidTree."""
    from k4t import wiring

    if not hosts:
        if cluster or known_hosts:
            raise Usage("--cluster and --known-hosts are for hosts named by --host", "with a tree, it says both")
        tree = wiring.read(given.db)
        with wiring.watched(tree, given.db) as fleet:
            yield fleet, wiring.redo_log(given.db, tree)
        return
    from k4t.monitor.looking import blind

    with wiring.watched(blind.tree_of(hosts), given.db, [known_hosts] if known_hosts else []) as fleet:
        blind.turned(fleet, blind.find(fleet, cluster))
        wiring.watch(fleet, given.db)
        yield fleet, None


def look(fleet: Fleet, log: LogPlace | None, *, now: bool, has_tree: bool) -> tuple[Looked, tuple[str, ...]]:
    """One check that remembers the ones before it; and what is to be said of that. With `now` it remembers nothing."""
    if now:
        from k4t.monitor import check, history

        return check.check(fleet, history.NONE, at_s=time.time(), log=log, has_tree=has_tree), ()
    from k4t.monitor.round import course

    looked, _, notes = course(fleet.tree.cluster.id).look(fleet, log, time.time(), has_tree=has_tree)
    return looked, notes


def duration_s(option: str, text: str, least_s: float, most: str, such_as: str) -> float:
    """An option's value. Raises Usage for what is no duration, shorter than `least_s` or longer than `most`."""
    from k4t.tree.values import PERIOD

    most_s = float(str(PERIOD.parse(most)))
    try:
        seconds = float(str(PERIOD.parse(text)))
    except ValueError:
        seconds = 0.0
    if not least_s <= seconds <= most_s:
        raise Usage(f"{option} {text} is no duration from {least_s:g}s to {most}", f"such as {such_as}")
    return seconds
