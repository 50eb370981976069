"""`monitor run` on the master itself: a node loses power, is fenced, replaced, and taken back when it returns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import wipe
from tests.e2e.site import Site, containers, fetch
from tests.lab import Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0
SWITCH = """\
#!/bin/sh
cd {root} && TMPDIR={temporary} exec {python} -m tests.lab $1 --name {lab} $2
"""
APP = """\
<app replicas="2">
  <image>{image}</image>
  <port name="http" host="auto"/>
  <route domain="web.k4t.lab"/>
  <update drain="0s"/>
  <stop grace="1s"/>
</app>
"""
MONITOR = """\
<monitor interval="1s">
  <threshold of="cpu" warning="never"/>
  <threshold of="load" warning="never" critical="never"/>
  <threshold of="memory" warning="98%" critical="99%"/>
  <threshold of="disk" warning="98%" critical="99%"/>
  <threshold of="docker-disk" warning="98%" critical="99%"/>
  <policy when="node-gone" enabled="true" after="2"{dry_run}/>
  <policy when="node-back" enabled="true" after="2"/>
</monitor>
"""


class Running:
    """`monitor run`, and what it says."""

    def __init__(self, process: subprocess.Popen[str], page: Path) -> None:
        self.process, self.page = process, page
        self.events: list[dict[str, Any]] = []
        self.notes: list[str] = []
        for stream, take in ((process.stdout, self._event), (process.stderr, self.notes.append)):
            threading.Thread(target=self._read, args=(stream, take), daemon=True).start()

    def wait(self, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first such event."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            if found := next((one for one in list(self.events) if what(one)), None):
                return found
            assert self.process.poll() is None, self.notes
            time.sleep(0.1)
        raise AssertionError(f"{self.events}\n{self.notes}")

    def done(self, verb: str, result: str = "done") -> dict[str, Any]:
        return self.wait(lambda one: one["kind"] == result and one["words"].startswith(f"{verb} "))

    def rounds(self, count: int) -> None:
        """So many have passed, by the page that each writes."""
        seen: set[int] = set()
        deadline_s = time.monotonic() + PATIENCE_S
        while len(seen) <= count and time.monotonic() < deadline_s:
            if self.page.exists():
                seen.add(self.page.stat().st_mtime_ns)
            time.sleep(0.05)
        assert len(seen) > count, self.notes

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def _event(self, line: str) -> None:
        self.events.append(json.loads(line))

    def _read(self, stream: Any, take: Callable[[str], None]) -> None:
        with stream:
            for line in stream:
                take(line)


@pytest.fixture
def cluster(published: Site, lab: Lab) -> Iterator[Site]:
    """A published app on two nodes that can be switched."""
    site = published
    settings = site.db / "cluster.xml"
    settings.write_text(settings.read_text().replace('connect-timeout="4s"', 'connect-timeout="2s"'))
    switch = site.directory / "switch"
    temporary = os.environ.get("TMPDIR", "/tmp")
    switch.write_text(SWITCH.format(root=ROOT, temporary=temporary, python=sys.executable, lab=lab.name))
    switch.chmod(0o755)
    for host in lab.nodes:
        site.node(host, inside=f'<power on="{switch} start {host.name}" off="{switch} kill {host.name}"/>')
    site.write("apps/web/app.xml", APP.format(image=lab.image))
    site.k4t("apply", "--yes")
    yield site
    while site.started:  # whose streams are read by others
        process = site.started.pop()
        process.kill()
        process.wait()
    for host in lab.nodes:
        if not host.is_on:
            host.power_on()
    wipe(lab.host("gw1"))


def hanging(site: Site) -> Path:
    """The switch hangs as long as there is a file `fence` beside the one that is returned, which has its pid then."""
    switch, hung = site.directory / "switch", site.directory / "hung"
    fence = hung.with_name("fence")
    fence.touch()
    lines = switch.read_text().splitlines()
    wait = f'[ "$1" != kill ] || [ ! -e {fence} ] || {{ echo $$ > {hung}.new; mv {hung}.new {hung}; exec sleep 600; }}'
    switch.write_text("\n".join([lines[0], wait, *lines[1:]]) + "\n")
    return hung


def until(what: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def run(site: Site, *, dry_run: bool = False) -> Running:
    site.write("monitor.xml", MONITOR.format(dry_run=' dry-run="true"' if dry_run else ""))
    page = site.directory / "page.html"
    running = Running(site.start("monitor", "run", "--page", str(page), "-o", "jsonl"), page)
    running.rounds(2)
    return running


def test_a_node_without_power_is_replaced_and_taken_back(cluster: Site, lab: Lab) -> None:
    """First a dry run, which only says so; another tree takes effect without a restart. Then its endpoints are taken
    out; its fence hangs, which delays no round and ends with the monitor. The next one goes on: it is fenced, and its
    replica runs elsewhere. Back on, it is cleaned and takes replicas again."""
    n1, n2 = lab.host("n1"), lab.host("n2")
    running = run(cluster, dry_run=True)
    n2.power_off()
    running.done("dead", "dry-run")
    assert not [one for one in running.events if one["kind"] in ("done", "queued", "failed")]
    assert len(containers(n1)) == 1

    beside = cluster.k4t("monitor", "check", "--act", status=1)
    assert "looked, and did nothing" in beside.stdout
    assert cluster.k4t("monitor", "run", status=75).stderr.count("monitor") >= 1
    hung = hanging(cluster)
    cluster.write("monitor.xml", MONITOR.format(dry_run=""))
    running.done("withdraw")
    until(hung.exists)
    running.rounds(2)
    pid = Path(f"/proc/{hung.read_text().strip()}")
    assert running.end() == 0
    until(lambda: not pid.exists())
    assert len(containers(n1)) == 1

    hung.with_name("fence").unlink()
    running = run(cluster)
    until(lambda: 'availability="dead"' in (cluster.db / "nodes/n2.xml").read_text())
    until(lambda: any("queued before:" in note for note in running.notes))
    assert any("queued before: dead n2 done" in note for note in running.notes), running.notes
    assert not [one for one in running.events if " dead n2" in one["words"]]
    assert 'availability="dead"' in (cluster.db / "nodes/n2.xml").read_text()
    assert len(containers(n1)) == 2
    assert all(fetch(f"http://{lab.host('gw1').address}/", "web.k4t.lab")[0] == 200 for _ in range(20))

    n2.power_on()
    running.done("back")
    assert 'availability="dead"' not in (cluster.db / "nodes/n2.xml").read_text()
    assert running.end() == 0
    told = [json.loads(line) for line in cluster.k4t("events", "-o", "jsonl", status=None).stdout.splitlines()]
    assert [one["at"] for one in told] == sorted(one["at"] for one in told)
    seen = [one for one in told if one["source"] == "monitor" and one["node"] == "n2"]
    assert any("host-off" in one["what"] for one in seen)
    assert any(one["what"].startswith("done node-gone: withdraw n2") for one in seen)
    audit = cluster.json("audit")["entries"]
    assert any("dead n2) done" in one["result"] for one in audit)
    assert any("monitor" in str(one["message"]) for one in audit)
