"""Is a replica healthy? Probed over the node's SSH connection, so that no tool is needed there.

What is asked: the app's <health>; without one the image's own check, else TCP on all its ports, else that it has
been running for a while. A probe that answers counts only when the container itself runs: in host mode anything
else may be listening at its port.
"""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections.abc import Callable
from typing import Protocol

from k4t.errors import ConnectionLost, Interrupted, StepError, Unhealthy
from k4t.model.app import App, ExecProbe, Health, HttpProbe, ImageProbe, TcpProbe
from k4t.model.state import BoundPort, Container
from k4t.model.value import value
from k4t.node.docker import Engine, Json
from k4t.node.http import Broken, Garbled, TooSlow, Wire, read_status, send_request
from k4t.remote.sockets import port_holder
from k4t.remote.transport import Stream

FIRST_PAUSE_S = 0.02
EARLY_S = 0.1
"""While pauses are shorter, a port that doesn't answer yet is reason enough to wait: Docker isn't asked as well."""
STEADY_S = 5.0
"""How long a container without ports and checks has to run."""
MAX_RESTARTS = 3
"""Docker waits 0.1, 0.2, 0.4 … s between restarts: three of them take about a second."""
AFTER_RESTART_S = 2.0
"""How long one that has been restarted has to run before an answer at its port is believed to be its own."""
TAIL_LINES = 10
IN_USE = re.compile(r"address (already )?in use|EADDRINUSE", re.IGNORECASE)

Clock = Callable[[], float]


class Dialer(Protocol):
    """Where probes are made from: the node's connection, or another host's."""

    def connect_tcp(self, address: str, port: int, timeout_s: float) -> Stream: ...


@value
class Look:
    """What Docker says of a container. `check` is its own health ("" for none), `said` that check's last words."""

    state: str
    exit_code: int
    restarts: int
    started_at: str
    check: str
    said: str


def await_healthy(
    engine: Engine,
    dialer: Dialer | None,
    container: Container,
    app: App,
    *,
    timeout_s: float,
    stopping: threading.Event | None = None,
    clock: Clock = time.monotonic,
) -> str:
    """Wait until it is healthy; returns a word on how long that took. `dialer`: None where no host can probe it; then
    Docker's own check counts, else that it has been running for a while.

    Raises Unhealthy (why, and the tail of its log when it ended), Interrupted once `stopping` is set, and what
    transport and Engine raise. Polls quickly at first, then every `interval_s`.
    """
    interval_s = app.health.interval_s if app.health else Health(ImageProbe()).interval_s
    stop = stopping or threading.Event()
    started = dataclasses.replace(container, state="running")  # it was listed before; `_look` says what it is now
    begun = since = clock()
    pause_s, started_at = FIRST_PAUSE_S, ""
    while True:
        answer = problem(dialer, started, app) if _probed(app) else ""
        if not answer or pause_s >= EARLY_S:
            look = _look(engine, container)
            if look.started_at != started_at:
                started_at, since = look.started_at, clock()
            waiting_for = _waiting_for(container, app, look, answer, clock() - since, probed=dialer is not None)
            if not waiting_for:
                return f"healthy after {clock() - begun:.1f} s"
            _give_up_on_ended(engine, container, look)
            waited_s = clock() - begun
            if waited_s >= (_patience_s(app, look, timeout_s) if dialer is not None else timeout_s):
                raise Unhealthy(
                    f"{container.name} is not healthy after {waited_s:.0f} s: {waiting_for}", host=engine.host
                )
        if stop.wait(min(pause_s, interval_s)):
            raise Interrupted(f"stopped while waiting for {container.name}", host=engine.host)
        pause_s *= 2


def problem(dialer: Dialer | None, container: Container, app: App) -> str:
    """One probe: "" when it answers as it should, else why not. Docker's own checks as its listing had them.
    `dialer`: as above.

    Raises ConnectionLost.
    """
    if not container.running and container.state != "created":
        return container.state
    if container.health and (dialer is None or not _asked_from_outside(app)):
        return "" if container.health == "healthy" else f"Docker's check says {container.health}"
    if dialer is None:
        return ""
    probe = app.health.probe if app.health else None
    timeout_s = app.health.timeout_s if app.health else Health(ImageProbe()).timeout_s
    if isinstance(probe, HttpProbe):
        return _http(dialer, container, app, probe, timeout_s)
    if isinstance(probe, TcpProbe):
        return _tcp(dialer, container.address, _port(container, app, probe.port), timeout_s)
    if isinstance(probe, ExecProbe):
        return ""
    answers = (_tcp(dialer, container.address, port, timeout_s) for port in container.ports)
    return next(filter(None, answers), "")


# --- probes ------------------------------------------------------------------------------------------------


def _asked_from_outside(app: App) -> bool:
    """Whether the app names a probe of ours; its image's own check then says nothing."""
    return app.health is not None and isinstance(app.health.probe, HttpProbe | TcpProbe)


def _probed(app: App) -> bool:
    """Whether something of this app is asked from outside."""
    return app.health is None or isinstance(app.health.probe, HttpProbe | TcpProbe)


def _port(container: Container, app: App, name: str) -> BoundPort | None:
    wanted = app.port(name)
    return next((port for port in container.ports if wanted is not None and port.name == wanted.name), None)


def _tcp(dialer: Dialer, address: str, port: BoundPort | None, timeout_s: float) -> str:
    if port is None:
        return "it has no such port"
    if port.protocol != "tcp":
        return ""
    try:
        dialer.connect_tcp(address, port.number, timeout_s).close()
    except ConnectionLost:
        raise
    except StepError as error:
        return error.message
    return ""


def _http(dialer: Dialer, container: Container, app: App, probe: HttpProbe, timeout_s: float) -> str:
    port = _port(container, app, probe.port)
    if port is None:
        return "it has no such port"
    deadline = time.monotonic() + timeout_s
    host = f"[{container.address}]" if ":" in container.address else container.address
    url = f"http://{host}:{port.number}{probe.path}"
    headers = {"Host": f"{host}:{port.number}", "User-Agent": "k4t", **dict(probe.headers), "Connection": "close"}
    try:
        wire = Wire(dialer.connect_tcp(container.address, port.number, timeout_s))
    except ConnectionLost:
        raise
    except StepError as error:
        return error.message
    try:
        wire.begin(deadline)
        send_request(wire, "GET", probe.path, headers)
        status = read_status(wire)
    except TooSlow:
        return f"{url} does not answer within {timeout_s:g} s"
    except (Broken, Garbled) as error:
        return f"{url}: {error}"
    finally:
        wire.close()
    first, last = probe.status
    return "" if first <= status <= last else f"{url} answers {status}, wanted is {first}-{last}"


# --- the verdict -------------------------------------------------------------------------------------------


def _waiting_for(container: Container, app: App, look: Look, answer: str, lasted_s: float, *, probed: bool) -> str:
    """ "" when it is healthy, else what is missing."""
    if look.state != "running":
        return f"it is {look.state}"
    if look.check and not (probed and _asked_from_outside(app)):
        return "" if look.check == "healthy" else f"its check says {look.check} {look.said}".strip()
    if app.health is not None and isinstance(app.health.probe, ImageProbe):
        return "its image has no health check of its own"
    if answer:
        return answer
    asked = probed and (any(port.protocol == "tcp" for port in container.ports) or app.health is not None)
    needed_s = 0.0 if asked and not look.restarts else AFTER_RESTART_S if asked else STEADY_S
    return "" if lasted_s >= needed_s else f"it has to run for {needed_s:g} s"


def _patience_s(app: App, look: Look, timeout_s: float) -> float:
    """Docker's own check knows start period and retries by itself; a probe gets as long here."""
    if look.check == "unhealthy" and look.state == "running":
        return 0.0
    if look.check or app.health is None or isinstance(app.health.probe, ExecProbe):
        return timeout_s
    return min(timeout_s, app.health.start_period_s + app.health.retries * app.health.interval_s)


def _give_up_on_ended(engine: Engine, container: Container, look: Look) -> None:
    """An exited container stays so, and one that restarts again and again does not get better."""
    if look.state in ("exited", "dead"):
        ended = f"{container.name} has ended with exit status {look.exit_code}"
    elif look.restarts >= MAX_RESTARTS and look.state != "running":  # while it runs, Docker says 0
        ended = f"{container.name} ends again and again ({look.restarts} restarts), exit status {look.exit_code}"
    else:
        return
    lines = engine.tail(container.id, TAIL_LINES)
    hint = _taken(engine, container) if IN_USE.search("\n".join(lines)) else ""
    said = "; its log ends:\n" + "\n".join(f"    {line}" for line in lines) if lines else "; its log is empty"
    raise Unhealthy(f"{ended}{hint}{said}", host=engine.host)


def _taken(engine: Engine, container: Container) -> str:
    """It says that its address is in use: by whom?"""
    for port in container.ports:
        holder = port_holder(engine.transport, port.protocol, port.number)
        if holder:
            return f"; port {port.number}/{port.protocol} of the host is held by {holder}"
    return ""


def _look(engine: Engine, container: Container) -> Look:
    found = engine.inspect(container.id)
    if found is None:
        raise Unhealthy(f"{container.name} is gone", "apply again", host=engine.host)
    state: Json = found.get("State") or {}
    check: Json = state.get("Health") or {}
    logged = check.get("Log") or [{}]
    return Look(
        state=str(state.get("Status", "")),
        exit_code=int(state.get("ExitCode") or 0),
        restarts=int(found.get("RestartCount") or 0),
        started_at=str(state.get("StartedAt", "")),
        check=str(check.get("Status", "")).replace("none", ""),
        said=str(logged[-1].get("Output", "")).strip()[-200:],
    )
