"""Argument lists: built, quoted and run here. No other module quotes for a shell or starts a local process."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from k4t.errors import StepError
from k4t.model.value import value

MAX_LINE_BYTES = 16 * 1024
GRACE_S = 2.0


@value
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


def begun(argv: Sequence[str], log: Path) -> None:
    """Start a program on this machine that goes on by itself, in a session of its own, whatever becomes of this
    one; what it says is added to `log`, which is made (0600). Raises StepError."""
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as out:
            subprocess.Popen(
                list(argv), cwd="/", stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )  # fmt: skip
    except OSError as error:
        raise StepError(f"can't run {argv[0]}: {error.strerror} ({error.filename})") from error


def attended(argv: Sequence[str]) -> int:
    """Run a program on this terminal, for as long as the person at it likes; its exit status.

    Raises StepError when it isn't there.
    """
    try:
        return subprocess.run(list(argv), check=False).returncode
    except OSError as error:
        raise StepError(f"can't run {argv[0]}: {error.strerror}") from error


def followed(
    argv: Sequence[str], *, env: Mapping[str, str], directory: Path, timeout_s: float, say: Callable[[str], None]
) -> int:
    """Run a program here and pass on what it says, line by line; its exit status. It gets no input and a process group
    of its own, which ends with it: nothing is left behind when it takes too long or this program is stopped.

    Raises StepError when it isn't there or takes too long.
    """
    try:
        process = subprocess.Popen(
            list(argv), env=dict(env), cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise StepError(f"can't run {argv[0]}: {error.strerror}") from error
    try:
        _pass_on(process, time.monotonic() + timeout_s, say)
        return process.wait(timeout=5.0)
    except TimeoutError:
        raise StepError(f"{argv[0]} took longer than {timeout_s:g} s") from None
    except subprocess.TimeoutExpired:
        raise StepError(f"{argv[0]} closed its output and did not end") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def fed(
    argv: Sequence[str],
    input: bytes,
    *,
    env: Mapping[str, str],
    directory: Path,
    timeout_s: float,
    is_over: Callable[[], bool] = lambda: False,
) -> Completed:
    """Run a program here that is given `input`, whether it reads it or not. Of what it says only the last
    MAX_LINE_BYTES are kept, as its standard output. It has a process group of its own, which ends with it: at the end
    of time, or as soon as `is_over`, it is asked to end (SIGTERM), and after GRACE_S it is.

    Raises StepError when it isn't there or takes too long.
    """
    try:
        process = subprocess.Popen(
            list(argv), env=dict(env), cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise StepError(f"can't run {argv[0]}: {getattr(error, 'strerror', None) or error}") from error
    try:
        said = _feed(process, input, time.monotonic() + timeout_s, is_over)
        return Completed(process.wait(timeout=GRACE_S), said, b"")
    except (TimeoutError, subprocess.TimeoutExpired):
        _end(process)
        raise StepError(f"{argv[0]} took longer than {timeout_s:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]


def _feed(process: subprocess.Popen[bytes], data: bytes, deadline_s: float, is_over: Callable[[], bool]) -> bytes:
    """Until it has ended; the end of what it said. Raises TimeoutError."""
    if process.stdin is None or process.stdout is None:
        return b""
    to, out = process.stdin.fileno(), process.stdout.fileno()
    os.set_blocking(to, False)
    os.set_blocking(out, False)
    rest, said, closed = memoryview(data), b"", False
    while time.monotonic() < deadline_s and not is_over():
        ended = process.poll() is not None
        readable, writable, _ = select.select([] if closed else [out], [to] if rest else [], [], 0.0 if ended else 0.1)
        rest = _given(to, rest) if writable else rest
        if not rest and not process.stdin.closed:
            process.stdin.close()
        heard = os.read(out, 4 * MAX_LINE_BYTES) if readable else b""
        closed = closed or (bool(readable) and not heard)
        said = (said + heard)[-MAX_LINE_BYTES:]
        if ended:  # what it left behind may go on talking; nobody listens
            return said
        if closed and not rest:
            time.sleep(0.02)
    raise TimeoutError


def _given(to: int, rest: memoryview) -> memoryview:
    try:
        return rest[os.write(to, rest[:MAX_LINE_BYTES]) :]
    except BlockingIOError:
        return rest
    except OSError:  # it closed its input: it has read what it wants
        return rest[len(rest) :]


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=GRACE_S)


def _pass_on(process: subprocess.Popen[bytes], deadline_s: float, say: Callable[[str], None]) -> None:
    """Until its output ends, or it does. Raises TimeoutError."""
    if process.stdout is None:
        return
    with process.stdout as stream:
        rest = b""
        while time.monotonic() < deadline_s:
            ready, _, _ = select.select([stream], [], [], 0.1)
            data = os.read(stream.fileno(), MAX_LINE_BYTES) if ready else None
            if data == b"" or (data is None and process.poll() is not None):
                break
            *lines, rest = (rest + (data or b"")).split(b"\n")
            for line in lines:
                say(line.decode("utf-8", "replace").rstrip("\r"))
            if len(rest) > MAX_LINE_BYTES:
                say(rest.decode("utf-8", "replace"))
                rest = b""
        else:
            raise TimeoutError
        if rest:
            say(rest.decode("utf-8", "replace"))
