"""What the Engine remembers of our containers: it keeps its last 256 events, in memory.

https://docs.docker.com/reference/api/engine/version/v1.41/#tag/System/operation/SystemEvents
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from k4t.model.value import value
from k4t.node.call import Request
from k4t.node.docker import Engine
from k4t.node.http import TooSlow
from k4t.node.labels import PREFIX

MAX_EVENTS = 1000
TOLD = frozenset(
    ["create", "start", "restart", "die", "oom", "kill", "stop", "pause", "unpause", "destroy", "update", "rename"]
)
"""With health_status. What a probe inside a container makes (exec_…) is left out."""


@value
class EngineEvent:
    """`at` is RFC 3339 UTC with milliseconds; `action` Docker's word; `detail` what goes with it (exit status 1)."""

    at: str
    container: str
    app: str
    replica: str
    action: str
    detail: str = ""


def events(engine: Engine, cluster_id: str, *, since_s: float | None) -> list[EngineEvent]:
    """Of this cluster's containers until now, oldest first. `since_s`: Unix seconds; None is all that is remembered.

    Now is what the node's clock says: with ours, the Engine would wait for it, or forget the last minutes.
    """
    now = str(engine.call(Request("GET", "/info"))["SystemTime"])
    until_s = int(datetime.fromisoformat(f"{now[:19]}+00:00").timestamp()) + 1
    since_s = 1 if since_s is None else min(int(since_s), until_s)
    filters = {"type": ["container"], "label": [f"{PREFIX}cluster={cluster_id}"]}
    query = urlencode({"since": since_s, "until": until_s, "filters": json.dumps(filters)})
    flow = engine.flow(Request("GET", f"/events?{query}"))
    try:
        found = [parsed(message) for message in islice(flow.messages(), MAX_EVENTS)]
    finally:
        flow.close()
    return [event for event in found if event is not None]


def ends(engine: Engine, cluster_id: str, *, since_s: float, until_s: float, timeout_s: float) -> dict[str, int]:
    """How often containers of this cluster ended by themselves, by name, as far as it is remembered. Times are the
    node's. The Engine waits for an `until_s` that is still to come: what it has told by then counts."""
    filters = {"type": ["container"], "event": ["die", "stop"], "label": [f"{PREFIX}cluster={cluster_id}"]}
    query = urlencode({"since": int(since_s), "until": int(until_s), "filters": json.dumps(filters)})
    flow = engine.flow(Request("GET", f"/events?{query}", timeout_s=timeout_s))
    flow.silence_s = timeout_s
    found: Counter[str] = Counter()
    try:
        for message in islice(flow.messages(), MAX_EVENTS):
            name = str(((message.get("Actor") or {}).get("Attributes") or {}).get("name", ""))
            found[name] += 1 if message.get("Action") == "die" else -1
    except TooSlow:
        pass
    finally:
        flow.close()
    return {name: number for name, number in found.items() if number > 0}


def last_exit(engine: Engine, cluster_id: str, container: str) -> int | None:
    """The exit status with which a container, by name, ended last; None when that is forgotten."""
    for event in reversed(events(engine, cluster_id, since_s=None)):
        if event.container == container and event.action == "die":
            status = event.detail.rpartition(" ")[2]
            return int(status) if status.isdigit() else None
    return None


def parsed(message: dict[str, Any]) -> EngineEvent | None:
    """None for what tells people nothing."""
    action, _, detail = str(message.get("Action", "")).partition(": ")
    if action not in TOLD and action != "health_status":
        return None
    marks = (message.get("Actor") or {}).get("Attributes") or {}
    if action == "die":
        detail = f"exit status {marks.get('exitCode', '?')}"
    elif action == "kill":
        detail = f"signal {marks.get('signal', '?')}"
    return EngineEvent(
        at=_milliseconds(int(message.get("timeNano") or 0)),
        container=str(marks.get("name", "")),
        app=str(marks.get(f"{PREFIX}app", "")),
        replica=str(marks.get(f"{PREFIX}replica", "")),
        action=action,
        detail=detail,
    )


def _milliseconds(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
