"""SSH keys of the lab and of its hosts, and the client files that go with them."""

from __future__ import annotations

from pathlib import Path

from tests.lab.processes import run
from tests.lab.state import Spec

HOST_KEY_KINDS = ("ed25519", "ecdsa")


def generate(path: Path, kind: str, comment: str) -> Path:
    """A key pair without a passphrase at `path` and `path`.pub, unless it is there already."""
    if not path.exists():
        size = ["-b", "2048"] if kind == "rsa" else []
        run(["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", comment, "-f", str(path)])
    return path


def client_key(spec: Spec, kind: str = "ed25519") -> Path:
    return generate(spec.path / "key" / f"id_{kind}", kind, f"k4t-lab-{spec.name}")


def authorize(spec: Spec, public_key: Path) -> None:
    """Let one more key log in as root on every host: each sshd reads this file (see `root.SSHD_CONFIG`)."""
    with (spec.path / "authorized" / "authorized_keys").open("a") as file:
        file.write(public_key.read_text())


def host_key(spec: Spec, host: str, kind: str) -> Path:
    return generate(spec.path / "hostkeys" / f"{host}.{kind}", kind, host)


def known_hosts_lines(spec: Spec, host: str) -> list[str]:
    names = f"{host},{spec.address(host)},{spec.address6(host)}"
    publics = [host_key(spec, host, kind).with_suffix(f".{kind}.pub") for kind in HOST_KEY_KINDS]
    return [f"{names} {' '.join(public.read_text().split()[:2])}\n" for public in publics]


def write_client_files(spec: Spec) -> None:
    """LAB/known_hosts and LAB/ssh_config: every host by name and by address."""
    lines = [line for host in spec.hosts for line in known_hosts_lines(spec, host)]
    (spec.path / "known_hosts").write_text("".join(lines))
    blocks = [f"Host {host} {spec.address(host)}\n  HostName {spec.address(host)}\n" for host in spec.hosts]
    common = (
        "Host *\n  User root\n"
        f"  IdentityFile {spec.path}/key/id_ed25519\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {spec.path}/known_hosts\n  StrictHostKeyChecking yes\n"
    )
    (spec.path / "ssh_config").write_text("".join(blocks) + common)
