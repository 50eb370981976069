"""Stands between a master and a DNS server, and breaks what goes through."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

Fate = Literal["pass", "cut", "lost"]
"""Of a message: passed on; cut before the server has it; cut after it has, so that the answer is lost."""


class Between:
    """Messages over TCP to `target`; `decide` is asked about each."""

    def __init__(self, target: tuple[str, int], decide: Callable[[], Fate]) -> None:
        self.target = target
        self.decide = decide
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self.target, 4) as server:
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            stream = client.makefile("rb")
            while head := stream.read(2):
                message = head + stream.read(int.from_bytes(head, "big"))
                fate = self.decide()
                if fate != "pass":
                    client.shutdown(socket.SHUT_RDWR)
                if fate != "cut":
                    server.sendall(message)
                if fate != "pass":
                    server.shutdown(socket.SHUT_WR)
                    break
            back.join(10)

    def close(self) -> None:
        self.listener.close()


def _copy(server: socket.socket, client: socket.socket) -> None:
    with suppress(OSError):
        while data := server.recv(65536):
            with suppress(OSError):
                client.sendall(data)
        client.shutdown(socket.SHUT_WR)
