"""The system calls that Python 3.11 lacks: mount(2), umount2(2), unshare(2), setns(2), pivot_root(2), by ctypes."""

from __future__ import annotations

import ctypes
import os

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
CLONE_NEWNET = 0x40000000
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError that names source and target."""
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _check(result, f"mount {source} on {target}")


def bind(source: str, target: str, *, recursive: bool = False) -> None:
    mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))


def unmount(target: str) -> None:
    """Detach what is mounted on `target`; it goes when nobody uses it any more."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"unmount {target}")


def unshare_network() -> None:
    """Give the calling thread, and it alone, a new network namespace."""
    _check(_libc.unshare(CLONE_NEWNET), "unshare the network namespace")


def pivot_root(new_root: str, put_old: str) -> None:
    number = SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(f"pivot_root: its number on {os.uname().machine} is not known; add it to {__name__}")
    _check(_libc.syscall(number, new_root.encode(), put_old.encode()), f"pivot_root {new_root}")
