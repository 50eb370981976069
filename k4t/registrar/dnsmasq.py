"""dnsmasq by a file in its hostsdir: a change takes effect at once, without a signal (2.90; older ones want SIGHUP).

All names stand in one file, so that a publication is one rename. dnsmasq serves any file in that directory that has
no dot in front, a half-written `x.tmp` too: files are written outside and renamed in. What it really serves is
asked by DNS.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Dict, List, Mapping, Sequence

from . import dnsquery, files, hostsfile
from .document import Document
from .errors import VendorSilent
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
        hostsfile.supports(document, "dnsmasq")

    def render(self, union: Union) -> Rendering:
        return {self.path: hostsfile.text(union)}

    def check(self, rendering: Rendering) -> None:
        """dnsmasq has no checker for hosts files (`--test` reads its configuration)."""
        hostsfile.check(rendering[self.path])

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
        gone = (before | set(hostsfile.names(old))) - set(hostsfile.names(new))
        if gone != before:
            files.write(self.gone, "".join(name + "\n" for name in sorted(gone)))

    def _settle(self, text: str) -> str:
        started, signalled = time.monotonic(), False
        while True:
            try:
                differences = self._ask(text)
            except VendorSilent as silent:
                return _asleep(silent)
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
            return [_asleep(silent), *found]

    def _ask(self, text: str) -> List[str]:
        wanted = hostsfile.names(text)
        strays = (files.read(self.gone) or "").split() + list(hostsfile.names(files.read(self.path) or ""))
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


def _asleep(silent: VendorSilent) -> str:
    return "dnsmasq doesn't answer (%s); its hosts file is in place and is read when it starts" % silent


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
