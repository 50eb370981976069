"""After a failed update: which specs are to blame, whether there is a way back, and how the outcome says it.

What is put back is planned like everything else (planning.goback), from what is really there after the failure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from k4t.errors import HostFull, NameTaken, PullFailed, RegistrarMismatch, StepError
from k4t.master.execute import Executed, Failure
from k4t.master.planning.plan import Plan, Target
from k4t.master.planning.refresh import differs, of_spec
from k4t.model.spec import Tree
from k4t.model.state import Observed
from k4t.model.value import value

SPEAKING = ("create", "start", "await")
"""Actions whose failure says something about the spec."""
NOT_THE_SPEC = (PullFailed, HostFull, NameTaken, RegistrarMismatch)


@value
class RolledBack:
    """`failed`: the specs that are held from now on, by app. `plan` is what put back, `executed` what became of it."""

    failed: Mapping[str, str]
    plan: Plan
    executed: Executed

    @property
    def complete(self) -> bool:
        return not (self.executed.failed or self.executed.skipped)


def suspects(tree: Tree, plan: Plan, executed: Executed) -> dict[str, str]:
    """The specs that did not get healthy, of the apps that want to be rolled back."""
    apps = {failure.step.app for failure in executed.failed if _blames_the_spec(failure)}
    wanting = (app for app in sorted(apps) if app in tree.apps and tree.apps[app].update.on_failure == "rollback")
    return {app: plan.specs[app] for app in wanting if app in plan.specs}


def _blames_the_spec(failure: Failure) -> bool:
    """A host that goes away, or is full, would have stopped any spec: the next run goes on."""
    error = failure.error
    return failure.step.action in SPEAKING and isinstance(error, StepError) and not isinstance(error, NOT_THE_SPEC)


def with_a_way_back(specs: Mapping[str, str], tree: Tree, observed: Observed) -> dict[str, str]:
    """Those apps of which a container of before still exists. A first deploy has nothing to go back to."""
    there = [one for node in observed.nodes.values() for one in node.containers if one.app in specs]
    others = {one.app for one in there if one.spec != of_spec(specs[one.app]) or differs(tree.apps[one.app], one)}
    return {app: spec for app, spec in specs.items() if app in others}


def told(plan: Plan) -> Iterator[str]:
    """What will be put back, in words."""
    targets = [(step, step.work) for step in plan.steps if isinstance(step.work, Target)]
    for app in sorted({step.app for step, _ in targets}):
        parts = [f"{step.action} {work.name} on {step.node}" for step, work in targets if step.app == app]
        yield f"{app} did not get healthy, what this run changed is put back: {', '.join(parts)}"


def sentences(undone: RolledBack) -> tuple[str, ...]:
    """What the summary says of each app."""
    incomplete = {failure.step.app for failure in undone.executed.failed}
    incomplete |= {step.app for step, _ in undone.executed.skipped}
    begun = {step.app for step in undone.plan.steps}
    return tuple(
        _sentence(app, spec, whole=app not in incomplete, begun=app in begun) for app, spec in undone.failed.items()
    )


def _sentence(app: str, spec: str, *, whole: bool, begun: bool) -> str:
    held = f"spec {spec[:11]}… did not get healthy, and is held: change it, or --retry"
    if not begun:
        return f"{app} stays as it is, since there is nothing to put back: {held}"
    if whole:
        return f"{app} is rolled back: {held}"
    return f"{app} is rolled back in part, the next apply goes on with that: {held}"


def together(executed: Executed, undone: RolledBack) -> Executed:
    """One account of both, but for what only follows from the failure of an app that is rolled back."""
    bad = {failure.step.id for failure in executed.failed} | {step.id for step, _ in executed.skipped}
    failed = [one for one in executed.failed if one.step.app not in undone.failed or bad.isdisjoint(one.step.awaits)]
    skipped = [(step, because) for step, because in executed.skipped if step.app not in undone.failed]
    then = undone.executed
    return Executed(
        executed.done + then.done, failed + then.failed, skipped + then.skipped, interrupted=then.interrupted
    )  # fmt: skip
