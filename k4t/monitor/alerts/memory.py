"""XDG_STATE_HOME/k4t/monitor/CLUSTERID.alerts.json: what each alert has told and has still to tell, read and written
whole, bounded, without any secret.

    {"format":1,"at":Unix seconds of the last check,"alerts":{IDENTITY:{"state":{…},"box":{…}}}}

One that is lost, damaged or of another format is as if there had been none: what is open is told again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, TypeVar

from k4t.model.value import value
from k4t.monitor import statefile
from k4t.monitor.acting.action import Action, Outcome
from k4t.monitor.alerts.box import Box
from k4t.monitor.alerts.message import EVENTS, Item, Message
from k4t.monitor.alerts.step import State, Told
from k4t.monitor.judge import LEVELS

T = TypeVar("T")
FORMAT = 1
MAX_BYTES = 32 * 1024 * 1024
RESULTS = ("done", "queued", "dry-run", "refused", "failed")


@value
class Desk:
    """Of one alert."""

    state: State = field(default_factory=State)
    box: Box = field(default_factory=Box)


@value
class Kept:
    """`desks` by the identity of their alerts; `at_s`: the last check."""

    desks: Mapping[str, Desk] = field(default_factory=dict)
    at_s: float | None = None


NONE = Kept()


def load(file: Path) -> tuple[Kept, str]:
    """What is there, if it can be believed; and what is to be said of it."""
    kept, why = statefile.read(file, decode, NONE, max_bytes=MAX_BYTES)
    return kept, why and f"{why}: what is open is told again"


def save(file: Path, kept: Kept) -> None:
    """Raises K4tError with the path."""
    statefile.write(file, encode(kept))


def encode(kept: Kept) -> dict[str, Any]:
    alerts = {name: {"state": _state(desk.state), "box": _fields(desk.box)} for name, desk in kept.desks.items()}
    return {"format": FORMAT, "at": kept.at_s, "alerts": alerts}


def _state(state: State) -> dict[str, Any]:
    found: dict[str, Any] = _fields(state)
    return found | {
        "open": [_fields(one) for one in state.open.values()],
        "ended": [_fields(one) for one in state.ended.values()],
    }


def _fields(one: Any) -> Any:
    """Values as their fields by name, all the way down."""
    if isinstance(one, (list, tuple)):
        return [_fields(inner) for inner in one]
    names: tuple[str, ...] | None = getattr(type(one), "__match_args__", None)
    return one if names is None else {name: _fields(getattr(one, name)) for name in names}


# --- read back; every function raises what a wrong shape raises ------------------------------------------------------


def decode(found: Mapping[str, Any]) -> Kept:
    if found["format"] != FORMAT:
        raise ValueError(found["format"])
    desks = {str(name): Desk(_as_state(one["state"]), _as_box(one["box"])) for name, one in found["alerts"].items()}
    return Kept(desks, _maybe(found["at"], _number))


def _as_state(found: Mapping[str, Any]) -> State:
    open_ = [_as_told(one) for one in found["open"]]
    ended = [_as_told(one) for one in found["ended"]]
    return State(
        {one.item.key: one for one in open_},
        {one.item.key: one for one in ended},
        _many(found["outcomes"], _as_outcome),
        {str(key): _number(at_s) for key, at_s in found["said"].items()},
        _maybe(found["news_s"], _number),
        _many(found["sent"], _number),
        int(found["number"]),
        int(found["dropped"]),
        bool(found["held"]),
    )


def _as_told(found: Mapping[str, Any]) -> Told:
    level = found["level"] and _one_of(found["level"], LEVELS)
    return Told(_as_item(found["item"]), level, _number(found["at_s"]))


def _as_box(found: Mapping[str, Any]) -> Box:
    return Box(
        _maybe(found["first"], _as_message),
        _maybe(found["second"], _as_message),
        _number(found["next_s"]),
        str(found["error"]),
    )


def _as_message(found: Mapping[str, Any]) -> Message:
    return Message(
        str(found["id"]), _number(found["at_s"]), _many(found["items"], _as_item),
        _many(found["outcomes"], _as_outcome), int(found["critical"]), int(found["warning"]), int(found["more"]),
        int(found["dropped"]), bool(found["held"]), _many(found["replaces"], str), _number(found["first_s"]),
        int(found["tries"]), bool(found["test"]),
    )  # fmt: skip


def _as_item(found: Mapping[str, Any]) -> Item:
    return Item(
        str(found["kind"]), str(found["name"]), str(found["what"]), _one_of(found["event"], EVENTS),  # type: ignore[arg-type]
        _one_of(found["level"], LEVELS), _number(found["since_s"]), str(found["sentence"]), str(found["remedy"]),
        str(found["thread"]), bool(found["seen"]), _maybe(found["ended_s"], _number),
    )  # fmt: skip


def _as_outcome(found: Mapping[str, Any]) -> Outcome:
    of = found["action"]
    action = Action(
        str(of["policy"]), str(of["verb"]), str(of["name"]), str(of["cause"]), str(of["replica"]),  # type: ignore[arg-type]
        int(of["replicas"]), bool(of["dry_run"]),
    )  # fmt: skip
    result: Any = _one_of(found["result"], RESULTS)
    return Outcome(action, result, _number(found["at_s"]), str(found["words"]), str(found["intent"]))


def _many(found: list[Any], one: Callable[[Any], T]) -> tuple[T, ...]:
    if not isinstance(found, list):
        raise TypeError(found)
    return tuple(one(inner) for inner in found)


def _maybe(found: Any, one: Callable[[Any], T]) -> T | None:
    return None if found is None else one(found)


def _number(found: Any) -> float:
    if not math.isfinite(found):
        raise ValueError(found)
    return float(found)


def _one_of(found: Any, known: tuple[T, ...]) -> T:
    return known[known.index(found)]
