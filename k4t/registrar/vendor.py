"""The contract of a vendor's file.

A rendering maps a path on this host to what stands there (the vendor's own kind of value). Rendering is pure;
`check` asks the vendor's own checker; `install` brings files and the running vendor in step; `verify` asks the
running vendor what it serves.
"""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Sequence, Tuple

from .document import Document
from .errors import BadRequest
from .store import Holding
from .union import Union

Rendering = Dict[str, Any]


class Vendor:
    """`root` stands before every path; `config` is config.json."""

    kind = ""

    def __init__(self, root: str, config: Mapping[str, Any]) -> None:
        self.root = root
        self.config = config

    def setup_files(self) -> Dict[str, str]:
        """Path to text of what must stand on the host before the vendor is started, once."""
        raise NotImplementedError

    def clashes(self, mine: Holding, others: Sequence[Holding]) -> List[str]:  # noqa: ARG002
        """What `document.clashes` can't know: one sentence each, naming the owner."""
        return []

    def supports(self, document: Document) -> None:
        """Raises VendorRefused for what this driver can't express."""

    def render(self, union: Union) -> Rendering:
        raise NotImplementedError

    def check(self, rendering: Rendering) -> None:
        """Raises VendorRefused with the vendor's words. Changes nothing."""
        raise NotImplementedError

    def install(self, rendering: Rendering) -> str:
        """Bring files and vendor in step; what is still pending in words ("" when nothing is).

        Raises VendorRefused when the vendor won't take it; the files are then as before.
        """
        raise NotImplementedError

    def verify(self, rendering: Rendering) -> List[str]:
        """What the vendor serves otherwise, one sentence each."""
        raise NotImplementedError

    def counters(self, apps: Sequence[str]) -> Dict[Tuple[str, str], int]:  # noqa: ARG002
        """By (app, ip:port): the requests (on ports of their own, the connections) that were sent there since the
        vendor's process knows the endpoint. Raises BadRequest where it doesn't count."""
        raise BadRequest("this driver counts no requests")
