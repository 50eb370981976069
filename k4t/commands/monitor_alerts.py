"""Alerts of monitor.xml: do they get through, and what waits."""

from __future__ import annotations

import time

import typer

from k4t.commands.common import group
from k4t.commands.monitor import monitor_app
from k4t.errors import Usage
from k4t.model.spec import Tree
from k4t.options import Globals

alert_app = group("Who is told: do alerts get through, and what waits.")
monitor_app.add_typer(alert_app, name="alert")


@alert_app.command("test", epilog="Example: k4t monitor alert test")
def alert_test(ctx: typer.Context) -> None:
    """Send a test message through every <alert> of monitor.xml. Exit status 0 when all were taken, 3 when some were, 1
    when none was."""
    from k4t.monitor.alerts.message import Sender
    from k4t.monitor.alerts.trial import trial
    from k4t.render import alerts as show
    from k4t.tree.secrets import value

    given: Globals = ctx.obj
    tree = _with_alerts(given)
    cluster = tree.cluster
    tried = trial(
        tree.monitor.alerts,
        Sender(cluster.name, cluster.id),
        lambda name: value(tree.secrets[name], given.db),
        time.time(),
    )
    raise typer.Exit(show.tried(tried, given.console))


@alert_app.command("list", epilog="Example: k4t monitor alert list")
def alert_list(ctx: typer.Context) -> None:
    """Whom monitor.xml has told, what was told last from this machine, and what waits because it could not be."""
    from k4t.monitor.alerts.teller import desks, path
    from k4t.render import alerts as show

    given: Globals = ctx.obj
    tree = _with_alerts(given)
    show.waiting(desks(path(tree.cluster.id), tree.monitor.alerts), given.console)


def _with_alerts(given: Globals) -> Tree:
    from k4t.wiring import read

    tree = read(given.db)
    if not tree.monitor.alerts:
        raise Usage("monitor.xml has no <alert>: nobody is told anything", 'write one, such as <alert mail="…"/>')
    return tree
