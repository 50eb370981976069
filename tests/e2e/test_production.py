"""docs/production.md as it stands, typed on the hosts of a lab: from empty hosts to serving, the master off, a node
lost, the master woken, the node replaced. Traffic runs from the moment that the master first goes off to the end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.query
import pytest

from tests.e2e.page import Block, sections
from tests.e2e.site import containers, fetch
from tests.lab import Host, Lab
from tests.lab.hypervisor import Hypervisor
from tests.lab.processes import wait_until
from tests.load.run import Load

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
PAGE = "production.md"
MASTER, MONITOR = "k4t-master", "monitor"
HOSTS = {
    "10": MASTER, "5": MONITOR, "21": "gw1", "22": "gw2", "11": "n1", "12": "n2", "13": "n3",
}  # fmt: skip
"""What the page's addresses 10.0.0.… are in the lab."""
DOMAINS = {MASTER: MASTER, "node1": "n1", "node2": "n2", "node3": "n3"}
AUTHORIZED = {MASTER: ("n1", "n2", "n3", "gw1", "gw2", MONITOR), MONITOR: ("n1", "n2", "n3", "gw1", "gw2")}
"""Whose key is put where by hand, as section 1 says."""
GOES_OFF = ("k4t apply", "k4t power off")
NAME = "shop.example.internal"
RATE_PER_S = 50
NOTICED_WITHIN_S = 15
"""Three failed checks, a second apart, that take two seconds each; the rest is for a busy machine."""
K4T = """\
#!/bin/sh
PYTHONPATH={root} PYTHONDONTWRITEBYTECODE=1 exec {python} -m k4t.cli --yes "$@"
"""


class Machines:
    """The page's machines; `play` types on them what it says."""

    def __init__(self, lab: Lab, power: Hypervisor) -> None:
        self.lab, self.power = lab, power
        self.page = sections(PAGE)
        for name in (MASTER, MONITOR):
            host = lab.host(name)
            power.install(host)
            host.exec(["rm", "-rf", "/root/k4t", "/root/.config/k4t", "/root/.local/state/k4t"])
            host.exec(["mkdir", "/root/k4t"])
            host.exec(["tee", "/usr/local/bin/k4t"], input=K4T.format(root=ROOT, python=sys.executable))
            host.exec(["chmod", "755", "/usr/local/bin/k4t"])
        known = [line for line in lab.known_hosts.read_text().splitlines(keepends=True) if line.startswith(MONITOR)]
        lab.host(MASTER).exec(["tee", "/root/.ssh/known_hosts"], input="".join(known))

    def play(self, number: int) -> str:
        """All blocks of a section; what they said. Raises AssertionError for a command that fails."""
        (title,) = (title for title in self.page if title.startswith(f"{number}. "))
        assert self.page[title], f"section {title} has no block"
        return "".join(self._type(block, name) for block in self.page[title] for name in block.where)

    def _type(self, block: Block, name: str) -> str:
        host, began_s = self.lab.host(name), time.monotonic()
        script = f"set -eu; cd /root/k4t\n{self.here(block.text)}"
        process = subprocess.Popen(
            [*host.enter(), "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        said, _ = process.communicate(timeout=240)
        print(f"\n--- {name}, {time.monotonic() - began_s:.1f} s\n{block.text}\n{said}")
        if name == MASTER and block.last in GOES_OFF:
            assert self.goes_off(), said
        else:
            assert process.returncode == 0, f"{name}: exit {process.returncode}\n{block.text}\n{said}"
        return said

    def here(self, text: str) -> str:
        """With what the lab has in the place of what the page has: its table, in one go."""

        def address(found: re.Match[str]) -> str:
            return self.lab.host(HOSTS[found[1]]).address if found[1] in HOSTS else found[0]

        return re.sub(r"10\.0\.0\.(\d+)", address, text).replace("registry.example.com/shop:1", self.lab.image)

    def goes_off(self, timeout_s: float = 120) -> bool:
        return wait_until(lambda: not self.lab.host(MASTER).is_on, timeout_s=timeout_s)

    def is_woken(self) -> bool:
        """By the monitor, and nobody else."""
        return wait_until(lambda: f"start {MASTER}" in self.power.done, timeout_s=120)

    def watched(self) -> str:
        """What the monitor said."""
        return "".join(log.read_text() for log in (self.lab.directory / "run").glob(f"{MONITOR}.k4t-monitor-*.log"))

    @property
    def edges(self) -> list[Host]:
        return [self.lab.host("gw1"), self.lab.host("gw2")]

    def woken(self) -> str:
        """What `k4t wake` said there, all times."""
        logs = sorted((self.lab.directory / "run").glob(f"{MASTER}.k4t-wake-*.log"))
        return "".join(log.read_text() for log in logs)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with (
        Lab(name=f"prod-{os.getpid()}", nodes=3, gateways=2, registry=True, extra=(MASTER, MONITOR)) as lab,
        Hypervisor(lab, DOMAINS) as power,
    ):
        yield Machines(lab, power)


def keys_by_hand(machines: Machines) -> None:
    for name, hosts in AUTHORIZED.items():
        public = machines.lab.host(name).exec(["cat", "/root/.ssh/id_ed25519.pub"]).stdout
        for host in hosts:
            machines.lab.host(host).exec(["tee", "-a", "/root/.ssh/authorized_keys"], input=public)


def addresses(server: Host) -> set[str]:
    answer = dns.query.udp(dns.message.make_query(NAME, "A"), server.address, timeout=5)
    return {item.address for group in answer.answer for item in group}


def says_off(machines: Machines) -> list[bool]:
    return [
        machines.lab.host(name).exec(["sh", "-c", "test -e /var/lib/k4t/*/off"], check=False).returncode == 0
        for name in ("gw1", "gw2", "n1")
    ]


def test_the_page_from_empty_hosts_to_a_node_replaced(machines: Machines, tmp_path: Path) -> None:
    """No request is lost while the master is off, but for those that a dying node had, or got before the gateways knew;
    it goes off, wakes, gives the node up, goes off, and is at hand when a person wants to work on it. At the end the
    plan is empty and both copies are on nodes that live."""
    lab = machines.lab
    machines.play(1)
    keys_by_hand(machines)
    machines.play(2)
    serving = [fetch(f"http://{edge.address}/", NAME)[0] for edge in machines.edges]
    assert serving == [200, 200]
    assert [addresses(edge) for edge in machines.edges] == [{edge.address for edge in machines.edges}] * 2
    machines.play(3)
    targets = [f"{edge.address}:80" for edge in machines.edges]
    with Load(tmp_path / "load", targets=targets, hosts=[NAME], rate_per_s=RATE_PER_S) as load:
        machines.play(4)
        assert says_off(machines) == [True, True, True]
        time.sleep(60 if "K4T_FULL" in os.environ else 2)
        lost_at = time.time()
        lab.host("n2").power_off()
        assert machines.is_woken(), machines.watched()
        assert machines.goes_off(), machines.woken()
        assert "destroy node2" in machines.power.done
        told = machines.play(5)
        assert "dead node2" in told, told
        assert 'availability="dead"' in told
        assert len(containers(lab.host("n1"), all=False)) == 2
        assert says_off(machines) == [True, True, True]
        said = machines.play(6)
    print(machines.woken())
    print(machines.watched())
    print(load.report.words())
    assert "Nothing to do" in said
    assert [len(containers(lab.host(name), all=False)) for name in ("n1", "n3")] == [1, 1]
    known = lab.host(MONITOR).exec(["ls", "/root/k4t/db/nodes"]).stdout.split()
    assert [name for name in known if name.endswith(".xml")] == ["node1.xml", "node3.xml"]
    noticed_at = lost_at + NOTICED_WITHIN_S
    assert not load.report.between(0, lost_at - 1).lost, load.report.first_lost()
    assert not load.report.between(noticed_at, noticed_at + 3600).lost, load.report.first_lost()
    dying = load.report.between(lost_at - 1, noticed_at)
    print(f"around the node's death: {dying.words()}")
    assert sum(dying.lost.values()) < len(dying.samples) / 2
    assert re.search(r"(?m)^node3 ", said)
