"""First health checks, by gateways that make some: how long they are waited for, what is said when they fail."""

from __future__ import annotations

from typing import Iterable

FIRST_CHECK_S = 2.0
LONGEST_CHECK_S = 20.0
SLOWEST_POLL_S = 0.1
POLL_S = 0.002
MOST_SAID = 5


def patience_s(timeouts_s: Iterable[float], least_s: float = FIRST_CHECK_S) -> float:
    """As long as the slowest check may take, and somewhat more."""
    return min(max([least_s, *(timeout_s + 1 for timeout_s in timeouts_s)]), LONGEST_CHECK_S)


def failing(vendor: str, names: Iterable[str]) -> str:
    """In words, what fails the vendor's check; "" when nothing does."""
    said = sorted(set(names))
    more = " (and %d more)" % (len(said) - MOST_SAID) if len(said) > MOST_SAID else ""
    return "; ".join("%s fails %s's health check" % (name, vendor) for name in said[:MOST_SAID]) + more
