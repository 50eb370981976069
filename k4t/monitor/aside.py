"""What may take long, beside the rounds: one at a time. What is seen meanwhile is not queued up: the newest counts."""

from __future__ import annotations

import threading
from collections.abc import Callable

from k4t.errors import K4tError
from k4t.monitor.check import Looked


class Aside:
    """`action` ends by itself, and raises K4tError."""

    def __init__(self, action: Callable[[Looked], None]) -> None:
        self._action = action
        self._thread: threading.Thread | None = None
        self._problem: K4tError | None = None

    def __call__(self, looked: Looked) -> None:
        """Raises what became of the last one, as long as that is a problem. Waits for nothing."""
        problem = self._problem
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, args=(looked,), name="monitor aside", daemon=True)
            self._thread.start()
        if problem is not None:
            raise problem

    def _run(self, looked: Looked) -> None:
        try:
            self._action(looked)
        except K4tError as error:
            self._problem = error
        except Exception as error:  # noqa: BLE001 - said with the next round, which goes on
            self._problem = K4tError(f"internal error: {type(error).__name__}: {error}")
        else:
            self._problem = None
