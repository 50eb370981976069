"""What a machine does that boots: it is no longer off, does what was queued, applies, copies, and goes off again. Or,
on one that is on already (`do_queued`), what was queued alone."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k4t import failpoints
from k4t.commands import power as power_commands
from k4t.commands.common import applied, group
from k4t.commands.perform import STAY, perform
from k4t.commands.power import Power
from k4t.errors import K4tError, Usage, gravest
from k4t.options import Globals

if TYPE_CHECKING:
    from k4t.master.power.intents import Intent
    from k4t.master.power.memory import Entry
    from k4t.master.power.queue import Queue
    from k4t.master.power.turns import Turns

wake_app = group("Waking.")

MAX_ROUNDS = 20
"""What is queued while it works is taken up too, but it does not go on for ever."""
Network = Annotated[float, typer.Option("--timeout", help="How long to wait for the network.", min=0, max=3600)]
Install = Annotated[bool, typer.Option("--install-service", help="Have this machine run it at every boot.")]
Remove = Annotated[bool, typer.Option("--remove-service", help="… and no more.")]
Detach = Annotated[bool, typer.Option("--detach", help="Begin, and don't wait: it says the rest in .k4t/wake.log.")]
Forced = Annotated[str, typer.Option("--forced", hidden=True, metavar="ID")]


@wake_app.command("wake", epilog="Example: k4t wake --stay-on")
def wake(
    ctx: typer.Context,
    power: Power = None,
    timeout: Network = 120.0,
    install_service: Install = False,
    remove_service: Remove = False,
    detach: Detach = False,
    forced: Forced = "",
) -> None:
    """What the master runs when it boots: do what was queued meanwhile, apply, copy, and go off again."""
    given: Globals = ctx.obj
    if install_service or remove_service:
        _service(given, install=install_service)
        return
    if forced:
        _forced(given, forced)
        return
    if detach:
        _detached(given, power)
        return
    if power:
        power_commands.refuse_elsewhere(given)
    raise typer.Exit(_Waking(given, timeout, power).run())


def do_queued(given: Globals) -> int:
    """What is queued for this master is done, and the tree applied if there was anything: as `k4t wake` does it, but
    this machine waits for no network and doesn't go off. The exit status; 75 where another one is at work, which then
    does this too. Raises no K4tError."""
    work = _Work(given)
    try:
        return gravest([_in_turn(given, lambda turns: work.all_of_it(turns, anyway=False)), *work.failed])
    except K4tError as error:
        given.console.error(str(error))
        return error.exit_status


class _Work:
    """What was taken up, turn by turn, and what became of it."""

    def __init__(self, given: Globals) -> None:
        self.given = given
        self.seen: Queue | None = None
        self.done: list[Entry] = []

    @property
    def failed(self) -> list[int]:
        return [3 for entry in self.done if entry.result != "done"]

    def all_of_it(self, turns: Turns, *, anyway: bool) -> int:
        """Round by round, until nothing is queued any more: each intent, then the tree. `anyway`: applied also where
        nothing is queued. The exit status of the last apply."""
        given, status = self.given, 0
        for number in range(MAX_ROUNDS):
            turns.answer()
            found, todo = _taken_up(given)
            self.seen = self.seen or found
            if not todo and (number or not anyway):
                break
            self.done += [perform(given, intent) for intent in todo]
            _forget(given, todo)
            status = _apply(given)
        return status


class _Waking:
    """One `k4t wake`; what it did is told once, before this machine goes off."""

    def __init__(self, given: Globals, timeout_s: float, wanted: bool | None) -> None:
        self.given, self.timeout_s, self.wanted = given, timeout_s, wanted
        self.work = _Work(given)
        self.told = False

    def run(self) -> int:
        """The exit status: 3 when an intent failed or it stays on though it was to go off, else the apply's."""
        status = _in_turn(self.given, self._turn)
        self._tell(status)
        return gravest([status, *self.work.failed])

    def _turn(self, turns: Turns) -> int:
        given = self.given
        with _out_of_the_way(given):
            self._arrive()
            status = self.work.all_of_it(turns, anyway=True)
            failpoints.reach("wake:worked")
            power_commands.back_up(given)
        if asked := next((entry for entry in self.work.done if entry.action == STAY), None):
            given.console.note(f"this machine stays on, as {asked.who} asked; k4t power off ends that")
            return status
        return power_commands.off_after(
            _patient(given), status, self.wanted, copied=True, turn=turns, going=lambda: self._tell(status)
        )

    def _arrive(self) -> None:
        from k4t.master.power.arrival import arrive
        from k4t.wiring import opened

        arrive(lambda: opened(self.given.db), self.timeout_s, lambda text: _warn(self.given, text))

    def _tell(self, status: int) -> None:
        from k4t.master.power.queue import Queue
        from k4t.render import power as show

        if not self.told:
            show.woken(self.work.done, self.work.seen or Queue(), status=status, console=self.given.console)
        self.told = True


def _in_turn(given: Globals, work: Callable[[Turns], int]) -> int:
    """The exit status of the last turn. Raises Locked where another one is at work, which has been told."""
    from k4t.wiring import WAIT_S, read

    read(given.db)  # where there is no tree, none is begun
    turns = power_commands.turns(given, "wake")
    return [*turns.run(lambda: work(turns), wait_s=WAIT_S if given.wait else 0.0)][-1]


def _taken_up(given: Globals) -> tuple[Queue, list[Intent]]:
    from k4t.master.power.intake import take_up
    from k4t.wiring import opened

    with opened(given.db, ahead=True) as run:
        return take_up(run, datetime.now(UTC), lambda text: _warn(given, text))


def _forget(given: Globals, done: list[Intent]) -> None:
    from k4t.master.power.intake import forget
    from k4t.wiring import opened

    if done:
        with opened(given.db) as run:
            forget(run, done, lambda text: _warn(given, text))


def _apply(given: Globals) -> int:
    """What the tree says beyond what was queued; the exit status."""
    from k4t.master.decide import Request

    message = given.message or "wake"
    try:
        return applied(_patient(given), Request(allow=given.allow, message=message)).exit_status
    except K4tError as error:
        given.console.error(str(error))
        return error.exit_status


def _patient(given: Globals) -> Globals:
    """Nobody is there to be asked, or to try again when another run is done."""
    return Globals(given.db, given.console, yes=True, allow=given.allow, message=given.message, wait=True)


def _out_of_the_way(given: Globals) -> AbstractContextManager[object]:
    """Where one result for programs is wanted, what the steps print goes to standard error."""
    return contextlib.nullcontext() if given.console.output == "table" else contextlib.redirect_stdout(sys.stderr)


def _detached(given: Globals, power: bool | None) -> None:
    from k4t.master.power import detached
    from k4t.wiring import read

    read(given.db)  # where there is no tree, none is begun
    said = detached.begin(given.db, [] if power is None else ["--power-off" if power else "--stay-on"])
    given.console.result(said)


def _forced(given: Globals, cluster_id: str) -> None:
    """What the monitor's key runs here, whatever it asks for: what it may, and nothing else. Raises typer.Exit."""
    from k4t import command
    from k4t.monitor.looking import probe
    from k4t.remote.restricted import PROBE, ROUSE

    asked = os.environ.pop("SSH_ORIGINAL_COMMAND", "")
    if asked == ROUSE:
        _detached(given, None)
    elif asked == PROBE:
        done = command.run(probe.argv(cluster_id), timeout_s=probe.TIMEOUT_S)
        sys.stdout.buffer.write(done.stdout)
        raise typer.Exit(done.exit_status or 0)
    else:
        raise Usage(f"this key may ask for {PROBE} and {ROUSE} alone", "k4t monitor run does, by itself")


def _service(given: Globals, *, install: bool) -> None:
    from k4t.master.power import service
    from k4t.wiring import read

    cluster = read(given.db).cluster
    system = service.here()
    if install:
        path: Path | None = service.install(system, given.db.absolute(), cluster.name, cluster.id)
        given.console.result(f"k4t wake runs at every boot of this machine: {path}")
    elif path := service.remove(system, cluster.id):
        given.console.result(f"k4t wake no longer runs at boot: {path} is gone")
    else:
        given.console.result("no service runs k4t wake here for this cluster")


def _warn(given: Globals, text: str) -> None:
    given.console.note(f"! {text}", "yellow")
