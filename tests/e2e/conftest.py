"""One lab for all acceptance tests of the main job; a clean cluster for each test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import Site, containers
from tests.lab import Host, Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Two nodes, one host that is gateway and DNS server, a registry, and another master."""
    with Lab(name=f"e2e-{os.getpid()}", nodes=2, gateways=1, registry=True, extra=("m2",)) as up:
        yield up


@pytest.fixture
def site(lab: Lab, tmp_path: Path) -> Iterator[Site]:
    """An empty tree with both nodes; what a test left on the hosts is wiped after it."""
    made = Site(lab, tmp_path)
    made.node(lab.host("n1"))
    made.node(lab.host("n2"))
    yield made
    made.end()
    for host in lab.nodes:
        wipe_node(host)


@pytest.fixture
def published(site: Site, lab: Lab) -> Iterator[Site]:
    """The same with a gateway and a DNS server, installed."""
    host = lab.host("gw1")
    site.gateway(host)
    site.dns(host)
    site.k4t("gateway", "install")
    site.k4t("dns", "install")
    yield site
    wipe(host)


def wipe_node(host: Host) -> None:
    """No container is left, and no file of any cluster's."""
    if names := containers(host):
        host.docker(["rm", "-f", *names])
    host.exec(["rm", "-rf", "/var/lib/k4t"])


def wipe(host: Host) -> None:
    """End what `install` started and forget every cluster's documents."""
    host.exec(["sh", "-c", "cat /run/k4t-*.pid /run/k4t/*/*.pid | xargs -r kill -9"], check=False)
    host.exec(["sh", "-c", "rm -rf /var/lib/k4t /etc/k4t /run/k4t /run/k4t-*"])
