"""The list of jobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from k4t.master.jobs import Listed
from k4t.render.console import Console, table

HEAD = ("APP", "JOB", "KIND", "NODE", "LAST RUN", "RESULT", "NEXT RUN")


def listed(jobs: Sequence[Listed], console: Console) -> None:
    if console.output == "table":
        rows = [
            (one.app, one.job, _kind(one), one.node or "-", one.began or "-", _result(one, console), one.next or "-")
            for one in jobs
        ]
        console.result(table(HEAD, rows, console))
    else:
        console.data({"version": 1, "jobs": [dataclasses.asdict(one) for one in jobs]}, rows="jobs")


def _kind(one: Listed) -> str:
    return f"{one.schedule} {one.timezone}" if one.schedule else one.kind


def _result(one: Listed, console: Console) -> str:
    return console.style(one.result, "red") if one.exit_status else one.result
