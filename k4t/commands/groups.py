"""What `gateway` and `dns` have in common: list with owners, sync, takeover."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from k4t.commands.common import agree

if TYPE_CHECKING:
    from k4t.master.groups import Comparison
    from k4t.model.participant import Kind
    from k4t.options import Globals


def members(given: Globals, things: str, kind: Kind) -> None:
    """The tree's gateways or DNS servers, and what they hold."""
    from k4t.master.inspection.published import published
    from k4t.render import groups as show
    from k4t.wiring import opened

    with opened(given.db, ahead=True) as run:
        show.members(run.tree, things, published(run.fleet, kind), given.console)


def run_sync(given: Globals, kind: Kind, names: Sequence[str]) -> None:
    """Compare, ask, heal."""
    from k4t.master import groups
    from k4t.render import groups as show
    from k4t.wiring import chosen, opened

    def confirm(found: Sequence[Comparison]) -> None:
        show.compared(found, given.console)
        if any(one.differs for one in found):
            agree(given, "Publish it?")

    with opened(given.db, wait=given.wait, ahead=True) as run:
        chosen(run.tree, "gateways" if kind == "gateway" else "dns", names)
        _say(given, groups.sync(run, kind, names, confirm, given.allow))


def run_takeover(given: Globals, kind: Kind, cluster: str) -> None:
    """Show what a cluster left, ask, empty it."""
    from k4t.master import groups
    from k4t.master.observe import observe
    from k4t.wiring import opened, publisher_for

    with opened(given.db, wait=given.wait, ahead=True) as run:
        left = groups.estate(observe(run.fleet), kind, cluster)
        for group, document in sorted(left.documents.items()):
            given.console.note(f"{kind} group {group}: {len(document.endpoints)} endpoints of {left.name}")
        agree(given, f"Is cluster {left.name} ({left.cluster}) gone for good? Take out what it publishes on {left.on}?")
        publisher = publisher_for(run, kind, id=left.cluster, name=left.name)
        _say(given, groups.takeover(run, kind, left, publisher))


def run_remove(given: Globals, kind: Kind, name: str) -> None:
    """Ask, take a member out of the tree, and empty what it holds of this cluster."""
    from k4t.master import groups
    from k4t.wiring import opened, publisher_for, thing

    with opened(given.db, wait=given.wait, ahead=True) as run:
        member = thing(run.tree.gateways, kind, name) if kind == "gateway" else thing(run.tree.dns, kind, name)
        agree(given, f"Remove {name}? What this cluster publishes there ends: nobody should use it any more.")
        _say(given, [groups.retire(run, member, publisher_for(run, kind, only=name), message=given.message)])


def _say(given: Globals, told: Sequence[str]) -> None:
    if given.console.output == "table":
        given.console.result("\n".join(told))
    else:
        given.console.data({"version": 1, "done": list(told)}, rows="done")
