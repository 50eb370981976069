"""`k4t dns install` for driver rfc2136, on a host with a shell and BIND: a zone that takes k4t's updates.

Where no named runs, one is started by a configuration of its own. Where one runs, nothing of it is touched: the key and
the zone are written beside its files, and the operator is told the line that includes them. The places are those that
Debian's AppArmor profile lets named read and write.
"""

from __future__ import annotations

import base64
import ipaddress
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k4t.dns.tsig import Key
from k4t.dns.wire import Server
from k4t.errors import K4tError, StepError
from k4t.model.hosts import Dns
from k4t.remote import setup

if TYPE_CHECKING:
    from k4t.remote.transport import Transport

DIRECTORY = "/etc/bind/k4t"
ZONES = "/var/lib/bind/k4t"
CONF = f"{DIRECTORY}/named.conf"
UNIT = "k4t-named.service"
USERS = ("bind", "named")
ANSWERS_WITHIN_S = 8.0
POLL_S = 0.1

USER = 'for user; do id -u "$user" >/dev/null 2>&1 && { echo "$user"; exit; }; done; exit 1'
ROOM = """\
user=$1; shift
mkdir -p -- "$@" && chown "$user" -- "$@" && chmod 0750 -- "$@"
"""
GIVE = 'chown "root:$1" -- "$2"'
TAKE = 'test -e "$2" && exit 1; chown "$1" -- "$2.new" && mv -- "$2.new" "$2"'


@dataclass(frozen=True, slots=True)
class BindPlan:
    """`own`: named runs by our configuration. `pid`: of the one we started. `files`: path to text and mode."""

    own: bool
    pid: int
    files: dict[str, tuple[str, int]]
    notes: tuple[str, ...] = ()


def plan_install(found: setup.Survey, dns: Dns, key: Key | None) -> BindPlan:
    """Raises StepError when there is no BIND, or no key."""
    if not found.binary and not found.processes:
        raise StepError("BIND is not installed", "apt-get install bind9 there, and systemctl disable --now named")
    if key is None:
        raise StepError(
            "a server that is set up for k4t needs a TSIG key",
            f"tsig-keygen k4t | k4t secret set tsig; then key-name and secret in {dns.where}",
        )
    pid = found.ours(CONF)
    own = bool(pid) or not found.processes
    files = {_key_path(dns): (key_text(key), 0o640), _conf_path(dns): (_zone(dns), 0o644)}
    if own:
        files[CONF] = (_conf(dns), 0o644)
    return BindPlan(own, pid, files, () if own else (_include(found.processes[0][0], dns),))


def install(transport: Transport, dns: Dns, key: Key | None) -> Iterator[str]:
    """Set BIND up; what was done, line by line. Doing it again says that there is nothing to do."""
    found = setup.survey(transport, "named")
    plan = plan_install(found, dns, key)
    user = transport.run(["sh", "-c", USER, "k4t", *USERS]).stdout.decode().strip()
    if not user:
        raise StepError(f"there is no user {' or '.join(USERS)}", "install your system's BIND package", host=dns.name)
    yield from plan.notes
    _done(transport, ["sh", "-c", ROOM, "k4t", user, ZONES])
    changed = []
    for path, (text, mode) in plan.files.items():
        if transport.get(path) != text.encode():
            transport.put(path, text.encode(), mode)
            changed.append(path)
        _done(transport, ["sh", "-c", GIVE, "k4t", user, path])
    if _put_zone(transport, dns, user):
        changed.append(zone_path(dns))
    yield from (f"wrote {path}" for path in changed)
    if plan.own and (changed or not plan.pid):
        yield from _start(transport, found, plan, dns, key, user=user)
    elif not changed:
        yield "nothing to do"


def _start(
    transport: Transport, found: setup.Survey, plan: BindPlan, dns: Dns, key: Key | None, *, user: str
) -> Iterator[str]:
    binary = found.binary or "named"
    argv = (binary, "-g", "-u", user, "-c", CONF)
    service = setup.Service("BIND", UNIT, CONF, argv)
    setup.stop(transport, found, plan.pid)
    if found.systemd:
        transport.put(f"/etc/systemd/system/{UNIT}", _unit(argv).encode())
    yield setup.start(transport, found, service)
    deadline = time.monotonic() + ANSWERS_WITHIN_S
    while problem := _problem(transport, dns, key):
        if time.monotonic() > deadline:
            said = "" if found.systemd else f" ({setup.tail(transport, service.log)})"
            raise StepError(f"BIND was started, but: {problem}{said}", f"see {service.log}", host=dns.name)
        time.sleep(POLL_S)
    yield f"BIND answers at {dns.address}:{dns.port}, and takes updates of {dns.zone}"


def _problem(transport: Transport, dns: Dns, key: Key | None) -> str:
    """Why the zone can't be asked, "" when it can: BIND listens before it has loaded it."""
    server = Server(dns.name, dns.zone, lambda: key, lambda: transport.connect_tcp(dns.address, dns.port, 1.0))
    try:
        server.ask([(dns.zone, "SOA")])
    except K4tError as error:
        return error.message
    finally:
        server.close()
    return ""


def _put_zone(transport: Transport, dns: Dns, user: str) -> bool:
    """A zone with nothing in it, where there is none: named keeps the file from then on."""
    path = zone_path(dns)
    if transport.run(["test", "-e", path]).ok:
        return False
    transport.put(f"{path}.new", _empty(dns).encode())
    return transport.run(["sh", "-c", TAKE, "k4t", user, path]).ok


def _done(transport: Transport, argv: list[str]) -> None:
    done = transport.run(argv)
    if not done.ok:
        raise StepError(f"BIND can't be set up: {done.words()}", host=transport.host)


# --- texts -------------------------------------------------------------------------------------------------


def zone_path(dns: Dns) -> str:
    return f"{ZONES}/{dns.zone}.zone"


def _key_path(dns: Dns) -> str:
    return f"{DIRECTORY}/keys/{dns.key_name}.key"


def _conf_path(dns: Dns) -> str:
    return f"{DIRECTORY}/zones/{dns.zone}.conf"


def key_text(key: Key) -> str:
    secret = base64.b64encode(key.secret).decode()
    return f'key "{key.name}" {{\n  algorithm {key.algorithm};\n  secret "{secret}";\n}};\n'


def _zone(dns: Dns) -> str:
    return f"""\
// Written by k4t; a new `k4t dns install` replaces it.
zone "{dns.zone}" {{
  type primary;
  file "{zone_path(dns)}";
  allow-update {{ key "{dns.key_name}"; }};
}};
"""


def _conf(dns: Dns) -> str:
    v6 = ipaddress.ip_address(dns.address).version == 6
    mine, other = f"port {dns.port} {{ {dns.address}; }}", f"port {dns.port} {{ none; }}"
    return f"""\
// Written by k4t; a new `k4t dns install` replaces it.
options {{
  directory "{ZONES}";
  pid-file none;
  session-keyfile none;
  listen-on {other if v6 else mine};
  listen-on-v6 {mine if v6 else other};
  recursion no;
  dnssec-validation no;
  notify no;
  allow-query {{ any; }};
  allow-transfer {{ none; }};
}};
controls {{ }};
include "{DIRECTORY}/keys/*.key";
include "{DIRECTORY}/zones/*.conf";
"""


def _empty(dns: Dns) -> str:
    kind = "A" if ipaddress.ip_address(dns.address).version == 4 else "AAAA"
    return f"""\
$ORIGIN {dns.zone}.
$TTL 300
@ IN SOA ns.{dns.zone}. hostmaster.{dns.zone}. 1 3600 600 86400 1
@ IN NS ns.{dns.zone}.
ns IN {kind} {dns.address}
"""


def _unit(argv: tuple[str, ...]) -> str:
    return f"""\
[Unit]
Description=BIND, for the zone that k4t updates
After=network-online.target
Wants=network-online.target

[Service]
ExecStart={" ".join(argv)}
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
"""


def _include(pid: int, dns: Dns) -> str:
    return "\n".join(
        [
            f"a BIND that is not k4t's runs here (pid {pid}); nothing of it was touched. Add to its configuration",
            "(Debian: /etc/bind/named.conf.local), and say `rndc reconfig`:",
            f'  include "{_key_path(dns)}";',
            f'  include "{_conf_path(dns)}";',
            f"or, where it has zone {dns.zone} already, the first line, and in that zone",
            f'  allow-update {{ key "{dns.key_name}"; }};',
        ]
    )
