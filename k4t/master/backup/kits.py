"""The kit of this tree: what stands on it, where it is kept, whether it still fits the tree.

What was written or printed last is remembered in KEYS/kit.json (its date and a hash of its hosts), so that `k4t doctor`
can say that the hosts have changed since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from k4t.errors import K4tError, Usage
from k4t.master.backup.keys import IDENTITY, keys_directory
from k4t.master.backup.kit import KEY_TYPES, Kit, KitHost, page, parse
from k4t.master.backup.targets import targets_of
from k4t.master.fleet import Host, hosts_of
from k4t.model.hosts import Ssh
from k4t.model.snapshot import Recovery
from k4t.model.spec import Tree
from k4t.remote.known_hosts import HostKey
from k4t.remote.ssh_config import Target
from k4t.tree.edit import sync_directory, write_file
from k4t.tree.secret_files import SecretFiles

Way = Callable[[str, Ssh, str], tuple[tuple[Target, tuple[HostKey, ...]], ...]]
"""`Connector.way`."""

REMEMBERED = "kit.json"


def kit_of(tree: Tree, found: Recovery, way: Way, made: str) -> tuple[Kit, tuple[str, ...]]:
    """What a kit says today, and what an operator should know of it. `made`: when, by whom. Raises K4tError when the
    identity that is kept here can't be read."""
    identity = _identity(tree.cluster.id)
    hosts: list[KitHost] = []
    jumps: dict[str, KitHost] = {}
    notes: list[str] = []
    for host, backup in _asked(tree):
        try:
            hops = way(host.name, host.ssh, host.address)
        except K4tError as error:
            notes.append(f"{host.name} is not in the kit: {error.words}")
            continue
        hosts.append(_host(host.name, *hops[-1], jump=",".join(_place(hop) for hop, _ in hops[:-1]), backup=backup))
        for hop, keys in hops[:-1]:
            jumps.setdefault(_place(hop), _host("", hop, keys))
        notes += _remarks(host.name, hops[-1][0], hosts[-1])
    recipient = found.recipients[0].key if found.recipients else ""
    return Kit(
        tree.cluster.name, tree.cluster.id, found.key, recipient, identity, tuple(hosts), tuple(jumps.values()), made
    ), tuple(notes)  # fmt: skip


def _asked(tree: Tree) -> Iterator[tuple[Host, bool]]:
    """Every host once, with whether copies are kept there: those first."""
    hosts = dict(hosts_of(tree))
    for target in targets_of(tree):
        hosts.pop(target.host.key, None)
        yield target.host, True
    yield from ((host, False) for host in hosts.values())


def _host(name: str, target: Target, keys: tuple[HostKey, ...], *, jump: str = "", backup: bool = False) -> KitHost:
    known = sorted(
        (key for key in keys if key.short_type in KEY_TYPES), key=lambda key: KEY_TYPES.index(key.short_type)
    )
    return KitHost(
        name, target.user, target.host, target.port,
        key_type=known[0].short_type if known else "", key=known[0].fingerprint if known else "",
        jump=jump, sudo=target.sudo, backup=backup,
    )  # fmt: skip


def _place(target: Target) -> str:
    return KitHost("", target.user, target.host, target.port).place


def _remarks(name: str, target: Target, host: KitHost) -> Iterator[str]:
    if not host.key:
        yield f"the kit has no host key of {name}: it is not enrolled; k4t trust {name}, then print the kit again"
    if target.proxy_command:
        yield f"{name} is reached by a ProxyCommand of ~/.ssh/config, which is not in the kit"


def opens_secrets(db: Path, kit: Kit) -> bool | None:
    """Whether the kit's identity opens the tree's secrets; None: there are none."""
    recipients = SecretFiles(db).recipients()
    return kit.recipient in (one.key for one in recipients) if recipients else None


# --- the one that is kept -------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> None:
    """Whole or not at all, for this user alone. Raises Usage rather than write over what may be the only page with the
    identity, K4tError when it can't be written."""
    new, old = parse(text), _kit_at(path)
    if old is not None and old.identity and (old.id, old.identity) != (new.id, new.identity):
        whose = f"the kit of {old.name} ({old.id})" if old.id != new.id else "a kit with the identity, which this lacks"
        raise Usage(f"{path} is {whose}", "name another file")
    if old is None and path.exists() and path.stat().st_size:
        raise Usage(f"{path} is there, and no kit", "name another file")
    write_file(path, text.encode(), 0o600)


def _kit_at(path: Path) -> Kit | None:
    with suppress(OSError, K4tError, ValueError):
        return parse(path.read_text(encoding="utf-8"))
    return None


def remember(kit: Kit, path: Path | None = None) -> None:
    """That an operator has it now; `path`: where it was written. Raises K4tError."""
    said = {"made": kit.made, "hosts": _hosts_hash(kit), "path": str(path.absolute()) if path else ""}
    write_file(keys_directory(kit.id) / REMEMBERED, json.dumps(said, sort_keys=True).encode() + b"\n", 0o600)


def outdated(kit: Kit) -> str:
    """What `k4t doctor` says of the last one made here; "" when it still fits, or none was made here."""
    last = _remembered(kit.id)
    if not last or last.get("hosts") == _hosts_hash(kit):
        return ""
    return f"hosts have changed since the kit was made ({last.get('made')})"


def _remembered(cluster_id: str) -> dict[str, str]:
    try:
        found = json.loads((keys_directory(cluster_id) / REMEMBERED).read_bytes())
        return {str(key): str(text) for key, text in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _hosts_hash(kit: Kit) -> str:
    return hashlib.sha256(repr(sorted(map(repr, (*kit.hosts, *kit.jumps)))).encode()).hexdigest()


def differences(old: Kit, now: Kit) -> list[str]:
    """What a kit that was made before says otherwise than one made now would."""
    if old.id != now.id:
        return [f"it is the kit of another cluster: {old.name} ({old.id})"]
    found = list(old.damaged)
    if old.key != now.key:
        found.append("it has another cluster key: copies made now would be refused")
    if old.recipient != now.recipient:
        found.append("its identity is not the one that copies are encrypted to now")
    had = {host.name: host for host in old.hosts}
    for host in now.hosts:
        found += _changed(had.get(host.name), host, full=not old.more)
    gone = sorted(had.keys() - {host.name for host in now.hosts})
    return found + [f"{name} is no host of the tree any more" for name in gone]


def _changed(old: KitHost | None, now: KitHost, *, full: bool) -> Iterator[str]:
    if old is None:
        if now.backup or full:
            yield f"{now.name} is not in it"
        return
    if now.key and old.key != now.key:
        yield f"{now.name} has another host key: {now.key_type} {now.key}"
    if (old.place, old.jump, old.sudo) != (now.place, now.jump, now.sudo):
        yield f"{now.name} is at {now.place}{f' via {now.jump}' if now.jump else ''}, not {old.place}"
    if now.backup and not old.backup:
        yield f"{now.name} holds copies now"


# --- the identity ---------------------------------------------------------------------------------------------------


def _identity(cluster_id: str) -> str:
    """What the page gets; "" where it is not kept (any more)."""
    path = keys_directory(cluster_id) / IDENTITY
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise K4tError(f"can't read {path}: {error}", "look at its owner and mode") from None
    return next((line.strip() for line in lines if line.strip().upper().startswith("AGE-SECRET-KEY-1")), "")


def forget(cluster_id: str) -> tuple[Path, str]:
    """Take the recovery identity off this machine: where it was, and where a kit with it was written ("" for nowhere).
    Raises Usage when it isn't here, or no kit with it was ever printed or written."""
    path, last = keys_directory(cluster_id) / IDENTITY, _remembered(cluster_id)
    if not path.exists():
        raise Usage(f"there is no recovery identity at {path}", "it was taken off this machine, or never was on it")
    if not last:
        raise Usage("no kit was printed or written yet: nobody could open the copies", "first: k4t kit --write FILE")
    try:
        path.unlink()
        sync_directory(path.parent)
    except OSError as error:
        raise K4tError(f"can't remove {path}: {error.strerror}") from error
    written = Path(last.get("path", ""))
    still = _kit_at(written) if last.get("path") else None
    return path, str(written) if still is not None and still.identity else ""


def text_of(kit: Kit, db: Path) -> str:
    return page(kit, secrets=opens_secrets(db, kit))
