"""What stands behind a gateway in the tests of routes: run on its host with `python3 -c`, standard library only.

8001-8006  HTTP/1.1: answers with a JSON of what it was asked. /health 204, /sick 500, /sleep/S, /trickle/N/S
8007       the same, at ::1 alone
8010       the same in TLS           8020, 8021  TCP: answers each line with PORT:LINE       8030  UDP: the same
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import socketserver
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HTTP, TLS, TCP, UDP, H2C = (8001, 8002, 8003, 8004, 8005, 8006), 8010, (8020, 8021), 8030, 8100
IPV6 = 8007


def port_of(server: socketserver.BaseServer) -> int:
    return int(server.server_address[1])  # type: ignore[index]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Upgrade") == "websocket":
            self.echo()
            return
        words = self.path.strip("/").split("/")
        if words[0] == "sleep":
            time.sleep(float(words[1]))
        if words[0] == "trickle":
            self.trickle(int(words[1]), float(words[2]))
            return
        self.answer({"/health": 204, "/sick": 500}.get(self.path, 200))

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.answer(200, self.rfile.read(length).decode())

    def answer(self, status: int, body: str = "") -> None:
        headers: dict[str, str] = {}
        for name, value in self.headers.items():  # several of one name are one list
            headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
        asked = {"port": port_of(self.server), "method": self.command, "path": self.path, "body": body}
        text = json.dumps({**asked, "headers": headers}).encode() if status != 204 else b""
        self.send_response(status)
        if text:
            self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def trickle(self, parts: int, pause_s: float) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(parts))
        self.end_headers()
        for _ in range(parts):
            self.wfile.write(b".")
            self.wfile.flush()
            time.sleep(pause_s)

    def echo(self) -> None:
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        key = self.headers.get("Sec-WebSocket-Key", "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 4.2.2
        self.send_header(
            "Sec-WebSocket-Accept",
            base64.b64encode(hashlib.sha1(key.encode(), usedforsecurity=False).digest()).decode(),
        )
        self.end_headers()
        while data := self.connection.recv(4096):
            self.connection.sendall(data)
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


class Lines(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(b"%d:%s" % (port_of(self.server), line))


class Packets(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, from_us = self.request
        from_us.sendto(b"%d:%s" % (port_of(self.server), data), self.client_address)


class Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


class OverIpv6(ThreadingHTTPServer):
    address_family = socket.AF_INET6


def main(pem: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    secure = ThreadingHTTPServer(("", TLS), Handler)
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    servers: list[socketserver.BaseServer] = [secure, *(ThreadingHTTPServer(("", port), Handler) for port in HTTP)]
    servers.append(OverIpv6(("::1", IPV6), Handler))
    servers += [Tcp(("", port), Lines) for port in TCP]
    servers.append(socketserver.ThreadingUDPServer(("", UDP), Packets))
    for server in servers:
        threading.Thread(target=server.serve_forever).start()


if __name__ == "__main__":
    main(sys.argv[1])
