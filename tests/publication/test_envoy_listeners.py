"""Envoy's listeners, which come and go with routes, and the certificates that stand on its host."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator

import pytest

from k4t.errors import StepError, VendorRefused
from k4t.gateway import install
from k4t.model.hosts import Gateway
from k4t.registrar.document import Certificate, Route
from tests.lab import Lab
from tests.publication.gate import HTTP, HTTPS, Gate, said

pytestmark = pytest.mark.integration
LDS = "/var/lib/k4t/envoy/lds/lds.json"
WEB = Route("web", domains=("a.example.com",), tls="example")
DB = Route("db", listen=5432)


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    with Lab(name=f"lds-{os.getpid()}", nodes=0, gateways=1, dns=0, registry=False) as lab:
        host = lab.host("gw1")
        made = Gate(lab, host, Gateway("gw1", "envoy", host.address, http=HTTP, https=HTTPS))
        made.set_up()
        yield made


@pytest.fixture
def served(gate: Gate) -> Iterator[tuple[Gate, Certificate]]:
    """http, https and a port of its own."""
    certificate = gate.certificate("example", "a.example.com")
    gate.publish({WEB: (8001,), DB: (8020,)}, certificate)
    yield gate, certificate
    gate.publish({})


def all_served(gate: Gate) -> bool:
    with gate.line(5432) as connection:
        return (gate.get("a.example.com").port, gate.get("a.example.com", tls=True).port, said(connection, b"x")) == (
            8001, 8001, b"8020:x",
        )  # fmt: skip


def test_a_port_that_somebody_else_holds(served: tuple[Gate, Certificate]) -> None:
    """Envoy can't listen there: its words, and everything that was served still is; without that port it goes on."""
    gate, certificate = served
    taken = Route("taken", listen=8005)
    with pytest.raises(VendorRefused, match=r"Envoy refuses .*lds\.json: .*8005.*Address already in use"):
        gate.publish({WEB: (8001,), DB: (8020,), taken: (8021,)}, certificate)
    assert all_served(gate)
    gate.publish({WEB: (8001,), DB: (8020,)}, certificate)
    assert gate.differences() == ()
    assert all_served(gate)


def test_listeners_that_were_edited_by_hand(served: tuple[Gate, Certificate]) -> None:
    """A difference that names them; the next publication heals it."""
    gate, certificate = served
    gate.host.exec(["sed", "-i", "s/5432/5433/", LDS])  # sed renames: Envoy reads it
    found = gate.differences()
    assert f"{LDS} is not what k4t wrote" in found
    gate.publish({WEB: (8001,), DB: (8020,)}, certificate)
    assert gate.differences() == ()
    gate.host.exec(["rm", LDS])
    assert gate.differences() == (f"{LDS} is not what k4t wrote",)
    gate.publish({WEB: (8001,), DB: (8020,)}, certificate)
    assert gate.differences() == ()
    assert all_served(gate)


def test_a_certificate_that_was_lost(served: tuple[Gate, Certificate]) -> None:
    """Told, and uploaded again."""
    gate, certificate = served
    directory = f"/var/lib/k4t/certificates/{gate.cluster}"
    for part in ("key", "chain"):
        gate.host.exec(["rm", f"{directory}/{certificate.sha256}.{part}.pem"])
        assert gate.differences() == ("certificate example: is not on this host",)
        gate.publish({WEB: (8001,), DB: (8020,)}, certificate)
        assert gate.differences() == ()


def test_a_key_of_another_certificate(served: tuple[Gate, Certificate]) -> None:
    """Refused before anything changes, by name; the key is not shown."""
    gate, certificate = served
    new, other = (gate.certificate("example", "a.example.com") for _ in range(2))
    gate.pairs[new.sha256] = (gate.pairs[new.sha256][0], gate.pairs[other.sha256][1])
    with pytest.raises(StepError, match=r"certificate example: a certificate and its key don't fit") as told:
        gate.publish({WEB: (8001,), DB: (8020,)}, new)
    assert "PRIVATE" not in str(told.value)
    assert all_served(gate)
    gate.publish({WEB: (8001,), DB: (8020,)}, certificate)
    assert gate.differences() == ()


def test_files_of_the_operator_that_change(gate: Gate) -> None:
    """Envoy shows the new ones when they are renamed into place; nobody publishes anything."""
    theirs = gate.operators_files("theirs", "a.example.com")
    gate.publish({dataclasses.replace(WEB, tls="theirs"): (8001,)}, theirs)
    before = gate.serial("a.example.com")
    gate.operators_files("theirs", "a.example.com")
    deadline = time.monotonic() + 10
    while gate.serial("a.example.com") == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gate.serial("a.example.com") != before
    assert gate.differences() == ()
    gate.publish({})


def test_envoy_restarted(served: tuple[Gate, Certificate]) -> None:
    """Nothing is lost."""
    gate, _ = served
    gate.host.exec(["sh", "-c", "kill -9 $(cat /run/k4t-envoy.pid)"])
    while gate.host.exec(["sh", "-c", "kill -0 $(cat /run/k4t-envoy.pid)"], check=False).returncode == 0:
        pass
    done = list(install.install(gate.connection(), gate.gateway))
    assert "started as a daemon" in done[0]
    assert all_served(gate)
    assert gate.differences() == ()


def test_other_ports(served: tuple[Gate, Certificate]) -> None:
    """The tree says another https port, install puts it into force; without one a route with tls is refused."""
    gate, certificate = served
    moved = dataclasses.replace(gate.gateway, https=8443)
    list(install.install(gate.connection(), moved))
    with gate.line(8443, tls="a.example.com") as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    redirected = dataclasses.replace(WEB, redirect="https")
    gate.publish({redirected: (8001,)}, certificate)
    assert gate.get("a.example.com", "/x").headers["location"] == "https://a.example.com:8443/x"
    gate.publish({})
    list(install.install(gate.connection(), dataclasses.replace(gate.gateway, https=0)))
    with pytest.raises(VendorRefused, match="this gateway has no https port"):
        gate.publish({WEB: (8001,)}, certificate)
    list(install.install(gate.connection(), gate.gateway))
    gate.publish({WEB: (8001,), DB: (8020,)}, certificate)
    assert all_served(gate)


def test_keys_stay_where_they_belong(served: tuple[Gate, Certificate]) -> None:
    """In files that root alone reads: in no document, configuration, log or argument list."""
    gate, certificate = served
    key = gate.pairs[certificate.sha256][1].splitlines()[1]
    found = gate.host.exec(["sh", "-c", f"grep -rlF '{key}' /var/lib/k4t /var/log/k4t /etc/k4t /run 2>/dev/null; true"])
    (path,) = found.stdout.split()
    assert path.endswith(f"{certificate.sha256}.key.pem")
    assert gate.host.exec(["stat", "-c", "%U %a", path]).stdout.split() == ["root", "600"]
    commands = gate.host.exec(["sh", "-c", "cat /proc/[0-9]*/cmdline"], check=False).stdout
    assert key not in commands
