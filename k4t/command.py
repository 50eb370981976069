"""Argument lists: built, quoted and run here. No other module quotes for a shell or starts a local process."""

from __future__ import annotations

import shlex
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from k4t.errors import StepError


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended. `exit_status` is None when it was lost: the outcome is in doubt, read it back."""

    exit_status: int | None
    stdout: bytes
    stderr: bytes

    @property
    def ok(self) -> bool:
        return self.exit_status == 0

    def words(self) -> str:
        """The last line the command said, for a message: standard error first."""
        text = (self.stderr.strip() or self.stdout.strip()).decode("utf-8", "replace")
        return text.splitlines()[-1] if text else f"exit status {self.exit_status}"


def quote(argv: Sequence[str]) -> str:
    """One line of POSIX sh that runs exactly `argv`."""
    return shlex.join(argv)


def split(text: str) -> list[str]:
    """Words of a command in an attribute. Raises StepError for an unclosed quote."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise StepError(f"can't split {text!r} into words: {error}") from error


def run(
    argv: Sequence[str], *, input: bytes = b"", env: Mapping[str, str] | None = None, timeout_s: float = 30.0
) -> Completed:
    """Run a program on this machine, no shell. Raises StepError when it isn't there or takes too long."""
    try:
        done = subprocess.run(list(argv), input=input, env=env, timeout=timeout_s, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise StepError(f"no such program: {argv[0]}") from error
    except PermissionError as error:
        raise StepError(f"not executable: {argv[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise StepError(f"{argv[0]} took longer than {timeout_s:g} s") from error
    return Completed(done.returncode, done.stdout, done.stderr)


def connect(
    argv: Sequence[str], *, env: Mapping[str, str] | None = None
) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A program whose input and output are one socket (a proxy). Raises StepError when it isn't there."""
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            list(argv), stdin=theirs.fileno(), stdout=theirs.fileno(), env=env, start_new_session=True
        )
    except OSError as error:
        ours.close()
        raise StepError(f"can't run {argv[0]}: {error.strerror}") from error
    finally:
        theirs.close()
    return ours, process


def attended(argv: Sequence[str]) -> int:
    """Run a program on this terminal, for as long as the person at it likes; its exit status.

    Raises StepError when it isn't there.
    """
    try:
        return subprocess.run(list(argv), check=False).returncode
    except OSError as error:
        raise StepError(f"can't run {argv[0]}: {error.strerror}") from error
