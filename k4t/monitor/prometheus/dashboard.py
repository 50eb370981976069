"""A Grafana dashboard of k4t's metrics: its JSON model, for Grafana 9 and later. Pure; the same for every cluster,
which is chosen above it, as the data source is.
https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from k4t.model.value import value

SCHEMA_VERSION = 37
"""Of Grafana 9.2; later ones migrate it as they load it."""
WIDTH = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
OF = 'cluster=~"$cluster"'
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
Steps = Sequence[tuple[float | None, str]]
GOOD_ABOVE: Steps = ((None, RED), (1, GREEN))
BAD_ABOVE: Steps = ((None, GREEN), (1, RED))


@value
class Panel:
    """`queries`: legend and expression; `%` in it stands for the chosen cluster. `width` of WIDTH."""

    title: str
    kind: str
    queries: tuple[tuple[str, str], ...]
    width: int
    about: str = ""
    unit: str = "short"
    steps: Steps = ((None, GREEN),)
    words: Mapping[str, str] | None = None
    most: float | None = None
    columns: Mapping[str, str] | None = None


def dashboard() -> str:
    """The file."""
    model = {
        "uid": "k4t-clusters",
        "title": "k4t: clusters",
        "description": "What k4t's monitor sees: hosts, apps, gateways, DNS servers, copies of the tree.",
        "tags": ["k4t"],
        "timezone": "browser",
        "editable": True,
        "schemaVersion": SCHEMA_VERSION,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "graphTooltip": 1,
        "templating": {"list": [_data_source(), _cluster()]},
        "annotations": {"list": [_applies()]},
        "links": [],
        "panels": list(_placed()),
    }
    return json.dumps(model, ensure_ascii=False, indent=2) + "\n"


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def _cluster() -> dict[str, Any]:
    query = "label_values(k4t_check_timestamp_seconds, cluster)"
    return {
        "name": "cluster", "label": "Cluster", "type": "query", "datasource": SOURCE, "definition": query,
        "query": {"query": query, "refId": "clusters"}, "refresh": 2, "sort": 1, "multi": False, "includeAll": False,
        "hide": 0,
    }  # fmt: skip


def _applies() -> dict[str, Any]:
    """A line where something was applied."""
    return {
        "name": "Applied", "datasource": SOURCE, "enable": True, "iconColor": BLUE, "titleFormat": "serial changed",
        "expr": f"changes(k4t_cluster_serial{{{OF}}}[2m]) > 0", "step": "60s", "useValueForTime": False,
    }  # fmt: skip


def _placed() -> Iterator[dict[str, Any]]:
    """Row after row, from left to right; every panel of a row is as high as its first."""
    number, y = 1, 0
    for heading, height, panels in ROWS:
        yield {
            "id": number, "type": "row", "title": heading, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        }  # fmt: skip
        number, y, x = number + 1, y + 1, 0
        for panel in panels:
            if x + panel.width > WIDTH:
                x, y = 0, y + height
            yield {"id": number, "gridPos": {"x": x, "y": y, "w": panel.width, "h": height}, **_panel(panel)}
            number, x = number + 1, x + panel.width
        y += height


def _panel(panel: Panel) -> dict[str, Any]:
    instant = panel.kind in ("stat", "table", "bargauge")
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": [{"value": at, "color": color} for at, color in panel.steps]},
        "mappings": [_mapping(panel.words)] if panel.words else [],
        "min": 0 if panel.unit == "percentunit" else None,
        "max": panel.most,
        "custom": _custom(panel.kind),
    }
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {key: one for key, one in defaults.items() if one is not None}, "overrides": []},
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + place), "datasource": SOURCE, "expr": expr.replace("%", OF),
                "legendFormat": legend, "instant": instant, "range": not instant,
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for place, (legend, expr) in enumerate(panel.queries)
        ],
        "transformations": _columns(panel.columns) if panel.columns else [],
    }  # fmt: skip


def _mapping(words: Mapping[str, str]) -> dict[str, Any]:
    return {"type": "value", "options": {text: {"text": shown} for text, shown in words.items()}}


def _custom(kind: str) -> dict[str, Any]:
    if kind == "timeseries":
        return {"lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": False}
    if kind == "state-timeline":
        return {"fillOpacity": 80, "lineWidth": 0}
    return {"filterable": True} if kind == "table" else {}


def _options(panel: Panel) -> dict[str, Any]:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel.kind == "stat":
        return {"reduceOptions": last, "colorMode": "background", "graphMode": "none", "textMode": "value"}
    if panel.kind == "bargauge":
        return {"reduceOptions": last, "orientation": "horizontal", "displayMode": "basic"}
    if panel.kind == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    shown = {"displayMode": "list", "placement": "bottom", "showLegend": panel.kind != "state-timeline"}
    lines = {"tooltip": {"mode": "multi", "sort": "desc"}, "legend": shown}
    return lines | ({"showValue": "auto", "rowHeight": 0.8} if panel.kind == "state-timeline" else {})


def _columns(columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """These labels alone, in this order, by these names; the value is one of them or left out."""
    hidden = {name: True for name in ("Time", "Value", "__name__", "instance", "job", "cluster") if name not in columns}
    places = {name: place for place, name in enumerate(columns)}
    organized = {"excludeByName": hidden, "indexByName": places, "renameByName": dict(columns)}
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": organized}]


# --- what it shows -----------------------------------------------------------------------------------------------

SHARE: Steps = ((None, GREEN), (0.85, YELLOW), (0.95, RED))
UP = {"0": "down", "1": "up"}
YES = {"0": "no", "1": "yes"}


def _stat(title: str, expr: str, steps: Steps = BAD_ABOVE, **more: Any) -> Panel:
    return Panel(title, "stat", (("", expr),), 3, steps=steps, **more)


OVERVIEW = (
    _stat("Critical", 'max(k4t_findings{%,level="critical"})'),
    _stat("Warnings", 'max(k4t_findings{%,level="warning"})', ((None, GREEN), (1, YELLOW))),
    _stat("Hosts down", "count(min by (kind, host) (k4t_host_up{%}) == 0) or vector(0)",
          about="Also those that may be off."),
    _stat("Replicas short", "sum(clamp_min(max by (app) (k4t_app_replicas_desired{%}) - "
          "max by (app) (k4t_app_replicas_running{%}), 0)) or vector(0)", about="Also those that nothing is known of."),
    _stat("Last check", "time() - max(k4t_check_timestamp_seconds{%})", ((None, GREEN), (120, YELLOW), (300, RED)),
          unit="s", about="How long ago. Beyond five minutes nothing here is news."),
    _stat("Master", "max(k4t_master_off_on_purpose{%})", ((None, GREEN), (1, BLUE)),
          words={"0": "not off", "1": "off on purpose"}),
    _stat("Lock", "max(k4t_lock_held{%})", ((None, GREEN), (1, BLUE)), words={"0": "free", "1": "held"}),
    _stat("Serial", "max(k4t_cluster_serial{%})", ((None, BLUE),), about="Of the newest revision that was applied."),
)  # fmt: skip
SINCE = (
    "max by (kind, name, what) (k4t_finding_since_timestamp_seconds{%}) * on (kind, name, what) group_right () "
    'max by (kind, name, what, level) (k4t_finding{%,level!="ok"}) * 1000'
)
COPIES = (
    "(max(k4t_check_timestamp_seconds{%}) - on () group_right () "
    "max by (target) (k4t_backup_confirmed_timestamp_seconds{%})) "
    "/ on (target) max by (target) (k4t_backup_period_seconds{%})"
)
FOUND = (
    Panel(
        "What is wrong", "table",
        (("", SINCE),),
        16, "As k4t monitor check has it; that also says what would help.", "dateTimeAsIso",
        columns={"level": "Level", "kind": "Of", "name": "Name", "what": "What", "Value": "Since"},
    ),
    Panel("Findings", "timeseries", (("{{level}}", 'max by (level) (k4t_findings{%,level!="ok"})'),), 8),
)  # fmt: skip
HOST = "{{kind}} {{host}}"
HOSTS = (
    Panel("Hosts", "state-timeline", ((HOST, "min by (kind, host) (k4t_host_up{%})"),), 12, "Whether they answer.",
          steps=GOOD_ABOVE, words=UP),
    Panel("Docker", "state-timeline", (("{{node}}", "min by (node) (k4t_node_docker_up{%})"),), 12,
          "Whether it answers. Nothing is known where the host doesn't.", steps=GOOD_ABOVE, words=UP),
    Panel("Processors", "timeseries", ((HOST, "max by (kind, host) (k4t_host_cpu_used_ratio{%})"),), 8,
          unit="percentunit", most=1),
    Panel("Memory", "timeseries", ((HOST, "max by (kind, host) (k4t_host_memory_used_ratio{%})"),), 8,
          unit="percentunit", most=1),
    Panel("Load for each processor", "timeseries",
          ((HOST, "max by (kind, host) (k4t_host_load1{%} / k4t_host_cpus{%})"),), 8),
    Panel("Disks", "bargauge",
          (("{{host}} {{mountpoint}}", "max by (kind, host, mountpoint) (k4t_host_disk_used_ratio{%})"),), 8,
          "Of space or inodes, whichever is scarcer.", "percentunit", SHARE, most=1),
    Panel("Clocks", "timeseries", ((HOST, "max by (kind, host) (k4t_host_clock_skew_seconds{%})"),), 8,
          "Ahead of the monitor's.", "s"),
    Panel("Containers", "timeseries", (("{{node}}", "max by (node) (k4t_node_containers_running{%})"),), 8,
          "That run, by node."),
)  # fmt: skip
APPS = (
    Panel(
        "Apps", "table",
        tuple(("", f"max by (app) (k4t_app_replicas_{name}{{%}})")
              for name in ("desired", "running", "healthy", "reached")),
        14, "Running, healthy: as far as nodes answer. Reached: from where the gateway stands.",
        columns={"app": "App", "Value #A": "Desired", "Value #B": "Running", "Value #C": "Healthy",
                 "Value #D": "Reached"},
    ),
    Panel("Replicas that are not well", "timeseries",
          (("{{app}}: {{state}}", 'max by (app, state) (k4t_app_replicas{%,state!="well"}) > 0'),), 10,
          "And what is the matter with them."),
    Panel("Exits in ten minutes", "timeseries", (("{{app}}", "max by (app) (k4t_app_recent_exits{%})"),), 8,
          "Of the replica that ended most often."),
    Panel("Replicas that run", "timeseries", (("{{app}}", "max by (app) (k4t_app_replicas_running{%})"),), 8),
    Panel("Published", "timeseries",
          (("{{app}}: {{kind}} {{group}}", "max by (app, kind, group) (k4t_app_replicas_published{%})"),), 8,
          "Containers that a group sends to."),
)  # fmt: skip
MEMBER = "{{kind}} {{participant}}"
MEMBERS = (
    Panel("Serving", "state-timeline",
          ((MEMBER, "min by (kind, participant) (k4t_participant_serving{%})"),), 12, steps=GOOD_ABOVE, words=UP),
    Panel("In step", "state-timeline",
          ((MEMBER, "min by (kind, participant) (k4t_participant_in_step{%})"),), 12,
          "Whether they hold what their group holds, and serve it.", steps=GOOD_ABOVE, words=YES),
    Panel("Endpoints", "timeseries", ((MEMBER, "max by (kind, participant) (k4t_participant_endpoints{%})"),), 12),
    Panel("Withdrawn, different", "timeseries",
          ((f"{MEMBER} withdrawn", "max by (kind, participant) (k4t_participant_withdrawn{%})"),
           (f"{MEMBER} different", "max by (kind, participant) (k4t_participant_differences{%})")), 12),
)  # fmt: skip
KEPT = (
    Panel("Age of copies, in periods", "bargauge",
          (("{{target}}", COPIES),), 8,
          "Three are a warning, unless monitor.xml says otherwise.", steps=((None, GREEN), (3, YELLOW), (10, RED))),
    Panel("Certificates", "bargauge",
          (("{{certificate}}", "min by (certificate) (k4t_certificate_expiry_timestamp_seconds{%}) - time()"),), 8,
          "What is left.", "s", ((None, RED), (259200, YELLOW), (1209600, GREEN))),
    Panel("Checks", "timeseries",
          (("took", "max(k4t_check_duration_seconds{%})"), ("open publications", "max(k4t_transactions_open{%})")), 8),
)  # fmt: skip
ROWS: tuple[tuple[str, int, tuple[Panel, ...]], ...] = (
    ("Now", 4, OVERVIEW),
    ("What is wrong", 8, FOUND),
    ("Hosts", 8, HOSTS),
    ("Apps", 9, APPS),
    ("Gateways and DNS servers", 7, MEMBERS),
    ("Copies, certificates, the monitor", 7, KEPT),
)
