"""What rounds before this one saw and asked for, by app. Whoever keeps it stores `encode`'s JSON and gives it back.

    {"format":1,"apps":{APP:{"track":{…},"used":{CONTAINER:[seconds, CPU seconds, SOURCE]},
                             "counted":{GATEWAY:[Unix seconds,{IP:PORT: number}]}}}}

Lost, damaged or of another format it is as if there had been none: windows begin anew, and nothing shrinks until they
are over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from k4t.model.value import value
from k4t.monitor.scaling.track import MOVES_MAX, WANTS_MAX, Move, Track, Want

FORMAT = 1
APPS_MAX = 1000
KEPT_MAX = 2000
SAID_MAX = 400


@value
class Used:
    """Processor time of a container since its start, as it was read at `at_s`, by the clock of its source `by`."""

    at_s: float
    cpu_s: float
    by: str = "cgroup"


@value
class Counted:
    """What a gateway had counted by then for each of our endpoints, by ip:port."""

    at_s: float
    totals: Mapping[str, int]


@value
class Seen:
    """The readings that the next ones make rates with. `used` by container id, `counted` by gateway."""

    used: Mapping[str, Used] = field(default_factory=dict)
    counted: Mapping[str, Counted] = field(default_factory=dict)


NOTHING = Seen()


@value
class AppMemory:
    track: Track
    seen: Seen = NOTHING


@value
class Memory:
    apps: Mapping[str, AppMemory] = field(default_factory=dict)


NONE = Memory()


def encode(memory: Memory) -> dict[str, Any]:
    """Bounded, for JSON."""
    return {"format": FORMAT, "apps": {name: _app(one) for name, one in list(memory.apps.items())[:APPS_MAX]}}


def _app(one: AppMemory) -> dict[str, Any]:
    track = one.track
    return {
        "track": {
            "size": track.size,
            "at": track.at_s,
            "wants": [[want.at_s, want.replicas] for want in track.wants[-WANTS_MAX:]],
            "moves": [[move.at_s, move.before, move.after] for move in track.moves[-MOVES_MAX:]],
            "asked": track.asked,
            "asked_at": track.asked_s,
            "cause": track.cause[:SAID_MAX],
            "said": track.said[:SAID_MAX],
        },
        "used": {id: [used.at_s, used.cpu_s, used.by] for id, used in list(one.seen.used.items())[:KEPT_MAX]},
        "counted": {
            gateway: [counted.at_s, dict(list(counted.totals.items())[:KEPT_MAX])]
            for gateway, counted in list(one.seen.counted.items())[:KEPT_MAX]
        },
    }


def decode(found: object) -> Memory:
    """What is there, if it can be believed; else NONE. Raises nothing."""
    try:
        if not isinstance(found, dict) or found["format"] != FORMAT:
            return NONE
        return Memory({str(name): _decoded(one) for name, one in list(found["apps"].items())[:APPS_MAX]})
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return NONE


def _decoded(found: Mapping[str, Any]) -> AppMemory:
    """Raises what a wrong shape raises."""
    track = found["track"]
    asked = track["asked"]
    return AppMemory(
        Track(
            size=int(track["size"]),
            at_s=float(track["at"]),
            wants=tuple(Want(float(at), int(number)) for at, number in track["wants"][-WANTS_MAX:]),
            moves=tuple(Move(float(at), int(old), int(new)) for at, old, new in track["moves"][-MOVES_MAX:]),
            asked=None if asked is None else int(asked),
            asked_s=float(track["asked_at"]),
            cause=str(track["cause"])[:SAID_MAX],
            said=str(track["said"])[:SAID_MAX],
        ),
        Seen(
            {
                str(id): Used(float(at), float(cpu), str(by))
                for id, (at, cpu, by) in list(found["used"].items())[:KEPT_MAX]
            },
            {
                str(gateway): Counted(float(at), {str(key): int(number) for key, number in totals.items()})
                for gateway, (at, totals) in list(found["counted"].items())[:KEPT_MAX]
            },
        ),
    )
