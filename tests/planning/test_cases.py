"""Golden cases: cases/NAME.yaml (what is desired and observed) leads to cases/NAME.plan. A new case needs no code.

    before:   a tree that was applied before (default: nothing was); `tree` is laid over it
    tree:     the tree now: cluster, nodes, gateways, dns, apps; null takes a thing away
    observed: what is otherwise than at rest: containers (LABEL: null | changes), published, unpublished [LABEL …],
              withdrawn (gateway | dns: [LABEL …]),
              settled [APP …: its routes, checks and records are those of the tree now], nodes / gateways / dns
              (NAME: changes), head (held, continued, former and options.failed: the image that stands for
              the spec; former: with what was published before)
    options.former: true: what was published before
    scope, options, archs

`K4T_WRITE_CASES=1 pytest tests/planning` writes the plans anew, to be read before they are committed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from k4t.master.planning.endpoints import compose
from k4t.master.planning.former import documents, of_app
from k4t.master.planning.plan import Options, Plan
from k4t.master.planning.reconcile import reconcile
from k4t.master.planning.refresh import identity
from k4t.master.planning.report import as_text
from k4t.master.planning.specs import spec_hash
from k4t.master.planning.survey import slot_of
from k4t.model.app import Image
from k4t.model.spec import Tree
from k4t.model.state import Container, Former, Observed, Stranger
from k4t.registrar.document import Document
from tests.planning import world

pytestmark = pytest.mark.unit
CASES = Path(__file__).parent / "cases"


def merged(below: Any, above: Any) -> Any:
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    both = {**below, **{key: merged(below[key], item) if key in below else item for key, item in above.items()}}
    return {key: item for key, item in both.items() if item != "away"}


def observe(desired: Tree, case: Mapping[str, Any]) -> Observed:
    before = world.tree(case["before"]) if "before" in case else desired
    start = world.empty(dataclasses.replace(desired, nodes={**before.nodes, **desired.nodes}))
    observed = world.at_rest(before, start) if "before" in case else start
    changes = case.get("observed", {})
    observed = _containers(desired, before, observed, changes)
    hosts = {
        kind: {name: _host(state, changes.get(kind, {}).get(name)) for name, state in getattr(observed, kind).items()}
        for kind in ("nodes", "gateways", "dns")
    }
    observed = Observed(**hosts)
    if "head" in changes:
        first = next(iter(observed.nodes))
        specs: dict[str, Any] = {
            key: {app: _spec(desired, app, image) for app, image in changes["head"].get(key, {}).items()}
            for key in ("held", "continued")
        }
        former = {
            app: Former(
                _spec(desired, app, image), tuple(of_app(d, app) for d in documents(world.at_rest(before)).values())
            )
            for app, image in changes["head"].get("former", {}).items()
        }
        held_at = changes["head"].get("held_at", {})
        head = dataclasses.replace(world.head(changes["head"]), **specs, held_at=held_at, former=former)
        held = dataclasses.replace(observed.nodes[first], head=head)
        observed = dataclasses.replace(observed, nodes={**observed.nodes, first: held})
    return observed


def _host(state: Any, changes: Mapping[str, Any] | None) -> Any:
    fields = dict(changes or {})
    if "others" in fields:
        fields["others"] = tuple(world.build(Document, other) for other in fields["others"])
    if "strangers" in fields:
        fields["strangers"] = tuple(world.build(Stranger, stranger) for stranger in fields["strangers"])
    if "facts" in fields:
        fields["facts"] = dataclasses.replace(state.facts, **fields["facts"])
    if "differences" in fields:
        fields["differences"] = tuple(fields["differences"])
    if fields.get("reachable") is False and hasattr(state, "containers"):
        fields["containers"] = ()
    if fields.pop("nothing", False):
        fields["document"] = None
    return dataclasses.replace(state, **fields)


def _containers(desired: Tree, before: Tree, observed: Observed, changes: Mapping[str, Any]) -> Observed:
    model = world.Model(desired, observed)
    label = {world.label(container): container for container in model.containers.values()}
    for name, change in changes.get("containers", {}).items():
        if name in label:
            del model.containers[label[name].id]
        if change is not None:
            made = dataclasses.replace(_made(desired, before, name, label), **change)
            model.containers[made.id] = made
    gone = {label[name].id for name in changes.get("unpublished", ())}
    for key, document in model.documents.items():
        lost = gone | {label[name].id for name in changes.get("withdrawn", {}).get(key[0], ())}
        kept = tuple(endpoint for endpoint in document.endpoints if endpoint.container not in lost)
        model.documents[key] = dataclasses.replace(document, endpoints=kept)
    coming = [one for one in model.containers.values() if world.label(one) in changes.get("published", ())]
    for (kind, group), document in model.documents.items():
        added = [(slot_of(one), one) for one in coming]
        settled = changes.get("settled", ())
        model.documents[kind, group] = compose(document, desired, kind, group, add=added, settle=settled)
    return model.observe()


def _spec(desired: Tree, app: str, image: str) -> str:
    """Of the app as it is now, with this image; "" of one that is gone."""
    if app not in desired.apps:
        return ""
    changed = dataclasses.replace(desired.apps[app], image=Image(image))
    return identity(changed, spec_hash(changed, f"sha256:{image}"))


def _made(desired: Tree, before: Tree, name: str, there: Mapping[str, Container]) -> Container:
    if name in there:
        return there[name]
    slot = world.slot(name)
    return world.container_of(desired, desired.apps.get(slot.app) or before.apps[slot.app], slot)


def plan(case: Mapping[str, Any]) -> tuple[Tree, Observed, Plan]:
    desired = world.tree(merged(case.get("before", {}), case.get("tree", {})))
    observed = observe(desired, case)
    options = _options(desired, case)
    images = world.images(desired, case.get("archs"))
    return desired, observed, reconcile(desired, observed, images=images, scope=case.get("scope"), options=options)


def _options(desired: Tree, case: Mapping[str, Any]) -> Options:
    given: dict[str, Any] = dict(case.get("options", {}))
    sets: dict[str, Any] = {
        name: frozenset(given.pop(name)) for name in ("named", "fenced", "proceed", "recycle") if name in given
    }
    sets["restart"] = frozenset(tuple(name.split(".")) for name in given.pop("restart", ()))
    failed = {app: _spec(desired, app, image) for app, image in given.pop("failed", {}).items()}
    former = documents(world.at_rest(world.tree(case["before"]))) if given.pop("former", False) else {}
    return dataclasses.replace(Options(**given), **sets, failed=failed, former=former)


@pytest.mark.parametrize("path", sorted(CASES.glob("*.yaml")), ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    """Desired and observed lead to this plan, to the letter; done in the model, it leads to an empty one."""
    case = yaml.safe_load(path.read_text())
    desired, observed, made = plan(case)
    golden = path.with_suffix(".plan")
    if os.environ.get("K4T_WRITE_CASES"):
        golden.write_text(as_text(made))
    assert as_text(made) == golden.read_text()
    if case.get("converges", True):
        model = world.Model(desired, observed, case.get("options", {}).get("now_s", 0.0))
        model.apply(made)
        once = {name: frozenset[str]() for name in ("named", "recycle", "restart")}
        options = dataclasses.replace(_options(desired, case), **once)  # type: ignore[arg-type]
        again = reconcile(
            desired,
            model.observe(),
            images=world.images(desired, case.get("archs")),
            scope=case.get("scope"),
            options=options,
        )
        assert again.empty, as_text(again)
