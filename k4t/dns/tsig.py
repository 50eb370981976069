"""TSIG keys (RFC 8945), from the secrets of the tree."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from k4t.errors import StepError
from k4t.model.hosts import Dns

ALGORITHMS = ("hmac-sha256", "hmac-sha384", "hmac-sha512", "hmac-sha224", "hmac-sha1", "hmac-md5")


@dataclass(frozen=True, slots=True)
class Key:
    """A TSIG key. Its secret is in no representation of it."""

    name: str
    algorithm: str
    secret: bytes = field(repr=False)


def tsig_key(dns: Dns, secret: Callable[[], str]) -> Key | None:
    """The one that the tree names for a server; None when it names none. Raises StepError, SecretUnavailable."""
    return parse_key(dns.key_name, secret(), dns.secret) if dns.key_name else None


KEY_STATEMENT = re.compile(r'algorithm\s+"?([a-z0-9-]+)"?\s*;.*secret\s+"([A-Za-z0-9+/=]+)"', re.DOTALL | re.IGNORECASE)


def parse_key(name: str, text: str, secret: str) -> Key:
    """From a secret's value: base64 (then it is hmac-sha256), ALGORITHM:base64, or what `tsig-keygen` prints.

    Raises StepError, which names the secret and never shows it.
    """
    statement = KEY_STATEMENT.search(text)
    algorithm, _, encoded = statement.expand(r"\1:\2").partition(":") if statement else _split(text.strip())
    if algorithm.lower() not in ALGORITHMS:
        raise StepError(f"secret {secret} has an unknown TSIG algorithm", f"there are {', '.join(ALGORITHMS)}")
    try:
        value = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if not value:
        raise StepError(f"secret {secret} is no TSIG key", "store what `tsig-keygen` prints, or its base64 text alone")
    return Key(name, algorithm.lower(), value)


def _split(text: str) -> tuple[str, str, str]:
    algorithm, colon, encoded = text.rpartition(":")
    return (algorithm, colon, encoded) if colon else (ALGORITHMS[0], ":", text)
