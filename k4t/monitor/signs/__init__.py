"""What is wrong now, as one check saw it: facts → signs. Pure: no I/O, no clock, no memory of other checks.

One root cause is said once: what is told of a host stands for all that is on it (`Blind`), and what is told of a
replica for its endpoints.
"""

from __future__ import annotations

from k4t.model.spec import Tree
from k4t.monitor.facts import Facts
from k4t.monitor.signs import apps, cluster, hosts, members
from k4t.monitor.signs.sign import Signs, View


def signs(facts: Facts, tree: Tree, firsts: dict[str, float] | None = None) -> Signs:
    """`firsts`: since when a transaction is known to be open, by its id (Unix seconds)."""
    view = View(facts, tree, firsts or {})
    found = [*hosts.signs(view), *members.signs(view), *apps.signs(view), *cluster.signs(view)]
    return Signs(tuple(found), view.blind)
