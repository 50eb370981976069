"""One command in many replicas at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from k4t.errors import K4tError
from k4t.master.fleet import Fleet, at_once
from k4t.model.state import Container
from k4t.model.value import value
from k4t.node import exec as node_exec
from k4t.node.flow import Channel

MAX_LINE_BYTES = 64 * 1024

Say = Callable[[Container, Channel, str], None]


@value
class Ended:
    """`error`: why the command could not be run there, or its end not be seen."""

    container: Container
    exit_status: int | None
    error: str = ""


def everywhere(fleet: Fleet, containers: Sequence[Container], argv: Sequence[str], say: Say) -> list[Ended]:
    """Run `argv` in each; `say` gets its output, a whole line at a time, from many threads."""

    def one(container: Container) -> Ended:
        rest: dict[Channel, bytes] = {}
        status = None
        try:
            for piece in node_exec.run(fleet.engine(container.node), container, argv):
                if isinstance(piece, int):
                    status = piece
                else:
                    channel, data = piece
                    *lines, rest[channel] = (rest.get(channel, b"") + data).split(b"\n")
                    if len(rest[channel]) > MAX_LINE_BYTES:
                        lines.append(rest.pop(channel))
                    for line in lines:
                        say(container, channel, line.decode("utf-8", "replace"))
        except K4tError as error:
            return Ended(container, None, str(error))
        for channel, line in rest.items():
            if line:
                say(container, channel, line.decode("utf-8", "replace"))
        return Ended(container, status)

    return at_once(one, containers)
