"""After the work: does what was started still run? (What participants serve is read back by each publication.)"""

from __future__ import annotations

from collections.abc import Iterable

from k4t.errors import K4tError
from k4t.master.fleet import Fleet, at_once
from k4t.master.planning.plan import Await, Step, Target
from k4t.node.observe import containers


def not_running(fleet: Fleet, done: Iterable[Step]) -> tuple[str, ...]:
    """A sentence for each container that was healthy in this run and does not run any more."""
    started: dict[str, set[str]] = {}
    for step in done:
        if isinstance(step.work, Await):
            started.setdefault(step.node, set()).add(step.work.name)
        elif isinstance(step.work, Target) and step.action in ("stop", "remove"):
            started.get(step.node, set()).discard(step.work.name)

    def look(node: str) -> list[str]:
        expected = started[node]
        try:
            running = {one.name for one in containers(fleet.engine(node), node, fleet.tree.cluster.id) if one.running}
        except K4tError as error:
            return [f"{name}: not verified: {error}" for name in sorted(expected)]
        return [f"{name} on {node} does not run any more" for name in sorted(expected - running)]

    return tuple(sentence for sentences in at_once(look, sorted(started)) for sentence in sentences)
