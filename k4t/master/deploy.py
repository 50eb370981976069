"""The story of an apply, readable from top to bottom.

    read the tree → observe → reconcile → check safety → confirm → lock → observe again
                  → execute and publish, wave by wave → verify → record

`plan` goes as far as the safety check; `apply` goes all the way. What each word means stands in the module of its
name; docs/life-of-an-apply.md follows one object through them.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k4t import failpoints
from k4t.errors import Interrupted, Partial, Unsafe, gravest
from k4t.master import hooks, late, rollback, tidy
from k4t.master.decide import Decision, Request
from k4t.master.effective import effective
from k4t.master.execute import Executed, Execution
from k4t.master.observe import observe
from k4t.master.planning import former, hold, report, serials
from k4t.master.planning.jobs import placed
from k4t.master.planning.plan import Options, Plan, Publish
from k4t.master.planning.reconcile import reconcile
from k4t.master.rollback import RolledBack
from k4t.model.events import Note
from k4t.model.state import Head, Observed

if TYPE_CHECKING:
    from k4t.master.locking import Locks
    from k4t.master.run import Run

Confirm = Callable[[Plan], None]
Worked = tuple[Decision, Executed, RolledBack | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an apply ended. `failed`: (step id, host, error); `not_done`: sentences naming what is not. `warnings`: of a
    plan with nothing to do, which nobody was shown. `waiting`: (step id, the step it waited for in vain), which
    `not_done` names too."""

    serial: int
    result: str
    done: int = 0
    failed: tuple[tuple[str, str, str], ...] = ()
    not_done: tuple[str, ...] = ()
    exit_status: int = 0
    warnings: tuple[str, ...] = ()
    waiting: tuple[tuple[str, str], ...] = ()


def apply(run: Run, request: Request, confirm: Confirm) -> Outcome:
    """Do what the tree says. `confirm` shows a plan and returns, or raises. Raises K4tError when nothing was begun."""
    unfinished = run.unfinished()
    first = late.look(run, request)
    if first.plan.empty and not first.news and not unfinished:
        _refuse_unsafe(first.plan)
        return _outcome(first, Executed())
    if not first.plan.empty:
        confirm(first.plan)
    _refuse_unsafe(first.plan)
    run.vault.fetch_for(first.plan.steps, first.observed)
    run.copy.prepare()
    failpoints.reach("before:lock")
    with hooks.around(run, request.message) as hook, run.lock() as locks, _left_at_once(run):
        _recover(run, request)
        decision = _look_again(run, request, first, confirm, locks)
        hook.begin(decision.plan)
        decision, executed, undone = _take_in(run, request, _work(run, request, decision), confirm, locks)
        outcome = _owed(run, _verified(run, executed, undone, _outcome(decision, executed, undone)))
        _record(run, request, decision, executed, outcome, undone=undone)
        hook.end(outcome)
    if executed.interrupted:
        return dataclasses.replace(outcome, exit_status=Interrupted.exit_status)
    return outcome


def _work(run: Run, request: Request, decision: Decision) -> Worked:
    decision = _declare(run, decision)
    tidy.tidy(run.fleet, decision.observed, run.emit)
    executed = _execute(run, request, decision)
    return decision, executed, _roll_back(run, request, decision, executed)


def _take_in(run: Run, request: Request, worked: Worked, confirm: Confirm, locks: Locks) -> Worked:
    """More passes, for nodes that were late. All are one revision, and one account."""
    for last in late.PASSES:
        before, executed, undone = worked
        if not before.late or executed.interrupted:
            break
        decision = late.take_in(run, request, before, executed, locks, last=last)
        if decision is None:
            return before, dataclasses.replace(executed, interrupted=True), undone
        serial = max(before.plan.serial, decision.plan.serial)
        decision = dataclasses.replace(decision, plan=dataclasses.replace(decision.plan, serial=serial))
        worked = decision, executed, undone
        if not decision.plan.empty:
            confirm(decision.plan)
            decision, then, put_back = _work(run, request, decision)
            worked = decision, late.together(executed, then), late.both(undone, put_back)
    return worked


def _recover(run: Run, request: Request) -> None:
    """Before anything else: what our own redo log has open is finished."""
    run.publisher.message = request.message
    for sentence in run.publisher.recover(degraded=request.degraded or None):
        run.emit(Note(sentence, warning=True))


@contextmanager
def _left_at_once(run: Run) -> Iterator[None]:
    """The second Ctrl-C: connections end before locks are given back, so that nothing of this run happens after."""
    failpoints.reach("after:lock")
    try:
        yield
    except KeyboardInterrupt:
        run.fleet.close()
        run.emit(Note("ended at once: the next run repairs what was under way", warning=True))
        raise


def _declare(run: Run, decision: Decision) -> Decision:
    """Which nodes are dead, and fenced, which apps go on beyond their canary, where jobs are begun, what a failed
    update goes back to, and how many replicas were asked for, is known everywhere before anything is started for it."""
    from k4t.master import record

    if decision.head is None:
        return decision
    going_on = {app: spec for app, spec in decision.plan.specs.items() if app in decision.proceed}
    continued = {**decision.head.continued, **going_on}
    jobs = {**decision.head.jobs, **placed(decision.plan.steps)}
    before = former.begun(decision.head, decision.plan, decision.observed)
    head = dataclasses.replace(
        decision.head, dead=decision.dead, continued=continued, jobs=jobs, former=before, sizes=decision.sizes
    )  # fmt: skip
    if head == decision.head:
        return decision
    head = dataclasses.replace(head, who=run.who, at=run.at)
    record.write_heads(run.fleet, head, run.emit)
    return dataclasses.replace(decision, head=head)


def _refuse_unsafe(plan: Plan) -> None:
    if plan.unsafe:
        reasons = "; ".join(change.detail for change in plan.unsafe)
        allows = " ".join(f"--allow {change.allow}" for change in plan.unsafe)
        raise Unsafe(f"unsafe: {reasons}", f"if that is meant, add {allows}")


def _look_again(run: Run, request: Request, first: Decision, confirm: Confirm, locks: Locks) -> Decision:
    """Between the question and the lock the world may have moved: the same plan goes on, another is asked for."""
    second = late.look(run, request, first, locks)
    if report.as_text(second.plan) == report.as_text(first.plan):
        return second
    run.emit(Note("the plan has changed since it was shown", warning=True))
    if not second.plan.empty:
        confirm(second.plan)
    _refuse_unsafe(second.plan)
    return second


def _execute(run: Run, request: Request, decision: Decision) -> Executed:
    from k4t.master.steps import Steps  # here and below: a plan with nothing to do needs none of it

    publications = (step.work for step in decision.plan.steps if isinstance(step.work, Publish))
    run.publisher.expect(Counter((work.kind, work.group) for work in publications))
    stopping = threading.Event()
    steps = Steps(
        run.fleet, run.publisher, decision.observed, directory=run.directory, vault=run.vault,
        host_lock=run.host_lock, degraded=request.degraded, emit=run.emit, stopping=stopping,
    )  # fmt: skip
    return Execution(decision.plan.steps, steps.perform, run.emit, stopping).run()


def _roll_back(run: Run, request: Request, decision: Decision, executed: Executed) -> RolledBack | None:
    """Put back what this run changed of apps that did not get healthy. That they are held is written down first."""
    specs = rollback.suspects(run.tree, decision.plan, executed)
    if not specs or executed.interrupted:
        return None
    observed = effective(run.fleet, observe(run.fleet))
    failed = rollback.with_a_way_back(specs, decision.tree or run.tree, observed)
    if not failed:
        return None
    from k4t.master import record

    before = decision.head or Head(run.tree.cluster.id)
    held = hold.remembered(before, decision.plan, failed=failed, serial=decision.plan.serial)
    record.write_heads(run.fleet, dataclasses.replace(held, who=run.who, at=run.at), run.emit)
    failpoints.reach("before:rollback")
    before_it = former.documents(decision.observed)
    options = Options(degraded=request.degraded, failed=failed, former=before_it, sizes=request.sizes)
    plan = reconcile(
        decision.tree or run.tree, observed, images=decision.images.images, scope=failed, options=options
    )  # fmt: skip
    for sentence in rollback.told(plan):
        run.emit(Note(sentence, warning=True))
    return RolledBack(failed, plan, _execute(run, request, dataclasses.replace(decision, plan=plan, observed=observed)))


def _verified(run: Run, executed: Executed, undone: RolledBack | None, outcome: Outcome) -> Outcome:
    """Ask the nodes once more whether what was started still runs."""
    from k4t.master import verify

    missing = verify.not_running(run.fleet, [*executed.done, *(undone.executed.done if undone else ())])
    if not missing:
        return outcome
    worst = gravest((outcome.exit_status, 3))
    return dataclasses.replace(outcome, result="partial", not_done=outcome.not_done + missing, exit_status=worst)


def _owed(run: Run, outcome: Outcome) -> Outcome:
    """A member that was away while it was published to gets that later: done in part."""
    left = tuple(run.publisher.owed())
    if not left:
        return outcome
    worst = gravest((outcome.exit_status, 3))
    return dataclasses.replace(outcome, result="partial", not_done=outcome.not_done + left, exit_status=worst)


def _record(
    run: Run, request: Request, decision: Decision, executed: Executed, outcome: Outcome, *, undone: RolledBack | None
) -> None:
    """The head everywhere, and what this copy remembers, if this run changed anything or the tree is a new one."""
    from k4t.master import record

    plan = decision.plan
    if not executed.done and not decision.news:
        return
    failpoints.reach("before:record")
    failed = undone.failed if undone else {}
    not_applied = {*failed, *plan.held}
    scope = [app for app in plan.scope if app not in not_applied]
    about = record.changed_hashes(decision.head, record.app_hashes(run.tree, scope))
    head = serials.advance(
        decision.head, cluster=run.tree.cluster.id, serial=outcome.serial,
        tree=plan.tree if plan.whole and not not_applied else "",
        apps=about, digests={image.reference: image.digest for image in decision.images.images.values()},
        who=run.who, at=run.at, message=request.message, dead=decision.dead,
    )  # fmt: skip
    head = hold.remembered(head, plan, failed=failed, serial=outcome.serial, proceed=decision.proceed)
    unfinished = {*failed, *(one.step.app for one in executed.failed), *(step.app for step, _ in executed.skipped)}
    left = former.ended(head.former, plan, unfinished)
    head = dataclasses.replace(
        head, jobs={**head.jobs, **placed(plan.steps)}, former=left, sizes=decision.sizes,
        members=_ids(run, head, decision.observed),
        lineage=record.lineage(
            run.copy, decision.head, serial=outcome.serial, who=run.who, at=run.at, emit=run.emit
        ),
    )  # fmt: skip
    record.write_heads(run.fleet, head, run.emit)
    failpoints.reach("after:record")
    entry = {
        "at": run.at, "who": run.who, "message": request.message, "serial": outcome.serial, "result": outcome.result,
        "apps": list(request.apps), "allow": sorted(request.allow | request.named), "done": outcome.done,
    }  # fmt: skip
    record.remember(run.copy, head, about, entry, run.emit)


def _ids(run: Run, head: Head, observed: Observed) -> dict[str, str]:
    """Of what each gateway and DNS server of the tree keeps, as it was seen last: a blank one is told by another."""
    members = (*observed.gateways.values(), *observed.dns.values())
    known = {**head.members, **{f"{one.kind}/{one.name}": one.id for one in members if one.reachable and one.id}}
    return {name: id for name, id in known.items() if tuple(name.split("/")) in run.fleet.participants}


def _outcome(decision: Decision, executed: Executed, undone: RolledBack | None = None) -> Outcome:
    plan = decision.plan
    statuses = list(decision.statuses)
    if undone is not None:
        executed = rollback.together(executed, undone)
        statuses.append(1 if undone.complete else 3)
    failed = tuple(
        (failure.step.id, failure.error.host or failure.step.node, failure.error.words) for failure in executed.failed
    )
    waiting = tuple((step.id, because) for step, because in executed.skipped)
    skipped = tuple(f"{id} ({why if why == 'interrupted' else f'because of {why}'})" for id, why in waiting)
    unplaced = tuple(
        f"{item.app}.{item.replica} fits nowhere: {'; '.join(item.reasons)}" for item in plan.unschedulable
    )
    left = plan.not_done + plan.refused + unplaced + (rollback.sentences(undone) if undone else ())
    if failed or skipped:
        statuses.append(3 if executed.interrupted or _any_app_complete(executed) or _in_part(executed) else 1)
    result = "done" if executed.done else "nothing"
    if left or failed or skipped:
        result = "failed" if 1 in statuses and 3 not in statuses else "partial"
    serial = plan.serial if executed.done or decision.head is None else _serial(decision)
    warnings = plan.warnings if plan.empty else ()
    return Outcome(serial, result, len(executed.done), failed, skipped + left, gravest(statuses), warnings, waiting)


def _serial(decision: Decision) -> int:
    """Of a run that did nothing: the head's, or the next one when the tree is a new one."""
    head = decision.head
    if head is None:
        return 0
    return head.serial + 1 if decision.news else head.serial


def _any_app_complete(executed: Executed) -> bool:
    """Whether at least one app got everything it was to get: then the run was done in part, else it failed."""
    open_apps = {failure.step.app for failure in executed.failed} | {step.app for step, _ in executed.skipped}
    return any(step.app not in open_apps for step in executed.done)


def _in_part(executed: Executed) -> bool:
    """Whether old and new serve, and the next run goes on: nothing failed but publishing (or what waits for it), after
    something new was published or said so itself; or but taking away what no longer serves."""
    published = any(isinstance(step.work, Publish) and step.work.add for step in executed.done)
    changed = any(isinstance(step.work, Publish) or step.action == "await" for step in executed.done)
    return all(
        isinstance(failure.error, Partial)
        or (published and isinstance(failure.step.work, Publish))
        or (changed and failure.step.action in ("stop", "remove"))
        for failure in executed.failed
    )
