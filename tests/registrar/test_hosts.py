"""The hosts driver: a real file, which a real server reads."""

from __future__ import annotations

import dataclasses
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from k4t.registrar import dnsquery
from k4t.registrar.document import Document, Endpoint, Epoch, Record, make
from k4t.registrar.errors import VendorSilent
from tests.registrar.hands import A, B, Door, document

pytestmark = pytest.mark.unit


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path, "hosts", {"path": "/srv/names/k4t.hosts", "zones": ["k4t.lab"]})


def path(door: Door) -> Path:
    return door.root / "srv/names/k4t.hosts"


def names(made: Document, *records: Record, ips: tuple[str, ...] = ("10.0.0.1",)) -> Document:
    endpoints = tuple(Endpoint("web", ip, 80, container=f"c{ip}") for ip in ips)
    return make(dataclasses.replace(made, endpoints=endpoints, records=records or (Record("web", "web"),)))


def test_the_file_is_what_was_published(door: Door) -> None:
    """One line a name and address, sorted; it stands where the tree says."""
    assert path(door).read_text() == "# Written by k4t: what is changed here by hand is replaced.\n"
    door.publish(names(document(kind="dns"), Record("web", "web"), Record("a.x", "web"), ips=("10.0.0.2", "fd88::1")))
    assert path(door).read_text().splitlines()[1:] == [
        "10.0.0.2 a.x.k4t.lab",
        "fd88::1 a.x.k4t.lab",
        "10.0.0.2 web.k4t.lab",
        "fd88::1 web.k4t.lab",
    ]
    assert door.ok(op="observe", cluster=A)["differences"] == []


def test_two_clusters_and_hand_edits(door: Door) -> None:
    """They add up; an edit is told by name and address, and replaced by the next publication."""
    first = names(document(kind="dns"))
    door.publish(first)
    door.publish(names(document(B, kind="dns"), ips=("10.0.0.9",)))
    assert path(door).read_text().splitlines()[1:] == ["10.0.0.1 web.k4t.lab", "10.0.0.9 web.k4t.lab"]
    path(door).write_text(path(door).read_text().replace("10.0.0.9", "10.6.6.6"))
    assert door.ok(op="observe", cluster=A)["differences"] == [
        f"{path(door)} is not what k4t wrote",
        "web.k4t.lab does not give 10.0.0.9",
        "web.k4t.lab gives 10.6.6.6, which is not published",
    ]
    door.publish(dataclasses.replace(first, seq=2, parent=first.sha256), "t2")
    assert door.ok(op="observe", cluster=A)["differences"] == []
    path(door).unlink()
    assert door.ok(op="observe", cluster=A)["differences"] == [f"{path(door)} is gone"]


def test_somebody_elses_file_is_left_alone(tmp_path: Path) -> None:
    """/etc/hosts of the host is not k4t's, whatever the tree says: refused when it is set up."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_text("127.0.0.1 localhost\n")
    kind, said = Door(tmp_path, "hosts").error(op="install", config={"path": "/etc/hosts", "zones": ["k4t.lab"]})
    assert kind == "vendor-refused"
    assert "/etc/hosts holds what k4t did not write" in said
    assert (tmp_path / "etc/hosts").read_text() == "127.0.0.1 localhost\n"


def test_a_file_that_was_replaced_by_another(door: Door) -> None:
    """Between two publications: refused before anything changes."""
    first = names(document(kind="dns"))
    door.publish(first)
    path(door).write_text("10.6.6.6 precious\n")
    second = dataclasses.replace(first, seq=2, parent=first.sha256, epoch=Epoch(1, "run1"))
    assert "holds what k4t did not write" in door.error(**door.prepare(second, "t2"))[1]
    assert path(door).read_text() == "10.6.6.6 precious\n"


def test_srv_is_refused(door: Door) -> None:
    """A hosts file has addresses alone."""
    made = names(document(kind="dns"), Record("_http._tcp.web", "web", "srv", "main"))
    assert "the hosts driver has no srv records" in door.error(**door.prepare(made))[1]


@pytest.fixture
def reader(door: Door) -> Iterator[tuple[tuple[str, int], subprocess.Popen[bytes]]]:
    """A dnsmasq that was told of the file and of nothing else of k4t's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    program = shutil.which("dnsmasq", path="/usr/sbin:/usr/bin")
    assert program, "apt-get install dnsmasq-base"
    server = subprocess.Popen(
        [program, "--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", f"--port={port}",
         "--listen-address=127.0.0.1", "--bind-interfaces", "--user=root", f"--addn-hosts={path(door)}"],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for _ in range(100):  # a SIGHUP before it is ready would end it
        try:
            dnsquery.resolve(("127.0.0.1", port), "ready.k4t.lab", "A")
            break
        except VendorSilent:
            time.sleep(0.05)
    yield ("127.0.0.1", port), server
    server.kill()
    server.wait(10)


def test_a_server_reads_it(door: Door, reader: tuple[tuple[str, int], subprocess.Popen[bytes]]) -> None:
    """What stands there is what is served, once the server has read it (dnsmasq wants SIGHUP, CoreDNS looks itself)."""
    door.publish(names(document(kind="dns"), ips=("10.0.0.2", "10.0.0.3", "fd88::1")))
    address, server = reader
    found: set[str] = set()
    for _ in range(100):
        server.send_signal(signal.SIGHUP)
        found = dnsquery.resolve(address, "web.k4t.lab", "A")
        if found:
            break
        time.sleep(0.05)
    assert found == {"10.0.0.2", "10.0.0.3"}
    assert dnsquery.resolve(address, "web.k4t.lab", "AAAA") == {"fd88::1"}
