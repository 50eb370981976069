"""The head survives its way to a host and back, and garbage on a host is no head."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t.errors import K4tError
from k4t.model.snapshot import Lineage
from k4t.model.state import Former, Head, Revision, Size
from k4t.registrar.document import Document, Record, Route
from k4t.remote import head
from k4t.remote.fake import FakeTransport

pytestmark = pytest.mark.unit

HEAD = Head(
    cluster="k7f3q2m9",
    serial=44,
    tree="f" * 64,
    revisions=(Revision(43, "", {"web": "a"}), Revision(44, "f" * 64, {"web": "b"})),
    held={"web": "v1:00"},
    digests={"web:1": "sha256:00"},
    who="anna",
    at="2026-01-01T00:00:00Z",
)


def test_round_trip() -> None:
    """What is written is read."""
    transport = FakeTransport()
    head.write(transport, HEAD)
    assert head.read(transport, "k7f3q2m9") == HEAD


def test_who_is_the_master_is_written_where_it_is_known() -> None:
    """And costs nobody the head where it isn't understood."""
    written = dataclasses.replace(HEAD, lineage=Lineage(2, "0123456789abcdef", 44, "anna", "2026-01-01T00:00:00Z"))
    assert head.parse(head.encode(written)) == written
    assert b"lineage" not in head.encode(HEAD)
    data = json.loads(head.encode(HEAD))
    nonsense: tuple[object, ...] = ({"generation": "two", "id": "x"}, {}, [], 7)
    for strange in nonsense:
        assert head.parse(json.dumps({**data, "lineage": strange}).encode()) == HEAD


def test_sizes_are_written_where_there_are_any() -> None:
    """And one that isn't understood is left out: what runs counts then."""
    sizes = {"web": Size(4, "anna", "2026-01-01T00:00:00Z", "the sale"), "api": Size(2)}
    written = dataclasses.replace(HEAD, sizes=sizes)
    assert head.parse(head.encode(written)) == written
    assert b"sizes" not in head.encode(HEAD)
    data = json.loads(head.encode(written))
    assert data["sizes"]["api"] == {"replicas": 2}
    nonsense: tuple[object, ...] = ({"replicas": "4"}, {}, [], 7, {"replicas": 4, "who": 1}, {"replicas": True})
    for strange in nonsense:
        data["sizes"]["web"] = strange
        assert head.parse(json.dumps(data).encode()) == dataclasses.replace(HEAD, sizes={"api": Size(2)})


LEADING = Former(
    "v1:01",
    (
        Document("k7f3q2m9", "prod", "gateway", "default", routes=(Route("web", domains=("a.lab",)),)),
        Document("k7f3q2m9", "prod", "dns", "default", records=(Record("web.k4t.lab", "web"),)),
    ),
)


def test_what_an_update_goes_back_to_is_read_as_it_was_written() -> None:
    """Routes, checks and records of then."""
    written = dataclasses.replace(HEAD, former={"web": LEADING})
    assert head.parse(head.encode(written)) == written
    assert b"former" not in head.encode(HEAD)


def test_what_is_not_understood_of_it_costs_nothing_else() -> None:
    """A newer k4t may have more to say of a route: that app's is left out, the head counts."""
    data = json.loads(head.encode(dataclasses.replace(HEAD, former={"web": LEADING, "api": LEADING})))
    data["former"]["web"]["documents"][0]["routes"][0]["colour"] = "red"
    found = head.parse(json.dumps(data).encode())
    assert found == dataclasses.replace(HEAD, former={"api": LEADING})


def test_place_is_the_clusters_own() -> None:
    """Clusters that share a host keep their heads apart; a strange one in its place is none."""
    transport = FakeTransport()
    assert head.read(transport, "k7f3q2m9") is None
    transport.at.files[head.path("other")] = head.encode(HEAD)
    assert head.read(transport, "other") is None


def test_only_the_newest_hundred_revisions() -> None:
    """A head does not grow for ever."""
    many = Head("c", 250, revisions=tuple(Revision(n, "") for n in range(1, 251)))
    parsed = head.parse(head.encode(many))
    assert parsed is not None
    assert [revision.serial for revision in parsed.revisions] == list(range(151, 251))


def test_newer_format_is_refused() -> None:
    """A head of a newer k4t is not guessed at."""
    data = json.loads(head.encode(HEAD)) | {"format": 2}
    with pytest.raises(K4tError, match=r"format 2.*up to 1; update k4t"):
        head.parse(json.dumps(data).encode())


@given(st.binary(max_size=200))
def test_garbage_is_no_head(data: bytes) -> None:
    """Bytes that are no head are as good as none."""
    assert head.parse(data) is None


@given(st.integers(0, len(head.encode(HEAD)) - 2))
def test_cut_head_is_no_head(size: int) -> None:
    """A head cut anywhere is none."""
    assert head.parse(head.encode(HEAD)[:size]) is None


@pytest.mark.parametrize("key", ["serial", "tree", "revisions", "held", "digests", "who"])
def test_wrong_types_are_no_head(key: str) -> None:
    """A value of the wrong kind makes no head, and no error."""
    data = json.loads(head.encode(HEAD)) | {key: {"x": [1]}}
    assert head.parse(json.dumps(data).encode()) is None
