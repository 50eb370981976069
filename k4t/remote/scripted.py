"""A participant whose registrar runs the operator's own commands: those of the tree, or none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from k4t.errors import RegistrarMismatch
from k4t.model.hosts import Dns, Gateway
from k4t.remote.registrar import RegistrarParticipant

if TYPE_CHECKING:
    from k4t.remote.transport import Transport

ANSWER_TIMEOUT_S = 300.0
"""Longer than all commands of one publication may take."""


class ScriptedParticipant(RegistrarParticipant):
    """`config`: as `install` has it. Its commands were put there by `install`, as somebody's decision: where the tree
    names others, nothing is done until it is run again."""

    answer_timeout_s = ANSWER_TIMEOUT_S

    def __init__(
        self,
        thing: Gateway | Dns,
        cluster: str,
        connect: Callable[[], Transport],
        config: Mapping[str, Any],
        zone: str = "",
    ) -> None:
        super().__init__(thing.name, thing.group, cluster, connect, zone)
        self._config = config
        self._where = thing.where
        self._agreed = False

    def _call(self, op: str, **request: Any) -> dict[str, Any]:
        if not self._agreed:
            changed = super()._call("install", config=self._config, dry=True)["changed"]
            if any(path.endswith("/config.json") for path in changed):
                words = f"the commands of {self._where} are not those that were set up there"
                raise RegistrarMismatch(words, f"k4t {self.kind} install {self.name}", host=self.name)
            self._agreed = True
        return super()._call(op, **request)
