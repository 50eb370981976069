"""A master as a process of its own, so that it can be killed: python -m tests.publication.master CONFIG.

It says `ready` when its connections stand. One job a line comes in, what became of it goes out. Each job is one run: a
new run id, what an earlier one left open is finished first. CONFIG and the jobs are the JSON of `Config` and `Job`.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from k4t.dns.dnsmasq import Dnsmasq
from k4t.dns.rfc2136 import Rfc2136
from k4t.dns.wire import dial
from k4t.errors import K4tError
from k4t.gateway.envoy import Envoy
from k4t.gateway.haproxy import HAProxy
from k4t.master.publication.publish import Published, Publisher
from k4t.master.publication.redolog import LogPlace
from k4t.model.hosts import Dns, Gateway, Ssh
from k4t.model.participant import Kind, Participant
from k4t.model.spec import Cluster
from k4t.remote.ssh import Connector
from k4t.remote.transport import Transport
from tests.publication.changes import CLUSTERS, Author, numbered
from tests.publication.faulty import Faulty, Stray

ZONE = "k4t.lab"


@dataclass(frozen=True)
class Config:
    """`hosts`: driver to (name, address). `directory`: the working copy, `journal`: where what was built on what is
    noted, for whoever checks."""

    name: str
    cluster: int
    seed: int
    back: str
    hosts: Mapping[str, Sequence[str]]
    known_hosts: str
    key: str
    secret: str
    directory: str
    journal: str


@dataclass(frozen=True)
class Job:
    """`faults`: of each message, the chance that it goes astray. `halt`: the signal (SIGSTOP, SIGKILL) that this master
    sends itself before its message number `halt_at`."""

    number: int
    kind: Kind
    faults: float = 0.0
    degraded: bool = False
    halt: int = 0
    halt_at: int = 0


@dataclass(frozen=True)
class Ended:
    """`acknowledged`: by every member. `stale`: members that are owed it."""

    number: int
    acknowledged: bool
    error: str
    stale: Sequence[str]
    faults: Mapping[str, int]
    took_s: float


class Master:
    """Connections and registrars stay open from run to run, while they live."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.cluster: Cluster = CLUSTERS[config.cluster]
        self.connections: dict[str, Transport] = {}
        self.members: dict[str, Participant] = {}
        self.strays: dict[str, list[Stray]] = {}
        self.connector = Connector([Path(config.known_hosts)], run_id=config.name)

    def connection(self, name: str, address: str) -> Transport:
        found = self.connections.get(name)
        if found is None or not found.alive:
            ssh = Ssh(user="root", key=self.config.key)
            found = self.connections[name] = self.connector.connect(name, ssh, address)
        return found

    def member(self, driver: str) -> Participant:
        """The one of this driver; a new one when its connection has ended."""
        name, address = self.config.hosts[driver]
        if name in self.connections and not self.connections[name].alive:
            self.forget(driver)
        if driver not in self.members:
            self.members[driver] = self._made(driver, name, address)
        return self.members[driver]

    def forget(self, driver: str) -> None:
        if driver in self.members:
            self.members.pop(driver).close()
        if found := self.connections.pop(self.config.hosts[driver][0], None):
            found.close()

    def _made(self, driver: str, name: str, address: str) -> Participant:
        def connect() -> Transport:
            return self.connection(name, address)

        if driver == "envoy":
            return Envoy(Gateway(name, driver, address), self.cluster, connect)
        if driver == "haproxy":
            return HAProxy(Gateway(name, driver, address), self.cluster, connect)
        if driver == "dnsmasq":
            return Dnsmasq(Dns(name, driver, address, ZONE), self.cluster, connect)
        dns = Dns(name, driver, address, ZONE, key_name="k4t", secret="tsig")
        return Rfc2136(dns, self.cluster, lambda: self.config.secret, lambda: dial(address, 53))

    def do(self, job: Job) -> Ended:
        chance = random.Random(f"{self.config.seed}:faults:{job.number}")  # noqa: S311 - test data
        messages = itertools.count()

        def halt() -> None:
            if job.halt and next(messages) == job.halt_at:
                os.kill(os.getpid(), job.halt)

        members = [self._faulty(driver, chance, job, halt) for driver in self.config.hosts]
        members = [member for member in members if member.kind == job.kind]
        started_s = time.monotonic()
        published, error = self._published(members, job)
        took_s = time.monotonic() - started_s
        done: Counter[str] = Counter()
        for member in members:
            done.update(member.done)
        stale = [name for name, _ in published.stale] if published else []
        return Ended(job.number, published is not None and not stale, error, stale, dict(done), took_s)

    def _faulty(self, driver: str, chance: random.Random, job: Job, halt: Callable[[], None]) -> Faulty:
        inner = self.member(driver)

        def sever() -> None:
            if inner.name in self.connections:
                self.connections[inner.name].close()

        strays = self.strays.setdefault(inner.name, [])
        own = random.Random(chance.random())  # noqa: S311 - test data
        return Faulty(inner, own, job.faults, before=halt, sever=sever, strays=strays)

    def _published(self, members: Sequence[Participant], job: Job) -> tuple[Published | None, str]:
        place = LogPlace(Path(self.config.directory) / ".k4t", self.cluster.id, Path(self.config.directory), _now)
        place.directory.mkdir(parents=True, exist_ok=True)
        publisher = Publisher(members, self.cluster, f"{self.config.name}-{job.number}", log=place, who="test")
        author = Author(self.config.back, job.kind, self.config.seed, self.config.cluster)
        try:
            publisher.recover(degraded=job.degraded)
            change = numbered(author, job.number, self._note)
            return publisher.publish(job.kind, "default", change, degraded=job.degraded), ""
        except K4tError as error:
            return None, f"{type(error).__name__}: {error}"
        finally:
            publisher.close()

    def _note(self, number: int, built_on: int) -> None:
        with Path(self.config.journal).open("a") as journal:
            journal.write(f"{number} {built_on}\n")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def main(config: str) -> None:
    master = Master(Config(**json.loads(config)))
    for driver in master.config.hosts:
        master.member(driver).observe()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(master.do(Job(**json.loads(line))))), flush=True)
    for member in master.members.values():
        member.close()


if __name__ == "__main__":
    main(sys.argv[1])
