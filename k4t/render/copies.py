"""Copies of the tree, for people and programs: where they are, whether they are good, what is in them, what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from k4t.errors import gravest
from k4t.master.backup.choose import Candidate, number_of
from k4t.master.backup.compare import Change, shown
from k4t.master.backup.differences import Differences
from k4t.master.backup.reading import Shelf, Verified
from k4t.master.backup.restore import Done, Taken
from k4t.master.backup.target import sized
from k4t.render.console import Console, age, plural, table

MAX_NAMED = 20
_SIGNS = {"added": "+", "changed": "~", "removed": "-"}


# --- list ------------------------------------------------------------------------------------------------------------


def listing(shelves: Sequence[Shelf], faults: Mapping[str, str], console: Console, now_s: float) -> int:
    """All copies on one time axis, newest first, and of each target what it last confirmed. `faults`: by target, what
    is wrong with it. Answers the exit status."""
    shelves = [replace(shelf, problem=shelf.problem or faults.get(shelf.name, "")) for shelf in shelves]
    rows = _grouped(shelves)
    if console.output != "table":
        console.data(
            {
                "version": 1,
                "copies": [_row(row, now_s) for row in rows],
                "targets": [_target(shelf, now_s) for shelf in shelves],
            },
            rows="copies",
        )
    else:
        if rows:
            console.result(_table(rows, console, now_s))
        console.result(
            ["", *table(*_targets(shelves, now_s), console)] if rows else table(*_targets(shelves, now_s), console)
        )
    away = [shelf.error for shelf in shelves if shelf.error is not None]
    return gravest(error.exit_status for error in away) if away and len(away) == len(shelves) else 0


def _grouped(shelves: Sequence[Shelf]) -> list[list[Candidate]]:
    """The same copy on several targets is one row; one that is refused is a row of its own."""
    rows: dict[tuple[str, ...], list[Candidate]] = {}
    for one in (one for shelf in shelves for one in shelf.candidates):
        key = (one.digest,) if one.good else (one.digest, one.target, one.name)
        rows.setdefault(key, []).append(one)
    return sorted(rows.values(), key=lambda row: (row[0].order, row[0].good), reverse=True)


def _table(rows: Sequence[Sequence[Candidate]], console: Console, now_s: float) -> list[str]:
    manifests = [row[0].manifest for row in rows]
    several = len({(one.generation, one.lineage) for one in manifests if one}) > 1
    head = ["COPY", "AGE", "TIME", *(["HISTORY"] if several else []), "SIZE", "ON", "VERIFIED"]
    cells = []
    for row in rows:
        first = row[0]
        manifest = first.manifest
        time = manifest.time if manifest else "-"
        history = [f"{manifest.generation} {manifest.lineage[:8] or '-'}" if manifest else "-"] if several else []
        cells.append([
            number_of(manifest) if manifest else shown(first.name), _age(time, now_s), time, *history,
            sized(first.size_bytes), " ".join(one.target for one in row), shown(first.problem) or _good(row),
        ])  # fmt: skip
    return table(head, cells, console)


def _good(row: Sequence[Candidate]) -> str:
    manifest = row[0].manifest
    return "signature" if manifest is None or manifest.encrypted else "signature; not encrypted"


def _targets(shelves: Sequence[Shelf], now_s: float) -> tuple[list[str], list[list[str]]]:
    cells = []
    for shelf in shelves:
        if shelf.error is not None:
            cells.append([shelf.name, "-", "-", f"can't be asked: {shelf.error.words}"])
            continue
        newest = shelf.newest
        last = f"{number_of(newest)}, {_age(_confirmed(shelf), now_s)} ago" if newest else "-"
        every = age(shelf.every_s) if shelf.every_s else "-"
        cells.append([shelf.name, str(len(shelf.candidates)), last, f"every {every}"])
        if shelf.problem:
            cells[-1][-1] += f"; {shown(shelf.problem)}"
    return ["TARGET", "COPIES", "CONFIRMED", "PERIOD"], cells


def _confirmed(shelf: Shelf) -> str:
    """When its newest copy was last known to be what the tree is."""
    newest = shelf.newest
    if newest is None:
        return "-"
    digest = next(one.digest for one in shelf.candidates if one.manifest is newest)
    said = shelf.confirmed
    return max(said.time, newest.time) if said is not None and said.snapshot == digest else newest.time


def _age(time: str, now_s: float) -> str:
    return age(seconds) if (seconds := _age_s(time, now_s)) is not None else "-"


def _age_s(time: str, now_s: float) -> float | None:
    try:
        return round(max(0.0, now_s - datetime.fromisoformat(time).timestamp()), 1)
    except ValueError:
        return None


def _row(row: Sequence[Candidate], now_s: float) -> dict[str, Any]:
    first = row[0]
    found: dict[str, Any] = {
        "name": first.name, "targets": [one.target for one in row], "size_bytes": first.size_bytes,
        "verified": "signature" if first.good else "", "problem": first.problem,
    }  # fmt: skip
    if (manifest := first.manifest) is not None:
        found |= {
            "copy": number_of(manifest), "serial": manifest.serial, "sequence": manifest.sequence,
            "generation": manifest.generation, "lineage": manifest.lineage, "time": manifest.time,
            "age_s": _age_s(manifest.time, now_s), "encrypted": manifest.encrypted, "manifest": first.digest,
        }  # fmt: skip
    return found


def _target(shelf: Shelf, now_s: float) -> dict[str, Any]:
    error = shelf.error.words if shelf.error is not None else ""
    found: dict[str, Any] = {"target": shelf.name, "reachable": shelf.error is None, "error": error}
    if shelf.error is None:
        confirmed = _confirmed(shelf)
        found |= {
            "every_s": shelf.every_s, "count": len(shelf.candidates), "problem": shelf.problem,
            "confirmed": "" if confirmed == "-" else confirmed, "age_s": _age_s(confirmed, now_s),
        }  # fmt: skip
    return found


# --- verify ----------------------------------------------------------------------------------------------------------


def verified(done: Verified, shelves: Sequence[Shelf], console: Console, *, read_data: bool) -> int:
    """Answers the exit status: 1 something is bad, 3 some target can't be asked, 69 (or 77) none can."""
    bad = [one for one in done.candidates if not one.good]
    away = [shelf for shelf in shelves if shelf.error is not None]
    errors = [shelf.error for shelf in away if shelf.error is not None]
    everybody = bool(errors) and len(errors) == len(shelves)
    status = gravest(error.exit_status for error in errors) if everybody else (
        gravest([1 if bad or done.faults else 0, 3 if errors else 0])
    )  # fmt: skip
    if console.output != "table":
        console.data({
            "version": 1, "copies": len(done.candidates), "read": done.read, "opened": done.opened,
            "bad": [{"target": one.target, "name": one.name, "problem": one.problem} for one in bad],
            "faults": list(done.faults),
            "away": [{"target": shelf.name, "error": shelf.error.words} for shelf in away if shelf.error],
        })  # fmt: skip
        return status
    for one in bad:
        console.result(f"{_red('bad', console)}   {one.words}: {shown(one.problem)}")
    for fault in done.faults:
        console.result(f"{_red('bad', console)}   {shown(fault)}")
    for shelf in away:
        console.result(f"{console.style('away', 'yellow')}  {shelf.name}: {shelf.error.words if shelf.error else ''}")
    if not everybody:
        console.result(_sum(done, len(bad), read_data=read_data))
    return status


def _sum(done: Verified, bad: int, *, read_data: bool) -> str:
    good = len(done.candidates) - bad
    what = "signature and sha256"
    if read_data and done.opened:
        what += f", {done.opened} brought here and opened"
    elif read_data:
        what += (
            f", {done.read} brought here, none opened ({done.unopened or 'nothing is encrypted to an identity here'})"
        )
    return f"{good} of {plural(len(done.candidates), 'copy', 'copies')} good: {what}"


def _red(text: str, console: Console) -> str:
    return console.style(text, "red", "bold")


# --- diff and show ---------------------------------------------------------------------------------------------------


def differences(changes: Sequence[Change], names: tuple[str, str], console: Console) -> None:
    """XML in sentences (`apps/web/app.xml: image "web:1" → "web:2"`), other text as a unified diff."""
    if console.output != "table":
        rows = [
            {"path": one.path, "change": one.kind, "form": one.form, "lines": list(one.lines)} for one in changes
        ]  # fmt: skip
        console.data({"version": 1, "from": names[0], "to": names[1], "changes": rows}, rows="changes")
        return
    if not changes:
        console.note(f"{names[0]} and {names[1]} hold the same")
        return
    console.result(line for change in changes for line in _lines(change, console))


def _lines(change: Change, console: Console) -> list[str]:
    path = shown(change.path)
    if change.form == "xml":
        return [f"{console.style(path, 'bold')}: {line}" for line in change.lines]
    word = "" if change.kind == "changed" else f" {change.kind}"
    if change.form in ("secret", "binary"):
        return [f"{console.style(path, 'bold')}:{word} {', '.join(change.lines)}"]
    return [f"{console.style(path, 'bold')}:{word}", *(f"  {_colored(line, console)}" for line in change.lines)]


def _colored(line: str, console: Console) -> str:
    color = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
    return console.style(line, color) if color else line


def files(found: Mapping[str, int], console: Console, *, memory: int = 0, of: str = "") -> None:
    """`found`: sizes in bytes by path. `memory`: how many more there are under `.k4t/`."""
    if console.output != "table":
        rows = [{"path": path, "size_bytes": size} for path, size in found.items()]
        console.data({"version": 1, "copy": of, "files": rows}, rows="files")
        return
    console.result(table(("SIZE", "FILE"), [(sized(size), shown(path)) for path, size in found.items()], console))
    if memory:
        console.note(f"and {plural(memory, 'file')} of .k4t/: revisions, redo log, audit log")


# --- restore ---------------------------------------------------------------------------------------------------------


def preview(found: Differences, console: Console) -> None:
    """What would change, file by file, on standard error."""
    lines = [f"  {_SIGNS[word]} {shown(path)}" for word in _SIGNS for path in getattr(found, word)]
    for line in lines[:MAX_NAMED]:
        console.note(line)
    if len(lines) > MAX_NAMED:
        console.note(f"  … and {len(lines) - MAX_NAMED} more")


def counted(found: Differences) -> str:
    words = [
        f"{plural(len(paths), 'file')} {verb}"
        for paths, verb in ((found.added, "added"), (found.changed, "changed"), (found.removed, "removed"))
        if paths
    ]
    return ", ".join(words) or "no file differs"


def called(taken: Taken, now_s: float) -> str:
    manifest = taken.manifest
    return f"copy {number_of(manifest)} of {manifest.time} ({_age(manifest.time, now_s)} old, from {taken.target})"


def restored(
    done: Done, taken: Taken, found: Differences, console: Console, *, what: str, where: str, plan: bool, now_s: float
) -> None:  # fmt: skip
    """`what`: “tree” or an app. `plan`: it is in place now, and not beside it."""
    manifest = taken.manifest
    if console.output != "table":
        console.data({
            "version": 1, "result": "restored", "what": what, "directory": where, "from": taken.target,
            "copy": number_of(manifest), "serial": manifest.serial, "time": manifest.time,
            "kept": str(done.kept) if done.kept else "",
            "generation": done.lineage.generation if done.lineage else None,
            "added": list(found.added), "changed": list(found.changed), "removed": list(found.removed),
            "notes": list(done.notes),
        })  # fmt: skip
        return
    console.result(f"{where} is now {called(taken, now_s)}")
    if done.kept:
        console.result(f"what was there is kept: {done.kept}")
    if plan:
        console.result(f"{'k4t plan' if what == 'tree' else f'k4t plan {what}'} shows what that changes")


def nothing(taken: Taken, console: Console, *, where: str) -> None:
    if console.output != "table":
        console.data({"version": 1, "result": "nothing", "directory": where, "copy": number_of(taken.manifest)})
    else:
        console.result(f"{where} is what copy {number_of(taken.manifest)} holds: nothing to do")
