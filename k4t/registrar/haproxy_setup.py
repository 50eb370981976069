"""What `k4t gateway install` writes for an HAProxy of our own."""

from __future__ import annotations

import grp
import pwd

BASE = "/etc/k4t/haproxy/haproxy.cfg"
FILE = "/var/lib/k4t/haproxy/k4t.cfg"
UNIT = "/etc/systemd/system/k4t-haproxy.service"
USER = "haproxy"


def base() -> str:
    """Settings of the process. Workers run as haproxy where the host has such a user."""
    lines = ["global", "    hard-stop-after 1h", "    tune.ssl.default-dh-param 2048"]
    try:
        pwd.getpwnam(USER)
        grp.getgrnam(USER)
        lines += ["    user %s" % USER, "    group %s" % USER]
    except KeyError:
        pass
    return "\n".join(lines) + "\n"


def unit(binary: str) -> str:
    given = {"binary": binary, "base": BASE, "file": FILE}
    return (
        """\
[Unit]
Description=HAProxy, kept in step by k4t
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
ExecStart=%(binary)s -Ws -f %(base)s -f %(file)s
ExecReload=%(binary)s -Ws -c -q -f %(base)s -f %(file)s
ExecReload=/bin/kill -USR2 $MAINPID
KillMode=mixed
Restart=always
RestartSec=1
SuccessExitStatus=143
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
"""
        % given
    )
