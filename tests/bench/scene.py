"""Forty containers on four real nodes: the tree k4t is given, and the same containers for the limit."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from k4t.model.app import App
from k4t.model.state import BoundPort
from k4t.node.body import Given, body
from k4t.node.labels import Labels, build
from k4t.tree.read import read_tree
from tests.bench import limit
from tests.bench.measure import Cost, run
from tests.e2e.site import Site
from tests.lab import Host, Lab

APPS = 10
REPLICAS = 4
PORT = 8000
CLUSTER = "bench"
ID = "benchmrk"
ALLOWED = ("remove-app", "withdraw", "empty-app")

# Waits that the user asks for don't count, so none is asked for: everything may be down at once, no drain, a TTL of
# 1 s. The container ends at once on SIGTERM, so its grace is never used up. The health check is k4t's own default, a
# TCP connection to the port.
APP = """\
<app replicas="{replicas}">
  <image>{image}</image>
  <port name="http" container="{port}"/>
  <env name="PORT">{port}</env>
  <env name="VER">{version}</env>
  <update max-surge="0" max-unavailable="100%" drain="0s"/>
  <stop grace="1s"/>
{published}</app>
"""
PUBLISHED = """\
  <route port="http" domain="app{number}.k4t.lab"/>
  <record ttl="1s"/>
"""


class Scene:
    """One working copy on one lab. Every method leaves the hosts as its name says."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        self.log = directory / "last.log"
        self.site = Site(lab, directory, name=CLUSTER, id=ID)
        for host in lab.nodes:
            self.site.node(host)

    # --- k4t -----------------------------------------------------------------------------------------------

    def write(self, *, version: int = 1, published: bool = False) -> None:
        for number in range(APPS):
            more = PUBLISHED.format(number=number) if published else ""
            text = APP.format(
                replicas=REPLICAS, image=self.lab.image, port=PORT + number, version=version, published=more
            )  # fmt: skip
            self.site.write(f"apps/app{number}/app.xml", text)

    def empty(self) -> None:
        for directory in sorted((self.site.db / "apps").iterdir()):
            shutil.rmtree(directory)

    def k4t(self, *words: str, statuses: tuple[int, ...] = (0,)) -> Cost:
        """The program as a user starts it, through its console script."""
        script = str(Path(sys.executable).with_name("k4t"))
        return run([script, *words], env=self.site.environment(), log=self.log, statuses=statuses)

    def apply(self) -> Cost:
        allow = [word for kind in ALLOWED for word in ("--allow", kind)]
        return self.k4t("apply", "--yes", *allow)

    # --- the limit -----------------------------------------------------------------------------------------

    def limit(self, verb: str, *, version: int = 1) -> Cost:
        """`verb` of tests.bench.limit, on the containers of that version (and the ones before it)."""
        file = self.directory / "limit.json"
        file.write_text(json.dumps(self._bodies(version)))
        argv = [sys.executable, "-I", "-S", str(Path(limit.__file__)), verb, str(file)]
        return run(argv, env=self.site.environment(), log=self.log)

    def _bodies(self, version: int) -> dict[str, list[dict[str, object]]]:
        """The calls that k4t makes for the tree as it is: by socket of each node, name and create body."""
        tree = read_tree(self.site.db)
        found = {}
        for replica, host in enumerate(self.lab.nodes):
            made = [self._container(app, host, str(replica), version) for app in tree.apps.values()]
            found[str(host.docker_socket)] = made
        return found

    def _container(self, app: App, host: Host, replica: str, version: int) -> dict[str, object]:
        number = app.ports[0].container or 0
        ports = (BoundPort("http", number, "tcp"),)
        spec = "v1:" + "0" * 64
        marks = Labels("limit", app.name, replica, version, 1, spec, "", ports, host.address)
        given = Given(build(marks), {"http": number}, host.address)
        name = f"limit.{app.name}.{replica}"
        return {"name": f"{name}.{version}", "old": f"{name}.{version - 1}", "body": body(app, self.lab.image, given)}

    # --- between rounds ------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Hosts and working copy remember nothing of earlier rounds; no container is left."""
        shutil.rmtree(self.site.db / ".k4t", ignore_errors=True)
        for host in self.lab.nodes:
            names = host.docker(["ps", "-aq"]).stdout.split()
            if names:
                host.docker(["rm", "-f", *names])
            host.exec(["rm", "-rf", "/var/lib/k4t"])
        self.lab.host("gw1").exec(["rm", "-rf", f"/var/lib/k4t/{ID}"])  # what is published, and by whom, stays known

    def install(self) -> None:
        """The gateway's host serves traffic and names from here on."""
        host = self.lab.host("gw1")
        self.site.gateway(host)
        self.site.dns(host)
        self.k4t("gateway", "install")
        self.k4t("dns", "install")

    def hide_participants(self) -> None:
        """The tree has nodes alone again; what the gateway's host runs stays."""
        for kind in ("gateways", "dns"):
            for file in (self.site.db / kind).iterdir():
                file.unlink()

    def show_participants(self) -> None:
        self.site.gateway(self.lab.host("gw1"))
        self.site.dns(self.lab.host("gw1"))
