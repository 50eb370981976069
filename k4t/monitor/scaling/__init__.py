"""Apps with `<scale>`: what their load is (`sample`), how many replicas that wants (`track`, pure), and what is asked
of the master for it (`step`, the story of one round)."""

from k4t.monitor.scaling.memory import NONE, Memory, decode, encode
from k4t.monitor.scaling.step import round, words  # noqa: A004 - whoever calls it says scaling.round

__all__ = ["NONE", "Memory", "decode", "encode", "round", "words"]
