"""The loop: a round each interval and never two at once; the real program, killed, stopped and started twice. Hosts are
sockets of this machine that refuse, or hang."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from k4t.errors import Finding as Wrong
from k4t.errors import InvalidTree, K4tError
from k4t.master.fleet import Fleet
from k4t.model.spec import Tree
from k4t.monitor import run as loop
from k4t.monitor.check import Looked
from k4t.monitor.round import Round
from tests.monitor.course import Course, Picture, tree

pytestmark = pytest.mark.unit
ROOT = Path(__file__).parents[2]
ID = "k7f3q2m9"
MONITOR = """\
<monitor interval="1s">
  <threshold of="cpu" warning="never"/>
  <threshold of="load" warning="never" critical="never"/>
  <threshold of="memory" warning="99%" critical="never"/>
  <threshold of="disk" warning="never" critical="never"/>
  <policy when="node-gone" enabled="true" after="3" keep-nodes="0" max-nodes="100%"/>
</monitor>
"""


# --- the loop by itself --------------------------------------------------------------------------------------------


class FakeEyes:
    """Rounds that take as long as they are told to."""

    def __init__(self, wanted: Tree, after: int) -> None:
        self.tree, self.after = wanted, after
        self.stop = threading.Event()
        self.now_s = 100.0
        self.rounds: list[float] = []
        self.notes: list[str] = []
        self.trees: list[Tree] = []
        self.takes_s = 0.0
        self.raises: Exception | None = None
        self.reading: Callable[[], Tree] = lambda: wanted
        self.looked: Looked = Course(wanted).look(Picture())

    def read(self) -> Tree:
        return self.reading()

    def taken(self, found: Tree) -> None:
        self.trees.append(found)

    @contextmanager
    def fleet(self, found: Tree) -> Iterator[Fleet]:
        yield Fleet(found, lambda *_: pytest.fail("nobody is asked"), {})

    def round(self, fleet: Fleet, now_s: float) -> Round:  # noqa: ARG002
        self.rounds.append(self.now_s)
        self.now_s += self.takes_s
        if len(self.rounds) >= self.after:
            self.stop.set()
        if self.raises is not None:
            raise self.raises
        return Round(self.looked, ())

    def told(self, one: Round) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


class Waiting(threading.Event):
    """Time passes when it is waited for."""

    def __init__(self, eyes: FakeEyes) -> None:
        super().__init__()
        self.eyes = eyes

    def wait(self, timeout: float | None = None) -> bool:
        self.eyes.now_s += timeout or 0.0
        return self.is_set()


def begin(eyes: FakeEyes, db: Path) -> None:
    eyes.stop = Waiting(eyes)
    loop.run(eyes, db, eyes.stop, clock=lambda: eyes.now_s)


def test_a_late_round_is_skipped_and_never_made_up_for(tmp_path: Path) -> None:
    eyes = FakeEyes(tree(interval_s=10.0), after=4)
    eyes.takes_s = 23.0
    begin(eyes, tmp_path)
    assert eyes.rounds == [100.0, 130.0, 160.0, 190.0]
    assert loop.next_s(100.0, 10.0, 100.0) == 110.0
    assert loop.next_s(100.0, 10.0, 129.9) == 130.0


def test_a_round_that_comes_to_nothing_is_said_once(tmp_path: Path) -> None:
    """And round after round of that ends it: something that restarts it may help."""
    eyes = FakeEyes(tree(), after=5)
    eyes.raises = K4tError("no entropy")
    begin(eyes, tmp_path)
    assert eyes.notes == ["this round came to nothing: no entropy"]
    eyes = FakeEyes(tree(), after=1000)
    eyes.raises = K4tError("no entropy")
    with pytest.raises(K4tError, match="no entropy"):
        begin(eyes, tmp_path)
    assert len(eyes.rounds) == loop.MAX_FAILURES


def test_a_tree_that_changed_is_read_again_and_an_invalid_one_is_said_once(tmp_path: Path) -> None:
    good, other = tree(), tree(interval_s=20.0)
    eyes = FakeEyes(good, after=11)
    states: dict[int, Callable[[], Tree]] = {3: invalid, 6: lambda: other}
    seen = eyes.round

    def round(fleet: Fleet, now_s: float) -> Round:
        if reading := states.get(len(eyes.rounds)):
            eyes.reading = reading
            (tmp_path / "monitor.xml").write_text("x" * len(eyes.rounds))
        return seen(fleet, now_s)

    eyes.round = round  # type: ignore[method-assign]
    begin(eyes, tmp_path)
    assert eyes.trees == [good, other]
    assert len(eyes.notes) == 2
    assert "monitor.xml:3: wrong" in eyes.notes[0]
    assert "what it was before still holds" in eyes.notes[0]
    assert eyes.rounds[-1] - eyes.rounds[-2] == 20.0


def invalid() -> Tree:
    raise InvalidTree([Wrong("monitor.xml", 3, "x", "wrong")])


def test_a_tree_of_another_cluster_is_not_taken(tmp_path: Path) -> None:
    import dataclasses

    good = tree()
    foreign = dataclasses.replace(good, cluster=dataclasses.replace(good.cluster, id="zzzzzzzz"))
    eyes = FakeEyes(good, after=1)
    assert loop._again(eyes, good) is good
    eyes.reading = lambda: foreign
    assert loop._again(eyes, good) is good
    assert "another cluster" in eyes.notes[-1]


def test_what_is_not_of_the_tree_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / ".k4t").mkdir()
    before = loop.sign(tmp_path)
    (tmp_path / ".k4t" / "audit.jsonl").write_text("x")
    (tmp_path / "README.md").write_text("x")
    assert loop.sign(tmp_path) == before
    (tmp_path / "cluster.xml").write_text("x")
    assert loop.sign(tmp_path) != before


# --- the real program ----------------------------------------------------------------------------------------------


class Machine:
    """A tree of one node that is away, and the program that watches it. No node can be asked, so the master refuses to
    give it up: what is handed over to it fails."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory, self.db = directory, directory / "db"
        self.db.mkdir()
        (self.db / "nodes").mkdir()
        self.write("cluster.xml", f'<cluster name="test" id="{ID}" format="1"><ssh connect-timeout="2s"/></cluster>')
        node = f'<node address="127.0.0.1"><ssh port="{port}"/><power off="false"/></node>'
        self.write("nodes/n1.xml", node)
        self.write("monitor.xml", MONITOR)
        self.page = directory / "page.html"
        self.state = directory / "state" / "k4t" / "monitor"
        self.started: list[subprocess.Popen[str]] = []

    def write(self, name: str, text: str) -> None:
        (self.db / name).write_text(text)

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        env = {
            "PATH": os.environ["PATH"], "HOME": str(self.directory), "XDG_STATE_HOME": str(self.directory / "state"),
            "PYTHONPATH": str(ROOT), **environ,
        }  # fmt: skip
        argv = [sys.executable, "-m", "k4t.cli", "--db", str(self.db), "monitor", *words]
        made = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.started.append(made)
        return made

    def run(self, **environ: str) -> subprocess.Popen[str]:
        """`monitor run`, after its first round."""
        self.page.unlink(missing_ok=True)
        made = self.start("run", "--page", str(self.page), **environ)
        soon(self.page.exists, made)
        return made

    def rounds(self, made: subprocess.Popen[str], count: int = 2) -> None:
        """So many more have passed."""
        for _ in range(count):
            before = self.page.stat().st_mtime_ns
            soon(lambda before=before: self.page.stat().st_mtime_ns != before, made)  # type: ignore[misc]

    def acts(self) -> list[dict[str, object]]:
        return list(json.loads((self.state / f"{ID}.acts.json").read_text())["acts"])

    def events(self) -> list[str]:
        lines = (self.state / f"{ID}.events.jsonl").read_text().splitlines()
        return [f"{one['kind']} {one['what']}" for one in map(json.loads, lines)]

    def end(self) -> None:
        for made in self.started:
            if made.poll() is None:
                made.kill()
            made.communicate()


def soon(what: Callable[[], bool], made: subprocess.Popen[str] | None = None) -> None:
    deadline_s = time.monotonic() + 90
    while not what():
        assert time.monotonic() < deadline_s
        if made is not None and made.poll() is not None:
            raise AssertionError(made.communicate())
        time.sleep(0.05)


def stopped(made: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str, str]:
    """Exit status, both streams; it ends within seconds (much more on a busy machine)."""
    made.send_signal(number)
    out, said = made.communicate(timeout=30)
    assert "Traceback" not in said
    return made.returncode, out, said


@pytest.fixture
def refused() -> Iterator[int]:
    """A port on which nobody listens, and nobody else will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def machine(tmp_path: Path, refused: int) -> Iterator[Machine]:
    made = Machine(tmp_path, refused)
    yield made
    made.end()


def test_what_changes_is_said_and_no_round_more(machine: Machine) -> None:
    """A line for what is raised, and for what became of an action; SIGTERM ends it with 0."""
    made = machine.run()
    soon(lambda: "failed node-gone" in machine.events(), made)
    machine.rounds(made)
    status, out, said = stopped(made)
    assert (status, out) == (0, "")
    lines = said.splitlines()
    assert sum("raised critical node n1: sshd" in line for line in lines) == 1
    assert sum("failed critical node n1: node-gone: dead n1" in line for line in lines) == 1
    assert "is sshd running there" in said
    assert len(lines) <= 4, said
    assert [(act["verb"], act["result"]) for act in machine.acts()] == [("dead", "failed")]


@pytest.mark.crash
def test_killed_between_deciding_and_doing_it_is_done_all_the_same(machine: Machine) -> None:
    """What was begun counts for the limits, and is tried again after a minute, which has passed here."""
    made = machine.run(K4T_FAILPOINT="monitor:decided:3")
    assert made.wait(60) == -signal.SIGKILL
    (act,) = machine.acts()
    assert (act["verb"], act["result"], len(str(act["intent"]))) == ("dead", "begun", 16)
    assert "failed node-gone" not in machine.events()
    file = machine.state / f"{ID}.acts.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"acts": [{**act, "at": time.time() - 3000}]}))
    made = machine.run()
    soon(lambda: "failed node-gone" in machine.events(), made)
    assert stopped(made)[0] == 0
    (act,) = machine.acts()
    assert (act["verb"], act["result"], act["tries"]) == ("dead", "failed", 2)


def test_of_two_one_runs_and_a_check_beside_it_only_looks(machine: Machine) -> None:
    """The second loop is refused with who holds it (75); a check from cron says that it did nothing. Ctrl-C ends the
    loop with 130."""
    machine.write("monitor.xml", MONITOR.replace('enabled="true"', 'enabled="false"'))
    made = machine.run()
    _, said = (other := machine.start("run")).communicate(timeout=60)
    assert other.returncode == 75
    assert "the monitor of this tree is locked by" in said
    out, _ = (beside := machine.start("check", "--act")).communicate(timeout=60)
    assert beside.returncode == 1
    assert "looked, and did nothing" in out
    status, _, said = stopped(made, signal.SIGINT)
    assert status == 130
    assert said.splitlines()[-1] == "k4t: interrupted"


def test_a_host_that_hangs_keeps_nothing_from_ending(tmp_path: Path) -> None:
    """It takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        machine = Machine(tmp_path, mute.getsockname()[1])
        try:
            made = machine.run()
            began_s = time.monotonic()
            assert stopped(made)[0] == 0
            assert time.monotonic() - began_s < 30
        finally:
            machine.end()


def test_one_round_from_cron_acts_too(machine: Machine) -> None:
    """The same code: the third check in a row gives the node up, and sees its end."""
    for _ in range(2):
        out, _ = machine.start("check", "--act").communicate(timeout=60)
        assert "dead n1" not in out
    out, _ = machine.start("check", "--act", "-o", "json").communicate(timeout=60)
    (action,) = json.loads(out)["actions"]
    assert (action["verb"], action["name"], action["result"]) == ("dead", "n1", "failed")
    assert machine.events().count("failed node-gone") == 1
