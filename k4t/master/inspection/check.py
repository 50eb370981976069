"""What k4t needs of each host, and what to do where it is missing (the table “a host needs” of design.md)."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence

from k4t.errors import K4tError
from k4t.master.fleet import WITHOUT_SHELL, Fleet, at_once
from k4t.model.hosts import Dns, Gateway, Node
from k4t.model.participant import Kind, Participant
from k4t.model.state import ParticipantState
from k4t.model.value import value
from k4t.remote.lock import STATE, writable_by
from k4t.remote.transport import Transport

Thing = Node | Gateway | Dns
Seen = dict[tuple[Kind, str], ParticipantState]
"""Members by kind and name, as this check saw them: one that is also compared with others is asked once."""
PROGRAMS = {"flock": "apt-get install util-linux", "timeout": "apt-get install coreutils"}


@value
class Checked:
    """One thing looked at. `exit_status` is what it ends the run with when it is not ok."""

    subject: str
    what: str
    ok: bool
    said: str
    remedy: str = ""
    exit_status: int = 1


def check(fleet: Fleet, things: Sequence[Thing], *, here: bool) -> list[Checked]:
    """All checks of all things, hosts at once. `here`: also this machine. Raises nothing."""
    results = list(_here()) if here else []
    seen: Seen = {}
    for found in at_once(lambda thing: list(_thing(fleet, thing, seen)), things):
        results += found
    return results + _groups(fleet, things, seen)


def _here() -> Iterator[Checked]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Checked("this machine", "python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")
    client = shutil.which("ssh")
    said = client or "no OpenSSH client: ~/.ssh/config is read without `Include`"
    yield Checked("this machine", "ssh", client is not None, said, "apt-get install openssh-client")


def _thing(fleet: Fleet, thing: Thing, seen: Seen) -> Iterator[Checked]:
    host = fleet.host_of(thing)
    subject = f"{_kind(thing)} {thing.name} ({thing.ssh.host or thing.address})"
    if isinstance(thing, Dns) and thing.driver in WITHOUT_SHELL:
        yield from _participant(fleet, subject, thing, seen)
        return
    try:
        transport = fleet.connection(host)
    except K4tError as error:
        yield Checked(subject, "ssh", False, error.message, error.remedy, error.exit_status)
        return
    yield Checked(subject, "ssh", True, "connected and logged in")
    yield from _programs(subject, transport, thing)
    yield _state(subject, transport, fleet.tree.cluster.id)
    if isinstance(thing, Node):
        yield _engine(fleet, subject, thing)
        if thing.pool is not None:
            yield _interface(subject, transport, thing, thing.pool.interface)
    else:
        yield from _participant(fleet, subject, thing, seen)


def _interface(subject: str, transport: Transport, node: Node, name: str) -> Checked:
    """Of <addresses>. Docker makes eth0.7 where there is eth0."""
    script = 'test -e "/sys/class/net/$1" || test -e "/sys/class/net/${1%.*}"'
    try:
        there = transport.run(["sh", "-c", script, "sh", name]).ok
    except K4tError as error:
        return Checked(subject, "addresses", False, error.message, error.remedy, error.exit_status)
    said = f"interface {name}" if there else f"no interface {name}"
    return Checked(subject, "addresses", there, said, f"correct <addresses interface> ({node.where})")


def _kind(thing: Thing) -> str:
    return {Node: "node", Gateway: "gateway", Dns: "dns"}[type(thing)]


def _programs(subject: str, transport: Transport, thing: Thing) -> Iterator[Checked]:
    wanted = dict(PROGRAMS)
    if not isinstance(thing, Node):
        wanted["python3"] = "apt-get install python3"
    for program, remedy in wanted.items():
        try:
            found = transport.run(["sh", "-c", 'command -v "$1"', "sh", program])
        except K4tError as error:
            yield Checked(subject, program, False, error.message, error.remedy, error.exit_status)
            continue
        said = found.stdout.decode().strip() or "not installed"
        yield Checked(subject, program, found.ok, said, remedy)


WRITABLE = """\
for path; do
  while [ ! -e "$path" ]; do path=${path%/*}; [ "$path" ] || path=/; done
  [ -w "$path" ] || { echo "$path"; exit 1; }
done"""


def _state(subject: str, transport: Transport, cluster: str) -> Checked:
    """Whether the login may write what every run writes on every host: the locks and the head."""
    paths = [f"{STATE}/{cluster}/lock", f"{STATE}/{cluster}/head", f"{STATE}/host.lock"]
    try:
        found = transport.run(["sh", "-c", WRITABLE, "sh", *paths])
    except K4tError as error:
        return Checked(subject, "state", False, error.message, error.remedy, error.exit_status)
    user = getattr(transport, "user", "") or "USER"
    said = f"{STATE} can be written" if found.ok else f"{user} can't write to {found.stdout.decode().strip()}"
    return Checked(subject, "state", found.ok, said, writable_by(user))


def _engine(fleet: Fleet, subject: str, node: Node) -> Checked:
    try:
        version, api = fleet.engine(node.name).version()
    except K4tError as error:
        return Checked(subject, "docker", False, error.message, error.remedy, error.exit_status)
    return Checked(subject, "docker", True, f"Engine {version}, API {api}")


def _participant(fleet: Fleet, subject: str, thing: Gateway | Dns, seen: Seen) -> Iterator[Checked]:
    kind: Kind = "gateway" if isinstance(thing, Gateway) else "dns"
    state = seen[kind, thing.name] = fleet.participants[kind, thing.name].observe()
    if not state.reachable:
        yield Checked(subject, thing.driver, False, state.problem, "", state.exit_status or 1)
        return
    what = "state" if thing.driver in WITHOUT_SHELL else "registrar"
    yield Checked(subject, what, True, f"epoch {state.epoch.number}, digest {state.digest[:12] or '-'}")
    said = "; ".join(state.differences) or "serves what it was told"
    remedy = f"k4t apply puts it right; k4t {kind} install {thing.name} starts what does not run"
    yield Checked(subject, thing.driver, state.rendered and not state.differences, said, remedy)


def _groups(fleet: Fleet, things: Sequence[Thing], seen: Seen) -> list[Checked]:
    """The members of each group that one of these things is in, held against each other. What is compared is what they
    hold (one digest, whatever the vendor); that they serve it, each one's own check says."""
    kinds: dict[tuple[Kind, str], list[Participant]] = {}
    for (kind, _), participant in fleet.participants.items():
        kinds.setdefault((kind, participant.group), []).append(participant)
    meant = {
        ("gateway" if isinstance(one, Gateway) else "dns", one.group) for one in things if not isinstance(one, Node)
    }
    found = []
    for (kind, group), members in sorted(kinds.items()):
        if (kind, group) in meant and len(members) > 1:
            states = at_once(lambda member: seen.get((member.kind, member.name)) or member.observe(), members)
            found.append(_compared(f"{kind} group {group}", kind, states))
    return found


def _compared(subject: str, kind: Kind, states: Sequence[ParticipantState]) -> Checked:
    silent = [state.name for state in states if not state.reachable]
    digests = {state.digest for state in states if state.reachable}
    said = ", ".join(
        f"{state.name} ({state.driver}) {state.digest[:12] or 'nothing'}"
        if state.reachable
        else f"{state.name} unknown"
        for state in states
    )
    if silent:
        return Checked(subject, "members", False, said, f"what {', '.join(silent)} holds can't be asked", 69)
    same = len(digests) == 1
    words = f"hold the same: {said}" if same else f"differ: {said}"
    return Checked(subject, "members", same, words, f"k4t {kind} sync")
