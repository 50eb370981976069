"""A thousand altered copies, and confirmations: every one refused, with a reason."""

from __future__ import annotations

import base64
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from k4t.errors import BadCopy
from k4t.master.backup import envelope, snapshot
from k4t.master.backup.keys import Keys
from k4t.master.backup.snapshot import Snapshot
from k4t.model.snapshot import Certificate
from k4t.tree import signing
from tests.backup.trees import AT, Cluster, make, opened, signed

pytestmark = pytest.mark.unit
Altered = tuple[str, bytes]
CLUSTER = Cluster()
ARCHIVE = b"".join(bytes(range(40)) + b"<app/>" * 20 for _ in range(30))


def seeded() -> random.Random:
    """The same places at every run."""
    return random.Random(20261120)  # noqa: S311 - nothing secret comes of it


def genuine(number: int, **said: Any) -> Snapshot:
    return make(CLUSTER, ARCHIVE + bytes([number]), sequence=number, **said)


def refused(data: bytes) -> str:
    """The reason. One line, short, printable; nothing of what is in the copy, and no other exception."""
    with pytest.raises(BadCopy) as caught:
        opened(CLUSTER, data)
    words = str(caught.value)
    assert words
    assert words.isprintable()
    assert len(words) < 300
    assert "<app/>" not in words
    return caught.value.message


def parts(copy: Snapshot) -> dict[str, Any]:
    found = json.loads(copy.header)
    assert isinstance(found, dict)
    return found


def file(content: dict[str, Any], payload: bytes) -> bytes:
    return envelope.canonical(content).encode() + b"\n" + payload


# --- the thousand ----------------------------------------------------------------------------------------------------


def flipped_bits(rng: random.Random, copy: Snapshot) -> Iterator[Altered]:
    for _ in range(300):
        at = rng.randrange(len(copy.header))
        yield "a bit of the header", flipped(copy.data, at, 1 << rng.randrange(8))
    for _ in range(250):
        at = len(copy.header) + rng.randrange(len(copy.payload))
        yield "a bit of the payload", flipped(copy.data, at, 1 << rng.randrange(8))


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def cut_and_grown(rng: random.Random, copy: Snapshot) -> Iterator[Altered]:
    data = copy.data
    for size in rng.sample(range(len(data)), 150):
        yield "cut off", data[:size]
    for _ in range(100):
        at = rng.randrange(len(data))
        yield "bytes put in", data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:]
    for _ in range(60):
        at = rng.randrange(len(data) - 9)
        yield "bytes taken out", data[:at] + data[at + rng.randrange(1, 9) :]
    yield "something after it", data + b"\0"


def swapped(_: random.Random, copy: Snapshot) -> Iterator[Altered]:
    """Each part of three genuine copies, of another confirmation and of another machine, in the place of each other."""
    second = Cluster(id=CLUSTER.id, private=CLUSTER.private, identity=CLUSTER.identity)
    others = [genuine(8), genuine(9, encrypted=False), genuine(10, serial=3), make(second, ARCHIVE)]
    for other in others:
        yield "another payload", copy.header + other.payload
        yield "another header", other.header + copy.payload
        for name in ("manifest", "signature", "certificate", "certified"):
            if parts(copy)[name] != parts(other)[name]:
                yield f"another {name}", file(parts(copy) | {name: parts(other)[name]}, copy.payload)
                yield f"another {name}", file(parts(copy) | {name: parts(other)[name]}, other.payload)
        mixed = parts(copy) | {name: parts(other)[name] for name in ("manifest", "signature")}
        yield "another manifest and signature", file(mixed, copy.payload)
    statement = json.loads(snapshot.confirmation(CLUSTER.keys(), "node1", copy.manifest, AT))
    confirmed = parts(copy) | {"manifest": statement["statement"], "signature": statement["signature"]}
    yield "a confirmation for a manifest", file(confirmed, copy.payload)
    yield "a confirmation", snapshot.confirmation(CLUSTER.keys(), "node1", copy.manifest, AT) + copy.payload


def foreign(_: random.Random, copy: Snapshot) -> Iterator[Altered]:
    """Other clusters, other keys, other uses."""
    stranger, namesake = Cluster(id="another1"), Cluster(id=CLUSTER.id)
    payload = CLUSTER.keys().recovery
    for encrypted in (True, False):
        yield "another cluster", make(stranger, ARCHIVE, encrypted=encrypted).data
        yield "a cluster of the same id", make(namesake, ARCHIVE, encrypted=encrypted).data
        mine = replace(namesake.keys(), recovery=payload)
        yield "a self-made certificate", make(namesake, ARCHIVE, keys=mine, encrypted=encrypted).data
        for keys in made_up_keys(stranger):
            yield "a certificate that is none", make(CLUSTER, ARCHIVE, keys=keys, encrypted=encrypted).data
        intents = CLUSTER.keys(uses=("intents",))
        yield "a certificate for intents", make(CLUSTER, ARCHIVE, keys=intents, encrypted=encrypted).data
    elsewhere = CLUSTER.keys(cluster="another1")
    yield "this cluster's key for another", make(CLUSTER, ARCHIVE, keys=elsewhere).data
    yield "a manifest of another cluster", signed(CLUSTER, copy, copy.payload, cluster="another1")


def made_up_keys(stranger: Cluster) -> Iterator[Keys]:
    keys = CLUSTER.keys()
    yield replace(keys, private=signing.new_private())
    yield replace(keys, certified=stranger.keys().certified)
    yield replace(keys, certificate=stranger.keys().certificate)
    yield replace(keys, certified="")
    yield replace(keys, certified=base64.b64encode(bytes(64)).decode())
    certificate = Certificate(CLUSTER.id, "ed25519:" + base64.b64encode(bytes(32)).decode(), ("snapshots",), AT)
    text = envelope.certificate_text(certificate)
    yield replace(keys, certificate=text, certified=envelope.certify(CLUSTER.private, text))
    for text in ("", "{}", "[]", "null", '{"cluster":"k7f3q2m9"}', "x" * 100):
        yield replace(keys, certificate=text, certified=envelope.certify(CLUSTER.private, text))


def pretending(_: random.Random, copy: Snapshot) -> Iterator[Altered]:
    clear = genuine(7, encrypted=False)
    manifest = parts(copy)["manifest"].replace('"encrypted":true', '"encrypted":false')
    yield "unencrypted, it says", file(parts(copy) | {"manifest": manifest}, copy.payload)
    yield "unencrypted, it says", file(parts(copy) | {"manifest": manifest}, clear.payload)
    yield "encrypted, signed, and isn't", signed(CLUSTER, copy, clear.payload)
    yield "unencrypted, signed, and isn't", signed(CLUSTER, clear, copy.payload)
    for payload in (
        b"",
        b"\0",
        b"\x1f\x8b",
        b"\xfd7zXZ\0",
        clear.payload[:-1],
        clear.payload + b"\0",
        clear.payload * 2,
    ):
        yield "signed, and no archive in it", signed(CLUSTER, clear, payload)
        yield "signed, and no archive in it", signed(CLUSTER, copy, payload)
    for size in (0, 1, len(ARCHIVE), len(ARCHIVE) + 2, 1 << 61):
        yield "another size, signed", signed(CLUSTER, clear, clear.payload, archive_bytes=size)


def shapes(rng: random.Random, copy: Snapshot) -> Iterator[Altered]:
    """Headers that are not what k4t writes, though some JSON readers would take them for it."""
    line, payload = copy.header[:-1], copy.payload
    content = parts(copy)
    wrong: object
    for made in (
        b"", b"\n", b"\n" + line, b" " + line, line + b" ", line + b"\r", b"\xef\xbb\xbf" + line, b"[" + line + b"]",
        b"null", b"0", b"[]", b"{}", b'""', b"nan", b"Infinity", b"{" * 2000, b"[" * 4000, b"9" * 4000, b"1e999",
        line.replace(b'"signature"', b'"signature":"x","signature"'), line.replace(b",", b", "), line + line,
        line[:-1] + b',"more":1}', line.replace(b"k4t", b"\\u006b4t"), line.decode().encode("utf-16"),
        line.decode().encode("utf-16-be"), line.decode().encode("utf-32-le"), line.replace(b"k4t", b"k\0t"),
        line.replace(b"k7f", b"\xff"), b"\xff" + line, b"\0" * 3000, line[:50] + b"\0" + line[50:],
        b'{"k4t-snapshot":1,"pad":"' + b"x" * 5000 + b'",' + line[18:], b"x" * 100_000, line.replace(b"1,", b"1.0,", 1),
        line.replace(b":1,", b":true,", 1), line.replace(b":1,", b":2,", 1), line.replace(b":1,", b":-1,", 1),
        line.replace(b":1,", b":" + b"9" * 600 + b",", 1), line.replace(b"snapshot", b"confirmation", 1),
    ):  # fmt: skip
        yield "another shape", made + b"\n" + payload
    for name in list(content):
        yield "a key less", file({key: found for key, found in content.items() if key != name}, payload)
        for wrong in (None, 0, True, [], {}, "", "é", "\x1b[2J", "x" * 3000, [content[name]]):
            yield "a value of another kind", file(content | {name: wrong}, payload)
    names = list(content)
    for _ in range(10):
        rng.shuffle(names)
        if names != list(content):
            yield "another order", file({name: content[name] for name in names}, payload)


def manifests(_: random.Random, copy: Snapshot) -> Iterator[Altered]:
    """Signed by the right key, and nonsense all the same."""
    said = json.loads(parts(copy)["manifest"])
    wrong: object
    for name in said:
        for wrong in (None, -1, 1 << 62, 1.5, "", "x", "\n", "a" * 65, [], {}, "2026-11-20T12:00:00Z\n"):
            if wrong != said[name] and not (name in ("lineage", "previous") and wrong in ("", "x")):
                yield "a manifest of nonsense", with_manifest(envelope.canonical(said | {name: wrong}), copy.payload)
    for text in ("", "{}", "[]", "null", envelope.canonical(said | {"more": 1}), json.dumps(said), "x"):
        yield "a manifest that is none", with_manifest(text, copy.payload)


def with_manifest(text: str, payload: bytes) -> bytes:
    keys = CLUSTER.keys()
    return (
        envelope.seal(
            envelope.SNAPSHOT, text, private=keys.private, certificate=keys.certificate, certified=keys.certified
        )
        + payload
    )


def test_a_thousand_altered_copies_are_refused() -> None:
    """Each with a reason, none with anything but BadCopy; and the one that they were made of is taken."""
    rng, copy = seeded(), genuine(7)
    count: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    makers: tuple[Callable[[random.Random, Snapshot], Iterator[Altered]], ...] = (
        flipped_bits, cut_and_grown, swapped, foreign, pretending, shapes, manifests,
    )  # fmt: skip
    for maker in makers:
        for kind, data in maker(rng, copy):
            assert data != copy.data, kind
            try:
                reasons[re.sub(r"\d+", "N", refused(data))] += 1
            except BaseException as error:
                raise AssertionError(f"{kind}: {data[:300]!r}") from error
            count[kind] += 1
    assert opened(CLUSTER, copy.data) == ARCHIVE + bytes([7])
    assert count.total() >= 1000, count
    assert len(count) >= 25, count
    assert len(reasons) >= 20, reasons


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (lambda _: b"", "it is empty"),
        (lambda _: b"x" * 9000, "its header has no end within 4096 bytes"),
        (lambda _: b"x" * 90, "its header is not what k4t writes: altered, or broken"),
        (lambda copy: b"\xff" + copy.data, "its header is not text"),
        (lambda copy: copy.data[:-1], "it has N bytes after its header instead of N: cut off or longer"),
        (
            lambda copy: flipped(copy.data, len(copy.data) - 1, 1),
            "its contents are not those that were signed (sha256)",
        ),
        (
            lambda _: make(Cluster(id="another1"), b"").data,
            "it is not certified by the key of k7f3q2m9 (it says it is of another1)",
        ),
        (lambda _: make(Cluster(), b"").data, "it is not certified by the key of k7f3q2m9"),
        (
            lambda _: make(CLUSTER, b"", keys=CLUSTER.keys(cluster="another1")).data,
            "it is of another cluster: another1, not k7f3q2m9",
        ),
        (
            lambda _: make(CLUSTER, b"", keys=CLUSTER.keys(uses=("intents",))).data,
            "the key that signed it is certified for intents, not for snapshots",
        ),
        (
            lambda copy: file(parts(copy) | {"manifest": parts(genuine(8))["manifest"]}, copy.payload),
            "its signature is not right: altered, or signed for something else",
        ),
        (
            lambda copy: file({"k4t-snapshot": 2}, copy.payload),
            "it says it is of format N, this k4t reads N",
        ),
        (
            lambda copy: signed(CLUSTER, copy, copy.payload, archive_bytes=1 << 61),
            "it says it unpacks to N bytes; at most N are allowed",
        ),
        (
            lambda copy: signed(CLUSTER, copy, b"no age file"),
            "what is in it can't be decrypted: it is no age file, or damaged",
        ),
    ],
)
def test_the_reason_is_the_right_one(kind: Callable[[Snapshot], bytes], reason: str) -> None:
    """What an operator reads."""
    found = re.sub(r"\b\d+\b", "N", refused(kind(genuine(7))))
    assert found == re.sub(r"\b\d+\b", "N", reason)


def test_what_a_stranger_writes_can_not_drive_a_terminal() -> None:
    """A certificate that nobody signed is not quoted, unless it names what could be a cluster."""
    for id_ in ("\x1b[2Jgone", "a" * 5000, "x y"):
        keys = replace(Cluster().keys(), cluster=CLUSTER.id)
        text = envelope.canonical({"cluster": id_, "key": CLUSTER.key, "uses": [], "at": AT})
        with pytest.raises(BadCopy) as caught:
            envelope.read_certificate(text, keys.certified, CLUSTER.id, CLUSTER.key)
        assert caught.value.message == "it is not certified by the key of k7f3q2m9"


def test_altered_confirmations_are_refused() -> None:
    """Bits, bytes and parts, as of copies; a manifest is no confirmation."""
    rng, copy = seeded(), genuine(7)
    data = snapshot.confirmation(CLUSTER.keys(), "node1", copy.manifest, AT)
    cases = [flipped(data, rng.randrange(len(data) - 1), 1 << rng.randrange(8)) for _ in range(200)]
    cases += [data[:size] for size in rng.sample(range(len(data) - 1), 100)]
    other = snapshot.confirmation(Cluster(id="another1").keys(), "node1", copy.manifest, AT)
    cases += [copy.header, other, b"", b"x" * 5000, b"\0", b"{}"]
    intents = snapshot.confirmation(CLUSTER.keys(uses=("intents",)), "node1", copy.manifest, AT)
    for case in [*cases, intents]:
        with pytest.raises(BadCopy):
            snapshot.check_confirmation(case, cluster=CLUSTER.id, cluster_key=CLUSTER.key)
    assert snapshot.check_confirmation(data, cluster=CLUSTER.id, cluster_key=CLUSTER.key).sequence == 7
