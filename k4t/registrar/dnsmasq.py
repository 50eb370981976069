"""dnsmasq by a file in its hostsdir: a change takes effect at once, without a signal (2.90; older ones want SIGHUP).

All names stand in one file, so that a publication is one rename. dnsmasq serves any file in that directory that has
no dot in front, a half-written `x.tmp` too: files are written outside and renamed in. What it really serves is
asked by DNS.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import time
from typing import Any, Dict, List, Mapping, Sequence, Set, Tuple

from . import dnsquery, files
from .document import Document
from .errors import VendorRefused, VendorSilent
from .store import Holding
from .union import Union, full_name, record_clashes
from .vendor import Rendering, Vendor

CONF = "/etc/k4t/dnsmasq/dnsmasq.conf"
DROP_IN = "/etc/dnsmasq.d/k4t.conf"
UNIT = "/etc/systemd/system/k4t-dnsmasq.service"
PID_FILE = "/run/k4t-dnsmasq.pid"
TTL_S = 1
"""Of all names: hosts files have no TTL of their own. The least there is, so that no client remembers a name for
longer than its record allows, which is how long k4t waits before what it named goes."""
SETTLE_S = 0.3
AWAIT_S = 3.0
POLL_S = 0.001


class Dnsmasq(Vendor):
    """config.json: address, port, zones, binary, own (we start it), drop_in (its conf-dir is in use)."""

    kind = "dns"

    def __init__(self, root: str, config: Mapping[str, Any]) -> None:
        super().__init__(root, config)
        self.server = (str(config.get("address", "127.0.0.1")), int(config.get("port", 53)))
        self.path = os.path.join(root, "var/lib/k4t/dnsmasq/hosts/k4t")
        self.staging = os.path.join(root, "var/lib/k4t/dnsmasq/staging")
        self.gone = os.path.join(root, "var/lib/k4t/dnsmasq/gone")

    # --- set up ----------------------------------------------------------------------------------------------

    def setup_files(self) -> Dict[str, str]:
        made = {} if os.path.exists(self.path) else {self.path: ""}
        if self.config.get("own", True):
            made[self.root.rstrip("/") + CONF] = self._conf()
            made[self.root.rstrip("/") + UNIT] = _unit(str(self.config.get("binary", "dnsmasq")))
        elif self.config.get("drop_in"):
            made[self.root.rstrip("/") + DROP_IN] = self.lines()
        return made

    def lines(self) -> str:
        """What an existing dnsmasq must include."""
        zones = "".join("local=/%s/\n" % zone for zone in self.config.get("zones", ()))
        return "hostsdir=%s\n%slocal-ttl=%d\n" % (os.path.dirname(self.path), zones, TTL_S)

    def _conf(self) -> str:
        head = "# Written by k4t; a new `k4t dns install` replaces it.\n"
        listen = "port=%d\nlisten-address=%s\nbind-interfaces\nno-hosts\npid-file=%s\ncache-size=10000\n"
        return head + listen % (self.server[1], self.server[0], self.root.rstrip("/") + PID_FILE) + self.lines()

    # --- candidates --------------------------------------------------------------------------------------------

    def clashes(self, mine: Holding, others: Sequence[Holding]) -> List[str]:
        return record_clashes(mine, others)

    def supports(self, document: Document) -> None:
        for record in document.records:
            if record.type != "address":
                raise VendorRefused("record %s: the dnsmasq driver has no %s records" % (record.name, record.type))

    def render(self, union: Union) -> Rendering:
        """One `address name` a line, sorted; a name without endpoints has no line."""
        lines: Set[Tuple[str, str]] = set()
        for named in union.records:
            record = named.record
            found = record.to or [
                endpoint.ip
                for endpoint in union.endpoints
                if endpoint.app == record.app and record.port_name in ("", endpoint.port_name)
            ]
            if record.type == "address":
                lines.update((named.name, str(ipaddress.ip_address(ip))) for ip in found)
        return {self.path: "".join("%s %s\n" % (ip, name) for name, ip in sorted(lines))}

    def check(self, rendering: Rendering) -> None:
        """Hold names to DNS's limits: dnsmasq has no checker for hosts files (`--test` reads its configuration)."""
        for name in _names(rendering[self.path]):
            if len(name) > 253 or any(not 0 < len(label) <= 63 for label in name.split(".")):
                raise VendorRefused("%s is too long for a DNS name" % name[:80])

    # --- in step -----------------------------------------------------------------------------------------------

    def install(self, rendering: Rendering) -> str:
        text = rendering[self.path]
        old = files.read(self.path)
        self._remember(old or "", text)
        if old != text:
            files.make_directory(self.staging)
            files.write(self.path, text, staging=self.staging)
        return self._settle(text)

    def _remember(self, old: str, new: str) -> None:
        """Names that went, so that every read-back asks that they stay away."""
        before = set((files.read(self.gone) or "").split())
        gone = (before | set(_names(old))) - set(_names(new))
        if gone != before:
            files.write(self.gone, "".join(name + "\n" for name in sorted(gone)))

    def _settle(self, text: str) -> str:
        started, signalled = time.monotonic(), False
        while True:
            try:
                differences = self._ask(text)
            except VendorSilent as silent:
                return "%s; the hosts file is in place and is read when dnsmasq starts" % silent
            waited = time.monotonic() - started
            if not differences or waited > AWAIT_S:
                return ""  # what still differs is for the read-back to say
            if waited > SETTLE_S and not signalled:
                signalled = self._hang_up()
            time.sleep(POLL_S)

    def _hang_up(self) -> bool:
        with contextlib.suppress(OSError, ValueError, TypeError):
            os.kill(int(files.read(self.root.rstrip("/") + PID_FILE) or ""), signal.SIGHUP)
        return True

    # --- read back ---------------------------------------------------------------------------------------------

    def verify(self, rendering: Rendering) -> List[str]:
        text = rendering[self.path]
        found = [] if files.read(self.path) == text else ["%s is not what k4t wrote" % self.path]
        try:
            return found + self._ask(text)
        except VendorSilent as silent:
            return [*found, str(silent)]

    def _ask(self, text: str) -> List[str]:
        wanted = _names(text)
        strays = (files.read(self.gone) or "").split() + list(_names(files.read(self.path) or ""))
        for name in strays:
            wanted.setdefault(name, set())
        if not wanted:  # is it there at all? (a name that it need not ask elsewhere)
            dnsquery.resolve(self.server, full_name("k4t-check", "".join(self.config.get("zones", ())[:1])), "A")
        found = []
        for name, addresses in sorted(wanted.items()):
            served = dnsquery.resolve(self.server, name, "A") | dnsquery.resolve(self.server, name, "AAAA")
            found += ["%s does not give %s" % (name, ip) for ip in sorted(addresses - served)]
            found += ["%s gives %s, which is not published" % (name, ip) for ip in sorted(served - addresses)]
        return found


def _names(text: str) -> Dict[str, Set[str]]:
    """Name to addresses of a hosts file's text."""
    found: Dict[str, Set[str]] = {}
    for line in text.splitlines():
        ip, _, name = line.partition(" ")
        if ip and name and not ip.startswith("#"):
            found.setdefault(name, set()).add(ip)
    return found


def _unit(binary: str) -> str:
    return """\
[Unit]
Description=dnsmasq, kept in step by k4t
After=network-online.target
Wants=network-online.target

[Service]
ExecStart=%s --keep-in-foreground --conf-file=%s
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
""" % (binary, CONF)
