"""Spare nodes: when the cluster is short of nodes, and when some are idle (`decide`, pure). What fits is asked of the
planner's own placement (`room`)."""

from k4t.monitor.spare.decide import decide
from k4t.monitor.spare.memory import NONE, Memory, decode, encode

__all__ = ["NONE", "Memory", "decide", "decode", "encode"]
