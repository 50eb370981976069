"""A certificate authority of the tests' own: fresh pairs of chain and key, and clients that trust it."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import Any


class Authority:
    """A certificate authority that clients of the tests trust."""

    def __init__(self) -> None:
        self.key = _key()
        self.certificate = _signed("k4t test", (), self.key, self.key, "k4t test", ca=True)

    def pair(self, *names: str, days: int = 90) -> tuple[str, str]:
        """A new chain and its key, PEM, that is valid for so many days from now on."""
        key = _key()
        return _pem(_signed(names[0], names, key, self.key, "k4t test", days=days)), _pem_key(key)

    def trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=_pem(self.certificate))
        context.set_alpn_protocols(["http/1.1"])
        return context


def _key() -> Any:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _signed(
    name: str, domains: tuple[str, ...], key: Any, by: Any, issuer: str, *, ca: bool = False, days: int = 90
) -> Any:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import NameOID

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if domains:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(d) for d in domains]), critical=False)
    return builder.sign(by, hashes.SHA256())


def _pem(certificate: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    text: bytes = certificate.public_bytes(Encoding.PEM)
    return text.decode()


def _pem_key(key: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return text.decode()
