"""How a backup went, target by target. Pure."""

from __future__ import annotations

from typing import Literal

from k4t.errors import gravest
from k4t.model.value import value

Word = Literal["copied", "confirmed", "failed", "skipped"]


@value
class Result:
    """`error`: why it failed or was skipped. `remarks`: what should be known although it went well. `status`: the exit
    status that the error stands for. `count`: of copies there now, 0 where nobody looked."""

    target: str
    result: Word
    error: str = ""
    size_bytes: int = 0
    remarks: tuple[str, ...] = ()
    status: int = 0
    unreachable: bool = False
    count: int = 0


@value
class Report:
    """`serial`: of the tree that was copied; 0 when nothing was due, or nothing ever applied."""

    results: tuple[Result, ...] = ()
    serial: int = 0

    @property
    def failed(self) -> tuple[Result, ...]:
        return tuple(one for one in self.results if one.result == "failed")

    @property
    def exit_status(self) -> int:
        """0 all done · 3 some failed · 4 this working copy is not the master · 69 (or 77) nobody could be asked."""
        failed = self.failed
        tried = [one for one in self.results if one.result != "skipped"]
        if failed and len(failed) == len(tried) and all(one.unreachable for one in failed):
            return gravest(one.status for one in failed)
        return gravest([4 if one.status == 4 else 3 for one in failed])
