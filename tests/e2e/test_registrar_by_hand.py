"""The registrar as people, nodes and the monitor use it on a real gateway host, and what a full disk does to it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import wipe
from tests.e2e.site import Site, fetch
from tests.lab import Host, Lab

pytestmark = pytest.mark.integration
ROUTED = '<route domain="web.k4t.lab"/><health interval="1s"><http path="/"/></health>'


def pages(host: Host) -> set[str]:
    """Who answers at the gateway, of twenty requests."""
    return {fetch(f"http://{host.address}/", "web.k4t.lab")[1].split()[0] for _ in range(20)}


def files(host: Host) -> str:
    """A fingerprint of all that the gateway serves from."""
    return host.exec(
        ["sh", "-c", "find /var/lib/k4t/envoy /var/lib/k4t/registrar -type f | sort | xargs sha256sum"]
    ).stdout


def test_a_restricted_key_withdraws_through_sshd_and_does_nothing_else(
    published: Site, lab: Lab, tmp_path: Path
) -> None:
    """The monitor's key of docs/registrar.md: a dead endpoint goes at once, all else is refused, there is no shell,
    and the next apply keeps the endpoint out until its container is another one."""
    published.app("web", replicas=2, more=ROUTED)
    published.k4t("apply", "--yes")
    edge = lab.host("gw1")
    assert len(pages(edge)) == 2
    key = tmp_path / "monitor"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    forced = f'command="/usr/local/bin/k4t-registrar --driver envoy --cluster {published.id} '
    forced += '--verbs withdraw,restore,list forced",restrict '
    line = forced + key.with_suffix(".pub").read_text()
    edge.exec(["sh", "-c", "cat >>/root/.ssh/authorized_keys"], input=line)

    def ssh(*words: str) -> subprocess.CompletedProcess[str]:
        options = ["-F", "none", "-i", str(key), "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={lab.known_hosts}"]
        return subprocess.run(
            ["ssh", *options, f"root@{edge.address}", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=30, check=False,
        )  # fmt: skip

    dead = f"--cname web --ip {lab.host('n1').address} --port 8080"
    done = ssh(f"k4t-registrar withdraw {dead} --why 'n1 burns'")
    assert done.returncode == 0, done.stderr
    assert len(pages(edge)) == 1
    assert "n1 burns" in ssh("list").stdout
    published.k4t("apply", "--yes")
    assert len(pages(edge)) == 1
    for command in ("id", "sh -i", "rpc", f"add {dead}", f"withdraw {dead} --cluster other"):
        refused = ssh(command)
        assert refused.returncode == 64, command
        assert "uid=" not in refused.stdout
    assert ssh(f"restore {dead}").returncode == 0
    assert len(pages(edge)) == 2


def test_a_full_disk_on_the_gateway_changes_nothing(site: Site, lab: Lab) -> None:
    """Exit 1 or 3 names the host and what is full; the files are what they were, and serve; with room, the next apply
    does it."""
    edge = lab.host("gw1")
    edge.exec(["sh", "-c", "mkdir -p /var/lib/k4t && mount -t tmpfs -o size=2m none /var/lib/k4t"])
    try:
        site.gateway(edge)
        site.k4t("gateway", "install")
        site.app("web", replicas=1, more=ROUTED)
        site.k4t("apply", "--yes")
        edge.exec(["sh", "-c", "dd if=/dev/zero of=/var/lib/k4t/fill bs=4k 2>/dev/null; true"])
        before = files(edge)
        site.app("web", replicas=2, more=ROUTED)
        refused = site.k4t("apply", "--yes", status=None)
        assert refused.returncode in (1, 3), refused.stderr
        said = refused.stdout + refused.stderr
        assert "gw1" in said
        assert "No space left" in said
        assert files(edge) == before
        assert len(pages(edge)) == 1
        edge.exec(["rm", "/var/lib/k4t/fill"])
        site.k4t("apply", "--yes")
        assert len(pages(edge)) == 2
    finally:
        edge.exec(["umount", "-l", "/var/lib/k4t"])
        wipe(edge)
