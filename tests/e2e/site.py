"""A tree in a directory and the real command line on it, for the acceptance tests."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab import Host, Lab

APP = """\
<app replicas="{replicas}">
  <image>{image}</image>
  <port name="http" container="{port}"/>
  <env name="PORT">{port}</env>
{more}
  <update max-unavailable="100%" drain="0s"/>
  <stop grace="1s"/>
</app>
"""
CLUSTER = """\
<cluster name="{name}" id="{id}" format="1">
  <ssh user="root" key="{key}" connect-timeout="4s"/>
  <defaults><app><update drain="0s"/><stop grace="1s"/></app></defaults>
</cluster>
"""


class Site:
    """One working copy: `db` is its tree, `k4t(...)` runs the program on it as a user would."""

    def __init__(self, lab: Lab, directory: Path, *, name: str = "prod", id: str = "") -> None:
        self.lab = lab
        self.directory = directory
        self.db = directory / "db"
        self.home = directory / "home"
        self.id = id or f"t{secrets.token_hex(4)}"
        self.started: list[subprocess.Popen[str]] = []
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        shutil.copy(lab.known_hosts, self.home / ".ssh" / "known_hosts")
        for kind in ("nodes", "apps", "gateways", "dns", "secrets", "certificates"):
            (self.db / kind).mkdir(parents=True)
        self.write(
            "cluster.xml",
            CLUSTER.format(name=name, id=self.id, key=lab.key),
        )

    def write(self, path: str, text: str) -> Path:
        target = self.db / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def node(self, host: Host, name: str = "", inside: str = "") -> None:
        self.write(f"nodes/{name or host.name}.xml", f'<node address="{host.address}">{inside}</node>\n')

    def gateway(self, host: Host, name: str = "") -> None:
        self.write(
            f"gateways/{name or host.name}.xml", f'<gateway driver="envoy" address="{host.address}" http="80"/>\n'
        )

    def dns(self, host: Host, name: str = "names", zone: str = "k4t.lab") -> None:
        self.write(f"dns/{name}.xml", f'<dns driver="dnsmasq" address="{host.address}" zone="{zone}"/>\n')

    def app(
        self, name: str = "web", *, replicas: int | str = 1, image: str = "", port: int = 8080, more: str = ""
    ) -> Path:
        text = APP.format(replicas=replicas, image=image or self.lab.image, port=port, more=more)
        return self.write(f"apps/{name}/app.xml", text)

    def copy(self, directory: Path) -> Site:
        """The same tree in another place, as a clone or a CI checkout has it: no `.k4t/`."""
        other = Site.__new__(Site)
        other.lab, other.directory, other.db, other.home = self.lab, directory, directory / "db", directory / "home"
        other.started = self.started
        shutil.copytree(self.db, other.db, ignore=shutil.ignore_patterns(".k4t"))
        shutil.copytree(self.home, other.home)
        return other

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        keep = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
        return {**keep, "HOME": str(self.home), "K4T_DB": str(self.db), "NO_COLOR": "1", **(extra or {})}

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "k4t.cli", *words]

    def k4t(self, *words: str, status: int | None = 0, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run it with no standard input; `status` is the exit status that is expected (None: any)."""
        done = subprocess.run(
            self.argv(*words), env=self.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip
        if status is not None and done.returncode != status:
            raise AssertionError(f"k4t {' '.join(words)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def start(self, *words: str, extra: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.argv(*words), env=self.environment(extra), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def end(self) -> None:
        """What a test that failed has left running would disturb those after it."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def json(self, *words: str, status: int | None = 0) -> Any:
        return json.loads(self.k4t(*words, "-o", "json", status=status).stdout)


def containers(host: Host, all: bool = True) -> list[str]:
    """Names of the containers on a host, sorted."""
    words = ["ps", "-a"] if all else ["ps"]
    return sorted(host.docker([*words, "--format", "{{.Names}}"]).stdout.split())


def fetch(url: str, host: str = "", timeout_s: float = 20) -> tuple[int, str]:
    """One GET: status and body."""
    request = urllib.request.Request(url, headers={"Host": host} if host else {})  # noqa: S310 - http alone
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 - the same
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
