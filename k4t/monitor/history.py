"""What the checks before this one saw: XDG_STATE_HOME/k4t/monitor/CLUSTERID.json, read and written whole, bounded.

    {"format":1,"rounds":[Unix seconds…],
     "entries":{KEY:{"samples":[severity…],"level":severity,"since":Unix seconds,"said":sentence}},
     "ticks":{HOST:[total,idle]},"firsts":{TRANSACTION:Unix seconds}}

It only says how sure a check may be: one that is lost, damaged or of another format is as if there had been none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from k4t.model.monitor import CHECKS_MAX
from k4t.model.value import value
from k4t.monitor import statefile
from k4t.monitor.facts import Ticks

FORMAT = 1
MAX_SAID = 300
GAP_S = 1800.0
"""Checks longer ago than this say nothing about now."""
BACK_S = 60.0
"""So much may our own clock go back between two checks."""
MAX_ENTRIES = 5000
MAX_BYTES = 8 * 1024 * 1024
YEAR_10000_S = 253_402_300_800.0


@value
class Entry:
    """One kind of trouble of one subject. `samples`: severities, oldest first; `level`: what is held to be the case;
    `since_s`: when the first sample that was not 0 came, after the last time that all was well. `said`: the sentence
    that told of it last."""

    samples: tuple[int, ...] = ()
    level: int = 0
    since_s: float = 0.0
    said: str = ""


@value
class History:
    """`rounds`: when checks were made, oldest first. A sign without an entry was well in all of them."""

    rounds: tuple[float, ...] = ()
    entries: Mapping[str, Entry] = field(default_factory=dict)
    ticks: Mapping[str, Ticks] = field(default_factory=dict)
    firsts: Mapping[str, float] = field(default_factory=dict)


NONE = History()


def recent(history: History, now_s: float) -> History:
    """Pure. As it counts now: nothing of it, where the last check was long ago, or is still to come."""
    last_s = history.rounds[-1] if history.rounds else None
    if last_s is None or now_s - last_s > GAP_S or last_s - now_s > BACK_S:
        return NONE
    return history


def load(file: Path) -> History:
    """What is there, if it can be believed."""
    return statefile.read(file, decode, NONE, max_bytes=MAX_BYTES)[0]


def save(file: Path, history: History) -> None:
    """Raises K4tError with the path."""
    statefile.write(file, encode(history))


def encode(history: History) -> dict[str, Any]:
    entries = sorted(history.entries.items(), key=lambda item: (-item[1].level, item[0]))[:MAX_ENTRIES]
    return {
        "format": FORMAT,
        "rounds": list(history.rounds[-CHECKS_MAX:]),
        "entries": {
            key: {
                "samples": list(one.samples[-CHECKS_MAX:]),
                "level": one.level,
                "since": one.since_s,
                "said": one.said,
            }
            for key, one in entries
        },
        "ticks": {key: [one.total, one.idle] for key, one in list(history.ticks.items())[:MAX_ENTRIES]},
        "firsts": dict(list(history.firsts.items())[:MAX_ENTRIES]),
    }


def decode(found: Mapping[str, Any]) -> History:
    """Raises what a wrong shape raises."""
    if found["format"] != FORMAT:
        return NONE
    return History(
        rounds=tuple(_time(at) for at in found["rounds"])[-CHECKS_MAX:],
        entries={_key(key): _entry(entry) for key, entry in found["entries"].items()},
        ticks={str(key): Ticks(int(total), int(idle)) for key, (total, idle) in found["ticks"].items()},
        firsts={str(key): _time(at) for key, at in found["firsts"].items()},
    )  # fmt: skip


def _entry(found: Mapping[str, Any]) -> Entry:
    samples = tuple(_severity(one) for one in found["samples"])[-CHECKS_MAX:]
    return Entry(samples, _severity(found["level"]), _time(found["since"]), str(found["said"])[:MAX_SAID])


def _key(found: str) -> str:
    """KIND/NAME:WHAT, where a name may have colons of its own."""
    place, _, what = found.rpartition(":")
    kind, _, name = place.partition("/")
    if not (kind and name and what):
        raise ValueError(found)
    return found


def _time(found: Any) -> float:
    """Unix seconds that have a date."""
    at_s = float(found)
    if not 0.0 <= at_s < YEAR_10000_S:
        raise ValueError(found)
    return at_s


def _severity(found: Any) -> int:
    if found not in (0, 1, 2, 3) or isinstance(found, bool):
        raise ValueError(found)
    return int(found)
