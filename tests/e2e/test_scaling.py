"""Apps with `<scale>`: a load makes more of them, its end makes fewer, by what containers really use and what Envoy
really counts. Readings are real, and so are their times; windows are run through faster, since each round is told that
it is forty seconds after the one before."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Self

import pytest

from k4t import wiring
from k4t.monitor import scaling
from k4t.monitor.acting.action import Action
from k4t.monitor.check import Looked, check
from k4t.monitor.history import NONE, History
from k4t.node import stats, usage
from tests.e2e.conftest import wipe, wipe_node
from tests.e2e.site import Site, containers, fetch
from tests.lab import Lab

pytestmark = pytest.mark.integration
ROUND_S = 40.0
BURN = "touch /dev/shm/burn; while [ -f /dev/shm/burn ]; do :; done"
SCALED = """\
<app>
  <image>{image}</image>
  <port name="http" host="auto"/>
  <resources cpus="0.1" memory="64MiB"/>
  <route domain="{name}.k4t.lab"/>
  <scale {scale}/>
  <update drain="0s"/>
  <stop grace="1s"/>
</app>
"""


class Monitor:
    """Its eyes, its memory, and the master that does at once what it asks for."""

    def __init__(self, site: Site, lab: Lab) -> None:
        self.site, self.lab = site, lab
        self.history: History = NONE
        self.memory = scaling.NONE
        self.now_s = time.time()
        self.did: list[Action] = []

    def round(self) -> tuple[Action, ...]:
        """One look, and what it wants then."""
        looked = self.look()
        self.memory = scaling.decode(scaling.encode(self.memory))
        self.memory, actions = scaling.round(self.fleet, looked, self.memory, self.now_s)
        self.now_s += ROUND_S
        return actions

    def look(self) -> Looked:
        looked = check(self.fleet, self.history, at_s=time.time())
        self.history = looked.judgement.history
        return looked

    def __enter__(self) -> Self:
        tree = wiring.read(self.site.db)
        self._open = wiring.watched(tree, self.site.db, [self.lab.known_hosts])
        self.fleet = self._open.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.__exit__(None, None, None)

    def until(self, app: str, size: int, rounds: int, before: Callable[[], None] = lambda: None) -> None:
        """Rounds, each after `before` and followed by what it asked for, until the app has this size."""
        for _ in range(rounds):
            before()
            for action in self.round():
                self.did.append(action)
                self.site.k4t("scale", action.name, str(action.replicas), "--yes", "-m", action.cause)
                if (action.name, action.replicas) == (app, size):
                    return
            time.sleep(0.25)
        raise AssertionError(f"{app} has not become {size}: {scaling.words(self.memory, app)}; it did {self.did}")


@pytest.fixture(scope="module")
def site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(lab, tmp_path_factory.mktemp("scaling"))
    for name in ("n1", "n2"):
        made.node(lab.host(name))
    made.gateway(lab.host("gw1"))
    for name, scale in (("web", 'min="1" max="4" cpu="70%"'), ("api", 'min="1" max="3" requests="4"')):
        made.write(f"apps/{name}/app.xml", SCALED.format(image=lab.image, name=name, scale=scale))
    made.k4t("gateway", "install")
    made.k4t("apply", "--yes")
    yield made
    made.end()
    for host in lab.nodes:
        wipe_node(host)
    wipe(lab.host("gw1"))


def burn(lab: Lab, app: str) -> None:
    """Every container of the app that doesn't is kept busy from now on, as far as its limit lets it."""
    for host in lab.nodes:
        for name in containers(host, all=False):
            if f".{app}." in name:
                host.docker(["exec", "-d", name, "sh", "-c", f"[ -f /dev/shm/burn ] || {{ {BURN}; }}"], check=False)


def cool(lab: Lab) -> None:
    """Twice: what was begun in the background may begin late."""
    for pause_s in (1.0, 0.0):
        for host in lab.nodes:
            for name in containers(host, all=False):
                host.docker(["exec", name, "rm", "-f", "/dev/shm/burn"])
        time.sleep(pause_s)


class Requests:
    """About so many a second, until it is left."""

    def __init__(self, address: str, host: str, per_second: float) -> None:
        self.url, self.host, self.pause_s = f"http://{address}/", host, 1 / per_second
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.ending.wait(self.pause_s):
            with suppress(OSError):
                fetch(self.url, self.host)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.thread.join(30)


def desired(site: Site) -> dict[str, int]:
    return {app["name"]: app["desired"] for app in site.json("status")["apps"]}


def test_a_load_step_makes_more_of_it_and_its_end_fewer(site: Site, lab: Lab) -> None:
    """One container at its limit, seven tenths of it aimed at: two. All of them at it: up to four. None: one
    again, by halves."""
    with Monitor(site, lab) as monitor:
        for _ in range(3):
            assert monitor.round() == ()
            time.sleep(0.25)
        burn(lab, "web")
        monitor.until("web", 2, rounds=40)
        monitor.until("web", 4, rounds=40, before=lambda: burn(lab, "web"))
        cool(lab)
        monitor.until("web", 1, rounds=80)
    asked = [action.replicas for action in monitor.did]
    top = asked.index(4)
    assert asked[: top + 1] == sorted(asked[: top + 1])
    assert asked[top:] == sorted(asked[top:], reverse=True)
    assert min(asked[top:-1]) >= 2
    assert "70 % aimed at" in monitor.did[0].cause
    assert desired(site)["web"] == 1


def test_control_groups_say_what_the_engine_says(site: Site, lab: Lab) -> None:
    """Processor time and memory of real containers, read within a moment of each other."""
    with Monitor(site, lab) as monitor:
        found = [one for one in monitor.look().facts.containers if one.running]
        for node in {one.node for one in found}:
            engine = monitor.fleet.engine(node)
            mine = [one for one in found if one.node == node]
            read = usage.read(engine.transport, [one.id for one in mine])
            assert set(read) == {one.id for one in mine}
            for one in mine:
                told = stats.sample(engine, one)
                assert told is not None
                assert read[one.id].cpu_s == pytest.approx(told.cpu_s, abs=0.5)
                assert read[one.id].memory_bytes == pytest.approx(told.memory_bytes, rel=0.5, abs=1 << 20)


def test_requests_that_envoy_counts_make_more_of_it(site: Site, lab: Lab) -> None:
    """Well over ten a second, four a replica: three. Those of another app do not count."""
    with Monitor(site, lab) as monitor, Requests(lab.host("gw1").address, "api.k4t.lab", 60.0):
        monitor.until("api", 3, rounds=30)
    assert "requests/s, 4 a replica aimed at" in monitor.did[-1].cause
    assert {action.name for action in monitor.did} == {"api"}
    counted = monitor.memory.apps["api"].seen.counted["gw1"].totals
    assert sum(counted.values()) > 10
    assert not monitor.memory.apps["web"].seen.counted


def test_a_size_is_asked_for_kept_on_the_hosts_and_never_written_to_the_tree(site: Site, lab: Lab) -> None:
    """By command, by intent, from a clone without `.k4t`; and who asked is told."""
    file = site.db / "apps/web/app.xml"
    before = file.read_bytes()
    site.k4t("scale", "web", "1", "--yes")
    assert "1 to 4 replicas, not 5" in site.k4t("scale", "web", "5", "--yes", status=64).stderr
    assert "--no-apply" in site.k4t("scale", "web", "2", "--no-apply", status=64).stderr
    assert "1 to 4 replicas, not 9" in site.k4t("intent", "scale", "web", "9", "--here", status=64).stderr
    said = site.k4t("scale", "web", "2", "--yes", "-m", "the sale begins")
    assert "1 → 2 replicas: asked for now" in said.stdout + said.stderr
    assert file.read_bytes() == before
    assert "Nothing to do" in site.k4t("plan").stdout
    clone = site.copy(site.directory / "clone")
    assert "Nothing to do" in clone.k4t("plan").stdout
    assert desired(clone)["web"] == 2
    site.k4t("intent", "scale", "web", "3", "--here", "--note", "more of it")
    site.k4t("wake", "--stay-on")
    assert desired(site)["web"] == 3
    told = site.k4t("explain", "web").stdout
    assert "3 wanted" in told
    assert "1 to 4; " in told
    assert "more of it" in told
    assert any(
        "scale web" in entry["message"] or "sale" in entry["message"] for entry in site.json("history")["revisions"]
    )


def test_the_monitor_on_the_master_does_what_a_command_wants(site: Site, lab: Lab) -> None:
    """From cron: two looks that say so make three of one, and the reason is told."""
    queue = site.directory / "queue"
    queue.write_text("1\n")
    scale = f'min="1" max="4" command="cat {queue}" stabilize-up="0s" stabilize-down="0s"'
    site.write("apps/web/app.xml", SCALED.format(image=lab.image, name="web", scale=scale))
    site.k4t("apply", "--yes")
    site.k4t("scale", "web", "1", "--yes")
    queue.write_text("3\n")
    for _ in range(3):
        site.k4t("monitor", "check", "--act", status=None)
    assert desired(site)["web"] == 3
    assert "1 → 3 replicas: its command wants 3" in site.k4t("explain", "web").stdout
    assert "scale web 3" in site.k4t("events").stdout
    assert len([name for host in lab.nodes for name in containers(host) if ".web." in name]) == 3
