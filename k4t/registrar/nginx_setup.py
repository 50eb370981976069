"""What `k4t gateway install` writes for an nginx of our own: two of it, one before the other.

The front has clients' connections, the router has the routes. A reload ends the connections that idle clients keep, and
a request that is just on its way on one of them is lost. So what changes with every endpoint, the router, is loaded
anew behind a front that stays: between the two a connection carries one request.
"""

from __future__ import annotations

import grp
import pwd
from typing import Dict, List

from .nginx_text import text_of

ETC = "/etc/k4t/nginx"
ROUTER = ETC + "/router.conf"
FRONT = ETC + "/front.conf"
UNIT = "/etc/systemd/system/k4t-nginx.service"
FRONT_UNIT = "/etc/systemd/system/k4t-nginx-front.service"
USERS = ("www-data", "nginx", "nobody")
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
MAIN = """\
worker_processes auto;
worker_shutdown_timeout 1h;
error_log stderr error;
events {
    worker_connections 16384;
}
"""
HTTP = """\
    access_log off;
    server_tokens off;
    server_names_hash_bucket_size 512;
    server_names_hash_max_size 65536;
    map_hash_bucket_size 512;
    variables_hash_max_size 8192;
"""
UNIT_TEXT = """\
[Unit]
Description=nginx, kept in step by k4t (%(what)s)
After=network-online.target
Wants=network-online.target%(other)s
%(bound)s
[Service]
ExecStartPre=/bin/mkdir -p %(run)s
ExecStartPre=/bin/sh -c 'rm -f %(sockets)s'
ExecStart=%(binary)s -c %(conf)s -g 'daemon off;'
KillMode=mixed
KillSignal=SIGQUIT
TimeoutStopSec=10
Restart=always
RestartSec=1
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
"""


def router(run: str, include: str, stream_include: str, module: str) -> str:
    """`module`: the stream module's file, "built-in", or "" where there is none."""
    stream = "stream {\n    include %s;\n}\n" % stream_include if module else ""
    return _main(run, "router", module) + "http {\n%s%s    include %s;\n}\n" % (HTTP, _temporary(run), include) + stream


def front(run: str, include: str) -> str:
    tls = "    ssl_session_cache shared:k4t_tls:10m;\n    ssl_session_timeout 1h;\n"
    return _main(run, "front", "") + "http {\n%s%s%s    include %s;\n}\n" % (HTTP, tls, _temporary(run), include)


def _main(run: str, name: str, module: str) -> str:
    user = next((name for name in USERS if _is_user(name)), "")
    lines: List[str] = ["load_module %s;" % module] if module.startswith("/") else []
    lines += ["user %s %s;" % (user, _group(user))] if user else []
    return text_of([*lines, "pid %s/%s.pid;" % (run, name)]) + MAIN


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _group(user: str) -> str:
    return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name


def _temporary(run: str) -> str:
    return "".join("    %s_temp_path %s/%s;\n" % (name, run, name) for name in TEMPORARY)


def units(binary: str, run: str) -> Dict[str, str]:
    """Path to text, of the router's and the front's: they start and stop together."""
    sockets = " ".join("%s/%s.sock" % (run, name) for name in ("http", "https", "router"))
    common = {"binary": binary, "run": run}
    first = {"what": "router", "other": " k4t-nginx-front.service", "bound": "", "conf": ROUTER, "sockets": sockets}
    after = "After=k4t-nginx.service\nPartOf=k4t-nginx.service\n"
    second = {"what": "front", "other": "", "bound": after, "conf": FRONT, "sockets": run + "/front.sock"}
    return {UNIT: UNIT_TEXT % {**common, **first}, FRONT_UNIT: UNIT_TEXT % {**common, **second}}
