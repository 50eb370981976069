"""The limit: the Engine API on each node's own socket, by one thread a call and nothing else.

Run as `python -I -S limit.py VERB FILE`. Its process starts, imports http.client, does the work and ends, as
k4t's does. It makes the same create calls, as many at a time on a node, on all nodes at once. It looks for nothing,
chooses nothing, waits for nothing, and remembers nothing.
"""

from __future__ import annotations

import http.client
import json
import socket
import sys
import threading
from collections import deque
from typing import Any
from urllib.parse import quote

AT_ONCE = 4
API = "/v1.41"


class Connection(http.client.HTTPConnection):
    """HTTP to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)

    def call(self, method: str, path: str, body: object = None) -> bytes:
        text = None if body is None else json.dumps(body)
        self.request(method, API + path, text, {"Content-Type": "application/json"} if text else {})
        answer = self.getresponse()
        said = answer.read()
        if answer.status >= 300 and answer.status != 304:
            raise RuntimeError(f"{method} {path}: {answer.status} {said[:300]!r}")
        return said


def deploy(engine: Connection, container: dict[str, Any]) -> None:
    engine.call("POST", f"/containers/create?name={quote(container['name'])}", container["body"])
    engine.call("POST", f"/containers/{container['name']}/start")


def change(engine: Connection, container: dict[str, Any]) -> None:
    """The port is fixed, so the old one stops before the new one starts."""
    old = container["old"]
    engine.call("POST", f"/containers/{old}/stop?t=1")
    engine.call("DELETE", f"/containers/{old}?v=1")
    deploy(engine, container)


def delete(engine: Connection, container: dict[str, Any]) -> None:
    engine.call("POST", f"/containers/{container['name']}/stop?t=1")
    engine.call("DELETE", f"/containers/{container['name']}?v=1")


def noop(engine: Connection, container: dict[str, Any]) -> None:
    del container
    json.loads(engine.call("GET", "/containers/json?all=1"))


VERBS = {"deploy": deploy, "change": change, "delete": delete, "noop": noop}


def main(verb: str, file: str) -> int:
    with open(file) as text:
        nodes: dict[str, list[dict[str, Any]]] = json.load(text)
    failed: list[str] = []

    def work(path: str, todo: deque[dict[str, Any]]) -> None:
        engine = Connection(path)
        try:
            while todo:
                VERBS[verb](engine, todo.popleft())
        except IndexError:  # another thread took the last one
            pass
        except Exception as error:  # noqa: BLE001 - said below, whatever it is
            failed.append(f"{path}: {error}")
        finally:
            engine.close()

    threads = []
    for path, containers in nodes.items():
        todo = deque(containers[:1] if verb == "noop" else containers)
        threads += [threading.Thread(target=work, args=(path, todo)) for _ in range(min(AT_ONCE, len(todo)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stderr.write("".join(f"{line}\n" for line in failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
