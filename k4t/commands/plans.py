"""Plans that outlive the command: in a file, or as lines to run by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from k4t.commands.common import applied
from k4t.errors import LogRefused, Unsafe

if TYPE_CHECKING:
    from k4t.master.decide import Decision, Request
    from k4t.master.deploy import Outcome
    from k4t.master.planning.plan import Plan
    from k4t.master.run import Run
    from k4t.options import Globals


def save(given: Globals, path: Path, run: Run, decision: Decision, request: Request) -> None:
    """Write the plan to a file, for `k4t apply FILE`."""
    from k4t.master import saved

    saved.save(
        path, decision.plan, run.tree.cluster.id, apps=request.apps, allow=request.allow, pull=request.pull,
        retry=request.retry, rebalance=request.rebalance,
    )  # fmt: skip
    given.console.note(f"saved: k4t apply {path} carries out exactly this plan, or nothing")


def say_unfinished(given: Globals, run: Run) -> None:
    """What an apply would finish before anything else: transactions that our redo log has open."""
    try:
        for one in run.unfinished():
            end = "rolls it forward" if one.state == "decided" else "aborts it"
            given.console.note(f"! transaction {one.id} of {one.on} is {one.state}: apply {end} first", "yellow")
    except LogRefused as error:
        given.console.note(f"! {error}", "yellow")


def print_commands(given: Globals, run: Run, decision: Decision) -> None:
    """The plan as lines to run by hand."""
    from k4t.master import manual

    given.console.result(manual.lines(run, decision.plan))


def file_of(words: Sequence[str]) -> Path | None:
    """The plan file, when that is what `apply` was given: apps have names without a slash or a dot."""
    if len(words) != 1 or not ("/" in words[0] or words[0].endswith((".json", ".plan"))):
        return None
    return Path(words[0])


def apply_file(given: Globals, path: Path) -> Outcome:
    """Carry out a saved plan, unless tree or world have moved on (exit 4)."""
    from k4t.master import saved
    from k4t.master.decide import Request
    from k4t.wiring import read

    wanted = saved.load(path)
    tree = read(given.db)
    saved.need_same_tree(wanted, tree.cluster.id, tree.sha256, path)
    done: list[bool] = []

    def check(plan: Plan) -> None:
        saved.need_same_plan(wanted, plan, path)
        done.append(True)

    request = Request(
        wanted.apps, given.allow | wanted.allow, pull=wanted.pull, message=given.message, retry=wanted.retry,
        rebalance=wanted.rebalance,
    )  # fmt: skip
    outcome = applied(given, request, check=check)
    if not done and not wanted.empty:
        raise Unsafe(f"the world has moved on since {path} was saved: there is nothing to do now")
    return outcome
