"""Jobs: the steps of a plan that run one or set its timer, running one now, and the list of them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfoNotFoundError

from k4t.errors import Locked, StepError, Unreachable, Usage
from k4t.master import record
from k4t.master.fleet import Fleet
from k4t.master.images import resolve_images
from k4t.master.lineage import require_newest
from k4t.master.observe import observe
from k4t.master.planning import jobs as planning
from k4t.master.planning.graph import Graph
from k4t.master.planning.placement import Board
from k4t.master.planning.plan import DropJob, RunJob, Step
from k4t.master.planning.serials import newest
from k4t.master.planning.specs import secret_digests
from k4t.master.planning.survey import survey
from k4t.master.vault import Vault
from k4t.model.app import App, Job
from k4t.model.events import Emit, Note
from k4t.model.state import Head, JobRun, Observed
from k4t.model.value import value
from k4t.node import cron, images, joblist
from k4t.node import jobs as acts
from k4t.node.docker import Engine
from k4t.node.reference import pinned, registry_of
from k4t.tree.contents import file_contents

if TYPE_CHECKING:
    from k4t.master.run import Run


def perform(
    fleet: Fleet, vault: Vault, directory: Path, step: Step, work: RunJob, *, emit: Emit, stopping: threading.Event
) -> str:
    """Run the job, or put its timer; a word about it."""
    engine, order = fleet.engine(step.node), _order(fleet, vault, directory, step.node, work)
    if work.schedule:
        return acts.put_timer(engine, order)
    return acts.run(engine, order, _said(emit, work.app.name, work.job), stopping)


def drop(fleet: Fleet, step: Step, work: DropJob) -> str:
    acts.drop(fleet.engine(step.node), fleet.tree.cluster.id, work.run)
    return ""


def clear(fleet: Fleet, node: str) -> None:
    """Take every container and timer of jobs from a node that leaves."""
    engine, cluster = fleet.engine(node), fleet.tree.cluster.id
    for run in joblist.runs(node, engine.list_containers(), cluster):
        acts.drop(engine, cluster, run)


def _order(fleet: Fleet, vault: Vault, directory: Path, node: str, work: RunJob) -> acts.Order:
    cluster, secrets = fleet.tree.cluster, vault.of(work.app)
    return acts.Order(
        cluster_id=cluster.id, name=work.name, app=work.app, job=work.job, key=work.key, image=pinned(work.image),
        address=fleet.tree.nodes[node].address, timeout_s=work.timeout_s, schedule=work.schedule,
        timezone=work.timezone, done=work.done, secrets=secrets,
        contents=file_contents(directory, work.app, cluster.variables, secrets),
        digests={name: digest for name, digest in secret_digests(work.app).items() if digest},
    )  # fmt: skip


def _said(emit: Emit, app: str, job: str) -> acts.Say:
    return lambda line: emit(Note(f"{app} {job}: {line}"))


# --- now -----------------------------------------------------------------------------------------------------


def pick(app: App, name: str) -> Job:
    """The job of that name, or the only one. Raises Usage."""
    names = ", ".join(job.name for job in app.jobs) or "none"
    if not name and len(app.jobs) == 1:
        return app.jobs[0]
    found = next((job for job in app.jobs if job.name == name), None)
    if found is None:
        what = f"no job {name!r}" if name else "several jobs" if app.jobs else "no job"
        raise Usage(f"app {app.name} has {what}", f"it has: {names}")
    return found


def run_now(
    run: Run, app: App, job: Job, say: acts.Say, *, wait: bool, stopping: threading.Event, allows: Collection[str] = ()
) -> int:
    """Run it to its end; its exit status. The cluster's locks are held until it has begun: from then on its container
    says that it runs. One with a timer runs as that was last applied.

    Raises Locked when it runs already (`wait`: it is waited for), Unreachable when it may, Unsafe from a tree that is
    not the newest, and what a step raises.
    """
    with run.lock():
        observed = observe(run.fleet)
        scene = _scene(run, app, observed)
        require_newest(run, scene.survey.head, allows)
        app = scene.desired.apps[app.name]
        there = scene.of(app.name, job.name)
        busy = next((one for one in there if one.running), None)
        if busy is not None and not wait:
            said = f"job {job.name} of {app.name} runs already, on {busy.node} ({busy.status})"
            raise Locked(said, "--wait waits for it")
        node = busy.node if busy else _node(scene, app, job)
        work = planning.work_of(scene, app, job, planning.key(app, job, scene.images))
        engine, order = run.fleet.engine(node), _order(run.fleet, run.vault, run.directory, node, work)
        if busy is not None:
            say("runs already: waited for")
            acts.follow(engine, order, busy.id, acts.quiet, stopping)
        _remember(run, scene.survey.head, app, job, node)
        timer = next((one for one in there if one.schedule and one.node == node), None)
        since = acts.start_again(engine, timer) if timer else ""
        made = timer.id if timer else _begin(run, engine, work, order)
    return acts.follow(engine, order, made, say, stopping, since=since)


def _scene(run: Run, app: App, observed: Observed) -> planning.Scene:
    found = survey(run.tree, observed)
    resolved = resolve_images(
        run.fleet, observed, found.head, [app.name], pull=False, directory=run.directory, vault=run.vault
    )
    if app.name in resolved.problems:
        raise resolved.problems[app.name]
    images = resolved.images
    tree, _ = run.vault.digested([app.name])
    graph = Graph(run.tree.cluster.name, 0)
    return planning.Scene(
        tree, found, Board(tree, observed, found), graph, images, planning.runs_of(observed)
    )  # fmt: skip


def _node(scene: planning.Scene, app: App, job: Job) -> str:
    if away := scene.away(app.name, job.name):
        raise Unreachable(
            f"job {job.name} of {app.name} was begun on {away}, which can't be asked whether it runs",
            f"try again when it answers, or give it up: k4t node dead {away}",
        )
    node = planning.home(scene, app, scene.images[app.name], job.name)
    if not node:
        raise StepError(f"no node that answers may run {app.name}", f"k4t explain {app.name} says why")
    return node


def _begin(run: Run, engine: Engine, work: RunJob, order: acts.Order) -> str:
    """Without its schedule: it is no timer, whatever the job is."""
    if work.app.image.archive:
        source = run.directory / "apps" / work.app.name / work.app.image.archive
        images.load(engine, source, work.image, lambda _text, _fraction: None)
    else:
        login = run.vault.login(registry_of(work.image.reference))
        images.pull(engine, work.image, login, lambda _text, _fraction: None, policy=work.app.image.pull)
    return acts.begin(engine, dataclasses.replace(order, schedule="", timezone=""), acts.find(engine, order))


def _remember(run: Run, head: Head | None, app: App, job: Job, node: str) -> None:
    if head is not None and head.jobs.get(f"{app.name}/{job.name}") != node:
        jobs = {**head.jobs, f"{app.name}/{job.name}": node}
        record.write_heads(run.fleet, dataclasses.replace(head, jobs=jobs, who=run.who, at=run.at), run.emit)


# --- the list --------------------------------------------------------------------------------------------------


@value
class Listed:
    """One job of the tree, or one that is still on a node. Times are RFC 3339 UTC, "" where there is none. `result`:
    "running", "exit 0" …, "not yet", or "unknown" (its node does not answer)."""

    app: str
    job: str
    kind: str
    schedule: str
    timezone: str
    node: str
    result: str
    exit_status: int | None
    began: str
    ended: str
    next: str


def listed(fleet: Fleet, observed: Observed, apps: Iterable[str], *, now: datetime) -> list[Listed]:
    head = newest(observed.heads)
    runs = planning.runs_of(observed)
    found = []
    for app in (fleet.tree.apps[name] for name in sorted(apps)):
        for job in app.jobs:
            mine = sorted((r for r in runs if (r.app, r.job) == (app.name, job.name)), key=lambda run: run.created_s)
            last = mine[-1] if mine else None
            times = acts.times(fleet.engine(last.node), last.id) if last else ("", "")
            away = _away(observed, head.jobs.get(f"{app.name}/{job.name}", "") if head else "")
            one = Listed(
                app=app.name, job=job.name, kind="schedule" if job.schedule else "before update",
                schedule=job.schedule, timezone=job.timezone if job.schedule else "",
                node=last.node if last else away, result=_result(last, away),
                exit_status=last.exit_status if last else None, began=times[0], ended=times[1],
                next=_next(app, job, last, now),
            )  # fmt: skip
            found.append(one)
    return found


def _away(observed: Observed, node: str) -> str:
    state = observed.nodes.get(node)
    return node if state is not None and not state.reachable else ""


def _next(app: App, job: Job, last: JobRun | None, now: datetime) -> str:
    """Of a timer that is set; "" where this machine does not know the zone."""
    if app.stopped or last is None or not last.schedule:
        return ""
    try:
        moment = cron.next_run(job.schedule, job.timezone, now)
    except (ZoneInfoNotFoundError, ValueError):
        return ""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else ""


def _result(last: JobRun | None, away: str) -> str:
    if last is None:
        return "unknown" if away else "not yet"
    if last.running:
        return "running"
    return "not yet" if last.exit_status is None else f"exit {last.exit_status}"
