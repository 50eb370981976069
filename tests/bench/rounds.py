"""One round on the lab: the four jobs, by k4t and by the limit, and a first deploy with publishing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from tests.bench.measure import Cost
from tests.bench.scene import Scene

JOBS = ("deploy", "noop", "change", "delete", "publish")
LOOKS = 5
"""How often a round makes the plan that has nothing to do: it is short, and a single one says little."""


@dataclass(slots=True)
class Measured:
    """Costs of each job, in order of rounds; `limit` of the same round stands at the same place."""

    k4t: dict[str, list[Cost]] = field(default_factory=lambda: defaultdict(list))
    limit: dict[str, list[Cost]] = field(default_factory=lambda: defaultdict(list))


def play(scene: Scene, jobs: frozenset[str], measured: Measured, number: int) -> None:
    """k4t and the limit take turns in going first."""
    parts = [_k4t, _limit] if number % 2 else [_limit, _k4t]
    for part in parts:
        part(scene, jobs, measured)
    if "publish" in jobs:
        _published(scene, measured)


def _k4t(scene: Scene, jobs: frozenset[str], measured: Measured) -> None:
    found = measured.k4t
    scene.forget()
    scene.write()
    found["deploy"].append(scene.apply())
    if "noop" in jobs:
        found["noop"] += [scene.k4t("plan", "--detailed-exitcode") for _ in range(LOOKS)]
    if "change" in jobs:
        scene.write(version=2)
        found["change"].append(scene.apply())
    if "delete" in jobs:
        scene.empty()
        found["delete"].append(scene.apply())
    scene.forget()


def _limit(scene: Scene, jobs: frozenset[str], measured: Measured) -> None:
    found = measured.limit
    scene.forget()
    scene.write()
    found["deploy"].append(scene.limit("deploy"))
    if "noop" in jobs:
        found["noop"] += [scene.limit("noop") for _ in range(LOOKS)]
    version = 1
    if "change" in jobs:
        version = 2
        found["change"].append(scene.limit("change", version=version))
    if "delete" in jobs:
        found["delete"].append(scene.limit("delete", version=version))
    scene.forget()


def _published(scene: Scene, measured: Measured) -> None:
    """Its limit is the one without publishing: the Engine publishes nothing."""
    scene.show_participants()
    scene.write(published=True)
    measured.k4t["publish"].append(scene.apply())
    measured.limit["publish"].append(measured.limit["deploy"][-1])
    scene.empty()
    scene.apply()
    scene.hide_participants()
    scene.forget()
