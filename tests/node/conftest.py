"""One lab host with Docker, reached over real SSH."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from k4t.model.app import App, Image
from k4t.model.hosts import Node, Ssh
from k4t.model.state import Container
from k4t.node.create import Order, create
from k4t.node.docker import Engine
from k4t.remote.lock import Holder, host_lock
from k4t.remote.ssh import Connector
from tests.lab import Host, Lab
from tests.node.faulty import Faulty

CLUSTER = "k7f3q2m9"
HOLDER = Holder("ci", "here", 1, "2026-01-01T00:00:00Z", "a test", "run1")


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    with Lab(name=f"node-{os.getpid()}", nodes=1, registry=True) as up:
        up.pull()
        yield up


@pytest.fixture
def host(lab: Lab) -> Host:
    return lab.host("n1")


@pytest.fixture(scope="package")
def connector(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connector]:
    home = tmp_path_factory.mktemp("home")
    made = Connector([lab.known_hosts], run_id="run1", environ={"HOME": str(home), "PATH": "/usr/bin:/bin"})
    yield made
    made.close()


@pytest.fixture
def transport(lab: Lab, connector: Connector) -> Iterator[Faulty]:
    """A real connection that can be told to break."""
    address = lab.host("n1").address
    real = connector.connect("n1", Ssh(host=address, user="root", key=str(lab.key)), address)
    yield Faulty(real)
    real.close()


@pytest.fixture
def engine(transport: Faulty) -> Iterator[Engine]:
    made = Engine(transport)
    yield made
    made.close()


@pytest.fixture
def node(lab: Lab) -> Node:
    return Node("n1", lab.host("n1").address)


@pytest.fixture
def make(engine: Engine, node: Node) -> Callable[[Order], Container]:
    """The create step."""
    return lambda order: create(engine, node, order, lambda: host_lock(engine.transport, HOLDER))


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Containers don't outlive their test."""
    yield
    if "lab" in request.fixturenames:
        request.getfixturevalue("lab").host("n1").exec(
            ["sh", "-c", "docker ps -aq | xargs -r docker rm -f -v"], timeout_s=60
        )


_numbers = itertools.count(1)


@pytest.fixture
def order(lab: Lab) -> Callable[..., Order]:
    """An order for one more container of app `web`, with what is said here."""

    def make(image: str = "", *, spec: str = "v1:test", found_by: str = "", contents: Any = None, **app: Any) -> Order:
        replica = str(next(_numbers))
        made = App("web", Image(image or lab.image), **app)
        return Order(
            CLUSTER,
            f"test.web.{replica}.1",
            made,
            replica,
            1,
            found_by or image or lab.image,
            7,
            spec,
            contents=contents or {},
        )

    return make
