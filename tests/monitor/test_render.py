"""What a check found, as people, programs and Nagios get it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from k4t.model.monitor import Monitor
from k4t.monitor.check import Looked
from k4t.monitor.facts import Facts
from k4t.monitor.history import NONE, History
from k4t.monitor.judge import judge
from k4t.monitor.signs import signs
from k4t.render import monitor as show
from k4t.render.console import Console
from tests.monitor.test_signs import SILENT, copies
from tests.monitor.world import NOW_S, away, facts, tree, with_node, with_reading

pytestmark = pytest.mark.unit
PLAIN = Console(color=False)


def looked(found: Facts, history: History = NONE, later_s: float = 0.0) -> Looked:
    return Looked(found, judge(signs(found, tree()), history, Monitor(), NOW_S + later_s), tree())


def text(one: Looked, *notes: str) -> str:
    return "\n".join(show.lines(one, PLAIN, notes))


def test_when_all_is_well_one_line_says_so() -> None:
    """With what was looked at."""
    assert text(looked(facts())) == ("prod: all is well; 3 of 3 hosts, 1 app, 1 gateway, 1 DNS server in 0.5 s")
    assert show.exit_status(looked(facts())) == 0


WORST = """\
CRITICAL  node n1: load: load 50.0 on 4 processors: 12.5 wait for each; look for slow disks and for what runs there
CRITICAL  node n2: host-off: off, or cut off: 10.0.0.12:22 does not answer within 10 s; k4t node check n2
WARNING   backup n1: backup-age: the newest copy is 5 min old; one is due every 60 s; k4t backup

prod: 2 critical, 1 warning; 2 of 3 hosts, 1 app, 1 gateway, 1 DNS server in 0.5 s"""


def test_the_worst_comes_first() -> None:
    """One line each, the remedy behind it, a summary at the end."""
    one = looked(away(with_reading(copies(300.0), "node/n1", load=(50.0, 1.0, 1.0)), "node/n2", SILENT))
    assert text(one) == WORST
    assert show.exit_status(one) == 1


PENDING = """\
Seen, and not in enough checks yet to count:
WARNING   app web: container-missing: 1 of 2: replica 1 has no container; k4t explain web

prod: all is well; 3 of 3 hosts, 1 app, 1 gateway, 1 DNS server in 0.5 s"""


def test_what_is_not_raised_yet_stands_apart() -> None:
    """And is no failure."""
    well = looked(facts()).judgement.history
    one = looked(with_node(facts(), "n2"), well, later_s=10.0)
    assert text(one) == PENDING
    assert show.exit_status(one) == 0
    assert show.nagios(one)[1] == 0


def test_json_has_facts_and_findings() -> None:
    """All of it can be written, and what can't be known is null."""
    found = json.loads(json.dumps(show.as_json(looked(away(facts(), "node/n2", SILENT)))))
    (finding,) = found["findings"]
    assert finding["subject"] == {"kind": "node", "name": "n2"}
    assert (finding["what"], finding["level"], finding["confirmed"]) == ("host-off", "critical", True)
    assert found["level"] == "critical"
    assert {host["name"]: host["reachable"] for host in found["hosts"]} == {"n1": True, "n2": False, "gw1": True}
    assert {node["name"]: node["containers"] for node in found["nodes"]} == {"n1": 1, "n2": None}
    assert found["apps"] == [{"name": "web", "desired": 2, "running": 1, "healthy": 1, "published": 2, "reached": 2}]


@pytest.mark.parametrize(
    ("found", "word", "status"),
    [
        (facts(), "OK", 0),
        (copies(300.0), "WARNING", 1),
        (away(facts(), "node/n2", SILENT), "CRITICAL", 2),
        (with_reading(facts(), "node/n1", garbage=("load",)), "UNKNOWN", 3),
    ],
)
def test_a_plugin_says_one_line(found: Facts, word: str, status: int) -> None:
    """Its exit status, its word, and figures that Nagios can read."""
    line, ended = show.nagios(looked(found))
    assert ended == status
    assert line.startswith(f"K4T {word} - prod: ")
    assert line.count("|") == 1
    assert "\n" not in line
    figures = dict(one.split("=", 1) for one in line.split(" | ")[1].split(" "))
    assert set(figures) == {"hosts", "desired", "healthy", "disk", "memory", "time"}
    assert figures["disk"].endswith("%;85;95;0;100")


def test_a_plugin_is_not_fooled_by_what_hosts_say() -> None:
    """No bar and no line break of theirs gets into its line."""
    failure = dataclasses.replace(SILENT, message="a|b\nc | hosts=99")
    line, _ = show.nagios(looked(away(facts(), "node/n2", failure)))
    assert line.count("|") == 1
    assert "\n" not in line
