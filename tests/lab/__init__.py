"""A lab of real hosts on one Linux machine: namespaces, sshd, dockerd, Envoy, dnsmasq and a registry.

    with Lab(name="t1", nodes=2, gateways=1) as lab:
        lab.host("n1").docker(["ps"])

By hand: ``python -m tests.lab up --nodes 4`` … ``down``. Needs root and Debian 12's packages, and no network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.errors import LabError
    from tests.lab.host import Host
    from tests.lab.lab import Lab

__all__ = ["Host", "Lab", "LabError"]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Late, because `boot` and `reaper` are run from this package and are to start at once.
        if name not in __all__:
            raise AttributeError(name)
        import importlib

        module = {"Host": "host", "Lab": "lab", "LabError": "errors"}[name]
        return getattr(importlib.import_module(f"tests.lab.{module}"), name)
