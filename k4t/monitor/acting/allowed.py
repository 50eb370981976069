"""What this machine's monitor may do, tried before it is needed: whether its key is let in at each gateway and DNS
server and by the master, and whether it may sign intents. Changes nothing: no endpoint is named.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from pathlib import Path

from k4t.errors import K4tError, LoginRefused, Unreachable
from k4t.master.backup import keys as signing_keys
from k4t.master.fleet import Fleet, begun
from k4t.model.value import value
from k4t.monitor.acting import keys, rouse, withdraw
from k4t.monitor.looking import gather, probe
from k4t.remote import restricted
from k4t.remote.registrar import RegistrarParticipant

BOUND_S = 30.0
Question = Callable[[], None]


@value
class Tried:
    """`what`, in words. `problem`: why it may not, with the remedy; "" where it may; `status`: that error's."""

    what: str
    problem: str = ""
    status: int = 0


def tried(fleet: Fleet) -> list[Tried]:
    """All at once, bounded. Raises K4tError where this machine has no key, and nothing that a host could raise."""
    key = keys.private_file(fleet.tree.cluster.id)
    if key is None:
        raise K4tError("this machine's monitor has no key", "k4t monitor key makes one")
    asked = _questions(fleet, key)
    futures = begun(lambda question: question(), asked.values(), most=gather.AT_ONCE)
    wait(futures, timeout=BOUND_S)
    found = []
    for what, future in zip(asked, futures, strict=True):
        error = future.exception() if future.done() else Unreachable(f"no answer within {BOUND_S:g} s")
        found.append(_tried(what, error) if error else Tried(what))
    return found


def _tried(what: str, error: BaseException) -> Tried:
    if isinstance(error, LoginRefused):
        return Tried(what, f"{error.message}; {restricted.REMEDY}", error.exit_status)
    if isinstance(error, K4tError):
        return Tried(what, error.words, error.exit_status)
    return Tried(what, f"{type(error).__name__}: {error}", K4tError.exit_status)


def _questions(fleet: Fleet, key: Path) -> dict[str, Question]:
    found: dict[str, Question] = {}
    for (kind, name), member in fleet.participants.items():
        if isinstance(member, RegistrarParticipant):
            word = "DNS server" if kind == "dns" else "gateway"
            found[f"withdraw endpoints at {word} {name}"] = partial(_withdraws, fleet, member, key)
    if not rouse.is_here(fleet.tree):
        found["sign intents"] = partial(_signs, fleet)
        found[f"rouse {rouse.master_of(fleet.tree).name}"] = partial(_rouses, fleet, key)
    return found


def _withdraws(fleet: Fleet, member: RegistrarParticipant, key: Path) -> None:
    with withdraw.let_in(fleet, member, key) as transport:
        driver = member.registrar or member.driver
        restricted.several(transport, driver, "withdraw", (), "", kind=member.kind, name=member.name)


def _signs(fleet: Fleet) -> None:
    if signing_keys.load(fleet.tree, "intents") is None:
        raise rouse.not_certified()


def _rouses(fleet: Fleet, key: Path) -> None:
    host = rouse.master_of(fleet.tree)
    transport = fleet.afresh(host, restricted.login(host.ssh, str(key)))
    try:
        probe.ask_by_own_key(transport)
    finally:
        transport.close()
