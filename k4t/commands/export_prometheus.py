"""What the monitor sees, for Prometheus and Grafana."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from k4t.commands.export import export_app
from k4t.commands.eyes import ClusterId, Hosts, KnownHosts, eyes, look
from k4t.errors import Usage
from k4t.options import Globals

if TYPE_CHECKING:
    from k4t.monitor.check import Looked

RULES_NAME, DASHBOARD_NAME = "k4t.rules.yml", "k4t.dashboard.json"


@export_app.command(
    epilog="Example: k4t monitor export prometheus --textfile /var/lib/prometheus/node-exporter/k4t.prom"
)
def prometheus(
    ctx: typer.Context,
    textfile: Annotated[
        Path | None,
        typer.Option("--textfile", help="Metrics, replaced in one step; else standard output.", metavar="FILE.prom"),
    ] = None,
    rules: Annotated[
        Path | None, typer.Option("--rules", help="Write alert rules; - is standard output.", metavar="FILE|DIR")
    ] = None,
    dashboard: Annotated[
        Path | None,
        typer.Option("--dashboard", help="Write a Grafana dashboard; - is standard output.", metavar="FILE|DIR"),
    ] = None,
    hosts: Hosts = None,
    cluster: ClusterId = "",
    known_hosts: KnownHosts = None,
) -> None:
    """Look at everything once, and write it as metrics for the node exporter's textfile collector. With --rules or
    --dashboard write those, and look only if --textfile is there too. Exit status 0 when all is written, whatever it
    shows."""
    given: Globals = ctx.obj
    if textfile is not None and textfile.suffix != ".prom":
        raise Usage(f"--textfile {textfile}: the node exporter reads files that end in .prom alone", "name it so")
    found: Looked | None = None
    if textfile is not None or (rules is None and dashboard is None):
        with eyes(given, hosts or [], cluster, known_hosts) as (fleet, log):
            found, notes = look(fleet, log, now=False, has_tree=not hosts)
        for note in notes:
            given.console.note(f"! {note}", "yellow")
    written = [*_metrics(given, found, textfile), *_rules(given, rules), *_dashboard(given, dashboard)]
    if given.console.output != "table" and written:
        told = {"version": 1, "files": [str(path) for path in written]}
        given.console.data(told | ({"level": found.judgement.level} if found else {}))


def _metrics(given: Globals, found: Looked | None, to: Path | None) -> list[Path]:
    from k4t.monitor import prometheus

    if found is None:
        return []
    if to is None:
        given.console.result(prometheus.text(found).rstrip("\n"))
        return []
    prometheus.write(to, found)
    return [to]


def _rules(given: Globals, to: Path | None) -> list[Path]:
    if to is None:
        return []
    from k4t.monitor.prometheus import rules

    return _put(given, to, RULES_NAME, rules.yaml())


def _dashboard(given: Globals, to: Path | None) -> list[Path]:
    if to is None:
        return []
    from k4t.monitor.prometheus import dashboard

    return _put(given, to, DASHBOARD_NAME, dashboard.dashboard())


def _put(given: Globals, to: Path, name: str, text: str) -> list[Path]:
    """The file, or `name` in the directory; the paths that were written. Raises K4tError."""
    from k4t.tree.edit import write_file

    if str(to) == "-":
        given.console.result(text.rstrip("\n"))
        return []
    path = to / name if to.is_dir() else to
    write_file(path, text.encode(), 0o644)
    return [path]
