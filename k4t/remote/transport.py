"""The contract of a connection to one host.

`k4t.remote.ssh` is the real one, `k4t.remote.fake` the one that breaks on demand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from k4t.command import Completed


class Stream(Protocol):
    """A duplex byte stream that looks like a connected socket (paramiko's Channel does)."""

    def settimeout(self, timeout: float | None) -> None: ...
    def recv(self, size: int) -> bytes: ...
    def sendall(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class Process(Protocol):
    """A command that runs on the host while we talk to it."""

    def write(self, data: bytes) -> None: ...
    def read_line(self, timeout_s: float) -> bytes:
        """One line without its end; b"" at end of file. Raises ConnectionLost, or StepError at the time-out."""
        ...

    def close_input(self) -> None: ...
    def wait(self, timeout_s: float) -> Completed:
        """What is left of its output, and its exit status (None when lost)."""
        ...

    def close(self) -> None: ...


class Transport(Protocol):
    """One connection to one host, shared by many threads. Every method raises ConnectionLost when it has ended."""

    host: str
    """The name of the tree that messages use."""

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",
        timeout_s: float = 30.0,
        max_output_bytes: int = 4 * 1024 * 1024,
        bare: bool = False,
    ) -> Completed:
        """Run a command to its end (through sudo where the tree says so), both streams read to one deadline. `bare`:
        its words and nothing around them, for a host that is no POSIX system.

        Raises StepError when it takes too long or says too much. The exit status is not judged.
        """
        ...

    def start(self, argv: Sequence[str]) -> Process: ...

    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Write a whole file: temporary file beside it, fsync, rename, fsync of the directory (made if missing).

        Raises HostFull when there is no space left.
        """
        ...

    def get(self, path: str, *, max_bytes: int = 4 * 1024 * 1024) -> bytes | None:
        """The file's bytes, or None when there is none."""
        ...

    def connect_tcp(self, address: str, port: int, timeout_s: float) -> Stream:
        """A TCP connection as the host itself would make it. Raises StepError when it is refused or times out."""
        ...

    def connect_docker(self) -> Stream:
        """A connection to the Engine's socket: direct, or through `docker system dial-stdio` where sudo is needed.

        Raises DockerUnavailable with the remedy (not installed, stopped, denied).
        """
        ...

    @property
    def alive(self) -> bool: ...
    def close(self) -> None: ...
