"""Whether Envoy has taken what was written: its statistics name the version that each subscription holds."""

from __future__ import annotations

import os
from typing import Mapping

from . import envoy_render

ROUTE_CONFIGS = {"rds": envoy_render.HTTP, "rds_https": envoy_render.HTTPS}
WARMING = ("cluster_manager.warming_clusters", "listener_manager.total_listeners_warming")


def subscription(path: str) -> str:
    """What the statistics of the subscription to a file are named by. Routes: under every listener's own prefix."""
    kind, name = os.path.basename(os.path.dirname(path)), os.path.basename(path)[: -len(".json")]
    if kind == "eds":
        return "cluster.%s." % name
    if kind in ROUTE_CONFIGS:
        return ".rds.%s." % ROUTE_CONFIGS[kind]
    return "cluster_manager.cds." if kind == "cds" else "listener_manager.lds."


def taken(counters: Mapping[str, str], path: str, version: str) -> bool:
    prefix = subscription(path)
    if prefix.startswith("."):
        return any(name.endswith(prefix + "version_text") and text == version for name, text in counters.items())
    return counters.get(prefix + "version_text") == version


def rejections(counters: Mapping[str, str], path: str) -> int:
    prefix = subscription(path)
    names = [name for name in counters if name.endswith(prefix + "update_rejected")]
    return sum(int(counters[name]) for name in names if prefix.startswith(".") or name == prefix + "update_rejected")


def subscribed(counters: Mapping[str, str], path: str) -> bool:
    return subscription(path) + "version_text" in counters


def warming(counters: Mapping[str, str]) -> bool:
    """A cluster that waits for its endpoints' first checks, a listener that waits for its routes."""
    return any(counters.get(name, "0") != "0" for name in WARMING)


def starting(counters: Mapping[str, str]) -> bool:
    """Its dump says that listeners are active before anybody listens."""
    return counters.get("listener_manager.workers_started") == "0"
