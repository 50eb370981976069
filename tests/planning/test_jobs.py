"""Jobs in plans: when they are due, what waits for them, where timers stand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from k4t.master.planning import jobs
from k4t.master.planning.plan import DropJob, Plan, RunJob
from k4t.master.planning.reconcile import reconcile
from k4t.model.app import Env, Job
from k4t.model.spec import Tree
from k4t.model.state import Head, JobRun, NodeState, Observed
from tests.planning import world

pytestmark = pytest.mark.unit
MIGRATE = Job("migrate", before_update=True, command=("migrate",))
CLEAN = Job("clean", schedule="0 3 * * *", command=("clean",))
NODES: dict[str, Any] = {"node1": None, "node2": None}


def desired(*wanted: Job, image: str = "web:1", **fields: object) -> Tree:
    tree = world.tree({"nodes": NODES, "apps": {"web": {"image": image, "replicas": 2}}})
    app = dataclasses.replace(tree.apps["web"], jobs=wanted, **fields)  # type: ignore[arg-type]
    return dataclasses.replace(tree, apps={"web": app})


def plan(tree: Tree, observed: Observed) -> Plan:
    return reconcile(tree, observed, images=world.images(tree))


def at_rest(tree: Tree) -> Observed:
    return world.at_rest(tree, world.empty(tree))


def with_run(observed: Observed, node: str, run: JobRun) -> Observed:
    state = observed.nodes[node]
    changed = dataclasses.replace(state, jobs=(*state.jobs, dataclasses.replace(run, node=node)))
    return dataclasses.replace(observed, nodes={**observed.nodes, node: changed})


def ran(tree: Tree, job: Job, **changes: Any) -> JobRun:
    key = jobs.key(tree.apps["web"], job, world.images(tree))
    made = JobRun("id", f"prod.web.job-{job.name}", "", "web", job.name, key, exit_status=0, state="exited")
    return dataclasses.replace(made, **changes)


def done(made: Plan) -> list[str]:
    return [step.id for step in made.steps if isinstance(step.work, (RunJob, DropJob))]


def test_every_create_waits_for_the_jobs_one_after_the_other() -> None:
    """Two jobs in the tree's order, then the first wave."""
    second = dataclasses.replace(MIGRATE, name="warm")
    made = plan(desired(MIGRATE, second), world.empty(desired()))
    steps = {step.id: step for step in made.steps}
    assert done(made) == ["job:web.migrate@node1", "job:web.warm@node1"]
    assert "job:web.migrate@node1" in steps["job:web.warm@node1"].after
    creates = [step for step in made.steps if step.action == "create"]
    assert len(creates) == 2
    assert all("job:web.warm@node1" in step.after for step in creates)


def test_nothing_is_stopped_before_the_job_is_done() -> None:
    """Old before new: what is stopped first waits for the job too."""
    recreate = dataclasses.replace(desired().apps["web"].update, strategy="recreate")
    before = at_rest(desired())
    made = plan(desired(MIGRATE, image="web:2", update=recreate), before)
    steps = {step.id: step for step in made.steps}

    def behind(id: str) -> bool:
        return id.startswith("job:") or any(behind(one) for one in (*steps[id].after, *steps[id].awaits))

    assert done(made)
    assert all(behind(step.id) for step in made.steps if step.action in ("stop", "create", "remove"))


@pytest.mark.parametrize("change", ["nothing", "restart", "done", "done before", "scaled"])
def test_a_job_is_not_due_twice_for_a_spec(change: str) -> None:
    """At rest; restarted; with its containers gone; gone back to; with more replicas."""
    tree = desired(MIGRATE)
    observed = at_rest(tree)
    if change == "restart":
        observed = with_run(observed, "node2", ran(tree, MIGRATE))
        tree = desired(MIGRATE, restart=1)
    elif change == "done":
        observed = with_run(world.empty(tree), "node2", ran(tree, MIGRATE))
    elif change == "done before":
        key = ran(tree, MIGRATE).key
        observed = with_run(world.empty(tree), "node2", ran(tree, MIGRATE, key="f" * 32, done=(key,)))
    elif change == "scaled":
        tree = desired(MIGRATE, replicas=3)
    assert done(plan(tree, observed)) == []


def test_a_failed_one_is_due_again_and_a_running_one_is_waited_for_where_it_runs() -> None:
    """The step goes to the node on which it runs."""
    tree = desired(MIGRATE)
    failed = with_run(world.empty(tree), "node2", ran(tree, MIGRATE, exit_status=1))
    assert done(plan(tree, failed)) == ["job:web.migrate@node1"]
    running = with_run(world.empty(tree), "node2", ran(tree, MIGRATE, exit_status=None, state="running"))
    assert done(plan(tree, running)) == ["job:web.migrate@node2"]


def test_where_it_was_begun_and_cannot_be_asked_nothing_begins() -> None:
    """The app stays as it is, and the plan says why; another app's node that is away bars nothing."""
    tree = desired(MIGRATE, image="web:2")
    away = NodeState("node2", reachable=False, problem="no route")
    for job, expected in (("web/migrate", []), ("web/other", ["job:web.migrate@node1"])):
        head = Head("c", 3, jobs={job: "node2"})
        first = dataclasses.replace(at_rest(desired(MIGRATE)).nodes["node1"], head=head)
        made = plan(tree, Observed(nodes={"node1": first, "node2": away}))
        assert done(made) == expected
        assert any("was begun on node2" in sentence for sentence in made.not_done) is not bool(expected)


def test_a_timer_stands_on_one_node_and_stays_there() -> None:
    """Put once, after the update; found again where it is; moved from a drained node; away with its job or app."""
    tree = desired(CLEAN)
    assert done(plan(tree, at_rest(desired()))) == ["timer:web.clean@node1"]
    timer = ran(tree, CLEAN, schedule="0 3 * * * UTC", exit_status=None, state="created")
    there = with_run(at_rest(desired()), "node2", timer)
    assert plan(tree, there).empty
    drained = dataclasses.replace(tree.nodes["node2"], availability="drained")
    moved = plan(dataclasses.replace(tree, nodes={**tree.nodes, "node2": drained}), there)
    assert done(moved) == ["untimer:web.clean@node2", "timer:web.clean@node1"]
    assert done(plan(desired(), there)) == ["untimer:web.clean@node2"]
    assert done(plan(desired(CLEAN, stopped=True), there)) == ["untimer:web.clean@node2"]
    gone = dataclasses.replace(tree, apps={})
    assert "untimer:web.clean@node2" in done(plan(gone, there))


def test_a_changed_secret_makes_a_timer_anew_and_an_unknown_one_does_not() -> None:
    """By its keyed digest; a machine without the identity sees no change."""

    def tree(digest: str) -> Tree:
        return desired(dataclasses.replace(CLEAN, env=(Env("PASS", secret="p", digest=digest),)))

    one = tree("d1")
    timer = ran(one, CLEAN, schedule="0 3 * * * UTC", exit_status=None, state="created")
    timer = dataclasses.replace(timer, key=jobs.key(one.apps["web"], one.apps["web"].jobs[0], world.images(one)))
    there = with_run(at_rest(desired()), "node1", dataclasses.replace(timer, secrets=(("p", "d1"),)))
    assert plan(one, there).empty
    assert plan(tree(""), there).empty
    assert [step.cause for step in plan(tree("d2"), there).steps if step.action == "timer"] == ["secret p changed"]


def test_a_job_that_turns_from_a_timer_into_one_before_updates_loses_its_timer() -> None:
    """At once, also when no update is due; and before it runs, when one is."""
    timer = ran(desired(CLEAN), CLEAN, schedule="0 3 * * * UTC", exit_status=0)
    turned = Job("clean", before_update=True, command=("clean",))
    observed = with_run(at_rest(desired()), "node1", timer)
    assert done(plan(desired(turned), observed)) == ["untimer:web.clean@node1"]
    made = plan(desired(turned, image="web:2"), observed)
    assert done(made) == ["untimer:web.clean@node1", "job:web.clean@node1"]
