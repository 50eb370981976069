"""New trees, and new things in them: what `k4t init`, `node add`, `gateway add` … write."""

from __future__ import annotations

import os
import secrets
import shutil
import string
from pathlib import Path

from k4t.errors import InvalidTree, K4tError, Usage
from k4t.model.hosts import Ssh
from k4t.tree import values
from k4t.tree.edit import attribute_escaped, sync_directory, write_file
from k4t.tree.files import ignored, no_tree

_README = {
    "nodes": "One file for one Docker host: `NAME.xml`. `k4t node add NAME ADDRESS` writes one.",
    "apps": "One directory for one app: `NAME/app.xml`, and beside it the files that it mounts and its image archives.",
    "gateways": "One file for one load balancer: `NAME.xml`. `k4t gateway add NAME ADDRESS` writes one.",
    "dns": "One file for one DNS server: `NAME.xml`. `k4t dns add NAME ADDRESS --zone ZONE` writes one.",
    "certificates": "One file for one certificate: `NAME.xml`, and beside it the chains.",
    "secrets": "One file for one secret: `NAME.age`, which `k4t secret set NAME` writes, or `NAME.xml`: where it is.",
    "hooks": "Programs that k4t runs: `pre-apply`, `post-apply`, `on-failure`.",
}
_CLUSTER = """\
<cluster name="{name}" id="{id}" format="1">  <!-- id: random, never changed; it marks what is this cluster's -->
  <ssh user="root"/>
  <!-- <variable name="domain">example.com</variable>   apps use it as ${{domain}} -->
</cluster>
"""
NO_SSH = Ssh()
_KINDS = {"node": "nodes", "app": "apps", "gateway": "gateways", "certificate": "certificates", "secret": "secrets"}


def create(directory: Path, name: str) -> None:
    """Write an empty tree. Raises Usage when there is one already, or something else."""
    _name(name)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        present = sorted(entry for entry in os.listdir(directory) if not ignored(entry))
    except OSError as error:
        raise Usage(f"can't make a tree at {directory}: {error.strerror}", "name another directory") from None
    if "cluster.xml" in present:
        raise Usage(f"there is a tree at {directory} already", "name another directory")
    if present:
        raise Usage(f"{directory} is not empty: {', '.join(present[:5])}", "name another directory")
    random = "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(8))
    try:
        for kind, text in _README.items():
            (directory / kind).mkdir()
            (directory / kind / "README.md").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise K4tError(f"can't write to {directory}: {error.strerror}") from error
    if not (directory / ".gitignore").exists():
        write_file(directory / ".gitignore", b".k4t*\n")
    write_file(directory / "known_hosts", b"")
    write_file(directory / "cluster.xml", _CLUSTER.format(name=name, id=random).encode())


def add_node(directory: Path, name: str, address: str, *, ssh: Ssh = NO_SSH) -> Path:
    """Write nodes/NAME.xml; of `ssh` the host, port, user and sudo. Raises Usage for what can't be, or is there."""
    _valid(values.ADDRESSES, address, "address")
    return _add(directory, "nodes", name, {"address": address}, ssh)


def add_gateway(directory: Path, name: str, address: str, *, driver: str = "envoy", ssh: Ssh = NO_SSH) -> Path:
    """Write gateways/NAME.xml. Raises as `add_node`."""
    _valid(values.ADDRESS, address, "address")
    return _add(directory, "gateways", name, {"driver": driver, "address": address}, ssh)


def add_dns(
    directory: Path,
    name: str,
    address: str,
    *,
    zone: str,
    driver: str = "dnsmasq",
    ssh: Ssh = NO_SSH,
    key_name: str = "",
    secret: str = "",
) -> Path:
    """Write dns/NAME.xml. Raises as `add_node`."""
    _valid(values.ADDRESS, address, "address")
    _valid(values.DOMAIN, zone, "zone")
    attributes = {"driver": driver, "address": address, "zone": zone}
    if key_name:
        _valid(values.DOMAIN, key_name, "key-name")
        attributes["key-name"] = key_name
    if secret:
        _valid(values.NAMED, secret, "secret")
        attributes["secret"] = secret
    return _add(directory, "dns", name, attributes, ssh)


def remove(directory: Path, kind: str, name: str) -> None:
    """Remove a thing's file, an app's whole directory. Raises Usage when there is none."""
    _name(name)
    kind = _KINDS.get(kind, kind)
    paths = [directory / kind / name] if kind == "apps" else [directory / kind / f"{name}{e}" for e in (".xml", ".age")]
    path = next((one for one in paths if os.path.lexists(one)), None)
    if path is None:
        raise Usage(f"no {name} in {directory / kind}", f"there are: {', '.join(_present(directory / kind)) or 'none'}")
    try:
        if kind == "apps" and path.is_dir() and not path.is_symlink():
            aside = path.parent / f".k4t-{secrets.token_hex(6)}"
            path.rename(aside)
            sync_directory(path.parent)
            shutil.rmtree(aside)
        else:
            path.unlink()
            sync_directory(path.parent)
    except OSError as error:
        raise K4tError(f"can't remove {path}: {error.strerror}") from error


def _present(directory: Path) -> list[str]:
    from k4t.tree.names import names

    return names(directory.parent, directory.name)[:20]


def _add(directory: Path, kind: str, name: str, attributes: dict[str, str], ssh: Ssh) -> Path:
    _name(name)
    if not (directory / "cluster.xml").is_file():
        raise no_tree(directory, "no cluster.xml")
    path, element = directory / kind / f"{name}.xml", kind.removesuffix("s") if kind != "dns" else kind
    if os.path.lexists(path):
        raise Usage(f"{path} is there already", "choose another name, or edit it")
    login = _ssh_attributes(ssh)
    body = f">\n  <ssh {_written(login)}/>\n</{element}>" if login else "/>"
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise K4tError(f"can't make {path.parent}: {error.strerror}") from error
    write_file(path, f"<{element} {_written(attributes)}{body}\n".encode())
    _take_back_invalid(directory, path)
    return path


def _take_back_invalid(directory: Path, path: Path) -> None:
    """What doesn't fit the rest of the tree (an address twice, say) is not left in it. Raises InvalidTree for that."""
    from k4t.tree.read import read_tree

    mine = path.relative_to(directory).as_posix()
    try:
        read_tree(directory)
    except InvalidTree as error:
        if about := [finding for finding in error.findings if mine in str(finding)]:
            path.unlink()
            raise InvalidTree(about) from None


def _ssh_attributes(ssh: Ssh) -> dict[str, str]:
    if ssh.user:
        _valid(values.LOGIN, ssh.user, "user")
    found = {"host": ssh.host, "port": str(ssh.port or ""), "user": ssh.user, "sudo": "true" if ssh.sudo else ""}
    return {key: text for key, text in found.items() if text}


def _written(attributes: dict[str, str]) -> str:
    return " ".join(f'{key}="{attribute_escaped(text)}"' for key, text in attributes.items())


def _name(name: str) -> None:
    _valid(values.NAMED, name, "name")


def _valid(kind: values.Type, text: str, what: str) -> None:
    try:
        kind.parse(text)
    except ValueError as error:
        raise Usage(f"{what} {text!r} {str(error) or f'is not {kind.phrase}'}", f"as in {kind.example}") from None
