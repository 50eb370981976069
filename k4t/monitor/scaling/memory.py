"""What rounds before this one saw and asked for, by app. Whoever keeps it stores `encode`'s JSON and gives it back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from k4t.model.value import value

FORMAT = 1


@value
class Memory:
    said: Mapping[str, str] = field(default_factory=dict)


NONE = Memory()


def encode(memory: Memory) -> dict[str, Any]:
    """Small and bounded, for JSON."""
    return {"format": FORMAT, "said": dict(memory.said)}


def decode(found: object) -> Memory:
    """What is there, if it can be believed; else NONE. Raises nothing."""
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return NONE
    return NONE
