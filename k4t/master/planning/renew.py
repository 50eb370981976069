"""Replicas that are replaced though the tree is as it was: for their age, to spread them anew, or since somebody wants
that one restarted."""

from __future__ import annotations

from collections.abc import Iterable

from k4t.master.planning.assess import Assessment, Keep, Need
from k4t.master.planning.capacity import Host, demand
from k4t.master.planning.placement import Board, closed, forbids
from k4t.master.planning.plan import Options
from k4t.master.planning.survey import replica_key

DAY_S = 86400


def recycle(found: Assessment, options: Options) -> str:
    """Replace the oldest replica when it is asked for, or when in a whole period (`<recycle every>`) none was made.
    Returns why what was asked for can't be done, or ""."""
    asked, every_s = found.name in options.recycle, found.app.recycle_every_s
    if not asked and (every_s is None or not options.now_s):
        return ""
    why = _why_not(found)
    serving = [keep for keep in found.keeps if _serves(keep)]
    if why or not serving:
        return f"{found.name} is not recycled: {why or 'none of its replicas is in service'}" if asked else ""
    newest_s = max(keep.container.created_s for keep in found.keeps)
    if not asked and every_s is not None and (not newest_s or options.now_s - newest_s < every_s):
        return ""
    oldest = min(serving, key=lambda keep: (keep.container.created_s, replica_key(keep.container.replica)))
    age_s = options.now_s - oldest.container.created_s
    told = f", {age_s // DAY_S:.0f} days" if oldest.container.created_s and age_s >= 2 * DAY_S else ""
    _replace(found, oldest, f"is the oldest{told}")
    return ""


def restart(found: Assessment, options: Options) -> list[str]:
    """Replace the replicas that were named by new ones of the same spec: beside them where there is a place, else in
    theirs. Returns why what was asked for can't be done."""
    wanted = sorted(replica for app, replica in options.restart if app == found.name)
    reasons = [(replica, _not_restarted(found, replica)) for replica in wanted]
    return [f"{found.name}.{replica} is not restarted: {why}" for replica, why in reasons if why]


def _not_restarted(found: Assessment, replica: str) -> str:
    if why := _not_of_the_same_spec(found):
        return why
    keep = next((keep for keep in found.keeps if keep.container.replica == replica), None)
    if keep is not None:
        if keep.action != "start":  # else that is what the plan does anyway
            _replace(found, keep, "is to be restarted", may_stop=True)
        return ""
    if any(need.replica == replica for need in found.needs):
        return ""
    nodes = [node for one, node in found.unknown if one == replica]
    return f"it is on {nodes[0] or 'a node'} that can't be asked" if nodes else "there is no such replica"


def _why_not(found: Assessment) -> str:
    if found.exclusive:
        return "its replacement would be an outage (recreate)"
    return _not_of_the_same_spec(found) or ("it is about to change anyway" if found.needs else "")


def _not_of_the_same_spec(found: Assessment) -> str:
    """Why a new container would not be what the old one is."""
    if found.held:
        return "its spec is held"
    if found.paused is not None:
        return "its update is paused"
    if found.app.stopped or found.image is None:
        return "it is stopped" if found.app.stopped else "its image is not resolved"
    return ""


def _serves(keep: Keep) -> bool:
    return keep.container.running and not keep.action and not keep.leftovers


def _replace(found: Assessment, keep: Keep, cause: str, to: str = "", *, may_stop: bool = False) -> None:
    old = keep.container
    found.keeps.remove(keep)
    newest = max(one.generation for one in (old, *keep.leftovers))
    bound = old.node if any(volume.binds_to_node for volume in found.app.volumes) else ""
    found.needs.append(Need(old.replica, cause, newest + 1, old, keep.leftovers, bound, to, may_stop))


def rebalance(apps: Iterable[Assessment], board: Board) -> None:
    """Move replicas, one by one, from where most are to where fewest are: of the app by its spread labels, then by
    node, then of all apps. What binds a replica to its node (data, pins, per-node) binds it."""
    totals = {name: host.total for name, host in board.hosts.items()}
    for found in apps:
        bound = found.app.per_node or any(volume.binds_to_node for volume in found.app.volumes)
        if not bound and not _why_not(found):
            _Spread(found, board, totals).even_out()


class _Spread:
    """The replicas of one app over the nodes that may have them, while they are moved."""

    def __init__(self, found: Assessment, board: Board, totals: dict[str, int]) -> None:
        self.found, self.totals = found, totals
        hosts = (host for host in board.hosts.values() if not closed(host))
        self.hosts = {host.name: host for host in hosts if not forbids(found.app, found.image, host)}
        self.by = [spread.by for spread in found.app.placement.spread if spread.by != "node"]
        pinned = {str(pin.replica) for pin in found.app.placement.pins}
        self.movable = [keep for keep in found.keeps if _serves(keep) and keep.container.replica not in pinned]
        self.movable.sort(key=lambda keep: replica_key(keep.container.replica), reverse=True)
        self.counts = dict.fromkeys(self.hosts, 0)
        self.domains: dict[tuple[str, str], int] = {}
        for keep in found.keeps:
            if (host := self.hosts.get(keep.container.node)) is not None:
                self._count(host, 1)

    def even_out(self) -> None:
        receivers = dict(self.hosts)
        while self.movable and receivers:
            to = min(receivers.values(), key=lambda host: (self._load(host), host.name))
            givers = [keep for keep in self.movable if keep.container.node in self.hosts]
            keep = max(givers, key=lambda one: self._load(self.hosts[one.container.node]), default=None)
            if keep is None or not self._better(self.hosts[keep.container.node], to):
                return
            if to.lacks(demand(self.found.app, keep.container.replica)):
                del receivers[to.name]
                continue
            self._move(keep, to)

    def _move(self, keep: Keep, to: Host) -> None:
        source = self.hosts[keep.container.node]
        counts, what = (self.counts, "replicas") if self.counts[source.name] >= 2 else (self.totals, "containers")
        cause = f"rebalance: {source.name} has {counts[source.name]} {what}, {to.name} has {counts[to.name]}"
        self.movable.remove(keep)
        for host, change in ((source, -1), (to, 1)):
            self._count(host, change)
            self.totals[host.name] += change
        _replace(self.found, keep, cause, to.name)

    def _load(self, host: Host) -> tuple[int, ...]:
        places = [self.domains.get((label, host.label(label) or ""), 0) for label in self.by]
        return (*places, self.counts[host.name], self.totals[host.name])

    def _better(self, source: Host, to: Host) -> bool:
        """Whether one replica more there and one less here is more even, on the first level where it matters."""
        same = [source.label(label) == to.label(label) for label in self.by]
        for one_place, here, there in zip([*same, False, False], self._load(source), self._load(to), strict=True):
            if not one_place and here - there >= 2:
                return True
            if not one_place and here - there < 1:
                return False
        return False

    def _count(self, host: Host, change: int) -> None:
        self.counts[host.name] += change
        for label in self.by:
            key = (label, host.label(label) or "")
            self.domains[key] = self.domains.get(key, 0) + change
