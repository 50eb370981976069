"""The probe's answer, taken in strictly: what can't be believed is named and unknown, whatever a host may say. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from k4t.command import Completed
from k4t.errors import K4tError
from k4t.model.value import value
from k4t.monitor.facts import Disk, Memory, Reading, Ticks
from k4t.remote import head as heads
from k4t.remote.lock import read_record

MARK = "k4t-probe 1"
PROCESSES = ("sshd", "dropbear", "dockerd", "envoy", "haproxy", "nginx", "dnsmasq", "named", "coredns")
DISKS = ("root", "docker", "state")
FILES = ("off", "confirmed", "head", "lock")
MAX_LINES = 2000
MAX_GREETING = 200
MAX_FILE_LINE = 8192
MAX_LISTED = 100
ONCE = {"clock": "clock_s", "uptime": "uptime_s", "load": "load", "cpus": "cpus", "ticks": "ticks"}

_DF = re.compile(r"(?:^| )(\d{1,18}) +(\d{1,18}) +(\d{1,18}) +(?:\d{1,4}%|-) +(/[^\0]{0,300})$")
_DF_INODES = re.compile(r"(?:^| )(\d{1,18}|-) +(\d{1,18}|-) +(?:-?\d{1,18}|-) +(?:\d{1,4}%|-) +/")
_MEMORY = re.compile(r"([A-Za-z]{1,20}): +(\d{1,15}) kB")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Garbage(K4tError):
    """The host's answer is none of the probe's."""


@value
class Sent:
    """When the question was sent, by our clock, and how long the whole answer took."""

    at_s: float
    took_s: float


@dataclass(slots=True)
class _Draft:
    """What was read so far."""

    sent: Sent
    fields: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    disks: dict[str, Disk] = field(default_factory=dict)
    processes: dict[str, int] = field(default_factory=dict)
    listed: dict[str, list[str]] = field(default_factory=lambda: {"cluster": [], "driver": [], "denied": []})
    garbage: dict[str, None] = field(default_factory=dict)


def parse(done: Completed, *, sent_s: float, took_s: float, host: str = "") -> Reading:
    """What the command said. Its clock was read between `sent_s`, by ours, and `took_s` later. Raises Garbage where it
    is no such answer at all, and nothing else."""
    lines = done.stdout.decode("utf-8", "replace").split("\n", MAX_GREETING + MAX_LINES)
    start = next((number for number, line in enumerate(lines[:MAX_GREETING]) if line.strip() == MARK), None)
    if start is None:
        said = ascii(done.words()[:60]) if done.stdout.strip() or done.stderr.strip() else "nothing"
        raise Garbage(f"it answers garbage: {said}", "is a POSIX shell its login shell?", host=host)
    draft = _Draft(Sent(sent_s, took_s))
    for line in lines[start + 1 : start + 1 + MAX_LINES]:
        _take(draft, line.rstrip("\r"))
    return _finished(draft, whole=done.exit_status == 0)


def _take(draft: _Draft, line: str) -> None:
    word, _, rest = line.partition(" ")
    if not line:
        return
    if word not in _WORDS:
        draft.garbage["lines of no meaning"] = None
        return
    try:
        _WORDS[word](draft, word, rest.strip())
    except (ValueError, IndexError, K4tError):
        draft.garbage[word] = None


def _finished(draft: _Draft, *, whole: bool) -> Reading:
    memory = _memory_of(draft.memory)
    missing = [word for word, name in ONCE.items() if name not in draft.fields]
    draft.garbage.update(dict.fromkeys([*missing, *([] if memory else ["memory"]), *([] if whole else ["its end"])]))
    return replace(
        Reading(**draft.fields), memory=memory, disks=draft.disks, processes=draft.processes,
        clusters=tuple(draft.listed["cluster"]), drivers=tuple(draft.listed["driver"]),
        denied=tuple(draft.listed["denied"]), garbage=tuple(draft.garbage), round_trip_s=draft.sent.took_s,
    )  # fmt: skip


# --- one line of each word: raise ValueError for what can't be ---------------------------------------------------


def _clock(draft: _Draft, word: str, rest: str) -> None:
    seconds, _, fraction = rest.partition(" ")
    exact = len(fraction) == 9 and fraction.isascii() and fraction.isdigit()
    theirs_s = _whole(seconds) + (int(fraction) / 1e9 if exact else 0.5)
    half_s = draft.sent.took_s / 2
    skew_s, doubt_s = theirs_s - draft.sent.at_s - half_s, half_s + (0.0 if exact else 0.5)
    _once(draft, word, clock_s=theirs_s, skew_s=skew_s, skew_doubt_s=doubt_s)


def _uptime(draft: _Draft, word: str, rest: str) -> None:
    _once(draft, word, uptime_s=_number(rest.split(maxsplit=1)[0]))


def _load(draft: _Draft, word: str, rest: str) -> None:
    one, five, fifteen = (_number(text) for text in rest.split()[:3])
    _once(draft, word, load=(one, five, fifteen))


def _ticks(draft: _Draft, word: str, rest: str) -> None:
    """`cpu` user nice system idle iowait irq softirq steal (guest is in user already); proc(5)."""
    words = rest.split()
    if words[0] != "cpu" or len(words) < 5:
        raise ValueError
    numbers = [_whole(text) for text in words[1:9]]
    _once(draft, word, ticks=Ticks(sum(numbers), sum(numbers[3:5])))


def _cpus(draft: _Draft, word: str, rest: str) -> None:
    if not 1 <= _whole(rest) <= 100_000:
        raise ValueError
    _once(draft, word, cpus=_whole(rest))


def _memory(draft: _Draft, _word: str, rest: str) -> None:
    found = _MEMORY.fullmatch(rest)
    if found is None:
        raise ValueError
    draft.memory[found[1]] = int(found[2]) * 1024


def _disk(draft: _Draft, _word: str, rest: str) -> None:
    """NAME, then what `df -Pk` says: source, 1024-blocks, used, available, share, mount point. The source may hold
    spaces, so the line is read from its end."""
    name, _, line = rest.partition(" ")
    found = _DF.search(line)
    if name not in DISKS or found is None:
        raise ValueError
    size, used, available = (int(found[number]) * 1024 for number in (1, 2, 3))
    if size <= 0 or used > size or available > size:
        raise ValueError
    draft.disks[name] = Disk(name, found[4], size, used, available)


def _inodes(draft: _Draft, _word: str, rest: str) -> None:
    """The same of `df -Pi`; some file systems have no fixed number, and say 0 or a dash."""
    name, _, line = rest.partition(" ")
    found = _DF_INODES.search(line)
    if name not in draft.disks or found is None:
        raise ValueError
    total, used = (int(found[number]) if found[number] != "-" else 0 for number in (1, 2))
    if used > total:
        raise ValueError
    draft.disks[name] = replace(draft.disks[name], inodes=total, inodes_used=used)


def _process(draft: _Draft, _word: str, rest: str) -> None:
    number, name = rest.split()
    if name not in PROCESSES:
        raise ValueError
    draft.processes[name] = _whole(number)


def _name(draft: _Draft, word: str, rest: str) -> None:
    if not _NAME.fullmatch(rest) or len(draft.listed[word]) >= MAX_LISTED:
        raise ValueError
    draft.listed[word].append(rest)


def _lock(draft: _Draft, _word: str, rest: str) -> None:
    state, _, record = rest.partition(" ")
    if state not in ("free", "held"):
        raise ValueError
    draft.fields.update(lock_held=state == "held", lock=read_record(record) if state == "held" else None)


def _head(draft: _Draft, _word: str, rest: str) -> None:
    if not rest:
        return  # just being made, or the disk was full
    found = heads.parse(rest.encode())
    if found is None:
        raise ValueError
    draft.fields["head"] = found


def _file(draft: _Draft, word: str, rest: str) -> None:
    if len(rest) > MAX_FILE_LINE:
        raise ValueError
    draft.fields[word] = rest


_WORDS: Mapping[str, Callable[[_Draft, str, str], None]] = {
    "clock": _clock, "uptime": _uptime, "load": _load, "ticks": _ticks, "cpus": _cpus, "memory": _memory,
    "disk": _disk, "inodes": _inodes, "process": _process, "cluster": _name, "driver": _name, "denied": _name,
    "lock": _lock, "head": _head, "off": _file, "confirmed": _file, "copy": _file,
}  # fmt: skip


def _once(draft: _Draft, word: str, **fields: object) -> None:
    """The second of a kind is as good as none."""
    if ONCE[word] in draft.fields:
        raise ValueError
    draft.fields.update(fields)


def _memory_of(found: Mapping[str, int]) -> Memory | None:
    """Kernels before 3.14 have no MemAvailable; free and cached pages come near it."""
    total, free = found.get("MemTotal", 0), found.get("MemFree")
    available = found.get("MemAvailable")
    if available is None and free is not None:
        available = min(total, free + found.get("Buffers", 0) + found.get("Cached", 0))
    if not total or available is None or available > total:
        return None
    return Memory(total, available, found.get("SwapTotal", 0), found.get("SwapFree", 0))


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ValueError
    return int(text)


def _number(text: str) -> float:
    number = float(text) if len(text) <= 24 else math.nan
    if not math.isfinite(number) or number < 0:
        raise ValueError
    return number
