"""An nginx of our own is started, in two parts; one that is there already is told what to include, and nothing of it
is touched."""

from __future__ import annotations

import re
from typing import Any

from k4t.errors import StepError
from k4t.model.hosts import Gateway
from k4t.remote import setup

ROUTER = "/etc/k4t/nginx/router.conf"
FRONT = "/etc/k4t/nginx/front.conf"
FILES = "/var/lib/k4t/nginx"
RUN = "/run/k4t/nginx"
UNIT = "k4t-nginx.service"
BINARY = "nginx"
CONF = "/etc/nginx/nginx.conf"

START = """\
umask 022
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
mkdir -p "$2"
for part in router front; do
    pid=$(cat "$2/$part.pid" 2>/dev/null)
    [ -n "$pid" ] && grep -aq '^nginx: master' "/proc/$pid/cmdline" 2>/dev/null || continue
    kill "$pid"
    for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -d "/proc/$pid" ] && sleep 0.1; done
done
rm -f "$2"/*.sock
"$1" -c "$3" && exec "$1" -c "$4" -g 'daemon off;'
"""
"""Where no systemd does it: what an earlier one left is taken away (nginx won't start over a socket that is there)."""


def plan_install(found: setup.Survey, gateway: Gateway) -> setup.InstallPlan:
    """Raises StepError when there is no nginx."""
    if not found.binary and not found.processes:
        raise StepError(
            "nginx is not installed",
            "apt-get install nginx libnginx-mod-stream there (1.22 or newer), and disable its service",
        )
    front, router = found.ours(FRONT), found.ours(ROUTER)
    strangers = [one for one in found.processes if one[0] not in (front, router)]
    own = bool(front or router) or not strangers
    config: dict[str, Any] = {"binary": found.binary or "nginx", "own": own}
    config |= {"http": gateway.http, "https": gateway.https, "ipv6": found.ipv6}
    notes: tuple[str, ...] = ()
    if not own:
        pid, argv = strangers[0]
        said = re.search(r" -c (\S+)", " ".join(argv))
        config["conf"] = said.group(1) if said else CONF
        notes = (_include(pid, config["conf"]),)
    return setup.InstallPlan(own, front if router else 0, not found.registrar, config, notes)


def service(plan: setup.InstallPlan) -> setup.Service:
    binary = plan.config["binary"]
    argv = ("sh", "-c", START, "k4t-nginx", binary, RUN, ROUTER, FRONT)
    return setup.Service("nginx", UNIT, ROUTER, argv, f"{binary} -c {ROUTER}, then {binary} -c {FRONT}")


def _include(pid: int, conf: str) -> str:
    return "\n".join(
        [
            f"an nginx that is not k4t's runs here (pid {pid}); nothing of it was touched. Add to {conf},",
            "and have it load that (nginx -s reload); k4t then does so itself after every change:",
            f"  within http {{ }}:                    include {FILES}/http.conf;",
            f"  beside it, for routes with listen:  stream {{ include {FILES}/stream.conf; }}",
            "Or, where it serves nothing else, let k4t run one of its own, whose clients notice no reload: stop that",
            "one (systemctl disable --now nginx), and do this again",
        ]
    )
