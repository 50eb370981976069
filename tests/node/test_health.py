"""Health as a real container shows it: seen soon, believed only when it is the container's own."""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from k4t.errors import ConnectionLost, Interrupted, Unhealthy
from k4t.model.app import App, ContainerSettings, ExecProbe, Health, HttpProbe, ImageProbe, Network, Port, TcpProbe
from k4t.model.state import BoundPort, Container
from k4t.node import health, lifecycle
from k4t.node.create import Order
from k4t.node.docker import Engine
from tests.lab import Host, Lab
from tests.node.conftest import CLUSTER
from tests.node.faulty import Faulty

pytestmark = pytest.mark.integration

AUTO = Port(host="auto")
Orders = Callable[..., Order]
Run = Callable[..., tuple[Container, App]]


@pytest.fixture
def run(engine: Engine, make: Callable[[Order], Container], order: Orders, lab: Lab) -> Run:
    """Create and start."""

    def do(image: str = "", **app: Any) -> tuple[Container, App]:
        if image:
            lab.pull(image)
        wanted = order(image, **app)
        made = make(wanted)
        lifecycle.start(engine, CLUSTER, made.id)
        return made, wanted.app

    return do


@pytest.fixture
def wait(engine: Engine, transport: Faulty) -> Callable[..., str]:
    def do(container: Container, app: App, timeout_s: float = 20.0, **more: Any) -> str:
        return health.await_healthy(engine, transport, container, app, timeout_s=timeout_s, **more)

    return do


@pytest.mark.parametrize("probe", [None, HttpProbe(path="/"), TcpProbe()])
def test_a_quick_app_is_not_waited_for(run: Run, wait: Any, probe: Any) -> None:
    """Probed at once, not after an interval of a minute; also without a <health> of its own."""
    container, app = run(ports=(AUTO,), health=probe and Health(probe, interval_s=60.0))
    begun = time.monotonic()
    assert wait(container, app).startswith("healthy after")
    assert time.monotonic() - begun < 10


def test_a_slow_app_is_waited_for(run: Run, wait: Any, lab: Lab) -> None:
    """It listens after a second: refused connections until then are no failure."""
    container, app = run(lab.push("slow", DELAY=1), ports=(AUTO,), health=Health(HttpProbe(), interval_s=1.0))
    assert wait(container, app)


def test_a_published_port_is_no_answer_by_itself(run: Run, wait: Any, lab: Lab) -> None:
    """In bridge mode Docker's proxy takes connections before the app does: that is not believed."""
    begun = time.monotonic()
    port = Port(container=8080, host="auto")
    container, app = run(lab.push("slow", DELAY=1), ports=(port,), network=Network("bridge"), health=Health(TcpProbe()))
    assert wait(container, app)
    assert time.monotonic() - begun >= 1.0


def test_a_wrong_answer_is_unhealthy_with_its_status(run: Run, wait: Any, lab: Lab) -> None:
    """503 where 200-399 is wanted: the URL, the status and what was wanted are said."""
    probe = Health(HttpProbe(path="/healthz"), interval_s=0.2, retries=2, start_period_s=0.5)
    container, app = run(lab.push("bad", UNHEALTHY=1), ports=(AUTO,), health=probe)
    with pytest.raises(Unhealthy, match=r"is not healthy after 1 s: http://.*/healthz answers 503, wanted is 200-399"):
        wait(container, app)


def test_a_status_that_is_wanted_is_healthy(run: Run, wait: Any, lab: Lab) -> None:
    """The range is the tree's."""
    probe = Health(HttpProbe(path="/healthz", status=(500, 599), headers=(("X-Probe", "1"),)))
    container, app = run(lab.push("bad", UNHEALTHY=1), ports=(AUTO,), health=probe)
    assert wait(container, app)


def test_a_crash_loop_is_given_up_with_the_tail_of_its_log(run: Run, wait: Any, lab: Lab) -> None:
    """Long before any time-out: how often, the exit status, and what it said."""
    container, app = run(lab.push("crash", FAIL=1), ports=(AUTO,), health=Health(HttpProbe(), start_period_s=300.0))
    with pytest.raises(Unhealthy) as failed:
        wait(container, app, timeout_s=120.0)
    said = rf"{container.name} ends again and again \((\d+) restarts\), exit status 1; its log ends:"
    found = re.search(said, str(failed.value))
    assert found is not None
    assert int(found[1]) >= 3
    assert "    tiny: FAIL=1, so this ends at once" in str(failed.value)


def test_an_ended_container_is_given_up_at_once(run: Run, wait: Any) -> None:
    """Without a restart policy the first exit is the last."""
    settings = ContainerSettings(restart="no")
    container, app = run(command=("sh", "-c", "echo bye; exit 7"), container=settings)
    with pytest.raises(Unhealthy, match=r"has ended with exit status 7; its log ends:\n    bye"):
        wait(container, app)


def test_a_port_taken_after_its_allocation_is_named(run: Run, wait: Any, host: Host) -> None:
    """In host mode it shows only as an exit: who holds the port is said with the log."""
    host.spawn("listener", ["python3", "-m", "http.server", "20000"], listens_on=20000)
    try:
        settings = ContainerSettings(restart="no")
        container, app = run(command=("httpd", "-f", "-p", "20000"), container=settings)
        host.docker(["wait", container.id])
        held = Container(**{**_fields(container), "ports": (BoundPort("main", 20000),)})
        with pytest.raises(Unhealthy, match=r"port 20000/tcp of the host is held by .*python3"):
            wait(held, app)
    finally:
        host.stop("listener")


def test_an_answer_of_another_process_is_not_believed(run: Run, wait: Any, host: Host, lab: Lab) -> None:
    """Something else answers at its port while the container itself crash-loops: unhealthy."""
    container, app = run(lab.push("crash", FAIL=1), ports=(AUTO,), health=Health(TcpProbe()))
    number = container.ports[0].number
    host.spawn("listener", ["python3", "-m", "http.server", str(number)], listens_on=number)
    try:
        with pytest.raises(Unhealthy, match="again and again"):
            wait(container, app)
    finally:
        host.stop("listener")


def test_dockers_own_check_decides_where_there_is_one(run: Run, wait: Any, lab: Lab) -> None:
    """exec becomes Docker's check; the image's own is taken with and without being asked for."""
    sleep = ("sleep", "60")
    quick: dict[str, Any] = {"interval_s": 0.5, "start_period_s": 0.0}
    assert wait(*run(command=sleep, health=Health(ExecProbe(("true",)), **quick)))
    own = lab.push("checked", healthcheck=("CMD", "true"))
    assert wait(*run(own, command=sleep, health=Health(ImageProbe(), **quick)))
    with pytest.raises(Unhealthy, match="its check says unhealthy nope"):
        wait(*run(command=sleep, health=Health(ExecProbe(("sh", "-c", "echo nope; exit 1")), retries=1, **quick)))


def test_an_image_without_a_check_of_its_own_says_so(run: Run, wait: Any) -> None:
    """<health><image/></health> with nothing behind it can't succeed."""
    with pytest.raises(Unhealthy, match="its image has no health check of its own"):
        wait(*run(health=Health(ImageProbe())), timeout_s=1.0)


def test_without_ports_and_checks_it_has_to_run_for_a_while(
    run: Run, wait: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running is all there is to see; for as long as design says."""
    monkeypatch.setattr(health, "STEADY_S", 1.0)
    begun = time.monotonic()
    assert wait(*run(command=("sleep", "60")))
    assert time.monotonic() - begun >= 1.0


def test_waiting_ends_when_the_run_is_stopped(run: Run, wait: Any) -> None:
    """Ctrl-C does not wait for an app that never gets healthy."""
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(Interrupted):
        wait(*run(command=("sleep", "60"), ports=(AUTO,)), stopping=stopping)


def test_a_container_removed_meanwhile_is_said(run: Run, wait: Any, host: Host) -> None:
    """Removed by hand while it was waited for."""
    container, app = run(command=("sleep", "60"), ports=(AUTO,))
    host.docker(["rm", "-f", container.id])
    with pytest.raises(Unhealthy, match="is gone"):
        wait(container, app)


def test_one_probe_tells_how_it_is(run: Run, wait: Any, transport: Faulty) -> None:
    """For status: "" when it answers, else why not; a lost connection is no verdict."""
    container, app = run(ports=(AUTO,))
    wait(container, app)
    assert health.problem(transport, container, app) == ""
    wrong = App(app.name, app.image, ports=app.ports, health=Health(HttpProbe(path="/gone")))
    assert "answers 404" in health.problem(transport, container, wrong)
    lifecycle.stop(Engine(transport), CLUSTER, container.id, grace_s=1)
    assert str(container.ports[0].number) in health.problem(transport, container, app)
    transport.close()
    with pytest.raises(ConnectionLost):
        health.problem(transport, container, app)


def _fields(container: Container) -> dict[str, Any]:
    return {field.name: getattr(container, field.name) for field in dataclasses.fields(container)}
