"""The master is a machine of the lab that switches itself off, is woken, does what was queued, and sleeps again."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from k4t.master.power import announce, intents, signed
from k4t.master.power.announce import Off
from k4t.tree.read import read_tree
from tests.e2e.conftest import wipe, wipe_node
from tests.e2e.site import Site, containers
from tests.lab import Host, Lab
from tests.lab.processes import wait_until
from tests.load.run import Load

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
LONG = "K4T_FULL" in os.environ
RATE_PER_S = 100
ROUTED = '<route domain="web.k4t.lab"/><record name="web"/><health interval="1s"><http path="/"/></health>'
CLUSTER = """\
<cluster name="prod" id="{id}" format="1">
  <ssh user="root" key="{key}" connect-timeout="3s"/>
  <backup node="n1" every="1h"/>
  <power host="{host}" on="{on}" off="{off}" after-apply="{after}"/>
</cluster>
"""
ON = """\
#!/bin/sh
cd {root} || exit 1
export TMPDIR={temporary}
lab() {{ verb=$1; shift; {python} -m tests.lab $verb --name {lab} "$@"; }}
lab kill {host} && lab start {host} && lab spawn {host} wake {wake}
"""


class Master(Site):
    """The program runs on a host of the lab; its tree lies where that host and the test both see it."""

    host: Host

    @classmethod
    def on(cls, lab: Lab, host: Host) -> Master:
        directory = lab.directory / f"master-{os.getpid()}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        made = cls(lab, directory)
        made.host = host
        for name in ("n1", "n2"):
            made.node(lab.host(name))
        made.gateway(lab.host("gw1"))
        made.dns(lab.host("gw1"))
        made.cluster()
        made.switch()
        return made

    def cluster(self, *, after: str = "stay", off: str = "kill 1") -> None:
        text = CLUSTER.format(
            id=self.id, key=self.lab.key, host=self.host.name, on=self.directory / "on", off=off, after=after
        )
        self.write("cluster.xml", text)

    def switch(self) -> None:
        """What wakes it, run elsewhere: the lab's switch, and what its service manager would start."""
        text = ON.format(
            root=ROOT, temporary=os.environ.get("TMPDIR", "/tmp"), python=sys.executable, lab=self.lab.name,
            host=self.host.name, wake=" ".join(self.words("wake")),
        )  # fmt: skip
        (self.directory / "on").write_text(text)
        (self.directory / "on").chmod(0o755)

    def words(self, *words: str, extra: Mapping[str, str] | None = None) -> list[str]:
        found = {**self.environment(extra), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        keep = [f"{key}={value}" for key, value in found.items() if key not in ("PATH", "TMPDIR", "LANG")]
        return ["env", *keep, *self.argv(*words)]

    def k4t(
        self, *words: str, status: int | None = 0, timeout_s: float = 120, extra: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """On the master."""
        done = self.host.exec(self.words(*words, extra=extra), check=False, timeout_s=timeout_s)
        if status is not None and done.returncode != status:
            raise AssertionError(f"k4t {' '.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """As it is when the machine goes off beneath it: nobody waits for its status."""
        return subprocess.Popen(
            [*self.host.enter(), *self.words(*words)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def goes_off(self, *words: str) -> str:
        process = self.begin(*words)
        said, _ = process.communicate(timeout=120)
        assert wait_until(lambda: not self.host.is_on, timeout_s=30), said
        return said

    def laptop(self, directory: Path) -> Site:
        """Another machine with the same tree."""
        directory.mkdir()
        other = self.copy(directory)
        other.__class__ = Site
        shutil.rmtree(other.home / ".config", ignore_errors=True)
        (other.home / ".ssh/config").write_text(f"Host {self.host.name}\n  HostName {self.host.address}\n")
        return other

    def off_on(self, host: Host) -> Off | None:
        """What stands there, checked as a monitor would."""
        done = host.exec(["cat", f"/var/lib/k4t/{self.id}/off"], check=False)
        if done.returncode:
            return None
        recovery = read_tree(self.db).recovery
        assert recovery is not None
        return announce.decode(done.stdout.encode(), signed.Trust(self.id, recovery.key))


@pytest.fixture
def master(lab: Lab) -> Iterator[Master]:
    """One app on two nodes, published, with a copy of the tree on n1."""
    host = lab.host("m2")
    made = Master.on(lab, host)
    made.k4t("gateway", "install")
    made.k4t("dns", "install")
    made.app("web", replicas=1, more=ROUTED)
    made.k4t("apply", "--yes")
    yield made
    host.power_off()
    host.power_on()
    for node in lab.nodes:
        wipe_node(node)
    wipe(lab.host("gw1"))
    shutil.rmtree(made.directory)


def test_the_master_sleeps_under_load_is_woken_for_an_intent_and_sleeps_again(
    master: Master, lab: Lab, tmp_path: Path
) -> None:
    """Not one request is lost from before it goes off until it is off again, with one more replica; “off on purpose”
    stands where a monitor looks whenever it is off, and only then."""
    places = [lab.host("gw1"), lab.host("n1")]
    laptop = master.laptop(tmp_path / "laptop")
    master.k4t("kit", "--write", str(master.directory / "kit.txt"))
    shutil.copy(master.db / "recovery.xml", laptop.db / "recovery.xml")
    laptop.k4t("kit", "certify", "--kit", str(master.directory / "kit.txt"), "--uses", "intents")
    with Load(
        tmp_path / "load", targets=[f"{places[0].address}:80"], hosts=["web.k4t.lab"], rate_per_s=RATE_PER_S
    ) as load:
        print(master.goes_off("power", "off", "--yes", "-m", "nothing to do"))
        for place in places:
            off = master.off_on(place)
            assert off is not None
            assert (off.host, off.why, off.who) == ("m2", "nothing to do", "root@m2")
        time.sleep(60 if LONG else 2)
        print(laptop.k4t("intent", "scale", "web", "2", "--note", "more").stdout)
        print(laptop.k4t("intent", "list").stdout)
        hacked(master, lab.host("n1"), lab.host("gw1"))
        master.cluster(after="off")
        print(laptop.k4t("power", "on", "--timeout", "60").stderr)
        assert wait_until((master.db / ".k4t/intents.done").exists, timeout_s=150)
        assert wait_until(lambda: not lab.host("m2").is_on, timeout_s=150), lab.host("m2").log("wake").read_text()
    said = lab.host("m2").log("wake").read_text()
    print(said)
    assert said.count("is refused and put aside") == 2
    print(load.report.words())
    assert not load.report.lost, load.report.first_lost()
    assert sum(len(containers(node, all=False)) for node in lab.nodes) == 2
    assert all(master.off_on(place) is not None for place in places)
    assert all(not queued(master, place) for place in places)
    assert lab.host("n1").exec(["ls", f"/var/lib/k4t/{master.id}/intents/refused"]).stdout.split() == [
        f"{'e' * 16}.json", f"{'f' * 16}.json",
    ]  # fmt: skip
    (done,) = json.loads((master.db / ".k4t/intents.done").read_text())["intents"]
    assert (done["action"], done["result"], done["who"]) == ("scale web 2", "done", f"root@{socket.gethostname()}")
    assert "scale web 2" in (master.db / ".k4t/audit.jsonl").read_text()


def hacked(master: Master, node: Host, gateway: Host) -> None:
    """A node that is no longer its owner's asks for something, and shows another's word as its own."""
    directory = f"/var/lib/k4t/{master.id}/intents"
    one = intents.made(
        "scale", id="f" * 16, cluster=master.id, who="root@n1", at=datetime.now(UTC), name="web", replicas=0
    )
    node.exec(["tee", f"{directory}/{one.id}.json"], input=intents.encode(one, None).decode())
    theirs = queued(master, gateway)[0]
    node.exec(["cp", f"{directory}/{theirs}", f"{directory}/{'e' * 16}.json"])


def queued(master: Master, place: Host) -> list[str]:
    return place.exec(["sh", "-c", f"ls /var/lib/k4t/{master.id}/intents 2>&1 | grep json"], check=False).stdout.split()


def test_each_open_thing_keeps_it_on(master: Master, lab: Lab, tmp_path: Path) -> None:
    """A laptop is refused with both names. On the master, all that is open is named at once, a line each; what can't
    be switched off takes back that it is off. Then it goes."""
    laptop = master.laptop(tmp_path / "laptop")
    for words in (["power", "off", "--yes"], ["apply", "--yes", "--power-off"], ["wake", "--power-off"]):
        refused = laptop.k4t(*words, status=1).stderr
        assert f"this is {socket.gethostname()}" in refused
        assert "names m2" in refused
    assert not (laptop.db / ".k4t").exists()

    master.k4t("scale", "web", "2", "--yes", status=-9, extra={"K4T_FAILPOINT": "after:decide"})
    master.k4t("node", "drain", "n2", "--no-apply")
    master.write("monitor.xml", '<monitor><policy when="nodes-idle" enabled="true"/></monitor>')
    master.k4t("intent", "apply", "--here")
    acts = master.home / f".local/state/k4t/monitor/{master.id}.acts.json"
    acts.parent.mkdir(parents=True, exist_ok=True)
    acts.touch()
    with held(master.db / ".k4t/backup/lock"):
        refused = master.k4t("power", "off", "--yes", status=75).stderr
    print(refused)
    reasons = [line.removeprefix("  - ") for line in refused.splitlines() if line.startswith("  - ")]
    for said in (
        "the backup of", "does what monitor.xml has enabled (nodes-idle)", "web.1 fits nowhere", "node n2",
        "1 intent (apply) still queued", "an unfinished publication", "no current copy of the tree on n1",
    ):  # fmt: skip
        assert len([reason for reason in reasons if said in reason]) == 1, (said, refused)
    assert master.off_on(lab.host("gw1")) is None

    master.k4t("node", "uncordon", "n2", "--no-apply")
    (master.db / "monitor.xml").unlink()
    print(master.k4t("intent", "list").stdout)
    master.k4t("intent", "remove", json.loads(master.k4t("intent", "list", "-o", "json").stdout)["queued"][0]["id"])
    master.cluster(off="false")
    failed = master.k4t("apply", "--yes", "--power-off", status=3)
    print(failed.stdout, failed.stderr)
    assert "`false` said: exit status 1" in failed.stderr
    assert master.off_on(lab.host("gw1")) is None

    master.cluster()
    lab.host("gw1").cut()
    away = master.k4t("power", "off", "--yes", status=69).stderr
    lab.host("gw1").restore()
    assert "gw1" in away
    print(away)
    master.k4t("apply", "--yes")
    assert master.k4t("power", "off", "--yes", status=None, extra={"K4T_FAILPOINT": "power:announced"}).returncode == -9
    assert master.off_on(lab.host("gw1")) is not None
    master.k4t("apply", "--yes")
    assert master.off_on(lab.host("gw1")) is None
    print(master.goes_off("apply", "--yes", "--power-off", "-m", "evening"))
    off = master.off_on(lab.host("gw1"))
    assert off is not None
    assert off.why == "evening"


def test_what_is_queued_is_left_to_the_newest_tree(master: Master, lab: Lab, tmp_path: Path) -> None:
    """Somebody applied from elsewhere while the master slept: it does nothing of its queue, and says why. Nodes go off
    when nothing runs on them."""
    laptop = master.laptop(tmp_path / "laptop")
    laptop.app("web", replicas=1, more=f'{ROUTED}<env name="A">1</env>')
    laptop.k4t("apply", "--yes")
    master.k4t("intent", "apply", "--here")
    refused = master.k4t("wake", status=4).stderr
    assert "what is queued is left to the newest working copy: serial 1 is behind 2" in refused
    assert len(json.loads(master.k4t("intent", "list", "-o", "json").stdout)["queued"]) == 1

    used, free = sorted(lab.nodes, key=lambda host: not containers(host))
    for host in (used, free):
        laptop.node(host, inside=f'<power off="touch {tmp_path / host.name}"/>')
    laptop.k4t("node", "cordon", used.name, "--no-apply")
    assert "it still has prod.web.0" in laptop.k4t("power", "off", used.name, "--yes", status=4).stderr
    assert "it is active" in laptop.k4t("power", "off", free.name, "--yes", status=4).stderr
    laptop.k4t("node", "drain", free.name, "--no-apply")
    assert "was switched off" in laptop.k4t("power", "off", free.name, "--yes").stdout
    assert [(tmp_path / host.name).exists() for host in (used, free)] == [False, True]


@contextmanager
def held(path: Path) -> Iterator[None]:
    """As a program on the master holds it: the same file, the same kernel."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
