"""What became of the requests: how many, which were lost and why, how long the others took, how late they were sent."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

OK = "ok"


class Sample(NamedTuple):
    """One request. `at_s`: when it was due, from the beginning; `latency_s` from then; `late_s`: sent so much later."""

    at_s: float
    latency_s: float
    late_s: float
    outcome: str


@dataclass(frozen=True)
class Report:
    """`began_at`: Unix time of the first request."""

    began_at: float
    samples: Sequence[Sample]

    @classmethod
    def load(cls, path: Path) -> Self:
        content = json.loads(path.read_text())
        return cls(content["began_at"], [Sample(*row) for row in content["samples"]])

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"began_at": self.began_at, "samples": self.samples}))

    def between(self, first_at: float, last_at: float) -> Report:
        """Those that were due in this stretch of (Unix) time."""
        kept = [s for s in self.samples if first_at <= self.began_at + s.at_s < last_at]
        return Report(self.began_at, kept)

    @property
    def lost(self) -> dict[str, int]:
        """How many were lost, by what happened to them."""
        return dict(Counter(sample.outcome for sample in self.samples if sample.outcome != OK))

    @property
    def rate_per_s(self) -> float:
        """How many were sent a second."""
        span_s = max(s.at_s for s in self.samples) - min(s.at_s for s in self.samples) if self.samples else 0.0
        return (len(self.samples) - 1) / span_s if span_s else 0.0

    def latency_s(self, share: float) -> float:
        return _at([sample.latency_s for sample in self.samples if sample.outcome == OK], share)

    def late_s(self, share: float) -> float:
        return _at([sample.late_s for sample in self.samples], share)

    def first_lost(self, number: int = 10) -> str:
        """The first lost ones, for a failing test: when (Unix time) and why."""
        lost = sorted(sample for sample in self.samples if sample.outcome != OK)[:number]
        return "\n".join(f"{self.began_at + s.at_s:.3f} after {s.latency_s:.3f} s: {s.outcome}" for s in lost)

    def words(self, *, with_rate: bool = True) -> str:
        """`with_rate` False: of samples from several stretches of time."""
        latencies = " ".join(f"{name} {self.latency_s(at) * 1000:.0f}" for name, at in _NAMED)
        rate = f" at {self.rate_per_s:.0f}/s" if with_rate else ""
        lost = ", ".join(f"{count} {kind}" for kind, count in sorted(self.lost.items())) or "none"
        return (
            f"{len(self.samples)} requests{rate}, lost: {lost}; ms: {latencies}; "
            f"sent late by p99 {self.late_s(0.99) * 1000:.0f} max {self.late_s(1) * 1000:.0f} ms"
        )


_NAMED = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))


def _at(values: Sequence[float], share: float) -> float:
    """The value that `share` of them don't exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
