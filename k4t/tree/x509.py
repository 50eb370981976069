"""As much of a certificate as plans need: until when it is valid, and for which names. 50 lines of DER, since importing
a library for it costs 70 ms at every run.

Sources: RFC 5280 (Certificate, Validity, SubjectAltName), ITU-T X.690 (DER), RFC 7468 (PEM).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_SUBJECT_ALT_NAME = bytes.fromhex("0603551d11")
_SEQUENCE, _OCTETS, _UTC_TIME, _DNS_NAME, _EXTENSIONS, _VERSION = 0x30, 0x04, 0x17, 0x82, 0xA3, 0xA0
_LENGTH_MAX_BYTES = 4


@dataclass(frozen=True, slots=True)
class Leaf:
    """The first certificate of a chain. `expires`: RFC 3339 UTC."""

    expires: str
    domains: tuple[str, ...]


def first(chain: bytes) -> Leaf:
    """Raises ValueError, in words, for what is no chain of certificates in PEM."""
    if b"PRIVATE KEY-----" in chain:
        raise ValueError("holds a private key; that belongs into a secret (k4t secret set)")
    found = _BLOCK.search(chain)
    if found is None:
        raise ValueError("holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")
    try:
        return _leaf(base64.b64decode(found[1], validate=False))
    except (IndexError, ValueError, StopIteration, binascii.Error):
        raise ValueError("holds a certificate that can't be read") from None


def _leaf(der: bytes) -> Leaf:
    certificate = _only(der)
    fields = list(_items(_only(certificate)))
    if fields[0][0] == _VERSION:
        fields = fields[1:]
    _serial, _algorithm, _issuer, validity, *rest = fields
    _, (kind, not_after) = _items(validity[1])
    extensions = next((content for tag, content in rest if tag == _EXTENSIONS), b"")
    return Leaf(_time(kind, not_after), tuple(_domains(extensions)))


def _only(der: bytes) -> bytes:
    """The content of the sequence that stands first."""
    tag, content = next(_items(der))
    if tag != _SEQUENCE:
        raise ValueError("no sequence")
    return content


def _items(der: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) one after the other. Raises IndexError where it is cut off."""
    place = 0
    while place < len(der):
        tag, length = der[place], der[place + 1]
        place += 2
        if length & 0x80:
            count = length & 0x7F
            if not 0 < count <= _LENGTH_MAX_BYTES:
                raise ValueError("no length")
            length = int.from_bytes(der[place : place + count], "big")
            place += count
        if place + length > len(der):
            raise IndexError
        yield tag, der[place : place + length]
        place += length


def _time(kind: int, text: bytes) -> str:
    said = text.decode("ascii")
    if kind == _UTC_TIME:  # two digits of the year: 50 to 99 are of the last century
        said = ("19" if said >= "5" else "20") + said
    return datetime.strptime(said, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _domains(extensions: bytes) -> Iterator[str]:
    for _, extension in _items(_only(extensions)) if extensions else ():
        if extension.startswith(_SUBJECT_ALT_NAME):
            (content,) = (content for tag, content in _items(extension) if tag == _OCTETS)
            yield from (name.decode("ascii").lower() for tag, name in _items(_only(content)) if tag == _DNS_NAME)


def covers(domains: tuple[str, ...], domain: str) -> bool:
    """Whether a client that asks for `domain` would accept it: a wildcard stands for one label."""
    wider = "*." + domain.partition(".")[2]
    return domain in domains or wider in domains
