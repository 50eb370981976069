"""A plain hosts file, for whatever reads one: CoreDNS's `hosts` plugin, a resolver of the operator's, nsswitch.

Nothing but the file is known to this driver: what a server makes of it, and when, is not asked.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Mapping, Sequence

from . import files, hostsfile
from .document import Document
from .errors import VendorRefused
from .store import Holding
from .union import Union, record_clashes
from .vendor import Rendering, Vendor

PATH = "/etc/k4t/hosts"
HEAD = "# Written by k4t: what is changed here by hand is replaced.\n"


class Hosts(Vendor):
    """config.json: path, zones."""

    kind = "dns"

    def __init__(self, root: str, config: Mapping[str, Any]) -> None:
        super().__init__(root, config)
        self.path = root.rstrip("/") + os.path.normpath(str(config.get("path") or PATH))

    def setup_files(self) -> Dict[str, str]:
        self._must_be_ours()
        return {} if os.path.exists(self.path) else {self.path: HEAD}

    def clashes(self, mine: Holding, others: Sequence[Holding]) -> List[str]:
        return record_clashes(mine, others)

    def supports(self, document: Document) -> None:
        hostsfile.supports(document, "hosts")

    def render(self, union: Union) -> Rendering:
        return {self.path: HEAD + hostsfile.text(union)}

    def check(self, rendering: Rendering) -> None:
        self._must_be_ours()
        hostsfile.check(rendering[self.path])

    def install(self, rendering: Rendering) -> str:
        self._must_be_ours()
        if files.read(self.path) != rendering[self.path]:
            files.write(self.path, rendering[self.path])
        return ""

    def verify(self, rendering: Rendering) -> List[str]:
        there = files.read(self.path)
        if there == rendering[self.path]:
            return []
        if there is None:
            return ["%s is gone" % self.path]
        found = list(hostsfile.differences(rendering[self.path], there))
        return ["%s is not what k4t wrote" % self.path, *found]

    def _must_be_ours(self) -> None:
        """A file of somebody else's is never replaced. One without the head was emptied, or is another one."""
        there = files.read(self.path)
        if there and not there.startswith(HEAD):
            raise VendorRefused(
                "%s holds what k4t did not write (it does not begin with %r)" % (self.path, HEAD.strip())
            )
