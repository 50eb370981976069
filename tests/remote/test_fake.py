"""The fake keeps the contract, and breaks it in the ways that hosts do."""

from __future__ import annotations

import pytest

from k4t.command import Completed
from k4t.errors import ConnectionLost, DockerUnavailable, HostFull, StepError
from k4t.remote.fake import FakeTransport
from k4t.remote.transport import Transport

pytestmark = pytest.mark.unit


def test_answers_and_calls() -> None:
    """Commands say what was scripted, the newest that fits first; what was asked is remembered."""
    fake = FakeTransport("n1")
    fake.answer(["docker"], b"any")
    fake.answer(["docker", "ps"], Completed(1, b"", b"no"))
    fake.answer(["cat"], lambda argv, data: Completed(0, data + argv[0].encode(), b""))
    assert fake.run(["docker", "info"]).stdout == b"any"
    assert fake.run(["docker", "ps"]).exit_status == 1
    assert fake.run(["cat"], input=b"x").stdout == b"xcat"
    assert fake.run(["true"]).ok
    assert fake.calls[1] == ("run", "docker", "ps")


def test_files() -> None:
    """Files are kept; one that is missing is None."""
    fake: Transport = FakeTransport()
    fake.put("/a", b"x", 0o600)
    assert (fake.get("/a"), fake.get("/b")) == (b"x", None)
    with pytest.raises(StepError):
        fake.get("/a", max_bytes=0)


def test_faults() -> None:
    """Each fault strikes once, at the call that it names, as late as it is told to."""
    fake = FakeTransport()
    fake.fail("lost-reply", "echo", after=1)
    assert fake.run(["echo"]).exit_status == 0
    assert fake.run(["echo"]).exit_status is None
    assert fake.run(["echo"]).exit_status == 0
    fake.fail("slow", "docker")
    with pytest.raises(StepError, match="took longer"):
        fake.connect_docker()
    fake.fail("full")
    with pytest.raises(HostFull):
        fake.put("/a", b"x")
    fake.fail("lost-reply", "/a")
    with pytest.raises(ConnectionLost, match="in doubt"):
        fake.put("/a", b"x")
    assert fake.get("/a") == b"x"
    fake.fail("cut")
    with pytest.raises(ConnectionLost):
        fake.get("/a")
    assert not fake.alive
    with pytest.raises(ConnectionLost):
        fake.run(["true"])


def test_no_docker() -> None:
    """Without a socket there is no Engine."""
    with pytest.raises(DockerUnavailable):
        FakeTransport("a").connect_docker()


def test_process() -> None:
    """A command's lines come one by one, then its end."""
    fake = FakeTransport()
    fake.answer(["ls"], b"a\nb\n")
    process = fake.start(["ls"])
    assert [process.read_line(1) for _ in range(3)] == [b"a", b"b", b""]
    assert process.wait(1).ok
