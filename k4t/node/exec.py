"""A command inside a running container, with its input, output and exit status.

https://docs.docker.com/reference/api/engine/version/v1.41/#tag/Exec
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from k4t.errors import K4tError, StepError
from k4t.model.state import Container
from k4t.model.value import value
from k4t.node.call import Request
from k4t.node.docker import Engine
from k4t.node.flow import Channel, Flow
from k4t.node.http import Broken

STATUS_LOOKS = 100
SIZE_TRIES = 100
LOOK_EVERY_S = 0.05

Size = tuple[int, int]
"""Rows and columns."""


@value
class Command:
    """`terminal`: its size, when the command gets one; `interactive`: it is sent input."""

    argv: tuple[str, ...]
    interactive: bool = False
    terminal: Size | None = None


class Session:
    """One command at work. Output is read to its end (`output`), then there is an exit status."""

    def __init__(self, engine: Engine, container: Container, command: Command) -> None:
        self._engine = engine
        self._container = container
        self._tty = command.terminal is not None
        self._id = _create(engine, container, command)
        self._size, self._telling, self._closed = command.terminal or (0, 0), threading.Lock(), False
        start = {"Detach": False, "Tty": self._tty}
        self._flow: Flow = engine.flow(Request("POST", f"/exec/{self._id}/start", start), upgrade=True)
        if command.terminal is not None:
            threading.Thread(target=self._tell_size, name="first terminal size", daemon=True).start()

    def output(self) -> Iterator[tuple[Channel, bytes]]:
        yield from self._flow.frames(tty=self._tty)

    def send(self, data: bytes) -> bool:
        """Whether it still takes input."""
        try:
            self._flow.send(data)
        except Broken:
            return False
        return True

    def end_input(self) -> None:
        self._flow.end_input()

    def resize(self, size: Size) -> None:
        """Tell the command's terminal its size. Of several at once the last one stays."""
        self._size = size
        self._tell_size()

    def _tell_size(self) -> None:
        """One after the other, each the newest there is. A command that hasn't quite started refuses it, one that has
        ended too."""
        with self._telling:
            for _ in range(SIZE_TRIES):
                rows, columns = self._size
                try:
                    self._engine.call(Request("POST", f"/exec/{self._id}/resize?h={rows}&w={columns}"))
                except K4tError:
                    if self._closed:
                        return
                    time.sleep(LOOK_EVERY_S)
                else:
                    return

    def exit_status(self) -> int:
        """After its output has ended. Raises StepError when Docker doesn't know it after 5 s."""
        for _ in range(STATUS_LOOKS):
            found = self._engine.call(Request("GET", f"/exec/{self._id}/json"))
            if not found["Running"] and found["ExitCode"] is not None:
                return int(found["ExitCode"])
            time.sleep(LOOK_EVERY_S)
        raise StepError(
            f"the command in {self._container.name} has closed its output and runs on", host=self._engine.host
        )

    def close(self) -> None:
        self._closed = True
        self._flow.close()


def _create(engine: Engine, container: Container, command: Command) -> str:
    body = {
        "AttachStdin": command.interactive,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": command.terminal is not None,
        "Cmd": list(command.argv),
    }
    made = engine.call(Request("POST", f"/containers/{container.id}/exec", body, repeatable=False))
    return str(made["Id"])


def run(engine: Engine, container: Container, argv: Sequence[str]) -> Iterator[tuple[Channel, bytes] | int]:
    """A command without input: its output as it comes, and its exit status last."""
    session = Session(engine, container, Command(tuple(argv)))
    try:
        yield from session.output()
        yield session.exit_status()
    finally:
        session.close()
