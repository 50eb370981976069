"""Who answers: each container where it runs, each published endpoint from where the gateway stands. A bounded number,
all at once, to one deadline; what was not asked, or not in time, is unknown."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from typing import Any

from k4t.errors import ConnectionLost, K4tError
from k4t.master.fleet import Fleet, begun
from k4t.master.vantage import vantage
from k4t.model.hosts import Gateway
from k4t.model.state import Container, ParticipantState
from k4t.model.value import value
from k4t.monitor.facts import Answer
from k4t.monitor.looking.gather import Asked
from k4t.node import health
from k4t.registrar.document import Endpoint
from k4t.remote.transport import Transport

MAX_PROBES = 2000
MAX_ENDPOINTS = 2000
OF_AWAY = 3
"""Endpoints on a node that can't be asked: so many are tried from each gateway, whether it serves all the same."""
AT_ONCE = 64
LIMIT_S = 10.0
DIAL_S = 2.0

EndpointKey = tuple[str, int]


@value
class Reached:
    """`probed` by container id; `endpoints` by (container id, port), the worst that a gateway's host says; `serving` by
    “gateway/gw1”: why nobody takes connections there, "" when somebody does; `alive` as in Facts."""

    probed: Mapping[str, Answer]
    endpoints: Mapping[EndpointKey, Answer]
    serving: Mapping[str, str]
    alive: Mapping[str, str]


@value
class _Dial:
    gateway: str
    transport: Transport
    endpoint: Endpoint


def reach(fleet: Fleet, asked: Asked) -> Reached:
    """Raises nothing."""
    deadline_s = time.monotonic() + LIMIT_S
    containers = list(_containers(fleet, asked))[:MAX_PROBES]
    gateways = list(_gateways(fleet, asked))
    dials = [dial for gateway, transport, state in gateways for dial in _dials(asked, gateway, transport, state)]
    doubted = [dial for gateway, transport, state in gateways for dial in _of_away(asked, gateway, transport, state)]
    probes = begun(lambda one: _probe(fleet, one), containers, most=AT_ONCE)
    answers = begun(_dialed, dials[:MAX_ENDPOINTS], most=AT_ONCE)
    signs = begun(_dialed, doubted[:MAX_ENDPOINTS], most=AT_ONCE)
    doors = begun(lambda one: _door(*one), gateways, most=AT_ONCE)
    futures: list[Future[Any]] = [*probes, *answers, *signs, *doors]
    wait(futures, timeout=max(0.0, deadline_s - time.monotonic()))
    return Reached(
        probed={one.id: _answer(future, one.node) for one, future in zip(containers, probes, strict=True)},
        endpoints=_worst(zip(dials, answers, strict=False)),
        serving={
            f"gateway/{gateway.name}": future.result()
            for (gateway, _, _), future in zip(gateways, doors, strict=True)
            if future.done() and future.exception() is None
        },
        alive={
            dial.endpoint.node: dial.gateway
            for dial, future in zip(doubted, signs, strict=False)
            if _answer(future, dial.gateway).problem == ""
        },
    )


def _containers(fleet: Fleet, asked: Asked) -> Iterator[Container]:
    for node in asked.nodes.values():
        yield from (one for one in node.state.containers if one.running and one.app in fleet.tree.apps)


def _gateways(fleet: Fleet, asked: Asked) -> Iterator[tuple[Gateway, Transport, ParticipantState]]:
    """Those whose host answers."""
    for name, gateway in fleet.tree.gateways.items():
        host = asked.hosts.get(asked.host_of.get(f"gateway/{name}", ""))
        state = asked.gateways.get(name)
        if host is None or host.reading is None or state is None or not state.reachable:
            continue
        try:
            yield gateway, fleet.transport(gateway), state
        except K4tError:
            continue


def _dials(asked: Asked, gateway: Gateway, transport: Transport, state: ParticipantState) -> Iterator[_Dial]:
    """What it would send traffic to, but for nodes that can't be asked: those are told by themselves."""
    away = {name for name, node in asked.nodes.items() if not node.state.reachable}
    for endpoint in state.document.endpoints if state.document else ():
        if endpoint.port and endpoint.protocol == "tcp" and endpoint.node not in away:
            yield _Dial(gateway.name, transport, endpoint)


def _of_away(asked: Asked, gateway: Gateway, transport: Transport, state: ParticipantState) -> Iterator[_Dial]:
    """A few on each node that can't be asked. They are nobody's findings: what answers proves that it is not off."""
    tried: dict[str, int] = {}
    away = {name for name, node in asked.nodes.items() if not node.state.reachable}
    for endpoint in state.document.endpoints if state.document else ():
        if endpoint.port and endpoint.protocol == "tcp" and endpoint.node in away:
            tried[endpoint.node] = tried.get(endpoint.node, 0) + 1
            if tried[endpoint.node] <= OF_AWAY:
                yield _Dial(gateway.name, transport, endpoint)


def _probe(fleet: Fleet, container: Container) -> Answer:
    app = fleet.tree.apps[container.app]
    dialer = vantage(fleet, fleet.tree.nodes[container.node], app)
    return Answer(health.problem(dialer, container, app), container.node)


def _dialed(dial: _Dial) -> Answer:
    try:
        dial.transport.connect_tcp(dial.endpoint.ip, dial.endpoint.port, DIAL_S).close()
    except ConnectionLost:
        return Answer(None, dial.gateway)
    except K4tError as error:
        return Answer(error.message, dial.gateway)
    return Answer("", dial.gateway)


def _door(gateway: Gateway, transport: Transport, state: ParticipantState) -> str:
    """Whether it takes connections where its routes are. Raises ConnectionLost."""
    port = gateway.http or gateway.https
    if not port or state.document is None or not any(not route.listen for route in state.document.routes):
        return ""
    try:
        transport.connect_tcp(gateway.address, port, DIAL_S).close()
    except ConnectionLost:
        raise
    except K4tError as error:
        return error.message
    return ""


def _answer(future: Future[Answer], asked_from: str) -> Answer:
    known = future.done() and future.exception() is None
    return future.result() if known else Answer(None, asked_from)


def _worst(dialed: Iterable[tuple[_Dial, Future[Answer]]]) -> dict[EndpointKey, Answer]:
    found: dict[EndpointKey, Answer] = {}
    for dial, future in dialed:
        key = (dial.endpoint.container, dial.endpoint.port)
        answer = _answer(future, dial.gateway)
        before = found.get(key)
        if before is None or (answer.problem and not before.problem):
            found[key] = answer
    return found
