"""A cluster's keys and a small working copy, for tests of what copies are made of."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from k4t.master.backup import envelope, pack, snapshot
from k4t.master.backup.keys import USES, Keys
from k4t.master.backup.snapshot import Snapshot
from k4t.master.history import WorkingCopy
from k4t.master.publication import redolog
from k4t.model.snapshot import Certificate, Lineage, Manifest, Recovery, RecoveryRecipient
from k4t.remote.head import lineage_to_json
from k4t.tree import age, recovery, signing
from tests.tree.support import write_tree

AT = "2026-11-20T12:00:00Z"
LINEAGE = Lineage(2, "0123456789abcdef", 40, "ops@master", AT)
FILES: dict[str, str | bytes] = {
    "known_hosts": "node1.mgmt ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ\n",
    "README.md": "what to do at night\n",
    "apps/README.md": "our apps\n",
    "apps/web/app.xml": '<app replicas="2"><image>registry.example.com/web:1.4</image></app>\n',
    "apps/web/conf/nginx.conf": "worker_processes 2;\n",
    "apps/web/README": "call the web team\n",
    "apps/web/über.txt": "grüße\n",
    "hooks/pre-apply": "#!/bin/sh\nexit 0\n",
    "secrets/token.age": b"age-encryption.org/v1\n\0\xff",
    ".gitignore": ".k4t*\n",
}


@dataclass
class Cluster:
    """With fixed private keys, signatures are the same at every run (RFC 8032 has no randomness)."""

    id: str = "k7f3q2m9"
    private: bytes = field(default_factory=signing.new_private)
    machine: bytes = field(default_factory=signing.new_private)
    identity: str = field(default_factory=lambda: age.new_identity("test")[0])

    @property
    def key(self) -> str:
        return signing.public_of(self.private)

    @property
    def identities(self) -> list[Any]:
        return [age.parse_identity(self.identity.splitlines()[-1])]

    @property
    def recovery(self) -> Recovery:
        public = str(self.identities[0].to_public())
        sealed = base64.b64encode(age.encrypt(self.private, [public])).decode()
        return Recovery(self.key, (RecoveryRecipient(public, "recovery kit"),), sealed)

    def keys(self, *, uses: tuple[str, ...] = USES, cluster: str = "", private: bytes | None = None) -> Keys:
        """Certified by this cluster's key, or by another `private` one."""
        text = envelope.certificate_text(Certificate(cluster or self.id, signing.public_of(self.machine), uses, AT))
        return Keys(self.id, self.machine, text, envelope.certify(private or self.private, text), self.recovery)


def make(cluster: Cluster, archive: bytes, *, keys: Keys | None = None, **said: Any) -> Snapshot:
    told: dict[str, Any] = {
        "lineage": LINEAGE, "serial": 41, "sequence": 7, "previous": "", "time": AT, "encrypted": True, **said,
    }  # fmt: skip
    return snapshot.make(archive, keys or cluster.keys(), **told)


def opened(cluster: Cluster, data: bytes) -> bytes:
    return snapshot.contents(data, cluster=cluster.id, cluster_key=cluster.key, identities=cluster.identities)[1]


def signed(by: Cluster, copy: Snapshot, payload: bytes, **said: Any) -> bytes:
    """A file whose signature is right, with whatever payload and manifest: what only a master gone bad can make."""
    manifest = snapshot_of(copy, payload, **said)
    return snapshot.header_of(manifest, by.keys()) + payload


def snapshot_of(copy: Snapshot, payload: bytes, **said: Any) -> Manifest:
    told = {"sha256": hashlib.sha256(payload).hexdigest(), "size_bytes": len(payload), **said}
    return replace(copy.manifest, **told)


def working_copy(db: Path, files: dict[str, str | bytes] | None = None) -> WorkingCopy:
    """A tree that was applied twice."""
    write_tree(db, {**FILES, **(files or {})})
    (db / "hooks/pre-apply").chmod(0o755)
    copy = WorkingCopy(db)
    copy.prepare()
    copy.keep_lineage(LINEAGE)
    for serial in (40, 41):
        copy.remember(serial, {"at": AT, "who": "ops@master", "message": "m", "apps": {}}, {})
        copy.audit({"serial": serial})
    return copy


def remembering(db: Path) -> Path:
    """A tree with a `.k4t/` whose every byte is written here, so that no library's version shows in it."""
    head = {"kind": "log", "format": 1, "incarnation": "ab" * 16, "cluster": "k7f3q2m9", "at": AT}
    own: dict[str, str | bytes] = {
        ".k4t/revisions/000041.json": '{"serial":41}\n',
        f".k4t/objects/{'ab' * 32}": b"\0\1\2 not text",
        ".k4t/base": "41\n",
        ".k4t/lineage": json.dumps(lineage_to_json(LINEAGE)) + "\n",
        ".k4t/audit.jsonl": '{"serial":41}\n',
        ".k4t/redo.log": redolog.encoded(1, "", head)[0],
    }
    write_tree(db, {**FILES, **own})
    (db / "hooks/pre-apply").chmod(0o755)
    return db


def with_recovery(db: Path, cluster: Cluster) -> Path:
    recovery.write(db, cluster.recovery)
    return db


def packed(db: Path) -> bytes:
    return pack.picture(db).archive
