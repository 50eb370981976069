"""Ed25519 signatures (RFC 8032), through `cryptography` and nowhere else; imported late.

A public key is written “ed25519:” and base64 of its 32 bytes; a private one is 32 raw bytes. What is signed begins with
its purpose, so that no signature can be shown for something else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

_PREFIX = "ed25519:"
KEY_BYTES = 32


def new_private() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate().private_bytes_raw()


def public_of(private: bytes) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    raw = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    return _PREFIX + base64.b64encode(raw).decode()


def new_openssh() -> bytes:
    """A new private key as OpenSSH keeps it, without a passphrase."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def openssh_public(private: bytes) -> str:
    """“ssh-ed25519 AAAA…” of what `new_openssh` made. Raises ValueError for anything else."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

    try:
        key = load_ssh_private_key(private, None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("it is not an Ed25519 key")  # noqa: TRY004 - what the file holds, not what the caller gave
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def sign(private: bytes, purpose: bytes, text: bytes) -> str:
    """base64 of the signature."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return base64.b64encode(Ed25519PrivateKey.from_private_bytes(private).sign(_bound(purpose, text))).decode()


def verify(public: str, purpose: bytes, text: bytes, signature: str) -> bool:
    """Whether it is that key's signature of that text; False too for what is no key or no signature."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(raw(public))
        key.verify(base64.b64decode(signature, validate=True), _bound(purpose, text))
    except (ValueError, InvalidSignature):
        return False
    return True


def raw(public: str) -> bytes:
    """The 32 bytes of a public key. Raises ValueError for what is none."""
    try:
        found = base64.b64decode(public.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        found = b""
    if not public.startswith(_PREFIX) or len(found) != KEY_BYTES:
        raise ValueError(f"{public[:60]!r} is no key like {_PREFIX}…")
    return found


def fingerprint(public: str) -> str:
    """For people: sha256 of the raw key, its first 16 hex digits in groups of four."""
    digest = hashlib.sha256(raw(public)).hexdigest()[:16]
    return " ".join(digest[start : start + 4] for start in range(0, 16, 4))


def _bound(purpose: bytes, text: bytes) -> bytes:
    return purpose + b"\0" + text
