"""Envoy and HAProxy, dnsmasq and BIND, each on a host of its own and set up by k4t itself, and a host with backends.

Masters that publish to them run as processes of their own (tests.publication.master). What is live and what is served
is asked for from here, over connections that they know nothing of.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import dns.message
import dns.query
import dns.rdatatype
import pytest

from k4t.dns import install as dns_install
from k4t.dns import install_bind
from k4t.dns.tsig import tsig_key
from k4t.gateway import install as gateway_install
from k4t.model.hosts import Dns, Gateway
from k4t.model.participant import Kind, Participant
from k4t.model.state import ParticipantState
from k4t.registrar.document import Document
from tests.lab import Lab
from tests.publication.changes import APPS, PORTS
from tests.publication.dnspair import SECRET
from tests.publication.master import ZONE, Config, Ended, Job, Master

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
ANSWER_S = 180.0
SETTLE_S = 20.0
DRIVERS: Mapping[Kind, tuple[str, str]] = {"gateway": ("envoy", "haproxy"), "dns": ("dnsmasq", "rfc2136")}
HOSTS = {"envoy": "gw1", "haproxy": "gw2", "dnsmasq": "dns1", "rfc2136": "dns2"}

BACKENDS = """
import asyncio, sys
async def main():
    for port in map(int, sys.argv[1:]):
        async def serve(reader, writer, body=str(port).encode()):
            try:
                while await reader.readuntil(b"\\r\\n\\r\\n"):
                    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
                    await writer.drain()
            except (asyncio.IncompleteReadError, OSError): pass
            finally: writer.close()
        await asyncio.start_server(serve, "", port, backlog=512)
    await asyncio.Event().wait()
asyncio.run(main())
"""


class Process:
    """One master. It can be killed at any moment."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.ready = False
        Path(config.directory).mkdir(parents=True, exist_ok=True)
        with (Path(config.directory) / "stderr").open("ab") as errors:
            argv = [sys.executable, "-m", "tests.publication.master", json.dumps(asdict(config))]
            self.process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, bufsize=0
            )

    def begin(self, job: Job) -> None:
        assert self.process.stdin
        assert self.process.stdout
        if not self.ready:
            self.ready = self.process.stdout.readline() == b"ready\n"
        assert self.ready, self.errors()
        self.process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")

    def ended(self, timeout_s: float = ANSWER_S) -> Ended | None:
        """None when it takes longer. Raises AssertionError when the process has ended."""
        assert self.process.stdout
        if not select.select([self.process.stdout], [], [], timeout_s)[0]:
            return None
        line = self.process.stdout.readline()
        assert line, self.errors()
        return Ended(**json.loads(line))

    def errors(self) -> str:
        return (Path(self.config.directory) / "stderr").read_text()[-3000:]

    def stopped(self) -> bool:
        """Whether it is, by now or soon: else it has ended its job without."""
        assert self.process.stdout
        deadline_s = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline_s:
            state = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "T":
                return True
            if select.select([self.process.stdout], [], [], 0.01)[0]:
                return False
        raise AssertionError("neither stopped nor done")

    def do(self, job: Job) -> Ended:
        self.begin(job)
        found = self.ended()
        assert found, f"no answer to {job} in {ANSWER_S} s"
        return found

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@dataclass
class Four:
    """The lab, and what is asked of it. `looker` publishes nothing."""

    lab: Lab
    directory: Path
    looker: Master = field(init=False)
    masters: list[Process] = field(default_factory=list)
    connections: dict[str, http.client.HTTPConnection] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.looker = Master(self.config("looker", tuple(HOSTS)))

    @property
    def back(self) -> str:
        return self.lab.host("back").address

    def config(self, name: str, drivers: tuple[str, ...], *, cluster: int = 0, seed: int = 0) -> Config:
        hosts = {driver: (HOSTS[driver], self.address(driver)) for driver in drivers}
        directory = self.directory / name
        return Config(
            name, cluster, seed, self.back, hosts, str(self.lab.known_hosts), str(self.lab.key), SECRET,
            str(directory), str(self.directory / f"journal{cluster}"),
        )  # fmt: skip

    def address(self, driver: str) -> str:
        return self.lab.host(HOSTS[driver]).address

    def master(self, config: Config) -> Process:
        made = Process(config)
        self.masters.append(made)
        return made

    def built_on(self, cluster: int = 0) -> dict[int, int]:
        """Of each publication that was composed, the one before it."""
        lines = (self.directory / f"journal{cluster}").read_text().splitlines()
        return {int(first): int(second) for first, second in (line.split() for line in lines)}

    def end(self) -> None:
        """The masters, and what they noted."""
        while self.masters:
            self.masters.pop().close()
        for journal in self.directory.glob("journal*"):
            journal.unlink()

    # --- set up and mend -----------------------------------------------------------------------------------------

    def install(self, driver: str) -> None:
        """Again after it was killed or its host was off: it is started."""
        name, address = HOSTS[driver], self.address(driver)
        connection = self.looker.connection(name, address)
        if driver in DRIVERS["gateway"]:
            list(gateway_install.install(connection, Gateway(name, driver, address)))
        elif driver == "dnsmasq":
            list(dns_install.install(connection, Dns(name, driver, address, ZONE)))
        else:
            dns_ = Dns(name, driver, address, ZONE, key_name="k4t", secret="tsig")
            list(install_bind.install(connection, dns_, tsig_key(dns_, lambda: SECRET)))

    def kill(self, driver: str) -> None:
        program = {"rfc2136": "named"}.get(driver, driver)
        words = f"kill -9 $(cat /run/k4t-{program}.pid) $(pgrep -x {program}); true"
        self.lab.host(HOSTS[driver]).exec(["sh", "-c", words], check=False)

    def mend(self, driver: str) -> None:
        """Power, cable, and the vendor."""
        host = self.lab.host(HOSTS[driver])
        if not host.is_on:
            host.power_on()
        host.restore()
        self.looker.forget(driver)
        self.install(driver)

    # --- look ----------------------------------------------------------------------------------------------------

    def members(self, kind: Kind) -> tuple[Participant, ...]:
        return tuple(self.looker.member(driver) for driver in DRIVERS[kind])

    def settled(self, kind: Kind) -> tuple[ParticipantState, ...]:
        """Both, once each serves what it holds: a health check may still have to pass."""

        def look() -> tuple[ParticipantState, ...]:
            return tuple(member.observe() for member in self.members(kind))

        def good(states: tuple[ParticipantState, ...]) -> bool:
            return all(state.reachable and state.rendered and not state.differences for state in states)

        return until(look, good)

    def served(self, kind: Kind, documents: tuple[Document, ...]) -> list[str]:
        """What clients get otherwise than these documents (one a cluster, lowest id first) say together."""
        return self._traffic(documents) if kind == "gateway" else self._names(documents)

    def _traffic(self, documents: tuple[Document, ...]) -> list[str]:
        wrong = []
        for app in APPS:
            ports = {one.port for document in documents for one in document.endpoints if one.app == app}
            routed = {name for one in _owner(documents, app).routes if one.app == app for name in one.domains}
            for domain, path in ((f"{app}.example.com", "/"), (f"{app}2.example.com", "/deep/er")):
                for driver in DRIVERS["gateway"]:
                    expected = ports or {503}
                    found = self.ports(driver, domain, path, expected if domain in routed else {404})
                    if found:
                        wrong.append(f"{driver}: {domain}: {found}")
        return wrong

    def ports(self, driver: str, domain: str, path: str, expected: set[int]) -> str:
        """Asked until each of them (a backend's port, or a status) has answered and at least once; "" when that is all
        that answers."""
        found: set[int] = set()
        for _ in range(40 * len(expected)):
            found.add(self.ask(driver, domain, path))
            if found >= expected:
                break
        return "" if found == expected else f"{sorted(found)}, not {sorted(expected)}"

    def ask(self, driver: str, domain: str, path: str = "/") -> int:
        """The port of the backend that answers, or the gateway's own status."""
        for fresh in (False, True):
            connection = self.connections.get(driver)
            if connection is None or fresh:
                connection = self.connections[driver] = http.client.HTTPConnection(self.address(driver), timeout=10)
            try:
                connection.request("GET", path, headers={"Host": domain})
                answer = connection.getresponse()
                body = answer.read()
                return int(body) if answer.status == 200 else answer.status
            except (http.client.HTTPException, OSError):
                connection.close()  # it was idle, and the gateway was started again meanwhile
        raise AssertionError(f"{driver} answers nobody")

    def _names(self, documents: tuple[Document, ...]) -> list[str]:
        wrong = []
        for app in APPS:
            ips = sorted({one.ip for document in documents for one in document.endpoints if one.app == app})
            named = {one.name for one in _owner(documents, app).records if one.app == app}
            for name in (app, f"{app}-2"):
                for driver in DRIVERS["dns"]:
                    found, expected = self.resolve(driver, name), ips if name in named else []
                    if found != expected:
                        wrong.append(f"{driver}: {name}: {found}, not {expected}")
        return wrong

    def resolve(self, driver: str, name: str) -> list[str]:
        question = dns.message.make_query(f"{name}.{ZONE}.", "A")
        answer = dns.query.udp(question, self.address(driver), timeout=5)
        if answer.flags & dns.flags.TC:
            answer = dns.query.tcp(question, self.address(driver), timeout=5)
        sets = [found for found in answer.answer if found.rdtype == dns.rdatatype.A]
        return sorted(item.address for found in sets for item in found)


def _owner(documents: tuple[Document, ...], app: str) -> Document:
    """Whose routes and records count: the lowest id that says anything of the app."""
    for document in sorted(documents, key=lambda one: one.cluster):
        listed: tuple[Any, ...] = (*document.endpoints, *document.checks, *document.routes, *document.records)
        if any(one.app == app for one in listed):
            return document
    return documents[0]


def until(look: Callable[[], T], good: Callable[[T], bool]) -> T:
    """What was seen when it was good, or last."""
    deadline_s = time.monotonic() + SETTLE_S
    while True:
        found = look()
        if good(found) or time.monotonic() > deadline_s:
            return found
        time.sleep(0.2)


def set_up(lab: Lab, directory: Path) -> Four:
    made = Four(lab, directory)
    lab.host("back").spawn("backends", ["python3", "-c", BACKENDS, *map(str, PORTS)])
    for driver in HOSTS:
        made.install(driver)
    return made


def new_lab(name: str) -> Lab:
    return Lab(name=f"{name}-{os.getpid()}", nodes=0, gateways=2, dns=2, registry=False, extra=("back",))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Four]:
    with new_lab("four") as lab:
        made = set_up(lab, tmp_path_factory.mktemp("four"))
        yield made
        for member in made.looker.members.values():
            member.close()
        for connection in made.connections.values():
            with closing(connection):
                pass


@pytest.fixture
def four(hosts: Four) -> Iterator[Four]:
    """With nothing that an earlier test published."""
    yield hosts
    hosts.end()
    for cluster in range(3):
        _clear(hosts, cluster)


def _clear(hosts: Four, cluster: int) -> None:
    from k4t.master.publication.publish import Publisher
    from k4t.registrar.document import make

    master = Master(replace(hosts.looker.config, name=f"clear{cluster}", cluster=cluster))
    members = [master.member(driver) for driver in HOSTS]
    publisher = Publisher(members, master.cluster, f"clear{cluster}-{time.monotonic_ns()}")

    def empty(kind: Kind) -> Callable[[Document | None], Document]:
        return lambda _: make(Document(master.cluster.id, master.cluster.name, kind, "default"))

    for kind in DRIVERS:
        publisher.publish(kind, "default", empty(kind))
    for member in members:
        member.close()
