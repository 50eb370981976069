"""The whole cluster on one screen, however small that is: what doesn't fit is counted, what is unwell goes first."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t.errors import K4tError, Usage
from k4t.render import status as show
from k4t.render.console import Console
from k4t.render.watch import fitted, interval_s, watch

pytestmark = pytest.mark.unit
PLAIN = Console(color=False)


def seen(nodes: int = 2, apps: int = 2, *, away: int = -1, **fields: Any) -> dict[str, Any]:
    """What `k4t status -o json` says; `away` is the number of a node that can't be asked."""
    ends = [{"ip": f"10.88.0.{11 + one}", "port": 20000 + one} for one in range(6)]
    member = {
        "group": "default", "driver": "envoy", "reachable": True, "in_step": True, "epoch": 12, "seq": 31,
        "problem": "", "differences": [], "withdrawn": [], "behind": "",
    }  # fmt: skip
    found = {
        "cluster": "prod", "serial": 46, "tree": "ab12cd34ef56ab12", "lock": None, "redo_log": "", "transactions": [],
        "nodes": [
            {
                "name": f"node{one}", "address": f"10.88.0.{11 + one}", "reachable": one != away,
                "availability": "active", "container_count": None if one == away else 7,
                "problem": "10.88.0.11:22 does not answer within 10 s" if one == away else "",
            }
            for one in range(nodes)
        ],
        "apps": [
            {
                "name": f"web{one}", "image": "registry.lab:5000/team/web:1.4.2", "desired": 6, "running": 6,
                "healthy": 6, "stopped": False, "held": None, "endpoints": ends,
            }
            for one in range(apps)
        ],
        "gateways": [{"name": "gw1", **member}, {"name": "gw2", **member}],
        "dns": [{"name": "names", **member, "driver": "dnsmasq"}],
        "backups": [
            {"node": "node1", "every_s": 120.0, "last": "", "age_s": 45.0, "count": 60, "late": False,
             "reachable": True, "problem": ""}
        ],
    }  # fmt: skip
    return found | fields


SMALL = """\
prod  serial 46  tree ab12cd34ef56  17:40:00, every 3 s

NODE   ADDRESS     STATE   CONTAINERS
node0  10.88.0.11  active  7
node1  10.88.0.12  active  7

APP   IMAGE        WANTED  RUNNING  HEALTHY  ENDPOINTS
web0  …/web:1.4.2  6       6        6        10.88.0.11:20000 +5
web1  …/web:1.4.2  6       6        6        10.88.0.11:20000 +5

GATEWAY  GROUP    DRIVER  STATE    EPOCH  SEQ
gw1      default  envoy   in step  12     31
gw2      default  envoy   in step  12     31

DNS    GROUP    DRIVER   STATE    EPOCH  SEQ
names  default  dnsmasq  in step  12     31

BACKUP  EVERY  CURRENT  COPIES  STATE
node1   2m     45s ago  60      in time"""


def test_a_small_cluster_is_all_there_on_a_small_terminal() -> None:
    """Two nodes, two apps, two gateways, a DNS server and a copy on 80 columns and 24 rows."""
    assert "\n".join(fitted(seen(), PLAIN, "17:40:00, every 3 s", 80, 24)) == SMALL


LARGE = """\
prod  serial 46  tree ab12cd34ef56  now
! node33: 10.88.0.11:22 does not answer within 10 s
NODE    ADDRESS     STATE        CONTAINERS
node0   10.88.0.11  active       7
node1   10.88.0.12  active       7
node33  10.88.0.44  unreachable  ?
… 37 more nodes, all well
APP    IMAGE        WANTED  RUNNING  HEALTHY  ENDPOINTS
web0   …/web:1.4.2  6       6        6        10.88.0.11:20000 +5
web1   …/web:1.4.2  6       6        6        10.88.0.11:20000 +5
web2   …/web:1.4.2  6       6        6        10.88.0.11:20000 +5
… 27 more apps, all well
GATEWAY  GROUP    DRIVER  STATE    EPOCH  SEQ
gw1      default  envoy   in step  12     31
gw2      default  envoy   in step  12     31
DNS    GROUP    DRIVER   STATE    EPOCH  SEQ
names  default  dnsmasq  in step  12     31
BACKUP  EVERY  CURRENT  COPIES  STATE
node1   2m     45s ago  60      in time"""


def test_what_does_not_fit_is_counted_and_what_is_unwell_is_there() -> None:
    """Forty nodes and thirty apps on 19 rows: the one that is away is among them."""
    assert "\n".join(fitted(seen(40, 30, away=33), PLAIN, "now", 80, 19)) == LARGE


def test_notes_leave_room_for_the_rest() -> None:
    """A third of the screen at most, the others counted."""
    nodes = [{**one, "reachable": False, "problem": "off"} for one in seen(30)["nodes"]]
    shown = fitted(seen(nodes=30) | {"nodes": nodes}, PLAIN, "now", 80, 24)
    assert sum(line.startswith("! ") for line in shown) == 8
    assert "! and 23 more: k4t status" in shown
    assert any(line.endswith("nodes, 27 of them to look at") for line in shown)


@given(
    st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(-1, 70)),
    st.integers(1, 200), st.integers(1, 80), st.booleans(),
)  # fmt: skip
def test_it_never_asks_for_more_than_there_is(
    size: tuple[int, int, int], columns: int, rows: int, locked: bool
) -> None:
    """Whatever the cluster and the terminal are like; and nothing is left out where there is room."""
    status = seen(size[0], size[1], away=size[2])
    lock = {"who": "ana", "host": "laptop", "pid": 7, "why": "apply", "since": "2026-11-20T17:00:00Z", "run": "r"}
    status["lock"] = lock if locked else None
    shown = fitted(status, PLAIN, "now", columns, rows)
    assert len(shown) <= rows
    assert max(map(len, shown)) <= columns
    if rows >= len(list(show.lines(status, PLAIN))):
        assert not [line for line in shown if " all well" in line or " to look at" in line]


def test_on_a_terminal_lines_are_not_wider_than_it() -> None:
    """Endpoints are counted where there is no room for them, and an image keeps its last part; a pipe has no width."""
    narrow = list(show.lines(seen(), PLAIN, 80))
    assert max(map(len, narrow)) <= 80
    assert "…/web:1.4.2" in "\n".join(narrow)
    wide = "\n".join(show.lines(seen(), PLAIN))
    assert "registry.lab:5000/team/web:1.4.2" in wide
    assert "10.88.0.14:20003 +2" in wide


@pytest.mark.parametrize(("text", "seconds"), [("5", 5.0), ("30s", 30.0), ("1m", 60.0)])
def test_how_often_is_a_number_or_a_duration(text: str, seconds: float) -> None:
    """As people write it."""
    assert interval_s(text) == seconds


@pytest.mark.parametrize("text", ["0", "-1", "x", "500ms", "2h", "", "nan"])
def test_what_is_no_interval_is_refused(text: str) -> None:
    """From a second to an hour."""
    with pytest.raises(Usage):
        interval_s(text)


@pytest.mark.parametrize("output", ["table", "json"])
def test_what_has_no_end_wants_a_terminal_or_lines(output: Any) -> None:
    """Nothing is looked at; the message names the option."""
    with pytest.raises(Usage, match="-o jsonl"):
        watch(lambda: pytest.fail("nobody asked"), Console(output, color=False), 3.0)


def test_lines_go_on_when_a_look_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON line for each that did not; the others are said on standard error. Ctrl-C ends it well."""
    looks: list[Any] = [seen(), K4tError("the tree is just being written"), seen(serial=47), KeyboardInterrupt()]

    def look() -> dict[str, Any]:
        found = looks.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found  # type: ignore[no-any-return]

    watch(look, Console("jsonl", color=False), 0.01)
    said = capsys.readouterr()
    assert [json.loads(line)["serial"] for line in said.out.splitlines()] == [46, 47]
    assert said.err.startswith("k4t: ")


def test_what_the_first_look_raises_ends_it() -> None:
    """A tree that is invalid is no reason to wait for the next look."""

    def look() -> dict[str, Any]:
        raise K4tError("no tree there")

    with pytest.raises(K4tError, match="no tree there"):
        watch(look, Console("jsonl", color=False), 1.0)
