"""What others ask of the master for nodes and replicas, played on real hosts; a spare node sleeps and is woken."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from k4t.master.power import queue
from k4t.master.power.intents import encode, made
from tests.e2e.conftest import wipe
from tests.e2e.site import Site, containers
from tests.lab import Host, Lab
from tests.lab.processes import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
SWITCH = """\
#!/bin/sh
cd {root} && TMPDIR={temporary} exec {python} -m tests.lab $1 --name {lab} $2
"""
APP = """\
<app replicas="{replicas}">
  <image>{image}</image>
  <port name="http" host="auto"/>
  <resources memory="{memory}"/>
  <route domain="web.k4t.lab"/>
  <update drain="0s"/>
</app>
"""
MONITOR = """\
<monitor>
  <policy when="nodes-short" enabled="true" after="1"/>
  <policy when="nodes-idle" enabled="true" after="1" for="1s"/>
</monitor>
"""
RECREATE = """\
<app>
  <image>{image}</image>
  <update strategy="recreate" drain="0s"/>
</app>
"""


class Switched(Site):
    """A tree whose second node is a spare one, with a power switch."""

    def switched(self, host: Host, more: str = "", availability: str = "active", capacity: str = "1GiB") -> None:
        switch = self.directory / "switch"
        switch.write_text(
            SWITCH.format(
                root=ROOT, temporary=os.environ.get("TMPDIR", "/tmp"), python=sys.executable, lab=self.lab.name
            )
        )
        switch.chmod(0o755)
        power = f'<power on="{switch} start {host.name}" off="{switch} kill {host.name}"{more}/>'
        self.write(
            f"nodes/{host.name}.xml",
            f'<node address="{host.address}" availability="{availability}">'
            f'<capacity memory="{capacity}"/>{power}</node>\n',
        )

    def web(self, replicas: int, memory: str = "300MiB") -> None:
        self.write("apps/web/app.xml", APP.format(replicas=replicas, image=self.lab.image, memory=memory))

    def asked(self, *intents: str) -> list[tuple[str, str]]:
        """Queued as another machine would, and done by one wake; what became of each."""
        for number, words in enumerate(intents):
            action, name, *more = words.split()
            one = made(
                action, id=f"{time.time_ns() // 1_000_000:011x}{number:05x}", cluster=self.id, who="root@zabbix",
                at=datetime.now(UTC), name=name, replica="".join(more),
            )  # fmt: skip
            queue.put_here(self.db, one, encode(one, None))
        found = json.loads(self.k4t("wake", "-o", "json", status=None).stdout)
        return [(one["action"], one["result"]) for one in found["intents"]]

    def check(self) -> str:
        """One look of a monitor on this machine, and what it has the master do."""
        return self.k4t("monitor", "check", "--act", status=None).stdout

    def availability(self, name: str) -> str:
        text = (self.db / f"nodes/{name}.xml").read_text()
        return text.partition('availability="')[2].partition('"')[0] or "active"


@pytest.fixture
def switched(site: Site, lab: Lab) -> Iterator[Switched]:
    site.__class__ = Switched
    assert isinstance(site, Switched)
    gateway = lab.host("gw1")
    site.gateway(gateway)
    site.k4t("gateway", "install")
    site.switched(lab.host("n1"))
    site.switched(lab.host("n2"), ' spare="true"')
    yield site
    for host in lab.nodes:
        if not host.is_on:
            host.power_on()
    wipe(gateway)


def names(host: Host) -> set[str]:
    return {name.rpartition(".")[0] for name in containers(host, all=False)}


def test_what_the_master_is_asked_for(switched: Switched, lab: Lab) -> None:
    """One replica is restarted, and no other; a spare node is emptied, sleeps without being in anybody's way, comes
    when something has no place and goes again when it is idle; one that was given up and is back is cleaned first; what
    can't be done is named."""
    n1, n2 = lab.host("n1"), lab.host("n2")
    switched.web(2)
    switched.write("monitor.xml", MONITOR)
    switched.k4t("apply", "--yes")
    before = {*containers(n1), *containers(n2)}
    switched.k4t("intent", "restart", "web", "1", "--here", "--note", "it is ill")
    asked = switched.asked("prune n1", "back n1", "restart web 7", "node-off n1", "node-on n1")
    assert asked == [
        ("restart web 1", "done"), ("prune n1", "done"), ("back n1", "done"), ("restart web 7", "failed"),
        ("node-off n1", "failed"), ("node-on n1", "failed"),
    ]  # fmt: skip
    assert before == {"prod.web.0.1", "prod.web.1.1"}
    assert {*containers(n1), *containers(n2)} == {"prod.web.0.1", "prod.web.1.2"}
    done = json.loads((switched.db / ".k4t/intents.done").read_text())["intents"]
    assert ["n1 is no spare node" in one["error"] for one in done[-2:]] == [True, True]

    assert switched.asked("node-off n2") == [("node-off n2", "done")]
    assert (n2.is_on, switched.availability("n2"), names(n1)) == (False, "drained", {"prod.web.0", "prod.web.1"})
    switched.write("apps/db/app.xml", RECREATE.format(image=lab.image))
    assert switched.json("apply", "--yes")["result"] == "done"
    assert "prod.db.0" in names(n1)

    assert "fits nowhere" in switched.k4t("scale", "web", "4", "--yes", status=3).stdout
    print(switched.check())
    assert (n2.is_on, switched.availability("n2"), len(names(n2))) == (True, "active", 1)

    switched.k4t("scale", "web", "2", "--yes")
    switched.k4t("node", "drain", "n1", "--yes")
    switched.k4t("node", "uncordon", "n1", "--yes")
    assert names(n2) == {"prod.web.0", "prod.web.1", "prod.db.0"}
    assert switched.asked("dead n2", "back n2") == [("dead n2", "done"), ("back n2", "failed")]
    assert (n2.is_on, names(n1)) == (False, {"prod.web.0", "prod.web.1", "prod.db.0"})
    n2.power_on()
    assert wait_until(lambda: bool(containers(n2)), timeout_s=30)
    assert switched.asked("back n2") == [("back n2", "done")]
    assert (switched.availability("n2"), containers(n2)) == ("active", [])

    print(switched.check())
    assert n2.is_on
    assert wait_until(lambda: "node-off n2" in switched.check(), timeout_s=60)  # two checks may be less than 1 s apart
    assert (n2.is_on, switched.availability("n2")) == (False, "drained")
    assert names(n1) == {"prod.web.0", "prod.web.1", "prod.db.0"}
    acts = [one["action"] for one in json.loads((switched.db / ".k4t/intents.done").read_text())["intents"]]
    assert (acts[-1], acts.count("node-on n2"), acts.count("node-off n2")) == ("node-off n2", 1, 2)
