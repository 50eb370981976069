"""Writing `recovery.xml`: the cluster's public key, who can open copies, and the sealed private key (`model.snapshot`).

`k4t.tree.read` reads it, as every other file of the tree.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from k4t.errors import K4tError
from k4t.model.snapshot import Recovery
from k4t.tree.edit import attribute_escaped, sync_directory, text_escaped, write_file

NAME = "recovery.xml"
_COMMENT = "Keep this file with the tree, in git too. What opens copies is in the recovery kit: k4t kit"


def encoded(recovery: Recovery) -> bytes:
    lines = [f"<!-- {_COMMENT} -->", f'<recovery key="{recovery.key}">']
    for one in recovery.recipients:
        name = f' name="{attribute_escaped(one.name)}"' if one.name else ""
        lines.append(f"  <recipient{name}>{text_escaped(one.key)}</recipient>")
    lines += [f"  <sealed-key>{recovery.sealed_key}</sealed-key>", "</recovery>"]
    return ("\n".join(lines) + "\n").encode()


def write(tree: Path, recovery: Recovery) -> None:
    """Put it into the tree, in place of one that is there. Raises K4tError."""
    write_file(tree / NAME, encoded(recovery), 0o644)


def create(tree: Path, recovery: Recovery) -> bool:
    """Put it into the tree unless there is one; whether it is this one now. Of two at once, one wins.
    Raises K4tError."""
    path, temporary = tree / NAME, tree / f".k4t-{secrets.token_hex(6)}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(encoded(recovery))
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        sync_directory(tree)
    except OSError as error:
        raise K4tError(f"can't write {path}: {error.strerror}", "the tree is as it was") from error
    return True
