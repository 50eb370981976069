"""nginx's processes: which run here, which configuration they have, and having them load another.

A reload (SIGHUP to the master) starts workers with the new configuration and, 0.1 s later, tells the old ones to take
no more connections and to finish what they have. Their title then says "shutting down".
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from typing import Callable, List, Set, Tuple

from .errors import VendorRefused, VendorSilent

MASTER = "nginx: master process "
WORKER = "nginx: worker process"
LEAVING = "is shutting down"
RELOAD_S = 10.0
USUAL_S = 1.0
POLL_S = 0.002
ASK_S = 2.0
TEST_S = 20.0
LISTENING = "0A"
LOGGED = re.compile(r"^(nginx: )?(\S+ \S+ )?\[\w+\] (\d+#\d+: )?")
MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")


def ask(address: str) -> str:
    """The generation that answers at `unix:PATH` or `HOST:PORT`. Raises VendorSilent."""
    try:
        with _connected(address) as connection:
            connection.sendall(b"GET /generation HTTP/1.0\r\nHost: k4t\r\n\r\n")
            answer = b""
            while len(answer) < 4096:
                part = connection.recv(4096)
                if not part:
                    break
                answer += part
    except OSError as error:
        raise VendorSilent("nginx doesn't answer at %s: %s" % (address, error)) from error
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [b"200"]:
        raise VendorSilent("%s answers no generation of k4t's: %r" % (address, head[:80]))
    return body.decode("ascii", "replace")[:64]


def _connected(address: str) -> socket.socket:
    if not address.startswith("unix:"):
        host, _, port = address.rpartition(":")
        return socket.create_connection((host, int(port)), ASK_S)
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(ASK_S)
        made.connect(address[len("unix:") :])
    except BaseException:
        made.close()
        raise
    return made


def master(conf: str, usual: str) -> int:
    """The pid of the master that was started with `conf` (`usual`: when none was said), 0 when none runs.

    Those in containers have a pid namespace of their own, and are somebody else's.
    """
    here = _namespace("self")
    for pid in _pids():
        title = _title(pid)
        if title.startswith(MASTER):
            said = re.search(r" -c (\S+)", title)
            if (said.group(1) if said else usual) == conf and _namespace(str(pid)) == here:
                return pid
    return 0


def workers(parent: int) -> Set[int]:
    """Those that take connections."""
    return {pid for pid in _pids() if _parent(pid) == parent and _takes(pid)}


def _takes(pid: int) -> bool:
    title = _title(pid)
    return title.startswith(WORKER) and LEAVING not in title


def _pids() -> List[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _title(pid: int) -> str:
    with contextlib.suppress(OSError), open("/proc/%d/cmdline" % pid, "rb") as file:
        return file.read().replace(b"\0", b" ").decode("utf-8", "replace")
    return ""


def _parent(pid: int) -> int:
    gone = contextlib.suppress(OSError, ValueError, IndexError)
    with gone, open("/proc/%d/stat" % pid, encoding="utf-8", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[1])
    return 0


def _namespace(pid: str) -> str:
    try:
        return os.readlink("/proc/%s/ns/pid" % pid)
    except OSError:
        return ""


def reload(pid: int, address: str, wanted: str, why: Callable[[], str]) -> None:
    """Until new workers have this generation and no old one takes connections.

    `why`: what nginx has against its files, in words, asked for when that takes long. Raises VendorRefused when it
    doesn't come about (the old ones then go on), VendorSilent when nginx ended.
    """
    old = workers(pid)
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise VendorSilent("nginx (pid %d) can't be told to load its files: %s" % (pid, error)) from error
    began, asked = time.monotonic(), False
    while time.monotonic() < began + RELOAD_S:
        time.sleep(POLL_S)
        if not any(_takes(worker) for worker in old):
            if ask(address) == wanted:
                return
        elif not asked and time.monotonic() > began + USUAL_S:
            asked, words = True, why()
            if words:
                raise VendorRefused("nginx refuses it: " + words)
    raise VendorRefused("nginx has not loaded its new files in %g s; its log says why" % RELOAD_S)


def test(binary: str, conf: str) -> str:
    """What `nginx -t` says against a configuration; "" when it would take it. Raises VendorRefused."""
    command = [binary, "-t", "-q", "-c", conf]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TEST_S, check=False)
    except OSError as error:
        raise VendorRefused("can't run %s -t: %s" % (binary, error)) from error
    except subprocess.TimeoutExpired as error:
        raise VendorRefused("nginx -t took longer than %g s" % TEST_S) from error
    if not done.returncode:
        return ""
    lines = done.stderr.decode("utf-8", "replace").splitlines()
    said = [LOGGED.sub("", line) for line in lines if "[emerg]" in line] or lines[:1]
    return "; ".join(dict.fromkeys(said))[:1000] or "no reason given"


def stream_module(binary: str) -> str:
    """The file of the stream module, "built-in" for an nginx that was built with it, "" where there is none."""
    for directory in MODULES:
        path = os.path.join(directory, "ngx_stream_module.so")
        if os.path.exists(path):
            return path
    try:
        done = subprocess.run(
            [binary, "-V"], stdin=subprocess.DEVNULL, capture_output=True, timeout=TEST_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "built-in" if b"--with-stream " in done.stderr + b" " else ""


def ports_open() -> Set[Tuple[int, str]]:
    """(port, protocol): every TCP port of this host that is listened on, every UDP port that is bound."""
    found = set()
    for name in ("tcp", "tcp6", "udp", "udp6"):
        with contextlib.suppress(OSError):
            with open("/proc/net/" + name, encoding="ascii") as file:
                rows = [line.split() for line in file.readlines()[1:]]
            for row in rows:
                if name.startswith("udp") or row[3] == LISTENING:
                    found.add((int(row[1].rpartition(":")[2], 16), name[:3]))
    return found
