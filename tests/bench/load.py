"""No lost request, under load while everything that operators do is done: two apps on two nodes behind two Envoys, and
the same by their names alone, asked of dnsmasq.

python -m tests.bench --only load. At least 100,000 requests each (--quick: 10,000) from an open-loop client.
"""

from __future__ import annotations

from pathlib import Path

from tests.bench.figures import Row
from tests.e2e.site import Site
from tests.lab import Lab
from tests.load import Report
from tests.load.scenario import Named, Scenario

RATE_PER_S = 500
REQUESTS = 100_000
QUICK = 10_000
MAX_ROUNDS = 100
DRAIN = "5s"


def measure(directory: Path, *, quick: bool) -> tuple[list[Row], str]:
    """The figures, and what became of the requests during each kind of change."""
    rows, said = [], []
    for kind, where in ((Scenario, "through gateways"), (Named, "by name alone")):
        place = directory / kind.__name__.lower()
        place.mkdir(parents=True)
        with Lab(name="bench-load", nodes=2, gateways=2, registry=True) as lab:
            scenario = _scenario(kind, lab, place)
            report = _play(scenario, place / "samples.json", QUICK if quick else REQUESTS)
        lost = sum(report.lost.values())
        name = f"lost of {len(report.samples):,} requests {where} at {report.rate_per_s:.0f}/s"
        rows.append(Row(name, ("", "", str(lost), "", ""), float(lost), 0.0, "0"))
        said += [f"{where}:", *_phases(scenario, report), f"in all: {report.words()}"]
    return rows, "\n".join(said)


def _scenario(kind: type[Scenario], lab: Lab, directory: Path) -> Scenario:
    site = Site(lab, directory)
    doors = [lab.host("gw1"), lab.host("gw2")]
    if kind is Scenario:
        for door in doors:
            site.gateway(door)
    site.dns(doors[1])
    made = kind(site, lab, doors[1:] if kind is Named else doors, drain=DRAIN)
    for host in lab.nodes:
        made.availability(host.name, "active")
    if kind is Scenario:
        site.k4t("gateway", "install")
    site.k4t("dns", "install")
    made.apply()
    return made


def _play(scenario: Scenario, save: Path, requests: int) -> Report:
    """Everything once, and again until so many requests are sent."""
    with scenario.load(save, rate_per_s=RATE_PER_S) as load:
        for number in range(MAX_ROUNDS):
            for step in scenario.steps(number):
                step()
            first, last = scenario.times[0][1], scenario.times[-1][2]
            if (last - first) * RATE_PER_S > requests:
                break
    return load.report


def _phases(scenario: Scenario, report: Report) -> list[str]:
    """One line a kind of change, over all rounds."""
    lines = []
    for name in dict.fromkeys(name for name, _, _ in scenario.times):
        parts = [phase for phase in scenario.phases(report) if phase.name == name]
        samples = [sample for phase in parts for sample in phase.report.samples]
        took_s = sorted(phase.ended_at - phase.began_at for phase in parts)
        lines.append(
            f"{name}, {len(parts)} times, {took_s[len(took_s) // 2]:.1f} s: {Report(0, samples).words(with_rate=False)}"
        )
    return lines
