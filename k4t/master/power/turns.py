"""One at a time does what is queued, and nobody's call is lost: whoever comes while another one works leaves word in
`.k4t/wake.again`, and that one looks once more before it ends. While this machine goes off, nobody begins."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from k4t.errors import K4tError, Locked
from k4t.master.power.here import boot
from k4t.remote.lock import Holder, LocalLock
from k4t.tree.edit import write_file

LOCK = "wake.lock"
AGAIN = "wake.again"
GOING = "going-off"
GOING_S = 120.0
"""A machine that is still on so long after its command said that it goes off does not."""
MAX_TURNS = 20
"""What is queued while one works is taken up too, but it does not go on for ever."""


class Turns:
    """Of one working copy."""

    def __init__(self, tree: Path, holder: Holder) -> None:
        self._tree = tree
        self._holder = holder
        own = tree / ".k4t"
        self._lock, self._again, self._going = own / LOCK, own / AGAIN, own / GOING

    def taken(self, *, wait_s: float = 0.0) -> LocalLock:
        """Raises Locked while another one has the turn."""
        return LocalLock(self._lock, f"what is queued for {self._tree}").take(self._holder, wait_s=wait_s)

    def run(self, work: Callable[[], int], *, wait_s: float) -> Iterator[int]:
        """The exit status of each turn: a second one for those who came meanwhile. Raises Locked where another one
        works, which has been told; or where this machine goes off."""
        for number in range(MAX_TURNS):
            self._refuse_going()
            self.ask()
            try:
                held = self.taken(wait_s=wait_s)
            except Locked as error:
                if number:
                    return
                raise Locked(error.message, "it looks at what is queued once more before it ends") from error
            with held:
                yield work()
            if not self.asked or self._is_going():
                return

    # --- word for whoever works ------------------------------------------------------------------------------

    def ask(self) -> None:
        """Whoever works looks once more. Raises K4tError."""
        try:
            self._again.parent.mkdir(mode=0o700, exist_ok=True)
            self._again.touch(0o600)
        except OSError as error:
            raise K4tError(f"can't write {self._again}: {error.strerror}") from error

    @property
    def asked(self) -> bool:
        return self._again.exists()

    def answer(self) -> None:
        """To be called before the look that answers those who asked until now."""
        self._again.unlink(missing_ok=True)

    # --- this machine's end ----------------------------------------------------------------------------------

    def go(self) -> None:
        """It goes off now: what begins from here on would be torn off. Raises K4tError."""
        write_file(self._going, json.dumps({"at": time.time(), "boot": boot()}).encode() + b"\n", 0o600)

    def stay(self) -> None:
        self._going.unlink(missing_ok=True)

    def _is_going(self) -> bool:
        try:
            found = json.loads(self._going.read_bytes())
            return bool(found["boot"] == boot() and 0 <= time.time() - float(found["at"]) < GOING_S)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _refuse_going(self) -> None:
        if self._is_going():
            raise Locked("this machine is going off", "k4t power on, when it is off; it does what is queued then")
