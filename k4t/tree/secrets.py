"""The values of secrets: opened from `secrets/NAME.age`, or fetched where `secrets/NAME.xml` says.

A value never gets into a message.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from k4t import command
from k4t.errors import K4tError, SecretUnavailable, StepError
from k4t.model.spec import SecretRef
from k4t.tree.age import identity_path, read_identities
from k4t.tree.secret_files import MAX_BYTES, SecretFiles, one_line

TIMEOUT_S = 30.0


def value(ref: SecretRef, directory: Path) -> str:
    """The value; a single line comes without its line break. `directory` is the tree's, for relative paths.

    Raises SecretUnavailable, naming the secret and its place, when it can't be fetched or is empty.
    """
    fetch = {"environment": _environment, "command": _command, "file": _file, "age": _age}[ref.kind]
    text = one_line(fetch(ref, directory))
    if not text:
        raise _failed(ref, "is empty", "put a value there")
    if "\0" in text:
        raise _failed(ref, "holds a NUL byte", "secrets are text")
    return text


def digest_key(directory: Path) -> bytes | None:
    """The key that tells changed secrets; None when the tree has none. Raises K4tError when it can't be opened."""
    files = SecretFiles(directory)
    return files.digest_key(read_identities(identity_path())) if files.has_digest_key else None


def _failed(ref: SecretRef, why: str, remedy: str) -> SecretUnavailable:
    return SecretUnavailable(ref.name, str(ref.where), f"{ref.kind} {ref.source!r} {why}", remedy)


def _age(ref: SecretRef, directory: Path) -> str:
    try:
        return SecretFiles(directory).value(ref.name, read_identities(identity_path()))
    except K4tError as error:
        why = error.message.removeprefix(f"secrets/{ref.name}.age: ")
        raise SecretUnavailable(ref.name, str(ref.where), why, error.remedy) from None


def _environment(ref: SecretRef, _directory: Path) -> str:
    found = os.environ.get(ref.source)
    if found is None:
        raise _failed(ref, "is not set", f"export {ref.source} before k4t runs")
    return _text(ref, found.encode("utf-8", "surrogateescape"))


def _command(ref: SecretRef, _directory: Path) -> str:
    try:
        done = command.run(command.split(ref.source), timeout_s=TIMEOUT_S)
    except StepError as error:
        raise _failed(ref, f"failed: {error}", "run it by hand") from None
    if not done.ok:
        raise _failed(ref, f"ended with status {done.exit_status}{_said(done)}", "run it by hand")
    return _text(ref, done.stdout)


def _said(done: command.Completed) -> str:
    """Its last words on standard error, unless they repeat what it printed."""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    printed = done.stdout.decode("utf-8", "replace").split()
    if not lines or any(word in lines[-1] for word in printed):
        return ""
    return f": {lines[-1][:200]}"


def _file(ref: SecretRef, directory: Path) -> str:
    path = directory / Path(ref.source).expanduser()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _failed(ref, "is no regular file", "name a file")
            if status.st_mode & 0o077:
                mode = f"{stat.S_IMODE(status.st_mode):04o}"
                raise _failed(ref, f"has mode {mode}: others may read it", f"chmod 600 {path}")
            return _text(ref, file.read(MAX_BYTES + 1))
    except OSError as error:
        raise _failed(ref, f"can't be read: {error.strerror}", "look at its path and mode") from None


def _text(ref: SecretRef, data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise _failed(ref, f"has more than {MAX_BYTES} bytes", "is it the right one?")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _failed(ref, "is not UTF-8", "secrets are text") from None
