"""One call of the Engine API: sent, answered, or explained. Knows connections, versions and errors, no endpoint."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from k4t.errors import ConnectionLost, DockerHangs, DockerUnavailable, EngineRefused, HostFull, K4tError
from k4t.model.value import value
from k4t.node.http import Broken, Garbled, Pool, Reply, TooSlow, Wire, read_reply, send_request
from k4t.remote.transport import Transport

API_VERSION = "1.41"
MAX_CONNECTIONS = 6
"""In use at once. Where sudo is needed each is a session, and sshd allows 10 of them on a connection."""
MAX_BODY_BYTES = 64 * 1024 * 1024


@value
class Request:
    """`path` without the version. `repeatable`: sending it twice does no harm, should a reply go missing."""

    method: str
    path: str
    body: Mapping[str, object] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 30.0
    repeatable: bool = True


class Caller:
    """Calls to one Engine over a pool of connections; safe for many threads.

    Raises DockerUnavailable (no answer, too old), ConnectionLost (the reply went missing: in doubt), HostFull and
    EngineRefused (what the Engine says, with its HTTP status).
    """

    def __init__(self, transport: Transport) -> None:
        self.pool = Pool(transport.connect_docker, MAX_CONNECTIONS)
        self.version = API_VERSION
        self._transport = transport

    def call(self, request: Request) -> Any:
        """The answer's JSON, or None where there is none."""
        return self.begin(request)()

    def begin(self, request: Request) -> Callable[[], Any]:
        """Send now; what is returned reads the answer, and must be called, once."""
        deadline = time.monotonic() + request.timeout_s
        wire = self._send(request, deadline)
        return lambda: self._answer(request, deadline, wire)

    def _answer(self, request: Request, deadline: float, wire: Wire) -> Any:
        reply = self._read(request, deadline, wire)
        if reply.status == 400 and self._adopt_version(reply):
            reply = self._read(request, deadline, self._send(request, deadline))
        if reply.status >= 400:
            raise self.refusal(reply.status, _message(reply))
        try:
            return json.loads(reply.body) if reply.body else None
        except ValueError as error:
            raise EngineRefused("Docker's answer is not JSON", host=self._transport.host) from error

    def _send(self, request: Request, deadline: float, *, fresh: bool = False) -> Wire:
        wire = self.pool.take(deadline, fresh=fresh)
        body = None if request.body is None else json.dumps(request.body).encode()
        headers = {"Host": "docker", "User-Agent": "k4t", **request.headers}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            send_request(wire, request.method, f"/v{self.version}{request.path}", headers, body)
        except BaseException as error:
            self.pool.give(wire, reusable=False)
            if isinstance(error, Broken) and wire.used:  # an idle connection was dead; nothing was sent whole
                return self._send(request, deadline, fresh=True)
            raise self._explained(error, request) from error
        return wire

    def _read(self, request: Request, deadline: float, wire: Wire) -> Reply:
        reusable = False
        try:
            reply = read_reply(wire, request.method, max_body_bytes=MAX_BODY_BYTES)
            reusable = reply.reusable
        except Exception as error:
            if not (isinstance(error, Broken) and error.silent and wire.used and request.repeatable):
                raise self._explained(error, request) from error
        else:
            return reply
        finally:
            self.pool.give(wire, reusable=reusable)
        return self._read(request, deadline, self._send(request, deadline, fresh=True))

    def _adopt_version(self, reply: Reply) -> bool:
        """Whether to ask again, at a version that both speak. Raises DockerUnavailable when there is none."""
        message = _message(reply)
        theirs = reply.headers.get("api-version", "")
        if "too new" in message or _number(theirs, API_VERSION) < _number(API_VERSION):
            raise DockerUnavailable(
                f"its Docker Engine speaks API {theirs or '(unknown)'}, k4t needs {API_VERSION} or newer",
                "upgrade Docker on the host to 20.10 or newer",
                host=self._transport.host,
            )
        least = re.search(r"[Mm]inimum supported API version is (\d+\.\d+)", message)
        if "too old" not in message or least is None or least[1] == self.version:
            return False
        self.version = least[1]
        return True

    # --- errors --------------------------------------------------------------------------------------------

    def _explained(self, error: BaseException, request: Request) -> BaseException:
        if isinstance(error, Broken):
            return self.broken()
        if isinstance(error, TooSlow):
            return self.silent(request.timeout_s)
        if isinstance(error, Garbled):
            return DockerUnavailable(f"what answers at Docker's socket is odd: {error}", host=self._transport.host)
        return error

    def refusal(self, status: int, message: str) -> K4tError:
        host = self._transport.host
        return full(message, host) or EngineRefused(f"Docker says: {message}", host=host, status=status)

    def silent(self, timeout_s: float) -> DockerHangs:
        return DockerHangs(
            f"Docker takes connections and does not answer within {timeout_s:g} s: its daemon hangs",
            "look at it on the host (journalctl -u docker), then systemctl restart docker",
            host=self._transport.host,
        )

    def broken(self) -> ConnectionLost:
        if not self._transport.alive:
            return ConnectionLost("the SSH connection ended before Docker answered", host=self._transport.host)
        return ConnectionLost(
            "Docker closed the connection before it answered: its daemon has stopped or was restarted",
            "look at it on the host: systemctl status docker",
            host=self._transport.host,
        )


def full(message: str, host: str) -> HostFull | None:
    """The Engine has only words for a full disk, so they are looked at, here and nowhere else."""
    if "no space left on device" not in message:
        return None
    remedy = "free some: docker system df, docker image prune"
    return HostFull(f"no space left for Docker ({message})", remedy, host=host)


def _message(reply: Reply) -> str:
    try:
        return str(json.loads(reply.body)["message"]).strip()
    except (ValueError, KeyError, TypeError):
        return reply.body[:500].decode("utf-8", "replace").strip() or f"HTTP status {reply.status}"


def _number(version: str, default: str = "") -> tuple[int, ...]:
    return tuple(int(part) for part in (version or default).split(".") if part.isdigit())
