"""The whole cluster on one screen, from the JSON of `k4t status`: its parts as tables, and all of them as lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from k4t.model.value import value
from k4t.render.console import Console, age, table

APP = ("APP", "IMAGE", "WANTED", "RUNNING", "HEALTHY", "ENDPOINTS")
MEMBER = ("GROUP", "DRIVER", "STATE", "EPOCH", "SEQ")
ROOM = 16
"""So many columns one endpoint wants."""


@value
class Part:
    """One table. `unwell`: of each row, whether it is something to look at; `what` the rows are, for counting them."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    unwell: tuple[bool, ...]
    what: str


def lines(status: dict[str, Any], console: Console, columns: int = 0) -> Iterator[str]:
    """All of it. `columns`: how wide it may be; 0 is as wide as it gets."""
    yield title(status, console)
    for part in parts(status, columns):
        yield ""
        yield from table(part.head, part.rows, console)
    if said := list(notes(status)):
        yield ""
        yield from (console.style(note, "yellow") for note in said)


def title(status: dict[str, Any], console: Console) -> str:
    return f"{console.style(status['cluster'], 'bold')}  serial {status['serial']}  tree {status['tree'][:12]}"


def parts(status: dict[str, Any], columns: int = 0) -> Iterator[Part]:
    """Those that have rows; nodes and apps always."""
    nodes, apps = status["nodes"], status["apps"]
    yield Part(
        ("NODE", "ADDRESS", "STATE", "CONTAINERS"),
        tuple((one["name"], one["address"], _node(one), _count(one["container_count"])) for one in nodes),
        tuple(_node(one) != "active" for one in nodes),
        "nodes",
    )
    yield Part(APP, tuple(_apps(apps, columns)), tuple(_unwell(one) for one in apps), "apps")
    for kind, word, what in (("gateways", "GATEWAY", "gateways"), ("dns", "DNS", "DNS servers")):
        if members := status[kind]:
            out = tuple(not one["in_step"] for one in members)
            yield Part((word, *MEMBER), tuple(_member(one) for one in members), out, what)
    if backups := status["backups"]:
        late = tuple(one["late"] or not one["reachable"] for one in backups)
        yield Part(
            ("BACKUP", "EVERY", "CURRENT", "COPIES", "STATE"), tuple(_backup(one) for one in backups), late, "backups"
        )


def notes(status: dict[str, Any]) -> Iterator[str]:
    """What is too long for a column: who works on it, why a host can't be asked, what a member serves otherwise."""
    if held := status["lock"]:
        process = f"process {held['pid']}, for {held['why']}"
        yield f"! locked by {held['who']} on {held['host']} ({process}) since {held['since']}"
    yield from _notes(status)


def _backup(one: dict[str, Any]) -> tuple[str, ...]:
    last = f"{age(one['age_s'])} ago" if one["age_s"] is not None else "never"
    state = "unreachable" if not one["reachable"] else "late" if one["late"] else "in time"
    return one["node"], age(one["every_s"]), last, _count(one["count"]), state


def _named(name: str, words: str) -> str:
    """Many say already whose they are."""
    return words if words.startswith((f"{name}:", f"{name} ")) else f"{name}: {words}"


def _problems(status: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Of each host, what it is asked for and can't say: a node that is away is told once."""
    for one in (*status["nodes"], *status["gateways"], *status["dns"]):
        if one["problem"]:
            yield one["name"], one["problem"]
    away = {one["name"] for one in status["nodes"] if not one["reachable"]}
    for one in status["backups"]:
        if one["problem"] and not (one["node"] in away and not one["reachable"]):
            yield one["node"], one["problem"]


def _notes(status: dict[str, Any]) -> Iterator[str]:
    yield from (f"! {_named(name, problem)}" for name, problem in _problems(status))
    for one in (*status["gateways"], *status["dns"]):
        for difference in one.get("differences", ())[:5]:
            yield f"! {one['name']}: {difference}"
        for out in one.get("withdrawn", ()):
            who, why = out["by"] or "somebody", out["why"] or "no reason given"
            yield f"! {one['name']}: {out['ip']}:{out['port']} is withdrawn by {who}: {why}"
        if one.get("behind"):
            yield f"! {_named(one['name'], one['behind'])}"
    if status.get("redo_log"):
        yield f"! {status['redo_log']}"
    for one in status["transactions"]:
        who = f"{one['at']} by {one['who']}"
        if one["state"] == "owed":
            yield f"! {', '.join(one['members'])} of {one['on']} is owed what was published {who}"
        else:
            end = "rolls it forward" if one["state"] == "decided" else "aborts it"
            yield f"! transaction {one['id']} of {one['on']} ({who}) is {one['state']}: the next apply {end}"


def _node(one: dict[str, Any]) -> str:
    return one["availability"] if one["reachable"] else "unreachable"


def _count(count: int | None) -> str:
    return "?" if count is None else str(count)


def _unwell(one: dict[str, Any]) -> bool:
    return bool(one["held"]) or one["healthy"] < one["desired"] or one["running"] > one["desired"]


def _apps(apps: list[dict[str, Any]], columns: int) -> Iterator[tuple[str, ...]]:
    """Endpoints as far as there is room for them, the rest counted; an image by its last part where there is none."""
    rows = [_app(one) for one in apps]
    if columns and _left(rows, columns) < ROOM:
        rows = [(name, _last_part(image), *figures) for name, image, *figures in rows]
    room = max(ROOM, _left(rows, columns)) if columns else 0
    for one, row in zip(apps, rows, strict=True):
        yield (*row, _endpoints(one, room))


def _left(rows: list[tuple[str, ...]], columns: int) -> int:
    """What all columns but the last leave, with two spaces behind each."""
    return columns - sum(max(len(row[place]) for row in (APP, *rows)) + 2 for place in range(len(APP) - 1))


def _last_part(image: str) -> str:
    registry, slash, last = image.rpartition("/")
    return f"…/{last}" if registry else slash + last


def _app(one: dict[str, Any]) -> tuple[str, ...]:
    name = one["name"] + (" (stopped)" if one["stopped"] else "")
    return name, one["image"], str(one["desired"]), str(one["running"]), str(one["healthy"])


def _endpoints(one: dict[str, Any], room: int) -> str:
    found = [f"{_host(end['ip'])}:{end['port']}" for end in one["endpoints"]]
    for shown in range(min(4, len(found)), 0, -1):
        left = len(found) - shown
        text = " ".join(found[:shown]) + (f" +{left}" if left else "")
        if not room or len(text) <= room:
            return text
    return str(len(found)) if found else "-"


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def _member(one: dict[str, Any]) -> tuple[str, ...]:
    state = ("in step" if one["in_step"] else "differs") if one["reachable"] else "unreachable"
    return (one["name"], one["group"], one["driver"], state, str(one["epoch"]), str(one["seq"]))
