"""What Prometheus gets: every figure by its name and unit, nothing of what is not known, whatever hosts are called;
rules that ring for each thing that a check finds, and once; a dashboard that asks for what there is."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t import __version__
from k4t.errors import K4tError
from k4t.model.hosts import Power
from k4t.model.monitor import Threshold
from k4t.model.state import NodeState
from k4t.monitor import prometheus
from k4t.monitor.check import Looked
from k4t.monitor.facts import Answer, Docker, Facts, Host, OffNotice, OpenTransaction, Subject
from k4t.monitor.history import NONE
from k4t.monitor.judge import judge
from k4t.monitor.prometheus import dashboard, rules
from k4t.monitor.prometheus.cluster import MAX_FINDINGS
from k4t.monitor.prometheus.exposition import MAX_LABEL, MAX_SERIES, Sample, number, render
from k4t.monitor.prometheus.families import FAMILIES
from k4t.monitor.signs import signs
from tests.monitor import clusters
from tests.monitor.test_signs import SILENT, certificate, held
from tests.monitor.world import NOW_S, away, facts, tree, with_host, with_reading

pytestmark = pytest.mark.unit
GOLDEN = Path(__file__).parent / "golden" / "prometheus.prom"
DOCS = Path(__file__).resolve().parents[2] / "docs"
Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]
LINE = re.compile(r'(\w+)(?:\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\})? (\S+)')
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def looked(found: Facts, *thresholds: Threshold, has_tree: bool = True) -> Looked:
    wanted = tree(*thresholds)
    return Looked(found, judge(signs(found, wanted), NONE, wanted.monitor, NOW_S), wanted, has_tree)


def parsed(text: str) -> Series:
    """By the grammar of the format, strictly; a series that is there twice is refused."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for line in text.split("\n")[:-1]:
        if line.startswith("# "):
            continue
        one = LINE.fullmatch(line)
        assert one is not None, line
        labels = frozenset((name, _plain(escaped)) for name, escaped in LABEL.findall(one[2] or ""))
        assert (one[1], labels) not in found, line
        found[one[1], labels] = float(one[3])
    return found


def _plain(escaped: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), escaped)


def exported(found: Facts, *thresholds: Threshold) -> Series:
    return parsed(prometheus.text(looked(found, *thresholds)))


def of(series: Series, name: str, **labels: str) -> dict[str, float]:
    """The series of a family with these labels, by the values of its other labels but the cluster's, in their order."""
    return {
        " ".join(text for key, text in sorted(found) if key not in (*labels, "cluster")): measured
        for (family, found), measured in series.items()
        if family == name and labels.items() <= dict(found).items()
    }


def troubled() -> Facts:
    """Something of everything: a node is away, a lock is held for long, a certificate ends, a publication is open,
    there is no copy, the master is off, an endpoint does not answer."""
    found = away(certificate(5 * 86400.0), "node/n2", SILENT)
    found = with_reading(found, "node/n1", lock_held=True, lock=held(NOW_S - 2400), uptime_s=86400.25)
    found = with_host(found, "node/n1", cpu_percent=37.5)
    node = dataclasses.replace(found.nodes["n1"], images_bytes=5_000_000_000, deaths={"prod.web.0.1": 2})
    return dataclasses.replace(
        found, nodes={**found.nodes, "n1": node}, transactions=(OpenTransaction("t1", "gw1", "staged", NOW_S - 30),),
        reached={("id0", 8080): Answer("times out", "gw1")},
        targets=(*found.targets, dataclasses.replace(found.targets[0], name="vault", confirmed_s=None, state="none")),
        off=OffNotice("ana@laptop", "2026-11-18T10:00:00Z", "done for today", genuine=True, read_on="gw1"),
    )  # fmt: skip


# --- figures ---------------------------------------------------------------------------------------------------------


def test_the_whole_export_is_as_it_was() -> None:
    """Names, labels, units, order: people's alerts are made of them. K4T_WRITE_CASES=1 writes it anew."""
    text = prometheus.text(looked(troubled())).replace(f'version="{__version__}"', 'version="VERSION"')
    if "K4T_WRITE_CASES" in os.environ:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
    told = {name for name, _ in parsed(text)}
    assert set(FAMILIES) - told == set()


def test_what_is_not_known_is_absent() -> None:
    """Of a host that is away: that it is, and why. Nothing else of it, of its Docker, gateway or DNS server, is 0."""
    off = away(away(facts(), "node/n2", SILENT), "gateway/gw1", SILENT)
    off = dataclasses.replace(off, reached={}, serving={})
    series = exported(off)
    mine = {name for name, labels in series if ("host", "n2") in labels or ("node", "n2") in labels}
    assert mine == {"k4t_host_up", "k4t_host_expected_up", "k4t_host_failure", "k4t_node_info"}
    members = {name for name, _ in series if name.startswith("k4t_participant_")}
    assert members == {"k4t_participant_info"}
    assert of(series, "k4t_host_up", kind="node") == {"n1": 1, "n2": 0}
    assert of(series, "k4t_app_replicas", app="web", state="unknown") == {"": 1}


def test_a_part_that_is_not_known_is_absent() -> None:
    """A probe that could not say one thing; a first check, before which there were no ticks."""
    series = exported(with_reading(facts(), "node/n1", memory=None, load=None, skew_s=None, disks={}, uptime_s=None))
    mine = {name for name, labels in series if ("host", "n1") in labels}
    assert mine == {"k4t_host_up", "k4t_host_expected_up", "k4t_host_cpus", "k4t_node_info"}
    assert not of(series, "k4t_host_cpu_used_ratio")


PARTS = {
    "uptime_s": {"k4t_host_uptime_seconds"},
    "load": {"k4t_host_load1", "k4t_host_load5", "k4t_host_load15"},
    "cpus": {"k4t_host_cpus"},
    "skew_s": {"k4t_host_clock_skew_seconds", "k4t_host_clock_skew_doubt_seconds"},
    "memory": {
        "k4t_host_memory_size_bytes", "k4t_host_memory_available_bytes", "k4t_host_memory_used_ratio",
        "k4t_host_swap_size_bytes", "k4t_host_swap_free_bytes",
    },
}  # fmt: skip
"""What is made of each part of a reading."""


@given(st.sets(st.sampled_from(sorted(PARTS))))
def test_just_what_is_known_is_there(unknown: set[str]) -> None:
    """Whatever parts of a host's answer are missing, in any combination: those, and no others."""
    series = exported(with_reading(facts(), "node/n1", **dict.fromkeys(unknown)))
    mine = {name for name, labels in series if ("host", "n1") in labels}
    for part, names in PARTS.items():
        assert mine & names == (set() if part in unknown else names)


def test_when_the_monitor_is_cut_off_no_host_is_down() -> None:
    """It is the monitor, and that is told."""
    silent = away(away(away(facts(), "node/n1", SILENT), "node/n2", SILENT), "gateway/gw1", SILENT)
    series = exported(silent)
    assert of(series, "k4t_host_up") == {}
    assert of(series, "k4t_monitor_cut_off") == {"": 1}
    assert of(series, "k4t_lock_held") == of(series, "k4t_master_off_on_purpose") == {}


def test_without_a_tree_what_should_be_is_absent() -> None:
    """Neither desired replicas nor a node's availability; what runs is there."""
    found = dataclasses.replace(facts(), desired={})
    bare = dataclasses.replace(tree(), apps={}, nodes={})
    one = Looked(found, judge(signs(found, bare), NONE, bare.monitor, NOW_S), bare, has_tree=False)
    series = parsed(prometheus.text(one))
    assert of(series, "k4t_app_replicas_desired") == {}
    assert of(series, "k4t_app_replicas_running") == {"web": 2}
    assert of(series, "k4t_node_info") == {"n1 n1": 1, "n2 n2": 1}


def test_what_may_be_off_is_said() -> None:
    """A node that is drained or dead, a master that said so and is believed; no other host."""
    off = OffNotice("ana@laptop", "2026-11-18T10:00:00Z", "", genuine=True, read_on="gw1")
    silent = away(away(facts(), "node/n2", SILENT), "gateway/gw1", SILENT)
    master = Subject("master", "box")
    hosts = {**silent.hosts, master.key: Host("box", master, (master,), failure=SILENT)}
    found = dataclasses.replace(silent, hosts=hosts, master=master.key, off=off)
    wanted = tree()

    def expected(found: Facts, availability: str) -> dict[str, float]:
        node = dataclasses.replace(wanted.nodes["n2"], availability=availability)  # type: ignore[arg-type]
        changed = dataclasses.replace(
            wanted, nodes={**wanted.nodes, "n2": node},
            cluster=dataclasses.replace(wanted.cluster, power=Power(host="box")),
        )  # fmt: skip
        judged = judge(signs(found, changed), NONE, changed.monitor, NOW_S)
        return of(parsed(prometheus.text(Looked(found, judged, changed))), "k4t_host_expected_up")

    assert expected(found, "dead") == {"n1 node": 1, "n2 node": 0, "gw1 gateway": 1, "box master": 0}
    assert expected(found, "drained")["n2 node"] == 0
    assert expected(found, "active")["n2 node"] == 1
    forged = dataclasses.replace(found, off=dataclasses.replace(off, genuine=False))
    assert expected(forged, "active")["box master"] == 1


def test_thresholds_come_with_the_figures_and_never_is_absent() -> None:
    """In the units of what they are compared with."""
    series = exported(facts(), Threshold("memory", 70.0, None), Threshold("lock-age", None, 60.0))
    assert of(series, "k4t_threshold_ratio", of="memory") == {"warning": 0.7}
    assert of(series, "k4t_threshold_seconds", of="lock-age") == {"critical": 60}
    assert of(series, "k4t_backup_age_limit_seconds", target="n1") == {"warning": 240, "critical": 660}


def test_findings_that_are_raised_are_series_of_their_own() -> None:
    """Bounded, the worst first; all of them are counted."""
    one = looked(away(facts(), "node/n2", SILENT))
    assert of(parsed(prometheus.text(one)), "k4t_finding") == {"node critical n2 host-off": 1}
    finding = one.judgement.findings[0]
    many = tuple(dataclasses.replace(finding, subject=Subject("app", f"a{place}")) for place in range(900))
    pending = dataclasses.replace(finding, confirmed=False)
    judgement = dataclasses.replace(one.judgement, findings=(*many, pending))
    series = parsed(prometheus.text(dataclasses.replace(one, judgement=judgement)))
    assert of(series, "k4t_findings") == {"ok": 0, "unknown": 0, "warning": 0, "critical": 900}
    assert len(of(series, "k4t_finding")) == MAX_FINDINGS


def test_while_a_run_is_at_work_what_it_changes_is_absent() -> None:
    """Neither replicas by state, nor whether members are in step."""
    series = exported(with_reading(facts(), "node/n1", lock_held=True, lock=held(NOW_S - 5)))
    assert of(series, "k4t_run_active") == of(series, "k4t_lock_held") == {"": 1}
    assert of(series, "k4t_app_replicas") == of(series, "k4t_participant_in_step") == {}
    assert of(series, "k4t_app_replicas_running") == {"web": 2}


def test_names_follow_prometheus_conventions() -> None:
    """One prefix, base units; times are Unix seconds and say so; no gauge calls itself a counter."""
    for name, about in FAMILIES.items():
        assert re.fullmatch(r"k4t(_[a-z0-9]+)+", name)
        assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_percent", "_ms"))
        assert about.endswith(".")
        assert about[0].isupper() or about[0].isdigit()
    for name, labels in exported(troubled()):
        assert dict(labels)["cluster"] == "prod", name
        if name.endswith("_ratio"):
            assert 0 <= exported(troubled())[name, labels] <= 1


# --- the format ------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text(), st.text(), st.floats(), st.integers(-(2**70), 2**70))))
def test_whatever_it_is_it_can_be_read_back(rows: list[tuple[str, str, float, int]]) -> None:
    """As one series each, of the same labels and value; what is no number is absent."""
    samples = [
        Sample("f", {"a": one, "b": other}, measured)
        for one, other, real, whole in rows
        for measured in (real, whole, None)
    ]
    text, dropped = render({"f": "About\\it\nall."}, samples)
    text.encode("utf-8")
    found = parsed(text)
    assert dropped == 0
    assert all(abs(measured) != float("inf") for measured in found.values())
    for (_, labels), measured in found.items():
        given = dict(labels)
        matching = [
            float(sample.measured)
            for sample in samples
            if sample.measured is not None
            and [_cut(text) for text in sample.labels.values()] == [given.get("a", ""), given.get("b", "")]
        ]
        assert measured in matching


def _cut(text: str) -> str:
    return text[:MAX_LABEL].encode("utf-8", "replace").decode("utf-8")


def test_numbers_are_short_and_whole() -> None:
    """No exponent and no point where none is needed."""
    assert [number(one) for one in (1.0, 0.5, 1795000000.0, 3, -0.0, 1e20)] == [
        "1", "0.5", "1795000000", "3", "0", "1e+20"
    ]  # fmt: skip


def test_no_host_can_fill_prometheus() -> None:
    """Series of one family are bounded, and how many were too many is said."""
    hosts = {name: Docker(NodeState(name, True)) for name in (f"n{place}" for place in range(MAX_SERIES + 7))}
    series = exported(facts(nodes=hosts, desired={}))
    assert len(of(series, "k4t_node_containers")) == MAX_SERIES
    (dropped,) = of(series, "k4t_export_dropped_series").values()
    assert dropped >= 7


@pytest.mark.parametrize("make", [clusters.healthy, clusters.bad, clusters.large, clusters.hostile])
def test_any_cluster_can_be_exported(make: Callable[[], Looked]) -> None:
    """Also one whose hosts call themselves what nobody should believe."""
    text = prometheus.text(make())
    text.encode("utf-8")
    assert len(parsed(text)) > 100


def test_the_file_is_replaced_for_all_to_read(tmp_path: Path) -> None:
    """And nothing is left beside it; what can't be written is named, and the old file stays."""
    file = tmp_path / "k4t.prom"
    for _ in range(2):
        prometheus.write(file, looked(facts()))
    assert [(one, one.stat().st_mode & 0o777) for one in tmp_path.iterdir()] == [(file, 0o644)]
    assert file.read_text() == prometheus.text(looked(facts()))
    with pytest.raises(K4tError, match="gone"):
        prometheus.write(tmp_path / "gone" / "k4t.prom", looked(facts()))


def test_the_command_refuses_what_nobody_would_read(tmp_path: Path) -> None:
    """A file that the node exporter passes over; and rules and dashboard need neither tree nor host."""

    def k4t(*words: str, status: int = 0) -> str:
        argv = [sys.executable, "-m", "k4t.cli", "--db", str(tmp_path / "none"), "monitor", "export", "prometheus"]
        done = subprocess.run([*argv, *words], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    assert "files that end in .prom alone" in k4t("--textfile", str(tmp_path / "k4t.txt"), status=64)
    assert "no tree" in k4t("--textfile", str(tmp_path / "k4t.prom"), status=64)
    assert "--cluster" in k4t("--cluster", "k7f3q2m9", status=64)
    assert k4t("--rules", "-") == rules.yaml()
    told = json.loads(k4t("--rules", str(tmp_path), "--dashboard", str(tmp_path / "board.json"), "-o", "json"))
    assert told == {"version": 1, "files": [str(tmp_path / "k4t.rules.yml"), str(tmp_path / "board.json")]}
    assert (tmp_path / "board.json").read_text() == dashboard.dashboard()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["board.json", "k4t.rules.yml"]


# --- rules and dashboard ---------------------------------------------------------------------------------------------


def expressions() -> Iterator[str]:
    for group in rules.GROUPS.values():
        yield from (rule.expr for rule in group)
    model = json.loads(dashboard.dashboard())
    yield from (target["expr"] for panel in model["panels"] for target in panel.get("targets", []))
    yield from (one["expr"] for one in model["annotations"]["list"])
    yield from (one["definition"] for one in model["templating"]["list"] if one["type"] == "query")


def test_every_metric_that_is_asked_for_exists() -> None:
    """By rules and by the dashboard; and the labels that are chosen by are those of the family."""
    labels: dict[str, set[str]] = {}
    for name, found in exported(troubled()):
        labels.setdefault(name, set()).update(key for key, _ in found)
    for expr in expressions():
        for name, chosen in re.findall(r"\b(k4t_\w+)(?:\{([^}]*)\})?", expr):
            assert name in FAMILIES, expr
            assert set(re.findall(r"(\w+)[=!]", re.sub(r'"[^"]*"', '""', chosen))) <= labels[name], expr


def test_every_alert_says_of_what_and_what_to_do() -> None:
    """Its labels are those that its expression leaves; its severity is one of two."""
    for group in rules.GROUPS.values():
        for rule in group:
            kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", rule.expr))))
            named = set(re.findall(r"\$labels\.(\w+)", rule.summary + rule.description))
            assert named <= kept, rule.alert
            assert "cluster" in named or rule.alert == "K4tMonitorAbsent"
            assert rule.severity in ("warning", "critical") or rule.alert == "K4tFinding"
            assert len(rule.description) > 10


def test_every_alert_is_told_in_the_docs() -> None:
    """With its severity and how long it waits, and no other; so is every metric."""
    page = (DOCS / "prometheus.md").read_text()
    told: dict[str, tuple[str, str]] = {}
    for names, severity, wait in re.findall(r"(?m)^\| ((?:`K4t\w+` ?)+) \| ([\w ]+) \|(.*?)\|", page):
        told |= dict.fromkeys(re.findall(r"\w+", names), (severity, wait.strip()))
    found: dict[str, tuple[str, str]] = {}
    for rule in (one for group in rules.GROUPS.values() for one in group):
        severity = rule.severity if rule.alert != "K4tFinding" else "its own"
        severity = severity if found.get(rule.alert, (severity,))[0] == severity else "both"
        found[rule.alert] = (severity, rules.duration(rule.for_s) if rule.for_s else "")
    assert told == found
    assert set(re.findall(r"`(k4t_\w+)`", page)) == set(FAMILIES)
    assert (str(MAX_SERIES), str(MAX_FINDINGS)) == tuple(
        re.findall(r"at most (\d+), and of findings (\d+)", page.replace("\n", " "))[0]
    )


def test_findings_that_rules_tell_are_findings() -> None:
    """By the names of docs/monitor.md: one that is called otherwise one day would be told by nobody."""
    page = (DOCS / "monitor.md").read_text()
    assert {name for name in (*rules.TOLD, *rules.AWAY) if f"`{name}`" not in page} == set()


def test_the_dashboard_is_one_that_grafana_can_show() -> None:
    """Panels with ids of their own that do not lie on each other, each asking the chosen source for the chosen
    cluster."""
    model = json.loads(dashboard.dashboard())
    assert (model["schemaVersion"], model["uid"]) == (37, "k4t-clusters")
    assert "id" not in model
    assert [one["name"] for one in model["templating"]["list"]] == ["datasource", "cluster"]
    panels = model["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        across, down = (range(place[at], place[at] + place[size]) for at, size in ("xw", "yh"))
        cells = set(itertools.product(across, down))
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert target["expr"].count('cluster=~"$cluster"') == len(re.findall(r"k4t_\w+", target["expr"]))
        kinds = ("row", "stat", "table", "timeseries", "state-timeline", "bargauge")
        assert panel["type"] in kinds
