"""`k4t monitor alert`: what an operator types to see whether alerts get through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from k4t.monitor.alerts.teller import path
from k4t.tree.read import read_tree
from tests.monitor.alert_servers import Hook, closed_port
from tests.monitor.test_alerts_step import finding
from tests.monitor.test_alerts_teller import Loop

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parents[2]


def k4t(db: Path, *words: str) -> tuple[int, str, str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(db.parent / "state"), "no_proxy": "*"}
    argv = [sys.executable, "-m", "k4t", "--db", str(db), "monitor", *words]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def tree(directory: Path, *alerts: str) -> Path:
    db = directory / "db"
    db.mkdir(exist_ok=True)
    (db / "cluster.xml").write_text('<cluster name="prod" id="k7f3q2m9" format="1"/>\n')
    (db / "monitor.xml").write_text(f"<monitor>{''.join(alerts)}</monitor>\n")
    return db


def test_a_test_message_says_which_way_works(tmp_path: Path) -> None:
    """Exit status 0 when all do, 3 when some do, 1 when none does."""
    away = f'<alert webhook="http://127.0.0.1:{closed_port()}/x"/>'
    with Hook() as hook:
        good = f'<alert webhook="{hook.address}"/>'
        status, said, _ = k4t(tree(tmp_path, good, '<alert command="false"/>'), "alert", "test")
        assert status == 3
        assert [line.split()[:2] for line in said.splitlines()[1:]] == [
            ["webhook", f"http://127.0.0.1:{hook.port}"], ["command", "false"],
        ]  # fmt: skip
        assert "it ended with status 1" in said
        assert k4t(tree(tmp_path, good), "alert", "test")[0] == 0
        assert k4t(tree(tmp_path, away), "alert", "test")[0] == 1
    assert [told["test"] for told in hook.got] == [True, True]
    assert hook.got[0]["subject"] == "[prod] test: alerts of this cluster get here"


def test_programs_get_the_same(tmp_path: Path) -> None:
    """As JSON; nothing else is on standard output."""
    status, said, _ = k4t(
        tree(tmp_path, '<alert command="sh -c &quot;cat; echo no&quot;"/>'), "alert", "test", "-o", "json"
    )
    assert status == 0
    (told,) = json.loads(said)["alerts"]
    assert told.pop("took_s") >= 0
    assert told == {"alert": "command sh", "where": "monitor.xml:1", "sent": True, "error": ""}


def test_without_an_alert_it_says_what_to_write(tmp_path: Path) -> None:
    """And does nothing."""
    status, _, said = k4t(tree(tmp_path), "alert", "test")
    assert status == 64
    assert 'nobody is told anything; write one, such as <alert mail="…"/>' in said


def test_what_waits_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    address = f"http://127.0.0.1:{closed_port()}/x"
    db = tree(tmp_path, f'<alert webhook="{address}" group="0"/>')
    loop = Loop(path("k7f3q2m9"), *read_tree(db).monitor.alerts)
    loop.until(lambda: bool(loop.notes), finding("n2"))
    loop.close()
    status, said, _ = k4t(db, "alert", "list", "-o", "json")
    assert status == 0
    (told,) = json.loads(said)["alerts"]
    assert (told["open"], told["waiting"], told["tries"]) == (1, True, 1)
    assert told["error"] == "can't be reached: Connection refused"
    assert ", 1 try" in k4t(db, "alert", "list")[1]


def test_a_check_from_cron_waits_for_those_who_are_told(tmp_path: Path) -> None:
    """Some seconds for one that takes its time; one that refuses is named, and told by the next."""
    with Hook() as slow, Hook(500) as bad:
        slow.takes_s = 4.0
        alerts = [f'<alert webhook="{one.address}" group="0"/>' for one in (slow, bad)]
        db = tree(tmp_path, '<threshold of="load" warning="never" critical="never"/>', *alerts)
        (db / "nodes").mkdir()
        (db / "nodes/n1.xml").write_text(f'<node address="127.0.0.1"><ssh port="{closed_port()}"/></node>\n')
        status, said, notes = k4t(db, "check", "--act")
        listed = json.loads(k4t(db, "alert", "list", "-o", "json")[1])["alerts"]
    assert status == 1, notes
    assert "sshd" in [one["what"] for one in slow.got[0]["findings"]]
    assert [one["waiting"] for one in listed] == [False, True]
    assert "not told (try 1, again in 10 s): answers 500" in said + notes
