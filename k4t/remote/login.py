"""Which keys are offered to a host, and in which order: one attempt a key, a few at most (sshd's MaxAuthTries)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from k4t.errors import LoginRefused
from k4t.model.value import value
from k4t.remote.known_hosts import HostKey
from k4t.remote.ssh_config import Target

MAX_OFFERS = 5


class KeyEncrypted(Exception):
    """The file wants a passphrase, and k4t asks for none."""


class KeyUnreadable(Exception):
    """The file holds no private key that can be used; the text says why."""


@value
class Offer:
    """`key` is the library's; `words` name it in messages: a path, or the agent's key."""

    key: Any
    words: str


@value
class Keyring:
    """The library's way to keys. `load` raises KeyEncrypted or KeyUnreadable; `agent` gives (comment, blob, key)."""

    load: Callable[[str], Any]
    agent: Callable[[str], Sequence[tuple[str, bytes, Any]]]


def offers(name: str, target: Target, keyring: Keyring) -> Iterator[Offer]:
    """The keys to try. Raises LoginRefused when the tree's own key can't be used, or when there is none at all."""
    if target.named_key:
        yield _named(name, target, keyring)
        return
    count = 0
    for offer in _all(target, keyring):
        yield offer
        count += 1
        if count == MAX_OFFERS:
            return
    if not count:
        raise LoginRefused(
            f"there is no key to log in with as {target.user} at {target.host}: the agent has none,"
            f" and no file of ~/.ssh can be used",
            'name one: <ssh key="~/.ssh/id_ed25519"/>, or load one: ssh-add',
            host=name,
        )


def _named(name: str, target: Target, keyring: Keyring) -> Offer:
    path = target.named_key
    try:
        return Offer(keyring.load(path), path)
    except FileNotFoundError as error:
        raise LoginRefused(f"the key {path} does not exist", "mend key= in <ssh>", host=name) from error
    except OSError as error:
        raise LoginRefused(f"the key {path} can't be read: {error.strerror}", "", host=name) from error
    except KeyUnreadable as error:
        raise LoginRefused(f"the key {path} can't be used: {error}", "mend key= in <ssh>", host=name) from error
    except KeyEncrypted as error:
        public = _public_blob(path)
        for comment, blob, key in keyring.agent(target.agent_socket):
            if blob == public:
                return Offer(key, f"{path} (from the agent: {comment})")
        raise LoginRefused(
            f"the key {path} has a passphrase, and the SSH agent doesn't hold it",
            f"load it: ssh-add {path}" if target.agent_socket else f"start an agent and load it: ssh-add {path}",
            host=name,
        ) from error


def _all(target: Target, keyring: Keyring) -> Iterator[Offer]:
    """As OpenSSH does: the agent's copies of configured files, the agent's others, then the files themselves."""
    files = {path: _public_blob(path) for path in target.identity_files}
    held = list(keyring.agent(target.agent_socket))
    configured = [entry for entry in held if entry[1] in files.values()]
    others = [] if target.identities_only else [entry for entry in held if entry not in configured]
    for comment, _, key in configured + others:
        yield Offer(key, f"the agent's key {comment}")
    done = {blob for _, blob, _ in configured + others}
    for path, blob in files.items():
        if blob is not None and blob in done:
            continue
        try:
            yield Offer(keyring.load(path), path)
        except (OSError, KeyEncrypted, KeyUnreadable):
            continue


def _public_blob(path: str) -> bytes | None:
    """The public half beside a private key file, if it is there."""
    from k4t.remote.known_hosts import parse

    try:
        text = Path(os.path.expanduser(f"{path}.pub")).read_bytes()
    except OSError:
        return None
    entries = parse(b"key " + text)
    key: HostKey | None = entries[0].key if entries else None
    return key.blob if key else None
