"""What a running container uses now.

https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Container/operation/ContainerStats
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from k4t.errors import EngineRefused
from k4t.model.state import Container
from k4t.model.value import value
from k4t.node.call import Request
from k4t.node.docker import Engine


@value
class Sample:
    """`cpu_s`: processor time since its start, read at `at_s`. Bytes over the network since its start; None where it
    shares the host's network, which is not counted by container."""

    container: Container
    at_s: float
    cpu_s: float
    memory_bytes: int
    memory_limit_bytes: int
    received_bytes: int | None
    sent_bytes: int | None
    pids: int


def sample(engine: Engine, container: Container, timeout_s: float = 30.0) -> Sample | None:
    """One reading; None when it doesn't run (any more)."""
    path = f"/containers/{container.id}/stats?stream=0&one-shot=1"
    try:
        found = engine.call(Request("GET", path, timeout_s=timeout_s))
    except EngineRefused as error:
        if error.status in (404, 409):
            return None
        raise
    return read(container, found)


def read(container: Container, found: Mapping[str, Any]) -> Sample | None:
    memory, cpu = found.get("memory_stats") or {}, (found.get("cpu_stats") or {}).get("cpu_usage") or {}
    if not memory.get("usage"):
        return None
    networks = found.get("networks")
    totals = list(networks.values()) if networks else []
    return Sample(
        container=container,
        at_s=datetime.fromisoformat(_microseconds(str(found["read"]))).timestamp(),
        cpu_s=int(cpu.get("total_usage") or 0) / 1e9,
        memory_bytes=int(memory["usage"]) - _reclaimable(memory.get("stats") or {}),
        memory_limit_bytes=int(memory.get("limit") or 0),
        received_bytes=sum(int(one["rx_bytes"]) for one in totals) if networks else None,
        sent_bytes=sum(int(one["tx_bytes"]) for one in totals) if networks else None,
        pids=int((found.get("pids_stats") or {}).get("current") or 0),
    )


def _reclaimable(stats: Mapping[str, Any]) -> int:
    """Cached file pages that nobody has used lately: cgroup v2's name, and v1's. As `docker stats` counts."""
    return int(stats.get("inactive_file") or stats.get("total_inactive_file") or 0)


def _microseconds(at: str) -> str:
    """Docker writes nine digits of a second, datetime reads six."""
    whole, _, fraction = at.removesuffix("Z").partition(".")
    return f"{whole}.{fraction[:6].ljust(6, '0')}+00:00"
