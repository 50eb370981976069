"""Where intents lie until the master is awake: in `intents/` of this cluster's directory on hosts, and in
`.k4t/intents/` of the working copy. One file each, `ID.json`, written as a whole or not at all."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from datetime import datetime
from pathlib import Path

from k4t.errors import K4tError
from k4t.master.fleet import Fleet, Host
from k4t.master.power import intents
from k4t.master.power.intents import Intent
from k4t.master.power.places import Failure, directory, everywhere
from k4t.master.power.signed import MAX_BYTES, Refused, Trust
from k4t.model.value import value
from k4t.remote.transport import Transport
from k4t.tree.changes import read
from k4t.tree.edit import write_file

HERE = "this machine"
MAX_FILES = 200
"""Of one place, at once: the rest waits for the next time."""
MAX_ASIDE = 50
_FILE = re.compile(rf"({intents.ID.pattern})\.json")

LIST = f"""\
LC_ALL=C; export LC_ALL; cd "$1" 2>/dev/null || exit 0; n=0
for f in *.json; do
  case $f in *[!a-z0-9.]*) continue;; esac
  if [ ! -f "$f" ] || [ -h "$f" ]; then continue; fi
  n=$((n+1)); [ "$n" -le {MAX_FILES} ] || break
  printf '%s %s\\n' "$f" "$(head -c {MAX_BYTES + 1} "$f" | base64 | tr -d '\\n')"
done
"""
ASIDE = f"""\
LC_ALL=C; export LC_ALL; cd "$1" || exit 0; shift; umask 077; mkdir -p refused || exit 1
for f; do mv -f -- "$f" refused/ || exit 1; done
ls -t refused | tail -n +{MAX_ASIDE + 1} | while read -r f; do rm -f -- "refused/$f"; done
"""


@value
class Found:
    """One intent as it lies there. `places`: where, HERE for this working copy's own."""

    intent: Intent
    places: tuple[str, ...]


@value
class Bad:
    """A file that is no intent to be done, and why."""

    place: str
    name: str
    why: str


@value
class Queue:
    """What lies where, oldest first. `away`: places that could not be asked. `signed`: there is a place whose files
    count only with a signature."""

    found: tuple[Found, ...] = ()
    bad: tuple[Bad, ...] = ()
    away: tuple[Failure, ...] = ()
    raw: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)


def put(fleet: Fleet, hosts: Iterable[Host], intent: Intent, data: bytes) -> tuple[list[str], list[Failure]]:
    """On hosts: those that have it now, and those that could not take it."""
    path = f"{directory(fleet.tree.cluster.id)}/intents/{intent.id}.json"

    def write(transport: Transport) -> None:
        transport.put(path, data, 0o600)

    done, failed = everywhere(fleet, hosts, write)
    return list(done), failed


def put_here(tree: Path, intent: Intent, data: bytes) -> Path:
    """In this working copy. Raises K4tError."""
    path = _own(tree) / f"{intent.id}.json"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise K4tError(f"can't write {path.parent}: {error.strerror}") from error
    write_file(path, data, 0o600)
    return path


def look(fleet: Fleet, hosts: Iterable[Host], tree: Path, trust: Trust, now: datetime) -> Queue:
    """All that is queued, checked; nothing is changed. One that lies in several places is one."""
    path = f"{directory(fleet.tree.cluster.id)}/intents"

    def listed(transport: Transport) -> dict[str, bytes]:
        done = transport.run(["sh", "-c", LIST, "sh", path])
        return _parsed(done.stdout) if done.ok else {}

    raw, away = everywhere(fleet, hosts, listed)
    return judged({HERE: _here(tree), **raw}, trust, now, away=tuple(away))


def judged(
    raw: Mapping[str, Mapping[str, bytes]], trust: Trust, now: datetime, *, away: tuple[Failure, ...] = ()
) -> Queue:
    """Pure. `raw`: by place the files that lie there, by the id that their name has."""
    good: dict[Intent, list[str]] = {}
    bad = []
    for place, files in raw.items():
        for name, data in files.items():
            try:
                intent = intents.decode(data, name, trust, now, unsigned=place == HERE)
            except Refused as error:
                bad.append(Bad(place, name, error.message))
            else:
                good.setdefault(intent, []).append(place)
    found = [Found(intent, tuple(where)) for intent, where in good.items()]
    found.sort(key=lambda one: (one.intent.at, one.intent.id))
    return Queue(tuple(found), tuple(bad), away, raw)


def remove(fleet: Fleet, hosts: Iterable[Host], tree: Path, ids: Iterable[str]) -> list[Failure]:
    """From everywhere; where it can't be taken away, what is remembered of it keeps it from being done again."""
    names = [f"{id}.json" for id in ids]
    if not names:
        return []
    for name in names:
        (_own(tree) / name).unlink(missing_ok=True)
    path = f"{directory(fleet.tree.cluster.id)}/intents"

    def clear(transport: Transport) -> None:
        _succeeded(transport, ["rm", "-f", "--", *(f"{path}/{name}" for name in names)])

    return everywhere(fleet, hosts, clear)[1]


def set_aside(fleet: Fleet, hosts: Iterable[Host], tree: Path, bad: Iterable[Bad]) -> list[Failure]:
    """Into `refused/` beside the queue, where people can look at them; the newest of a place are kept."""
    by_place: dict[str, list[str]] = {}
    for one in bad:
        by_place.setdefault(one.place, []).append(f"{one.name}.json")
    _aside_here(_own(tree), by_place.pop(HERE, []))
    path = f"{directory(fleet.tree.cluster.id)}/intents"

    def move(transport: Transport) -> None:
        _succeeded(transport, ["sh", "-c", ASIDE, "sh", path, *by_place[transport.host]])

    return everywhere(fleet, [host for host in hosts if host.name in by_place], move)[1]


def files_here(tree: Path) -> dict[str, bytes]:
    """What lies in this working copy, by id, whatever it is; nothing also where that can't be read."""
    return _here(tree)


def _own(tree: Path) -> Path:
    return tree / ".k4t" / "intents"


def _here(tree: Path) -> dict[str, bytes]:
    try:
        names = sorted(os.listdir(_own(tree)))[:MAX_FILES]
    except OSError:
        return {}
    files = ((found[1], _read(_own(tree) / name)) for name in names if (found := _FILE.fullmatch(name)))
    return {name: data for name, data in files if data is not None}


def _read(path: Path) -> bytes | None:
    try:
        found = read(path)
    except K4tError:
        return None
    return found.data[: MAX_BYTES + 1] if found else None


def _aside_here(queue: Path, names: Iterable[str]) -> None:
    for name in names:
        try:
            (queue / "refused").mkdir(mode=0o700, exist_ok=True)
            (queue / name).rename(queue / "refused" / name)
        except OSError as error:
            raise K4tError(f"can't put {queue / name} aside: {error.strerror}") from error


def _parsed(output: bytes) -> dict[str, bytes]:
    found = {}
    for line in output.splitlines()[:MAX_FILES]:
        name, _, data = line.decode("ascii", "replace").partition(" ")
        if known := _FILE.fullmatch(name):
            try:
                found[known[1]] = base64.b64decode(data, validate=True)
            except binascii.Error:
                found[known[1]] = b""
    return found


def _succeeded(transport: Transport, argv: list[str]) -> None:
    done = transport.run(argv)
    if not done.ok:
        raise K4tError(done.words(), host=transport.host)
