"""`k4t monitor run`: look again and again, act where policies say so, tell people."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from k4t.commands.monitor import monitor_app
from k4t.errors import Interrupted, Usage
from k4t.options import Globals

if TYPE_CHECKING:
    from k4t.master.fleet import Fleet
    from k4t.model.spec import Tree
    from k4t.monitor.round import Course, Round

run_app = monitor_app
"""With `run` in it."""
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
Page = Annotated[
    Path | None, typer.Option("--page", help="Write the page of `monitor page` after each round.", metavar="FILE")
]


@monitor_app.command(epilog="Example: k4t monitor run --page /var/www/html/k4t.html")
def run(ctx: typer.Context, page: Page = None) -> None:
    """Look at everything every <monitor interval=…>, and do what the policies of monitor.xml say. Ends with Ctrl-C
    (130) or SIGTERM (0)."""
    from k4t import wiring
    from k4t.monitor import run as loop
    from k4t.monitor.round import course

    given: Globals = ctx.obj
    if given.console.output == "json":
        raise Usage("-o json has an end, and this has none", "use -o jsonl for a line each event")
    cluster = wiring.read(given.db).cluster
    with ExitStack() as held:
        held.enter_context(_lock(given))
        eyes = _Eyes(given, course(cluster.id), page)
        ended = held.enter_context(_told_to_end())
        try:
            loop.run(eyes, given.db, threading.Event())
        except KeyboardInterrupt:
            if ended == [signal.SIGINT]:
                raise Interrupted("interrupted") from None
        finally:
            eyes.close()


class _Eyes:
    """What the loop works with."""

    def __init__(self, given: Globals, course: Course, page: Path | None) -> None:
        self.given = given
        self.course = course
        self.page = page
        self.said: tuple[str, ...] = ()
        self.tree: Tree

    def read(self) -> Tree:
        from k4t import wiring

        return wiring.read(self.given.db)

    def taken(self, tree: Tree) -> None:
        self.tree = tree

    def fleet(self, tree: Tree) -> AbstractContextManager[Fleet]:
        from k4t import wiring

        return wiring.watched(tree, self.given.db)

    def round(self, fleet: Fleet, now_s: float) -> Round:
        from k4t import wiring

        return self.course.round(fleet, wiring.redo_log(self.given.db, self.tree), now_s)

    def told(self, one: Round) -> None:
        from k4t.render import monitor_run as show

        for event in one.events:
            show.event(event, self.given.console)
        for note in one.notes:
            if note not in self.said:
                self.note(note)
        self.said = one.notes

    def note(self, text: str) -> None:
        from k4t.render import monitor_run as show

        show.note(text, self.given.console)

    def close(self) -> None:
        if self.course.tell is not None:
            self.course.tell.close(2.0)


def _lock(given: Globals) -> AbstractContextManager[object]:
    """Raises Locked while another monitor runs on this tree."""
    from k4t.master.power.look import MONITOR_LOCK
    from k4t.remote.lock import Holder, LocalLock
    from k4t.wiring import now, who

    holder = Holder(who(), socket.gethostname(), os.getpid(), now(), "monitor", "")
    return LocalLock(given.db / ".k4t" / MONITOR_LOCK, "the monitor of this tree").take(holder)


@contextmanager
def _told_to_end() -> Iterator[list[int]]:
    """Which signal ended it: Ctrl-C is a person's, the others are the machine's way to say that it is time."""
    came: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    heard = (number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN)
    before = {number: signal.signal(number, end) for number in heard}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
