"""What explanations of nodes, gateways and DNS servers share: which thing is meant, and what its host says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from k4t.errors import K4tError, Usage
from k4t.master.fleet import WITHOUT_SHELL, Fleet
from k4t.master.inspection.check import Checked, Thing, check
from k4t.master.planning import serials
from k4t.master.planning.plan import Plan
from k4t.model.hosts import Dns, Gateway, Node
from k4t.model.spec import Tree
from k4t.model.state import Head, Observed
from k4t.model.value import value
from k4t.remote.lock_holder import holder_of

KINDS = ("app", "node", "gateway", "dns")
KINDS_OF = {Node: "node", Gateway: "gateway", Dns: "dns"}


@value
class HostSaid:
    """`checks`: what k4t needs of it, asked now. `lock`: who works on the cluster there, "" for nobody, None for not
    known. `serial`: of the head that it keeps, None for none or not known; `behind`: what it missed since, "" for
    nothing. `also`: what else of the tree is on this machine, as gateway/gw1."""

    checks: tuple[Checked, ...]
    lock: str | None = None
    serial: int | None = None
    written: str = ""
    behind: str = ""
    also: tuple[str, ...] = ()

    @property
    def remedies(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.remedy for one in self.checks if not one.ok and one.remedy))


def meant(tree: Tree, text: str) -> tuple[str, str]:
    """The kind and the name of `web`, `app/web`, `gateway/gw1`. What the tree has nowhere is taken for an app: its
    containers may still run. Raises Usage where several things have that name, or none has that kind's."""
    things = {"app": tree.apps, "node": tree.nodes, "gateway": tree.gateways, "dns": tree.dns}
    kind, slash, name = text.rpartition("/")
    if slash:
        if kind not in things:
            raise Usage(f"nothing is called {kind!r}", f"kinds are {', '.join(KINDS)}")
        if name not in things[kind] and kind != "app":
            raise Usage(f"there is no {kind} {name!r}", f"the tree has: {', '.join(sorted(things[kind])) or 'none'}")
        return kind, name
    found = [of for of in KINDS if text in things[of]]
    if len(found) > 1:
        raise Usage(
            f"{text} is the name of {' and '.join(found)}", f"say {' or '.join(f'{of}/{text}' for of in found)}"
        )
    return (found[0] if found else "app"), text


def asked(fleet: Fleet, thing: Thing, head: Head | None, observed: Observed) -> HostSaid:
    """Raises nothing: what can't be asked is one of the checks."""
    newest = serials.newest(observed.heads)
    return HostSaid(
        checks=tuple(check(fleet, [thing], here=False)),
        lock=_lock(fleet, thing),
        serial=head.serial if head else None,
        written=f"{head.at} by {head.who}" if head and head.at else "",
        behind=_behind(head, newest),
        also=tuple(_also(fleet, thing)),
    )


def _behind(head: Head | None, newest: Head | None) -> str:
    if head is None or newest is None or head.serial >= newest.serial:
        return ""
    return f"it missed {newest.serial - head.serial} since: the newest is {newest.serial}"


def _lock(fleet: Fleet, thing: Thing) -> str | None:
    if isinstance(thing, Dns) and thing.driver in WITHOUT_SHELL:
        return None
    try:
        holder = holder_of(fleet.transport(thing), fleet.tree.cluster.id)
    except K4tError:
        return None
    return holder.words if holder else ""


def _also(fleet: Fleet, thing: Thing) -> Iterator[str]:
    key = fleet.host_of(thing).key
    for one in things_of(fleet.tree):
        if one is not thing and fleet.host_of(one).key == key:
            yield f"{KINDS_OF[type(one)]}/{one.name}"


def things_of(tree: Tree) -> tuple[Thing, ...]:
    return (*tree.nodes.values(), *tree.gateways.values(), *tree.dns.values())


def stands_against(plan: Plan | None, problem: str) -> Iterator[str]:
    """Why an apply would not do all of it."""
    if problem:
        yield f"no plan can be made: {problem}"
    if plan is not None:
        yield from plan.not_done
        yield from plan.refused
        yield from (f"unsafe: {change.detail} (--allow {change.allow})" for change in plan.unsafe)


def once(sentences: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(sentence for sentence in sentences if sentence))
