"""The real Transport: commands, files and streams over one SSH session. Knows no SSH library: `Session` is its door."""

from __future__ import annotations

import posixpath
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from k4t import command
from k4t.command import Completed
from k4t.errors import ConnectionLost, DockerUnavailable, HostFull, StepError, SudoRefused
from k4t.remote.process import CHANNEL_TIMEOUT_S, ChannelRefused, Session, SshProcess
from k4t.remote.stream import ChannelStream

MAX_COMMANDS = 8
"""Commands at once on one connection; sshd's MaxSessions is 10 by default, the rest is for a person."""

OPEN_TRIES = 10

RUN_MARK = "K4T_RUN"
"""In the environment of every command, so that the lock's holder finds all that this run started."""

DOCKER_SOCKET = "/var/run/docker.sock"
NOT_THERE = 44

PUT_SCRIPT = """\
LC_ALL=C; export LC_ALL; set -e; d=$2; t=$d/.k4t-tmp-$$
trap 'rm -f -- "$t"' EXIT; trap 'exit 1' HUP INT PIPE TERM
[ -d "$d" ] || mkdir -p -- "$d"
if [ -d "$1" ]; then echo "$1 is a directory" >&2; exit 1; fi
umask 077; cat >"$t"
if [ "$(wc -c <"$t")" -ne "$4" ]; then echo "only a part of it came" >&2; exit 1; fi
chmod "$3" "$t"; sync "$t" 2>/dev/null || sync
mv -f -- "$t" "$1"; trap - EXIT
sync "$d" 2>/dev/null || sync
"""

GET_SCRIPT = f'[ -e "$1" ] || exit {NOT_THERE}; exec cat -- "$1"'

DOCKER_SCRIPT = f"""\
s={DOCKER_SOCKET}
if [ -S "$s" ]; then if [ -r "$s" ] && [ -w "$s" ]; then echo there; else echo denied; fi
elif command -v dockerd >/dev/null || [ -x /usr/sbin/dockerd ] || [ -x /usr/bin/dockerd ]; then echo stopped
else echo missing; fi
"""


class SshTransport:
    """Implements `k4t.remote.transport.Transport`."""

    def __init__(self, session: Session, *, host: str, user: str, sudo: bool, run_id: str) -> None:
        self.host = host
        self.user = user
        self.sudo = sudo
        self.run_id = run_id
        self._session = session
        self._dials_docker = False
        self._commands = threading.BoundedSemaphore(MAX_COMMANDS)

    @property
    def alive(self) -> bool:
        return self._session.alive

    def close(self) -> None:
        self._session.end()

    def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes = b"",
        timeout_s: float = 30.0,
        max_output_bytes: int = 4 * 1024 * 1024,
        bare: bool = False,
    ) -> Completed:
        deadline = time.monotonic() + timeout_s
        process = self._start(argv, deadline, bare=bare)
        try:
            process.feed(input)
            done = process.collect(deadline, max_output_bytes, timeout_s)
        finally:
            process.close()
        self._judge_sudo(done)
        return done

    def start(self, argv: Sequence[str]) -> SshProcess:
        return self._start(argv, time.monotonic() + CHANNEL_TIMEOUT_S)

    def put(self, path: str, data: bytes, mode: int = 0o644) -> None:
        directory = posixpath.dirname(path) or "."
        argv = ["sh", "-c", PUT_SCRIPT, "k4t-put", path, directory, f"{mode:o}", str(len(data))]
        done = self.run(argv, input=data, timeout_s=60.0 + len(data) / 100_000)
        if done.exit_status is None:
            raise ConnectionLost(f"the connection was lost while {path} was written: in doubt", host=self.host)
        if done.ok:
            return
        if b"No space left" in done.stderr or b"quota exceeded" in done.stderr:
            raise HostFull(f"no space left to write {path} ({len(data)} bytes)", "make room there", host=self.host)
        raise StepError(f"can't write {path}: {done.words()}", host=self.host)

    def get(self, path: str, *, max_bytes: int = 4 * 1024 * 1024) -> bytes | None:
        done = self.run(["sh", "-c", GET_SCRIPT, "k4t-get", path], timeout_s=60.0, max_output_bytes=max_bytes)
        if done.exit_status is None:
            raise ConnectionLost(f"the connection was lost while {path} was read", host=self.host)
        if done.exit_status == NOT_THERE:
            return None
        if not done.ok:
            raise StepError(f"can't read {path}: {done.words()}", host=self.host)
        return done.stdout

    def connect_tcp(self, address: str, port: int, timeout_s: float) -> ChannelStream:
        place = f"{address}:{port}"
        try:
            channel = self._session.open("direct-tcpip", address, port, "127.0.0.1", 0, timeout_s=timeout_s)
        except ChannelRefused as error:
            if error.code == 1:
                raise StepError(
                    f"sshd forwards no connection to {place}", "allow it: AllowTcpForwarding yes", host=self.host
                ) from error
            raise StepError(f"no connection to {place}: {error.words}", host=self.host) from error
        channel.settimeout(timeout_s)
        return ChannelStream(channel)

    def connect_docker(self) -> ChannelStream:
        if not self.sudo and not self._dials_docker:
            try:
                kind = "direct-streamlocal@openssh.com"
                return ChannelStream(self._session.open(kind, DOCKER_SOCKET, "", 0, timeout_s=CHANNEL_TIMEOUT_S))
            except ChannelRefused:
                pass  # sshd doesn't say whether it may not, or there is nobody
        if not self._dials_docker:
            self._check_docker()
            self._dials_docker = True
        return self._dial_docker()

    # --- the Engine where its socket can't be had directly -----------------------------------------------------

    def _check_docker(self) -> None:
        """Raises DockerUnavailable with the reason, unless a command can reach an Engine that answers."""
        done = self.run(["sh", "-c", DOCKER_SCRIPT], timeout_s=CHANNEL_TIMEOUT_S)
        verdict = done.stdout.strip().decode("ascii", "replace")
        if verdict != "there":
            raise self._no_docker(verdict, done.words())
        stream = self._dial_docker()
        stream.settimeout(CHANNEL_TIMEOUT_S)
        try:
            stream.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            stream.recv(1)
        except TimeoutError as error:
            raise DockerUnavailable(
                f"the Engine does not answer within {CHANNEL_TIMEOUT_S:g} s",
                "restart it: systemctl restart docker",
                host=self.host,
            ) from error
        except OSError as error:
            raise ConnectionLost("the connection ended while Docker was asked", host=self.host) from error
        finally:
            stream.close()

    def _dial_docker(self) -> ChannelStream:
        process = self._start(["docker", "system", "dial-stdio"], time.monotonic() + CHANNEL_TIMEOUT_S)

        def explain() -> None:
            words = process.wait(2.0).words()
            raise self._no_docker(_docker_verdict(words), words)

        return ChannelStream(process.channel, on_close=process.close, verdict=explain)

    def _no_docker(self, verdict: str, words: str) -> DockerUnavailable:
        what, remedy = {
            "missing": ("Docker is not installed", "install Docker Engine (API 1.41 or newer) there"),
            "stopped": ("Docker is installed, but not running", "start it there: systemctl start docker"),
            "denied": (
                f"{self.user} may not use Docker's socket {DOCKER_SOCKET}",
                f'add {self.user} to the docker group there, or set <ssh sudo="true"/>',
            ),
            "client": (
                "the Engine's socket can't be forwarded by sshd, and there is no docker command to reach it",
                "set AllowStreamLocalForwarding yes there, or install the docker command",
            ),
        }.get(verdict, (f"the Engine can't be reached: {words}", ""))
        return DockerUnavailable(what, remedy, host=self.host)

    # --- commands ---------------------------------------------------------------------------------------------

    def _start(self, argv: Sequence[str], deadline: float, *, bare: bool = False) -> SshProcess:
        marked = ["env", f"{RUN_MARK}={self.run_id}", *argv]
        line = command.quote(argv if bare else ["sudo", "-n", "--", *marked] if self.sudo else marked)
        with self._slot(deadline):
            channel = self._open_session(deadline)
            try:
                self._session.execute(channel, line)
            except BaseException:
                channel.close()
                raise
            return SshProcess(
                self._session,
                channel,
                host=self.host,
                program=argv[0],
                release=self._commands.release,
                judge=self._judge_sudo,
            )

    @contextmanager
    def _slot(self, deadline: float) -> Iterator[None]:
        """Holds one of the few command channels; kept by the process when all goes well."""
        if not self._commands.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise StepError(f"{MAX_COMMANDS} commands are under way there, and none ended in time", host=self.host)
        try:
            yield
        except BaseException:
            self._commands.release()
            raise

    def _open_session(self, deadline: float) -> Any:
        """sshd counts a session until it has cleaned up, a little longer than we do; so a refusal is asked again."""
        for attempt in range(1, OPEN_TRIES + 1):
            try:
                timeout_s = min(CHANNEL_TIMEOUT_S, max(0.1, deadline - time.monotonic()))
                return self._session.open("session", timeout_s=timeout_s)
            except ChannelRefused as error:
                if attempt == OPEN_TRIES or time.monotonic() > deadline:
                    raise StepError(
                        f"sshd opens no session: {error.words}", "is MaxSessions at least 10 there?", host=self.host
                    ) from error
            time.sleep(0.01 * attempt)
        raise AssertionError  # the last attempt returns or raises

    def _judge_sudo(self, done: Completed) -> None:
        if not self.sudo or done.exit_status not in (1, 127):
            return
        said = done.stderr.decode("utf-8", "replace")
        if not ("sudo: " in said[:80] or "not allowed to execute" in said or "not in the sudoers" in said):
            return
        if done.exit_status == 127 and "sudo: " not in said.split("not found")[0]:
            return
        raise SudoRefused(
            f"sudo refuses {self.user}: {done.words()}",
            f"allow it without a password: echo '{self.user} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/k4t",
            host=self.host,
        )


def _docker_verdict(words: str) -> str:
    """What the docker command's last line means."""
    if "No such file or directory" in words or "not found" in words:
        return "client"
    if "permission denied" in words:
        return "denied"
    return "stopped" if "Cannot connect" in words or "connection refused" in words else "other"
