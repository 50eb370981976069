"""After an update that did not get healthy: the containers it has replaced come back, and nothing is created.

A *held* app is one whose spec failed. What it is to be then is what still exists of other specs: old containers that
run stay, stopped ones are started again, and those of the held spec go. A spec whose containers are all gone can't
be brought back; what runs of the held one is then left alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k4t.master.planning.graph import Entry, Wave, removal_of
from k4t.master.planning.survey import replica_key, slot_of
from k4t.model.state import Container

if TYPE_CHECKING:
    from k4t.master.planning.assess import Assessment, Keep

Place = tuple[str, str, int, str]


def going_back(found: Assessment) -> list[Keep]:
    """Stopped containers that are to serve again in the place of running ones, last replaced first."""
    if not found.held:
        return []
    keeps = [keep for keep in found.keeps if keep.action == "start" and any(c.running for c in keep.leftovers)]
    return sorted(keeps, key=lambda keep: replica_key(keep.container.replica), reverse=True)


def put_back(found: Assessment, waves: list[Wave], keeps: list[Keep], budget: int) -> None:
    """Old before new goes, within max-surge; where the new one stands in the way, within max-unavailable."""
    size = max(1, found.app.update.max_surge.of(found.desired, round_up=True))
    rest, left = list(keeps), [c for keep in found.keeps for c in keep.leftovers]
    while rest:
        busy = {place for keep in rest for c in keep.leftovers if c.running for place in _places(c)}
        free = [keep for keep in rest if not found.exclusive and busy.isdisjoint(_places(keep.container))]
        chosen = free[:size] or rest[: max(1, budget)]
        rest = [keep for keep in rest if keep not in chosen]
        out = [c for keep in chosen for c in keep.leftovers]
        bring = [_entry(found, keep, left) for keep in chosen]
        if free:
            waves.append(Wave(bring, out, chosen[0].cause, flush=True))
        else:
            waves += [Wave((), out, chosen[0].cause, flush=True), Wave(bring, (), chosen[0].cause)]


def _entry(found: Assessment, keep: Keep, left: list[Container]) -> Entry:
    """It starts when what stands in its way is gone."""
    mine = set(_places(keep.container))
    own = keep.leftovers if found.exclusive else ()
    after = [removal_of(c) for c in left if c in own or not mine.isdisjoint(_places(c))]
    return Entry(slot_of(keep.container), keep.cause, keep.container, keep.action, tuple(after))


def _places(container: Container) -> list[Place]:
    """What it listens on."""
    return [(container.node, container.address, port.number, port.protocol) for port in container.ports]
