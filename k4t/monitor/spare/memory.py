"""What checks before this one saw, and which node was asked for. Whoever keeps it stores `encode`'s JSON.

    {"format":1,"at":Unix seconds,"short":N,"idle":N,"idle_since":Unix seconds,"waits":N,"off_at":Unix seconds,
     "asked":[VERB,NODE,CAUSE,Unix seconds]|null,"failed":{NODE:Unix seconds},
     "facts":{NODE:[arch,os,cpus,memory bytes]}}

Lost, damaged or of another format it is as if there had been none: a node is switched off the later for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from k4t.model.state import Facts
from k4t.model.value import value

FORMAT = 1
NODES_MAX = 2000
CAUSE_MAX = 400


@value
class Asked:
    """`verb`: node-on or node-off."""

    verb: str
    name: str
    cause: str
    at_s: float


@value
class Memory:
    """`at_s`: of the last check that counted. `short`, `idle`: so many such checks in a row saw that; `idle_since_s`:
    when the first of these was. `waits`: how often a node was needed again soon after one was switched off (`off_s`):
    each time idle ones are left on for twice as long. `failed`: nodes that were asked to come and did not. `facts`:
    what nodes said they have, when they were on."""

    at_s: float = 0.0
    short: int = 0
    idle: int = 0
    idle_since_s: float = 0.0
    waits: int = 0
    off_s: float = 0.0
    asked: Asked | None = None
    failed: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Facts] = field(default_factory=dict)


NONE = Memory()


def encode(memory: Memory) -> dict[str, Any]:
    """Bounded, for JSON."""
    asked = memory.asked
    facts = list(memory.facts.items())[:NODES_MAX]
    return {
        "format": FORMAT,
        "at": memory.at_s,
        "short": memory.short,
        "idle": memory.idle,
        "idle_since": memory.idle_since_s,
        "waits": memory.waits,
        "off_at": memory.off_s,
        "asked": [asked.verb, asked.name, asked.cause[:CAUSE_MAX], asked.at_s] if asked else None,
        "failed": dict(list(memory.failed.items())[:NODES_MAX]),
        "facts": {name: [one.arch, one.os, one.cpus, one.memory_bytes] for name, one in facts},
    }


def decode(found: Any) -> Memory:
    """NONE for what is none."""
    try:
        if found["format"] != FORMAT:
            return NONE
        return Memory(
            at_s=float(found["at"]),
            short=int(found["short"]),
            idle=int(found["idle"]),
            idle_since_s=float(found["idle_since"]),
            waits=int(found["waits"]),
            off_s=float(found["off_at"]),
            asked=_asked(found["asked"]),
            failed={str(name): float(at) for name, at in found["failed"].items()},
            facts={str(name): _facts(*one) for name, one in found["facts"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return NONE


def _asked(found: Any) -> Asked | None:
    if found is None:
        return None
    verb, name, cause, at_s = found
    if verb not in ("node-on", "node-off"):
        raise ValueError(verb)
    return Asked(str(verb), str(name), str(cause), float(at_s))


def _facts(arch: Any, os: Any, cpus: Any, memory_bytes: Any) -> Facts:
    return Facts(str(arch), str(os), float(cpus), int(memory_bytes))
