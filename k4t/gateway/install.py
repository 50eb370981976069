"""`k4t gateway install`: a host with nothing but Envoy becomes a gateway; one with an Envoy of its own is told what to
include, and nothing of it is touched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k4t.errors import StepError
from k4t.model.spec import Cluster, Gateway
from k4t.remote import setup

if TYPE_CHECKING:
    from k4t.remote.transport import Transport

BOOTSTRAP = "/etc/k4t/envoy/bootstrap.json"
FILES = "/var/lib/k4t/envoy"
UNIT = "k4t-envoy.service"
LOG = "/var/log/k4t/envoy.log"
PID_FILE = "/run/k4t-envoy.pid"
ADMIN = ("127.0.0.1", 9901)


@dataclass(frozen=True, slots=True)
class InstallPlan:
    """`own`: Envoy runs by our configuration. `pid`: of our Envoy, 0 when it doesn't run."""

    own: bool
    pid: int
    put: bool
    config: dict[str, Any]
    notes: tuple[str, ...] = ()


def plan_install(found: setup.Survey, gateway: Gateway) -> InstallPlan:
    """Raises StepError when there is no Envoy."""
    if not found.binary and not found.processes:
        raise StepError(
            "Envoy is not installed", "put the envoy binary into /usr/local/bin there (envoyproxy.io has packages)"
        )
    pid = found.ours(BOOTSTRAP)
    own = bool(pid) or not found.processes
    binary = found.binary or (found.processes[0][1][0] if found.processes else "envoy")
    config: dict[str, Any] = {"name": gateway.name, "binary": binary, "admin": list(ADMIN), "own": own}
    config |= {"http": gateway.http, "ipv6": found.ipv6}
    notes = [f"port {gateway.https} (https) is left out: this version has no certificates yet"] if gateway.https else []
    if not own:
        notes += [_include(found.processes[0][0])]
    return InstallPlan(own, pid, not found.registrar, config, tuple(notes))


def install(transport: Transport, gateway: Gateway, cluster: Cluster) -> Iterator[str]:  # noqa: ARG001
    """Make the host a gateway; what was done, line by line. Doing it again says that there is nothing to do."""
    found = setup.survey(transport, "envoy")
    plan = plan_install(found, gateway)
    yield from plan.notes
    if plan.put:
        yield f"wrote {setup.put_registrar(transport)}"
    at_work = setup.Setup(transport, "gateway", gateway.name, "envoy")
    try:
        changed = at_work.configure(plan.config)
        yield from (f"wrote {path}" for path in changed)
        if plan.own and (not plan.pid or any(path.endswith(BOOTSTRAP) for path in changed)):
            setup.stop(transport, found, plan.pid)
            yield setup.start(transport, found, UNIT, _argv(plan), log=LOG, pid_file=PID_FILE)
        elif not changed and not plan.put:
            yield "nothing to do"
        problems = at_work.await_answer() if plan.own else []
        if problems:
            said = "" if found.systemd else f" ({setup.tail(transport, LOG)})"
            raise StepError(f"Envoy was started, but: {problems[0]}{said}", f"see {LOG}", host=transport.host)
        if plan.own:
            where = f"listens on port {gateway.http} and" if gateway.http else "has no listener (http is 0), and"
            yield f"Envoy {where} serves what it should"
    finally:
        at_work.close()


def _argv(plan: InstallPlan) -> list[str]:
    return [plan.config["binary"], "-c", BOOTSTRAP, "--log-level", "warning", "--disable-hot-restart"]


def _include(pid: int) -> str:
    def source(kind: str) -> dict[str, Any]:
        watched = {"path": f"{FILES}/{kind}/{kind}.json", "watched_directory": {"path": f"{FILES}/{kind}"}}
        return {"resource_api_version": "V3", "path_config_source": watched}

    admin = {"address": {"socket_address": {"address": ADMIN[0], "port_value": ADMIN[1]}}}
    rds = {"route_config_name": "k4t", "config_source": source("rds")}
    return "\n".join(
        [
            f"an Envoy that is not k4t's runs here (pid {pid}); nothing of it was touched. Include in its",
            "configuration, and restart it:",
            f"  its admin page:            admin: {json.dumps(admin)}",
            f"  k4t's clusters:            dynamic_resources: {json.dumps({'cds_config': source('cds')})}",
            f"  in its connection manager: rds: {json.dumps(rds)}",
        ]
    )
