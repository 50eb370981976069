"""What the monitor did, and what it counts: XDG_STATE_HOME/k4t/monitor/CLUSTERID.acts.json, read and written whole.

    {"format":1,"at":Unix seconds,"acts":[{"key","policy","verb","name","at","tries","result","intent"}…],
     "runs":{COUNTER:number},"hosted":{NODE:number},"given_up":{NODE:Unix seconds},"said":[KEY…]}

Limits are kept by it: what can't be written here isn't done. One that is lost, damaged or of another format is as if
nothing had been done, and every counter begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from k4t.model.value import value
from k4t.monitor import statefile

FORMAT = 1
MAX_ACTS = 500
MAX_ENTRIES = 5000
MAX_BYTES = 4 * 1024 * 1024
BEGUN, DONE, QUEUED, DRY_RUN, FAILED = "begun", "done", "queued", "dry-run", "failed"
RESULTS = (BEGUN, DONE, QUEUED, DRY_RUN, FAILED)


@value
class Act:
    """One thing that was done, or begun: a second try of one that failed is the same act. `key`: of the action;
    `at_s`: of the last try; `intent`: the id of what was queued."""

    key: str
    policy: str
    verb: str
    name: str
    at_s: float
    tries: int = 1
    result: str = BEGUN
    intent: str = ""


@value
class Memory:
    """`runs`: how many checks in a row saw something, by what; `hosted`: how many containers a node had when it was
    last asked; `given_up`: nodes that were given up from here, since when. `said`: what was held back and told already.
    `at_s`: the last round; 0: there was none."""

    at_s: float = 0.0
    acts: tuple[Act, ...] = ()
    runs: Mapping[str, int] = field(default_factory=dict)
    hosted: Mapping[str, int] = field(default_factory=dict)
    given_up: Mapping[str, float] = field(default_factory=dict)
    said: frozenset[str] = frozenset()

    def last(self, key: str) -> Act | None:
        return next((act for act in reversed(self.acts) if act.key == key), None)


NONE = Memory()


def path(cluster_id: str) -> Path:
    return statefile.path(cluster_id, "acts")


def load(file: Path) -> tuple[Memory, str]:
    """What is there, if it can be believed; and why not, "" also where there is none yet."""
    return statefile.read(file, decode, NONE, max_bytes=MAX_BYTES)


def save(file: Path, memory: Memory) -> None:
    """Raises K4tError with the path."""
    statefile.write(file, encode(memory))


def encode(memory: Memory) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "at": memory.at_s,
        "acts": [
            {
                "key": act.key, "policy": act.policy, "verb": act.verb, "name": act.name, "at": act.at_s,
                "tries": act.tries, "result": act.result, "intent": act.intent,
            }
            for act in memory.acts[-MAX_ACTS:]
        ],
        "runs": dict(list(memory.runs.items())[:MAX_ENTRIES]),
        "hosted": dict(list(memory.hosted.items())[:MAX_ENTRIES]),
        "given_up": dict(list(memory.given_up.items())[:MAX_ENTRIES]),
        "said": sorted(memory.said)[:MAX_ENTRIES],
    }  # fmt: skip


def decode(found: Mapping[str, Any]) -> Memory:
    """Raises what a wrong shape raises."""
    if found["format"] != FORMAT:
        raise ValueError(found["format"])
    return Memory(
        at_s=float(found["at"]),
        acts=tuple(_act(one) for one in found["acts"])[-MAX_ACTS:],
        runs={str(key): _count(one) for key, one in found["runs"].items()},
        hosted={str(key): _count(one) for key, one in found["hosted"].items()},
        given_up={str(key): float(at) for key, at in found["given_up"].items()},
        said=frozenset(str(one) for one in found["said"]),
    )


def _act(found: Mapping[str, Any]) -> Act:
    key, policy, verb, name = (str(found[word]) for word in ("key", "policy", "verb", "name"))
    if found["result"] not in RESULTS:
        raise ValueError(found["result"])
    at_s, tries = float(found["at"]), _count(found["tries"])
    return Act(key, policy, verb, name, at_s, tries, found["result"], str(found["intent"]))


def _count(found: Any) -> int:
    if not isinstance(found, int) or isinstance(found, bool) or found < 0:
        raise ValueError(found)
    return found
