"""HAProxy's runtime socket: commands, and what the running process is asked.

Source: HAProxy 2.6 management guide, “Unix Socket commands” and “show servers state”. One connection takes one line;
commands on it are separated by semicolons.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import socket
from typing import Dict, Iterable, List, Sequence, Tuple

from .errors import VendorSilent

TIMEOUT_S = 10.0
LINE_MAX_BYTES = 12_000  # its buffer holds 16,384
ANSWER_MAX_BYTES = 256 * 1024 * 1024
MAINT, DRAIN = 0x01 | 0x02 | 0x04 | 0x20, 0x08 | 0x10
EXPECTED = ("", "New server registered.", "Server deleted.")


@dataclasses.dataclass(frozen=True)
class Server:
    """One line of `show servers state`. `running`: would get traffic if it isn't in maintenance."""

    backend: str
    name: str
    address: str
    running: bool
    maintenance: bool
    draining: bool
    passed: bool

    @property
    def ready(self) -> bool:
        return not self.maintenance and not self.draining


def ask(path: str, command: str) -> str:
    """The answer. Raises VendorSilent."""
    parts: List[bytes] = []
    size = 0
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(path)
            connection.sendall(command.encode() + b"\n")
            while size < ANSWER_MAX_BYTES:
                part = connection.recv(262144)
                if not part:
                    break
                parts.append(part)
                size += len(part)
    except OSError as error:
        raise VendorSilent("HAProxy's socket %s doesn't answer: %s" % (path, error)) from error
    return b"".join(parts).decode("utf-8", "replace")


def tell(path: str, commands: Iterable[str]) -> List[str]:
    """As many at once as a line holds; what was answered that isn't mere consent. Raises VendorSilent."""
    said: List[str] = []
    line: List[str] = []
    for command in [*commands, ""]:
        full = sum(map(len, line)) + 2 * len(line) + len(command) > LINE_MAX_BYTES
        if line and (full or not command):
            answer = ask(path, "; ".join(line))
            said += [word.strip() for word in answer.splitlines() if word.strip() not in EXPECTED]
            line = []
        line.append(command)
    return said


def servers(path: str) -> List[Server]:
    """Of all backends, the operator's own among them."""
    lines = ask(path, "show servers state").splitlines()
    if lines[:1] != ["1"] or len(lines) < 2:
        raise VendorSilent("%s answers no servers: %r" % (path, "\n".join(lines)[:80]))
    columns = lines[1].lstrip("# ").split()
    return [_server(dict(zip(columns, line.split()))) for line in lines[2:] if line.strip()]  # noqa: B905 - Python 3.8


def _server(found: Dict[str, str]) -> Server:
    admin = int(found["srv_admin_state"])
    ip = found["srv_addr"]
    return Server(
        found["be_name"],
        found["srv_name"],
        ("[%s]:%s" if ":" in ip else "%s:%s") % (ip, found["srv_port"]),
        running=found["srv_op_state"] != "0",
        maintenance=bool(admin & MAINT),
        draining=bool(admin & DRAIN),
        passed=found["srv_check_result"] in ("3", "4"),
    )


def sessions(path: str) -> Dict[Tuple[str, str], int]:
    """By (backend, server): how often a request (of tcp: a connection) was sent there. Source: HAProxy 2.6 management
    guide, “Statistics and monitoring”, column stot; of all proxies (-1) the servers (4)."""
    lines = ask(path, "show stat -1 4 -1").splitlines()
    if not lines or not lines[0].startswith("# pxname,svname,"):
        raise VendorSilent("%s answers no statistics: %r" % (path, "\n".join(lines)[:80]))
    columns = lines[0].lstrip("# ").split(",")
    found: Dict[Tuple[str, str], int] = {}
    for line in lines[1:]:
        row = dict(zip(columns, line.split(",")))  # noqa: B905 - Python 3.8
        if row.get("stot", "").isdigit():
            found[row["pxname"], row["svname"]] = int(row["stot"])
    return found


def environment(path: str, name: str) -> str:
    """A variable of the running process; "" when it has none of that name."""
    answer = ask(path, "show env %s" % name).strip()
    return answer[len(name) + 1 :] if answer.startswith(name + "=") else ""


def information(path: str) -> Dict[str, str]:
    pairs = (line.partition(":") for line in ask(path, "show info").splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs if value}


def version(found: Dict[str, str]) -> Tuple[int, ...]:
    """(2, 6) of 2.6.12-1."""
    return tuple(int(part) for part in found.get("Version", "0").split("-")[0].split(".")[:2] if part.isdigit())


def maps(path: str, directory: str) -> Dict[str, List[str]]:
    """Path to lines of every map in `directory` that the process holds."""
    listed = [line.split("(", 1)[1].split(")", 1)[0] for line in ask(path, "show map").splitlines() if "(" in line[:12]]
    wanted = [name for name in listed if name.startswith(directory + "/")]
    return {name: _map_lines(ask(path, "show map %s" % name)) for name in wanted}


def _map_lines(answer: str) -> List[str]:
    """Each is said as `0xADDRESS KEY VALUE`."""
    return [line.partition(" ")[2] for line in answer.splitlines() if line.startswith("0x")]


def fingerprints(path: str, names: Iterable[str]) -> Dict[str, str]:
    """Of the certificates that the process has loaded from these paths: SHA-1, as it says it."""
    found: Dict[str, str] = {}
    for name in names:
        for line in ask(path, "show ssl cert %s" % name).splitlines():
            if line.startswith("SHA1 FingerPrint:"):
                found[name] = line.partition(":")[2].strip().upper()
    return found


def fingerprint(pem: str) -> str:
    """Of the first certificate of a PEM text; "" when it holds none."""
    body = pem.partition("-----BEGIN CERTIFICATE-----")[2].partition("-----END")[0]
    try:
        return hashlib.sha1(base64.b64decode(body)).hexdigest().upper()  # noqa: S324 - it names, it doesn't protect
    except ValueError:
        return ""


def renew(path: str, name: str, pem: str) -> str:
    """Replace a certificate in the running process, for connections to come; "" or what it says against it."""
    lines = "\n".join(line for line in pem.splitlines() if line.strip())
    said = ask(path, "set ssl cert %s <<\n%s\n" % (name, lines))
    if "Transaction created" not in said and "Transaction updated" not in said:
        return " ".join(said.split()) or "no reason given"
    said = ask(path, "commit ssl cert %s" % name)
    if "Success!" in said:
        return ""
    ask(path, "abort ssl cert %s" % name)
    return " ".join(said.split()) or "no reason given"


def master(pid: int) -> Tuple[int, Sequence[str]]:
    """(pid, arguments) of the master of worker `pid`; (0, ()) when it has none."""
    try:
        with open("/proc/%d/status" % pid, encoding="ascii", errors="replace") as file:
            parent = next(int(line.split()[1]) for line in file if line.startswith("PPid:"))
        with open("/proc/%d/cmdline" % parent, "rb") as cmdline:
            argv = [part.decode("utf-8", "replace") for part in cmdline.read().split(b"\0")[:-1]]
    except (OSError, StopIteration, ValueError):
        return 0, ()
    return (parent, argv) if argv and os.path.basename(argv[0]).startswith("haproxy") else (0, ())
