"""What happened, from all who remember: this copy's audit log, the head's revisions, the Engines; in order of time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from k4t.errors import K4tError
from k4t.master.choose import Wanted, choose
from k4t.master.fleet import Fleet, at_once
from k4t.master.inspection import audit
from k4t.master.planning import serials
from k4t.model.state import Head
from k4t.model.value import value
from k4t.node import events as engine_events
from k4t.remote import head as remote_head


@value
class Happening:
    """`at` is RFC 3339 UTC. `source`: apply (a run of k4t), docker or monitor. `subject`: who, which container, or what
    the monitor says it of."""

    at: str
    source: str
    subject: str
    what: str
    app: str = ""
    node: str = ""


@value
class Told:
    """Oldest first. `problems`: who could not be asked, in words."""

    happenings: tuple[Happening, ...]
    problems: tuple[str, ...] = ()


def events(
    fleet: Fleet, directory: Path, apps: tuple[str, ...], *, since: str = "", more: Iterable[Happening] = ()
) -> Told:
    """`since` is RFC 3339 UTC. Nodes that are away are named, and what the others remember is told; of one that was
    given up nobody expects anything. `more`: what somebody else remembers, in order of time."""
    chosen = choose(fleet, Wanted(apps))
    nodes = fleet.tree.nodes
    silent = {name for name, node in nodes.items() if node.availability == "dead"}
    problems = [f"{state.name}: {state.problem}" for state in chosen.away if state.name not in silent]
    silent |= {state.name for state in chosen.away}
    found = [*_of_applies(audit.entries(directory), _newest(fleet)), *more]
    asked = at_once(lambda node: _of_engine(fleet, node, since), nodes)
    for node, (happenings, problem) in zip(nodes, asked, strict=True):
        found += happenings
        if problem and node not in silent:
            problems.append(problem)
    wanted = (one for one in found if one.at >= since and (not apps or one.app in apps or _concerns(one, apps)))
    return Told(tuple(sorted(wanted, key=lambda one: one.at)), tuple(problems))


def _newest(fleet: Fleet) -> Head | None:
    heads = []
    for transport in fleet.connected().values():
        try:
            heads.append(remote_head.read(transport, fleet.tree.cluster.id))
        except K4tError:
            continue
    return serials.newest(tuple(one for one in heads if one is not None))


def _of_applies(entries: Iterable[dict[str, Any]], head: Head | None) -> Iterable[Happening]:
    """The audit log knows more; the head knows runs of other working copies too."""
    told = set()
    for entry in entries:
        told.add(entry.get("serial"))
        apps = entry.get("apps") or []
        yield Happening(
            str(entry.get("at", "")), "apply", str(entry.get("who", "")),
            _with(_account(entry, apps), entry.get("message")), apps[0] if len(apps) == 1 else "",
        )  # fmt: skip
    for revision in head.revisions if head else ():
        if revision.serial not in told and revision.at:
            changed = f"{len(revision.apps)} app{'' if len(revision.apps) == 1 else 's'} changed"
            words = f"serial {revision.serial}: apply begins ({changed})"
            yield Happening(revision.at, "apply", revision.who, _with(words, revision.message))


def _account(entry: dict[str, Any], apps: Iterable[str]) -> str:
    """A line of the audit log stands at the time at which its run began. What is no apply has no serial."""
    allowed = f", allowed: {' '.join(entry['allow'])}" if entry.get("allow") else ""
    if entry.get("serial") is None:
        return f"{entry.get('result')}{allowed}"
    done = entry.get("done")
    about = "".join(f" {app}" for app in apps)
    steps = f", {done} step{'' if done == 1 else 's'}" if done else ""
    return f"serial {entry['serial']}: apply{about} begins ({entry.get('result')}{steps}{allowed})"


def _with(words: str, message: object) -> str:
    return f"{words}: {message}" if message else words


def _concerns(one: Happening, apps: tuple[str, ...]) -> bool:
    """An apply of the whole tree concerns every app."""
    return one.source == "apply" and not one.app and bool(apps)


def _of_engine(fleet: Fleet, node: str, since: str) -> tuple[list[Happening], str]:
    since_s = datetime.fromisoformat(since).timestamp() if since else None
    try:
        engine = fleet.engine(node)
        found = engine_events.events(engine, fleet.tree.cluster.id, since_s=since_s)
    except K4tError as error:
        return [], f"{node}: {error.words}"
    return [
        Happening(one.at, "docker", one.container, f"{one.action} {one.detail}".strip(), one.app, node) for one in found
    ], ""
