"""The size of a command's terminal: the newest one stays, whatever comes late or is refused at first."""

from __future__ import annotations

import threading
import time
from typing import Any, cast

import pytest

from k4t.errors import EngineRefused
from k4t.model.state import Container
from k4t.node.call import Request
from k4t.node.docker import Engine
from k4t.node.exec import Command, Session

pytestmark = pytest.mark.unit


class SlowEngine:
    """Takes a first size only when it is let; refuses as many as it is told before that."""

    host = "n1"

    def __init__(self, refuses: int = 0) -> None:
        self.sizes: list[str] = []
        self.asked, self.let = threading.Event(), threading.Event()
        self._refuses = refuses

    def call(self, request: Request) -> Any:
        if "resize" not in request.path:
            return {"Id": "e1"}
        self.asked.set()
        self.let.wait(60)
        if self._refuses:
            self._refuses -= 1
            raise EngineRefused("the exec is not running", host=self.host)
        self.sizes.append(request.path.partition("?")[2])
        return None

    def flow(self, *_: Any, **__: Any) -> None: ...


def begun(engine: SlowEngine) -> Session:
    container = cast("Container", object.__new__(type("Any", (), {"id": "c1", "name": "c"})))
    return Session(cast("Engine", engine), container, Command(("sh",), terminal=(33, 101)))


def until(engine: SlowEngine, last: str) -> None:
    deadline = time.monotonic() + 60
    while engine.sizes[-1:] != [last] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.sizes[-1] == last


def test_a_first_size_that_comes_late_does_not_undo_a_newer_one() -> None:
    """The first is on its way when the window is made larger: larger is what it is in the end."""
    engine = SlowEngine()
    session = begun(engine)
    assert engine.asked.wait(60)
    newer = threading.Thread(target=session.resize, args=((44, 120),))
    newer.start()
    engine.let.set()
    newer.join(60)
    assert engine.sizes == ["h=33&w=101", "h=44&w=120"]


def test_a_command_that_takes_long_to_start_gets_its_size() -> None:
    """It is refused until the command runs, for seconds if need be."""
    engine = SlowEngine(refuses=20)
    engine.let.set()
    begun(engine)
    until(engine, "h=33&w=101")
