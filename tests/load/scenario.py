"""What operators do all day, done to two apps that are under load: image, restart, scale, drain, rollback.

Their server keeps connections (`kept`) or closes each after its answer (`shut`), and drops what is under way when it is
told to end.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.e2e.site import Site, fetch
from tests.lab import Host, Lab
from tests.load import server
from tests.load.report import Report
from tests.load.run import Load

APPS = {"kept": 3600, "shut": 0}
"""Each with the seconds that an idle connection is kept."""
HOSTS = tuple(f"{name}.k4t.lab" for name in APPS)
PORT = 8080
APP = """\
<app replicas="{replicas}" restart="{restart}">
  <image>{image}</image>
{place}
  <env name="KEEP_S">{keep_s}</env>
  <command><arg>/usr/bin/python3</arg><arg>-IS</arg><arg>/srv/server.py</arg></command>
  <file source="server.py" target="/srv/server.py"/>
  <volume source="/usr" target="/usr" scope="shared" read-only="true"/>
  <volume source="/usr/lib" target="/lib" scope="shared" read-only="true"/>
  <volume source="/usr/lib64" target="/lib64" scope="shared" read-only="true"/>
  <health interval="1s" timeout="5s"><http port="http" path="/"/></health>
  <update drain="{drain}"/>
  <stop grace="1s"/>
</app>
"""
ROUTED = """\
  <port name="http" host="auto"/>
  <route port="http" domain="{name}.k4t.lab"/>
  <record to="addresses" ttl="1s"/>"""
NAMED = """\
  <network mode="macvlan"/>
  <port name="http" container="{port}"/>
  <env name="PORT">{port}</env>
  <record type="address" ttl="1s"/>"""


@dataclass(frozen=True)
class Wanted:
    """What both apps should be."""

    image: str
    replicas: int = 2
    restart: int = 0
    drain: str = "1s"


@dataclass(frozen=True)
class Phase:
    """One change, as it was made under load."""

    name: str
    began_at: float
    ended_at: float
    report: Report


class Scenario:
    """One tree whose two apps are published through the gateways `doors`."""

    place = ROUTED

    def __init__(self, site: Site, lab: Lab, doors: list[Host], *, drain: str = "1s") -> None:
        self.site, self.lab, self.doors = site, lab, doors
        self.wanted = Wanted(lab.image, drain=drain)
        self.times: list[tuple[str, float, float]] = []
        self.words: list[str] = []
        self.write()

    def write(self) -> None:
        for name, keep_s in APPS.items():
            place = self.place.format(name=name, port=PORT)
            text = APP.format(place=place, keep_s=keep_s, **self.wanted.__dict__)
            self.site.write(f"apps/{name}/app.xml", text)
            shutil.copy(server.__file__, self.site.db / f"apps/{name}/server.py")

    def change(self, **what: object) -> None:
        self.wanted = replace(self.wanted, **what)  # type: ignore[arg-type]
        self.write()

    def apply(self, *words: str, status: int | None = 0) -> None:
        self.words.append(self.site.k4t("apply", "--yes", *words, status=status, timeout_s=300).stdout)

    def availability(self, node: str, value: str) -> None:
        host = self.lab.host(node)
        text = f'<node address="{host.address}" availability="{value}">{self.inside(node)}</node>\n'
        self.site.write(f"nodes/{node}.xml", text)

    def inside(self, node: str) -> str:  # noqa: ARG002 - for those that have more to say
        """What else its file says."""
        return ""

    @contextmanager
    def named(self, name: str) -> Iterator[None]:
        """What happens inside is the phase `name`."""
        began_at = time.time()
        yield
        self.times.append((name, began_at, time.time()))

    @contextmanager
    def load(self, save: Path, *, rate_per_s: int, doors: list[Host] | None = None) -> Iterator[Load]:
        targets = [f"{door.address}:80" for door in doors or self.doors]
        with Load(save, targets=targets, hosts=HOSTS, rate_per_s=rate_per_s) as running:
            time.sleep(0.5)
            yield running
            time.sleep(0.5)

    def phases(self, report: Report) -> list[Phase]:
        return [Phase(name, first, last, report.between(first, last)) for name, first, last in self.times]

    # --- the changes -------------------------------------------------------------------------------------------

    def image(self, tag: str) -> None:
        with self.named("image"):
            self.change(image=self.lab.push(tag, VER=tag))
            self.apply()

    def back(self, before: Wanted) -> None:
        with self.named("rollback"):
            self.wanted = before
            self.write()
            self.apply()

    def restart(self) -> None:
        with self.named("restart"):
            self.change(restart=self.wanted.restart + 1)
            self.apply()

    def scale(self, number: int) -> None:
        with self.named(f"scale {self.wanted.replicas} to {number}"):
            self.change(replicas=number)
            self.apply("--allow", "withdraw")  # fewer of both apps at once is more than the safety limit

    def drain(self, node: str) -> None:
        with self.named(f"drain {node}"):
            self.availability(node, "drained")
            self.apply()

    def uncordon(self, node: str) -> None:
        with self.named(f"uncordon {node}"):
            self.availability(node, "active")
            self.apply()

    def steps(self, round: int = 1, *, few: bool = False) -> list[Callable[[], None]]:
        """Everything once. `few`: without what goes the same way as another does, and with fewer replicas."""
        before = self.wanted
        image, back = (lambda: self.image(f"load{round}")), (lambda: self.back(before))
        moved: list[Callable[[], None]] = [lambda: self.drain("n1"), lambda: self.uncordon("n1")]
        if few:
            return [image, lambda: self.scale(4), lambda: self.scale(2), *moved]
        return [image, self.restart, lambda: self.scale(6), lambda: self.scale(2), *moved, back]

    def seen(self, door: Host) -> set[str]:
        """The versions that answer through a gateway, of both apps."""
        return {fetch(f"http://{door.address}/", host)[1].split("version=")[1].strip() for host in HOSTS}


class Named(Scenario):
    """The same without a gateway: each container has an address of its own, with a fixed port, which clients find in
    DNS (`doors` are the DNS servers) and speak to directly."""

    place = NAMED

    def inside(self, node: str) -> str:
        net, first = self.lab.host(node).address.rpartition(".")[0], 100 + 20 * int(node.removeprefix("n"))
        return f'<addresses range="{net}.{first}-{net}.{first + 19}" interface="eth0" subnet="{net}.0/24"/>'

    @contextmanager
    def load(self, save: Path, *, rate_per_s: int, doors: list[Host] | None = None) -> Iterator[Load]:
        resolver = f"{(doors or self.doors)[0].address}:53"
        with Load(save, hosts=HOSTS, rate_per_s=rate_per_s, resolver=resolver, port=PORT) as running:
            time.sleep(0.5)
            yield running
            time.sleep(0.5)

    def steps(self, round: int = 1, *, few: bool = False) -> list[Callable[[], None]]:
        image: list[Callable[[], None]] = [lambda: self.image(f"named{round}")]
        scaled: list[Callable[[], None]] = [] if few else [lambda: self.scale(6), lambda: self.scale(2)]
        return [*image, *scaled, lambda: self.drain("n1"), lambda: self.uncordon("n1")]
