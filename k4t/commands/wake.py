"""What a machine does that boots: it is no longer off, does what was queued, applies, copies, and goes off again."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k4t import failpoints
from k4t.commands import power as power_commands
from k4t.commands.common import applied, group
from k4t.commands.intents import trust
from k4t.commands.power import Power
from k4t.errors import HostRefused, K4tError, Unreachable, Unsafe, gravest
from k4t.options import Globals

if TYPE_CHECKING:
    from k4t.master.fleet import Host
    from k4t.master.power.intents import Intent
    from k4t.master.power.memory import Entry
    from k4t.master.power.queue import Bad, Queue
    from k4t.master.run import Run

wake_app = group("Waking.")

ROUNDS = 3
"""What is queued while it works is taken up too; but it does not go on for ever."""
PAUSE_S = 2.0
STAY = "stay"
"""The intent of a person who wants to work on this machine."""
Network = Annotated[float, typer.Option("--timeout", help="How long to wait for the network.", min=0, max=3600)]
Install = Annotated[bool, typer.Option("--install-service", help="Have this machine run it at every boot.")]
Remove = Annotated[bool, typer.Option("--remove-service", help="… and no more.")]


@wake_app.command("wake", epilog="Example: k4t wake --stay-on")
def wake(
    ctx: typer.Context,
    power: Power = None,
    timeout: Network = 120.0,
    install_service: Install = False,
    remove_service: Remove = False,
) -> None:
    """What the master runs when it boots: do what was queued meanwhile, apply, copy, and go off again."""
    given: Globals = ctx.obj
    if install_service or remove_service:
        _service(given, install=install_service)
        return
    if power:
        power_commands.refuse_elsewhere(given)
    with _alone(given):
        raise typer.Exit(_woken(given, timeout, power))


def _woken(given: Globals, timeout_s: float, wanted: bool | None) -> int:
    """The exit status: 3 when an intent failed or it stays on though it was to go off, else the apply's."""
    from k4t.render import power as show

    seen: list[Queue] = []
    done: list[Entry] = []
    with _out_of_the_way(given):
        _arrive(given, timeout_s)
        status = 0
        for number in range(ROUNDS):
            found, todo = _taken_up(given)
            seen.append(found)
            if number and not todo:
                break
            done += [_perform(given, intent) for intent in todo]
            _forget(given, todo)
            status = _apply(given)
        power_commands.back_up(given)
    show.woken(done, seen[0], status=status, console=given.console)
    failed = [3 for entry in done if entry.result != "done"]
    if asked := next((entry for entry in done if entry.action == STAY), None):
        given.console.note(f"this machine stays on, as {asked.who} asked; k4t power off ends that")
        return gravest([status, *failed])
    return gravest([power_commands.off_after(_patient(given), status, wanted, copied=True), *failed])


# --- arriving --------------------------------------------------------------------------------------------------


def _arrive(given: Globals, timeout_s: float) -> None:
    """Wait for the network, and say that this machine is no longer off; nodes that were given up are not waited for.
    Raises Unreachable when no host answers."""
    from k4t.master.power import announce
    from k4t.wiring import opened

    deadline = time.monotonic() + timeout_s
    answered = 0
    while True:
        with opened(given.db) as run:
            gone = {run.fleet.host_of(one).key for one in run.tree.nodes.values() if one.availability == "dead"}
            hosts = [host for host in run.fleet.hosts.values() if host.key not in gone]
            before, answered = answered, _answering(run, hosts)
            if answered == len(hosts) or (before and (answered == before or time.monotonic() >= deadline)):
                for failure in announce.take_away(run.fleet):
                    _warn(given, f"{failure.name} may still say that this machine is off: {failure.error.message}")
                return
        if time.monotonic() >= deadline and not answered:  # else it looks once more, and takes what there is
            raise Unreachable(f"no host answers after {timeout_s:g} s: is the network up?", "run k4t wake when it is")
        time.sleep(PAUSE_S)


def _answering(run: Run, hosts: Iterable[Host]) -> int:
    """How many do: one that refuses the key answers too."""
    from k4t.master.fleet import at_once

    def answers(host: Host) -> bool:
        try:
            run.fleet.connection(host)
        except HostRefused:
            return True
        except K4tError:
            return False
        return True

    return sum(at_once(answers, hosts))


# --- what was queued -------------------------------------------------------------------------------------------


def _taken_up(given: Globals) -> tuple[Queue, list[Intent]]:
    """What is to be done, oldest first. What is no intent of this cluster's is named and put aside; what was done
    already is taken away. Raises Unsafe where this tree is not the newest: the one that is shall do it."""
    from k4t.master.power import queue
    from k4t.master.power.memory import Memory, to_do
    from k4t.master.power.places import places
    from k4t.wiring import opened

    with opened(given.db, ahead=True) as run:
        hosts = places(run.fleet)
        found = queue.look(run.fleet, hosts, given.db, trust(run), datetime.now(UTC))
        if found.found or found.bad:
            _refuse_old_tree(run)
        known = Memory(given.db).entries()
        todo = [one.intent for one in found.found if to_do(known.get(one.intent.id))]
        again = [one for one in found.found if one.intent not in todo]
        for one in again:
            entry = known[one.intent.id]
            _warn(given, f"intent {entry.id} ({entry.action}) on {', '.join(one.places)} is not done again: it was "
                  f"{entry.result} at {entry.done_at or entry.at}")  # fmt: skip
        failed = queue.remove(run.fleet, hosts, given.db, [one.intent.id for one in again])
        failed += queue.set_aside(run.fleet, hosts, given.db, found.bad)
        for bad in found.bad:
            _refused(given, run, bad)
        for failure in (*found.away, *failed):
            _warn(given, f"{failure.name}: its intents can't be got at: {failure.error.message}")
    return found, todo


def _refuse_old_tree(run: Run) -> None:
    from k4t.master import decide

    for change in decide.plan(run, decide.Request()).plan.unsafe:
        if change.kind == "rewind":
            raise Unsafe(f"what is queued is left to the newest working copy: {change.detail}")


def _refused(given: Globals, run: Run, bad: Bad) -> None:
    _warn(given, f"{bad.name}.json on {bad.place} is refused and put aside: {bad.why}")
    run.copy.prepare()
    run.copy.audit({
        "at": run.at, "who": run.who, "message": bad.why, "result": f"intent {bad.name} on {bad.place} refused",
    })  # fmt: skip


def _perform(given: Globals, intent: Intent) -> Entry:
    """Do one as the command does that a person would give; what became of it. The next is done all the same."""
    from k4t.master.history import WorkingCopy
    from k4t.master.power.memory import DONE, FAILED, Memory
    from k4t.wiring import now, who

    memory = Memory(given.db)
    begun = memory.begin(intent, datetime.now(UTC))
    failpoints.reach("intent:begun")
    given.console.note(f"intent {intent.id}: {intent.words}, queued at {intent.at} by {intent.who}")
    about = f"intent {intent.id} of {intent.who}" + (f": {intent.note}" if intent.note else "")
    status, error = _ended(
        Globals(given.db, given.console, yes=True, allow=frozenset(), message=about, wait=True), intent
    )
    if error:
        given.console.error(f"intent {intent.id}: {error}")
    result = FAILED if status else DONE
    entry = memory.end(begun, result, status, error, datetime.now(UTC))
    failpoints.reach("intent:done")
    said = f"intent {intent.id} ({intent.words}) {result}" + (f" ({status})" if status else "")
    WorkingCopy(given.db).audit({"at": now(), "who": who(), "message": error or about, "result": said})
    return entry


def _ended(given: Globals, intent: Intent) -> tuple[int, str]:
    """Exit status and error of the command that it stands for."""
    try:
        _act(given, intent)
    except typer.Exit as left:
        return left.exit_code, ""
    except K4tError as error:
        return error.exit_status, str(error)
    return 0, ""


def _act(given: Globals, intent: Intent) -> None:
    from k4t.commands import apps, nodes
    from k4t.master.decide import Request
    from k4t.wiring import read, thing

    if intent.action == STAY:
        return
    if intent.action == "apply":
        raise typer.Exit(applied(given, Request(message=given.message)).exit_status)
    if intent.action == "scale":
        apps.scale_to(given, intent.name, intent.replicas)
    elif intent.action == "drain":
        nodes.drain(given, intent.name)
    elif intent.action == "uncordon":
        nodes.uncordon(given, intent.name)
    else:
        node = thing(read(given.db).nodes, "node", intent.name)
        nodes.give_up(given, intent.name, fence=node.power is not None and bool(node.power.off))


def _forget(given: Globals, done: list[Intent]) -> None:
    """Take them away from where they lay."""
    from k4t.master.power import queue
    from k4t.master.power.places import places
    from k4t.wiring import opened

    if not done:
        return
    with opened(given.db) as run:
        for failure in queue.remove(run.fleet, places(run.fleet), given.db, [one.id for one in done]):
            _warn(given, f"{failure.name} may still have an intent that is done: {failure.error.message}")


# --- the rest --------------------------------------------------------------------------------------------------


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


@contextlib.contextmanager
def _alone(given: Globals) -> Iterator[None]:
    """Raises Locked while another wakes with this tree."""
    from k4t.remote.lock import Holder, LocalLock
    from k4t.wiring import WAIT_S, now, read, who

    read(given.db)  # where there is no tree, none is begun
    holder = Holder(who(), socket.gethostname(), os.getpid(), now(), "wake", "")
    with LocalLock(given.db / ".k4t" / "wake.lock").take(holder, wait_s=WAIT_S if given.wait else 0.0):
        yield


def _out_of_the_way(given: Globals) -> AbstractContextManager[object]:
    """Where one result for programs is wanted, what the steps print goes to standard error."""
    return contextlib.nullcontext() if given.console.output == "table" else contextlib.redirect_stdout(sys.stderr)


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
