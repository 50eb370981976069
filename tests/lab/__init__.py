"""A lab of real hosts on one Linux machine: namespaces, sshd, dockerd, Envoy, dnsmasq and a registry.

    with Lab(name="t1", nodes=2, gateways=1) as lab:
        lab.host("n1").docker(["ps"])

By hand: ``python -m tests.lab up --nodes 4`` … ``down``. Needs root and Debian 12's packages; no image registry is reached.
"""

from tests.lab.errors import LabError
from tests.lab.host import Host
from tests.lab.lab import Lab

__all__ = ["Host", "Lab", "LabError"]
