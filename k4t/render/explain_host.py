"""An explanation of a node, or of a gateway or DNS server, for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from k4t.master.inspection.explain_host import HostSaid
from k4t.master.inspection.explain_member import ExplainedMember, Sent
from k4t.master.inspection.explain_node import ExplainedNode, Held
from k4t.render.console import Console
from k4t.render.top import amount

DIGEST = 19
NAMED = 20
"""So many of a kind are shown, the rest is counted."""


def node(found: ExplainedNode, console: Console) -> Iterator[str]:
    yield f"{console.style(found.node, 'bold')}  {found.address}  {found.availability}"
    yield _state(found.reachable, "reachable", found.problem, console)
    if found.given_up:
        yield console.style(f"! {found.given_up}", "yellow")
    yield from _host(found.host, console)
    if found.reachable:
        yield f"  room       {_room(found)}"
        yield f"  new ones   {found.closed + ': none are placed there' if found.closed else 'may be placed there'}"
        if found.strangers:
            yield f"  others     {_listed(found.strangers)} (not this cluster's)"
        yield from (f"  job        {job}" for job in found.jobs)
    for one in found.holds:
        yield ""
        yield from _held(one, console)
    if found.sent_to:
        yield ""
        yield "Published there, and left as it is while nobody can ask"
        yield from _some(found.sent_to)
    yield from _end(found.steps, found.obstacles, found.helps, console)


def member(found: ExplainedMember, console: Console) -> Iterator[str]:
    word = "gateway" if found.kind == "gateway" else "DNS server"
    yield f"{console.style(found.name, 'bold')}  {found.driver} {word}  {found.address}  group {found.group}"
    yield _state(found.reachable, "reachable", found.problem, console)
    yield from _host(found.host, console)
    if found.reachable:
        step = console.style(found.trouble, "red") if found.trouble else console.style("in step", "green")
        yield f"  group      {step}"
        digest = f"digest {found.digest[:12] or '-'}, id {found.id or '-'}"
        yield f"  holds      epoch {found.epoch}, seq {found.seq}, {digest}"
    yield from (f"  beside it  {peer}" for peer in found.peers)
    yield from (f"  also of    {other}" for other in found.others)
    yield from (f"  by hand    {entry}" for entry in found.manual)
    yield from (console.style(f"  withdrawn  {entry}", "yellow") for entry in found.withdrawn)
    if found.staged:
        yield console.style(f"  staged     {found.staged} waits for its commit", "yellow")
    for one in found.apps:
        yield ""
        yield from _sent(one, console)
    yield from _end(found.steps, found.obstacles, found.helps, console)


def as_json(found: ExplainedNode | ExplainedMember) -> dict[str, Any]:
    return {"version": 1, **dataclasses.asdict(found)}


# --- parts -------------------------------------------------------------------------------------------------------


def _state(reachable: bool, well: str, problem: str, console: Console) -> str:
    return console.style(well, "green") if reachable else console.style(f"can't be asked: {problem}", "red")


def _host(said: HostSaid, console: Console) -> Iterator[str]:
    for one in said.checks:
        word = console.style("ok", "green") if one.ok else console.style("FAILED", "red")
        yield f"  {one.what:10} {word}  {one.said}"
    if said.lock is not None:
        yield f"  lock       {console.style(f'held by {said.lock}', 'yellow') if said.lock else 'free'}"
    if said.serial is not None:
        behind = f"; {console.style(said.behind, 'yellow')}" if said.behind else ""
        yield f"  head       serial {said.serial}{f', {said.written}' if said.written else ''}{behind}"
    elif said.lock is not None:
        yield "  head       none: nothing was applied there yet"
    if said.also:
        yield f"  also       {_listed(said.also)}, on the same machine"


def _room(found: ExplainedNode) -> str:
    parts = [f"{found.arch or 'unknown'}, {found.cpus:g} CPUs"]
    if found.memory_bytes:
        left = f", {amount(found.memory_left_bytes)} of it not promised" if found.memory_left_bytes is not None else ""
        parts.append(f"{amount(found.memory_bytes)} memory{left}")
    first, last = found.port_range
    return "; ".join([*parts, f"ports {first}-{last}"])


def _held(one: Held, console: Console) -> Iterator[str]:
    container = one.container
    title = console.style(f"{container.app}.{container.replica}", "bold")
    image, at, digest = container.image.partition("@")
    yield f"{title}  {image}{at}{digest[:DIGEST]}: {container.status or container.state}"
    yield f"  place      {one.why}"
    yield f"  health     {console.style(one.problem, 'red') if one.problem else console.style('healthy', 'green')}"
    ports = " ".join(f"{port.name}={container.address}:{port.number}" for port in container.ports)
    yield f"  listens    {ports or '-'}"
    yield f"  published  {' '.join(one.published) or 'nowhere'}"


def _sent(one: Sent, console: Console) -> Iterator[str]:
    yield console.style(one.app, "bold") + f"  {_listed(one.leads) or 'nothing leads there'}"
    yield from _some(one.endpoints or ("no endpoint",))
    yield from (console.style(f"  ! {line}", "yellow") for line in one.absent)


def _some(found: tuple[str, ...]) -> Iterator[str]:
    yield from (f"  {line}" for line in found[:NAMED])
    if len(found) > NAMED:
        yield f"  and {len(found) - NAMED} more"


def _listed(found: tuple[str, ...]) -> str:
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more


def _end(steps: tuple[str, ...], obstacles: tuple[str, ...], helps: tuple[str, ...], console: Console) -> Iterator[str]:
    if steps or obstacles or helps:
        yield ""
    if steps:
        yield "An apply would"
        yield from _some(steps)
    yield from (console.style(f"! {sentence}", "yellow") for sentence in obstacles)
    if helps:
        yield console.style("What would help", "bold")
        yield from (f"  {sentence}" for sentence in helps)
