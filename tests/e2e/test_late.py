"""A node that lags behind delays nobody: the others are done meanwhile, and it is taken in when it answers."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import wipe_node
from tests.e2e.site import Site, containers
from tests.lab import Host, Lab

pytestmark = [pytest.mark.integration, pytest.mark.crash, pytest.mark.timeout(240)]
CHANGE = '  <env name="CHANGE">{0}</env>\n'
LAST = "n4"


@pytest.fixture(scope="module")
def four() -> Iterator[Lab]:
    with Lab(name=f"four-{os.getpid()}", nodes=4, registry=True) as up:
        up.pull()
        yield up


@pytest.fixture
def site(four: Lab, tmp_path: Path) -> Iterator[Site]:
    """`web` runs on each node, at generation 1. Whoever is cut off may answer for a minute."""
    made = Site(four, tmp_path)
    for host in four.nodes:
        made.node(host)
    text = (made.db / "cluster.xml").read_text()
    made.write("cluster.xml", text.replace('connect-timeout="4s"', 'connect-timeout="60s"'))
    made.app("web", replicas=4)
    made.k4t("apply", "--yes")
    yield made
    made.end()
    for host in four.nodes:
        wipe_node(host)


def generations(lab: Lab) -> dict[str, str]:
    """By node, of the replica that runs there."""
    return {host.name: ",".join(name[-1] for name in containers(host, all=False)) for host in lab.nodes}


class Running:
    """An apply under way: what it says on standard error, as it comes."""

    def __init__(self, site: Site, *words: str) -> None:
        self.process = site.start("apply", "--yes", *words)
        self.said: list[str] = []
        self.out = ""
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.said.append(line.rstrip())
                self._news.notify_all()

    def until(self, word: str) -> None:
        """Until it has said so. Fails when it ends without."""
        with self._news:
            assert self._news.wait_for(lambda: any(word in line for line in self.said), 60), (word, self.said)

    def end(self) -> int:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out = self.process.stdout.read()
        status = self.process.wait(60)
        self._reader.join(10)
        self.process.stdout.close()
        self.process.stderr.close()
        assert "Traceback" not in "\n".join(self.said), self.said
        return status


SILENT: dict[str, tuple[Callable[[Host], None], Callable[[Host], None]]] = {
    "cut": (Host.cut, Host.restore),
    "docker": (Host.pause_docker, Host.resume_docker),
    "sshd": (Host.pause_sshd, Host.resume_sshd),
}


@pytest.mark.parametrize("how", SILENT)
def test_the_others_go_ahead_of_a_silent_node(site: Site, four: Lab, how: str) -> None:
    """Cut off, Docker hangs, sshd hangs: the others are done without it; then exit 3, and its name."""
    leave, come_back = SILENT[how]
    gone = four.host(LAST)
    site.write("cluster.xml", (site.db / "cluster.xml").read_text().replace("60s", "10s"))
    site.app("web", replicas=4, more=CHANGE.format(how))
    leave(gone)
    try:
        run = Running(site)
        status = run.end()
    finally:
        come_back(gone)
    assert f"no answer yet from {LAST}: the others go ahead" in run.said[0], run.said
    assert status == 3, run.said
    assert "web.3" in run.out
    assert LAST in run.out
    assert generations(four) == {"n1": "2", "n2": "2", "n3": "2", "n4": "1"}
    site.k4t("apply", "--yes")
    assert generations(four) == {"n1": "2", "n2": "2", "n3": "2", "n4": "2"}


def test_the_others_are_done_while_a_silent_node_is_waited_for(site: Site, four: Lab) -> None:
    """Not one of them waits for its time-out."""
    gone = four.host(LAST)
    site.app("web", replicas=4, more=CHANGE.format(1))
    gone.cut()
    try:
        run = Running(site)
        run.until(f"waiting for {LAST}")
        done = {host.name: containers(host, all=False) for host in four.nodes[:-1]}
        assert run.process.poll() is None
    finally:
        gone.restore()
    assert run.end() == 0, run.said
    assert done == {f"n{number}": [f"prod.web.{number - 1}.2"] for number in (1, 2, 3)}


def test_a_slow_node_ends_done(site: Site, four: Lab) -> None:
    """It answers when the others are at work, or have done theirs: exit 0, one revision, nothing left to do."""
    slow = four.host(LAST)
    for word in ("the others go ahead", f"waiting for {LAST}"):
        site.app("web", replicas=4, more=CHANGE.format(word))
        before = max(one["serial"] for one in site.json("history")["revisions"])
        slow.cut()
        try:
            run = Running(site)
            run.until(word)
        finally:
            slow.restore()
        assert run.end() == 0, run.said
        assert max(one["serial"] for one in site.json("history")["revisions"]) == before + 1
        assert site.json("plan")["steps"] == []
    assert generations(four) == {"n1": "3", "n2": "3", "n3": "3", "n4": "3"}


def test_a_new_app_is_spread_over_a_slow_node_too(site: Site, four: Lab) -> None:
    """Who is slow for a moment doesn't change who runs what."""
    slow = four.host(LAST)
    site.app("more", replicas=4, port=8090)
    slow.cut()
    try:
        run = Running(site)
        run.until(f"waiting for {LAST}")
    finally:
        slow.restore()
    assert run.end() == 0, run.said
    assert all(sum(".more." in name for name in containers(host, all=False)) == 1 for host in four.nodes)


def test_what_takes_away_waits_for_all(site: Site, four: Lab) -> None:
    """How much may go at once is judged by all that is there: fewer replicas are not begun with a node unknown."""
    gone = four.host(LAST)
    site.app("web", replicas=1)
    gone.pause_docker()
    try:
        run = Running(site)
        run.end()
    finally:
        gone.resume_docker()
    assert not any("go ahead" in line for line in run.said), run.said
    assert f"{LAST} is unreachable" in run.out
    site.k4t("apply", "--yes")
    assert generations(four) == {"n1": "1", "n2": "", "n3": "", "n4": ""}


def test_a_late_host_that_another_run_has_locked_is_left_alone(site: Site, four: Lab) -> None:
    """The lock comes before the work there too: exit 3 with the holder's name, and nothing was touched."""
    slow = four.host(LAST)
    record = '{"who":"anna","host":"laptop","pid":7,"since":"2026-01-01T00:00:00Z","why":"apply","run":"x"}'
    script = f"mkdir -p /var/lib/k4t/{site.id}; echo '{record}' >/var/lib/k4t/{site.id}/lock; exec sleep 600"
    slow.spawn("other", ["flock", "-F", f"/var/lib/k4t/{site.id}/lock", "sh", "-c", script])
    site.app("web", replicas=4, more=CHANGE.format(1))
    slow.cut()
    try:
        run = Running(site)
        run.until("the others go ahead")
        slow.restore()
        status = run.end()
        assert containers(slow, all=False) == ["prod.web.3.1"]
    finally:
        slow.restore()
        slow.stop("other", grace_s=1)
    assert status == 3, run.said
    plan = site.json("plan", status=None)
    assert {step["node"] for step in plan["steps"]} == {LAST}, plan


def test_two_runs_with_different_laggards_exclude_each_other(site: Site, four: Lab, tmp_path: Path) -> None:
    """The first run sees all but the first host, in order of locks; the second one, later, all of them: it exits 75,
    and the first one still gets the lock of the host that was late."""
    first = four.host("n1")
    other = site.copy(tmp_path / "other")
    site.app("web", replicas=4, more='  <env name="DELAY">2</env>\n')
    other.app("web", replicas=4, more=CHANGE.format(2))
    first.cut()
    try:
        run = Running(site)
        run.until("n2: ")
    finally:
        first.restore()
    refused = other.k4t("apply", "--yes", status=75)
    assert f"process {run.process.pid}" in refused.stderr
    assert run.end() == 0, run.said
    assert generations(four) == {"n1": "2", "n2": "2", "n3": "2", "n4": "2"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_waiting_for_a_late_node_can_be_interrupted(site: Site, four: Lab, number: signal.Signals) -> None:
    """The summary names what is done and what is not; everything is released; 130."""
    gone = four.host(LAST)
    site.app("web", replicas=4, more=CHANGE.format(number))
    gone.cut()
    try:
        run = Running(site)
        run.until(f"waiting for {LAST}")
        run.process.send_signal(number)
        assert run.end() == 130, run.said
    finally:
        gone.restore()
    assert LAST in run.out
    assert "Interrupted: 15 steps done" in run.out
    site.k4t("apply", "--yes")
