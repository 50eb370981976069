"""A closed loop: an app under a load, its replicas' CPU, what the tracking wants, and a master that does it later."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Sequence

from k4t.model.app import Scale
from k4t.monitor.scaling.track import Reading, Sample, Track, decide

CPU = Scale(1, 50, cpu_percent=60.0)
Load = Callable[[float], float]


@dataclasses.dataclass
class Loop:
    """`load(t)`: per cent of one replica's CPU, all together. `delay_s`: until the master has done it; `warm_s`: until
    a new replica serves. `noise`: of what is measured, `jitter_s`: of when."""

    load: Load
    scale: Scale = CPU
    size: int = 1
    interval_s: float = 10.0
    jitter_s: float = 0.0
    noise: float = 0.0
    delay_s: float = 5.0
    warm_s: float = 5.0
    seed: int = 0
    sizes: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    goals: list[tuple[float, int]] = dataclasses.field(default_factory=list)

    def run(self, seconds: float) -> Loop:
        dice = random.Random(self.seed)  # noqa: S311 - a test's noise
        track: Track | None = None
        now_s, serving, todo = 1000.0, self.size, list[tuple[float, int]]()
        warming: list[float] = []
        self.sizes.append((now_s, self.size))
        while now_s < 1000.0 + seconds:
            now_s += self.interval_s + dice.uniform(-self.jitter_s, self.jitter_s)
            while todo and todo[0][0] <= now_s:
                at_s, goal = todo.pop(0)
                if goal > self.size:
                    warming += [at_s + self.warm_s] * (goal - self.size)
                else:
                    warming = warming[: max(0, goal - serving)]
                    serving = min(serving, goal)
                self.size = goal
                self.sizes.append((now_s, goal))
            serving += sum(at_s <= now_s for at_s in warming)
            warming = [at_s for at_s in warming if at_s > now_s]
            share = min(100.0, self.load(now_s - 1000.0) / max(1, serving))
            readings = [
                Reading("serving", share * (1 + dice.uniform(-self.noise, self.noise))) for _ in range(serving)
            ] + [Reading("absent")] * (self.size - serving)
            found = decide(self.scale, Sample(now_s, self.size, tuple(readings)), track)
            track = found.track
            if found.replicas is not None and (not todo or todo[-1][1] != found.replicas):
                self.goals.append((now_s, found.replicas))
                todo.append((now_s + self.delay_s, found.replicas))
        return self

    @property
    def last(self) -> int:
        return self.sizes[-1][1]

    @property
    def turns(self) -> list[str]:
        """Directions, those alike taken together."""
        return turns([size for _, size in self.sizes])


def turns(sizes: Sequence[int]) -> list[str]:
    found: list[str] = []
    for before, after in itertools.pairwise(sizes):
        way = "up" if after > before else "down"
        if after != before and found[-1:] != [way]:
            found.append(way)
    return found
