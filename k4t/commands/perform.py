"""An intent is done as the command of its name does it: nobody is asked, and no `--allow` is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from k4t import failpoints
from k4t.commands.common import applied
from k4t.errors import K4tError
from k4t.options import Globals

if TYPE_CHECKING:
    from k4t.master.power.intents import Intent
    from k4t.master.power.memory import Entry

MONITOR = "(monitor)"
"""How the one who queued something is called where that is a monitor."""
STAY = "stay"
"""The intent of a person who wants to work on this machine: for whoever would switch it off."""


def perform(given: Globals, intent: Intent) -> Entry:
    """Do one, and remember it; what became of it. Raises K4tError only where that can't be remembered."""
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
        ACTS[intent.action](given, intent)
    except typer.Exit as left:
        return left.exit_code, ""
    except K4tError as error:
        return error.exit_status, str(error)
    return 0, ""


def _apply(given: Globals, _intent: Intent) -> None:
    from k4t.master.decide import Request

    raise typer.Exit(applied(given, Request(message=given.message)).exit_status)


def _scale(given: Globals, intent: Intent) -> None:
    from k4t.commands import apps

    apps.scale_to(given, intent.name, intent.replicas)


def _restart(given: Globals, intent: Intent) -> None:
    from k4t.commands import apps

    apps.restart_one(given, intent.name, intent.replica)


def _prune(given: Globals, intent: Intent) -> None:
    from k4t.commands import look

    look.prune_nodes(given, [intent.name])


def _drain(given: Globals, intent: Intent) -> None:
    from k4t.commands import nodes

    nodes.drain(given, intent.name)


def _uncordon(given: Globals, intent: Intent) -> None:
    from k4t.commands import nodes

    nodes.uncordon(given, intent.name)


def _dead(given: Globals, intent: Intent) -> None:
    """Given up when its <power off> has switched it off; without one it is refused. What a monitor saw may be long ago:
    one that answers now is left on."""
    from k4t.commands import nodes
    from k4t.wiring import opened, read, thing

    node = thing(read(given.db).nodes, "node", intent.name)
    if intent.who.endswith(MONITOR):
        from k4t.master.observe import observe_node

        with opened(given.db) as run:
            if observe_node(run.fleet, node).reachable:
                raise K4tError(f"{node.name} answers again, and is not given up", "its replicas run where they are")
    nodes.give_up(given, intent.name, fence=node.power is not None and bool(node.power.off))


def _back(given: Globals, intent: Intent) -> None:
    from k4t.commands import nodes

    nodes.back(given, intent.name)


def _node_on(given: Globals, intent: Intent) -> None:
    from k4t.commands import spares

    spares.switch_on(given, intent.name)


def _node_off(given: Globals, intent: Intent) -> None:
    from k4t.commands import spares

    spares.switch_off(given, intent.name)


ACTS: Mapping[str, Callable[[Globals, Intent], None]] = {
    "apply": _apply,
    "scale": _scale,
    "drain": _drain,
    "uncordon": _uncordon,
    "dead": _dead,
    "back": _back,
    "restart": _restart,
    "prune": _prune,
    "node-on": _node_on,
    "node-off": _node_off,
    STAY: lambda _given, _intent: None,
}
