"""The alert rules, by Prometheus' own tool: whatever a check finds wrong rings, by the name that the docs have for it,
and nothing else does. What a check saw is exported and held for twenty minutes; all that was a time goes on.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from k4t.model.hosts import Power
from k4t.monitor import prometheus
from k4t.monitor.check import Looked
from k4t.monitor.facts import Host, OffNotice, Subject
from k4t.monitor.history import NONE
from k4t.monitor.judge import judge
from k4t.monitor.prometheus import dashboard, rules
from k4t.monitor.prometheus.exposition import Sample, render
from k4t.monitor.signs import signs
from tests.monitor import clusters
from tests.monitor.test_prometheus import looked, troubled
from tests.monitor.test_signs import CASES, SILENT, copies
from tests.monitor.world import NOW_S, away, facts, tree

pytestmark = pytest.mark.integration
MINUTES, STEP_S = 20, 240
ALERT_OF = {
    "host-off": "K4tNodeDown", "network": "K4tNodeDown", "sshd": "K4tNodeDown", "login": "K4tNodeDown",
    "hangs": "K4tNodeDown", "disk": "K4tDiskFull", "docker-disk": "K4tDockerDiskFull", "memory": "K4tMemoryShort",
    "cpu": "K4tCpuBusy", "load": "K4tLoadHigh", "clock-skew": "K4tClockSkew", "docker": "K4tDockerDown",
    "container-missing": "K4tAppShortOfReplicas", "container-stopped": "K4tAppShortOfReplicas",
    "restarting": "K4tAppRestarting", "unhealthy": "K4tAppUnhealthy", "endpoint-dead": "K4tAppUnhealthy",
    "unpublished": "K4tAppNotPublished", "gateway-stopped": "K4tParticipantDown", "gateway-away": "K4tParticipantDown",
    "out-of-step": "K4tParticipantOutOfStep", "rejected-config": "K4tParticipantRefuses",
    "certificate-expiry": "K4tCertificateExpiry", "backup-age": "K4tBackupOverdue", "lock-held": "K4tLockHeld",
    "backup-refused": "K4tBackupRefused", "transaction-open": "K4tTransactionOpen",
}  # fmt: skip
"""What is told otherwise is told by K4tFinding."""
OTHERWISE = {
    "it answers garbage": {("K4tNodeDown", "critical")},
    "everything is silent": {("K4tMonitorCutOff", "critical")},
    "our own clock": {("K4tFinding", "critical")},
    "both are gone": {("K4tAppDown", "critical")},
    "one ended often and runs": {("K4tAppRestarting", "critical")},
    "no copy yet": {("K4tBackupMissing", "warning")},
}
PASSES = {"one has just begun", "lock just taken"}
"""What does not last for twenty minutes."""


def expected(case: str) -> set[tuple[str, str]]:
    if case in OTHERWISE:
        return OTHERWISE[case]
    levels = ("", "warning", "warning", "critical")
    worst: dict[str, int] = {}
    for name, level in CASES[case][1].items():
        alert = ALERT_OF.get(name.rpartition(": ")[2], "K4tFinding") if level > 1 else "K4tFinding"
        worst[alert] = max(level, worst.get(alert, 0))
    return {(alert, levels[level]) for alert, level in worst.items()}


def series(text: str, step_s: int) -> Iterator[dict[str, str]]:
    """Of an export, as the tool takes them: from time 0 on, and times go on with it."""
    steps = (MINUTES + 5) * 60 // step_s
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, _, measured = line.rpartition(" ")
        value = float(measured)
        times = "_timestamp_seconds" in name
        start, step = (value - NOW_S, step_s) if times else (value, 0)
        yield {"series": name, "values": f"{start:.3f}+{step}x{steps}"}


def scenario(text: str, *asked: dict[str, Any], step_s: int = 60, **more: Any) -> dict[str, Any]:
    found = list(series(text, step_s))
    return {"interval": f"{step_s}s", "input_series": found, "promql_expr_test": list(asked), **more}


def firing(alerts: set[tuple[str, str]]) -> dict[str, Any]:
    """Just these. What is critical by a threshold is a warning too, which Alertmanager is told to inhibit."""
    doubled = '(ALERTS{alertstate="firing",severity="warning"} unless on (alertname) '
    query = f'group by (alertname, severity) ({doubled}ALERTS{{alertstate="firing",severity="critical"}}))'
    query += ' or group by (alertname, severity) (ALERTS{alertstate="firing",severity="critical"})'
    samples = [{"labels": f'{{alertname="{name}",severity="{level}"}}', "value": 1} for name, level in sorted(alerts)]
    return {"expr": query, "eval_time": f"{MINUTES}m", "exp_samples": samples}


def tried(directory: Path, *scenarios: dict[str, Any], step_s: int = 60) -> None:
    """All at once: the tool says of each what is not as it should be."""
    (directory / "rules.yml").write_text(rules.yaml())
    test = {"rule_files": ["rules.yml"], "evaluation_interval": f"{step_s}s", "tests": list(scenarios)}
    (directory / "test.yml").write_text(json.dumps(test))  # JSON is YAML
    argv = ["promtool", "test", "rules", "test.yml"]
    done = subprocess.run(argv, cwd=directory, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]


def test_each_finding_rings_by_its_alert_and_nothing_else_does(tmp_path: Path) -> None:
    """All cases by which the check itself is tested, one after another; a healthy cluster is silent."""
    cases = [case for case in CASES if case not in PASSES]
    assert expected("all is well") == set()
    texts = {case: prometheus.text(looked(CASES[case][0]())) for case in cases}
    rung = (scenario(texts[case], firing(expected(case)), step_s=STEP_S) for case in cases)
    tried(tmp_path, *rung, step_s=STEP_S)


def off(availability: str = "active", *, genuine: bool = True, spare: bool = False) -> Looked:
    """The master and a node are off; copies are overdue since."""
    master = Subject("master", "box")
    found = away(copies(90_000.0), "node/n2", SILENT)
    found = dataclasses.replace(
        found, hosts={**found.hosts, master.key: Host("box", master, (master,), failure=SILENT)}, master=master.key,
        off=OffNotice("ana@laptop", "2026-11-18T10:00:00Z", "", genuine=genuine, read_on="gw1"),
    )  # fmt: skip
    wanted = tree()
    node = dataclasses.replace(wanted.nodes["n2"], availability=availability)  # type: ignore[arg-type]
    node = dataclasses.replace(node, power=Power(spare=spare))
    power = dataclasses.replace(wanted.cluster, power=Power(host="box"))
    wanted = dataclasses.replace(wanted, nodes={**wanted.nodes, "n2": node}, cluster=power)
    return Looked(found, judge(signs(found, wanted), NONE, wanted.monitor, NOW_S), wanted)


def test_what_is_off_on_purpose_does_not_ring(tmp_path: Path) -> None:
    """Neither the master that said so, nor copies that nobody makes then, nor a node that is dead, or a spare one
    (what it ran is missing, though). A drained one is a warning; and no word counts that can't be vouched for."""
    short = ("K4tAppShortOfReplicas", "warning")
    vouched = {("K4tHostDown", "critical"), ("K4tBackupOverdue", "critical"), ("K4tNodeDown", "critical")}
    cases: list[tuple[Looked, set[tuple[str, str]]]] = [
        (off("dead"), {short}),
        (off("drained"), {("K4tFinding", "warning")}),
        (off("drained", spare=True), {short}),
        (off("active"), {("K4tNodeDown", "critical")}),
        (off("active", genuine=False), vouched),
    ]
    tried(tmp_path, *(scenario(prometheus.text(one), firing(alerts)) for one, alerts in cases))


def test_a_monitor_that_is_late_or_gone_rings_by_itself(tmp_path: Path) -> None:
    """And makes nothing else look old. One of two clusters may go without the other."""
    text = prometheus.text(looked(facts()))
    stale = scenario(text, firing({("K4tMonitorStale", "critical")}))
    for one in stale["input_series"]:
        one["values"] = one["values"].replace("+60x", "+0x")
    gone = scenario(text, firing({("K4tMonitorGone", "critical")}))
    for one in gone["input_series"]:
        one["values"] += " stale"
    other = scenario(text.replace('cluster="prod"', 'cluster="other"'))["input_series"]
    gone["input_series"] += other
    for one in other:
        one["values"] = one["values"].replace(f"x{MINUTES + 5}", "x200")
    gone["promql_expr_test"][0]["eval_time"] = "80m"
    nothing = scenario("", firing({("K4tMonitorAbsent", "critical")}))
    tried(tmp_path, stale, gone, nothing)


def test_two_monitors_of_one_cluster_are_one_alert(tmp_path: Path) -> None:
    """Both see the node gone; neither contradicts the other in an expression."""
    text = prometheus.text(looked(away(copies(900.0), "node/n2", SILENT)))
    both = "".join(
        re.sub(r"(?m)^(\w+)\{(.*)\} (\S+)$", rf'\1{{\2,instance="{name}:9100"}} \3', text) for name in ("m1", "m2")
    )
    one = scenario(both, firing({("K4tNodeDown", "critical"), ("K4tBackupOverdue", "critical")}))
    count = {"expr": 'count(ALERTS{alertname="K4tNodeDown"})', "eval_time": f"{MINUTES}m",
             "exp_samples": [{"labels": "{}", "value": 1}]}  # fmt: skip
    one["promql_expr_test"].append(count)
    tried(tmp_path, one)


def test_an_alert_names_the_thing_and_what_to_do(tmp_path: Path) -> None:
    """As it is read at night."""
    text = prometheus.text(looked(away(copies(300.0), "node/n2", SILENT)))
    node = {
        "exp_labels": {"severity": "critical", "cluster": "prod", "kind": "node", "host": "n2"},
        "exp_annotations": {
            "summary": "Node n2 of cluster prod does not answer",
            "description": "Nothing is known of what runs on it. k4t node check n2 says how far one gets; when it is "
            "lost, switch it off and say k4t node dead n2: its replicas are placed elsewhere.",
        },
    }
    copy = {
        "exp_labels": {"severity": "warning", "cluster": "prod", "target": "n1"},
        "exp_annotations": {
            "summary": "The newest copy of the tree on n1 of cluster prod is 5m 0s old",
            "description": "That is several of its periods. k4t backup makes one, and says what hinders it.",
        },
    }
    alerts = [
        {"eval_time": "1m", "alertname": "K4tNodeDown", "exp_alerts": []},
        {"eval_time": "3m", "alertname": "K4tNodeDown", "exp_alerts": [node]},
        {"eval_time": f"{MINUTES}m", "alertname": "K4tBackupOverdue", "exp_alerts": [copy]},
    ]
    tried(tmp_path, scenario(text, alert_rule_test=alerts))


def test_the_dashboard_lists_what_is_wrong(tmp_path: Path) -> None:
    """By level, thing and since when, in milliseconds as Grafana counts."""
    model = json.loads(dashboard.dashboard())
    (panel,) = [one for one in model["panels"] if one["title"] == "What is wrong" and one["type"] == "table"]
    expr = panel["targets"][0]["expr"].replace("$cluster", "prod")
    labels = '{kind="node",level="critical",name="n2",what="host-off"}'
    wanted = {"expr": expr, "eval_time": "10m", "exp_samples": [{"labels": labels, "value": 600_000}]}
    tried(tmp_path, scenario(prometheus.text(looked(away(facts(), "node/n2", SILENT))), wanted))


# --- the format ------------------------------------------------------------------------------------------------------


def checked(text: str) -> None:
    argv = ["promtool", "check", "metrics"]
    done = subprocess.run(argv, input=text.encode(), capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    "make", [clusters.healthy, clusters.bad, clusters.large, clusters.hostile, lambda: looked(troubled())]
)
def test_an_export_has_nothing_against_it(make: Callable[[], Looked]) -> None:
    """Neither in its form nor in its names, whatever hosts call themselves."""
    checked(prometheus.text(make()))


def test_any_name_can_be_a_label() -> None:
    """Every character that there is, each in a label of its own."""
    texts = [chr(number) for number in (*range(0x300), *range(0xD7F0, 0xE010), 0xFFFE, 0xFFFF, 0x1F600, 0x10FFFF)]
    texts += ['\\"', "\\\n", '"} 1\nk4t_x{a="', "#", "\\n", "a" * 1000]
    text, _ = render({"k4t_x": "One."}, [Sample("k4t_x", {"a": one}, place) for place, one in enumerate(texts)])
    checked(text)


def test_rules_are_well_formed(tmp_path: Path) -> None:
    """By the tool that Prometheus' operators use."""
    (tmp_path / "rules.yml").write_text(rules.yaml())
    argv = ["promtool", "check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "rules.yml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_of_the_docs_is_one(tmp_path: Path) -> None:
    """As it stands, with the rules beside it; Alertmanager is told all labels that a warning shares."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "prometheus.md").read_text()
    config, inhibited = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "prometheus.yml").write_text(config)
    (tmp_path / "k4t.rules.yml").write_text(rules.yaml())
    argv = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    (equal,) = re.findall(r"equal: \[(.*)\]", inhibited)
    every = [one for group in rules.GROUPS.values() for one in group]
    both = [one for one in every if {other.severity for other in every if other.alert == one.alert} > {one.severity}]
    labels = {label for one in both for by in re.findall(r"by \(([^)]*)\)", one.expr) for label in by.split(", ")}
    assert labels - {"state"} | {"alertname"} == set(equal.split(", "))
