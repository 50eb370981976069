"""How many replicas of each app should run, run, are healthy, published and reached: a row an app, for whoever shows
or exports them. Pure."""

from __future__ import annotations

from k4t.model.value import value
from k4t.monitor.facts import Facts


@value
class Tally:
    """`desired` None: not known without a tree."""

    app: str
    desired: int | None
    running: int
    healthy: int
    published: int
    reached: int


def tallies(facts: Facts) -> list[Tally]:
    """In the order of names."""
    running: dict[str, int] = dict.fromkeys(facts.desired, 0)
    healthy: dict[str, int] = {}
    for one in facts.containers:
        running[one.app] = running.get(one.app, 0) + one.running
        answer = facts.probed.get(one.id)
        healthy[one.app] = healthy.get(one.app, 0) + (one.running and answer is not None and answer.problem == "")
    published: dict[str, set[str]] = {}
    for member in (*facts.gateways.values(), *facts.dns.values()):
        for end in member.document.endpoints if member.document else ():
            published.setdefault(end.app, set()).add(end.container)
    reached: dict[str, bool] = {}
    for (container, _), answer in facts.reached.items():
        reached[container] = reached.get(container, True) and answer.problem == ""
    return [
        Tally(
            name, len(facts.desired[name]) if name in facts.desired else None, running[name], healthy.get(name, 0),
            len(published.get(name, ())), sum(reached.get(one, False) for one in published.get(name, ())),
        )
        for name in sorted(running)
    ]  # fmt: skip
