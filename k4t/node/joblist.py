"""Containers of jobs in the Engine's listing: by labels of their own, so that nobody takes one for a replica. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from k4t.model.state import JobRun
from k4t.node.labels import FORMAT, PREFIX, pairs_read, pairs_written
from k4t.node.listing import name_of

MAX_DONE = 50
"""Keys that a job's container remembers."""
_EXITED = re.compile(r"Exited \((-?[0-9]+)\)")
_KEY = re.compile(r"[0-9a-f]{32}")


def build(
    *, cluster_id: str, app: str, job: str, key: str, schedule: str, done: Iterable[str], secrets: Mapping[str, str]
) -> dict[str, str]:
    """Without `.replica` and `.spec`, which every replica has. `secrets`: keyed digests by name."""
    return {
        f"{PREFIX}format": FORMAT,
        f"{PREFIX}cluster": cluster_id,
        f"{PREFIX}app": app,
        f"{PREFIX}job": job,
        f"{PREFIX}job-key": key,
        f"{PREFIX}job-schedule": schedule,
        f"{PREFIX}job-done": " ".join(list(dict.fromkeys(done))[-MAX_DONE:]),
        f"{PREFIX}secrets": pairs_written(secrets.items()),
    }


def runs(node: str, entries: Iterable[Mapping[str, Any]], cluster_id: str) -> tuple[JobRun, ...]:
    """This cluster's, in order of name. Labels that are damaged make it nobody's."""
    found = (_run(node, entry, cluster_id) for entry in entries)
    return tuple(sorted((one for one in found if one is not None), key=lambda one: one.name))


def _run(node: str, entry: Mapping[str, Any], cluster_id: str) -> JobRun | None:
    labels = entry.get("Labels") or {}
    text = {str(key).removeprefix(PREFIX): str(value) for key, value in labels.items()}
    if text.get("format") != FORMAT or text.get("cluster") != cluster_id:
        return None
    if not (text.get("app") and text.get("job") and _KEY.fullmatch(text.get("job-key", ""))):
        return None
    status = str(entry.get("Status", ""))
    ended = _EXITED.match(status)
    return JobRun(
        id=str(entry.get("Id", "")),
        name=name_of(entry),
        node=node,
        app=text["app"],
        job=text["job"],
        key=text["job-key"],
        schedule=text.get("job-schedule", ""),
        state=str(entry.get("State", "")),
        exit_status=int(ended[1]) if ended else None,
        status=status,
        created_s=int(entry.get("Created") or 0),
        done=tuple(key for key in text.get("job-done", "").split() if _KEY.fullmatch(key)),
        secrets=pairs_read(text.get("secrets", "{}")),
    )
