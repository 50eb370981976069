"""What would have to be done, and what stands in the way: observe → reconcile → check safety. Changes nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import field
from datetime import datetime
from typing import TYPE_CHECKING

from k4t.errors import InvalidTree, Unreachable, Usage, gravest
from k4t.master.effective import effective
from k4t.master.images import Resolved, resolve_images
from k4t.master.observe import observe
from k4t.master.planning import away, serials, sizes
from k4t.master.planning.capable import caveats, inexpressible
from k4t.master.planning.endpoints import by_app, settled_by_app
from k4t.master.planning.lineage import changes_hands
from k4t.master.planning.plan import SPEC, Options, Plan
from k4t.master.planning.reconcile import reconcile
from k4t.master.planning.safety import REWIND
from k4t.model.spec import Tree
from k4t.model.state import Dead, Head, NodeState, Observed, ParticipantState, Size
from k4t.model.value import value

if TYPE_CHECKING:
    from k4t.master.run import Run


@value
class Request:
    """What the command line asked for. `apps` empty: the whole tree, or (`node`) the apps that this node concerns.
    `named`: unsafe changes that the command itself is about (`app remove web` names `remove-app:web`). `fenced`: nodes
    that were just switched off. `digests`: what image references stood for, to go back to. `retry`: also what is held.
    `proceed`: beyond the canary, for `apps`, or for every
    app that is paused. `recycle`: the oldest replica of these apps is replaced; `restart`: these, (app, replica).
    `rebalance`: replicas may move.
    `hurried`: nobody is asked, so work may begin before every node has answered. `before`: hashes of apps as the tree
    had them before this command edited them. `sizes`: of apps with `<scale>`, as many replicas are asked for."""

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
    restart: frozenset[tuple[str, str]] = frozenset()
    rebalance: bool = False
    hurried: bool = False
    before: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def may_hurry(self) -> bool:
        """Not where what is done depends on all that is there."""
        return self.hurried and not (self.node or self.proceed or self.recycle or self.restart or self.rebalance)


@value
class Decision:
    """One look at the world and what follows from it. `statuses`: exit statuses of what is left undone, and why.
    `dead`: given up nodes, as the next head has them; `sizes`: of apps with `<scale>`, likewise. `news`: to be recorded
    even when there is nothing to do. `tree`: as it was decided by, with what is known of secrets, and with sizes."""

    plan: Plan
    observed: Observed
    head: Head | None
    images: Resolved
    statuses: tuple[int, ...] = ()
    dead: Mapping[str, Dead] = field(default_factory=dict)
    news: bool = False
    tree: Tree | None = None
    proceed: frozenset[str] = frozenset()
    sizes: Mapping[str, Size] = field(default_factory=dict)

    @property
    def late(self) -> frozenset[str]:
        """Nodes that may still answer."""
        return frozenset(state.name for state in self.observed.nodes.values() if state.late)


def plan(
    run: Run, request: Request, resolved: Resolved | None = None, *, without: Collection[str] = frozenset()
) -> Decision:
    """Observe, and decide what would have to be done. Changes nothing anywhere. `resolved`: images asked for before.
    `without`: apps that are left alone."""
    if findings := inexpressible(run.tree, run.fleet.participants.values()):
        raise InvalidTree(findings)
    observed = observe(run.fleet, hurried=request.may_hurry)
    _need_someone(observed)
    observed = effective(run.fleet, observed)
    head = serials.newest(observed.heads)
    scope: Collection[str] | None = request.apps or None
    if request.node:
        scope = away.concerned(sizes.sized(run.tree, observed, head), observed, request.node)
    names = tuple(run.tree.apps if scope is None else scope)
    resolved = resolved or _images(run, request, observed, head, names)
    _need_known(run.tree, request, observed)
    options = _options(run, request, observed, head, resolved)
    options = dataclasses.replace(options, without=options.without.union(without))
    tree, unknown = run.vault.digested(names)
    tree = sizes.sized(tree, observed, head, request.sizes)
    tree, returning = away.not_yet_back(tree, observed, head)
    if request.proceed:
        paused = reconcile(tree, observed, images=resolved.images, scope=scope, options=options).paused
        scope, options = _beyond_canaries(request, scope, options, paused, tree)
    decided = reconcile(tree, observed, images=resolved.images, scope=scope, options=options)
    imageless = tuple(f"{app} is left as it is: {problem}" for app, problem in sorted(resolved.problems.items()))
    unknown += caveats(run.tree, run.fleet.participants.values(), run.at)
    decided = dataclasses.replace(
        decided, warnings=decided.warnings + unknown, not_done=decided.not_done + returning + imageless
    )  # fmt: skip
    if alike := {step.app for step in decided.steps if step.cause == SPEC}:
        from k4t.master import changed

        decided = dataclasses.replace(decided, changed=changed.of_apps(run.copy, head, sorted(alike)))
    dead = away.dead_nodes(run.tree, observed, head, fenced=request.fenced)
    wish = Size(0, run.who, run.at, request.message)
    found = Decision(
        decided, observed, head, resolved, _statuses(decided, observed), dead, tree=tree, proceed=options.proceed,
        sizes=sizes.remembered(tree, observed, head, asked=request.sizes, scope=decided.scope, wish=wish),
    )  # fmt: skip
    asked = sizes.is_new(head, request.sizes)
    news = asked or _is_news(found) or changes_hands(run.copy.lineage(), head.lineage if head else None)
    return dataclasses.replace(found, news=news)


def _images(run: Run, request: Request, observed: Observed, head: Head | None, names: Collection[str]) -> Resolved:
    """Of the apps in question. When there is none for any of them, nothing can be planned."""
    found = resolve_images(
        run.fleet, observed, _of_then(head, request), names, pull=request.pull, directory=run.directory, vault=run.vault
    )
    if found.problems and all(name in found.problems for name in names):
        raise next(iter(found.problems.values()))
    return found


def _options(run: Run, request: Request, observed: Observed, head: Head | None, resolved: Resolved) -> Options:
    return Options(
        named=request.named | request.allow,
        degraded=request.degraded,
        base_serial=run.copy.base_serial(),
        fenced=request.fenced | away.off(run.tree, observed, head),
        retry=request.retry,
        recycle=request.recycle,
        restart=request.restart,
        rebalance=request.rebalance,
        without=frozenset(resolved.problems),
        now_s=datetime.fromisoformat(run.at).timestamp(),
        before=request.before,
        sizes=request.sizes,
        lineage=None if REWIND in request.allow else run.copy.lineage(),
    )


def _beyond_canaries(
    request: Request,
    scope: Collection[str] | None,
    options: Options,
    paused: Collection[str],
    tree: Tree,
) -> tuple[Collection[str], Options]:
    """`k4t continue`: the apps that wait after their canary (or the named ones), and leave to go on."""
    names = tuple(tree.apps if scope is None else scope)
    canaries = frozenset(name for name in names if name in tree.apps and tree.apps[name].update.pause_after)
    if not (paused or canaries.intersection(request.apps)):
        raise Usage("nothing waits after a canary", "k4t plan shows what is to do")
    chosen = tuple(paused) if scope is None else tuple(scope)
    return chosen, dataclasses.replace(options, proceed=canaries.intersection(chosen))


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
