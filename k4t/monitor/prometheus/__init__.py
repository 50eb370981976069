"""What one check saw, for Prometheus: metrics for the node exporter's textfile collector (hosts, apps and cluster make
samples of facts, families names them, exposition writes them), alert rules and a Grafana dashboard.

All of it is pure but `write`.
"""

from __future__ import annotations

from pathlib import Path

from k4t.monitor.check import Looked
from k4t.monitor.prometheus import apps, cluster, hosts
from k4t.monitor.prometheus.exposition import Sample, render
from k4t.monitor.prometheus.families import FAMILIES
from k4t.monitor.signs.sign import View

DROPPED = "k4t_export_dropped_series"


def text(looked: Looked) -> str:
    """The metrics, in Prometheus' text format."""
    facts, findings = looked.facts, looked.judgement.findings
    view = View(facts, looked.tree, dict(looked.judgement.history.firsts))
    samples = [
        *cluster.check(view, findings),
        *cluster.samples(view),
        *cluster.thresholds(facts.cluster, looked.tree.monitor),
        *hosts.samples(view, findings),
        *apps.samples(view),
        *apps.participants(view, findings),
    ]
    written, dropped = render(FAMILIES, samples)
    told = Sample(DROPPED, {"cluster": facts.cluster}, dropped)
    return written + render({DROPPED: FAMILIES[DROPPED]}, [told])[0]


def write(path: Path, looked: Looked) -> None:
    """Put the metrics into place in one step, for everybody to read: whoever scrapes sees the old ones or the new ones.
    Raises K4tError with the path."""
    from k4t.tree.edit import write_file

    write_file(path, text(looked).encode(), 0o644)
