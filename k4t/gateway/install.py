"""`k4t gateway install`: a host with nothing but a vendor's program becomes a gateway. What vendors differ in stands
in a file each: `plan_install` (what is there, what is to be done) and `service` (how it is run)."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from k4t.gateway import install_envoy, install_haproxy, install_nginx
from k4t.gateway.script import Script, gateway_verbs
from k4t.model.hosts import Gateway
from k4t.remote import setup

if TYPE_CHECKING:
    from k4t.remote.transport import Transport

VENDORS: dict[str, ModuleType] = {
    "envoy": install_envoy,
    "haproxy": install_haproxy,
    "nginx": install_nginx,
}


def plan_install(found: setup.Survey, gateway: Gateway) -> setup.InstallPlan:
    """Raises StepError when the vendor's program isn't there."""
    made: setup.InstallPlan = VENDORS[gateway.driver].plan_install(found, gateway)
    return made


def install(transport: Transport, gateway: Gateway) -> Iterator[str]:
    """Make the host a gateway; what was done, line by line. Doing it again says that there is nothing to do."""
    if gateway.driver == "script":
        yield from setup.scripts(
            transport, "gateway", gateway.name, Script.registrar, {"verbs": gateway_verbs(gateway)}
        )
        return
    vendor = VENDORS[gateway.driver]
    found = setup.survey(transport, vendor.BINARY)
    plan = plan_install(found, gateway)
    service: setup.Service = vendor.service(plan)
    at_work = setup.Setup(transport, "gateway", gateway.name, gateway.driver)
    yield from setup.carry_out(transport, found, plan, at_work, service)
    if plan.own:
        where = f"listens on port {gateway.http} and" if gateway.http else "has no listener (http is 0), and"
        yield f"{service.vendor} {where} serves what it should"
