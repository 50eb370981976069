"""The Docker Engine of one node, spoken to over our own SSH connection. The only user of the Docker SDK.

The small, frequent calls (list, inspect, create, start, stop …) are made by k4t.node.call: importing the SDK takes
170 ms and each call through it 1 to 2 ms of CPU, where a first deploy of forty containers has 0.3 s to spare.
What streams (pull, load, logs) goes through the SDK, imported when first needed. Both dial through one pool.

Engine API: https://docs.docker.com/reference/api/engine/version/v1.41/
"""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from k4t.errors import EngineRefused, K4tError
from k4t.node.allocator import Allocator
from k4t.node.call import Caller, Request
from k4t.node.flow import Flow
from k4t.node.http import FileLike, Pool, Wire
from k4t.remote.transport import Transport

if TYPE_CHECKING:
    from docker.api.client import APIClient

Json = dict[str, Any]
Auth = Mapping[str, str]
"""`username`, `password` and, where it matters, `serveraddress`."""

LISTING_TIMEOUT_S = 10.0
SLOW_TIMEOUT_S = 120.0
"""Calls that do work on the host: create, start, remove."""
STREAM_SILENCE_S = 120.0
"""How long a pull or load may say nothing."""
MAX_TAIL_BYTES = 16 * 1024


class Engine:
    """The Engine behind one transport; safe for many threads. Raises what k4t.node.call.Caller raises."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.allocator = Allocator()
        self._caller = Caller(transport)

    @property
    def host(self) -> str:
        return self.transport.host

    def connect_ahead(self) -> None:
        """Have a connection ready. sshd opens the first one of a login after 50 ms, the others at once."""
        pool = self._caller.pool
        pool.give(pool.take(time.monotonic() + LISTING_TIMEOUT_S), reusable=True)

    def close(self) -> None:
        self.allocator.close()
        self._caller.pool.close()

    def version(self) -> tuple[str, str]:
        """The Engine's version and the newest API it speaks."""
        answer: Json = self._caller.call(Request("GET", "/version", timeout_s=LISTING_TIMEOUT_S))
        return str(answer["Version"]), str(answer["ApiVersion"])

    def ping(self, timeout_s: float) -> None:
        """Whether it answers at all."""
        self._caller.call(Request("HEAD", "/_ping", timeout_s=timeout_s))

    def call(self, request: Request) -> Any:
        """A call that has no name here: the answer's JSON."""
        return self._caller.call(request)

    def flow(self, request: Request, *, upgrade: bool = False) -> Flow:
        """A reply that is read while it comes, on a connection of its own. `upgrade`: both ways, as exec wants it."""
        return Flow(self._caller, self.transport, request, upgrade=upgrade)

    # --- containers ----------------------------------------------------------------------------------------

    def list_containers(self) -> list[Json]:
        """All of them, running or not, whoever's."""
        return self.begin_listing()()

    def begin_listing(self, timeout_s: float = LISTING_TIMEOUT_S) -> Callable[[], list[Json]]:
        """Ask for the listing now; what is returned reads it, and must be called."""
        return self._caller.begin(Request("GET", "/containers/json?all=1", timeout_s=timeout_s))

    def inspect(self, container: str) -> Json | None:
        """By full id or exact name; None when there is none."""
        return self._found(f"/containers/{_word(container)}/json")

    def create(self, name: str, body: Mapping[str, object]) -> str:
        """The new container's id. Never sent twice: when the reply is lost (ConnectionLost) it is in doubt."""
        path = f"/containers/create?{urlencode({'name': name})}"
        answer: Json = self._caller.call(Request("POST", path, body, timeout_s=SLOW_TIMEOUT_S, repeatable=False))
        return str(answer["Id"])

    def start(self, container: str) -> None:
        self._caller.call(Request("POST", f"/containers/{_word(container)}/start", timeout_s=SLOW_TIMEOUT_S))

    def stop(self, container: str, grace_s: float) -> None:
        path = f"/containers/{_word(container)}/stop?t={max(0, round(grace_s))}"
        self._caller.call(Request("POST", path, timeout_s=grace_s + SLOW_TIMEOUT_S))

    def restart(self, container: str, grace_s: float) -> None:
        path = f"/containers/{_word(container)}/restart?t={max(0, round(grace_s))}"
        self._caller.call(Request("POST", path, timeout_s=grace_s + SLOW_TIMEOUT_S))

    def kill(self, container: str, signal: str) -> None:
        """Send it a signal; it is not waited for."""
        self._caller.call(Request("POST", f"/containers/{_word(container)}/kill?{urlencode({'signal': signal})}"))

    def remove(self, container: str) -> None:
        """With its anonymous volumes; named ones stay."""
        self._caller.call(Request("DELETE", f"/containers/{_word(container)}?v=1", timeout_s=SLOW_TIMEOUT_S))

    def update(self, container: str, body: Mapping[str, object]) -> None:
        self._caller.call(Request("POST", f"/containers/{_word(container)}/update", body))

    def tail(self, container: str, lines: int) -> list[str]:
        """The last lines of its log, both streams."""
        with self._sdk(timeout_s=10.0) as api:
            text: bytes = api.logs(container, stdout=True, stderr=True, tail=lines)
        return text[-MAX_TAIL_BYTES:].decode("utf-8", "replace").splitlines()[-lines:]

    # --- images, volumes -----------------------------------------------------------------------------------

    def image(self, name: str) -> Json | None:
        """By id, reference or repository@digest; None when the host has none."""
        return self._found(f"/images/{_word(name)}/json")

    def tag(self, image: str, repository: str, tag: str) -> None:
        query = urlencode({"repo": repository, "tag": tag})
        self._caller.call(Request("POST", f"/images/{_word(image)}/tag?{query}"))

    def distribution(self, reference: str, auth: Auth | None, timeout_s: float) -> Json:
        """What the registry says of a reference: {"Descriptor": {"digest"}, "Platforms": […]}."""
        headers = {"X-Registry-Auth": _auth_header(auth)} if auth else {}
        path = f"/distribution/{_word(reference)}/json"
        answer: Json = self._caller.call(Request("GET", path, headers=headers, timeout_s=timeout_s))
        return answer

    def pull(self, repository: str, tag: str, auth: Auth | None) -> Iterator[Json]:
        """Pull `repository` at a tag or digest; yields the Engine's messages, errors among them."""
        with self._sdk(timeout_s=STREAM_SILENCE_S) as api:
            yield from api.pull(repository, tag=tag, stream=True, decode=True, auth_config=dict(auth or {}))

    def load(self, archive: IO[bytes]) -> Iterator[Json]:
        """Send an archive of images; yields the Engine's messages, errors among them."""
        with self._sdk(timeout_s=STREAM_SILENCE_S) as api:
            yield from api.load_image(archive, quiet=False)  # type: ignore[no-untyped-call]

    def create_volume(self, name: str, labels: Mapping[str, str]) -> Json:
        """Make a named volume, or find the one that is there."""
        body = {"Name": name, "Labels": dict(labels)}
        answer: Json = self._caller.call(Request("POST", "/volumes/create", body))
        return answer

    def _found(self, path: str) -> Json | None:
        try:
            answer: Json = self._caller.call(Request("GET", path))
        except EngineRefused as error:
            if error.status == 404:
                return None
            raise
        return answer

    @contextmanager
    def _sdk(self, timeout_s: float) -> Iterator[APIClient]:
        """An SDK client over the pool, for one call; its errors become ours."""
        import requests
        from docker.errors import APIError, DockerException

        sockets: list[_Socket] = []

        def dial() -> _Socket:
            sockets.append(_Socket(self._caller.pool, timeout_s))
            return sockets[-1]

        client = _sdk_client(dial, self._caller.version, timeout_s)
        try:
            yield client
        except APIError as error:
            status = 500 if error.response is None else error.response.status_code
            raise self._caller.refusal(status, str(error.explanation or error)) from error
        except requests.exceptions.Timeout as error:
            raise self._caller.silent(timeout_s) from error
        except (requests.exceptions.RequestException, DockerException, OSError) as error:
            raise _wrapped(error) or self._caller.broken() from error
        finally:
            client.close()
            for one in sockets:
                one.give_back()


def _word(text: str) -> str:
    """A container or image in a path; slashes and colons of references stand as they are."""
    return quote(text, safe="/:@")


def _auth_header(auth: Auth) -> str:
    return base64.urlsafe_b64encode(json.dumps(dict(auth)).encode()).decode()


def _wrapped(error: BaseException) -> K4tError | None:
    """Our own error, where the SDK's layers have wrapped one."""
    cause: BaseException | None = error
    for _ in range(10):
        if cause is None or isinstance(cause, K4tError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _sdk_client(dial: Callable[[], _Socket], version: str, timeout_s: float) -> APIClient:
    """The SDK's client; where its HTTP library would connect, it is handed what `dial` gives."""
    import urllib3
    from docker.api.client import APIClient
    from docker.transport.basehttpadapter import BaseHTTPAdapter

    class Connection(urllib3.connection.HTTPConnection):
        def connect(self) -> None:
            self.sock = dial()

    class Connections(urllib3.connectionpool.HTTPConnectionPool):
        def _new_conn(self) -> Connection:
            return Connection("docker", timeout=timeout_s)

        def _get_conn(self, timeout: float | None = None) -> Connection:
            del timeout  # a new one each time: reusing one would ask our socket for a file descriptor
            return self._new_conn()

        def _put_conn(self, conn: object) -> None:
            """Nothing is kept here: connections belong to our own pool."""

    class Adapter(BaseHTTPAdapter):
        def get_connection(self, url: str | bytes, proxies: object = None) -> Connections:
            del url, proxies
            return Connections("docker", timeout=timeout_s, maxsize=1)

    client = APIClient(base_url="http://docker:80", version=version, timeout=int(timeout_s))
    client.trust_env = False
    client.mount("http://docker", Adapter())
    return client


class _Socket:
    """One connection of the pool, as the socket that http.client wants: it may close it while a reply is read."""

    def __init__(self, pool: Pool, timeout_s: float) -> None:
        self._pool = pool
        self._wire: Wire | None = pool.take(time.monotonic() + timeout_s)
        self._stream = self._wire.stream
        self._stream.settimeout(timeout_s)

    def settimeout(self, timeout: float | None) -> None:
        self._stream.settimeout(timeout)

    def sendall(self, data: bytes) -> None:
        self._stream.sendall(bytes(data))

    def makefile(self, mode: str, buffering: int = -1) -> io.BufferedReader:
        del mode, buffering
        return io.BufferedReader(FileLike(self._stream), 64 * 1024)

    def shutdown(self, how: int) -> None:
        """Nothing to do: it is given back after the call."""

    def close(self) -> None:
        """The same."""

    def give_back(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            self._pool.give(wire, reusable=False)
