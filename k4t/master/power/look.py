"""What is open, asked of this machine and of every host: the `Situation` that decides whether the master may go off."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from k4t import command
from k4t.errors import K4tError, Unreachable
from k4t.master import decide
from k4t.master.planning.away import asleep
from k4t.master.planning.lag import ahead, lag
from k4t.master.planning.plan import Plan
from k4t.master.planning.serials import newest
from k4t.master.power import here
from k4t.master.power.situation import Situation
from k4t.model.spec import Tree
from k4t.model.state import Observed, ParticipantState
from k4t.remote.lock import read_record
from k4t.tree.changes import read
from k4t.tree.read import Refused, parse

if TYPE_CHECKING:
    from k4t.master.run import Run

MONITOR_LOCK = "monitor.lock"
"""In `.k4t/`: held (flock) by a monitor for as long as it runs here, with a `remote.lock.Holder` written in it."""
ACTS_S = 300.0
"""A monitor that is called by cron acts here, where what it remembers of its acts is no older than this."""


def look(
    run: Run,
    *,
    copies: tuple[tuple[str, str], ...],
    locks: tuple[str, ...] = (),
    intents: tuple[str, ...] = (),
) -> Situation:
    """`copies`: targets without a current copy, and why. `locks`: what other runs hold, as sentences. Raises nothing
    that an unreachable host could raise: what can't be known is a reason too."""
    power = run.tree.cluster.power
    monitor = holder_of(run.directory / ".k4t" / MONITOR_LOCK)
    common = Situation(
        host=power.host if power else "",
        names=here.names(power.host if power else ""),
        is_host=power is not None and here.is_here(power.host),
        command=power.off if power else "",
        locks=locks,
        copies=copies,
        acting=policies(run.directory) if not monitor and acts_here(run.tree.cluster.id) else (),
        monitor=monitor,
        intents=intents,
        transactions=_transactions(run),
        logins=logins(),
    )
    try:
        decision = decide.plan(run, decide.Request())
    except K4tError as error:
        return _with(common, unknown=((str(error), error.exit_status),))
    plan = decision.plan
    return _with(
        common,
        steps=tuple(step.id for step in plan.steps),
        left=(*_left(plan), *(["the tree is not recorded as applied; k4t apply does that"] if decision.news else [])),
        leaving=tuple(_leaving(run.tree, decision.observed)),
        members=tuple(_members(decision.observed)),
    )


def _with(found: Situation, **more: object) -> Situation:
    import dataclasses

    return dataclasses.replace(found, **more)  # type: ignore[arg-type]


def _left(plan: Plan) -> Iterator[str]:
    yield from plan.not_done
    yield from plan.refused
    for item in plan.unschedulable:
        yield f"{item.app}.{item.replica} fits nowhere: {'; '.join(item.reasons)}"
    for change in plan.unsafe:
        yield f"unsafe: {change.detail}"


def _leaving(tree: Tree, observed: Observed) -> Iterator[tuple[str, str]]:
    """Nodes that are drained and not known to be empty."""
    off = asleep(tree, observed, newest(observed.heads))
    for name, state in observed.nodes.items():
        if tree.nodes[name].availability != "drained" or name in off:
            continue
        if not state.reachable:
            yield name, f"it can't be asked whether it is empty: {state.problem}"
        elif state.containers:
            yield name, f"it still has {', '.join(sorted(one.name for one in state.containers)[:5])}"


def _members(observed: Observed) -> Iterator[tuple[str, str, int]]:
    """Gateways and DNS servers that are away, or not in step."""
    for seen in (observed.gateways, observed.dns):
        for state in seen.values():
            if not state.reachable:
                yield state.name, state.problem or "it can't be asked", state.exit_status or Unreachable.exit_status
            elif why := _out_of_step(state, tuple(seen.values())):
                yield state.name, why, K4tError.exit_status


def _out_of_step(state: ParticipantState, others: tuple[ParticipantState, ...]) -> str:
    peers = [peer for peer in others if peer.group == state.group and peer.reachable]
    live = max((peer.document for peer in peers if peer.document), key=lambda one: one.version, default=None)
    if behind := lag(state, ahead(peers, live)):
        return behind
    if not state.rendered:
        return "it does not serve what it was given"
    if state.staged:
        return f"transaction {state.staged} waits there for its end"
    return state.differences[0] if state.differences else ""


def _transactions(run: Run) -> tuple[str, ...]:
    try:
        return tuple(f"{one.id} on {one.on} is {one.state}" for one in run.unfinished())
    except K4tError as error:
        return (str(error),)


def acts_here(cluster_id: str) -> bool:
    """Whether `monitor check --act` was called on this machine just now (k4t/monitor/acting/acts.py has the file)."""
    state = Path(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"))
    try:
        changed_s = (state / "k4t" / "monitor" / f"{cluster_id}.acts.json").stat().st_mtime
    except OSError:
        return False
    return abs(time.time() - changed_s) < ACTS_S


def policies(tree: Path) -> tuple[str, ...]:
    """Those of monitor.xml that are enabled."""
    found = read(tree / "monitor.xml")
    if found is None:
        return ()
    try:
        root = parse(found.data, "monitor.xml")
    except Refused:
        return ("(monitor.xml can't be read)",)
    enabled = [child.attributes for child in root.children if child.tag == "policy"]
    return tuple(one["when"] for one in enabled if one.get("enabled") in ("true", "1") and "when" in one)


def holder_of(path: Path) -> str:
    """Who holds a lock on this machine, in words; "" when nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = read_record(os.pread(descriptor, 4096, 0))
        return holder.words if holder else "one that left no name"
    finally:
        os.close(descriptor)
    return ""


def logins() -> tuple[str, ...]:
    """Who is logged in on a terminal of this machine, but for the one that this runs in: “ann on pts/1”."""
    try:
        said = command.run(["who"], timeout_s=5.0).stdout.decode("utf-8", "replace")
    except K4tError:
        return ()
    own = _own_terminal()
    rows = [line.split() for line in said.splitlines()]
    return tuple(f"{row[0]} on {row[1]}" for row in rows if len(row) > 1 and row[1] != own)


def _own_terminal() -> str:
    for stream in (0, 1, 2):
        try:
            return os.ttyname(stream).removeprefix("/dev/")
        except OSError:
            continue
    return ""
