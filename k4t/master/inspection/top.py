"""What each container uses: two readings a moment apart make a rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from k4t.errors import K4tError
from k4t.master.choose import Chosen
from k4t.master.fleet import Fleet, at_once
from k4t.model.state import Container
from k4t.model.value import value
from k4t.node import stats
from k4t.node.stats import Sample

EVERY_S = 1.0


@value
class Use:
    """`cpus`: processors kept busy (1.5 = one and a half). Rates in bytes a second; None where they aren't counted."""

    sample: Sample
    cpus: float
    received_bytes_s: float | None
    sent_bytes_s: float | None


def watch(fleet: Fleet, chosen: Chosen, say: Callable[[str], None], *, every_s: float = EVERY_S) -> Iterator[list[Use]]:
    """A list every `every_s`, in the order of `chosen`; what doesn't run is left out."""
    running = [one for one in chosen.containers if one.running]
    told: set[str] = set()

    def read(container: Container) -> Sample | None:
        try:
            return stats.sample(fleet.engine(container.node), container)
        except K4tError as error:
            if container.id not in told:
                told.add(container.id)
                say(f"{container.name}: {error}")
            return None

    before = {one.container.id: one for one in at_once(read, running) if one}
    while True:
        time.sleep(every_s)
        now = [one for one in at_once(read, running) if one]
        yield [_use(before[one.container.id], one) for one in now if one.container.id in before]
        before = {one.container.id: one for one in now}


def _use(before: Sample, now: Sample) -> Use:
    passed_s = max(now.at_s - before.at_s, 1e-3)
    return Use(
        now,
        max(0.0, now.cpu_s - before.cpu_s) / passed_s,
        _rate(before.received_bytes, now.received_bytes, passed_s),
        _rate(before.sent_bytes, now.sent_bytes, passed_s),
    )


def _rate(before: int | None, now: int | None, passed_s: float) -> float | None:
    return None if before is None or now is None else max(0, now - before) / passed_s
