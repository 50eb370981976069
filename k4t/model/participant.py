"""One member of a group as the commit protocol sees it: the contract that every gateway and DNS driver fulfils."""

from __future__ import annotations

from typing import Literal, Protocol

from k4t.model.state import ParticipantState
from k4t.model.value import value
from k4t.registrar.document import Document, Epoch

Kind = Literal["gateway", "dns"]


@value
class Capabilities:
    """What a driver can express. `plan` refuses what the weakest member of a group can't, naming it.

    `addresses_per_name`: records of one name and type. `update_bytes`: all records of a group, 0 for any size. `ttl_s`:
    of all names where it isn't per record, 0 when it isn't known. `hosts_and_paths`: of routes; without it they are the
    operator's to set. `reads_back`: it can be asked what it serves; without that, what was last done counts.
    `counts`: requests, for each endpoint.
    """

    srv: bool = True
    ttl_per_record: bool = True
    routes_l4: bool = True
    routes_udp: bool = True
    tls: bool = True
    redirect: bool = True
    weight: bool = True
    affinity: bool = True
    upstream_tls: bool = True
    upstream_h2c: bool = True
    active_checks: bool = True
    strip_prefix: bool = True
    hosts_and_paths: bool = True
    reads_back: bool = True
    counts: bool = False
    addresses_per_name: int = 10_000
    update_bytes: int = 0
    ttl_s: int = 0


class Participant(Protocol):
    """Every method may raise ParticipantAway, RegistrarMismatch, ConnectionLost; all can be done twice."""

    @property
    def kind(self) -> Kind: ...
    @property
    def name(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def driver(self) -> str: ...
    @property
    def capabilities(self) -> Capabilities: ...

    def observe(self) -> ParticipantState:
        """What it holds and serves now. Changes nothing. Raises nothing: a failure is a state that says so."""
        ...

    def fence(self, epoch: Epoch) -> None:
        """From here on nothing older than `epoch` is accepted for this cluster. Raises Overtaken."""
        ...

    def prepare(self, transaction: str, document: Document) -> None:
        """Stage: clashes checked, candidate rendered and checked. Raises VendorRefused, Overtaken, StepError."""
        ...

    def commit(self, transaction: str) -> bool:
        """Make the staged document live. False: accepted, but the vendor would not take it (see observe)."""
        ...

    def abort(self, transaction: str) -> None: ...

    def verify(self, document: Document) -> tuple[str, ...]:
        """Ask the vendor what it serves; the differences from `document` in words. () when it serves it all."""
        ...

    def close(self) -> None: ...
