"""Copies of the tree, and who made them. Formats are in `k4t.master.backup.snapshot`."""

from __future__ import annotations

from k4t.model.shared import NOWHERE, Where
from k4t.model.value import value


@value
class Lineage:
    """One master's line of history: it began at `serial`, when `who` took the cluster over. Of two, the one of the
    higher generation counts. `at`: RFC 3339 UTC."""

    generation: int = 1
    id: str = ""
    serial: int = 0
    who: str = ""
    at: str = ""


@value
class Manifest:
    """What a snapshot says of itself, signed. `lineage` is the id alone. `time`: RFC 3339 UTC. `tree`: a keyed hash of
    what was packed. `previous`: sha256 of the manifest before it; "" for the first. `sha256` and `size_bytes` are of
    what follows the header, `archive_bytes` the size of what comes out of it."""

    cluster: str
    generation: int
    lineage: str
    serial: int
    sequence: int
    time: str
    tree: str
    previous: str
    sha256: str
    size_bytes: int
    encrypted: bool
    archive_bytes: int = 0

    @property
    def order(self) -> tuple[int, int, int]:
        """Which of two copies is the newer one. No clock decides that."""
        return self.generation, self.serial, self.sequence


@value
class Confirmation:
    """On a target, at `time`: the snapshot whose manifest has this sha256 is what the tree still is. `target`: a keyed
    hash of the target's name."""

    cluster: str
    target: str
    snapshot: str
    sequence: int
    time: str


@value
class Certificate:
    """The cluster's key says: this key (“ed25519:…”) may sign that. `uses`: snapshots, intents."""

    cluster: str
    key: str
    uses: tuple[str, ...]
    at: str


@value
class RecoveryRecipient:
    """`key`: an age recipient. `name`: who holds its identity."""

    key: str
    name: str = ""


@value
class Recovery:
    """`recovery.xml`: the cluster's public key (“ed25519:…”), who can open copies, and the key's private half, which
    only they can open (base64 of an age file)."""

    key: str
    recipients: tuple[RecoveryRecipient, ...]
    sealed_key: str
    where: Where = NOWHERE
