"""Host keys as OpenSSH keeps them (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT): read without failing, checked, enrolled.

A line that can't be read is no key and no error. `@cert-authority` lines are no host keys (certificates of hosts are
not asked for); a key on a matching `@revoked` line is refused, whatever else is known.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from k4t.errors import HostKeyChanged, HostKeyUnknown, K4tError
from k4t.model.value import value

MAX_FILE_BYTES = 16 * 1024 * 1024


@value
class HostKey:
    """`type` as it stands in the file (ssh-ed25519, ecdsa-sha2-nistp256, ssh-rsa …); `blob` is the public key."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        return fingerprint(self)

    @property
    def short_type(self) -> str:
        """ED25519, ECDSA, RSA …"""
        return _short(self.type)

    @property
    def words(self) -> str:
        """ED25519 SHA256:…, as `ssh` shows it."""
        return f"{self.short_type} {self.fingerprint}"


@value
class Entry:
    """One line: `marker` is "", "cert-authority" or "revoked"; `file` and `line` say where."""

    marker: str
    hosts: str
    key: HostKey
    file: str
    line: int

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def fingerprint(key: HostKey) -> str:
    """SHA256:base64, as `ssh-keygen -lf` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.blob).digest()).decode().rstrip("=")


def lookup_name(host: str, port: int) -> str:
    """The name under which a host's key is kept: `host`, or `[host]:port` where the port isn't 22."""
    return host if port == 22 else f"[{host}]:{port}"


def parse(data: bytes, file: str = "") -> tuple[Entry, ...]:
    """Every line that is a key, in order. Never raises."""
    lines = enumerate(data.split(b"\n"), start=1)
    return tuple(entry for number, line in lines if (entry := _parse_line(line, file, number)) is not None)


def _parse_line(line: bytes, file: str, number: int) -> Entry | None:
    words = line.decode("utf-8", "replace").split()
    marker = ""
    if words and words[0].startswith("@"):
        marker = words.pop(0)[1:]
        if marker not in ("cert-authority", "revoked"):
            return None
    if len(words) < 3 or words[0].startswith("#"):
        return None
    try:
        blob = base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    if _blob_type(blob) != words[1]:
        return None
    return Entry(marker, words[0], HostKey(words[1], blob), file, number)


def _blob_type(blob: bytes) -> str:
    length = int.from_bytes(blob[:4], "big")
    return blob[4 : 4 + length].decode("ascii", "replace") if len(blob) > 4 + length else ""


def matches(hosts: str, name: str) -> bool:
    """Does a line's host field name this host? Hashed, wildcards and negation as sshd(8) says."""
    if hosts.startswith("|"):
        return _hash_matches(hosts, name)
    found = False
    for pattern in hosts.split(","):
        if pattern.startswith("!"):
            if _wildcard(pattern[1:], name):
                return False
        elif _wildcard(pattern, name):
            found = True
    return found


def _hash_matches(hosts: str, name: str) -> bool:
    parts = hosts.split("|")
    if len(parts) != 4 or parts[1] != "1":
        return False
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in parts[2:])
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)


def _wildcard(pattern: str, name: str) -> bool:
    """OpenSSH knows `*` and `?` and no brackets; `[` is part of `[host]:port`. Case doesn't count."""
    pattern, name = pattern.lower(), name.lower()
    if "*" not in pattern and "?" not in pattern:
        return pattern == name
    expression = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in re.sub(r"\*+", "*", pattern))
    return re.fullmatch(expression, name, re.DOTALL) is not None


class KnownHosts:
    """Files in the order in which they are asked: the first that knows a host decides; a revocation in any counts."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)
        self._entries = tuple(_read(path) for path in files)

    def known(self, name: str) -> tuple[Entry, ...]:
        """The keys enrolled for a host in the file that decides."""
        for entries in self._entries:
            found = tuple(entry for entry in entries if not entry.marker and matches(entry.hosts, name))
            if found:
                return found
        return ()

    def check(self, host: str, name: str, presented: HostKey) -> None:
        """Raises HostKeyUnknown or HostKeyChanged unless `name` is known by this very key.

        `host` is the tree's name for it, with a jump host on the way to it in brackets behind.
        """
        trust = f"k4t trust {host.partition(' ')[0]}"
        for entry in self._revoked(name):
            if entry.key == presented:
                raise HostKeyChanged(
                    f"the key that {name} presents, {presented.words}, is revoked at {entry.place}",
                    f"nothing was sent; give the host a new key, then enrol it: {trust}",
                    host=host,
                )
        known = self.known(name)
        if not known:
            raise HostKeyUnknown(
                f"the host key of {name} is not known; it presents {presented.words}",
                f"compare it on the host (ssh-keygen -lf /etc/ssh/ssh_host_{_file_type(presented.type)}_key.pub),"
                f" then enrol it: {trust}",
                host=host,
            )
        if any(entry.key == presented for entry in known):
            return
        old = next((entry for entry in known if entry.key.type == presented.type), known[0])
        raise HostKeyChanged(
            f"the host key of {name} has changed: known is {old.key.words} ({old.place}), presented {presented.words}",
            f"nothing was sent; if the host was set up anew, enrol its key: {trust}; if not, someone is in between",
            host=host,
        )

    def _revoked(self, name: str) -> list[Entry]:
        entries = (entry for entries in self._entries for entry in entries)
        return [entry for entry in entries if entry.marker == "revoked" and matches(entry.hosts, name)]


class Fingerprints(KnownHosts):
    """Hosts by the fingerprints of their keys, wherever they are met: what a recovery kit knows. `prints`: (name as in
    `lookup_name`, or "", “ED25519” or "", “SHA256:…”). A host that `files` know is known by those alone."""

    def __init__(self, prints: Iterable[tuple[str, str, str]], files: Sequence[Path] = ()) -> None:
        super().__init__(files)
        self._prints = tuple(prints)

    def known(self, name: str) -> tuple[Entry, ...]:
        """What types of keys to ask a host for: its own, if it has not moved. They hold no key."""
        if found := super().known(name):
            return found
        own = [one for one in self._prints if one[0] == name] or self._prints
        types = dict.fromkeys(type for _, short, _ in own for type in _LONG.get(short, ()))
        return tuple(Entry("", name, HostKey(type, b""), "", 0) for type in types)

    def check(self, host: str, name: str, presented: HostKey) -> None:
        """Raises HostKeyUnknown unless the key is one of them; HostKeyChanged as the files have it."""
        if super().known(name) or self._revoked(name):
            super().check(host, name, presented)
        elif not any(fingerprint == presented.fingerprint for _, _, fingerprint in self._prints):
            raise HostKeyUnknown(
                f"the kit knows no host with the key that {name} presents, {presented.words}",
                f"nothing was sent; compare it on the host (ssh-keygen -lf /etc/ssh/ssh_host_"
                f"{_file_type(presented.type)}_key.pub), then add --trust {presented.fingerprint}",
                host=host,
            )


def enrol(path: Path, names: Sequence[str], keys: Iterable[HostKey]) -> None:
    """Make `keys` the only ones that this file holds for `names`. Every other line stays, byte for byte.

    The file is replaced by rename after fsync. Raises K4tError naming the path when that can't be.
    """
    old = b""
    with suppress(FileNotFoundError):
        old = _bytes(path)
    kept = b"".join(line for line in (_without(line, names) for line in old.splitlines(keepends=True)) if line)
    if kept and not kept.endswith(b"\n"):
        kept += b"\n"
    hosts = ",".join(dict.fromkeys(names))
    added = "".join(f"{hosts} {key.type} {base64.b64encode(key.blob).decode()}\n" for key in keys)
    try:
        _replace(path, kept + added.encode())
    except OSError as error:
        raise K4tError(f"can't write {path}: {error.strerror}") from error


def _without(line: bytes, names: Sequence[str]) -> bytes:
    entry = _parse_line(line, "", 0)
    if entry is None or entry.marker:
        return line
    if entry.hosts.startswith("|"):
        return b"" if any(matches(entry.hosts, name) for name in names) else line
    listed = entry.hosts.split(",")
    kept = [host for host in listed if host not in names]
    if kept == listed:
        return line
    return line.replace(entry.hosts.encode(), ",".join(kept).encode(), 1) if kept else b""


def _replace(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".known_hosts-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read(path: Path) -> tuple[Entry, ...]:
    """A file that isn't there or can't be read knows no host."""
    try:
        return parse(_bytes(path), str(path))
    except OSError:
        return ()


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES)


_ECDSA = tuple(f"ecdsa-sha2-nistp{bits}" for bits in (256, 384, 521))
_LONG = {"ED25519": ("ssh-ed25519",), "ECDSA": _ECDSA, "RSA": ("ssh-rsa",)}


def _short(key_type: str) -> str:
    return {"ssh-ed25519": "ED25519", "ssh-rsa": "RSA", "ssh-dss": "DSA"}.get(
        key_type, key_type.partition("-")[0].upper()
    )


def _file_type(key_type: str) -> str:
    return _short(key_type).lower()
