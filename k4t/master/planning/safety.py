"""What a plan would do that nobody may do by accident; each with the `--allow` that permits it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from k4t.master.planning.endpoints import by_app, settled_by_app
from k4t.master.planning.lineage import fenced
from k4t.master.planning.plan import Options, Publish, Slot, Step, Target, UnsafeChange
from k4t.master.planning.standing import GroupKey, Standing
from k4t.master.planning.survey import Group, Survey
from k4t.model.spec import Tree
from k4t.model.state import Container, Head

REWIND = "rewind"


def allowed(change: UnsafeChange, allows: Collection[str]) -> bool:
    """`allows`: “KIND:NAME”, or “KIND” for every name."""
    return change.allow in allows or change.kind in allows


def behind(
    tree_sha: str, app_sha: Mapping[str, str], head: Head | None, base_serial: int | None, apps: Collection[str] | None
) -> str:
    """ "serial 41 is behind 44" when what is applied was once applied and then replaced; "" when it is not.

    `apps`: of a partial apply, else None. A working copy that itself stands at the newest serial goes back on purpose.
    """
    if head is None or base_serial == head.serial:
        return ""
    if apps is None:
        older = _superseded([(r.serial, r.tree) for r in head.revisions if r.tree], tree_sha)
        if older:
            return f"serial {older[0]} is behind {older[1]}"
        whole = max((r.serial for r in head.revisions if r.tree == tree_sha), default=0)
        # What was applied by itself after this very tree was applied whole.
        apps = {name for r in head.revisions if whole and r.serial > whole for name in r.apps if name in app_sha}
    for name in sorted(apps):
        revisions = [(r.serial, r.apps[name]) for r in head.revisions if name in r.apps]
        older = _superseded(revisions, app_sha.get(name, ""))
        if older:
            return f"{name} of serial {older[0]} is behind {older[1]}"
    return ""


def _superseded(history: list[tuple[int, str]], sha: str) -> tuple[int, int] | None:
    """(the serial that had this hash, the newest one), when the newest has another."""
    history.sort()
    if not history or not sha or history[-1][1] == sha:
        return None
    serials = [serial for serial, old in history if old == sha]
    return (serials[-1], history[-1][0]) if serials else None


def unsafe_changes(
    desired: Tree,
    survey: Survey,
    options: Options,
    *,
    steps: Iterable[Step],
    standings: Mapping[str, Standing],
    abandoned: Iterable[tuple[str, str, str]],
    apps: Collection[str] | None,
) -> tuple[UnsafeChange, ...]:
    """`abandoned`: (app, replica, node with the data, or “, ” between those that may have it). `apps`: of a partial
    apply, else None."""
    done = list(steps)
    left = sorted(abandoned)
    publications = [step.work for step in done if isinstance(step.work, Publish)]
    found = [
        *_rewind(desired, survey.head, options, apps),
        *_apps_gone(desired, survey, standings),
        *_apps_emptied(desired, survey, done, standings),
        *_withdrawn(desired, survey, publications),
        *_joined(survey, publications),
        *_unfenced(survey, standings, options, publications, left),
    ]
    found += [
        UnsafeChange("abandon-data", f"{app}/{replica}", f"{app}.{replica} leaves its data on {node}")
        for app, replica, node in left
    ]
    refused = (c for c in found if c.kind == REWIND or not allowed(c, options.named))
    return tuple(sorted(refused, key=lambda c: (c.kind, c.name)))


def _rewind(desired: Tree, head: Head | None, options: Options, apps: Collection[str] | None) -> Iterable[UnsafeChange]:
    """A working copy that was replaced, which no command permits by itself (`Options.lineage`); a tree, or an app, that
    was. An edit of an app that was behind makes a new one, and would take back all that others have changed in it."""
    replaced = fenced(options.lineage, head.lineage if head else None)
    if REWIND in options.named:
        return [UnsafeChange("rewind", "", replaced)] if replaced else []
    message = behind(desired.sha256, desired.app_sha256, head, options.base_serial, apps)
    edited = [name for name in options.before if name in desired.apps]
    message = message or behind("", options.before, head, options.base_serial, edited)
    said = "; ".join(one for one in (replaced, message) if one)
    return [UnsafeChange("rewind", "", said)] if said else []


def _apps_gone(desired: Tree, survey: Survey, standings: Mapping[str, Standing]) -> Iterable[UnsafeChange]:
    for name in sorted(standings):
        if name not in desired.apps:
            count = sum(len(containers) for containers in survey.replicas(name).values())
            containers = "1 container is" if count == 1 else f"{count} containers are"
            yield UnsafeChange("remove-app", name, f"{name} is gone from the tree: {containers} removed")


def _apps_emptied(
    desired: Tree, survey: Survey, steps: Iterable[Step], standings: Mapping[str, Standing]
) -> Iterable[UnsafeChange]:
    stopped = {step.work.id for step in steps if isinstance(step.work, Target) and step.action in ("stop", "remove")}
    started = {step.app for step in steps if step.action == "start"}
    for name in sorted(standings):
        app = desired.apps.get(name)
        if app is None or app.stopped or name in started:
            continue
        running = [c for containers in survey.replicas(name).values() for c in containers if c.running]
        if running and all(container.id in stopped for container in running):
            yield UnsafeChange("empty-app", name, f"{name} has {len(running)} replicas running and would have none")


def _withdrawn(desired: Tree, survey: Survey, publications: Iterable[Publish]) -> Iterable[UnsafeChange]:
    adds: dict[GroupKey, dict[str, set[str]]] = {}
    removes: dict[GroupKey, dict[str, set[str]]] = {}
    for work in publications:
        key = (work.kind, work.group)
        for slot in work.add:
            adds.setdefault(key, {}).setdefault(slot.app, set()).add(slot.label)
        for slot in work.remove:
            if _serves(survey, slot):
                removes.setdefault(key, {}).setdefault(slot.app, set()).add(slot.container)
    for key, apps_of in sorted(removes.items()):
        lost = sum(max(0, len(gone) - len(adds.get(key, {}).get(app, ()))) for app, gone in apps_of.items())
        total = _healthy(survey, survey.groups[key])
        safety = desired.cluster.safety
        if lost >= max(1, safety.min) and lost * 100 > safety.withdraw_percent * total:
            detail = f"{lost} of {total} endpoints of {key[0]} group {key[1]} go with no replacement"
            yield UnsafeChange("withdraw", key[1], f"{detail} (limit {safety.withdraw_percent:g}%)")


def _serves(survey: Survey, slot: Slot) -> bool:
    container = survey.by_id.get(slot.container)
    return container is not None and container.running


def _healthy(survey: Survey, group: Group) -> int:
    """Replicas published there that run, or that can't be asked."""
    published = {(e.container, e.node) for endpoints in group.endpoints.values() for e in endpoints}

    def counts(container: Container | None, node: str) -> bool:
        return node in survey.unknown if container is None else container.running

    return sum(counts(survey.by_id.get(id), node) for id, node in published)


def _joined(survey: Survey, publications: Iterable[Publish]) -> Iterable[UnsafeChange]:
    """An app name that another cluster publishes in a group, and this one didn't so far."""
    owners: dict[str, set[str]] = {}
    for work in publications:
        group = survey.groups[work.kind, work.group]
        if not any(member.others for member in group.members):
            continue
        coming = {slot.app for slot in work.add} | set(work.settle)
        for app in sorted(name for name in coming if not group.mentions(name)):
            for member in group.members:
                for other in member.others:
                    if app in by_app(other) or app in settled_by_app(other):
                        owners.setdefault(app, set()).add(f"{other.name} ({other.cluster})")
    for app, names in sorted(owners.items()):
        yield UnsafeChange("join", app, f"{app} is already published by cluster {', '.join(sorted(names))}")


def _unfenced(
    survey: Survey,
    standings: Mapping[str, Standing],
    options: Options,
    publications: Iterable[Publish],
    abandoned: Iterable[tuple[str, str, str]],
) -> Iterable[UnsafeChange]:
    """A node declared dead that may still serve: its places are given away."""
    if not survey.dead:
        return
    given_up = {slot.node for work in publications for slot in work.remove if not slot.generation}
    given_up |= {node for standing in standings.values() for node in standing.homes.values()}
    given_up |= {node for _, _, nodes in abandoned for node in nodes.split(", ")}
    for node in sorted(survey.dead & given_up - options.fenced):
        yield UnsafeChange("unfenced", node, f"{node} is declared dead, and nothing says that it is off")
