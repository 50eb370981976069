"""Who takes alerts, for real: HTTP and mail servers on this machine, good and bad ones."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from tests.authority import Authority


class Hook:
    """An HTTP server that keeps what it gets, and answers `status` (with `headers` and `answer`) after `takes_s`."""

    def __init__(self, status: int = 200, answer: bytes = b"ok", **headers: str) -> None:
        self.status, self.answer, self.headers = status, answer, headers
        self.takes_s = 0.0
        self.got: list[dict[str, Any]] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}/hook"

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.asked.append((self.path, {name.lower(): text for name, text in self.headers.items()}))
                if hook.status == 200:
                    hook.got.append(json.loads(body))
                time.sleep(hook.takes_s)
                answer = hook.answer.replace(b"TOKEN", self.headers.get("Authorization", "").encode())
                self.send_response(hook.status)
                for name, text in hook.headers.items():
                    self.send_header(name, text)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def private(self, directory: Path, authority: Authority, *names: str) -> Self:
        self.server.socket = _context(directory, authority, *names).wrap_socket(self.server.socket, server_side=True)
        self.address = f"https://{names[0]}:{self.port}/hook"
        return self

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def _context(directory: Path, authority: Authority, *names: str) -> ssl.SSLContext:
    chain, key = authority.pair(*names)
    (directory / "chain.pem").write_text(chain)
    (directory / "key.pem").write_text(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "chain.pem", directory / "key.pem")
    return context


@contextlib.contextmanager
def talker(greeting: bytes, drip: bytes = b"", every_s: float = 0.05) -> Iterator[int]:
    """A server that greets, and then says `drip` again and again, or nothing; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def talk(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(greeting)
            while not over.is_set():
                if drip:
                    connection.sendall(drip)
                time.sleep(every_s)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        over.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@contextlib.contextmanager
def proxy(to: int) -> Iterator[tuple[int, list[str]]]:
    """A proxy that takes CONNECT and leads to a port here, whatever is asked for; its port, and what was asked for."""
    listener, asked = socket.create_server(("127.0.0.1", 0)), list[str]()

    def carry(come: socket.socket, go: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := come.recv(65536):
                go.sendall(data)
        with contextlib.suppress(OSError):
            go.shutdown(socket.SHUT_WR)

    def serve(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(65536)
        asked.append(head.split(b" HTTP/")[0].decode())
        with client, socket.create_connection(("127.0.0.1", to)) as server:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=carry, args=(server, client), daemon=True)
            back.start()
            carry(client, server)
            back.join(5.0)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], asked
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


class Post:
    """A mail server that keeps what it gets. `login`: the one that it takes; `refuse`: of recipients, an answer;
    `implicit`: TLS from the first byte on."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        login: str = "",
        refuse: str = "",
        host: str = "127.0.0.1",
        implicit: bool = False,
    ) -> None:
        self.got: list[tuple[str, list[str], bytes]] = []
        self.logins: list[str] = []
        self.refuse, self._login, self.host = refuse, login, host
        self.controller = Controller(
            self,
            hostname=host,
            port=_free_port(host),
            tls_context=None if implicit else tls,
            ssl_context=tls if implicit else None,
            authenticator=self._authenticate if login else None,
            auth_require_tls=False,
            decode_data=False,
        )

    @classmethod
    def private(cls, directory: Path, authority: Authority, *names: str, **options: Any) -> Post:
        return cls(tls=_context(directory, authority, *names), **options)

    @property
    def place(self) -> str:
        return f"{self.host}:{self.controller.port}"

    def _authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        said = f"{data.login.decode()}:{data.password.decode()}"
        self.logins.append(said)
        return AuthResult(success=said == self._login, handled=said == self._login)

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        if self.refuse:
            return self.refuse
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        self.got.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 OK"

    def __enter__(self) -> Self:
        self.controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.controller.stop()


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as found:
        return int(found.getsockname()[1])


def closed_port() -> int:
    """Where nobody listens."""
    return _free_port("127.0.0.1")
