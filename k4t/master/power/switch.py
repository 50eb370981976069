"""The commands of `<power>`: run here, as argument lists. `wol MAC [BROADCAST]` needs no program."""

from __future__ import annotations

from k4t import command
from k4t.errors import K4tError
from k4t.master.power import wol

TIMEOUT_S = 120.0


def on(text: str, what: str, *, timeout_s: float = TIMEOUT_S) -> str:
    """Switch something on; a word about it. Raises K4tError unless the command says that it succeeded."""
    if text.startswith("wol "):
        _, *words = text.split(" ")
        wol.wake(*words)
        return f"{what} was called by wake-on-LAN: {' '.join(words)}"
    _run(text, f"{what} was not switched on", timeout_s)
    return f"{what} was switched on: `{text}`"


def off(text: str, what: str) -> None:
    """Switch something off. Raises K4tError unless the command says that it succeeded."""
    _run(text, f"{what} was not switched off")


def _run(text: str, otherwise: str, timeout_s: float = TIMEOUT_S) -> None:
    try:
        done = command.run(command.split(text), timeout_s=timeout_s)
    except K4tError as error:
        raise K4tError(f"{otherwise}: {error.message}", error.remedy) from error
    if not done.ok:
        raise K4tError(f"{otherwise}: `{text}` said: {done.words()}")
