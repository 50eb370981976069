"""The monitor's key with real sshds and real vendors: it takes a node's endpoints out everywhere at once, gives them
back, rouses a master that is on, and can do nothing else. The monitor is this process; the master a host of the lab.
The tests follow on one another."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import dns.message
import dns.query
import pytest

from k4t import wiring
from k4t.errors import Partial
from k4t.master.power import intents
from k4t.monitor.acting import keys, rouse, withdraw
from k4t.monitor.check import Looked, check
from k4t.monitor.history import NONE
from k4t.remote.registrar import RegistrarParticipant
from tests.e2e.site import Site, fetch
from tests.lab import Host, Lab
from tests.lab.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
VENDORS = {"gw1": "envoy", "gw2": "haproxy", "gw3": "nginx"}
MASTER = "k4t-master"
CLUSTER = """\
<cluster name="prod" id="{id}" format="1">
  <ssh user="root" key="{key}" connect-timeout="3s"/>
  <power host="{master}" on="touch {on}" off="false"/>
</cluster>
"""
DEPLOY = """\
useradd -m -s /bin/sh deploy && cd /home/deploy && mkdir -m 700 .ssh && cat >.ssh/authorized_keys
chown -R deploy: .ssh; mkdir -p /etc/sudoers.d; echo 'deploy ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/deploy
"""
"""The user that logs in at gw3, and needs sudo for everything."""
ROUTED = '<route domain="web.k4t.lab"/><record name="web"/><health interval="1s"><http path="/"/></health>'


class Play:
    """`site` is typed on the master; `look`, and what acts, are this process's."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.master = lab, lab.host(MASTER)
        self.edges = [lab.host(name) for name in VENDORS]
        self.site = Site(lab, lab.directory / "play")
        self.called = self.site.directory / "called"
        self.site.write(
            "cluster.xml",
            CLUSTER.format(id=self.site.id, key=lab.key, master=self.master.address, on=self.called),
        )
        for host in lab.nodes:
            self.site.node(host)
        self.edges[2].exec(["sh", "-c", DEPLOY], input=lab.key.with_suffix(".pub").read_text())
        for name, driver in VENDORS.items():
            inside = '<ssh user="deploy" sudo="true"/>' if name == "gw3" else ""
            head = f'<gateway driver="{driver}" address="{lab.host(name).address}" http="80">'
            self.site.write(f"gateways/{name}.xml", f"{head}{inside}</gateway>\n")
        self.site.dns(self.edges[0])
        self.site.app("web", replicas=2, more=ROUTED)
        for words in (["gateway", "install"], ["dns", "install"], ["apply", "--yes"], ["kit", "--write", self.kit]):
            self.k4t(*words)

    @property
    def kit(self) -> str:
        return str(self.site.directory / "kit.txt")

    @property
    def id(self) -> str:
        return self.site.id

    def k4t(self, *words: str, status: int | None = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """On the master."""
        found = {**self.site.environment(), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        keep = [f"{key}={value}" for key, value in found.items() if key not in ("PATH", "TMPDIR", "LANG")]
        done = self.master.exec(["env", *keep, *self.site.argv(*words)], check=False, timeout_s=120, input=stdin)
        assert status in (None, done.returncode), f"k4t {' '.join(words)}: {done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def here(self, *words: str, status: int = 0) -> str:
        """On the monitor's machine."""
        own = {name: os.environ[name] for name in ("K4T_KEYS", "XDG_STATE_HOME")}
        done = subprocess.run(
            self.site.argv(*words), env=self.site.environment(own), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def act(self, verb: str, node: str = "n2") -> str:
        """With a fresh look, as a round has it."""
        tree = wiring.read(self.site.db)
        with wiring.watched(tree, self.site.db, [self.lab.known_hosts]) as fleet:
            looked: Looked = check(fleet, NONE, at_s=time.time())
            began_s = time.monotonic()
            try:
                if verb == "withdraw":
                    return withdraw.withdraw(fleet, looked, node, "node n2: host-off,\nfor 3 checks")
                return withdraw.give_back(fleet, looked, node)
            finally:
                print(f"{verb}: {time.monotonic() - began_s:.2f} s")

    def look(self) -> Looked:
        """In which the master is asked by the restricted key alone."""
        tree = wiring.read(self.site.db)
        with wiring.watched(tree, self.site.db, [self.lab.known_hosts]) as fleet:
            looked = check(fleet, NONE, at_s=time.time())
            assert not [key for key in fleet._connections if key[0] == self.master.address]
            return looked

    def rouse(self, *actions: str) -> rouse.Roused:
        tree = wiring.read(self.site.db)
        wanted = [
            intents.made(
                action, id=secrets.token_hex(8), cluster=self.id, who="root@monitor", at=datetime.now(UTC), note="why"
            )
            for action in actions
        ]
        with wiring.watched(tree, self.site.db, [self.lab.known_hosts]) as fleet:
            return rouse.rouse(fleet, wanted, time.time())

    def pending(self) -> tuple[str, ...]:
        with wiring.watched(wiring.read(self.site.db), self.site.db, [self.lab.known_hosts]) as fleet:
            return rouse.pending(fleet, time.time())

    def served(self) -> dict[str, int]:
        """How many replicas answer behind each gateway, and how many addresses DNS names."""
        found = {host.name: len(pages(host)) for host in self.edges}
        query = dns.message.make_query("web.k4t.lab", "A")
        answer = dns.query.udp(query, self.edges[0].address, timeout=10)
        return {**found, "names": len({item.address for group in answer.answer for item in group})}

    def soon(self, count: int) -> bool:
        return wait_until(lambda: set(self.served().values()) == {count}, timeout_s=10)

    def ssh(
        self, host: Host, words: Sequence[str] = (), *, options: Sequence[str] = (), program: str = "ssh"
    ) -> subprocess.CompletedProcess[str]:
        """OpenSSH's own client with the monitor's key and no other."""
        key = keys.private_file(self.id)
        common = ["-F", "none", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
        common += ["-o", f"UserKnownHostsFile={self.lab.known_hosts}", *options]
        place = [f"root@{host.address}"] if program == "ssh" else []
        return subprocess.run(
            [program, *common, *place, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
            check=False,
        )  # fmt: skip


def pages(host: Host) -> set[str]:
    """Who answers at the gateway, of ten requests."""
    return {fetch(f"http://{host.address}/", "web.k4t.lab")[1].split()[0] for _ in range(10)}


def file_on(name: str) -> str:
    return f"{'/home/deploy' if name == 'gw3' else '/root'}/.ssh/authorized_keys"


def authorized(host: Host) -> list[str]:
    return host.exec(["cat", file_on(host.name)]).stdout.splitlines()


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    own = tmp_path_factory.mktemp("monitor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("K4T_KEYS", str(own / "keys"))
        patch.setenv("XDG_STATE_HOME", str(own / "state"))
        with Lab(name=f"keys-{os.getpid()}", nodes=2, gateways=3, registry=True, extra=(MASTER,)) as lab:
            yield Play(lab)


def test_the_key_is_made_and_let_in(play: Play) -> None:
    """One line on each host, the master's own included; again, nothing is to do; a new key takes the old one's place.
    What is no key, and a host without a registrar, is refused."""
    line = play.here("monitor", "key")
    assert re.fullmatch(rf"ssh-ed25519 [A-Za-z0-9+/]{{68}} k4t-monitor-{play.id}\n", line)
    assert play.here("monitor", "key") == line
    (play.site.directory / "monitor.pub").write_text(line)
    before = {host.name: authorized(host) for host in [*play.edges, play.master]}
    older = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "B" * 43
    assert "no public key of a monitor" in play.k4t("monitor", "authorize", "-", stdin="hm", status=64).stderr
    play.k4t("monitor", "authorize", "-", "--yes", stdin=f"{older} me@here")
    said = play.k4t("monitor", "authorize", str(play.site.directory / "monitor.pub"), "--yes").stdout
    assert sorted(said.splitlines()) == [
        f"{name}: wrote {file_on(name)}" for name in ("gw1", "gw2", "gw3", "this machine")
    ]
    again = play.k4t("monitor", "authorize", str(play.site.directory / "monitor.pub"), "--yes").stdout
    assert again.count("nothing to do") == 4
    for host in [*play.edges, play.master]:
        *old, new = authorized(host)
        assert old == before[host.name]
        assert ("sudo -n --" in new) == (host.name == "gw3")
        assert new.startswith('restrict,command="')
        assert new.endswith(line.strip())
    assert "monitor authorize: SHA256:" in (play.site.db / ".k4t/audit.jsonl").read_text()


def test_what_it_may_is_tried_beforehand(play: Play) -> None:
    """At every member, and of the master; what is missing is named with its remedy. Nothing is changed by it."""
    before = play.served()
    said = play.here("monitor", "key", "--check", status=1)
    assert [line[:3] for line in said.splitlines()] == ["yes"] * 4 + ["no ", "yes"], said
    assert "k4t kit certify --kit FILE --uses intents" in said
    play.here("kit", "certify", "--kit", play.kit, "--uses", "intents")
    path = file_on("gw3")
    play.edges[2].exec(["sed", "-i.kept", "/restrict/d", path])
    try:
        said = play.here("monitor", "key", "--check", status=77)
    finally:
        play.edges[2].exec(["mv", f"{path}.kept", path])
    assert said.count("no ") == 1, said
    assert "withdraw endpoints at gateway gw3: the login of deploy" in said
    assert play.here("monitor", "key", "--check").count("yes") == 6
    assert play.served() == before


def test_a_node_is_taken_out_everywhere_and_given_back(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Envoy, HAProxy, nginx and dnsmasq, by the restricted key; what was added by hand stays. A person's withdrawal is
    not given back. A gateway that is away is named, the others are done; by and by it follows."""
    ordinary = RegistrarParticipant.several
    monkeypatch.setattr(RegistrarParticipant, "several", None)
    edge = play.edges[0]
    entry = ["--driver", "envoy", "add", "--cname", "other", "--ip", "10.9.9.9", "--port", "80"]
    edge.exec(["k4t-registrar", *entry])
    said = play.act("withdraw")
    print(said)
    assert play.served() == dict.fromkeys([*VENDORS, "names"], 1), said
    assert play.act("withdraw") == "endpoints of node n2: nothing to withdraw"
    listed = edge.exec(["k4t-registrar", "--driver", "envoy", "list"]).stdout
    assert "by k4t-monitor: node n2: host-off, for 3 checks" in listed
    assert re.search(r"manual +other +10\.9\.9\.9:80", listed)
    assert "keeps those of web" in play.act("withdraw", "n1")  # nothing else would be left
    play.edges[1].cut()
    try:
        with pytest.raises(Partial, match="gateway gw2 is away") as partial:
            play.act("give-back")
    finally:
        play.edges[1].restore()
    assert "1 given back at gateway gw1" in partial.value.message
    assert play.act("give-back") == "endpoints of node n2: 1 given back at gateway gw2"
    assert play.soon(2)

    monkeypatch.setattr(RegistrarParticipant, "several", ordinary)
    path = keys.private_file(play.id)
    assert path is not None
    path.rename(path.with_suffix(".away"))
    try:
        play.act("withdraw")
        assert play.soon(1)
    finally:
        path.with_suffix(".away").rename(path)
    address = play.lab.host("n2").address
    by_hand = ["--driver", "envoy", "restore", "--cname", "web", "--ip", address, "--port", "8080"]
    edge.exec(["k4t-registrar", *by_hand])
    edge.exec(["k4t-registrar", *[word.replace("restore", "withdraw") for word in by_hand], "--why", "mine"])
    play.act("give-back")
    assert wait_until(lambda: play.served() == {"gw1": 1, "gw2": 2, "gw3": 2, "names": 2}, timeout_s=10)
    edge.exec(["k4t-registrar", *by_hand])
    edge.exec(["k4t-registrar", *[word.replace("add", "remove") for word in entry]])
    assert play.soon(2)


def test_the_key_can_do_nothing_else(play: Play, tmp_path: Path) -> None:
    """No shell, no file, no terminal, no forwarding, no other verb, driver or cluster, at gateways; on the master, only
    that it looks at its queue. To a node it is a stranger."""
    edge, node = play.edges[0], play.lab.host("n1")
    dead = f"--cname web --ip {node.address} --port 8080"
    before = play.served()
    commands = [
        "id", "", "sh -i", "rpc", "list", "forced", "install", f"add {dead}", f"remove {dead}", f"withdraw {dead}; id",
        f"withdraw {dead} --cluster other", f"withdraw {dead} --driver haproxy", "/usr/lib/openssh/sftp-server",
        f"withdraw {dead} $(id)", f"k4t-registrar --verbs rpc withdraw {dead}",
    ]  # fmt: skip
    with ThreadPoolExecutor(3) as pool:
        answers = pool.map(lambda words: play.ssh(edge, [words] if words else []), commands)
    for words, done in zip(commands, answers, strict=True):
        assert done.returncode == 64, (words, done)
        assert "uid=" not in done.stdout
    stray = tmp_path / "stray"
    stray.write_text("x")
    assert play.ssh(edge, [str(stray), f"root@{edge.address}:/root/stray"], program="scp").returncode != 0
    assert play.ssh(edge, ["-b", "/dev/null", f"root@{edge.address}"], program="sftp").returncode != 0
    assert "PTY allocation request failed" in play.ssh(edge, ["id"], options=["-tt"]).stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    through = play.ssh(edge, options=["-W", f"{node.address}:22"])
    assert "SSH-2.0" not in through.stdout
    back = play.ssh(edge, ["id"], options=["-o", "ExitOnForwardFailure=yes", "-R", f"{port}:127.0.0.1:22"])
    assert "remote port forwarding failed" in back.stderr
    assert "Permission denied" in play.ssh(node, ["id"]).stderr
    assert play.served() == before
    assert edge.exec(["ls", "/root/stray"], check=False).returncode != 0


def test_a_master_that_is_on_is_told_and_one_that_is_off_is_called(play: Play) -> None:
    """What was queued is done, once; its words are in the master's own log. When it doesn't answer, <power on=> is run.
    What else is asked with the key than how it is, is refused."""
    found = play.rouse("stay")
    print(found)
    assert (found.on, found.problem) == (("gw1", "gw2", "gw3"), "")
    assert "is on, and was told to look: k4t wake has begun" in found.words
    done = play.site.db / ".k4t/intents.done"
    log = play.site.db / ".k4t/wake.log"
    assert wait_until(done.exists, timeout_s=60), log.read_text()
    assert wait_until(lambda: "stays on, as root@monitor asked" in log.read_text(), timeout_s=60), log.read_text()
    assert [one["action"] for one in json.loads(done.read_text())["intents"]] == ["stay"]
    assert play.pending() == ()
    assert not play.called.exists()
    for words in ("id", "", "k4t-rouse; id", "k4t-probe x", "sh", f"k4t --db {play.site.db} apply"):
        asked = play.ssh(play.master, [words] if words else [])
        assert (asked.returncode, asked.stdout) == (64, ""), words
    probed = play.ssh(play.master, ["k4t-probe"])
    assert "\ndisk root " in probed.stdout, probed
    seen = play.look().facts.hosts[f"master/{play.master.address}"]
    assert seen.reading is not None
    play.master.power_off()
    called = play.rouse("apply")
    assert f"{play.master.address} was switched on: `touch " in called.words
    assert play.called.exists()
    assert len(play.pending()) == 1
    assert play.rouse("apply").boots


def test_it_is_let_in_no_more(play: Play) -> None:
    """`--remove` takes the lines away; the ordinary login does it then, and says what would be better."""
    play.master.power_on()
    said = play.k4t("monitor", "authorize", "--remove", "--yes").stdout
    assert said.count(": wrote ") == 4
    assert "Permission denied" in play.ssh(play.edges[0], ["withdraw"]).stderr
    assert "it does not know the monitor's key: k4t monitor authorize KEY.pub" in play.act("withdraw")
    assert play.soon(1)
    play.act("give-back")
