"""The service that runs `k4t monitor run` on this machine, from now on and after every boot."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from k4t.master.power import service
from k4t.master.power.service import System

SYSTEMD = """\
# Written by `k4t monitor run --install-service`; taken away by `k4t monitor run --remove-service`.
[Unit]
Description=k4t monitor (cluster {cluster})
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
User={user}
WorkingDirectory=/
{environment}
ExecStart={argv}
Restart=always
RestartSec=10

[Install]
WantedBy=multi-user.target
"""
OPENRC = """\
#!/sbin/openrc-run
# Written by `k4t monitor run --install-service`; taken away by `k4t monitor run --remove-service`.
description="k4t monitor (cluster {cluster})"
supervisor=supervise-daemon
command={program}
command_args={arguments}
command_user={user}
respawn_delay=10
respawn_max=0
output_log="/var/log/{name}.log"
error_log="/var/log/{name}.log"
directory=/
{environment}

depend() {{
    need net
    after firewall sshd ntp-client chronyd
}}
"""


def name_of(cluster_id: str) -> str:
    """One machine may watch several clusters."""
    return f"k4t-monitor-{cluster_id}"


def text(system: System, argv: Sequence[str], cluster: str, cluster_id: str, environment: dict[str, str]) -> str:
    form = SYSTEMD if system.kind == "systemd" else OPENRC
    return service.filled(form, system, argv, environment, cluster=cluster, name=name_of(cluster_id))


def install(system: System, db: Path, cluster: str, cluster_id: str, options: Sequence[str] = ()) -> Path:
    """Write it and start it, anew where it runs. `options`: of `monitor run`. Raises K4tError; nothing is left of it
    then."""
    argv = [sys.executable, "-m", "k4t.cli", "--db", os.fspath(db), "monitor", "run", *options]
    found = text(system, argv, cluster, cluster_id, service.environment())
    return service.put(system, name_of(cluster_id), found, now=True)


def remove(system: System, cluster_id: str) -> Path | None:
    """End it. None when there is none. Raises K4tError."""
    return service.take_away(system, name_of(cluster_id), now=True)
