"""A decision before it is carried out: the plan for people or programs, the question, the exit status."""

from __future__ import annotations

from collections.abc import Callable

from k4t.errors import Unsafe, gravest
from k4t.master.decide import Decision
from k4t.master.planning import report
from k4t.master.planning.plan import Plan
from k4t.model.spec import Tree
from k4t.render import plan as text
from k4t.render.console import Console
from k4t.render.progress import Progress

CHANGES_PENDING = 2


def decision(decided: Decision, tree: Tree, console: Console) -> None:
    """Print what would be done."""
    if console.output == "table":
        console.result(text.lines(decided.plan, console, tree.cluster.name))
    else:
        console.data(report.to_json(decided.plan), rows="steps")


def exit_status(decided: Decision, *, detailed: bool) -> int:
    """Of `k4t plan`: what could not be asked, what is unsafe; 2 for pending changes only when asked for."""
    statuses = list(decided.statuses)
    if decided.plan.unsafe:
        statuses.append(Unsafe.exit_status)
    if statuses:
        return gravest(statuses)
    return CHANGES_PENDING if detailed and not decided.plan.empty else 0


def confirmation(tree: Tree, console: Console, live: Progress, *, yes: bool) -> Callable[[Plan], None]:
    """What `apply` calls with a plan: shows it, asks (or not, with --yes), and starts the progress display."""

    def confirm(plan: Plan) -> None:
        if console.output == "table":
            console.result(text.lines(plan, console, tree.cluster.name))
        if plan.unsafe:  # refused, whatever the answer would be
            return
        if not yes:
            console.ask("Do it?", option="--yes")
        live.begin(plan)

    return confirm
