"""Part of a cluster doesn't answer, or breaks while it works: the rest is done, nothing is done twice.

K4T_FULL=1 repeats as often as the figures in docs/updates.md say.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site, containers
from tests.lab import Host, Lab

pytestmark = [
    pytest.mark.integration,
    pytest.mark.crash,
    pytest.mark.timeout(1800 if "K4T_FULL" in os.environ else 240),
]
FULL = "K4T_FULL" in os.environ
DELAY_S = 1
PAIRS = 100 if FULL else 3
KILLS = 50 if FULL else 2
MORE = '  <env name="CHANGE">{0}</env>\n  <env name="DELAY">{1}</env>'


@pytest.fixture(scope="module")
def three() -> Iterator[Lab]:
    with Lab(name=f"three-{os.getpid()}", nodes=3, registry=True) as up:
        up.pull()
        yield up


@pytest.fixture
def site(three: Lab, tmp_path: Path) -> Iterator[Site]:
    made = Site(three, tmp_path)
    for host in three.nodes:
        made.node(host)
    yield made
    made.end()
    for host in three.nodes:
        if names := host.docker(["ps", "-aq"]).stdout.split():
            host.docker(["rm", "-f", *names])
        if volumes := host.docker(["volume", "ls", "-q"]).stdout.split():
            host.docker(["volume", "rm", *volumes])
        host.exec(["rm", "-rf", "/var/lib/k4t"])


def running(lab: Lab) -> dict[str, list[str]]:
    return {host.name: containers(host, all=False) for host in lab.nodes}


def power_on(host: Host) -> None:
    host.power_on()
    deadline = time.monotonic() + 30
    while not containers(host, all=False):
        assert time.monotonic() < deadline
        time.sleep(0.2)


AWAY: dict[str, tuple[Callable[[Host], None], Callable[[Host], None]]] = {
    "cut": (Host.cut, Host.restore),
    "off": (Host.power_off, power_on),
    "hung": (Host.pause_docker, Host.resume_docker),
}


@pytest.mark.parametrize("how", AWAY)
def test_one_node_is_away_and_the_others_are_done(site: Site, three: Lab, how: str) -> None:
    """Cut off, powered off, or Docker hangs: exit 3 and its name; the next run does that one alone; no replica of it is
    started elsewhere meanwhile."""
    leave, come_back = AWAY[how]
    gone = three.host("n3")
    site.app("web", replicas=3)
    site.k4t("apply", "--yes")
    site.app("web", replicas=3, more=MORE.format(how, 0))
    leave(gone)
    try:
        started = time.monotonic()
        done = site.k4t("apply", "--yes", status=3)
        took_s = time.monotonic() - started
    finally:
        come_back(gone)
    assert "n3" in done.stdout
    assert "web.2" in done.stdout
    assert took_s < 40, "what hangs is waited for once"
    assert running(three) == {"n1": ["prod.web.0.2"], "n2": ["prod.web.1.2"], "n3": ["prod.web.2.1"]}
    rest = site.json("plan", status=None)
    assert {step["node"] for step in rest["steps"]} == {"n3"}
    site.k4t("apply", "--yes")
    assert {host.name: containers(host) for host in three.nodes} == {
        "n1": ["prod.web.0.2"], "n2": ["prod.web.1.2"], "n3": ["prod.web.2.2"],
    }  # fmt: skip


@pytest.fixture
def eight(tmp_path: Path) -> Iterator[Site]:
    with Lab(name=f"eight-{os.getpid()}", nodes=8, registry=True) as up:
        up.pull()
        made = Site(up, tmp_path)
        for host in up.nodes:
            made.node(host)
        yield made


def test_one_of_eight_is_away_and_seven_are_done(eight: Site) -> None:
    """Cut off: exit 3, its name, and the next run does that one alone. Docker hangs: nobody waits for that."""
    lab = eight.lab
    gone = lab.nodes[-1]
    eight.app("web", replicas=8)
    eight.k4t("apply", "--yes")

    def expected(generation: int, last: int) -> dict[str, list[str]]:
        generations = [generation] * 7 + [last]
        return {host.name: [f"prod.web.{n}.{generations[n]}"] for n, host in enumerate(lab.nodes)}

    eight.app("web", replicas=8, more=MORE.format("cut", 0))
    gone.cut()
    try:
        done = eight.json("apply", "--yes", status=3)
    finally:
        gone.restore()
    assert [one for one in done["not_done"] if "n8" in one and "web.7" in one], done
    assert running(lab) == expected(2, 1)
    assert {step["node"] for step in eight.json("plan")["steps"]} == {"n8"}
    eight.k4t("apply", "--yes")
    assert {host.name: containers(host) for host in lab.nodes} == expected(2, 2)

    eight.app("web", replicas=8, more=MORE.format("hung", 0))
    gone.pause_docker()
    try:
        said = eight.k4t("apply", "--yes", status=3)
    finally:
        gone.resume_docker()
    assert "no answer yet from n8: the others go ahead" in said.stderr.splitlines()[0]
    assert "n8" in said.stdout
    assert running(lab) == expected(3, 2)
    eight.k4t("apply", "--yes")
    assert {host.name: containers(host) for host in lab.nodes} == expected(3, 3)


def test_dockerd_killed_in_the_middle_of_a_create(site: Site, three: Lab) -> None:
    """Whenever it dies, and whatever it has begun: runs converge, and exactly one container is left."""
    host = three.host("n1")
    for name in ("n2", "n3"):
        (site.db / f"nodes/{name}.xml").unlink()
    chance = random.Random(5)  # noqa: S311 - the moments are to be the same again
    for number in range(KILLS):
        site.app("web", replicas=1, more=MORE.format(number, 0))
        process = site.start("apply", "--yes")
        assert process.stderr is not None
        for line in process.stderr:
            if "pull" in line:
                break
        time.sleep(chance.uniform(0, 0.12))
        host.exec(["sh", "-c", "kill -9 $(cat /run/docker.pid)"])
        out, said = process.communicate(timeout=120)
        assert process.returncode in (0, 1, 3, 69), out + said
        host.start_docker()
        for _ in range(3):
            ended = site.k4t("apply", "--yes", status=None)
            said += ended.stdout
            if ended.returncode == 0:
                break
        assert ended.returncode == 0, said
        assert site.json("apply", "--yes")["result"] == "nothing"
        names = containers(host)
        assert len(names) == 1, names
        assert containers(host, all=False) == names


def test_two_applies_at_once(site: Site, three: Lab, tmp_path: Path) -> None:
    """From two working copies, the same moment, again and again: one works, the other exits 75 with its name."""
    site.app("web", replicas=3)
    site.k4t("apply", "--yes")
    other = site.copy(tmp_path / "other")
    for number in range(PAIRS):
        for copy in (site, other):
            copy.app("web", replicas=3, more=MORE.format(number, DELAY_S))
        runs = [copy.start("apply", "--yes") for copy in (site, other)]
        ended = [(run, *run.communicate(timeout=120)) for run in runs]
        statuses = sorted(run.returncode for run, _, _ in ended)
        assert statuses == [0, 75], [text for _, out, said in ended for text in (out, said)]
        winner = next(run for run, _, _ in ended if run.returncode == 0)
        refused = next(said for run, _, said in ended if run.returncode == 75)
        assert f"process {winner.pid}" in refused
        assert "locked by" in refused
        assert all(len(names) == 1 for names in running(three).values())


# A server that notices another one on its data, and that it was given none.
DATABASE = """\
<app replicas="{replicas}">
  <image>{image}</image>
  <command><arg>/bin/sh</arg><arg>-c</arg><arg>{script}</arg></command>
  <volume source="data" target="/data"/>
  <env name="CHANGE">{change}</env>
  <health interval="500ms"><exec><arg>test</arg><arg>-e</arg><arg>/data/running</arg></exec></health>
  <stop grace="5s"/>
</app>
"""
SCRIPT = (
    "[ -e /data/running ] &amp;&amp; echo second >>/data/log; touch /data/running; echo start >>/data/log; "
    "trap 'rm /data/running; exit 0' TERM; while :; do sleep 0.1; done"
)


class Database:
    def __init__(self, site: Site, lab: Lab) -> None:
        self.site, self.lab = site, lab

    def write(self, *, replicas: int = 1, change: str = "1") -> None:
        text = DATABASE.format(replicas=replicas, change=change, image=self.lab.image, script=SCRIPT)
        self.site.write("apps/db/app.xml", text)

    def availability(self, host: Host, value: str) -> None:
        self.site.write(f"nodes/{host.name}.xml", f'<node address="{host.address}" availability="{value}"/>\n')

    def log(self, host: Host) -> list[str]:
        """What the servers on this node's data have written; nothing where there are none."""
        script = "cat /var/lib/docker/volumes/*/_data/log 2>/dev/null || :"
        return host.exec(["sh", "-c", script]).stdout.split()

    def logs(self) -> dict[str, list[str]]:
        return {host.name: self.log(host) for host in self.lab.nodes if self.log(host)}


def test_data_is_never_used_twice_and_never_left_unnoticed(site: Site, three: Lab) -> None:
    """A database with its data on one node: an update stops it first; drain, fewer replicas, a node that is away or
    dead, replicas without a node of their own: none starts on that data, none on an empty directory; each is said."""
    database = Database(site, three)
    database.write()
    site.k4t("apply", "--yes")
    home = next(host for host in three.nodes if containers(host))
    database.write(change="2")
    site.k4t("apply", "--yes")
    assert database.logs() == {home.name: ["start", "start"]}

    database.availability(home, "drained")
    refused = site.k4t("apply", "--yes", status=4).stderr
    assert "--allow abandon-data:db/0" in refused
    assert f"leaves its data on {home.name}" in refused
    database.availability(home, "active")

    database.write(change="2", replicas=4)
    plan = site.json("plan", status=None)
    assert [(one["app"], one["replica"]) for one in plan["unschedulable"]] == [("db", 3)]
    assert any("data of db there is in use" in reason for reason in plan["unschedulable"][0]["reasons"])
    database.write(change="2", replicas=2)
    site.k4t("apply", "--yes")
    database.write(change="2")
    assert "--allow abandon-data:db/1" in site.k4t("apply", "--yes", status=4).stderr
    site.k4t("apply", "--yes", "--allow", "abandon-data:db/1")

    home.cut()
    try:
        for change in ("2", "3"):
            database.write(change=change)
            said = site.k4t("apply", "--yes", status=3)
            assert f"db.0 is not seen and may be on {home.name}" in said.stdout
        database.availability(home, "dead")
        refused = site.k4t("apply", "--yes", status=4).stderr
        assert "--allow abandon-data:db/0" in refused
        assert f"--allow unfenced:{home.name}" in refused
    finally:
        home.restore()
    assert database.log(home) == ["start", "start"]
    assert not [line for lines in database.logs().values() for line in lines if line == "second"]
