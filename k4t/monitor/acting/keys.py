"""The monitor's own SSH key on this machine, which can do only what hosts let it: see remote.restricted.

CLUSTERID in the keys' directory (master.backup.keys)
  monitor-key          Ed25519, OpenSSH's own format                                                            0600
  monitor-key.pub      what `k4t monitor authorize` takes                                                        0644
"""

from __future__ import annotations

from pathlib import Path

from k4t.errors import K4tError
from k4t.master.backup import keys
from k4t.remote import restricted
from k4t.tree import signing
from k4t.tree.edit import write_file

NAME = "monitor-key"


def directory(cluster_id: str) -> Path:
    """Raises Usage when neither a setting nor a home says where that is."""
    return keys.keys_directory(cluster_id)


def private_file(cluster_id: str) -> Path | None:
    """None when this machine has none. Raises K4tError when others may read it."""
    path = directory(cluster_id) / NAME
    return path if keys.read_private(path) is not None else None


def ensure(cluster_id: str) -> tuple[str, bool]:
    """The public key's line, and whether it was made just now. Of two at once, both get the same. Raises K4tError."""
    path = directory(cluster_id) / NAME
    with keys.alone(path.parent):
        data = keys.read_private(path)
        made = data is None
        if data is None:
            data = signing.new_openssh()
            write_file(path, data, 0o600)
        try:
            line = f"{signing.openssh_public(data)} {restricted.mark(cluster_id)}"
        except ValueError as error:
            raise K4tError(f"{path} is no key: {error}", "move it away, then: k4t monitor key") from None
        write_file(path.with_name(f"{NAME}.pub"), f"{line}\n".encode(), 0o644)
    return line, made
