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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from k4t import failpoints
from k4t.errors import Interrupted, InvalidTree, Partial, Unreachable, Unsafe, Usage, gravest
from k4t.master import hooks, rollback
from k4t.master.effective import effective
from k4t.master.execute import Executed, Execution
from k4t.master.images import resolve_images
from k4t.master.observe import observe
from k4t.master.planning import away, hold, report, serials
from k4t.master.planning.capable import inexpressible
from k4t.master.planning.endpoints import by_app, settled_by_app
from k4t.master.planning.jobs import placed
from k4t.master.planning.plan import Options, Plan, Publish, ResolvedImage
from k4t.master.planning.reconcile import reconcile
from k4t.master.rollback import RolledBack
from k4t.model.events import Note
from k4t.model.spec import Tree
from k4t.model.state import Dead, Head, NodeState, Observed, ParticipantState

if TYPE_CHECKING:
    from k4t.master.run import Run

Confirm = Callable[[Plan], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for. `apps` empty: the whole tree, or (`node`) the apps that this node concerns.
    `named`: unsafe changes that the command itself is about (`app remove web` names `remove-app:web`). `fenced`: nodes
    that were just switched off. `digests`: what image references stood for, to go back to. `retry`: also what is held.
    `proceed`: beyond the canary, for `apps`, or for every
    app that is paused. `recycle`: the oldest replica of these apps is replaced. `rebalance`: replicas may move."""

    apps: tuple[str, ...] = ()
    allow: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()
    degraded: bool = False
    pull: bool = False
    message: str = ""
    node: str = ""
    fenced: frozenset[str] = frozenset()
    digests: Mapping[str, str] = field(default_factory=dict)
    retry: bool = False
    proceed: bool = False
    recycle: frozenset[str] = frozenset()
    rebalance: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """One look at the world and what follows from it. `statuses`: exit statuses of what is left undone, and why.
    `dead`: given up nodes, as the next head has them. `news`: to be recorded even when there is nothing to do. `tree`:
    as it was decided by, with what is known of secrets."""

    plan: Plan
    observed: Observed
    head: Head | None
    images: Mapping[str, ResolvedImage]
    statuses: tuple[int, ...] = ()
    dead: Mapping[str, Dead] = field(default_factory=dict)
    news: bool = False
    tree: Tree | None = None
    proceed: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an apply ended. `failed`: (step id, host, error); `not_done`: sentences naming what is not."""

    serial: int
    result: str
    done: int = 0
    failed: tuple[tuple[str, str, str], ...] = ()
    not_done: tuple[str, ...] = ()
    exit_status: int = 0


def plan(run: Run, request: Request, resolved: Mapping[str, ResolvedImage] | None = None) -> Decision:
    """Observe, and decide what would have to be done. Changes nothing anywhere. `resolved`: images asked for before."""
    if findings := inexpressible(run.tree, run.fleet.participants.values()):
        raise InvalidTree(findings)
    observed = observe(run.fleet)
    _need_someone(observed)
    observed = effective(run.fleet, observed)
    head = serials.newest(observed.heads)
    scope = away.concerned(run.tree, observed, request.node) if request.node else request.apps or None
    names = run.tree.apps if scope is None else scope
    images = resolved or resolve_images(
        run.fleet, observed, _of_then(head, request), names, pull=request.pull, directory=run.directory, vault=run.vault
    )
    _need_known(run.tree, request, observed)
    canaries = frozenset(name for name in names if name in run.tree.apps and run.tree.apps[name].update.pause_after)
    options = Options(
        named=request.named | request.allow, degraded=request.degraded, base_serial=run.copy.base_serial(),
        fenced=request.fenced | away.off(run.tree, observed, head), retry=request.retry,
        recycle=request.recycle,
        rebalance=request.rebalance, now_s=datetime.fromisoformat(run.at).timestamp(),
    )  # fmt: skip
    tree, unknown = run.vault.digested(names)
    tree, returning = away.not_yet_back(tree, observed, head)
    if request.proceed:
        waiting = reconcile(tree, observed, images=images, scope=scope, options=options).paused
        if scope is None:
            scope = tuple(waiting)
        if not (waiting or canaries.intersection(request.apps)):
            raise Usage("nothing waits after a canary", "k4t plan shows what is to do")
        options = dataclasses.replace(options, proceed=canaries.intersection(scope))
    decided = reconcile(tree, observed, images=images, scope=scope, options=options)
    decided = dataclasses.replace(
        decided, warnings=decided.warnings + unknown, not_done=decided.not_done + returning
    )  # fmt: skip
    dead = away.dead_nodes(run.tree, observed, head, fenced=request.fenced)
    found = Decision(
        decided, observed, head, images, _statuses(decided, observed), dead, tree=tree, proceed=options.proceed
    )  # fmt: skip
    return dataclasses.replace(found, news=_is_news(found))


def apply(run: Run, request: Request, confirm: Confirm) -> Outcome:
    """Do what the tree says. `confirm` shows a plan and returns, or raises. Raises K4tError when nothing was begun."""
    first = plan(run, request)
    if first.plan.empty and not first.news:
        _refuse_unsafe(first.plan)
        return _outcome(first, Executed())
    if not first.plan.empty:
        confirm(first.plan)
    _refuse_unsafe(first.plan)
    run.vault.fetch_for(first.plan.steps)
    run.copy.prepare()
    failpoints.reach("before:lock")
    with hooks.around(run, request.message) as hook, run.lock(), _left_at_once(run):
        decision = _look_again(run, request, first, confirm)
        hook.begin(decision.plan)
        _declare(run, decision)
        executed = _execute(run, request, decision)
        undone = _roll_back(run, request, decision, executed)
        outcome = _verified(run, executed, undone, _outcome(decision, executed, undone))
        _record(run, request, decision, executed, outcome, undone=undone)
        hook.end(outcome)
    if executed.interrupted:
        return dataclasses.replace(outcome, exit_status=Interrupted.exit_status)
    return outcome


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


def _of_then(head: Head | None, request: Request) -> Head | None:
    """The head with the digests that a rollback goes back to."""
    if head is None or not request.digests:
        return head
    return dataclasses.replace(head, digests={**head.digests, **request.digests})


def _need_someone(observed: Observed) -> None:
    """A cluster none of whose nodes answers can't be planned for: the gravest reason is the run's."""
    nodes = list(observed.nodes.values())
    if nodes and not any(node.reachable for node in nodes):
        worst = gravest(node.exit_status for node in nodes)
        said = "; ".join(f"{node.name}: {node.problem}" for node in nodes if node.exit_status == worst)
        error = Unreachable(said if len(nodes) == 1 else f"no node can be asked: {said}")
        error.exit_status = worst
        raise error


def _need_known(tree: Tree, request: Request, observed: Observed) -> None:
    """An app that is named, is not in the tree and is nowhere to be seen is a slip of the pen."""
    unknown = [name for name in request.apps if name not in tree.apps and f"remove-app:{name}" not in request.named]
    if not unknown or not all(node.reachable for node in observed.nodes.values()):
        return
    seen = {one.app for node in observed.nodes.values() for one in node.containers}
    for member in (*observed.gateways.values(), *observed.dns.values()):
        seen.update((*by_app(member.document), *settled_by_app(member.document)) if member.document else ())
    if lost := [name for name in unknown if name not in seen]:
        names = ", ".join(sorted(tree.apps)[:20]) or "none"
        raise Usage(f"no app {', '.join(map(repr, lost))} in the tree, and none on any host", f"the tree has: {names}")


def _statuses(decided: Plan, observed: Observed) -> tuple[int, ...]:
    """77 for every host that refuses, 69 (or its own) for a group that can't be published to, 3 for the rest."""
    hosts: list[NodeState | ParticipantState] = [*observed.nodes.values()]
    hosts += [*observed.gateways.values(), *observed.dns.values()]
    statuses = [host.exit_status for host in hosts if not host.reachable and host.exit_status == 77]
    if decided.refused:
        away = [member for member in (*observed.gateways.values(), *observed.dns.values()) if not member.reachable]
        statuses += [member.exit_status or Unreachable.exit_status for member in away]
    if decided.not_done or decided.unschedulable or decided.refused:
        statuses.append(3)
    return tuple(statuses)


def _is_news(decision: Decision) -> bool:
    """Whether an apply with nothing to do is to be recorded: a new state of the tree, of an app, or of dead nodes."""
    head, plan = decision.head, decision.plan
    if head is None:
        return False
    new_tree = not decision.statuses and (head.tree != plan.tree if plan.whole else _has_new_apps(decision))
    let_go = any(head.held.get(app, spec) != spec and app not in plan.held for app, spec in plan.specs.items())
    return new_tree or let_go or decision.dead != head.dead


def _has_new_apps(decision: Decision) -> bool:
    """Whether apps are applied by themselves that are other than they were applied last, though nothing is to do."""
    from k4t.master import record

    tree = decision.tree
    return tree is not None and bool(
        record.changed_hashes(decision.head, record.app_hashes(tree, decision.plan.scope))
    )  # fmt: skip


def _declare(run: Run, decision: Decision) -> None:
    """Which nodes are dead, and fenced, which apps go on beyond their canary, and where jobs are begun, is known
    everywhere before anything is started for it."""
    from k4t.master import record

    if decision.head is None:
        return
    going_on = {app: spec for app, spec in decision.plan.specs.items() if app in decision.proceed}
    continued = {**decision.head.continued, **going_on}
    jobs = {**decision.head.jobs, **placed(decision.plan.steps)}
    head = dataclasses.replace(decision.head, dead=decision.dead, continued=continued, jobs=jobs)
    if head != decision.head:
        record.write_heads(run.fleet, dataclasses.replace(head, who=run.who, at=run.at), run.emit)


def _refuse_unsafe(plan: Plan) -> None:
    if plan.unsafe:
        reasons = "; ".join(change.detail for change in plan.unsafe)
        allows = " ".join(f"--allow {change.allow}" for change in plan.unsafe)
        raise Unsafe(f"unsafe: {reasons}", f"if that is meant, add {allows}")


def _look_again(run: Run, request: Request, first: Decision, confirm: Confirm) -> Decision:
    """Between the question and the lock the world may have moved: the same plan goes on, another is asked for."""
    second = plan(run, request, first.images)  # a tag stands for one digest in a revision
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
    failed = rollback.with_a_way_back(specs, observed)
    if not failed:
        return None
    from k4t.master import record

    before = decision.head or Head(run.tree.cluster.id)
    held = hold.remembered(before, decision.plan, failed=failed, serial=decision.plan.serial)
    record.write_heads(run.fleet, dataclasses.replace(held, who=run.who, at=run.at), run.emit)
    failpoints.reach("before:rollback")
    options = Options(degraded=request.degraded, failed=failed, former=rollback.documents(decision.observed))
    plan = reconcile(
        decision.tree or run.tree, observed, images=decision.images, scope=failed, options=options
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
        apps=about, digests={image.reference: image.digest for image in decision.images.values()},
        who=run.who, at=run.at, message=request.message, dead=decision.dead,
    )  # fmt: skip
    head = hold.remembered(head, plan, failed=failed, serial=outcome.serial, proceed=decision.proceed)
    head = dataclasses.replace(head, jobs={**head.jobs, **placed(plan.steps)})
    record.write_heads(run.fleet, head, run.emit)
    failpoints.reach("after:record")
    entry = {
        "at": run.at, "who": run.who, "message": request.message, "serial": outcome.serial, "result": outcome.result,
        "apps": list(request.apps), "allow": sorted(request.allow | request.named), "done": outcome.done,
    }  # fmt: skip
    record.remember(run.copy, head, about, entry, run.emit)


def _outcome(decision: Decision, executed: Executed, undone: RolledBack | None = None) -> Outcome:
    plan = decision.plan
    statuses = list(decision.statuses)
    if undone is not None:
        executed = rollback.together(executed, undone)
        statuses.append(1 if undone.complete else 3)
    failed = tuple(
        (failure.step.id, failure.error.host or failure.step.node, failure.error.words) for failure in executed.failed
    )
    skipped = tuple(
        f"{step.id} ({because if because == 'interrupted' else f'because of {because}'})"
        for step, because in executed.skipped
    )
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
    return Outcome(serial, result, len(executed.done), failed, skipped + left, gravest(statuses))


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
    something new was published or said so itself."""
    published = any(isinstance(step.work, Publish) and step.work.add for step in executed.done)
    return all(
        isinstance(failure.error, Partial) or (published and isinstance(failure.step.work, Publish))
        for failure in executed.failed
    )
