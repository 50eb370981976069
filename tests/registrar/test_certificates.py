"""Certificates travel apart from documents: uploaded once, stored by hash, the key for root's eyes alone."""

from __future__ import annotations

import dataclasses
import os
import time
from hashlib import sha256
from pathlib import Path

import pytest

from k4t.registrar import certificates
from k4t.registrar.document import Certificate, Document, make
from tests.authority import Authority
from tests.registrar.hands import A, B, Door, document, envoy

pytestmark = pytest.mark.unit
AUTHORITY = Authority()


def item(*names: str) -> dict[str, str]:
    chain, key = AUTHORITY.pair(*names)
    return {"sha256": sha256(chain.encode()).hexdigest(), "chain": chain, "key": key}


def secured(digest: str, cluster: str = A) -> Document:
    made = document(cluster)
    routes = (dataclasses.replace(made.routes[0], tls="example"),)
    return make(dataclasses.replace(made, routes=routes, certificates=(Certificate("example", digest),)))


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return envoy(tmp_path, https=443)


def stored(door: Door, cluster: str = A) -> Path:
    return door.root / "var/lib/k4t/certificates" / cluster


def test_uploaded_once(door: Door) -> None:
    """What the host has is not asked for again; the key is nobody's to read, and in no document."""
    pair = item("example.com")
    digest = pair["sha256"]
    assert door.ok(op="certificates", cluster=A, want=[digest]) == {"missing": [digest]}
    assert door.ok(op="certificates", cluster=A, put=[pair], want=[digest]) == {"missing": []}
    assert door.ok(op="certificates", cluster=B, want=[digest]) == {"missing": [digest]}
    key = stored(door) / f"{digest}.key.pem"
    assert key.read_text() == pair["key"]
    assert key.stat().st_mode & 0o777 == 0o600
    door.publish(secured(digest))
    for path in door.root.rglob("*.json"):
        assert "PRIVATE KEY" not in path.read_text()


def test_a_document_waits_for_its_certificate(door: Door) -> None:
    """Prepare says which one is missing; nothing is staged."""
    pair = item("example.com")
    kind, message = door.error(**door.prepare(secured(pair["sha256"])))
    assert (kind, message) == ("vendor-refused", "certificate example: is not on this host")
    door.ok(op="certificates", cluster=A, put=[pair])
    door.publish(secured(pair["sha256"]))


@pytest.mark.parametrize("part", ["chain", "key"])
def test_files_that_are_gone_or_altered_are_differences(door: Door, part: str) -> None:
    """Seen when looking, and asked for again at the next publication."""
    pair = item("example.com")
    digest = pair["sha256"]
    door.ok(op="certificates", cluster=A, put=[pair])
    door.publish(secured(digest))
    path = stored(door) / f"{digest}.{part}.pem"
    path.unlink()
    assert "certificate example: is not on this host" in door.ok(op="observe", cluster=A)["differences"]
    door.ok(op="certificates", cluster=A, put=[pair])
    assert not any("certificate" in line for line in door.ok(op="observe", cluster=A)["differences"])
    (stored(door) / f"{digest}.chain.pem").write_text("x")
    assert door.ok(op="certificates", cluster=A, want=[digest]) == {"missing": [digest]}


def test_what_does_not_belong_together_is_refused(door: Door) -> None:
    """Another key, another checksum, no certificate at all, a key with a password: nothing is stored, nothing shown."""
    one, other = item("one.example.com"), item("two.example.com")
    words = "not a certificate"
    nonsense = {"sha256": sha256(words.encode()).hexdigest(), "chain": words, "key": one["key"]}
    for wrong in ({**one, "key": other["key"]}, {**one, "sha256": other["sha256"]}, nonsense, {}, "x"):
        kind, message = door.error(op="certificates", cluster=A, put=[wrong])
        assert kind == "bad-request"
        assert message.startswith("a certificate ")
        assert "PRIVATE" not in message
    assert door.error(op="certificates", cluster=A, want=["../../x"])[0] == "bad-request"
    assert not list(stored(door).glob("*.pem")) if stored(door).exists() else True


def test_files_of_the_operator(door: Door, tmp_path: Path) -> None:
    """Paths that aren't there are refused by name."""
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    made = secured("0" * 64)
    files = (Certificate("example", chain_path=str(chain), key_path=str(key)),)
    made = make(dataclasses.replace(made, certificates=files))
    assert f"{chain} is not on this host; {key} is not on this host" in door.error(**door.prepare(made))[1]
    chain.write_text("x")
    key.write_text("x")
    door.publish(made)


def test_unused_ones_are_removed_after_a_while(door: Door) -> None:
    """A week after no document names it any more; what is live or staged stays however old it is."""
    live, staged, unused, fresh = (item("example.com") for _ in range(4))
    for pair in (live, staged, unused):
        door.ok(op="certificates", cluster=A, put=[pair])
    door.publish(secured(live["sha256"]))
    newer = dataclasses.replace(secured(staged["sha256"]), seq=2, parent=secured(live["sha256"]).sha256)
    door.ok(**door.prepare(newer))
    for path in stored(door).iterdir():
        os.utime(path, times=(0, time.time() - certificates.KEPT_S - 60))
    door.ok(op="certificates", cluster=A, put=[fresh])
    left = {path.name.partition(".")[0] for path in stored(door).iterdir()}
    assert left == {pair["sha256"] for pair in (live, staged, fresh)}
