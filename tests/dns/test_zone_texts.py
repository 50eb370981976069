"""What stands in a zone's TXT records and comes back from them; keys; names. Pure."""

from __future__ import annotations

import base64
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t.dns import records
from k4t.dns.records import Claim, srv_target
from k4t.dns.tsig import parse_key
from k4t.dns.wire import Records
from k4t.dns.zonestate import (
    ClusterState,
    Index,
    Pointer,
    Unreadable,
    cluster_name,
    pack,
    piece_names,
    read_cluster,
    read_index,
    unpack,
    write_cluster,
    write_index,
)
from k4t.errors import StepError
from k4t.registrar.document import BadDocument, Document, Endpoint, Epoch, Record, make
from k4t.registrar.store import Holding, Withdrawal
from k4t.registrar.union import unite

pytestmark = pytest.mark.unit
ZONE, ID = "k4t.lab", "k7f3q2m9"

words = st.text("abcxyz019._:@-", min_size=1, max_size=40)
pointers = st.builds(Pointer, st.text("0123456789abcdef", min_size=64, max_size=64), st.integers(1, 100), words)
withdrawals = st.builds(
    Withdrawal, st.just(ID), st.sampled_from(["10.0.0.1", "fd88::1"]), st.integers(0, 65535),
    st.sampled_from(["", "c1", "f" * 64]), st.sampled_from(["", "monitor"]), st.sampled_from(["", "3 probes failed"]),
)  # fmt: skip
states = st.builds(
    ClusterState, st.builds(Epoch, st.integers(0, 2**53 - 1), words), st.none() | pointers, st.none() | pointers,
    st.none() | pointers, st.none() | pointers, st.sampled_from(["", "web.k4t.lab A 10.6.6.6 is in the zone already"]),
    st.lists(withdrawals, max_size=1).map(tuple),
)  # fmt: skip


@given(states)
def test_a_clusters_state_comes_back(state: ClusterState) -> None:
    """Whatever it is, in whatever order a server gives its records."""
    assert read_cluster(ZONE, ID, write_cluster(state)) == state


@given(st.lists(st.sampled_from(["a1b2", "k7f3q2m9", "z9"]), unique=True), st.integers(0, 10**17))
def test_the_index_comes_back(clusters: list[str], count: int) -> None:
    """And every write of it is another one."""
    index = Index("ab12", count, "cd34", tuple(sorted(clusters)))
    assert read_index(ZONE, write_index(index)) == index
    after = index.written("ef56", ID)
    assert (after.id, after.count, ID in after.clusters) == ("ab12", count + 1, True)
    assert write_index(after) != write_index(index)


@pytest.mark.parametrize(
    "values",
    [
        {"v=spf1 -all"},
        {"k4t=1 id=ab writes=1 by=cd", "hello"},
        {"k4t=1 id=ab writes=1 by=cd", "k4t=1 id=x"},
        {"cluster=a"},
    ],
)
def test_somebody_elses_text_is_no_index(values: set[str]) -> None:
    """It is refused by name, not guessed at."""
    with pytest.raises(Unreadable, match=r"_k4t\.k4t\.lab TXT is not what k4t writes"):
        read_index(ZONE, Records(0, frozenset(values)))


@pytest.mark.parametrize("value", ["fence=x run", "live=12 1 t", "nonsense", "out=10.0.0.1", "staged=", "fence=1 a b"])
def test_somebody_elses_text_is_no_state(value: str) -> None:
    """The same for a cluster."""
    with pytest.raises(Unreadable, match=r"_k4t-k7f3q2m9\.k4t\.lab TXT is not what k4t writes"):
        read_cluster(ZONE, ID, Records(0, frozenset({value})))


def document(count: int) -> Document:
    endpoints = tuple(
        Endpoint("web", f"10.{n // 250}.0.{n % 250 + 1}", 80, container=f"{n * 7919:064x}") for n in range(count)
    )
    return make(
        Document(ID, "prod", "dns", "default", Epoch(1, "r"), 1, "", endpoints, records=(Record("web", "web"),))
    )


def test_a_document_comes_back() -> None:
    """In as many pieces as it takes, each with a name that its content decides."""
    made = document(2000)
    pointer, pieces = pack(ZONE, made, "t1", ((1, "a" * 64), (2, "b" * 64)))
    assert pointer.pieces == len(pieces) > 1
    names = piece_names(ZONE, ID, pointer)
    assert all(name.endswith(cluster_name(ZONE, ID)[0]) for name, _ in names)
    assert unpack(ZONE, ID, pointer, [pieces[name] for name in names]) == (made, ((1, "a" * 64), (2, "b" * 64)))


def test_damage_is_told() -> None:
    """A piece that is gone, altered, of another document, or of another cluster."""
    pointer, pieces = pack(ZONE, document(3), "t1", ())
    (piece,) = pieces.values()
    (text,) = piece.values
    for found in (
        [None],
        [Records(0, frozenset({text[: len(text) // 2 & ~3]}))],
        [Records(0, frozenset({"!" + text}))],
        [Records(0, frozenset({text, "x"}))],
    ):
        with pytest.raises(Unreadable, match=r"at _k4t-k7f3q2m9\.k4t\.lab"):
            unpack(ZONE, ID, pointer, found)
    with pytest.raises(Unreadable, match="checksum or cluster is wrong"):
        unpack(ZONE, ID, dataclasses.replace(pointer, sha256="0" * 64), [piece])
    with pytest.raises(Unreadable, match="checksum or cluster is wrong"):
        unpack(ZONE, "z9z9z9z9", pointer, [piece])


def test_a_document_that_is_too_large() -> None:
    """With both numbers."""
    import random

    chance = random.Random(1)  # noqa: S311 - test data
    endpoints = tuple(
        Endpoint("web", f"10.{n // 62500}.{n // 250 % 250}.{n % 250}", 80, container=chance.randbytes(32).hex())
        for n in range(26_000)
    )
    huge = Document(ID, "prod", "dns", "default", endpoints=endpoints)
    with pytest.raises(BadDocument, match=r"takes \d+ bytes in TXT records; a zone holds 1200000"):
        pack(ZONE, huge, "t1", ())


SECRET = base64.b64encode(b"0123456789abcdef").decode()
STATEMENT = f'key "k4t" {{\n\talgorithm hmac-sha512;\n\tsecret "{SECRET}";\n}};\n'


@pytest.mark.parametrize(
    ("text", "algorithm"),
    [
        (SECRET, "hmac-sha256"),
        (f"  {SECRET}\n", "hmac-sha256"),
        (f"hmac-sha384:{SECRET}", "hmac-sha384"),
        (STATEMENT, "hmac-sha512"),
    ],
)
def test_keys(text: str, algorithm: str) -> None:
    """As tsig-keygen prints it, as nsupdate -y has it, or alone; never in its own representation."""
    key = parse_key("k4t", text, "tsig")
    assert (key.algorithm, key.secret) == (algorithm, b"0123456789abcdef")
    assert SECRET not in repr(key)
    assert "0123456789abcdef" not in repr(key)


@pytest.mark.parametrize("text", ["", "not base64!", "rot13:" + SECRET, "hmac-sha256:"])
def test_no_keys(text: str) -> None:
    """Refused by the secret's name; its text is not shown."""
    with pytest.raises(StepError, match="secret tsig") as caught:
        parse_key("k4t", text, "tsig")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "ip", "host"),
    [
        ("_http._tcp.web.k4t.lab", "10.0.0.1", "10-0-0-1.web.k4t.lab"),
        ("_http._tcp.web.k4t.lab", "::1", "0-0-0-0-0-0-0-1.web.k4t.lab"),
        ("_http._tcp.k4t.lab", "10.0.0.1", "10-0-0-1.k4t.lab"),
        ("plain.k4t.lab", "10.0.0.1", "10-0-0-1.plain.k4t.lab"),
    ],
)
def test_hosts_of_srv_records(name: str, ip: str, host: str) -> None:
    """A label that no hyphen begins or ends, below the name without its underscores."""
    assert srv_target(name, ip) == host


def test_one_ttl_of_a_name_and_type() -> None:
    """Two SRV records of one app share hosts: the smaller TTL holds, since all records of a name and type have one."""
    made = make(
        Document(
            ID,
            "prod",
            "dns",
            "default",
            endpoints=tuple(Endpoint("web", "10.0.0.1", port, name) for port, name in ((80, "http"), (81, "admin"))),
            records=(
                Record("_http._tcp.web", "web", "srv", "http", ttl_s=60),
                Record("_admin._tcp.web", "web", "srv", "admin", ttl_s=5),
            ),
        )
    )
    wanted = records.render(unite([Holding(made, "", ZONE)]))
    assert wanted["10-0-0-1.web.k4t.lab", "A"] == Records(5, frozenset({"10.0.0.1"}))
    assert wanted["_http._tcp.web.k4t.lab", "SRV"].ttl_s == 60


def test_names_beyond_dns() -> None:
    """The mark stands below the name: that must fit too."""
    long = ".".join(["a" * 60] * 4)
    said = list(records.beyond_limits({(f"_k4t-owner.{long}", "TXT"): Records(0, frozenset({"x"}))}))
    assert len(said) == 1
    assert "is too long for a DNS name" in said[0]


def test_an_alias_in_the_way() -> None:
    """Of a new name it is a stranger's; of one's own it is drift, and goes."""
    claim = Claim("web.k4t.lab", ("A", "AAAA"), ("_k4t-owner.web.k4t.lab", "TXT"))
    found = {("web.k4t.lab", "CNAME"): Records(60, frozenset({"elsewhere.lab."}))}
    assert "web.k4t.lab CNAME elsewhere.lab. is in the zone already" in next(
        iter(records.strangers([claim], found).values())
    )
    assert records.difference({}, [claim], found).remove == (("web.k4t.lab", "CNAME"),)
    assert "web.k4t.lab is an alias of elsewhere.lab., which is not published" in records.words({}, [claim], found)
