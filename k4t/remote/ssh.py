"""One SSH connection a host, for everything. The only user of paramiko, which is imported at the first dial.

The way in: where is it (`ssh_config`) → through which jumps → dial → key exchange → is it the host we know
(`known_hosts`; nothing is sent before) → log in. What then goes over it is `connection`'s.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import random
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from k4t import __version__, command
from k4t.errors import ConnectionLost, HostUnreachable, LoginRefused, StepError
from k4t.model.hosts import Ssh
from k4t.remote import channels, dial, login
from k4t.remote.channels import ParamikoSession
from k4t.remote.connection import SshTransport
from k4t.remote.known_hosts import HostKey, KnownHosts, lookup_name
from k4t.remote.process import ChannelRefused
from k4t.remote.ssh_config import Options, Resolver, Target

if TYPE_CHECKING:
    import paramiko

MAX_STARTS = 5
BANNER_S = 8.0
KEY_EXCHANGE_S = 15.0
LOGIN_S = 15.0
WINDOW_BYTES = 1024 * 1024
"""What a host may have in flight to us, in one channel: a heartbeat's echo waits behind it."""


# paramiko imports `invoke` for the `Match exec` of its own configuration reader, and with it asyncio and a YAML parser:
# 50 ms of each run. It copes without; `ssh_config` refuses Match exec by name before it comes to that.
sys.modules.setdefault("invoke", None)  # type: ignore[arg-type]


class _Metadata(ModuleType):
    """Stands in for importlib.metadata until somebody wants more of it than paramiko, which asks for its own version
    alone (it goes into the banner): the real one imports email, csv and zipfile, 25 ms of each run."""

    def version(self, name: str) -> str:
        return f"k4t{__version__}" if name == "paramiko" else str(self.__getattr__("version")(name))

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


sys.modules.setdefault("importlib.metadata", _Metadata("importlib.metadata"))

RSA = ("rsa-sha2-512", "rsa-sha2-256")
SCANNED_TYPES = (("ssh-ed25519",), ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"), RSA)


class Connector:
    """Opens connections for one run. Safe for many threads; jump hosts are shared.

    `known_hosts` are asked in order (db/known_hosts first), then those that ~/.ssh/config names; or, in their place,
    `trusted` alone. `max_logins` bounds the logins under way at once, `dial_s` the time for a host to take a TCP
    connection (the rest of the connect time-out is for what it says then), `run_id` marks every command (see
    `k4t.remote.lock`). `environ` gives HOME, SSH_AUTH_SOCK and PATH.
    """

    def __init__(
        self,
        known_hosts: Sequence[Path],
        *,
        run_id: str,
        max_logins: int = 16,
        dial_s: float = math.inf,
        environ: Mapping[str, str] | None = None,
        trusted: KnownHosts | None = None,
    ) -> None:
        self.run_id = run_id
        self._trusted = trusted
        self._dial_s = dial_s
        self._files = tuple(known_hosts)
        self._environ = dict(os.environ if environ is None else environ)
        self._resolver = Resolver(self._environ, _read_config)
        self._logins = threading.BoundedSemaphore(max_logins)
        self._lock = threading.Lock()
        self._known: dict[tuple[Path, ...], KnownHosts] = {}
        self._jumps: dict[tuple[Target, ...], tuple[threading.Lock, list[ParamikoSession]]] = {}

    def connect(self, name: str, ssh: Ssh, address: str) -> SshTransport:
        """A connection to the host that the tree calls `name`; `ssh` is already merged with the cluster's.

        Raises HostUnreachable, HostKeyUnknown, HostKeyChanged or LoginRefused.
        """
        target = self._resolver.resolve(name, ssh, address)
        session = self._session(name, target)
        return SshTransport(session, host=name, user=target.user, sudo=target.sudo, run_id=self.run_id)

    def scan(self, name: str, ssh: Ssh, address: str) -> tuple[str, tuple[HostKey, ...]]:
        """The name under which the host's keys are kept, and the keys it presents, for `k4t trust`. Trusts nothing.

        Where a jump host on the way isn't known yet, it is that one's: enrol it and ask again.
        Raises HostUnreachable, and what else a known jump host may raise.
        """
        target = self._unknown_jump(self._resolver.resolve(name, ssh, address))
        keys = []
        for types in SCANNED_TYPES:
            with contextlib.suppress(_NoCommonKeyType), self._start(name, target, types) as transport:
                keys.append(_host_key(transport))
        return _key_name(target), tuple(keys)

    def way(self, name: str, ssh: Ssh, address: str) -> tuple[tuple[Target, tuple[HostKey, ...]], ...]:
        """Where a connection to this host would go, jump hosts first, and the keys by which each is known. Connects to
        nobody. Raises HostUnreachable for a configuration that can't be read."""
        target = self._resolver.resolve(name, ssh, address)
        hops = (*target.jumps, target)
        return tuple(
            (hop, tuple(entry.key for entry in self._known_hosts(hop).known(_key_name(hop)))) for hop in hops
        )  # fmt: skip

    def close(self) -> None:
        """Ends the connections to jump hosts; those to hosts are their owners'."""
        with self._lock:
            jumps, self._jumps = self._jumps, {}
        for _, sessions in jumps.values():
            for session in sessions:
                session.end()

    def _unknown_jump(self, target: Target) -> Target:
        for number, jump in enumerate(target.jumps):
            if not self._known_hosts(jump).known(_key_name(jump)):
                return replace(jump, jumps=target.jumps[:number])
        return target

    # --- one connection -----------------------------------------------------------------------------------------

    def _session(self, name: str, target: Target) -> ParamikoSession:
        known = self._known_hosts(target)
        key_name = _key_name(target)
        types = tuple(dict.fromkeys(entry.key.type for entry in known.known(key_name)))
        with self._start(name, target, types) as transport:
            known.check(name, key_name, _host_key(transport))
            transport.set_keepalive(dial.KEEPALIVE_S)
            _log_in(transport, name, target)
            return _opened(transport, name)

    @contextlib.contextmanager
    def _start(self, name: str, target: Target, key_types: Sequence[str]) -> Iterator[paramiko.Transport]:
        """A transport after key exchange: nothing is checked, nothing sent. Ended if what follows raises.

        sshd drops logins above MaxStartups before its banner; those are tried again, a few times, ever later.
        """
        for attempt in range(1, MAX_STARTS + 1):
            sock = self._dial(name, target, self._jump(name, target.jumps))  # who is silent keeps no login waiting
            with self._logins:
                try:
                    transport = _handshake(name, target, sock, key_types)
                except dial.StartRefused as refused:
                    if attempt == MAX_STARTS:
                        raise dial.start_refused(name, f"{target.host}:{target.port}", MAX_STARTS) from refused
                else:
                    try:
                        yield transport
                    except BaseException:
                        channels.end(transport)
                        raise
                    if not transport.is_authenticated():
                        channels.end(transport)
                    return
            time.sleep(0.15 * 2**attempt * random.uniform(0.5, 1.5))  # noqa: S311 — spreads, protects nothing

    def _dial(self, name: str, target: Target, via: ParamikoSession | None) -> Any:
        if via is not None:
            return _dial_through(name, target, via)
        if target.proxy_command:
            return _dial_proxy(name, target.proxy_command, self._environ)
        return dial.dial(name, target.host, target.port, min(target.connect_timeout_s, self._dial_s))

    def _jump(self, name: str, jumps: tuple[Target, ...]) -> ParamikoSession | None:
        """The session to the last of the jump hosts, opened once and shared by all who go that way."""
        if not jumps:
            return None
        with self._lock:
            lock, sessions = self._jumps.setdefault(jumps, (threading.Lock(), []))
        with lock:
            if not sessions or not sessions[-1].alive:
                last = jumps[-1]
                place = f"{name} (jump host {last.host})"
                sessions.append(self._session(place, replace(last, jumps=jumps[:-1])))
            return sessions[-1]

    def _known_hosts(self, target: Target) -> KnownHosts:
        if self._trusted is not None:
            return self._trusted
        files = tuple(dict.fromkeys((*self._files, *target.known_hosts)))
        with self._lock:
            if files not in self._known:
                self._known[files] = KnownHosts(files)
            return self._known[files]


# --- starting ---------------------------------------------------------------------------------------------------


class _NoCommonKeyType(HostUnreachable):
    pass


def _opened(transport: paramiko.Transport, name: str) -> ParamikoSession:
    import paramiko

    return ParamikoSession(paramiko, transport, name)


def _handshake(name: str, target: Target, sock: Any, key_types: Sequence[str]) -> paramiko.Transport:
    """Banner and key exchange, bounded. Raises HostUnreachable or dial.StartRefused."""
    import paramiko

    _quiet()
    place = f"{target.host}:{target.port}"
    transport = paramiko.Transport(sock, default_window_size=WINDOW_BYTES, disabled_algorithms=_weak())
    transport.banner_timeout = min(BANNER_S, target.connect_timeout_s)
    _prefer(transport, key_types)
    try:
        transport.start_client(timeout=transport.banner_timeout + KEY_EXCHANGE_S)
    except paramiko.ssh_exception.IncompatiblePeer as error:
        channels.end(transport)
        raise _NoCommonKeyType(
            f"{place} and k4t share no safe algorithm: {error}", "update sshd there", host=name
        ) from error
    except (paramiko.SSHException, EOFError, OSError) as error:
        channels.end(transport)
        raise dial.no_start(name, place, error, transport.remote_version, transport.banner_timeout) from error
    if not transport.initial_kex_done:
        channels.end(transport)
        raise HostUnreachable(f"{place} does not finish the key exchange in {KEY_EXCHANGE_S:g} s", host=name)
    return transport


def _weak() -> dict[str, list[str]]:
    """What paramiko would still offer and nobody should take: CBC, 3DES, and all that rests on SHA-1 or MD5."""
    import paramiko

    offered: Any = paramiko.Transport
    return {
        "ciphers": [name for name in offered._preferred_ciphers if "cbc" in name or "arcfour" in name],  # noqa: SLF001
        "macs": [name for name in offered._preferred_macs if "sha1" in name or "md5" in name],  # noqa: SLF001
        "kex": [name for name in offered._preferred_kex if name.endswith(("sha1", "group1-sha256"))],  # noqa: SLF001
        "keys": ["ssh-rsa", "ssh-dss", "ssh-rsa-cert-v01@openssh.com"],
        "pubkeys": ["ssh-rsa", "ssh-dss", "ssh-rsa-cert-v01@openssh.com"],
    }


def _prefer(transport: paramiko.Transport, key_types: Sequence[str]) -> None:
    """Ask for the types known for that host first, so that a host known by one key isn't met by another."""
    options = transport.get_security_options()
    wanted = [name for known in key_types for name in (RSA if known == "ssh-rsa" else (known,))]
    offered = [name for name in options.key_types if name not in ("ssh-rsa", "ssh-dss")]
    scanning = tuple(key_types) in SCANNED_TYPES
    first = [name for name in wanted if name in offered]
    if first:
        options.key_types = first if scanning else first + [name for name in offered if name not in first]
    fast = [name for name in ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com") if name in options.ciphers]
    options.ciphers = fast + [name for name in options.ciphers if name not in fast]


def _host_key(transport: paramiko.Transport) -> HostKey:
    key = transport.get_remote_server_key()
    return HostKey(key.get_name(), key.asbytes())


def _key_name(target: Target) -> str:
    return target.key_name or lookup_name(target.host, target.port)


def _log_in(transport: paramiko.Transport, name: str, target: Target) -> None:
    """Offer the keys, each once. Raises LoginRefused naming user, host and keys; HostUnreachable when it goes away."""
    import paramiko

    transport.auth_timeout = LOGIN_S
    who = f"{target.user} at {target.host}:{target.port}"
    tried: list[str] = []
    with _keyring() as keyring:
        for offer in login.offers(name, target, keyring):
            tried.append(offer.words)
            try:
                more = transport.auth_publickey(target.user, offer.key)
            except paramiko.AuthenticationException as error:
                if "timeout" in str(error).lower():
                    raise HostUnreachable(f"the login of {who} is not answered in {LOGIN_S:g} s", host=name) from error
                if isinstance(error, paramiko.BadAuthenticationType) or not transport.is_active():
                    break
            except (paramiko.SSHException, OSError, EOFError) as error:
                raise HostUnreachable(f"the connection ended during the login of {who}: {error}", host=name) from error
            else:
                if not more:
                    return
                break
    raise LoginRefused(
        f"the login of {who} is refused, with {', '.join(tried)}",
        f"put the public key into ~{target.user}/.ssh/authorized_keys there, or mend user= and key= in <ssh>",
        host=name,
    )


@contextlib.contextmanager
def _keyring() -> Iterator[login.Keyring]:
    """Loads files and asks the agent, over a connection of this login alone (an agent's answers carry no number)."""
    import paramiko
    from paramiko.agent import AgentSSH

    agents: list[Any] = []

    def ask(path: str) -> list[tuple[str, bytes, Any]]:
        if not path:
            return []
        agent: Any = AgentSSH()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        agents.append(sock)
        sock.settimeout(LOGIN_S)
        try:
            sock.connect(path)
            agent._connect(sock)  # noqa: SLF001
        except (OSError, paramiko.SSHException):
            return []
        return [(key.comment or key.get_name(), key.asbytes(), key) for key in agent.get_keys()]

    try:
        yield login.Keyring(_load_key, ask)
    finally:
        for sock in agents:
            sock.close()


def _load_key(path: str) -> paramiko.PKey:
    import paramiko

    try:
        return paramiko.PKey.from_path(path)
    except paramiko.PasswordRequiredException as error:
        raise login.KeyEncrypted(path) from error
    except TypeError as error:  # cryptography's word for: it is encrypted, and no password was given
        raise login.KeyEncrypted(path) from error
    except OSError:
        raise
    except Exception as error:
        if "password" in str(error).lower() or "encrypted" in str(error).lower():
            raise login.KeyEncrypted(path) from error
        raise login.KeyUnreadable(str(error) or type(error).__name__) from error


def _dial_proxy(name: str, line: str, environ: Mapping[str, str]) -> socket.socket:
    """The line is a shell's, as with OpenSSH; it is the user's own. The program ends with its socket."""
    try:
        sock, process = command.connect(["sh", "-c", f"exec {line}"], env=environ)
    except StepError as error:
        raise HostUnreachable(f"ProxyCommand {line!r}: {error}", host=name) from error
    threading.Thread(target=process.wait, daemon=True, name=f"proxy {name}").start()
    return sock


def _dial_through(name: str, target: Target, via: ParamikoSession) -> Any:
    place = f"{target.host}:{target.port}"
    try:
        return via.open("direct-tcpip", target.host, target.port, "127.0.0.1", 0, timeout_s=target.connect_timeout_s)
    except StepError as error:
        raise dial.unreachable(name, place, TimeoutError(), target.connect_timeout_s, by=via.host) from error
    except ConnectionLost as error:
        raise HostUnreachable(f"the connection to the jump host was lost: {error}", host=name) from error
    except ChannelRefused as error:
        if error.code == 1:
            raise HostUnreachable(
                f"{via.host} forwards no connection to {place}", "allow it there: AllowTcpForwarding yes", host=name
            ) from error
        raise HostUnreachable(
            f"{place} can't be reached from {via.host}: {error.words}", "is it up, and sshd on that port?", host=name
        ) from error


def _quiet() -> None:
    """paramiko logs what it also raises; without a handler that would land on standard error."""
    import logging

    logger = logging.getLogger("paramiko")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
        logger.propagate = False


def _read_config(path: Path, host: str) -> Options:
    import paramiko

    found: dict[str, Any] = dict(paramiko.SSHConfig.from_path(str(path)).lookup(host))
    return {key: value if isinstance(value, list) else [str(value)] for key, value in found.items()}
