"""Jobs: what there is and how it went last; one of them now."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Annotated

import typer

from k4t.commands.common import group
from k4t.options import AppName, Globals

job_app = group("Jobs of apps.")


@job_app.command("list", epilog="Example: k4t job list web")
def job_list(ctx: typer.Context, name: Annotated[str, typer.Argument(metavar="[APP]", help="Only its.")] = "") -> None:
    """Jobs, how each went last, and when it runs next."""
    from k4t.master import jobs
    from k4t.master.observe import observe
    from k4t.render import jobs as show
    from k4t.wiring import opened, thing

    given: Globals = ctx.obj
    with opened(given.db) as run:
        apps = [thing(run.tree.apps, "app", name).name] if name else list(run.tree.apps)
        observed = observe(run.fleet)
        show.listed(jobs.listed(run.fleet, observed, apps, now=datetime.now(UTC)), given.console)
        away = [state for state in observed.nodes.values() if not state.reachable]
    for state in away:
        given.console.note(f"! {state.name}: {state.problem}", "yellow")
    raise typer.Exit(3 if away else 0)


@job_app.command("run", epilog="Example: k4t job run web migrate")
def job_run(
    ctx: typer.Context,
    name: AppName,
    job: Annotated[str, typer.Argument(metavar="[JOB]", help="Which; not needed when there is one.")] = "",
) -> None:
    """Run a job now, on one node, with its output and its exit status; never two of one at once."""
    from k4t.master import jobs
    from k4t.wiring import opened, thing

    given: Globals = ctx.obj
    with opened(given.db, wait=given.wait) as run:
        app = thing(run.tree.apps, "app", name)
        chosen, stopping = jobs.pick(app, job), threading.Event()
        try:
            status = jobs.run_now(
                run, app, chosen, given.console.result, wait=given.wait, stopping=stopping, allows=given.allow
            )
        except KeyboardInterrupt:
            given.console.note(f"what has begun runs on; k4t job list {name} tells how it ends")
            raise
    raise typer.Exit(status)
