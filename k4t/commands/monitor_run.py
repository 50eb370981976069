"""`k4t monitor run`: look again and again, act where policies say so, tell people."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
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
    from k4t.monitor.check import Looked
    from k4t.monitor.round import Round

run_app = monitor_app
"""With `run` in it."""
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
Page = Annotated[
    Path | None, typer.Option("--page", help="Write the page of `monitor page` after each round.", metavar="FILE")
]
Textfile = Annotated[
    Path | None,
    typer.Option("--textfile", help="Write metrics for the node exporter after each round.", metavar="FILE.prom"),
]
Zabbix = Annotated[str, typer.Option("--zabbix", help="Send each check to this server or proxy.", metavar="HOST:PORT")]
ZabbixHost = Annotated[
    str, typer.Option("--zabbix-host", help="--zabbix only: the cluster's host in Zabbix.", metavar="NAME")
]
Install = Annotated[bool, typer.Option("--install-service", help="Have this machine run it, now and at every boot.")]
Remove = Annotated[bool, typer.Option("--remove-service", help="… and no more.")]


@dataclass(frozen=True, slots=True)
class Shown:
    """Where each round is shown. "" and None: nowhere."""

    page: Path | None = None
    textfile: Path | None = None
    zabbix: str = ""
    zabbix_host: str = ""

    def check(self) -> None:
        """Raises Usage for what can't be."""
        if self.textfile is not None and self.textfile.suffix != ".prom":
            said = f"--textfile {self.textfile}: the node exporter reads files that end in .prom alone"
            raise Usage(said, "name it so")
        if bool(self.zabbix) != bool(self.zabbix_host):
            raise Usage("--zabbix and --zabbix-host go together", "k4t monitor run --help")
        if self.zabbix:
            from k4t.monitor.zabbix import sender

            sender.place(self.zabbix)

    def options(self) -> list[str]:
        """As they would be given to another process."""
        given = {
            "--page": self.page and str(self.page.absolute()),
            "--textfile": self.textfile and str(self.textfile.absolute()),
            "--zabbix": self.zabbix, "--zabbix-host": self.zabbix_host,
        }  # fmt: skip
        return [word for name, text in given.items() if text for word in (name, text)]

    def shows(self, interval_s: Callable[[], float]) -> list[Callable[[Looked], None]]:
        return [
            *([partial(_page, self.page, interval_s)] if self.page else []),
            *([partial(_metrics, self.textfile)] if self.textfile else []),
            *([_sent(self.zabbix, self.zabbix_host)] if self.zabbix else []),
        ]


def _page(file: Path, interval_s: Callable[[], float], looked: Looked) -> None:
    from k4t.commands.monitor import REFRESH_LEAST_S, REFRESH_MOST_S
    from k4t.monitor.page import file as pages

    pages.write(file, looked, time.time(), refresh_s=min(max(interval_s(), REFRESH_LEAST_S), REFRESH_MOST_S))


def _metrics(file: Path, looked: Looked) -> None:
    from k4t.monitor import prometheus

    prometheus.write(file, looked)


def _sent(server: str, host: str) -> Callable[[Looked], None]:
    """Beside the rounds: a server that hangs delays nothing."""
    from k4t.monitor.aside import Aside
    from k4t.monitor.zabbix import sender

    return Aside(lambda looked: sender.send(looked, server, host))


@monitor_app.command(epilog="Example: k4t monitor run --page /var/www/html/k4t.html")
def run(
    ctx: typer.Context,
    page: Page = None,
    textfile: Textfile = None,
    zabbix: Zabbix = "",
    zabbix_host: ZabbixHost = "",
    install_service: Install = False,
    remove_service: Remove = False,
) -> None:
    """Look at everything every <monitor interval=…>, and do what the policies of monitor.xml say. Ends with Ctrl-C
    (130) or SIGTERM (0)."""
    from k4t import wiring
    from k4t.commands.monitor_acting import WAIT_S, alone
    from k4t.monitor import run as loop

    given: Globals = ctx.obj
    if given.console.output == "json":
        raise Usage("-o json has an end, and this has none", "use -o jsonl for a line each event")
    shown = Shown(page, textfile, zabbix, zabbix_host)
    shown.check()
    tree = wiring.read(given.db)
    if install_service or remove_service:
        _service(given, tree, shown.options(), install=install_service)
        return
    with ExitStack() as held:
        held.enter_context(_lock(given))
        ended = held.enter_context(_told_to_end())
        try:
            held.enter_context(alone(tree.cluster.id, wait_s=WAIT_S))
            eyes = _Eyes(given, tree, shown)
            held.callback(eyes.actors.close)
            loop.run(eyes, given.db, threading.Event())
        except KeyboardInterrupt:
            if ended == [signal.SIGINT]:
                raise Interrupted("interrupted") from None


def _service(given: Globals, tree: Tree, options: list[str], *, install: bool) -> None:
    from k4t.master.power.service import here
    from k4t.monitor import service

    cluster, system = tree.cluster, here()
    if install:
        path: Path | None = service.install(system, given.db.absolute(), cluster.name, cluster.id, options)
        given.console.result(f"k4t monitor run is at work here, and after every boot: {path}")
    elif path := service.remove(system, cluster.id):
        given.console.result(f"k4t monitor run has ended, and does not begin at boot: {path} is gone")
    else:
        given.console.result("no service runs the monitor here for this cluster")


@run_app.command("act", hidden=True)
def act(ctx: typer.Context) -> None:
    """Do what is queued for the master here; `run` and `check --act` begin it in a process of its own."""
    from k4t.commands.wake import do_queued

    raise typer.Exit(do_queued(ctx.obj))


class _Eyes:
    """What the loop works with."""

    def __init__(self, given: Globals, tree: Tree, shown: Shown) -> None:
        from k4t.commands.monitor_acting import Actors
        from k4t.monitor.round import course

        self.given = given
        self.tree = tree
        self.course = course(tree.cluster.id)
        self.course.shows = shown.shows(lambda: self.tree.monitor.interval_s)
        self.actors = Actors(given, self.course, tree)
        self.said: tuple[str, ...] = ()

    def read(self) -> Tree:
        from k4t import wiring

        return wiring.read(self.given.db)

    def taken(self, tree: Tree) -> None:
        self.tree = tree
        self.actors.taken(tree)

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
