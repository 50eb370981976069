"""Encryption with age (https://age-encryption.org/v1), through pyrage and nowhere else.

Recipients are `age1…` keys and ssh-ed25519 or ssh-rsa public keys; identities are age's own files and unencrypted
OpenSSH private keys. pyrage is imported late: most runs have nothing to open.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from k4t.errors import K4tError, Usage

HOME_IDENTITY = "~/.config/k4t/identity"
MAX_BYTES = 256 * 1024
_OPENSSH = b"-----BEGIN"
_SSH_KEYS = ("ssh-ed25519", "ssh-rsa")


class NoIdentity(K4tError):
    """There is none on this machine, or none that fits."""


def identity_path() -> Path:
    """K4T_IDENTITY, else ~/.config/k4t/identity."""
    return Path(os.environ.get("K4T_IDENTITY") or HOME_IDENTITY).expanduser()


def parse_recipient(text: str) -> Any:
    """The key of one recipient. Raises Usage; the text of a private key is not repeated."""
    from pyrage import RecipientError, ssh, x25519

    words = text.split()
    try:
        if len(words) == 1 and words[0].startswith("age1"):
            return x25519.Recipient.from_str(words[0])
        if len(words) >= 2 and words[0] in _SSH_KEYS:
            return ssh.Recipient.from_str(" ".join(words[:2]))
    except RecipientError:
        pass
    shown = "a private key" if re.search("SECRET|PRIVATE", text, re.IGNORECASE) else repr(text[:80])
    raise Usage(f"{shown} is no recipient", "give an age1… key, or an ssh-ed25519 or ssh-rsa public key")


def public_key(text: str) -> str:
    """The text of a recipient: given as such, or the first line of a file that holds one. Raises Usage."""
    if text.startswith(("age1", "ssh-")):
        return text
    try:
        with Path(text).expanduser().open(encoding="utf-8") as file:
            lines = [line.strip() for line in file.read(MAX_BYTES).splitlines()]
    except (OSError, UnicodeDecodeError, ValueError):
        raise Usage(f"{text!r} is neither a recipient nor a file that holds one", "give an age1… or ssh key") from None
    return next((line for line in lines if line and not line.startswith("#")), "")


def encrypt(data: bytes, recipients: Sequence[str]) -> bytes:
    """Raises Usage for what is no recipient."""
    import pyrage

    return bytes(pyrage.encrypt(data, [parse_recipient(one) for one in recipients]))


def decrypt(data: bytes, identities: Sequence[Any]) -> bytes:
    """Raises NoIdentity when none of these fits, K4tError when it is no age file or damaged."""
    import pyrage

    if not identities:
        raise NoIdentity("no identity here", f"set K4T_IDENTITY, or put one at {HOME_IDENTITY}")
    try:
        return bytes(pyrage.decrypt(data, list(identities)))
    except pyrage.DecryptError as error:
        if "No matching keys" in str(error):
            raise NoIdentity(
                "it is not encrypted to the identity here", "ask a colleague to add you: k4t secret recipients add KEY"
            ) from None
        raise K4tError("it is no age file, or damaged", "restore it") from None


def encrypt_stream(source: Any, sink: Any, recipients: Sequence[str]) -> None:
    """From one binary file (or what has `read`) into another, without holding either. Raises Usage for what is no
    recipient."""
    import pyrage

    pyrage.encrypt_io(source, sink, [parse_recipient(one) for one in recipients])


def decrypt_stream(source: Any, sink: Any, identities: Sequence[Any]) -> None:
    """Raises as `decrypt`, and what `sink` raises. What was written before an error counts for nothing."""
    import pyrage

    if not identities:
        raise NoIdentity("no identity here", "name a file that holds one")
    try:
        pyrage.decrypt_io(source, sink, list(identities))
    except (pyrage.DecryptError, OSError) as error:
        if "No matching keys" in str(error):
            raise NoIdentity("it is not encrypted to the identity here", "name a file that holds another") from None
        raise K4tError("it is no age file, or damaged") from None


def read_identities(path: Path) -> list[Any]:
    """The identities of one file. Raises NoIdentity when there is none, K4tError when others may read it or it is
    no identity. Nothing of its content gets into a message."""
    data = _private_bytes(path)
    from pyrage import IdentityError, ssh, x25519

    try:
        if data.lstrip().startswith(_OPENSSH):
            return [ssh.Identity.from_buffer(data)]
        lines = [line.strip() for line in data.decode("ascii").splitlines()]
        found = [x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (IdentityError, UnicodeDecodeError):
        found = []
    if not found:
        raise K4tError(
            f"identity {path} is neither an age identity nor an unencrypted ssh key",
            "name another with K4T_IDENTITY; one with a passphrase can't be used",
        )
    return found


def parse_identity(text: str) -> Any:
    """The identity of an “AGE-SECRET-KEY-1…”. Raises ValueError, which doesn't repeat it."""
    from pyrage import IdentityError, x25519

    try:
        return x25519.Identity.from_str(text.strip())
    except IdentityError:
        raise ValueError("it is no age identity") from None


def new_identity(comment: str) -> tuple[str, str]:
    """The text of an identity file, and the recipient."""
    from pyrage import x25519

    made = x25519.Identity.generate()
    public = str(made.to_public())
    return f"# {comment}\n# public key: {public}\n{made}\n", public


def make_identity(path: Path, comment: str) -> str:
    """Write a new identity (mode 0600, its directory 0700) and return its recipient. Never overwrites."""
    text, public = new_identity(comment)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise K4tError(f"can't write the identity {path}: {error.strerror}", "name another with K4T_IDENTITY") from None
    return public


def recipient_of(path: Path) -> str:
    """The recipient that belongs to the identity in a file; for an ssh key, its .pub file's. Raises as
    `read_identities`, and K4tError when the public half isn't there."""
    identity = read_identities(path)[0]
    if hasattr(identity, "to_public"):
        return str(identity.to_public())
    public = path.with_name(path.name + ".pub")
    try:
        return " ".join(public.read_text(encoding="utf-8").split()[:2])
    except (OSError, UnicodeDecodeError):
        raise K4tError(
            f"can't read {public}, the public half of {path}", f"ssh-keygen -y -f {path} > {public}"
        ) from None


def _private_bytes(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise K4tError(f"identity {path} is no regular file", "name another with K4T_IDENTITY")
            if status.st_mode & 0o077:
                mode = f"{stat.S_IMODE(status.st_mode):04o}"
                raise K4tError(f"identity {path} has mode {mode}: others may read it", f"chmod 600 {path}")
            return file.read(MAX_BYTES)
    except FileNotFoundError:
        if os.environ.get("K4T_IDENTITY"):
            raise NoIdentity(f"no identity at {path}", "K4T_IDENTITY names it: correct that") from None
        raise NoIdentity("no identity here", f"set K4T_IDENTITY, or put one at {HOME_IDENTITY}") from None
    except OSError as error:
        raise K4tError(f"identity {path} can't be read: {error.strerror}", "look at its path and mode") from None
