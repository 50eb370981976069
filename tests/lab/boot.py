"""Becomes PID 1 of a host: builds its root inside fresh namespaces, moves there and executes tini.

Run by `host.power_on` under `unshare -m -p -u -i -f`, with one argument: a JSON object with `host`, `home` (the host's
directory), `binds` ([source, target] pairs), `control` (a socket to the owner) and `init` (the command for tini).

On the socket: we say our pid as the machine sees it; the owner writes it down and says go; we say ok, or the fault.
An owner that dies before it could write the pid down thus leaves no host that nobody knows of.
"""

from __future__ import annotations

import json
import os
import sys

from tests.lab import kernel

GO, OK = b"go", b"ok"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def build_root(home: str, binds: list[list[str]]) -> str:
    """Overlay of the machine's / under the host's own directory, with its own /proc, /sys, /run and /tmp."""
    root = f"{home}/root"
    layers = f"lowerdir=/,upperdir={home}/upper,workdir={home}/work"
    kernel.mount("overlay", root, "overlay", data=layers)
    kernel.mount("proc", f"{root}/proc", "proc")
    kernel.mount("sysfs", f"{root}/sys", "sysfs")
    kernel.bind("/sys/fs/cgroup", f"{root}/sys/fs/cgroup", recursive=True)
    kernel.bind("/dev", f"{root}/dev", recursive=True)
    for target, mode in (("dev/shm", "1777"), ("run", "755"), ("tmp", "1777")):
        kernel.mount("tmpfs", f"{root}/{target}", "tmpfs", data=f"mode={mode}")
    for source, target in binds:
        at = root + target
        if os.path.isdir(source):
            os.makedirs(at, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(at), exist_ok=True)
            if not os.path.exists(at):
                os.close(os.open(at, os.O_CREAT | os.O_WRONLY, 0o755))
        kernel.bind(source, at)
    return root


def enter_root(root: str) -> None:
    old = f"{root}/.old-root"
    os.makedirs(old, exist_ok=True)
    kernel.pivot_root(root, old)
    os.chdir("/")
    kernel.unmount("/.old-root")
    os.rmdir("/.old-root")


def main() -> None:
    config = json.loads(sys.argv[1])
    control = config["control"]
    os.set_inheritable(control, False)
    os.umask(0o022)
    # The old /proc is still there and names us by the pid that the machine sees.
    os.write(control, os.readlink("/proc/self").encode())
    if os.read(control, 16) != GO:
        sys.exit("the owner is gone")
    try:
        with open("/proc/sys/kernel/hostname", "w") as file:
            file.write(config["host"])
        enter_root(build_root(config["home"], config["binds"]))
        os.write(control, OK)
        environment = {"HOME": "/root", "PATH": PATH, "LANG": "C.UTF-8"}
        os.execve("/usr/bin/docker-init", ["docker-init", "-s", "--", *config["init"]], environment)  # noqa: S606 - this is to be PID 1
    except OSError as error:
        os.write(control, str(error).encode())
        raise


if __name__ == "__main__":
    main()
