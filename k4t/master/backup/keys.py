"""The keys of copies: who signs them, and who can open them.

    KEYS: CLUSTERID in $K4T_KEYS, else in $XDG_CONFIG_HOME/k4t/clusters, else in ~/.config/k4t/clusters             0700
      signing-key          Ed25519, this machine's own, never copied                                                0600
      certificate.json     the cluster key's word that it may sign: {"certificate":TEXT,"certified":base64}         0600
      recovery-identity    age; only where the cluster's keys were made, until `k4t kit --forget`                   0600
      recovery.xml         as it was last seen in the tree, should it get lost there                                0600

The cluster's own private key is nowhere but in `recovery.xml` of the tree, sealed: encrypted to the recovery
recipients. It is opened to certify a machine, and for nothing else.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from k4t.errors import BadCopy, K4tError, Locked, NotCertified, Usage
from k4t.master.backup import envelope
from k4t.model.snapshot import Certificate, Recovery, RecoveryRecipient
from k4t.model.spec import Tree
from k4t.model.value import value
from k4t.tree import age, recovery, signing
from k4t.tree.edit import write_file
from k4t.tree.read import read_recovery
from k4t.tree.values import CLUSTER_ID

USES = ("snapshots", "intents")
SIGNING_KEY, CERTIFICATE, IDENTITY, KNOWN = "signing-key", "certificate.json", "recovery-identity", recovery.NAME
LOCK_WAIT_S = 10.0
_MAX_BYTES = 128 * 1024
_PRIVATE = re.compile(r"ed25519-private:([A-Za-z0-9+/]{43}=)\n?")


@value
class Keys:
    """This machine may sign for `cluster`. `private`: its own key. `certificate` (text) and `certified` say so."""

    cluster: str
    private: bytes
    certificate: str
    certified: str
    recovery: Recovery

    def __repr__(self) -> str:
        return f"Keys({self.cluster!r}, {signing.public_of(self.private)!r})"


class HoldsIdentity(Protocol):
    """A recovery kit, as far as it matters here. `identity`: AGE-SECRET-KEY-…, "" when it is kept elsewhere."""

    @property
    def identity(self) -> str: ...


def keys_directory(cluster_id: str) -> Path:
    """Raises Usage when neither a setting nor a home says where that is."""
    try:
        CLUSTER_ID.parse(cluster_id)
    except ValueError:
        raise Usage(f"{cluster_id[:60]!r} is not the id of a cluster", "see cluster.xml") from None
    if own := os.environ.get("K4T_KEYS"):
        return Path(own).expanduser().absolute() / cluster_id
    config = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        base = Path(config) if config.startswith("/") else Path("~/.config").expanduser()
    except RuntimeError:
        raise Usage("there is no home directory to keep keys in", "set HOME, or K4T_KEYS") from None
    return base / "k4t" / "clusters" / cluster_id


# --- to sign -----------------------------------------------------------------------------------------------------


def load(tree: Tree, use: str = USES[0]) -> Keys | None:
    """None when this machine may not sign that for the tree (or the tree has no recovery.xml). Raises K4tError when
    others may read its keys, or they are broken."""
    if tree.recovery is None:
        return None
    directory = keys_directory(tree.cluster.id)
    private, certificate = _signing_key(directory), read_private(directory / CERTIFICATE)
    if private is None or certificate is None:
        return None
    try:
        found = json.loads(certificate)
        text, certified = str(found["certificate"]), str(found["certified"])
        granted = envelope.read_certificate(text, certified, tree.cluster.id, tree.recovery.key)
    except (BadCopy, ValueError, KeyError, TypeError):
        return None
    if granted.key != signing.public_of(private) or use not in granted.uses:
        return None
    return Keys(tree.cluster.id, private, text, certified, tree.recovery)


def ensure(db: Path, tree: Tree, at: str) -> tuple[Keys, tuple[str, ...]]:
    """The keys, made or certified where they are missing, and what an operator should hear about that.

    `db` gets a recovery.xml if it has none. Of two at once, one makes them, and both use the same. Raises NotCertified
    with the remedy, K4tError when something can't be read or written, or others may read it."""
    directory = keys_directory(tree.cluster.id)
    with alone(directory):
        found, notes = _recovery(db, tree, directory)
        keys = load(_with(tree, found))
        if keys is None:
            identities = _own_identity(directory, found)
            if not identities:
                raise not_certified(tree.cluster.id)
            keys = _certified(tree.cluster.id, found, identities, at, USES)
            if not notes:
                notes = ("this machine's key was certified with the recovery identity that is kept here",)
        _remember(directory, found)
    return keys, notes


def certify(
    cluster_id: str, found: Recovery, identities: Sequence[Any], at: str, uses: tuple[str, ...] = USES
) -> Keys:  # fmt: skip
    """Make this machine one that may sign: its key, if it has none, and a certificate by the cluster's key, which the
    identities open. Raises NoIdentity when they don't, BadCopy when what they open is not the cluster's key."""
    directory = keys_directory(cluster_id)
    with alone(directory):
        keys = _certified(cluster_id, found, identities, at, uses)
        _remember(directory, found)
    return keys


def not_certified(cluster_id: str) -> NotCertified:
    return NotCertified(
        f"this machine may make no copies of {cluster_id}: its key is not certified",
        "k4t kit certify --kit FILE, with the cluster's recovery kit",
    )


def sealed_key(found: Recovery, identities: Sequence[Any]) -> bytes:
    """The cluster's private key. Raises NoIdentity, and BadCopy when it is another one's."""
    try:
        sealed = base64.b64decode(found.sealed_key, validate=True)
    except ValueError:
        raise BadCopy("the sealed key in recovery.xml is not base64", "put recovery.xml back from git") from None
    try:
        private = age.decrypt(sealed, identities)
    except age.NoIdentity:
        raise age.NoIdentity(
            "the identity here doesn't open the cluster's key", "use the recovery kit of this cluster"
        ) from None
    if len(private) != signing.KEY_BYTES or signing.public_of(private) != found.key:
        raise BadCopy(
            "the sealed key in recovery.xml is not that of the cluster's public key", "put recovery.xml back from git"
        )
    return private


def _certified(
    cluster_id: str, found: Recovery, identities: Sequence[Any], at: str, uses: tuple[str, ...]
) -> Keys:  # fmt: skip
    directory, cluster_private = keys_directory(cluster_id), sealed_key(found, identities)
    private = _signing_key(directory)
    if private is None:
        private = signing.new_private()
        write_file(directory / SIGNING_KEY, f"ed25519-private:{base64.b64encode(private).decode()}\n".encode(), 0o600)
    text = envelope.certificate_text(Certificate(cluster_id, signing.public_of(private), uses, at))
    certified = envelope.certify(cluster_private, text)
    line = envelope.canonical({"certificate": text, "certified": certified}).encode() + b"\n"
    write_file(directory / CERTIFICATE, line, 0o600)
    return Keys(cluster_id, private, text, certified, found)


def _signing_key(directory: Path) -> bytes | None:
    path = directory / SIGNING_KEY
    data = read_private(path)
    if data is None:
        return None
    found = _PRIVATE.fullmatch(data.decode("ascii", "replace"))
    if found is None:
        raise K4tError(f"{path} is not a signing key of k4t's", "move it away, then: k4t kit certify --kit FILE")
    return base64.b64decode(found[1])


# --- recovery.xml ------------------------------------------------------------------------------------------------


def _recovery(db: Path, tree: Tree, directory: Path) -> tuple[Recovery, tuple[str, ...]]:
    """The tree's; or the one that it had, put back; or a new one."""
    found = tree.recovery or read_recovery(db)
    if found is not None:
        return found, ()
    known = read_recovery(directory)
    if known is not None:
        found = known if recovery.create(db, known) else _theirs(db)
        return found, (f"{db / recovery.NAME} was gone and is back: keep it with the tree, in git too",)
    return _new(db, tree.cluster.name, directory)


def _new(db: Path, name: str, directory: Path) -> tuple[Recovery, tuple[str, ...]]:
    """The identity is on disk before anything is encrypted to it; one of an attempt that was cut off is taken up."""
    path = directory / IDENTITY
    made = read_private(path) is None
    if made:
        text, public = age.new_identity(f"recovery identity of cluster {name}")
        write_file(path, text.encode(), 0o600)
    else:
        public = age.recipient_of(path)
    private = signing.new_private()
    sealed = base64.b64encode(age.encrypt(private, [public])).decode()
    found = Recovery(signing.public_of(private), (RecoveryRecipient(public, "recovery kit"),), sealed)
    if recovery.create(db, found):
        return found, (
            f"made {db / recovery.NAME}: commit it with the tree",
            "only this machine can open copies: print the recovery kit (k4t kit), then take it away (k4t kit --forget)",
        )
    if made:
        path.unlink(missing_ok=True)
    return _theirs(db), ()


def _theirs(db: Path) -> Recovery:
    found = read_recovery(db)
    if found is None:
        raise K4tError(f"{db / recovery.NAME} went away while it was read", "try again")
    return found


def _remember(directory: Path, found: Recovery) -> None:
    data = recovery.encoded(found)
    if read_private(directory / KNOWN) != data:
        write_file(directory / KNOWN, data, 0o600)


def _with(tree: Tree, found: Recovery) -> Tree:
    import dataclasses

    return dataclasses.replace(tree, recovery=found)


# --- to open -----------------------------------------------------------------------------------------------------


def recovery_identity(cluster_id: str, kit: HoldsIdentity | None = None, identity: Path | None = None) -> list[Any]:
    """What may open copies: the file that was named and nothing else; or that of the kit, that which is kept here, and
    the operator's own (K4T_IDENTITY). Raises NoIdentity with the remedy, K4tError when others may read it, ValueError
    for a kit's that is none."""
    if identity is not None:
        if not identity.exists():
            raise Usage(f"--identity {identity}: no such file", "name the one that opens the copies")
        return age.read_identities(identity)
    found = [age.parse_identity(kit.identity)] if kit is not None and kit.identity else []
    path = keys_directory(cluster_id) / IDENTITY
    for one in (path, age.identity_path()):
        with contextlib.suppress(age.NoIdentity):
            found += age.read_identities(one)
    if not found:
        which = "the recovery kit" if kit is None else "the kit that has it, since this one was made after kit --forget"
        raise age.NoIdentity(
            "copies are encrypted, and the key that opens them is not on this machine",
            f"name {which} (--kit FILE), or a file that holds its identity (--identity FILE)",
        )
    return found


def _own_identity(directory: Path, found: Recovery) -> list[Any]:
    """The recovery identity that is kept here, if it is one of this recovery.xml's."""
    path = directory / IDENTITY
    if not path.exists() or age.recipient_of(path) not in [one.key for one in found.recipients]:
        return []
    return age.read_identities(path)


# --- files that only this user may read ----------------------------------------------------------------------------


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """The directory is there and private, and no other process works on it. Raises Locked after LOCK_WAIT_S."""
    _private_directory(directory)
    try:
        descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise K4tError(f"can't write {directory}: {error.strerror}", "see to its owner and mode") from error
    try:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Locked(f"another k4t works on {directory}", "try again when it is done") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _private_directory(directory: Path) -> None:
    try:
        for one in reversed([directory, *directory.parents]):
            with contextlib.suppress(FileExistsError):
                one.mkdir(mode=0o700)
        status = os.stat(directory, follow_symlinks=False)
    except OSError as error:
        raise K4tError(f"can't make {directory}: {error.strerror}", "set K4T_KEYS to a place of your own") from error
    if not stat.S_ISDIR(status.st_mode):
        raise K4tError(f"{directory} is no directory", "set K4T_KEYS to a place of your own")
    _only_ours(directory, status)


def _only_ours(path: Path, status: os.stat_result) -> None:
    if os.geteuid() not in (0, status.st_uid):
        raise K4tError(f"{path} belongs to another user", "set K4T_KEYS to a place of your own")
    if status.st_mode & 0o077:
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        right = "700" if stat.S_ISDIR(status.st_mode) else "600"
        raise K4tError(f"{path} has mode {mode}: others may get at it", f"chmod {right} {path}")


def read_private(path: Path) -> bytes | None:
    """None when there is none. Raises K4tError when others may read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise K4tError(f"can't read {path}: {error.strerror}", "look at its owner and mode") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise K4tError(f"{path} is no regular file", "move it away")
        _only_ours(path, status)
        return os.read(descriptor, _MAX_BYTES)
    finally:
        os.close(descriptor)
