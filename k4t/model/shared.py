"""Values that all of the tree's files use: where something stands, a share of something."""

from __future__ import annotations

from typing import Literal

from k4t.model.value import value

Protocol = Literal["tcp", "udp"]


@value
class Where:
    """The line of the tree that a value comes from, for messages. `file` is relative to the tree."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


NOWHERE = Where("")


@value
class Share:
    """`max-surge`, `withdraw`: a count, or a percentage of something."""

    count: int = 0
    percent: float | None = None

    def of(self, total: int, *, round_up: bool) -> int:
        if self.percent is None:
            return self.count
        exact = total * self.percent / 100
        return int(-(-exact // 1)) if round_up else int(exact // 1)
