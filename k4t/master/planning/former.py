"""Where a failed update goes back to, beside its containers: routes, checks and records as they were before it began.

Nothing on a node tells them, so the head does: they are written there before the first step of an update that changes
containers and what leads to them, and stay until it is complete. A run on another machine puts back the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from k4t.master.planning.certificates import certified
from k4t.master.planning.endpoints import settled_by_app
from k4t.master.planning.plan import Create, Plan
from k4t.master.planning.refresh import of_spec
from k4t.model.app import App, Health, HttpProbe
from k4t.model.participant import Kind
from k4t.model.spec import Tree
from k4t.model.state import Former, Head, Observed
from k4t.registrar.document import Check, Document


def documents(observed: Observed) -> dict[tuple[Kind, str], Document]:
    """What each group holds, by its newest member."""
    found: dict[tuple[Kind, str], Document] = {}
    for state in (*observed.gateways.values(), *observed.dns.values()):
        key = (state.kind, state.group)
        if state.document is not None and (key not in found or state.document.version > found[key].version):
            found[key] = state.document
    return found


def of_app(document: Document, app: str) -> Document:
    """What leads to one app."""
    found = dataclasses.replace(
        document,
        endpoints=(),
        checks=tuple(one for one in document.checks if one.app == app),
        routes=tuple(one for one in document.routes if one.app == app),
        records=tuple(one for one in document.records if one.app == app),
    )
    return certified(found, document.certificates)


def begun(head: Head, plan: Plan, observed: Observed) -> dict[str, Former]:
    """What the head is to hold before a plan is carried out. An update that goes on keeps what its first run found; so
    does another one as long as nothing of the unfinished one runs."""
    created = {step.app for step in plan.steps if isinstance(step.work, Create)}
    settled = {name for work in plan.publications() for name in work.settle}
    seen = (one for node in observed.nodes.values() for one in node.containers if one.running)
    running = {(one.app, one.spec) for one in seen}
    live = documents(observed)
    found = dict(head.former)
    for app in sorted(created & settled & plan.specs.keys()):
        known, spec = found.get(app), plan.specs[app]
        if known is not None and (known.spec == spec or (app, of_spec(known.spec)) not in running):
            found[app] = dataclasses.replace(known, spec=spec)
            continue
        found[app] = _of(app, spec, live)
    for app in sorted((settled & set(plan.scope)) - plan.specs.keys() - found.keys()):
        found[app] = _of(app, "", live)  # gone from the tree: how long its name may be remembered is told by this alone
    return found


def _of(app: str, spec: str, live: Mapping[tuple[Kind, str], Document]) -> Former:
    return Former(spec, tuple(of_app(document, app) for document in live.values() if app in settled_by_app(document)))


def ended(former: Mapping[str, Former], plan: Plan, unfinished: Iterable[str]) -> dict[str, Former]:
    """What is left of it after a plan: of apps that it was not about, or did not finish, hold or let wait."""
    left = {*unfinished, *plan.held, *plan.paused}
    return {app: one for app, one in former.items() if app in left or app not in plan.scope}


def of_then(app: App, former: Former) -> App:
    """The app as its containers of then are asked for their health."""
    checks = [check for document in former.documents for check in document.checks]
    if not checks:
        return app
    told = next((check for check in checks if check.kind == "http"), None)
    return dataclasses.replace(app, health=_health(app, told) if told else None)


def _health(app: App, check: Check) -> Health:
    probe = HttpProbe(check.port_name, check.path, (check.status_min, check.status_max), check.headers)
    start_period_s = app.health.start_period_s if app.health else Health(probe).start_period_s
    return Health(probe, check.interval_ms / 1000, check.timeout_ms / 1000, check.retries, start_period_s)


def groups_of(former: Former) -> tuple[tuple[Kind, str], ...]:
    """Those that held its endpoints then."""
    return tuple(
        sorted(
            (document.kind, document.group)  # type: ignore[misc]
            for document in former.documents
            if (document.routes if document.kind == "gateway" else any(not one.to for one in document.records))
        )
    )


def document_of(former: Former, desired: Tree, key: tuple[Kind, str]) -> Document:
    """What a group held of it then: nothing, where it was not in it."""
    there = (one for one in former.documents if (one.kind, one.group) == key)
    return next(there, Document(desired.cluster.id, desired.cluster.name, *key))
