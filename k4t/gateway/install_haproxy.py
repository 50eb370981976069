"""An HAProxy of our own is started; one that is there already is told what to include, and nothing of it is touched."""

from __future__ import annotations

from typing import Any

from k4t.errors import StepError
from k4t.model.hosts import Gateway
from k4t.remote import setup

BASE = "/etc/k4t/haproxy/haproxy.cfg"
FILE = "/var/lib/k4t/haproxy/k4t.cfg"
UNIT = "k4t-haproxy.service"
BINARY = "haproxy"


def plan_install(found: setup.Survey, gateway: Gateway) -> setup.InstallPlan:
    """Raises StepError when there is no HAProxy."""
    if not found.binary and not found.processes:
        raise StepError("HAProxy is not installed", "apt-get install haproxy there (2.6 or newer)")
    pid = found.ours(BASE)
    own = bool(pid) or not found.processes
    config: dict[str, Any] = {"binary": found.binary or "haproxy", "own": own}
    config |= {"http": gateway.http, "https": gateway.https, "ipv6": found.ipv6}
    notes = () if own else (_include(found.processes[0][0]),)
    return setup.InstallPlan(own, pid, not found.registrar, config, notes)


def service(plan: setup.InstallPlan) -> setup.Service:
    argv = (plan.config["binary"], "-W", "-f", BASE, "-f", FILE)
    return setup.Service("HAProxy", UNIT, BASE, argv)


def _include(pid: int) -> str:
    return "\n".join(
        [
            f"an HAProxy that is not k4t's runs here (pid {pid}); nothing of it was touched. Give it one more file,",
            "as the last one, and restart it (it must have a master process: -W or -Ws):",
            f"  -f {FILE}    (Debian: EXTRAOPTS in /etc/default/haproxy)",
            "  in the frontend that serves k4t's routes:  default_backend k4t",
            "  for routes with tls, in a frontend of mode tcp that takes port 443:  default_backend k4t_tls",
        ]
    )
