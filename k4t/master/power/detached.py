"""`k4t wake` on a master that is on, begun by somebody who doesn't stay to see its end: the monitor's forced command.

Of several, one works: who comes meanwhile leaves word for it (`turns`). What they say goes to `.k4t/wake.log`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from k4t import command
from k4t.errors import K4tError
from k4t.master.power import look, service

LOG = "wake.log"
MAX_BYTES = 1024 * 1024
"""The log before this one is kept, as wake.log.1."""


def argv(db: Path, cluster_id: str) -> list[str]:
    """The forced command, which runs as this program runs now, wherever it is called from."""
    environ = service.environment()
    if path := os.environ.get("PYTHONPATH"):
        environ["PYTHONPATH"] = path
    settings = [f"{key}={text}" for key, text in environ.items()]
    return ["env", *settings, sys.executable, "-m", "k4t.cli", "--db", os.fspath(db), "wake", "--forced", cluster_id]


def begin(db: Path, words: Sequence[str]) -> str:
    """Start `k4t wake` with these words and don't wait; what is to be said of that. This machine stays on beneath
    somebody who is logged in at it. Raises K4tError."""
    people = look.logins()
    stay = ["--stay-on"] if people and not {"--power-off", "--stay-on"} & set(words) else []
    log = db.absolute() / ".k4t" / LOG
    try:
        log.parent.mkdir(mode=0o700, exist_ok=True)
        if log.exists() and log.stat().st_size > MAX_BYTES:
            log.replace(log.with_name(f"{LOG}.1"))
    except OSError as error:
        raise K4tError(f"can't write {log}: {error.strerror}") from error
    program = [sys.executable, "-m", "k4t.cli", "--db", os.fspath(db.absolute()), "wake", *words, *stay]
    command.begun(program, log)
    said = f"k4t wake has begun; {log} has what it says"
    return f"{said}; it stays on, for {', '.join(people)}" if stay else said
