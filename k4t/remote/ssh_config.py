"""Where a host is and how to log in: the tree's words, then ~/.ssh/config (through `ssh -G`), then the defaults."""

from __future__ import annotations

import functools
import getpass
import glob
import os
import pwd
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from k4t import command
from k4t.errors import HostUnreachable, StepError
from k4t.model.hosts import Ssh

DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa")
DEFAULT_TIMEOUT_S = 10.0
MAX_JUMPS = 8
SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")

NO_EFFECT_HERE = frozenset(
    ("host", "include", "sendenv", "setenv", "hashknownhosts", "gssapiauthentication", "gssapidelegatecredentials")
)
"""Keywords that change nothing of what is read here; files that hold only these needn't be asked (4 ms a host)."""

Options = Mapping[str, Sequence[str]]
"""Lower-case keyword to its values, as `ssh -G` prints them."""

FileReader = Callable[[Path, str], Options]
"""Reads one file for one host where there is no `ssh` to ask."""


@dataclass(frozen=True, slots=True)
class Target:
    """One hop, ready to be dialled. `named_key` is the tree's own choice: then no other key is offered."""

    host: str
    port: int
    user: str
    named_key: str = ""
    identity_files: tuple[str, ...] = ()
    identities_only: bool = False
    agent_socket: str = ""
    jumps: tuple[Target, ...] = ()
    proxy_command: str = ""
    key_name: str = ""
    known_hosts: tuple[Path, ...] = ()
    connect_timeout_s: float = DEFAULT_TIMEOUT_S
    sudo: bool = False


class Resolver:
    """Asks the user's configuration, each question once. Safe for many threads."""

    def __init__(self, environ: Mapping[str, str], read_file: FileReader) -> None:
        self._environ = environ
        self._read_file = read_file
        self._cache: dict[tuple[str, str, int | None], Options] = {}
        self._lock = threading.Lock()
        self.home = Path(environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)

    def resolve(self, name: str, ssh: Ssh, address: str) -> Target:
        """Raises HostUnreachable when the configuration can't be read, or its jumps have no end."""
        try:
            return self._target(ssh.host or address, ssh.user, ssh.port, ssh, depth=0)
        except _BadConfig as error:
            raise HostUnreachable(str(error), "mend it, or say it in the tree's <ssh>", host=name) from error

    def _target(self, alias: str, user: str, port: int | None, ssh: Ssh, depth: int) -> Target:
        if depth > MAX_JUMPS:
            raise _BadConfig(f"more than {MAX_JUMPS} jumps on the way to {alias}: does one lead back to itself?")
        options = self._options(alias, user, port)
        host = _first(options, "hostname") or alias
        port = port or int(_first(options, "port") or 22)
        user = user or _first(options, "user") or _local_user()
        jumps, proxy = self._way(options, ssh.jump, depth)
        key = self._path(ssh.key) if ssh.key else ""
        if os.path.isfile(key):
            jumps = tuple(_also_offer(jump, key) for jump in jumps)
        timeout = _first(options, "connecttimeout")
        return Target(
            host=host,
            port=port,
            user=user,
            named_key=key,
            identity_files=self._identities(options),
            identities_only=_first(options, "identitiesonly") == "yes",
            agent_socket=self._agent(options),
            jumps=jumps,
            proxy_command=_expand(proxy, host, port, user, alias),
            key_name=_first(options, "hostkeyalias"),
            known_hosts=self._known_hosts(options),
            connect_timeout_s=ssh.connect_timeout_s
            or (float(timeout) if timeout.isdigit() else 0)
            or DEFAULT_TIMEOUT_S,
            sudo=bool(ssh.sudo),
        )

    def _way(self, options: Options, tree_jump: str, depth: int) -> tuple[tuple[Target, ...], str]:
        if tree_jump == "none":
            return (), ""
        jump = tree_jump or _first(options, "proxyjump")
        if jump and jump != "none":
            return self._jumps(jump, depth), ""
        proxy = " ".join(options.get("proxycommand", ())[:1])
        return (), "" if proxy == "none" else proxy

    def _jumps(self, text: str, depth: int) -> tuple[Target, ...]:
        """A chain `[user@]host[:port],…`; the way to the first may have jumps of its own, as with OpenSSH."""
        hops: list[Target] = []
        for number, hop in enumerate(text.split(",")):
            user, host, port = split_hop(hop.strip())
            target = self._target(host, user, port, Ssh(jump="" if number == 0 else "none"), depth + 1)
            hops += [*target.jumps, target]
        if len(hops) > MAX_JUMPS:
            raise _BadConfig(f"more than {MAX_JUMPS} jumps: {text}")
        return tuple(hops)

    def _identities(self, options: Options) -> tuple[str, ...]:
        given = options.get("identityfile")
        paths = [self._path(path) for path in given] if given else [str(self.home / ".ssh" / k) for k in DEFAULT_KEYS]
        return tuple(path for path in dict.fromkeys(paths) if os.path.isfile(path))

    def _agent(self, options: Options) -> str:
        given = _first(options, "identityagent")
        if given in ("", "SSH_AUTH_SOCK"):
            return self._environ.get("SSH_AUTH_SOCK", "")
        if given.startswith("$"):
            return self._environ.get(given.strip("${}"), "")
        return "" if given == "none" else self._path(given)

    def _known_hosts(self, options: Options) -> tuple[Path, ...]:
        words = [
            word for keyword in ("userknownhostsfile", "globalknownhostsfile") for word in options.get(keyword, ())
        ]
        return tuple(Path(self._path(path)) for word in words for path in word.split() if path != "none")

    def _path(self, path: str) -> str:
        path = path.strip('"')
        if path == "~" or path.startswith("~/"):
            return str(self.home) + path[1:]
        return path.replace("%d", str(self.home))

    # --- asking ---------------------------------------------------------------------------------------------

    def _options(self, alias: str, user: str, port: int | None) -> Options:
        if alias.startswith("-"):
            raise _BadConfig(f"{alias!r} is no host name")
        key = (alias, user, port)
        with self._lock:
            known = self._cache.get(key)
        if known is None:
            known = self._ask(alias, user, port)
            with self._lock:
                self._cache[key] = known
        return known

    def _ask(self, alias: str, user: str, port: int | None) -> Options:
        if self._nothing_to_ask:
            return {}
        path = self._environ.get("PATH", os.defpath)
        program = shutil.which("ssh", path=path)
        own = self.home / ".ssh" / "config"
        if program is None:
            return self._read_files(own, alias)
        argv = [program, "-G", *self._file_option(own)]
        argv += [*(["-l", user] if user else []), *(["-p", str(port)] if port else []), "--", alias]
        try:
            done = command.run(argv, env=dict(self._environ), timeout_s=10.0)
        except StepError as error:
            raise _BadConfig(f"the SSH client can't be asked for its configuration: {error}") from error
        if not done.ok:
            raise _BadConfig(f"the SSH client doesn't accept its configuration: {done.words()}")
        return _parse_options(done.stdout.decode("utf-8", "replace"))

    def _read_files(self, own: Path, alias: str) -> Options:
        found: dict[str, Sequence[str]] = {}
        for path in (own, SYSTEM_CONFIG):
            if path.is_file():
                _refuse_what_needs_ssh(path)
                found = {**self._read_file(path, alias), **found}
        return found

    def _file_option(self, own: Path) -> list[str]:
        """OpenSSH looks into the home of the password database, whatever $HOME says; so it is told the file."""
        if self.home == Path(pwd.getpwuid(os.getuid()).pw_dir):
            return []
        return ["-F", str(own if own.is_file() else SYSTEM_CONFIG if SYSTEM_CONFIG.is_file() else "none")]

    @functools.cached_property
    def _nothing_to_ask(self) -> bool:
        return all(_has_no_effect(path, path.parent) for path in (self.home / ".ssh" / "config", SYSTEM_CONFIG))


def _also_offer(jump: Target, key: str) -> Target:
    """The tree's key may be the one for the jump host too; it is offered after what is configured for that host."""
    return replace(jump, identity_files=tuple(dict.fromkeys((*jump.identity_files, key))))


class _BadConfig(ValueError):
    pass


def _has_no_effect(path: Path, base: Path, depth: int = 0) -> bool:
    """True when the file, and what it includes, holds nothing that matters here."""
    if depth > 16:
        return False
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    for line in lines:
        words = line.replace("=", " ", 1).split()
        if not words or words[0].startswith("#"):
            continue
        keyword = words[0].lower()
        if keyword not in NO_EFFECT_HERE:
            return False
        if keyword == "include" and not _includes_have_no_effect(words[1:], base, depth):
            return False
    return True


def _includes_have_no_effect(patterns: Sequence[str], base: Path, depth: int) -> bool:
    if any(pattern.startswith(("~", '"')) or "%" in pattern or "$" in pattern for pattern in patterns):
        return False
    files = [Path(file) for pattern in patterns for file in glob.glob(str(base / pattern))]
    return all(_has_no_effect(file, base, depth + 1) for file in files[:256]) and len(files) <= 256


def _refuse_what_needs_ssh(path: Path) -> None:
    """Include (the system's own file is Debian's to include from) and Match exec: paramiko's reader knows neither."""
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
        words = line.replace("=", " ", 1).lower().split()
        what = ""
        if words[:1] == ["include"] and path != SYSTEM_CONFIG:
            what = "Include can't be followed"
        elif words[:1] == ["match"] and {"exec", "!exec"} & set(words):
            what = "Match exec can't be asked"
        if what:
            raise _BadConfig(f"{path}:{number}: {what} without the OpenSSH client; install it")


def _parse_options(text: str) -> Options:
    options: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _, value = line.partition(" ")
        options.setdefault(keyword.lower(), []).append(value.strip())
    return options


def _first(options: Options, keyword: str) -> str:
    values = options.get(keyword, ())
    return values[0] if values else ""


def split_hop(text: str) -> tuple[str, str, int | None]:
    """User ("" for none), host and port of `[user@]host[:port]`; an IPv6 address with a port stands in brackets."""
    user, _, rest = text.removeprefix("ssh://").rpartition("@")
    if rest.startswith("["):
        host, _, tail = rest[1:].partition("]")
        port = tail.removeprefix(":")
    elif rest.count(":") > 1:
        host, port = rest, ""
    else:
        host, _, port = rest.partition(":")
    if not host or (port and not port.isdigit()):
        raise _BadConfig(f"{text!r} is no jump host; it is written user@host:port")
    return user, host, int(port) if port else None


def _expand(line: str, host: str, port: int, user: str, alias: str) -> str:
    values = {"%%": "%", "%h": host, "%p": str(port), "%r": user, "%n": alias}
    return re.sub("%[%hprn]", lambda found: values[found.group()], line)


def _local_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "root"
