"""What plans know of a certificate: its end and its names."""

from __future__ import annotations

import base64
import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k4t.tree.x509 import covers, first
from tests.authority import Authority

pytestmark = pytest.mark.unit
AUTHORITY = Authority()


def test_end_and_names() -> None:
    """As another library reads them."""
    from cryptography import x509

    chain, _ = AUTHORITY.pair("a.example.com", "*.B.example.com", "c.org", days=40)
    read = x509.load_pem_x509_certificate(chain.encode())
    found = first(b"some words before\n" + chain.encode() + AUTHORITY.pair("second")[0].encode())
    assert found.expires == read.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert found.domains == ("a.example.com", "*.b.example.com", "c.org")


@pytest.mark.parametrize("days", [1, 9000, 40000])
def test_both_ways_of_writing_a_year(days: int) -> None:
    """Two digits up to 2049, four from then on."""
    expires = datetime.fromisoformat(first(AUTHORITY.pair("a", days=days)[0].encode()).expires)
    assert abs(expires - datetime.now(UTC) - timedelta(days=days)) < timedelta(minutes=5)


def test_no_names() -> None:
    """A certificate for nobody covers nobody."""
    from tests.authority import _pem

    assert first(_pem(AUTHORITY.certificate).encode()).domains == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "no certificate in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "can't be read"),
        (b"-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----\n", "can't be read"),
        (AUTHORITY.pair("a")[1].encode(), "holds a private key"),
    ],
)
def test_what_is_no_chain(text: bytes, words: str) -> None:
    """It is said what it is instead."""
    with pytest.raises(ValueError, match=words):
        first(text)


@given(st.integers(0, 700), st.integers(0, 255))
def test_damage_is_an_error_and_nothing_else(place: int, value: int) -> None:
    """Whatever byte is wrong, it is a certificate or a ValueError."""
    lines = AUTHORITY.pair("a.example.com")[0].split("\n")
    der = bytearray(base64.b64decode("".join(lines[1:-2])))
    der[place % len(der)] = value
    text = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(der) + b"\n-----END CERTIFICATE-----\n"
    with contextlib.suppress(ValueError):
        first(text)


def test_which_names_are_covered() -> None:
    """A wildcard stands for one label."""
    domains = ("a.b", "*.c.d")
    assert [covers(domains, name) for name in ("a.b", "x.c.d", "x.y.c.d", "c.d", "b", "*.c.d")] == [
        True, True, False, False, False, True,
    ]  # fmt: skip
