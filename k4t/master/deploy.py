"""The story of an apply, readable from top to bottom.

    read the tree → observe → reconcile → check safety → confirm → lock → observe again
                  → execute and publish, wave by wave → verify → record

`plan` goes as far as the safety check; `apply` goes all the way. What each word means stands in the module of its
name; docs/life-of-an-apply.md follows one object through them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from k4t.errors import Interrupted, K4tError, Unreachable, Unsafe, gravest
from k4t.master import verify
from k4t.master.execute import Executed, Execution
from k4t.master.fleet import Fleet
from k4t.master.history import WorkingCopy
from k4t.master.images import resolve_images
from k4t.master.observe import observe
from k4t.master.planning import blocked, report, serials
from k4t.master.planning.plan import Plan, ResolvedImage
from k4t.master.planning.reconcile import Options, reconcile
from k4t.master.publication.publish import Publisher
from k4t.master.record import record
from k4t.master.steps import Steps
from k4t.model.events import Emit, Note
from k4t.model.spec import Tree
from k4t.model.state import Head, Observed

Confirm = Callable[[Plan], None]
LockAll = Callable[[Fleet], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for. `apps` empty: the whole tree. `named`: unsafe changes that the command
    itself is about (`app remove web` names `remove-app:web`)."""

    apps: tuple[str, ...] = ()
    allow: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    degraded: bool = False
    pull: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """Who works, on which copy of the tree, with whose hands. `lock` holds the cluster's locks while entered."""

    directory: Path
    tree: Tree
    fleet: Fleet
    publisher: Publisher
    id: str
    who: str
    emit: Emit
    lock: LockAll
    logins: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def copy(self) -> WorkingCopy:
        return WorkingCopy(self.directory)


@dataclass(frozen=True, slots=True)
class Decision:
    """One look at the world and what follows from it. `statuses`: exit statuses of what could not be asked."""

    plan: Plan
    observed: Observed
    head: Head | None
    images: Mapping[str, ResolvedImage]
    statuses: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an apply ended. `failed`: (step id, host, error); `not_done`: sentences naming what is not."""

    serial: int
    result: str
    done: int = 0
    failed: tuple[tuple[str, str, str], ...] = ()
    not_done: tuple[str, ...] = ()
    exit_status: int = 0


def plan(run: Run, request: Request) -> Decision:
    """Observe, and decide what would have to be done. Changes nothing anywhere."""
    observed = observe(run.fleet)
    _need_someone(observed)
    head = serials.newest(observed.heads)
    images = resolve_images(run.fleet, observed, head, request.apps, pull=request.pull, directory=run.directory)
    options = Options(
        allow=request.allow,
        named=request.named,
        base_serial=run.copy.base_serial(),
        degraded=request.degraded,
    )
    decided = reconcile(run.tree, observed, images=images, scope=request.apps or None, options=options)
    possible, statuses = blocked.without_blocked(decided, run.tree, observed, degraded=request.degraded)
    return Decision(possible, observed, head, images, statuses)


def apply(run: Run, request: Request, confirm: Confirm) -> Outcome:
    """Do what the tree says. `confirm` shows a plan and returns, or raises. Raises K4tError when nothing was begun."""
    first = plan(run, request)
    if first.plan.empty and not serials.is_news(first.plan, run.tree, first.head):
        return _outcome(first, Executed())
    _refuse_unsafe(first.plan)
    if not first.plan.empty:
        confirm(first.plan)
    run.copy.prepare()
    with run.lock(run.fleet):
        decision = _look_again(run, request, first, confirm)
        executed = _execute(run, decision)
        outcome = _verified(run, decision, _outcome(decision, executed))
        record(run.fleet, run.copy, decision.plan, decision.head, decision.images, request, outcome, run.who, run.emit)
    if executed.interrupted:
        return dataclasses.replace(outcome, exit_status=Interrupted.exit_status)
    return outcome


def _need_someone(observed: Observed) -> None:
    """A cluster none of whose nodes answers can't be planned for: the gravest reason is the run's."""
    nodes = list(observed.nodes.values())
    if nodes and not any(node.reachable for node in nodes):
        worst = gravest(node.exit_status for node in nodes)
        said = "; ".join(node.problem for node in nodes if node.exit_status == worst)
        error = Unreachable(said if len(nodes) == 1 else f"no node can be asked: {said}")
        error.exit_status = worst
        raise error


def _refuse_unsafe(plan: Plan) -> None:
    if plan.unsafe:
        reasons = "; ".join(change.detail for change in plan.unsafe)
        allows = " ".join(f"--allow {change.allow}" for change in plan.unsafe)
        raise Unsafe(f"unsafe: {reasons}", f"if that is meant: {allows}")


def _look_again(run: Run, request: Request, first: Decision, confirm: Confirm) -> Decision:
    """Between the question and the lock the world may have moved: the same plan goes on, another is asked for."""
    second = plan(run, request)
    if report.as_text(second.plan) == report.as_text(first.plan):
        return second
    run.emit(Note("the plan has changed since it was shown", warning=True))
    _refuse_unsafe(second.plan)
    if not second.plan.empty:
        confirm(second.plan)
    return second


def _execute(run: Run, decision: Decision) -> Executed:
    steps = Steps(
        run.fleet, run.publisher, decision.observed, directory=run.directory, logins=run.logins, emit=run.emit
    )
    execution = Execution(decision.plan.steps, steps.perform, run.emit)
    steps.stopping = execution.stopping
    return execution.run()


def _verified(run: Run, decision: Decision, outcome: Outcome) -> Outcome:
    """Ask the nodes once more whether what was started still runs."""
    missing = verify.not_running(run.fleet, decision.plan) if outcome.done else ()
    if not missing:
        return outcome
    statuses = (outcome.exit_status, 3)
    return dataclasses.replace(
        outcome, result="partial", not_done=outcome.not_done + missing, exit_status=gravest(statuses)
    )


def _outcome(decision: Decision, executed: Executed) -> Outcome:
    plan = decision.plan
    failed = tuple(
        (failure.step.id, failure.error.host or failure.step.node, str(failure.error)) for failure in executed.failed
    )
    skipped = tuple(f"{step.id} (because of {because})" for step, because in executed.skipped)
    left = plan.not_done + tuple(f"{item.app}.{item.replica}: {', '.join(item.reasons)}" for item in plan.unschedulable)
    statuses = list(decision.statuses)
    if left and not statuses:
        statuses.append(3)
    if failed or skipped:
        statuses.append(3 if _any_app_complete(executed) else 1)
    if failed or skipped or left:
        result = "partial" if executed.done or not (failed or skipped) else "failed"
        if 1 in statuses and 3 not in statuses:
            result = "failed"
    else:
        result = "done" if executed.done else "nothing"
    return Outcome(plan.serial, result, len(executed.done), failed, skipped + left, gravest(statuses))


def _any_app_complete(executed: Executed) -> bool:
    """Whether at least one app got everything it was to get: then the run was done in part, else it failed."""
    open_apps = {failure.step.app for failure in executed.failed} | {step.app for step, _ in executed.skipped}
    return any(step.app not in open_apps for step in executed.done)


def error_of(error: BaseException) -> K4tError:
    return error if isinstance(error, K4tError) else K4tError(f"{type(error).__name__}: {error}")
