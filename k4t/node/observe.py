"""What is on a node: one API call, and beside it one command for the head and the host's facts."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing

from k4t.command import Completed
from k4t.errors import DockerHangs, K4tError
from k4t.model.state import Container, Facts, Head, NodeState
from k4t.node.docker import Engine, Json
from k4t.node.joblist import runs
from k4t.node.listing import sort_out
from k4t.remote import head
from k4t.remote.transport import Transport

TIMEOUT_S = 10.0
PATIENCE_S = 2.0
"""For the listing, and then for a ping: the whole run waits for the slowest node. One that is busy answers a ping in
milliseconds and is then given TIMEOUT_S; one that does not hangs."""
MAX_HEAD_BYTES = 1024 * 1024
ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv6l": "arm",
    "armv7l": "arm",
    "i386": "386",
    "i686": "386",
    "loongarch64": "loong64",
    "mips64": "mips64le",
}
"""`uname -m` to Docker's words, where they differ (ppc64le, s390x and riscv64 don't)."""

# Three lines of facts, then the head's bytes as they are.
_SCRIPT = (
    "uname -m; nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null || echo 0; "
    'grep MemTotal: /proc/meminfo || echo 0; cat -- "$1" 2>/dev/null || :'
)


def observe(name: str, transport: Transport, cluster_id: str, *, engine: Engine | None = None) -> NodeState:
    """The node as it is now. What can't be asked makes it unreachable, in words; nothing is raised for that.

    `engine`: one over this transport that is kept for what follows.
    """
    if engine is not None:
        return _observe(name, engine, cluster_id)
    with closing(Engine(transport)) as own:
        return _observe(name, own, cluster_id)


def containers(engine: Engine, name: str, cluster_id: str) -> tuple[Container, ...]:
    """This cluster's containers on a node, no more. Raises what the Engine raises."""
    return sort_out(name, engine.list_containers(), cluster_id)[0]


def _observe(name: str, engine: Engine, cluster_id: str) -> NodeState:
    try:
        listing = begin_listing(engine)
    except K4tError as error:
        return unreachable(name, error)
    asked = _ask(engine.transport, cluster_id)  # while the Engine works on its answer
    try:
        entries = listing()
    except K4tError as error:
        return unreachable(name, error)
    if isinstance(asked, K4tError):
        return unreachable(name, asked)
    facts, found = asked
    ours, strangers = sort_out(name, entries, cluster_id)
    return NodeState(name, True, ours, strangers, facts, found, jobs=runs(name, entries, cluster_id))


def begin_listing(engine: Engine) -> Callable[[], list[Json]]:
    """Ask now; what is returned reads the answer and must be called."""
    try:
        listing = engine.begin_listing(PATIENCE_S)
    except DockerHangs:
        return lambda: _ask_again(engine)

    def read() -> list[Json]:
        try:
            return listing()
        except DockerHangs:
            return _ask_again(engine)

    return read


def _ask_again(engine: Engine) -> list[Json]:
    """Of an Engine that is slow: it answers a ping. Raises DockerHangs for one that does not."""
    engine.ping(PATIENCE_S)
    return engine.begin_listing(TIMEOUT_S)()


def unreachable(name: str, error: K4tError) -> NodeState:
    return NodeState(name, reachable=False, problem=error.words, exit_status=error.exit_status)


def _ask(transport: Transport, cluster_id: str) -> tuple[Facts, Head | None] | K4tError:
    argv = ["sh", "-c", _SCRIPT, "sh", head.path(cluster_id)]
    try:
        done = transport.run(argv, timeout_s=TIMEOUT_S, max_output_bytes=MAX_HEAD_BYTES)
        return _parsed(done)
    except K4tError as error:
        return error


def _parsed(done: Completed) -> tuple[Facts, Head | None]:
    machine, cpus, memory, kept = (done.stdout.split(b"\n", 3) + [b""] * 4)[:4]
    return facts_of(machine.decode(), cpus.decode(), memory.decode()), head.parse(kept) if kept.strip() else None


def facts_of(machine: str, cpus: str, memory: str) -> Facts:
    """From `uname -m`, `nproc` and the MemTotal line of /proc/meminfo."""
    kilobytes = re.search(r"\d+", memory)
    return Facts(
        arch=ARCHITECTURES.get(machine.strip(), machine.strip()),
        cpus=float(cpus) if cpus.strip().isdigit() else 0.0,
        memory_bytes=int(kilobytes[0]) * 1024 if kilobytes else 0,
    )
