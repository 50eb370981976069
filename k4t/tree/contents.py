"""What an app mounts, read again when it is sent: exactly the bytes that were planned with, or an error."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from k4t.errors import K4tError
from k4t.model.app import App, File
from k4t.tree.variables import expand


def file_contents(
    directory: Path, app: App, variables: Mapping[str, str], secrets: Mapping[str, str]
) -> dict[str, bytes]:
    """By target, variables expanded; `secrets`: values by name. Raises K4tError when a file is gone or not the one
    that was planned with."""
    return {
        file.target: secrets[file.secret].encode()
        if file.secret
        else _content(directory / "apps" / app.name, file, variables)
        for file in app.files
    }


def _content(directory: Path, file: File, variables: Mapping[str, str]) -> bytes:
    path = directory / file.source
    try:
        data = path.read_bytes()
    except OSError as error:
        raise K4tError(f"can't read {path}: {error.strerror}") from error
    if file.expand:
        data = expand(data.decode(), variables).encode()
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise K4tError(f"{path} has changed since the plan was made", "apply again")
    return data
