"""How many replicas an app with `<scale>` has: as many as were asked for last, within its min and max. Pure.

The number stands in the head and nowhere in the tree. Where none was ever asked for, what runs counts, and what is
published from nodes that can't be asked: so nothing shrinks because a node, or its memory, is gone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping

from k4t.model.app import App, Scale
from k4t.model.spec import Tree
from k4t.model.state import Head, Observed, Size

NOBODY: Mapping[str, int] = {}


def sized(desired: Tree, observed: Observed, head: Head | None, asked: Mapping[str, int] = NOBODY) -> Tree:
    """The tree with a number of replicas for each app with `<scale>`. `asked`: what this very run asks for."""
    apps = {name: app for name, app in desired.apps.items() if app.scale is not None}
    if not apps:
        return desired
    running = _running(observed, apps)
    counted = {
        name: dataclasses.replace(app, replicas=within(app.scale, _wish(name, head, asked, running)))
        for name, app in apps.items()
        if app.scale is not None
    }
    return dataclasses.replace(desired, apps={**desired.apps, **counted})


def within(scale: Scale, replicas: int) -> int:
    return min(scale.max, max(scale.min, replicas))


def told(
    desired: Tree, observed: Observed, head: Head | None, asked: Mapping[str, int], scope: Collection[str]
) -> dict[str, str]:
    """Of the apps in scope that get another number of replicas than they had: “2 → 4 replicas: asked for now”.
    `desired`: as sized."""
    apps = {name: app for name, app in desired.apps.items() if app.scale is not None and name in scope}
    running = _running(observed, apps) if apps else {}
    found = {}
    for name, app in apps.items():
        if app.replicas is None or app.scale is None:
            continue
        known = head.sizes.get(name) if head else None
        now = running.get(name, 0)
        before = known.replicas if known is not None else now
        if name in asked:
            before = within(app.scale, before) if known is not None else before
        elif now == app.replicas:
            continue  # it has been so for long
        if now and before != app.replicas:
            found[name] = f"{before} → {app.replicas} replicas: {_cause(app.replicas, app.scale, asked=name in asked)}"
    return found


def remembered(
    desired: Tree, observed: Observed, head: Head | None, *, asked: Mapping[str, int], scope: Iterable[str], wish: Size
) -> dict[str, Size]:
    """The sizes that the next head knows. `desired`: as sized; `wish`: who asks now, when and why. What was not asked
    for is kept too, once all nodes have answered: else more of it may run than is seen."""
    known = dict(head.sizes) if head else {}
    sure = all(state.reachable for state in observed.nodes.values())
    for name in scope:
        app = desired.apps.get(name)
        if app is None or app.scale is None or app.replicas is None:
            known.pop(name, None)
        elif name in asked:
            if name not in known or known[name].replicas != asked[name]:
                known[name] = dataclasses.replace(wish, replicas=asked[name])
        elif name not in known and sure:
            known[name] = Size(app.replicas, at=wish.at)
    return known


def is_new(head: Head | None, asked: Mapping[str, int]) -> bool:
    """Whether what is asked for is other than what was."""
    known = head.sizes if head else {}
    return any(name not in known or known[name].replicas != number for name, number in asked.items())


def why(app: App, head: Head | None) -> str:
    """Why it has the size that it has, in words; "" for an app without `<scale>`. `app`: as sized."""
    if app.scale is None:
        return ""
    bounds = f"{app.scale.min} to {app.scale.max}"
    known = head.sizes.get(app.name) if head else None
    if known is None:
        return f"{bounds}; nobody has asked for a number, so what runs counts"
    clamped = "" if known.replicas == app.replicas else f", which is outside: {app.replicas} it is"
    if not known.who:
        return f"{bounds}; nobody has asked for another number since {known.at}, when it had {known.replicas}{clamped}"
    told = f" ({known.why})" if known.why else ""
    return f"{bounds}; {known.who} asked for {known.replicas} at {known.at}{told}{clamped}"


def _wish(name: str, head: Head | None, asked: Mapping[str, int], running: Mapping[str, int]) -> int:
    if name in asked:
        return asked[name]
    known = head.sizes.get(name) if head else None
    return known.replicas if known is not None else running.get(name, 0)


def _cause(after: int, scale: Scale, *, asked: bool) -> str:
    if asked:
        return "asked for now"
    return f"{'min' if after == scale.min else 'max'} is {after}"


def _running(observed: Observed, apps: Collection[str]) -> dict[str, int]:
    """By app: the highest number of a replica that is seen or published, and one; at least as many as there are."""
    seen: dict[str, set[str]] = {}
    for state in observed.nodes.values():
        for one in state.containers:
            if one.app in apps:
                seen.setdefault(one.app, set()).add(one.replica)
    for member in (*observed.gateways.values(), *observed.dns.values()):
        for endpoint in member.document.endpoints if member.document else ():
            if endpoint.app in apps:
                seen.setdefault(endpoint.app, set()).add(endpoint.replica)
    return {
        app: max(len(names), *(int(name) + 1 if name.isdigit() else 0 for name in names)) for app, names in seen.items()
    }
