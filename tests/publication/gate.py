"""A gateway of any vendor in the lab, as the tests of routes see it: publish, then ask as a client would."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from k4t.gateway import install
from k4t.master.publication.publish import Published, Publisher
from k4t.model.hosts import Gateway, Ssh
from k4t.model.participant import Capabilities
from k4t.registrar.document import Certificate, Check, Endpoint, Route
from k4t.remote.registrar import RegistrarParticipant
from k4t.remote.ssh import Connector
from k4t.remote.transport import Transport
from k4t.wiring import GATEWAYS
from tests.authority import Authority
from tests.lab import Host, Lab
from tests.publication import backend
from tests.publication.conftest import PROD, changing

HTTP, HTTPS = 80, 443
H2C_CONF = f"""\
error_log /dev/null; pid /run/h2c.pid; events {{}}
http {{ access_log off; server {{ listen {backend.H2C} http2; location / {{ return 200 "$server_protocol"; }} }} }}
"""


@dataclass(frozen=True)
class Answer:
    """`app`: what the backend was asked, where the body says so."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def app(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def port(self) -> int:
        """Of the backend that answered; 0 when the gateway itself did."""
        return int(self.app["port"]) if self.status == 200 else 0


@dataclass
class Gate:
    """One gateway. Its backends run on its host."""

    lab: Lab
    host: Host
    gateway: Gateway
    authority: Authority = field(default_factory=Authority)
    pairs: dict[str, tuple[str, str]] = field(default_factory=dict)
    runs: int = 0
    member: RegistrarParticipant | None = None
    transport: Transport | None = None

    @property
    def capabilities(self) -> Capabilities:
        assert self.member is not None
        return self.member.capabilities

    @property
    def cluster(self) -> str:
        return PROD.id

    @property
    def address(self) -> str:
        return self.host.address

    def connection(self) -> Transport:
        if self.transport is None or not self.transport.alive:
            connector = Connector([self.lab.known_hosts], run_id="routes")
            ssh = Ssh(user="root", key=str(self.lab.key))
            self.transport = connector.connect(self.host.name, ssh, self.address)
        return self.transport

    def set_up(self) -> None:
        list(install.install(self.connection(), self.gateway))
        pem = "".join(self.authority.pair("backend"))
        self.host.exec(["sh", "-c", "cat > /root/backend.pem; mkdir -p /root/h2c"], input=pem)
        code = Path(backend.__file__).read_text()
        self.host.spawn("backend", ["python3", "-c", code, "/root/backend.pem"])
        self.host.exec(["sh", "-c", "cat > /root/h2c/nginx.conf"], input=H2C_CONF)
        self.host.spawn("h2c", ["nginx", "-c", "/root/h2c/nginx.conf", "-g", "daemon off;"])
        for port in (*backend.HTTP, backend.TLS, *backend.TCP, backend.H2C):
            self.await_port(port)
        made = GATEWAYS[self.gateway.driver](self.gateway, PROD, self.connection)
        made.certificates = lambda certificate: self.pairs[certificate.sha256]
        self.member = made

    def await_port(self, port: int) -> None:
        for _ in range(200):
            with closing(socket.socket()) as probe:
                if probe.connect_ex((self.address, port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"nothing listens on {port}")

    # --- publish -------------------------------------------------------------------------------------------------

    def certificate(self, name: str, *domains: str) -> Certificate:
        """A new one, ready to be uploaded."""
        chain, key = self.authority.pair(*domains)
        digest = sha256(chain.encode()).hexdigest()
        self.pairs[digest] = (chain, key)
        return Certificate(name, digest, "2030-01-01T00:00:00Z")

    def operators_files(self, name: str, *domains: str) -> Certificate:
        """The same as files that stand on the host already; done again, they are others, renamed into place."""
        chain, key = self.authority.pair(*domains)
        self.host.exec(["mkdir", "-p", "/etc/tls"])
        for part, text in (("key", key), ("chain", chain)):
            script = 'umask 077; cat > "$0.new"; mv "$0.new" "$0"'
            self.host.exec(["sh", "-c", script, f"/etc/tls/{name}.{part}.pem"], input=text)
        return Certificate(name, chain_path=f"/etc/tls/{name}.chain.pem", key_path=f"/etc/tls/{name}.key.pem")

    def endpoints(self, app: str, *ports: int, port_name: str = "main", protocol: str = "tcp") -> list[Endpoint]:
        return [Endpoint(app, self.address, port, port_name, protocol, container=f"c{port}") for port in ports]

    def publish(
        self,
        routes: Mapping[Route, tuple[int, ...]],
        *certificates: Certificate,
        checks: tuple[Check, ...] = (),
        elsewhere: tuple[Endpoint, ...] = (),
    ) -> Published:
        """Replace all that is published: routes, each with the ports of its endpoints; `elsewhere`: other endpoints."""
        assert self.member is not None
        self.runs += 1
        endpoints = {
            endpoint
            for route, ports in routes.items()
            for endpoint in self.endpoints(route.app, *ports, port_name=route.port_name, protocol=route.protocol)
        }
        change = changing(
            "gateway", PROD,
            endpoints=(*endpoints, *elsewhere), routes=tuple(routes), checks=checks, certificates=certificates,
        )  # fmt: skip
        published = Publisher([self.member], PROD, f"run{self.runs}").publish("gateway", "default", change)
        assert published.stale == ()
        return published

    def differences(self) -> tuple[str, ...]:
        assert self.member is not None
        state = self.member.observe()
        assert state.reachable, state.problem
        return state.differences

    # --- ask -----------------------------------------------------------------------------------------------------

    def get(self, host: str, path: str = "/", *, tls: bool = False, method: str = "GET", **more: Any) -> Answer:
        """`more`: headers, body, sni, timeout_s. Raises OSError for a connection that isn't served."""
        with closing(self._connection(more.get("sni", host), more.get("timeout_s", 10.0), tls=tls)) as connection:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            headers = {"Host": host, **more.get("headers", {})}
            body = more.get("body", b"")
            if body:
                headers["Content-Length"] = str(len(body))
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())

    def _connection(self, sni: str | None, timeout_s: float, *, tls: bool) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.address, HTTPS if tls else HTTP, timeout=timeout_s)
        connection.connect()
        if tls:
            connection.sock = self.secured(connection.sock, sni)
        return connection

    def secured(self, plain: socket.socket, sni: str | None) -> ssl.SSLSocket:
        """Trusts the tests' authority; without a name it can't check whose certificate it is."""
        context = self.authority.trusting()
        context.check_hostname = sni is not None
        try:
            return context.wrap_socket(plain, server_hostname=sni)
        except BaseException:
            plain.close()
            raise

    def serial(self, host: str) -> str:
        """Of the certificate that the gateway shows."""
        with self.line(HTTPS, tls=host) as connection:
            assert isinstance(connection, ssl.SSLSocket)
            shown = connection.getpeercert()
        assert shown
        return str(shown["serialNumber"])

    @contextmanager
    def line(self, port: int, *, tls: str = "") -> Iterator[socket.socket]:
        plain = socket.create_connection((self.address, port), 5)
        with closing(self.secured(plain, tls) if tls else plain) as connection:
            yield connection


def said(connection: socket.socket, text: bytes) -> bytes:
    """What a TCP backend answers to a line; b"" when the connection is closed instead."""
    try:
        connection.sendall(text + b"\n")
        return connection.makefile("rb").readline().strip()
    except (ConnectionError, ssl.SSLError):
        return b""
