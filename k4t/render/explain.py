"""An explanation, for people: what is wanted and what is, each replica, each place, what would help."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from k4t.master.inspection.explain import Explained, Replica
from k4t.render.console import Console, plural


def lines(found: Explained, console: Console) -> Iterator[str]:
    image = f"  {found.image}" + (f" = {found.digest[:19]}" if found.digest else "")
    yield f"{console.style(found.app, 'bold')}{image}"
    state = " (stopped)" if found.stopped else ""
    good = found.healthy >= found.wanted
    counts = f"{found.wanted} wanted{state}, {found.running} running, {found.healthy} healthy"
    yield console.style(counts, "green" if good else "red")
    if found.size:
        yield f"size: {found.size}"
    if found.held:
        yield console.style(f"! held: {found.held[:19]} did not get healthy and is not tried again", "yellow")
    for one in found.replicas:
        yield ""
        yield from _replica(found.app, one, console)
    yield ""
    yield from _world(found, console)


def _replica(app: str, one: Replica, console: Console) -> Iterator[str]:
    container = one.container
    where = f" on {container.node}: {container.status or container.state}" if container else ""
    yield console.style(f"{app}.{one.replica}", "bold") + where
    yield f"  place      {one.why}"
    yield f"  health     {console.style(one.problem, 'red') if one.problem else console.style('healthy', 'green')}"
    if container is None:
        return
    inside = one.insides
    if inside.said:
        yield f"  check said {inside.said.splitlines()[-1]}"
    if inside.exit_code is not None or inside.restarts:
        memory = ", out of memory" if inside.out_of_memory else ""
        yield f"  ended      exit status {inside.exit_code}{memory}, {plural(inside.restarts, 'restart')}"
    if inside.error:
        yield f"  Docker     {inside.error}"
    ports = " ".join(f"{port.name}={container.address}:{port.number}" for port in container.ports)
    yield f"  listens    {ports or '-'}"
    yield f"  published  {' '.join(one.published) or 'nowhere'}"
    if inside.log:
        yield "  its log ends:"
        yield from (f"    {line}" for line in inside.log)


def _world(found: Explained, console: Console) -> Iterator[str]:
    if found.places:
        yield "One more replica"
        yield from (f"  {place.node}: {place.against or 'would fit'}" for place in found.places)
    for member in found.members:
        yield f"{member.kind} {member.name} ({member.group}): {member.trouble or 'in step'}"
    if found.steps:
        yield "An apply would"
        yield from (f"  {step}" for step in found.steps)
    yield from (console.style(f"! {sentence}", "yellow") for sentence in found.obstacles)
    if found.helps:
        yield console.style("What would help", "bold")
        yield from (f"  {sentence}" for sentence in found.helps)


def as_json(found: Explained) -> dict[str, Any]:
    return {
        "version": 1, **dataclasses.asdict(found), "running": found.running, "healthy": found.healthy,
    }  # fmt: skip
