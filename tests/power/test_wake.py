"""The command line on a machine that is the master of a tree without hosts: “off” makes a file."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from k4t.commands.perform import perform
from k4t.commands.wake import do_queued
from k4t.master.power import here
from k4t.master.power.intents import made
from k4t.options import Globals
from k4t.render.console import Console

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not here.is_here(socket.gethostname()), reason="nobody has named this machine"),
]
CLUSTER = """\
<cluster name="prod" id="k7f3q2m9">
  <power host="{host}" on="touch {root}/on" off="{off}" after-apply="{after}"/>
</cluster>
"""


class Machine:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.db = root / "db"
        (self.db / "nodes").mkdir(parents=True)
        self.cluster()

    def cluster(self, *, after: str = "stay", off: str = "", host: str = "") -> None:
        off = off or f"touch {self.root}/off"
        text = CLUSTER.format(host=host or socket.gethostname(), root=self.root, off=off, after=after)
        (self.db / "cluster.xml").write_text(text)

    def start(self, *words: str, failpoint: str = "") -> subprocess.Popen[str]:
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.root), "K4T_DB": str(self.db), "NO_COLOR": "1",
            "K4T_FAILPOINT": failpoint,
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-m", "k4t.cli", *words], env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def k4t(self, *words: str, status: int = 0, failpoint: str = "") -> tuple[str, str]:
        process = self.start(*words, failpoint=failpoint)
        out, err = process.communicate(timeout=60)
        assert process.returncode == status, (words, process.returncode, out, err)
        return out, err

    def queue(self, *words: str) -> str:
        """Its id."""
        return self.k4t("intent", *words, "--here")[0].split()[2]

    def node(self, name: str, availability: str = "active") -> None:
        """Where nobody answers."""
        address = f"127.0.0.{len(name) + int(name[1:])}"
        text = f'<node address="{address}" availability="{availability}"><ssh port="1" connect-timeout="1s"/></node>\n'
        (self.db / f"nodes/{name}.xml").write_text(text)

    def went_off(self) -> bool:
        """Since it was asked last. Then it is on again, as after a boot."""
        (self.db / ".k4t/going-off").unlink(missing_ok=True)
        there = (self.root / "off").exists()
        (self.root / "off").unlink(missing_ok=True)
        return there

    @property
    def done(self) -> list[dict[str, Any]]:
        path = self.db / ".k4t/intents.done"
        return list(json.loads(path.read_text())["intents"]) if path.exists() else []

    @property
    def queued(self) -> list[str]:
        return sorted(path.name for path in (self.db / ".k4t/intents").glob("*.json"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_waking_does_each_intent_once_and_goes_off(machine: Machine) -> None:
    """One that fails doesn't stop the others; what is no intent is named and put aside; what was done is remembered,
    whoever shows it again. Then it goes off: nothing is open."""
    (machine.db / "nodes/n1.xml").write_text('<node address="127.0.0.9" availability="dead"/>\n')
    (machine.db / ".k4t").mkdir()
    failing, good = machine.queue("dead", "n1"), machine.queue("apply", "--note", "git push")
    (machine.db / "nodes/n1.xml").unlink()
    kept = (machine.db / f".k4t/intents/{good}.json").read_bytes()
    (machine.db / f".k4t/intents/{'a' * 16}.json").write_bytes(kept)
    (machine.db / f".k4t/intents/{'b' * 16}.json").write_text("garbage")
    out, err = machine.k4t("wake", "--power-off", status=3)
    assert [(one["id"], one["result"], one["exit_status"]) for one in machine.done] == [
        (failing, "failed", 64), (good, "done", 0),
    ]  # fmt: skip
    assert f"intent {failing} (dead n1, queued by " in out
    assert "failed (64): the tree has no node 'n1'" in out
    assert "aaaaaaaaaaaaaaaa.json on this machine is refused and put aside: it calls itself" in err
    assert "bbbbbbbbbbbbbbbb.json on this machine is refused and put aside: it is not one line" in err
    assert machine.queued == []
    assert len(list((machine.db / ".k4t/intents/refused").iterdir())) == 2
    assert machine.went_off()
    log = (machine.db / ".k4t/audit.jsonl").read_text()
    assert f"intent {failing} (dead n1) failed (64)" in log
    assert f"intent {good} (apply) done" in log
    assert "on this machine refused" in log

    (machine.db / f".k4t/intents/{good}.json").write_bytes(kept)
    assert "is not done again: it was done at" in machine.k4t("wake", "--power-off")[1]
    assert len(machine.done) == 2
    assert machine.queued == []
    assert machine.went_off()


@pytest.mark.parametrize("place", ["intent:begun", "intent:done"])
def test_a_wake_that_is_killed_is_taken_up(machine: Machine, place: str) -> None:
    """Killed before it was done, it is done by the next; killed after, it is not done again."""
    machine.queue("apply")
    machine.k4t("wake", status=-signal.SIGKILL, failpoint=place)
    assert len(machine.queued) == 1
    machine.k4t("wake")
    (entry,) = machine.done
    assert (entry["result"], entry["tries"]) == ("done", 2 if place == "intent:begun" else 1)
    assert machine.queued == []


def test_one_that_kills_every_wake_is_not_tried_for_ever(machine: Machine) -> None:
    """Twice."""
    machine.queue("apply")
    for _ in range(2):
        machine.k4t("wake", status=-signal.SIGKILL, failpoint="intent:begun")
    machine.k4t("wake", failpoint="intent:begun")
    assert (machine.done[0]["result"], machine.queued) == ("begun", [])


@contextlib.contextmanager
def stopped(machine: Machine, place: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """One that stands still there, and goes on afterwards."""
    process = machine.start(*words, failpoint=f"{place}=stop")
    deadline = time.monotonic() + 60
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    try:
        yield process
    finally:
        os.kill(process.pid, signal.SIGCONT)


def ended(process: subprocess.Popen[str], status: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, (process.returncode, out, err)
    return out, err


def test_of_two_wakes_one_works(machine: Machine) -> None:
    """The other is told by whom; and nobody switches the machine off in the middle of it."""
    machine.queue("apply")
    with stopped(machine, "intent:begun", "wake") as first:
        _, err = machine.k4t("wake", status=75)
        assert "for wake" in err
        assert str(first.pid) in err
        assert "looks at what is queued once more" in err
        assert "for wake" in machine.k4t("power", "off", "--yes", status=75)[1]
    ended(first)
    assert machine.done[0]["result"] == "done"
    assert not machine.went_off()


@pytest.mark.parametrize("words", [("wake",), ("wake", "--power-off")])
def test_what_is_queued_while_a_wake_ends_is_done_by_it(machine: Machine, words: tuple[str, ...]) -> None:
    """It had seen nothing more to do; the wake that was called meanwhile left word."""
    with stopped(machine, "wake:worked", *words) as first:
        id = machine.queue("apply")
        assert "once more before it ends" in machine.k4t("wake", status=75)[1]
    out, _ = ended(first)
    assert [one["id"] for one in machine.done] == [id]
    assert out.count(f"intent {id} (apply, queued by ") == 1
    assert (machine.queued, machine.went_off()) == ([], len(words) > 1)


def test_what_is_queued_while_the_machine_goes_off_keeps_it_on(machine: Machine) -> None:
    """It looks at the queue when everybody can see that it is off: what came before that is done first."""
    with stopped(machine, "power:announced", "wake", "--power-off") as first:
        id = machine.queue("apply")
    _, err = ended(first)
    assert "  - 1 intent (apply) still queued" in err
    assert [one["id"] for one in machine.done] == [id]
    assert machine.went_off()
    with stopped(machine, "power:announced", "apply", "--yes", "--power-off") as first:
        id = machine.queue("apply")
    assert "  - 1 intent (apply) still queued" in ended(first, 3)[1]
    assert (machine.went_off(), machine.queued) == (False, [f"{id}.json"])
    with stopped(machine, "power:announced", "wake", "--power-off") as first:
        assert "for wake" in machine.k4t("wake", status=75)[1]
    assert "whatever k4t wake was called for" in ended(first)[1]
    assert machine.went_off()


def test_what_comes_after_that_is_for_the_next_boot(machine: Machine) -> None:
    """Nothing is begun on a machine that goes off; and it is not believed for ever that it does."""
    with stopped(machine, "power:going", "wake", "--power-off") as first:
        id = machine.queue("apply")
        assert "this machine is going off" in machine.k4t("wake", status=75)[1]
    ended(first)
    assert "this machine is going off" in machine.k4t("wake", status=75)[1]
    assert (machine.done, machine.queued) == ([], [f"{id}.json"])
    assert machine.went_off()
    machine.k4t("wake")
    assert [one["id"] for one in machine.done] == [id]
    (machine.db / ".k4t/going-off").write_text(json.dumps({"at": time.time() - 1000, "boot": here.boot()}))
    machine.k4t("wake")
    (machine.db / ".k4t/going-off").write_text(json.dumps({"at": time.time(), "boot": "another one"}))
    machine.k4t("wake")


def test_a_monitor_on_this_machine_has_it_done(machine: Machine) -> None:
    """Under its own lock: what is queued, once, and no more; the machine stays on."""
    machine.cluster(after="off")
    given = Globals(machine.db, Console(), yes=True, allow=frozenset(), message="", wait=False)
    with held(machine.db / ".k4t/monitor.lock"):
        assert do_queued(given) == 0
        assert machine.done == []
        machine.node("n1")
        first, second = machine.queue("apply"), machine.queue("drain", "n1")
        (machine.db / "nodes/n1.xml").unlink()
        assert do_queued(given) == 3
        assert [(one["id"], one["result"]) for one in machine.done] == [(first, "done"), (second, "failed")]
        assert do_queued(given) == 0
        with held(machine.db / ".k4t/wake.lock"):
            assert do_queued(given) == 75
            assert (machine.db / ".k4t/wake.again").exists()
    (machine.db / "cluster.xml").write_text("<cluster")
    assert do_queued(given) == 65
    assert not machine.went_off()


def test_no_intent_permits_what_is_unsafe(machine: Machine) -> None:
    """A node is given up only when it is surely off; only spare nodes are switched; what a person drained stays so.
    Nobody is asked before that is clear: these nodes don't answer."""
    given = Globals(machine.db, Console(), yes=True, allow=frozenset({"unfenced"}), message="", wait=False)
    machine.node("n1")
    machine.node("n2", availability="drained")
    said = {
        ("dead", "n1"): (4, "nothing says that it is off"),
        ("node-on", "n2"): (1, "n2 is no spare node"),
        ("node-off", "n1"): (1, "n1 is no spare node"),
        ("back", "n1"): (0, ""),
        ("back", "n2"): (1, "n2 is drained, and stays so"),
        ("restart", "n1"): (64, "the tree has no app 'n1'"),
        ("prune", "n7"): (64, "the tree has no node 'n7'"),
    }
    for number, ((action, name), (status, words)) in enumerate(said.items()):
        replica = "0" if action == "restart" else ""
        one = made(
            action, id=f"{number:016x}", cluster="k7f3q2m9", who="x", at=datetime.now(UTC), name=name, replica=replica
        )
        entry = perform(given, one)
        assert (entry.exit_status, words in entry.error) == (status, True), entry


def test_a_person_may_want_it_to_stay_on(machine: Machine) -> None:
    """Once: whatever else there is to do is done, and the next wake goes off again."""
    machine.cluster(after="off")
    machine.queue("stay")
    out, err = machine.k4t("wake")
    assert "(stay, queued by" in out
    assert "this machine stays on, as" in err
    assert not machine.went_off()
    machine.k4t("wake")
    assert machine.went_off()


def test_programs_get_one_result(machine: Machine) -> None:
    """Whatever was done on the way."""
    id = json.loads(machine.k4t("intent", "apply", "--here", "-o", "json")[0])["id"]
    found = json.loads(machine.k4t("wake", "-o", "json")[0])
    assert (found["intents"][0]["id"], found["intents"][0]["result"], found["apply"]) == (id, "done", 0)
    listed = json.loads(machine.k4t("intent", "list", "-o", "json")[0])
    assert (listed["queued"], [one["id"] for one in listed["done"]]) == ([], [id])
    with held(machine.db / ".k4t/monitor.lock"):
        refused = json.loads(machine.k4t("power", "off", "--yes", "-o", "json", status=1)[0])
    assert (refused["off"], len(refused["reasons"])) == (False, 1)
    assert json.loads(machine.k4t("power", "off", "--yes", "-o", "json")[0])["off"] is True
    machine.cluster(host="no-such-host.invalid")
    assert json.loads(machine.k4t("power", "on", "--no-wait", "-o", "json")[0])["on"] is None


def test_flags_win_over_after_apply(machine: Machine) -> None:
    """It goes off after an apply that ended well, when cluster.xml says so and nobody says otherwise."""
    machine.k4t("apply", "--yes")
    assert not machine.went_off()
    machine.k4t("apply", "--yes", "--power-off")
    assert machine.went_off()
    machine.cluster(after="off")
    machine.k4t("apply", "--yes", "--stay-on")
    assert not machine.went_off()
    machine.k4t("wake", "--stay-on")
    assert not machine.went_off()
    machine.k4t("apply", "--yes")
    assert machine.went_off()
    machine.k4t("wake")
    assert machine.went_off()
    machine.cluster(after="off", host="k4t-master.example.com")
    machine.k4t("apply", "--yes")
    machine.k4t("wake")
    assert not machine.went_off()


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_what_keeps_it_on_is_said_and_asked_for_in_vain(machine: Machine) -> None:
    """By itself it only says so; asked for, the run is done in part."""
    machine.cluster(after="off")
    with held(machine.db / ".k4t/monitor.lock"):
        assert "  - a monitor runs on this machine" in machine.k4t("apply", "--yes")[1]
        machine.k4t("apply", "--yes", "--power-off", status=3)
        machine.k4t("wake", status=0)
        machine.k4t("power", "off", "--yes", status=1)
    with held(machine.db / ".k4t/lock"):
        assert "  - a run is under way: the tree" in machine.k4t("power", "off", "--yes", status=75)[1]
    assert not machine.went_off()
    assert "it needs an answer" not in machine.k4t("power", "off", status=64)[0]
    machine.k4t("power", "off", "--yes")
    assert machine.went_off()


def test_a_command_that_fails_is_told(machine: Machine) -> None:
    """The machine is still on, and says so."""
    machine.cluster(off="false")
    assert "was not switched off: `false` said" in machine.k4t("power", "off", "--yes", status=1)[1]
    machine.cluster(off="no-such-program")
    machine.k4t("apply", "--yes", "--power-off", status=3)


def test_power_on_runs_the_command_and_waits(machine: Machine, tmp_path: Path) -> None:
    """Until SSH answers, or for as long as it was told; a node has its own command."""
    machine.cluster(host="no-such-host.invalid")
    _, err = machine.k4t("power", "on", "--timeout", "1", status=69)
    assert "SSH does not answer there after 1 s: no such host name" in err
    assert (tmp_path / "on").exists()
    machine.k4t("power", "on", "--no-wait")
    (machine.db / "nodes/n1.xml").write_text('<node address="127.0.0.1"/>\n')
    machine.k4t("power", "on", "n1", status=64)
    assert "no <power off>" in machine.k4t("power", "off", "n1", status=64)[1]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    node = '<node address="127.0.0.1"><ssh port="{}"/><power on="touch {}" off="touch {}"/></node>\n'
    (machine.db / "nodes/n1.xml").write_text(node.format(port, tmp_path / "n1-on", tmp_path / "n1-off"))
    machine.k4t("power", "on", "n1", "--no-wait")
    assert (tmp_path / "n1-on").exists()
    _, err = machine.k4t("power", "off", "n1", "--yes", status=4)
    assert "it is active; k4t node drain n1 empties it first; if that is meant, add --allow power-off:n1" in err
    assert not (tmp_path / "n1-off").exists()
    machine.k4t("power", "off", "n1", "--yes", "--allow", "power-off:n1")
    assert (tmp_path / "n1-off").exists()


def test_no_machine_without_a_key_queues_anything_on_hosts(machine: Machine) -> None:
    """It is told how it gets one; and where intents lie."""
    assert "--here, on the master" in machine.k4t("intent", "apply", status=64)[1]
    (machine.db / "gateways").mkdir()
    (machine.db / "gateways/gw1.xml").write_text('<gateway driver="envoy" address="127.0.0.1"/>\n')
    assert "k4t kit certify --kit FILE --uses intents" in machine.k4t("intent", "apply", status=1)[1]
    assert "the master looks on" in machine.k4t("intent", "apply", "--to", "n7", status=64)[1]
    assert "no app 'web'" in machine.k4t("intent", "scale", "web", "4", status=64)[1]
