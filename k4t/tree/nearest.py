"""The nearest known name for a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str:
    """One of `known`, or "" when none is near. Long names and lists are cut: a message must not take seconds."""
    candidates = [word for word in known if len(word) <= 100][:2000]
    found = get_close_matches(name[:100], candidates, n=1, cutoff=0.6)
    return found[0] if found else ""


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    return f"did you mean {found}?" if (found := nearest(name, known)) else otherwise
