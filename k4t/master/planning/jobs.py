"""Which jobs are due before an update, where they run, and which timers stand on which node. Pure.

A job before an update runs once for each spec of its app, before the first container of that spec is created; where
such a container exists it has run, or was not asked for. Its container remembers for which specs it has done its work,
so that going back to an earlier one runs nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence

from k4t.master.planning.assess import Assessment
from k4t.master.planning.capacity import Host
from k4t.master.planning.graph import NOT_STARTED, Graph, Wave
from k4t.master.planning.placement import Board, closed, forbids
from k4t.master.planning.plan import Action, DropJob, ResolvedImage, RunJob, Step
from k4t.master.planning.specs import canonical_json, canonical_spec, secret_digests, with_digests
from k4t.master.planning.survey import Survey
from k4t.model.app import App, Image, Job
from k4t.model.spec import Tree
from k4t.model.state import JobRun, Observed
from k4t.model.value import value

KEY_LENGTH = 32


def image_name(app: str, job: str) -> str:
    """Under which a job's own image stands among the resolved ones."""
    return f"{app}/{job}"


def owner_of(name: str) -> str:
    """The app that an image stands under, be it its own or a job's."""
    return name.partition("/")[0]


def image_apps(apps: Iterable[App]) -> list[App]:
    """For each job with an image of its own something that is like an app with that image."""
    return [
        dataclasses.replace(app, name=image_name(app.name, job.name), image=Image(job.image))
        for app in apps
        for job in app.jobs
        if job.image
    ]


def as_job(app: App, job: Job) -> App:
    """The app as the job runs it: its environment, files, volumes and limits; no ports, no health, never restarted.
    Its network, or the host's where the app's containers have addresses of their own."""
    own = bool(job.image)
    env = {**{env.name: env for env in app.env}, **{env.name: env for env in job.env}}
    network = app.network
    if network.mode in ("macvlan", "ipvlan"):
        network = dataclasses.replace(network, mode="host")
    return dataclasses.replace(
        app,
        image=Image(job.image) if own else app.image,
        entrypoint=None if own else app.entrypoint,
        command=job.command if job.command is not None else None if own else app.command,
        container=dataclasses.replace(app.container, restart="no"),
        network=network,
        ports=(),
        env=tuple(env.values()),
        files=tuple(dataclasses.replace(file, on_change="replace") for file in app.files),
        health=None,
        routes=(),
        records=(),
        jobs=(),
    )


def key(app: App, job: Job, images: Mapping[str, ResolvedImage]) -> str:
    """What it runs for: the app's spec (a restart is no other one) and the job's own. Values of secrets don't count:
    not every machine knows them."""
    app = with_digests(dataclasses.replace(app, restart=0), {})
    job = next(one for one in app.jobs if one.name == job.name)
    digest = images[app.name].digest
    own = images[image_name(app.name, job.name)].digest if job.image else digest
    form: dict[str, object] = {
        "app": canonical_spec(app, digest),
        "job": canonical_spec(as_job(app, job), own),
    }
    if job.schedule:
        form["schedule"] = [job.schedule, job.timezone, f"{job.timeout_s:g}", f"{app.stop.grace_s:g}"]
    return hashlib.sha256(canonical_json(form)).hexdigest()[:KEY_LENGTH]


@value
class Scene:
    """What all of this looks at."""

    desired: Tree
    survey: Survey
    board: Board
    graph: Graph
    images: Mapping[str, ResolvedImage]
    runs: tuple[JobRun, ...]

    def of(self, app: str, job: str) -> list[JobRun]:
        return [run for run in self.runs if (run.app, run.job) == (app, job)]

    def away(self, app: str, job: str) -> str:
        """The node on which it was last begun, when that can't be asked."""
        node = self.survey.head.jobs.get(f"{app}/{job}", "") if self.survey.head else ""
        return node if node in self.survey.unknown else ""


def runs_of(observed: Observed) -> tuple[JobRun, ...]:
    return tuple(run for state in observed.nodes.values() if state.reachable for run in state.jobs)


def before_update(
    scene: Scene, found: Assessment, waves: Sequence[Wave], after: tuple[str, ...]
) -> tuple[tuple[str, ...], str]:
    """The steps that the update waits for, one after the other; or why it can't begin, in words."""
    new = [entry for wave in waves for entry in wave.bring if entry.container is None]
    if not new or found.held or found.image is None or found.spec in _specs_there(scene, found):
        return (), ""
    last: tuple[str, ...] = ()
    for job in found.app.jobs:
        if not job.before_update:
            continue
        wanted = key(found.app, job, scene.images)
        seen = scene.of(found.name, job.name)
        if any(wanted in run.succeeded for run in seen):
            continue
        if away := scene.away(found.name, job.name):
            return (), (
                f"{found.name} is left as it is: its job {job.name} was begun on {away}, which can't be asked whether "
                f"it runs; when {away} is lost: k4t node dead {away}"
            )
        old = tuple(_drop(scene, run, "is no timer any more") for run in seen if run.schedule)
        node = next((run.node for run in seen if run.running), new[0].slot.node)
        last = (_step(scene, work_of(scene, found.app, job, wanted), node, "before the update", (*after, *old, *last)),)
    return last, ""


def _specs_there(scene: Scene, found: Assessment) -> set[str]:
    return {one.spec for containers in scene.survey.replicas(found.name).values() for one in containers}


def _step(scene: Scene, work: RunJob, node: str, cause: str, after: tuple[str, ...]) -> str:
    app, fetch = work.app.name, scene.graph.fetch(work.app, work.image, node, cause)
    action: Action = "timer" if work.schedule else "job"
    id = f"{action}:{app}.{work.job}@{node}"
    return scene.graph.add(id, action, cause, work, app=app, node=node, after=(fetch, *after))


def timers(scene: Scene, found: Assessment, gate: tuple[str, ...]) -> list[str]:
    """The steps of an app's timers: put where there is none, made anew where they differ, away where they don't belong.
    `gate`: what the app's own update ends with. Returns what can't be done, in words."""
    app, not_done = found.app, list[str]()
    scheduled = {job.name: job for job in app.jobs if job.schedule} if not app.stopped else {}
    placed = {name: home(scene, app, found.image, name) for name in scheduled}
    drop(scene, app.name, placed, {job.name for job in app.jobs if job.before_update})
    for name, job in scheduled.items():
        node = placed[name]
        if scene.away(app.name, name):
            continue
        if not node:
            not_done.append(f"job {name} of {app.name} finds no node for its timer")
            continue
        if found.image is None:
            continue
        wanted = key(app, job, scene.images)
        here = [run for run in scene.of(app.name, name) if run.node == node]
        changed = _changed(app, job, here[0], wanted) if here else "new timer"
        if not changed:
            continue
        moved = tuple(f"untimer:{app.name}.{name}@{run.node}" for run in scene.of(app.name, name) if run.node != node)
        _step(scene, work_of(scene, app, job, wanted), node, changed, (*gate, *moved))
    return not_done


def _changed(app: App, job: Job, there: JobRun, wanted: str) -> str:
    """Why its timer is made anew, in words. A secret that isn't known here, or wasn't there, has not changed."""
    if not there.schedule:
        return "new timer"
    if there.key != wanted:
        return "has changed"
    known, told = secret_digests(as_job(app, job)), dict(there.secrets)
    names = sorted(name for name, digest in known.items() if digest and told.get(name, digest) != digest)
    return f"secret {', '.join(names)} changed" if names else ""


def drop(scene: Scene, app: str, placed: Mapping[str, str], kept: Iterable[str] = ()) -> None:
    """Containers of this app's jobs that are not where they should be, with their timers."""
    stay = set(kept)
    for run in scene.runs:
        if run.app != app or placed.get(run.job) == run.node or (run.job in stay and not run.schedule):
            continue
        if run.job in stay:
            cause = "is no timer any more"
        elif run.job in placed:
            cause = f"moves to {placed[run.job]}" if placed[run.job] else "finds no node"
        else:
            cause = "is gone from the tree" if app in scene.desired.apps else f"{app} is gone from the tree"
            if app in scene.desired.apps and scene.desired.apps[app].stopped:
                cause = f"{app} is stopped"
        _drop(scene, run, cause)


def _drop(scene: Scene, run: JobRun, cause: str) -> str:
    id = f"untimer:{run.app}.{run.job}@{run.node}"
    return scene.graph.add(id, "untimer", cause, DropJob(run), app=run.app, node=run.node)


def home(scene: Scene, app: App, image: ResolvedImage | None, job: str) -> str:
    """Where its timer is, while that may be; else where the app runs; else the first node that may have it; else "".
    With data that are bound to a node, where they are."""
    timers = [run.node for run in scene.of(app.name, job) if run.schedule]
    fit = [host.name for host in scene.board.hosts.values() if _may(scene, app, image, host, timers)]
    replicas = scene.survey.replicas(app.name).values()
    running = sorted(one.node for containers in replicas for one in containers if one.state not in NOT_STARTED)
    bound = any(volume.binds_to_node for volume in app.volumes)
    order = [*running, *timers] if bound else [*timers, *running]
    return next((node for node in [*order, *fit] if node in fit), "")


def _may(scene: Scene, app: App, image: ResolvedImage | None, host: Host, timers: list[str]) -> bool:
    if host.name in scene.survey.unknown or host.name in scene.survey.dead:
        return False
    why = closed(host)
    return (not why or (why == "cordoned" and host.name in timers)) and not forbids(app, image, host)


def placed(steps: Iterable[Step]) -> dict[str, str]:
    """Where the jobs of a plan are begun, as the head remembers it."""
    return {f"{step.app}/{step.work.job}": step.node for step in steps if isinstance(step.work, RunJob)}


def work_of(scene: Scene, app: App, job: Job, wanted: str) -> RunJob:
    image = scene.images[image_name(app.name, job.name) if job.image else app.name]
    done = dict.fromkeys(one for run in scene.of(app.name, job.name) for one in run.succeeded)
    return RunJob(
        name=f"{scene.desired.cluster.name}.{app.name}.job-{job.name}", app=as_job(app, job), job=job.name, key=wanted,
        image=image, timeout_s=job.timeout_s, schedule=job.schedule, timezone=job.timezone if job.schedule else "",
        done=tuple(done),
    )  # fmt: skip
