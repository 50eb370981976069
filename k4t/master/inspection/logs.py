"""The logs of many containers as one, in order of Docker's timestamps; memory doesn't grow with their length.

What is there is merged while it is read: a line of each container at a time. What comes later (`follow`) is held back
for a moment, so that lines of different nodes stand in order as far as clocks and network allow.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterator
from operator import attrgetter

from k4t.errors import K4tError
from k4t.master.choose import Chosen, Wanted, choose
from k4t.master.fleet import Fleet, at_once
from k4t.model.state import Container
from k4t.model.value import value
from k4t.node import logs
from k4t.node.flow import Flow
from k4t.node.logs import Line

HOLD_S = 0.3
LOOK_EVERY_S = 2.0
MAX_HELD_LINES = 1000
BY_TIME = attrgetter("at")

Say = Callable[[str], None]


@value
class Query:
    """`since`: RFC 3339 UTC; `tail`: of each container."""

    since: str = ""
    tail: int | None = None


def merged(fleet: Fleet, chosen: Chosen, query: Query, say: Say) -> Iterator[Line]:
    """What is there now. A log that can't be read (on) is told to `say`, the others go on."""

    def begin(container: Container) -> tuple[Container, Flow] | None:
        try:
            engine = fleet.engine(container.node)
            return container, logs.begin(engine, container, since=query.since, tail=query.tail)
        except K4tError as error:
            say(f"{container.name}: {error}")
            return None

    begun = [one for one in at_once(begin, chosen.containers) if one is not None]
    try:
        yield from heapq.merge(*(_lines(flow, container, say) for container, flow in begun), key=BY_TIME)
    finally:
        for _, flow in begun:
            flow.close()


def _lines(flow: Flow, container: Container, say: Say) -> Iterator[Line]:
    try:
        yield from logs.lines(flow, container)
    except K4tError as error:
        say(f"{container.name}: {error}")


def followed(fleet: Fleet, wanted: Wanted, chosen: Chosen, query: Query, say: Say) -> Iterator[Line]:
    """What is there, then what comes, until nobody reads on; containers that appear later are followed too."""
    following = _Following(fleet, wanted, query.since, say)
    try:
        for line in merged(fleet, chosen, query, say):
            following.seen[line.container.id] = line.at
            yield line
        following.begin(chosen)
        yield from following.lines()
    finally:
        following.end()


class _Following:
    """A thread a container that reads; this side puts in order. `seen`: the last line of each that was yielded."""

    def __init__(self, fleet: Fleet, wanted: Wanted, since: str, say: Say) -> None:
        self.seen: dict[str, str] = {}
        self._fleet, self._wanted, self._since, self._say = fleet, wanted, since, say
        self._come: queue.Queue[Line] = queue.Queue(MAX_HELD_LINES)
        self._flows: dict[str, Flow | None] = {}
        self._guard = threading.Lock()
        self._ended = threading.Event()

    def begin(self, chosen: Chosen) -> None:
        self._follow(chosen)
        threading.Thread(target=self._look, name="logs: new containers", daemon=True).start()

    def lines(self) -> Iterator[Line]:
        held: list[tuple[str, int, float, Line]] = []
        count = 0
        while not self._ended.is_set() or held or not self._come.empty():
            try:
                line = self._come.get(timeout=HOLD_S / 3)
            except queue.Empty:
                pass
            else:
                count += 1
                heapq.heappush(held, (line.at, count, time.monotonic(), line))
            while held and (time.monotonic() - held[0][2] >= HOLD_S or len(held) > MAX_HELD_LINES):
                yield heapq.heappop(held)[3]

    def end(self) -> None:
        self._ended.set()
        with self._guard:
            flows = [flow for flow in self._flows.values() if flow is not None]
        for flow in flows:
            flow.close()

    def _look(self) -> None:
        """Containers that have come; one that was started again is followed again."""
        while not self._ended.wait(LOOK_EVERY_S):
            try:
                self._follow(choose(self._fleet, Wanted((), self._wanted.node, self._wanted.replica)))
            except K4tError as error:
                self._say(str(error))
                self._ended.set()

    def _follow(self, chosen: Chosen) -> None:
        for container in chosen.containers:
            asked_for = not self._wanted.apps or container.app in self._wanted.apps
            with self._guard:
                fresh = asked_for and container.running and container.id not in self._flows
                if fresh:
                    self._flows[container.id] = None
            if fresh:
                threading.Thread(target=self._read, args=(container,), name=container.name, daemon=True).start()

    def _read(self, container: Container) -> None:
        """Its lines into the queue; what has been yielded before is left out."""
        last = self.seen.get(container.id, "")
        try:
            flow = logs.begin(self._fleet.engine(container.node), container, since=last or self._since, follow=True)
            with self._guard:
                self._flows[container.id] = flow
            for line in logs.lines(flow, container):
                if line.at > last and not self._put(line):
                    return
        except K4tError as error:
            if not self._ended.is_set():
                self._say(f"{container.name}: {error}")
        finally:
            with self._guard:
                ended = self._flows.pop(container.id, None)
            if ended is not None:
                ended.close()

    def _put(self, line: Line) -> bool:
        while not self._ended.is_set():
            try:
                self._come.put(line, timeout=1.0)
            except queue.Full:
                continue
            self.seen[line.container.id] = line.at
            return True
        return False
