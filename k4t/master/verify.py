"""After the work: does what was started still run? (What participants serve is read back by each publication.)"""

from __future__ import annotations

from k4t.errors import K4tError
from k4t.master.fleet import Fleet, at_once
from k4t.master.planning.plan import Plan
from k4t.node.observe import containers


def not_running(fleet: Fleet, plan: Plan, done: frozenset[str]) -> tuple[str, ...]:
    """A sentence for each container that was healthy in this run and does not run any more."""
    started: dict[str, set[str]] = {}
    for step in plan.steps:
        if step.action == "await" and step.id in done:
            started.setdefault(step.node, set()).add(step.work.name)  # type: ignore[union-attr]
    removed = {step.work.name for step in plan.steps if step.action in ("stop", "remove")}  # type: ignore[union-attr]

    def look(node: str) -> list[str]:
        expected = started[node] - removed
        try:
            running = {one.name for one in containers(fleet.engine(node), node, fleet.tree.cluster.id) if one.running}
        except K4tError as error:
            return [f"{name}: not verified: {error}" for name in sorted(expected)]
        return [f"{name} on {node} does not run any more" for name in sorted(expected - running)]

    return tuple(sentence for sentences in at_once(look, sorted(started)) for sentence in sentences)
