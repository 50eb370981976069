"""Recovery on a bare machine: 4 nodes that run, and 100 hosts with 1,000 apps. python -m tests.bench --only recovery.

The 100 hosts are real sshds, each in a mount namespace of its own (so that each has its own /var/lib/k4t), all on this
machine and without Docker: what recovery asks of a host is a shell. What is measured is `k4t recover` as a whole
process: copies found and verified, one fetched and opened, the tree written, all hosts locked, asked and told.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from k4t.master.history import WorkingCopy
from k4t.master.planning import serials
from k4t.master.revisions import applied
from k4t.model.state import Head
from k4t.remote import head as remote_head
from k4t.tree.create import create
from k4t.tree.files import read_files
from k4t.tree.read import read_tree
from tests.bench.figures import Row, within
from tests.bench.measure import Cost, run
from tests.bench.scene import Scene as Running
from tests.lab import Lab
from tests.remote.sshd import new_key

PORT = 2222
MOST_S = 30.0
START_S = 60.0
APP = """\
<app replicas="2">
  <image>registry.example.com/team/app{number}:1.{version}</image>
  <port name="http" container="8080"/>
  <env name="LEVEL">info</env><env name="NUMBER">{number}</env>
  <file source="settings.conf" target="/etc/app/settings.conf"/>
  <health><http port="http" path="/healthy"/></health>
  <route port="http" domain="app{number}.example.com"/>
</app>
"""
CONFIG = """\
ListenAddress {address}:{port}
HostKey {key}
AuthorizedKeysFile {authorized}
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
MaxStartups 100
"""
START = """\
mount -t tmpfs k4t /root && mount -t tmpfs k4t /var/lib && mkdir -p {state} && cp {head} {state}/head \\
  && exec /usr/sbin/sshd -D -e -f {config}
"""
"""What root's own shell does when it starts is none of ours."""


class Scene:
    """A tree that was applied `revisions` times, on hosts that know of it. `home` is the master's, `blank` another."""

    def __init__(self, directory: Path, *, hosts: int, apps: int, revisions: int) -> None:
        self.directory, self.db = directory, directory / "db"
        self.home, self.blank = directory / "home", directory / "blank"
        self.log = directory / "log"
        for home in (self.home, self.blank):
            (home / ".ssh").mkdir(parents=True, mode=0o700)
        new_key(self.home / ".ssh" / "id_ed25519")
        shutil.copy(self.home / ".ssh" / "id_ed25519", self.blank / ".ssh" / "id_ed25519")
        self.addresses = [f"127.77.0.{number}" for number in range(1, hosts + 1)]
        create(self.db, "big")
        self._write(apps)
        self.id = read_tree(self.db).cluster.id
        self._apply(apps, revisions)

    def _write(self, apps: int) -> None:
        cluster = self.db / "cluster.xml"
        more = '  <backup node="n1" every="1m"/>\n  <backup node="n2" every="1m"/>\n</cluster>'
        cluster.write_text(cluster.read_text().replace("</cluster>", more))
        for number, address in enumerate(self.addresses, start=1):
            text = f'<node address="10.9.0.{number}"><ssh host="{address}" port="{PORT}"/></node>\n'
            (self.db / "nodes" / f"n{number}.xml").write_text(text)
        for number in range(apps):
            directory = self.db / "apps" / f"app{number}"
            directory.mkdir()
            (directory / "settings.conf").write_text(f"number = {number}\n" * 40)
            self._app(number, 0)

    def _app(self, number: int, version: int) -> None:
        (self.db / "apps" / f"app{number}" / "app.xml").write_text(APP.format(number=number, version=version))

    def _apply(self, apps: int, revisions: int) -> None:
        """As `k4t apply` leaves it: the head, and what the working copy remembers. Each revision is about ten apps."""
        copy, head = WorkingCopy(self.db), Head(self.id)
        copy.prepare()
        for serial in range(1, revisions + 1):
            changed = {f"app{number % apps}" for number in range(10 * serial, 10 * serial + 10)}
            for name in changed:
                self._app(int(name[3:]), serial)
            tree = read_files(self.db)
            about = {name: sha for name, sha in tree.app_sha256().items() if name in changed or serial == 1}
            head = serials.advance(
                head, cluster=self.id, serial=serial, tree=tree.sha256(), apps=about,
                digests={f"registry.example.com/team/{name}:1.{serial}": f"sha256:{'0' * 64}" for name in about},
                who="anna@laptop", at=f"2026-11-20T12:{serial % 60:02}:00Z", message=f"revision {serial}",
            )  # fmt: skip
            copy.remember(serial, {"serial": serial, "tree": tree.sha256(), "apps": about}, applied(head))
            copy.audit({"at": head.at, "who": head.who, "message": "", "serial": serial, "result": "done"})
        (self.directory / "head").write_bytes(remote_head.encode(head))

    @contextmanager
    def hosts(self) -> Iterator[None]:
        """All of them, until they answer; ended with everything they started."""
        with ExitStack() as stack:
            for address in self.addresses:
                process = subprocess.Popen(
                    ["unshare", "-m", "-p", "-f", "--mount-proc", "--propagation", "private", "--kill-child",
                     "sh", "-c", self._script(address)],
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                stack.callback(_end, process)
            self._enrol()
            yield

    def _script(self, address: str) -> str:
        key = new_key(self.directory / f"host-{address}")
        config = self.directory / f"sshd-{address}"
        authorized = self.home / ".ssh" / "id_ed25519.pub"
        config.write_text(CONFIG.format(address=address, port=PORT, key=key, authorized=authorized))
        state = f"/var/lib/k4t/{self.id}"
        return START.format(state=state, head=self.directory / "head", config=config)

    def _enrol(self) -> None:
        deadline = time.monotonic() + START_S
        while self.k4t("trust", "--yes", statuses=(0, 69)) is None or not (self.db / "known_hosts").stat().st_size:
            if time.monotonic() > deadline:
                raise TimeoutError(self.log.read_text()[-2000:])

    def k4t(self, *words: str, blank: bool = False, statuses: tuple[int, ...] = (0,)) -> Cost:
        home = self.blank if blank else self.home
        environment = {"HOME": str(home), "PATH": os.environ["PATH"], "NO_COLOR": "1", "K4T_DB": str(self.db)}
        return _k4t(self.log, environment, *words, statuses=statuses)

    def recover(self, number: int) -> Cost:
        """Onto a blank home, each time a new one."""
        shutil.rmtree(self.blank / ".config", ignore_errors=True)
        kit, db = str(self.directory / "kit.txt"), str(self.directory / f"recovered{number}")
        return self.k4t("recover", "--kit", kit, "--db", db, blank=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(30)


def measure(directory: Path, *, times: int) -> list[Row]:
    directory.mkdir()
    return [four(directory / "four", times=times), many(directory / "many", times=times)]


def four(directory: Path, *, times: int) -> Row:
    """4 real nodes with 10 apps of 4 replicas; what runs is taken over, so that nothing is left to do."""
    directory.mkdir()
    with Lab(name="bench", nodes=4, registry=True) as lab:
        lab.pull()
        scene = Running(lab, directory)
        cluster = scene.site.db / "cluster.xml"
        more = '  <backup node="n1" every="1m"/>\n  <backup node="n2" every="1m"/>\n</cluster>'
        cluster.write_text(cluster.read_text().replace("</cluster>", more))
        scene.write()
        kit = str(directory / "kit.txt")
        for words in (("trust", "--yes"), ("kit", "--write", kit), ("apply", "--yes")):
            scene.k4t(*words)
        costs = []
        for number in range(times):
            (directory / f"bare{number}" / ".ssh").mkdir(parents=True)
            environment = scene.site.environment({"HOME": str(directory / f"bare{number}")})
            environment["K4T_DB"] = str(directory / f"db{number}")
            costs.append(_k4t(scene.log, environment, "recover", "--kit", kit, "--key", str(lab.key)))
            _k4t(scene.log, environment, "plan", "--detailed-exitcode")
    return within("recover: 4 nodes, 40 containers", costs, [], MOST_S)


def _k4t(log: Path, environment: dict[str, str], *words: str, statuses: tuple[int, ...] = (0,)) -> Cost:
    script = str(Path(sys.executable).with_name("k4t"))
    return run([script, *words], env=environment, log=log, statuses=statuses)


def many(directory: Path, *, times: int, hosts: int = 100, apps: int = 1000, revisions: int = 100) -> Row:
    scene = Scene(directory, hosts=hosts, apps=apps, revisions=revisions)
    with scene.hosts():
        scene.k4t("kit", "--write", str(directory / "kit.txt"))
        scene.k4t("backup")
        costs = [scene.recover(number) for number in range(times)]
    return within(f"recover: {hosts} hosts, {apps:,} apps, {revisions} revisions", costs, [], MOST_S)
