"""What keeps an app from becoming what the tree says: a spec that failed is held, a canary waits to be continued."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping

from k4t.master.planning.assess import BEYOND_STARTING, Assessment, Keep, Need, into_service
from k4t.master.planning.plan import Options, Plan
from k4t.master.planning.standing import Standing
from k4t.master.planning.survey import replica_key
from k4t.model.state import Container, Head


def held_spec(name: str, head: Head | None, options: Options) -> str:
    """The spec of this app that is not tried (again)."""
    remembered = head.held.get(name, "") if head and not options.retry else ""
    return options.failed.get(name, "") or remembered


def is_held(found: Assessment, spec: str) -> bool:
    """Whether an app's wanted spec is the held one. Without any container of another spec there is nothing to go back
    to: then it is tried again."""
    return bool(spec) and found.identity == spec and any(_former(found, all_of_it) for _, all_of_it in _replicas(found))


def hold(found: Assessment, standing: Standing) -> None:
    """Turn the assessment of a held app into going back."""
    replicas = sorted(_replicas(found), key=lambda replica: replica_key(replica[0]))
    found.held, found.keeps, found.needs = True, [], []
    for replica, containers in replicas:
        former = _former(found, containers)
        if not former:
            # What runs of it goes on running: the last thing to do is to take that away too.
            found.withheld.append(replica)
            found.keeps += [Keep(one) for one in containers[:1]]
            continue
        main = min(former, key=lambda c: (not c.running, bool(standing.lacking(c)), -c.generation, c.node, c.id))
        rest = tuple(one for one in containers if one is not main)
        action, cause = into_service(main, standing)
        found.keeps.append(Keep(main, action, "is put back" if action and rest else cause, rest))
    found.others = {keep.container.id for keep in found.keeps}


def remembered(
    head: Head, plan: Plan, *, failed: Mapping[str, str], serial: int, proceed: Collection[str] = ()
) -> Head:
    """The head with what is held and continued after this plan; `failed`: the specs that did not get healthy."""
    held = {app: spec for app, spec in head.held.items() if app not in plan.specs or plan.held.get(app) == spec}
    if plan.whole:
        held = {app: spec for app, spec in held.items() if app in plan.scope}
    at = {app: head.held_at[app] for app in held if app in head.held_at} | dict.fromkeys(failed, serial)
    continued = {**head.continued, **{app: spec for app, spec in plan.specs.items() if app in proceed}}
    return dataclasses.replace(head, held={**held, **failed}, held_at=at, continued=continued)


def _replicas(found: Assessment) -> Iterator[tuple[str, tuple[Container, ...]]]:
    for keep in found.keeps:
        yield keep.container.replica, (keep.container, *keep.leftovers)
    for need in found.needs:
        doomed = {one.id for one in found.doomed}
        containers = (need.old, *need.extra) if need.old else need.extra
        yield need.replica, tuple(one for one in containers if one.id not in doomed)


def _former(found: Assessment, containers: tuple[Container, ...]) -> list[Container]:
    return [one for one in containers if found.differs(one) and one.state not in BEYOND_STARTING]


def pause(found: Assessment, standing: Standing, head: Head | None, options: Options) -> None:
    """Let no more than `pause-after` replicas have the wanted spec, as long as others serve with another one."""
    limit = found.app.update.pause_after
    older = [(need, need.old) for need in found.needs if need.old is not None and found.differs(need.old)]
    continued = found.name in options.proceed or (head is not None and head.continued.get(found.name) == found.identity)
    if not limit or not older or continued or found.held or _returning(found, [old for _, old in older]):
        return
    moving = [need for need in found.needs if need.old is not None and not found.differs(need.old)]
    missing = [need for need in found.needs if need.old is None]
    room = max(0, limit - len(found.keeps) - len(moving))
    allowed = {need.replica for need in [*missing, *(need for need, _ in older)][:room]}
    waiting = [(need, old) for need, old in older if need.replica not in allowed]
    found.withheld = [need.replica for need in missing if need.replica not in allowed]
    if not waiting and not found.withheld:
        return
    found.paused = len(found.keeps) + len(moving) + len(allowed)
    found.needs = [need for need in found.needs if need in moving or need.replica in allowed]
    found.keeps = [_at_rest(found, keep) for keep in found.keeps] + [
        _waits(need, old, standing) for need, old in waiting
    ]
    found.others = {old.id for _, old in waiting}


def _returning(found: Assessment, others: list[Container]) -> bool:
    """Whether what is wanted was there before what is to be replaced: going back is no canary."""
    kept = [keep.container.revision for keep in found.keeps]
    return bool(kept) and min(kept) < min(other.revision for other in others)


def _at_rest(found: Assessment, keep: Keep) -> Keep:
    """While the canary waits, what it has replaced is kept."""
    if keep.action == "await" and keep.container.running and all(found.retains(one) for one in keep.leftovers):
        return keep if keep.cause.startswith("is not published") else Keep(keep.container)
    return keep


def _waits(need: Need, old: Container, standing: Standing) -> Keep:
    action, cause = into_service(old, standing)
    return Keep(old, action, cause, need.extra)
