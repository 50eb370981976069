"""The master's disk is gone: with an SSH key and the recovery kit, a blank machine is the master a minute later."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from k4t.master.backup import keys, pack, snapshot
from k4t.model.snapshot import Lineage
from k4t.tree.create import create
from k4t.tree.read import read_tree
from tests.e2e.site import Site, containers, fetch
from tests.lab import Host, Lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
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
        self.lab, self.directory, self.started = lab, directory, []
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
            capture_output=True, text=True, timeout=300, check=False,
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
    assert "replaced" in master.k4t("rollback", "web", "--yes", status=4).stderr
    copied = master.k4t("backup", status=4)
    assert "replaced" in copied.stdout + copied.stderr
    # Work goes on here, and the copies too; the old one may take it back on purpose.
    blank.app("api", replicas=1, port=8081)
    assert blank.k4t("apply", "--yes").stderr.count("warning") == 0
    master.app("api", replicas=1, port=8081)
    master.k4t("apply", "--yes", "--allow", "rewind")
    assert "replaced" in blank.k4t("plan", status=4).stdout


def take_back(master: Machine) -> None:
    """The first master is the master again, and its copies are the newest."""
    master.k4t("apply", "--yes", "--allow", "rewind")


def put(host: Host, path: str, data: bytes) -> None:
    host.exec(["sh", "-c", f"base64 -d > {path}"], input=base64.b64encode(data).decode())


def forged(directory: Path, id: str, monkeypatch: pytest.MonkeyPatch) -> snapshot.Snapshot:
    """What a thief can make who knows everything but the cluster's key: signed and certified by keys of his own."""
    create(directory, "prod")
    path = directory / "cluster.xml"
    path.write_text(re.sub('id="[a-z0-9]+"', f'id="{id}"', path.read_text()))
    monkeypatch.setenv("K4T_KEYS", str(directory.parent / "keys"))
    made, _ = keys.ensure(directory, read_tree(directory), "2027-01-01T00:00:00Z")
    return snapshot.make(
        pack.picture(directory).archive, made, lineage=Lineage(9, "f" * 16), serial=99, sequence=9, previous="",
        time="2027-01-01T00:00:00Z", encrypted=True,
    )  # fmt: skip


def test_a_host_that_was_broken_into_and_is_asked_first_fools_nobody(
    master: Machine, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its newest copy is altered; beside it lie a forged one of a later serial, one of another cluster, and an older
    one under a newer name. The good one comes from another host, and what was passed over is named."""
    take_back(master)
    host, copies = lab.host("n1"), f"/var/lib/k4t/{master.id}/copies"
    forgery = forged(tmp_path / "a" / "db", master.id, monkeypatch)
    foreign = forged(tmp_path / "b" / "db", "othercluster", monkeypatch)
    script = (
        f"cd {copies}; set -- *.snapshot; cp $1 0009-000098-0000009-20270101T000000Z.snapshot;"
        " eval last=\\${$#}; dd if=/dev/zero of=$last bs=1 seek=4000 count=8 conv=notrunc 2>/dev/null; echo $last"
    )
    last = host.exec(["sh", "-c", script]).stdout.strip()
    put(host, f"{copies}/{forgery.name}", forgery.data)
    put(host, f"{copies}/0009-000097-0000009-20270101T000000Z.snapshot", foreign.data)
    blank = lost(master, lab, tmp_path)
    done = blank.json("recover", "--kit", str(blank.directory / "kit.txt"), "--from", f"root@{host.address}")
    print(json.dumps(done, indent=1))
    assert (done["copy"]["from"], done["copy"]["serial"]) == ("n2", int(last.split("-")[1]))
    said = "\n".join(done["refused"])
    for word in ("not certified", "othercluster", "on n1: its contents are not those that were signed"):
        assert word in said, (word, said)
    assert blank.k4t("plan", "--detailed-exitcode").stdout.startswith("Nothing to do")
    host.exec(["sh", "-c", f"rm {copies}/0009-*"])


def test_a_host_with_another_key_is_not_talked_to_and_one_that_is_off_is_named(
    master: Machine, lab: Lab, tmp_path: Path
) -> None:
    """Neither is needed. Where nobody else is left to ask: 77, with the fingerprint and the option to trust it."""
    take_back(master)
    host, vault = lab.host("n1"), lab.host("vault")
    host.exec(["sh", "-c", "mkdir /root/keys; cp -a /etc/ssh/ssh_host_* /root/keys/"])
    key = host.new_host_key()
    vault.power_off()
    try:
        blank = lost(master, lab, tmp_path)
        kit = blank.directory / "kit.txt"
        lone = re.sub(r"# host: (n2|gw1|root@\S+) .*\n(#  .*\n)?", "", kit.read_text())
        (tmp_path / "lone.txt").write_text(lone)
        only = blank.k4t("recover", "--kit", str(tmp_path / "lone.txt"), status=77).stderr
        print(only)
        presented = re.findall(r"SHA256:\S{43}", only)[0]
        assert f"--trust {presented}" in only
        assert not blank.db.exists()
        told = subprocess.run(["ssh-keygen", "-lf", "-"], input=key, capture_output=True, text=True, check=True).stdout
        assert presented in told
        done = recovered(blank)
        print(done.stdout)
        assert "n1 can't be asked: the kit knows no host with the key" in done.stdout
        assert re.search(r"root@\S+ can't be asked: .* does not answer", done.stdout)
        assert blank.json("plan", status=77)["changes"] == 0
    finally:
        host.exec(["sh", "-c", "cp -a /root/keys/* /etc/ssh/; rm -r /root/keys; kill -HUP $(cat /run/sshd.pid)"])
        host.wait_ready()
        vault.power_on()


def test_a_copy_that_is_older_than_what_is_live_is_refused(master: Machine, lab: Lab, tmp_path: Path) -> None:
    """The last apply was copied nowhere: what is missing is said with who, when and why. --rollback takes it."""
    take_back(master)
    master.app("api", replicas=1, port=8082)
    master.k4t("apply", "--yes", "-m", "another port")
    for host in (*lab.nodes, lab.host("vault")):
        host.exec(["rm", newest(host, master.id)])
    blank = lost(master, lab, tmp_path)
    said = recovered(blank, status=4).stderr
    print(said)
    serial = master.json("history")["revisions"][0]["serial"]
    assert f"older than what is live: serial {serial}" in said
    assert re.search(rf"not in it: serial {serial} \(api\) by \S+ at \S+: another port", said)
    assert not blank.db.exists()
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".k4t")]
    assert "k4t plan" in recovered(blank, "--rollback").stdout
    assert {step["app"] for step in blank.json("plan")["steps"]} == {"api"}


def test_the_second_master_takes_over_and_the_first_one_is_fenced(master: Machine, lab: Lab) -> None:
    """docs/second-master.md as it stands, on the host that keeps the copies."""
    take_back(master)
    vault = lab.host("vault")
    put(vault, "/root/kit.txt", (master.directory / "kit.txt").read_bytes())
    put(vault, "/root/.ssh/id_ed25519", lab.key.read_bytes())
    program = f'#!/bin/sh\nPYTHONPATH={DOCS.parent} exec {sys.executable} -m k4t.cli "$@"\n'
    put(vault, "/usr/local/bin/k4t", program.encode())
    typed = commands("second-master.md").replace("CLUSTERID", master.id)
    script = f"cd /root; chmod 600 kit.txt .ssh/id_ed25519; chmod 755 /usr/local/bin/k4t; {typed}"
    done = vault.exec(["sh", "-euc", script], timeout_s=120)
    print(done.stdout, done.stderr)
    assert "Nothing to do" in done.stdout
    refused = master.k4t("apply", "--yes", status=4).stderr
    print(refused)
    replaced = re.compile(r"this working copy was replaced: root@vault took over at \S+ \(serial \d+\)")
    assert replaced.search(refused)
    assert replaced.search(master.k4t("gateway", "sync", "--yes", status=4).stderr)
    edited = "k4t --db db scale web 3 --no-apply; k4t --db db backup"
    vault.exec(["sh", "-euc", f"cd /root; {edited}"], timeout_s=120)
    master.k4t("restore", "--from", f"root@{vault.address}", "--yes")
    assert 'replicas="3"' in (master.db / "apps/web/app.xml").read_text()
    again = vault.exec(["sh", "-c", "cd /root; k4t --db db plan"], check=False)
    assert again.returncode == 4, again.stderr
    master.k4t("scale", "web", "2", "--no-apply")


def test_a_copy_from_the_middle_of_a_publication(master: Machine, lab: Lab, tmp_path: Path) -> None:
    """The master died between the decision and the commit, and a copy was made after that: the log in it speaks for
    nobody, what is live counts, and the update is finished from the blank machine."""
    take_back(master)
    master.app(replicas=2, more='<env name="PASSWORD" secret="password"/><env name="X">3</env>'
               '<route domain="web.k4t.lab"/>')  # fmt: skip
    killed = master.start("apply", "--yes", extra={"K4T_FAILPOINT": "after:decide"})
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL
    master.k4t("backup", "--wait")
    blank = lost(master, lab, tmp_path)
    (blank.home / ".config" / "k4t").mkdir(parents=True)
    shutil.copy(master.home / ".config" / "k4t" / "identity", blank.home / ".config" / "k4t" / "identity")
    recovered(blank, "--wait")
    assert (blank.db / ".k4t" / "redo.log").read_bytes().count(b'"kind":"begin"')
    done = blank.k4t("apply", "--yes", "--wait")
    print(done.stdout, done.stderr)
    assert blank.json("plan")["changes"] == 0
    assert not blank.json("status")["transactions"]
    assert fetch(f"http://{lab.host('gw1').address}/", "web.k4t.lab")[0] == 200


def test_daily_work_does_not_need_what_is_on_the_kit(master: Machine, lab: Lab, tmp_path: Path) -> None:
    """`kit --forget` takes it off the machine; copies are made as before, and the page opens them, also from outside,
    through a jump host that the kit knows. A colleague's machine makes copies when the page has certified it."""
    take_back(master)
    master.k4t("kit", "--forget", "--yes")
    assert not list(master.home.rglob("recovery-identity"))
    master.app("api", replicas=1, port=8083)
    master.k4t("apply", "--yes")
    master.k4t("backup")
    assert "AGE-SECRET" not in master.k4t("kit").stdout
    colleague = Machine(lab, tmp_path / "colleague")
    shutil.copytree(master.db, colleague.db, ignore=shutil.ignore_patterns(".k4t"))
    assert "k4t kit certify --kit FILE" in colleague.k4t("backup", status=1).stderr
    colleague.k4t("kit", "certify", "--kit", str(master.directory / "kit.txt"))
    colleague.k4t("backup")
    blank = lost(master, lab, tmp_path)
    said = recovered(blank, "--jump", f"root@{lab.host('gw1').address}").stdout
    assert "opens the tree's secrets" in said
    assert f'<ssh jump="root@{lab.host("gw1").address}"/>' in said
    assert blank.k4t("plan", "--detailed-exitcode").stdout.startswith("Nothing to do")


PLACES = ["restore:made", "restore:synced", "recover:certified", "restore:swapped", "recover:placed", "recover:told"]


@pytest.mark.crash
@pytest.mark.parametrize("place", PLACES if os.environ.get("K4T_FULL") else ["recover:placed"])
def test_killed_anywhere_it_is_run_again_or_was_done(master: Machine, lab: Lab, tmp_path: Path, place: str) -> None:
    """Never half a tree; the next apply is the master's, and the old master's is refused."""
    take_back(master)
    blank = lost(master, lab, tmp_path)
    kit = str(blank.directory / "kit.txt")
    killed = blank.start("recover", "--kit", kit, extra={"K4T_FAILPOINT": place})
    said = killed.communicate(timeout=60)[1]
    assert killed.returncode == -signal.SIGKILL, said
    if not blank.db.exists():
        blank.k4t("recover", "--kit", kit)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".k4t")]
    assert blank.json("plan")["changes"] == 0
    blank.k4t("apply", "--yes")
    assert "replaced" in master.k4t("apply", "--yes", status=4).stderr
