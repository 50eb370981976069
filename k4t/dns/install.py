"""`k4t dns install`: a host with nothing but dnsmasq becomes a DNS server; one with a dnsmasq of its own gets a drop-in
file where its conf-dir is in use, else it is told the lines to include. A hosts file wants a path alone. For BIND see
install_bind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from k4t.dns import script
from k4t.errors import StepError
from k4t.model.hosts import Dns
from k4t.remote import setup

if TYPE_CHECKING:
    from k4t.remote.transport import Transport

CONF = "/etc/k4t/dnsmasq/dnsmasq.conf"
HOSTS = "/var/lib/k4t/dnsmasq/hosts"
HOSTS_FILE = "/etc/k4t/hosts"
DROP_INS = "/etc/dnsmasq.d"
UNIT = "k4t-dnsmasq.service"
PRIVATE = ("libvirt", "lxd", "lxc", "NetworkManager", "podman", "incus")
"""Words in the arguments of a dnsmasq that serves a bridge of its own, and is in nobody's way."""


def plan_install(found: setup.Survey, dns: Dns) -> setup.InstallPlan:
    """Raises StepError when there is no dnsmasq."""
    if not found.binary and not found.processes:
        raise StepError("dnsmasq is not installed", "apt-get install dnsmasq-base there")
    pid = found.ours(CONF)
    strangers = [
        (other, argv)
        for other, argv in found.processes
        if other != pid and not any(word in part for part in argv for word in PRIVATE)
    ]
    own = bool(pid) or not strangers
    config: dict[str, Any] = {"address": dns.address, "port": dns.port, "zones": [dns.zone]}
    config |= {"binary": found.binary or "dnsmasq", "own": own}
    notes = []
    if not own:
        stranger, argv = strangers[0]
        config["drop_in"] = found.conf_dir == DROP_INS or any(DROP_INS in part for part in argv)
        notes.append(_include(stranger, dns, config["drop_in"]))
    return setup.InstallPlan(own, pid, not found.registrar, config, tuple(notes))


def install(transport: Transport, dns: Dns) -> Iterator[str]:
    """Make the host a DNS server; what was done, line by line. Doing it again says that there is nothing to do."""
    if dns.driver == "script":
        yield from setup.scripts(transport, "dns", dns.name, script.Script.registrar, script.config(dns))
    else:
        yield from (_hosts if dns.driver == "hosts" else _dnsmasq)(transport, dns)


def _hosts(transport: Transport, dns: Dns) -> Iterator[str]:
    """Nothing runs for it: the registrar, and an empty file for whoever reads it."""
    path = dns.path or HOSTS_FILE
    if not setup.survey(transport, "coredns").registrar:
        yield f"wrote {setup.put_registrar(transport)}"
    at_work = setup.Setup(transport, "dns", dns.name, "hosts")
    try:
        changed = at_work.configure({"path": path, "zones": [dns.zone]})
    finally:
        at_work.close()
    yield from (f"wrote {written}" for written in changed)
    if not changed:
        yield "nothing to do"
        return
    yield f"{path} will hold the names of {dns.zone}; CoreDNS serves it with `hosts {path} {dns.zone}` in its Corefile"


def _dnsmasq(transport: Transport, dns: Dns) -> Iterator[str]:
    found = setup.survey(transport, "dnsmasq")
    plan = plan_install(found, dns)
    at_work = setup.Setup(transport, "dns", dns.name, "dnsmasq")
    argv = (plan.config["binary"], "--keep-in-foreground", f"--conf-file={CONF}")
    yield from setup.carry_out(transport, found, plan, at_work, setup.Service("dnsmasq", UNIT, CONF, argv))
    if plan.own:
        yield f"dnsmasq answers at {dns.address}:{dns.port} for {dns.zone}"


def _include(pid: int, dns: Dns, drop_in: bool) -> str:
    if drop_in:
        head = f"a dnsmasq that is not k4t's runs here (pid {pid}), and reads {DROP_INS}: k4t.conf goes there."
        return f"{head} Restart it once: systemctl restart dnsmasq"
    head = f"a dnsmasq that is not k4t's runs here (pid {pid}); nothing of it was touched. Add to its configuration,"
    return "\n".join([head, "and restart it:", f"  hostsdir={HOSTS}", f"  local=/{dns.zone}/", "  local-ttl=1"])
