"""What the registrar's tests share: a host in a directory, and documents."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from k4t.registrar import __main__ as door
from k4t.registrar.document import Check, Document, Endpoint, Epoch, Record, Route, make, to_json
from k4t.registrar.service import Service

A, B = "aaaa1111", "bbbb2222"
NOBODY = ["127.0.0.1", 1]
ROUTES = (
    Route("exact", domains=("a.example.com",)),
    Route("wide", domains=("*.example.com",), prefix="/w"),
    Route("wider", domains=("*.com",), prefix="/w/x"),
    Route("any", prefix="/any"),
    Route("v1", domains=("api.example.com",), prefix="/v1"),
    Route("v1x", domains=("api.example.com",), prefix="/v1x"),
)
"""Domains and prefixes that cover one another: what decides among them in the normal form, and at each vendor."""


def document(
    cluster: str = A,
    kind: str = "gateway",
    *,
    app: str = "web",
    ports: tuple[int, ...] = (80,),
    ip: str = "10.0.0.1",
    epoch: Epoch = Epoch(1, "run1"),  # noqa: B008 - a frozen value
    seq: int = 1,
    parent: str = "",
    domain: str = "example.com",
) -> Document:
    """An app with a route and a check, or with a record."""
    gateway = kind == "gateway"
    return make(
        Document(
            cluster,
            "prod" if cluster == A else "other",
            kind,
            "default",
            epoch,
            seq,
            parent,
            endpoints=tuple(Endpoint(app, ip, port, container=f"c{port}") for port in ports),
            checks=(Check(app, "main", "http", "/health"),) if gateway else (),
            routes=(Route(app, domains=(domain,)),) if gateway else (),
            records=() if gateway else (Record(app, app),),
        )
    )


class Door:
    """The rpc door of one driver in a directory, in this process."""

    def __init__(self, root: Path, driver: str, config: Mapping[str, Any] | None = None, only: str = "") -> None:
        self.root = root
        self.service = Service(str(root), driver, only)
        if config is not None:
            self.ok(op="install", config=dict(config))

    def ask(self, **request: Any) -> dict[str, Any]:
        return door.answer(self.service, json.dumps(request))

    def ok(self, **request: Any) -> dict[str, Any]:
        answer = self.ask(**request)
        assert "ok" in answer, answer
        result: dict[str, Any] = answer["ok"]
        return result

    def error(self, **request: Any) -> tuple[str, str]:
        answer = self.ask(**request)
        assert "error" in answer, answer
        return answer["error"]["type"], answer["error"]["message"]

    def prepare(self, made: Document, transaction: str = "t1", seen: str = "", zone: str = "k4t.lab") -> dict[str, Any]:
        """The request."""
        return {
            "op": "prepare", "cluster": made.cluster, "transaction": transaction, "document": to_json(made),
            "sha256": made.sha256, "seen": seen, "zone": zone,
        }  # fmt: skip

    def publish(self, made: Document, transaction: str = "t1", seen: str = "") -> dict[str, Any]:
        self.ok(**self.prepare(made, transaction, seen))
        return self.ok(**commit(made, transaction))


def commit(made: Document, transaction: str = "t1") -> dict[str, Any]:
    epoch = [made.epoch.number, made.epoch.run]
    return {"op": "commit", "cluster": made.cluster, "transaction": transaction, "epoch": epoch}


def envoy(root: Path, **config: Any) -> Door:
    """One that nobody answers for; its checker takes everything."""
    return Door(root, "envoy", {"admin": NOBODY, "binary": shutil.which("true"), "http": 80, "own": True, **config})


def dnsmasq(root: Path, **config: Any) -> Door:
    return Door(root, "dnsmasq", {"address": "127.0.0.1", "port": 1, "zones": ["k4t.lab"], "own": True, **config})
