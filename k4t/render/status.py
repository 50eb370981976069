"""The whole cluster on one screen, from the JSON of `k4t status`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from k4t.errors import K4tError
from k4t.render.console import Console, age, table

EVERY_S = 3.0


def watch(look: Callable[[], dict[str, Any]], console: Console) -> None:
    """Look again and again, each time with connections of its own: a host that was away may be back. Ends with Ctrl-C.

    On a terminal the screen is written anew; elsewhere, and as JSON lines, one look follows another.
    """
    try:
        if console.output == "table" and sys.stdout.isatty():
            _on_screen(look, console)
        while True:
            _say(look(), console)
            time.sleep(EVERY_S)
    except KeyboardInterrupt:
        return


def _on_screen(look: Callable[[], dict[str, Any]], console: Console) -> None:
    from rich.console import Console as Terminal
    from rich.live import Live
    from rich.text import Text

    with Live(console=Terminal(), auto_refresh=False, screen=True) as screen:
        while True:
            try:
                shown = "\n".join(lines(look(), console))
            except K4tError as error:
                shown = str(error)
            screen.update(Text.from_ansi(shown), refresh=True)
            time.sleep(EVERY_S)


def _say(seen: dict[str, Any], console: Console) -> None:
    if console.output == "table":
        console.result([*lines(seen, console), ""])
    else:
        console.data(seen)


def lines(status: dict[str, Any], console: Console) -> Iterator[str]:
    yield f"{console.style(status['cluster'], 'bold')}  serial {status['serial']}  tree {status['tree'][:12]}"
    if status["lock"]:
        held = status["lock"]
        process = f"process {held['pid']}, for {held['why']}"
        yield console.style(f"! locked by {held['who']} on {held['host']} ({process}) since {held['since']}", "yellow")
    yield ""
    yield from table(
        ("NODE", "ADDRESS", "STATE", "CONTAINERS"),
        [(one["name"], one["address"], _node(one), _count(one["container_count"])) for one in status["nodes"]],
        console,
    )
    yield ""
    yield from table(
        ("APP", "IMAGE", "WANTED", "RUNNING", "HEALTHY", "ENDPOINTS"), [_app(one) for one in status["apps"]], console
    )
    for kind in ("gateways", "dns"):
        if status[kind]:
            yield ""
            yield from table(
                (kind.upper().rstrip("S") if kind == "gateways" else "DNS", "GROUP", "DRIVER", "STATE", "EPOCH", "SEQ"),
                [_member(one) for one in status[kind]],
                console,
            )
    if status["backups"]:
        yield ""
        yield from table(
            ("BACKUP", "EVERY", "CURRENT", "COPIES", "STATE"), [_backup(one) for one in status["backups"]], console
        )
    if notes := list(_notes(status)):
        yield ""
        yield from (console.style(note, "yellow") for note in notes)


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
    """What is too long for a column: why a host can't be asked, and what a member serves otherwise."""
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


def _app(one: dict[str, Any]) -> tuple[str, ...]:
    endpoints = [f"{_host(end['ip'])}:{end['port']}" for end in one["endpoints"]]
    shown = " ".join(endpoints[:4]) + (f" +{len(endpoints) - 4}" if len(endpoints) > 4 else "")
    state = " (stopped)" if one["stopped"] else ""
    return (
        one["name"] + state, one["image"], str(one["desired"]), str(one["running"]), str(one["healthy"]), shown or "-"
    )  # fmt: skip


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def _member(one: dict[str, Any]) -> tuple[str, ...]:
    state = ("in step" if one["in_step"] else "differs") if one["reachable"] else "unreachable"
    return (one["name"], one["group"], one["driver"], state, str(one["epoch"]), str(one["seq"]))
