"""One sshd for all tests of this directory that need no special one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k4t.remote.connection import SshTransport
from tests.remote import sshd
from tests.remote.sshd import Sshd


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd.serve(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def transport(server: Sshd) -> Iterator[SshTransport]:
    connected = server.connector().connect("h1", server.ssh, "127.0.0.1")
    yield connected
    connected.close()
