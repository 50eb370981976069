"""The master's disk is gone: with an SSH key and the recovery kit, a blank machine is the master a minute later."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site, containers, fetch
from tests.lab import Host, Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
DOCS = Path(__file__).parents[2] / "docs"
CLUSTER = """\
<cluster name="prod" id="{id}" format="1">
  <ssh user="root"/>
  <backup node="n1" every="1m"/><backup node="n2" every="1m"/><backup host="root@{vault}" every="1m"/>
</cluster>
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two nodes, a gateway, and a host that keeps copies."""
    with Lab(name=f"recover-{os.getpid()}", nodes=2, gateways=1, registry=True, extra=("vault",)) as up:
        yield up


class Traffic(threading.Thread):
    """Requests through the gateway, one after the other, until it is told to end."""

    def __init__(self, gateway: Host) -> None:
        super().__init__(daemon=True)
        self.url = f"http://{gateway.address}/"
        self.count, self.lost = 0, list[str]()
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.02):
            try:
                status, _ = fetch(self.url, "web.k4t.lab", timeout_s=10)
            except OSError as error:
                status = str(error)  # type: ignore[assignment]
            self.count += 1
            if status != 200:
                self.lost.append(str(status))

    def end(self) -> None:
        self._ended.set()
        self.join(30)


class Machine(Site):
    """A machine with k4t on it, and an SSH key that the hosts accept; nothing else."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab, self.directory = lab, directory
        self.db, self.home = directory / "db", directory / "home"
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        shutil.copy(lab.key, self.home / ".ssh" / "id_ed25519")

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """As an operator would type it, in this machine's directory."""
        bin = self.directory / "bin"
        bin.mkdir(exist_ok=True)
        program = bin / "k4t"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m k4t.cli "$@"\n')
        program.chmod(0o755)
        environment = {key: text for key, text in self.environment().items() if key != "K4T_DB"}
        environment |= {"PATH": f"{bin}:{environment['PATH']}", "PYTHONPATH": str(DOCS.parent)}
        return subprocess.run(
            ["sh", "-euc", script], cwd=self.directory, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def master(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The first master: its tree came from `k4t init`, its hosts from `k4t trust`, its kit was printed after that."""
    made = Machine(lab, tmp_path_factory.mktemp("master"))
    made.k4t("init", str(made.db))
    made.id = re.findall('id="([a-z0-9]+)"', (made.db / "cluster.xml").read_text())[0]
    made.write("cluster.xml", CLUSTER.format(id=made.id, vault=lab.host("vault").address))
    for node in lab.nodes:
        made.node(node)
    made.gateway(lab.host("gw1"))
    made.k4t("trust", "--yes")
    made.k4t("gateway", "install")
    made.app(replicas=2, more='<env name="PASSWORD" secret="password"/>'
             '<route domain="web.k4t.lab"/>')  # fmt: skip
    given = subprocess.run(
        made.argv("secret", "set", "password"), env=made.environment(), input="geheim\n", capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert not given.returncode, given.stderr
    made.k4t("kit", "--write", str(made.directory / "kit.txt"))
    made.k4t("apply", "--yes", "-m", "begun")
    return made


def lost(master: Machine, lab: Lab, directory: Path) -> Machine:
    """All that is left of the master is the kit: here is a blank machine with it. (The old one's files stay where no
    command looks, to show that it is fenced.)"""
    blank = Machine(lab, directory)
    blank.id = master.id
    shutil.copy(master.directory / "kit.txt", blank.directory / "kit.txt")
    return blank


def commands(page: str) -> str:
    """What a page tells to type."""
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL))


def recovered(machine: Machine, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    kit = str(machine.directory / "kit.txt")
    return machine.k4t("recover", "--kit", kit, *words, status=status)


def newest(host: Host, id: str) -> str:
    return f"/var/lib/k4t/{id}/copies/" + host.exec(["ls", f"/var/lib/k4t/{id}/copies"]).stdout.split()[-1]


def test_the_page_for_the_night_as_it_stands(master: Machine, lab: Lab, tmp_path: Path) -> None:
    """The master's directory and home are gone; what docs/recovery.md says is typed on a blank machine. Every request
    is answered meanwhile, `plan` is empty, the secrets open, and the old master is told why it may not go on."""
    master.app(replicas=2, more='<env name="PASSWORD" secret="password"/><env name="X">2</env>'
               '<route domain="web.k4t.lab"/>')  # fmt: skip
    master.k4t("apply", "--yes", "-m", "two")
    before = {name for host in lab.nodes for name in containers(host)}
    blank = lost(master, lab, tmp_path)
    traffic = Traffic(lab.host("gw1"))
    traffic.start()
    began = time.monotonic()
    done = blank.shell(commands("recovery.md"))
    took_s = time.monotonic() - began
    traffic.end()
    print(done.stdout, done.stderr, f"{took_s:.1f} s, {traffic.count} requests", sep="\n")
    assert not done.returncode, done.stderr
    assert "Nothing to do" in done.stdout
    assert "fits the tree" in done.stdout
    assert traffic.count > 20
    assert not traffic.lost
    assert {name for host in lab.nodes for name in containers(host)} == before
    assert blank.json("history")["revisions"][0]["message"] == "two"
    assert (blank.db / ".k4t").stat().st_mode & 0o077 == 0
    # The old one comes back.
    said = master.k4t("plan", status=4)
    assert re.search(r"this working copy was replaced: \S+ took over at \S+Z \(serial 2\)", said.stdout + said.stderr)
    assert "replaced" in master.k4t("apply", "--yes", status=4).stderr
    copied = master.k4t("backup", status=4)
    assert "replaced" in copied.stdout + copied.stderr
    # Work goes on here, and the copies too; the old one may take it back on purpose.
    blank.app("api", replicas=1, port=8081)
    assert blank.k4t("apply", "--yes").stderr.count("warning") == 0
    master.app("api", replicas=1, port=8081)
    master.k4t("apply", "--yes", "--allow", "rewind")
    assert "replaced" in blank.k4t("plan", status=4).stdout
