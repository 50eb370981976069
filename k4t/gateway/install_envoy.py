"""An Envoy of our own is started; one that is there already is told what to include, and nothing of it is touched."""

from __future__ import annotations

import json
from typing import Any

from k4t.errors import StepError
from k4t.model.hosts import Gateway
from k4t.remote import setup

BOOTSTRAP = "/etc/k4t/envoy/bootstrap.json"
FILES = "/var/lib/k4t/envoy"
UNIT = "k4t-envoy.service"
BINARY = "envoy"
ADMIN = ("127.0.0.1", 9901)


def plan_install(found: setup.Survey, gateway: Gateway) -> setup.InstallPlan:
    """Raises StepError when there is no Envoy."""
    if not found.binary and not found.processes:
        raise StepError(
            "Envoy is not installed", "put the envoy binary into /usr/local/bin there (envoyproxy.io has packages)"
        )
    pid = found.ours(BOOTSTRAP)
    own = bool(pid) or not found.processes
    binary = found.binary or (found.processes[0][1][0] if found.processes else "envoy")
    config: dict[str, Any] = {"name": gateway.name, "binary": binary, "admin": list(ADMIN), "own": own}
    config |= {"http": gateway.http, "https": gateway.https, "ipv6": found.ipv6}
    notes = () if own else (_include(found.processes[0][0]),)
    return setup.InstallPlan(own, pid, not found.registrar, config, notes)


def service(plan: setup.InstallPlan) -> setup.Service:
    argv = (plan.config["binary"], "-c", BOOTSTRAP, "--log-level", "warning", "--disable-hot-restart")
    return setup.Service("Envoy", UNIT, BOOTSTRAP, argv)


def _include(pid: int) -> str:
    def source(kind: str) -> dict[str, Any]:
        watched = {"path": f"{FILES}/{kind}/{kind}.json", "watched_directory": {"path": f"{FILES}/{kind}"}}
        return {"resource_api_version": "V3", "path_config_source": watched}

    admin = {"address": {"socket_address": {"address": ADMIN[0], "port_value": ADMIN[1]}}}
    rds = {"route_config_name": "k4t", "config_source": source("rds")}
    files = {"cds_config": source("cds"), "lds_config": source("lds")}
    return "\n".join(
        [
            f"an Envoy that is not k4t's runs here (pid {pid}); nothing of it was touched. Include in its",
            "configuration, and restart it:",
            f"  its admin page:            admin: {json.dumps(admin)}",
            f"  k4t's clusters, and its listeners for tls and listen: dynamic_resources: {json.dumps(files)}",
            f"  in its connection manager: rds: {json.dumps(rds)}",
        ]
    )
