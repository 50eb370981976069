"""HAProxy's own checker, whether ports are free, and the signal that reloads it."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from typing import Any, List, Mapping, Sequence

from . import files
from .errors import Denied, VendorRefused
from .haproxy_file import ports
from .haproxy_render import Rendered

CHECK_S = 30.0


def check(arguments: Sequence[str], file: str, rendering: Mapping[str, Any], directory: str) -> None:
    """`haproxy -c` of a copy of everything, with `file` replaced. Raises VendorRefused with its words."""
    files.make_directory(directory)
    for left in glob.glob(os.path.join(directory, ".check-*")):  # of a check that was killed; it holds keys
        shutil.rmtree(left, ignore_errors=True)
    try:
        copy = tempfile.mkdtemp(prefix=".check-", dir=directory)
    except OSError as error:
        raise files.full(error, directory) from error
    try:
        candidate = os.path.join(copy, "k4t.cfg")
        for path, content in rendering.items():
            if path == file:
                text = content.text if isinstance(content, Rendered) else content
                for part in ("maps/", "certificates/"):
                    text = text.replace(os.path.join(directory, part), os.path.join(copy, part))
                files.write(candidate, text, 0o600)
            else:
                content_ = content.replace(directory + "/", copy + "/") if path.endswith(".crt-list") else content
                files.write(os.path.join(copy, os.path.relpath(path, directory)), content_, 0o600)
        _run([candidate if part == file else part for part in arguments], copy)
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _run(arguments: Sequence[str], copy: str) -> None:
    command = [arguments[0], "-c", *arguments[1:]]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=CHECK_S, check=False)
    except OSError as error:
        raise VendorRefused("can't run %s -c: %s" % (arguments[0], error)) from error
    except subprocess.TimeoutExpired as error:
        raise VendorRefused("haproxy -c took longer than %g s" % CHECK_S) from error
    if done.returncode < 0:
        raise VendorRefused("haproxy -c was killed by signal %d: nothing is known of what it thinks" % -done.returncode)
    if done.returncode:
        raise VendorRefused("HAProxy refuses it: " + words(done.stderr + done.stdout, copy))


def words(output: bytes, copy: str) -> str:
    """Its alerts, without the process's number and the path of our copy."""
    lines = output.decode("utf-8", "replace").replace(copy + "/", "").splitlines()
    alerts = [re.sub(r"^\[[A-Z]+\]\s*\(\d+\) : ", "", line) for line in lines if line.startswith("[ALERT]")]
    told = [line for line in alerts if not re.search(r"Error\(s\) found in|Fatal errors found", line)]
    return "; ".join(told or alerts or lines)[:1000] or "no reason given"


def file_options(argv: Sequence[str], directory: str) -> List[str]:
    """The -f and -C options of a running HAProxy's arguments, which was started in `directory`."""
    found: List[str] = []
    for place, part in enumerate(argv[:-1]):
        if part in ("-f", "-C"):
            found += [part, os.path.join(directory, argv[place + 1])]
    return found


def ports_taken(structure: str, current: str) -> List[int]:
    """Ports that `structure` binds and `current` doesn't, and somebody else listens on."""
    held = ports(current)
    return [port for port, found in sorted(ports(structure).items()) if port not in held and not _free(port, found)]


def _free(port: int, addresses: Sequence[str]) -> bool:
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind((address, port))
        except OSError:
            return False
    return True


def reload(master: int) -> None:
    """The master reads its files again and starts a new worker; the old one ends when its connections have."""
    try:
        os.kill(master, signal.SIGUSR2)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise Denied("can't reload HAProxy (pid %d): %s" % (master, error.strerror)) from error


def failed_reloads(master: int) -> int:
    """How often in a row the master, told to reload, could not load its files (it then starts itself once more, with
    what it knows of its processes in its environment)."""
    try:
        with open("/proc/%d/environ" % master, encoding="utf-8", errors="replace") as file:
            found = re.search(r"\btype=m;[^|\0]*\bfailedreloads=(\d+)", file.read())
    except OSError:
        return 0
    return int(found.group(1)) if found else 0


def accepts(pid: int) -> bool:
    """Whether a process still holds listening sockets: an old worker takes connections for a moment after the new one
    has begun to."""
    try:
        held = {os.readlink(entry.path) for entry in os.scandir("/proc/%d/fd" % pid)}
        listening = _listening("/proc/%d/net" % pid)
    except OSError:
        return False  # it ended
    return any("socket:[%s]" % inode in held for inode in listening)


def _listening(directory: str) -> List[str]:
    """Inodes of listening TCP sockets and UNIX ones (proc(5): state 0A, flag __SO_ACCEPTCON)."""
    found: List[str] = []
    for name, column, state, inode in (("tcp", 3, "0A", 9), ("tcp6", 3, "0A", 9), ("unix", 3, "00010000", 6)):
        with contextlib.suppress(FileNotFoundError), open(os.path.join(directory, name), encoding="ascii") as file:
            rows = [line.split() for line in file]
            found += [row[inode] for row in rows if len(row) > inode and row[column] == state]
    return found
