"""HAProxy 2.6 or newer: its runtime socket and one file in step.

Members of a backend come and go over the socket, and the file is written so that a restart serves the same. What
changes the structure (routes, backends, ports, certificates) is checked by `haproxy -c`, written, and loaded by a
reload of the master process, which loses no connection: the new worker takes over the sockets of the old one. The
structure carries a hash of itself into the process, which is asked for it.
"""

from __future__ import annotations

import dataclasses
import os
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from . import files, haproxy_checker, haproxy_members, haproxy_socket
from .checks import POLL_S, SLOWEST_POLL_S, failing, patience_s
from .document import Document
from .errors import Refused, VendorRefused, VendorSilent
from .haproxy_file import GENERATION, generation, split, with_members
from .haproxy_members import Key
from .haproxy_render import Place, Rendered, app_of, render
from .haproxy_setup import BASE, UNIT, base, unit
from .haproxy_socket import Server
from .routing import Certificate, routing
from .union import Union
from .vendor import Rendering, Vendor

RELOAD_S = 5.0
OLDEST = (2, 6)


class HAProxy(Vendor):
    """config.json: binary, http, https (0: no listener of ours), ipv6, own (we start it)."""

    kind = "gateway"

    def __init__(self, root: str, config: Mapping[str, Any]) -> None:
        super().__init__(root, config)
        self.directory = os.path.join(root, "var/lib/k4t/haproxy")
        self.file = os.path.join(self.directory, "k4t.cfg")
        self.own = bool(config.get("own", True))
        self.place = Place(
            self.directory,
            int(config.get("http") or 0),
            int(config.get("https") or 0),
            bool(config.get("ipv6", True)),
            self.own,
        )
        self.checked: Dict[str, str] = {}

    # --- set up ----------------------------------------------------------------------------------------------

    def setup_files(self) -> Dict[str, str]:
        made: Dict[str, str] = {}
        if not os.path.exists(self.file):
            empty = self.render(Union())
            made = {path: _text(value) for path, value in empty.items()}
        if self.own:
            above = self.root.rstrip("/")
            made[above + BASE] = base()
            made[above + UNIT] = unit(str(self.config.get("binary", "haproxy")))
        return made

    # --- candidates --------------------------------------------------------------------------------------------

    def supports(self, document: Document) -> None:
        taken = {self.place.http: "http", self.place.https: "https"}
        for route in document.routes:
            if route.listen and route.protocol == "udp":
                raise VendorRefused("a route of app %s (listen %d): HAProxy has no UDP" % (route.app, route.listen))
            if route.tls and not route.listen and self.own and not self.place.https:
                said_ = "this gateway has no https port (set https in the tree, then k4t gateway install)"
                raise VendorRefused("a route of app %s: %s" % (route.app, said_))
            if route.listen and route.listen in taken:
                said = (route.app, route.listen, taken[route.listen])
                raise VendorRefused("a route of app %s: port %d is the gateway's %s port" % said)

    def render(self, union: Union) -> Rendering:
        """Reads certificates: HAProxy wants chain and key in one file."""
        made = routing(union, self.root)
        pems: Dict[str, str] = {}
        problems: List[str] = []
        for certificate in made.certificates:
            pems[certificate.name] = _pem(certificate, problems)
        rendered = dataclasses.replace(render(made, self.place, pems), problems=tuple(problems))
        return {self.file: rendered, **rendered.files}

    def check(self, rendering: Rendering) -> None:
        """`haproxy -c`, and whether new ports are free, unless HAProxy's file has this structure already."""
        wanted: Rendered = rendering[self.file]
        if wanted.problems:
            raise VendorRefused("; ".join(wanted.problems[:5]))
        current = split(files.read(self.file) or "")[0]
        candidate = {"": wanted.structure, **wanted.files}
        if candidate == self.checked or candidate == {"": current, **{path: files.read(path) for path in wanted.files}}:
            return
        running = self._running_generation()
        taken = haproxy_checker.ports_taken(wanted.structure, current if running is not None else "")
        if taken and running in (None, generation(current)):
            raise VendorRefused("port %d of this host is in use by another program" % taken[0])
        haproxy_checker.check(self._arguments(), self.file, rendering, self.directory)
        self.checked = candidate

    def _arguments(self) -> Sequence[str]:
        """The program and its configuration files: ours, or those that the operator's process was started with."""
        binary = str(self.config.get("binary") or "haproxy")
        if self.own:
            return [binary, "-f", self.root.rstrip("/") + BASE, "-f", self.file]
        try:
            pid, argv = haproxy_socket.master(self._pid())
            options = haproxy_checker.file_options(argv, os.readlink("/proc/%d/cwd" % pid))
        except (VendorSilent, OSError):
            options = []
        return [binary, *(options if self.file in options else [*options, "-f", self.file])]

    def _pid(self) -> int:
        return int(haproxy_socket.information(self.place.socket).get("Pid", "0"))

    def _running_generation(self) -> Optional[str]:
        try:
            return haproxy_socket.environment(self.place.socket, GENERATION)
        except VendorSilent:
            return None

    # --- in step -----------------------------------------------------------------------------------------------

    def install(self, rendering: Rendering) -> str:
        old = self._on_disk()
        if not self._verify_files(rendering, old) and not self.verify(rendering):
            return ""
        if self._running_generation() is None:
            return self._leave(rendering)
        known = {(name, one) for name, found in split(old.get(self.file) or "")[1].items() for one in found}
        try:
            self._write_named(rendering)
            sick = self._bring(rendering, old)
        except VendorSilent:  # it went away meanwhile
            return self._leave(rendering)
        except Refused:
            self._restore(old)
            raise
        self._tidy(rendering)
        return failing("HAProxy", ("%s: %s" % (app_of(backend), name) for backend, name in sick - known))

    def _leave(self, rendering: Rendering) -> str:
        """All files for an HAProxy that isn't there; in words."""
        self._write_all(rendering, _text(rendering[self.file]))
        self._tidy(rendering)
        return self._asleep()

    def _bring(self, rendering: Rendering, old: Rendering) -> Set[Key]:
        """What leaves goes first; then the structure; then what is new, proven; then what it stood in for. What fails
        its check."""
        wanted: Rendered = rendering[self.file]
        before = self._servers(wanted, old)
        change = haproxy_members.change(wanted.members, before)
        reload = self._must_reload(rendering, old, before)
        # Where nothing is left of a backend, its routes may be on their way to another: they go first.
        leaving = [key for key in change.leaving if not reload or _left(wanted, key)]
        haproxy_socket.tell(self.place.socket, haproxy_members.withdraw(leaving))
        sick = {(server.backend, server.name) for server in before if server.ready and not server.running}
        if reload:
            start = haproxy_members.for_reload(wanted.members, before)
            self._write_all(rendering, with_members(wanted.structure, start))
            self._reload(generation(wanted.structure))
            before = self._servers(wanted, {})
            change = haproxy_members.change(wanted.members, before)
            haproxy_socket.tell(self.place.socket, haproxy_members.withdraw(change.leaving))
        self._write_all(rendering, wanted.text)
        self._renew(wanted)
        failed = self._add(wanted, change.fresh, before, sick)
        haproxy_socket.tell(self.place.socket, haproxy_members.withdraw([*change.kept, *change.leftover]))
        gone = [*change.leaving, *change.kept, *change.leftover]
        haproxy_socket.tell(self.place.socket, haproxy_members.delete(gone))
        return failed

    def _renew(self, wanted: Rendered) -> None:
        """Certificates that the process has otherwise: replaced in it, so that open connections go on."""
        for path in self._stale_certificates(wanted):
            said = haproxy_socket.renew(self.place.socket, path, wanted.files[path])
            if said:
                raise VendorRefused("HAProxy refuses certificate %s: %s" % (path, said[:500]))

    def _stale_certificates(self, wanted: Rendered) -> List[str]:
        pems = sorted(path for path in wanted.files if path.endswith(".pem"))
        served = haproxy_socket.fingerprints(self.place.socket, pems)
        return [path for path in pems if served.get(path) != haproxy_socket.fingerprint(wanted.files[path])]

    def _servers(self, wanted: Rendered, old: Rendering) -> List[Server]:
        """Of our own backends alone."""
        ours = set(wanted.members) | set(split(old.get(self.file) or "")[1])
        return [server for server in haproxy_socket.servers(self.place.socket) if server.backend in ours]

    def _must_reload(self, rendering: Rendering, old: Rendering, before: Sequence[Server]) -> bool:
        wanted: Rendered = rendering[self.file]
        if split(old.get(self.file) or "")[0] != wanted.structure or self._verify_structure(rendering):
            return True
        return any(haproxy_members.astray(wanted.members, server) for server in before)

    def _add(self, wanted: Rendered, fresh: Sequence[Key], before: Sequence[Server], sick: Set[Key]) -> Set[Key]:
        """Add what is new to the running process; those that have not passed HAProxy's check."""
        there = {(server.backend, server.name) for server in before}
        checked = [key for key in fresh if wanted.members[key[0]].checked]
        passed = set(fresh) - set(checked)
        asked = [key for key in checked if key not in sick]
        if asked:
            self._tell(haproxy_members.probe(wanted.members, asked, there))
            passed |= self._prove(wanted, asked)
        self._tell(haproxy_members.add(wanted.members, fresh, passed, there))
        haproxy_socket.tell(self.place.socket, haproxy_members.end_probes(asked))
        return set(checked) - passed

    def _prove(self, wanted: Rendered, asked: Sequence[Key]) -> Set[Key]:
        """Wait until their probes have passed, at most as long as a check may take."""
        deadline = time.monotonic() + patience_s(wanted.members[name].check_timeout_ms / 1000 for name, _ in asked)
        probes = {(name, haproxy_members.PROBE + server): (name, server) for name, server in asked}
        pause_s = POLL_S
        while True:
            now = haproxy_socket.servers(self.place.socket)
            passed = {(one.backend, one.name) for one in now if one.running and one.passed} & set(probes)
            if len(passed) == len(probes) or time.monotonic() >= deadline:
                return {probes[key] for key in passed}
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, SLOWEST_POLL_S)

    def _tell(self, commands: Sequence[str]) -> None:
        said = haproxy_socket.tell(self.place.socket, commands)
        if said:
            raise VendorRefused("HAProxy refuses it: " + " ".join(said)[:500])

    def _reload(self, wanted: str) -> None:
        """Have the master start a new worker. Raises VendorRefused when none comes that has this generation."""
        information = haproxy_socket.information(self.place.socket)
        if haproxy_socket.version(information) < OLDEST:
            raise VendorRefused("HAProxy here is %s; 2.6 or newer is needed" % information.get("Version"))
        pid = int(information.get("Pid", "0"))
        master, _ = haproxy_socket.master(pid)
        if not master:
            raise VendorRefused("HAProxy (pid %d) runs without a master process; start it with -W or -Ws" % pid)
        failed = haproxy_checker.failed_reloads(master)
        haproxy_checker.reload(master)
        deadline = time.monotonic() + RELOAD_S
        while time.monotonic() < deadline and haproxy_checker.failed_reloads(master) <= failed:
            try:
                loaded = self._pid() != pid and self._running_generation() == wanted
                if loaded and not haproxy_checker.accepts(pid):
                    return
            except VendorSilent:
                pass
            time.sleep(POLL_S)
        raise VendorRefused("HAProxy has not loaded %s; %s" % (self.file, self._include()))

    def _write_all(self, rendering: Rendering, text: str) -> None:
        """What is named first, then the one file that names it."""
        self._write_named(rendering)
        if files.read(self.file) != text:
            files.write(self.file, text)

    def _write_named(self, rendering: Rendering) -> None:
        for path, content in rendering.items():
            if path != self.file and files.read(path) != content:
                files.write(path, content, _mode(path))

    def _restore(self, old: Rendering) -> None:
        """The last good file again, and everything in it ready; a master that failed to start a worker starts one."""
        text = old.get(self.file)
        if text is None:
            return
        for path, content in old.items():
            if content is not None and files.read(path) != content:
                files.write(path, content, _mode(path))
        structure, members = split(text)
        keys = [(name, server) for name, found in members.items() for server in found]
        try:
            haproxy_socket.tell(self.place.socket, ["set server %s/%s state ready" % key for key in keys])
            master, _ = haproxy_socket.master(self._pid())
            if master and generation(structure):
                haproxy_checker.reload(master)
        except VendorSilent:
            return

    def _tidy(self, rendering: Rendering) -> None:
        """What the process doesn't name any more."""
        for path in self._on_disk():
            if path not in rendering:
                files.remove(path)

    def _on_disk(self) -> Rendering:
        """Path to text of every file of ours."""
        paths = [self.file]
        for part in ("maps", "certificates"):
            directory = os.path.join(self.directory, part)
            if os.path.isdir(directory):
                paths += [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
        return {path: files.read(path) for path in paths}

    def _asleep(self) -> str:
        where = self.place.socket
        return "HAProxy doesn't answer at %s; its files are in place and are read when it starts" % where

    def _include(self) -> str:
        if self.own:
            return "see its log"
        return "it must be started with -f %s (k4t gateway install says how); see its log" % self.file

    # --- read back ---------------------------------------------------------------------------------------------

    def verify(self, rendering: Rendering) -> List[str]:
        found = self._verify_files(rendering, self._on_disk())
        try:
            structure = self._verify_structure(rendering)
            if not structure:
                stale = self._stale_certificates(rendering[self.file])
                structure = ["certificate %s is not what is loaded" % path for path in stale]
            return found + structure + self._verify_members(rendering[self.file])
        except VendorSilent:
            return [self._asleep(), *found]

    def _verify_files(self, rendering: Rendering, old: Rendering) -> List[str]:
        return files.edited({path: _text(value) for path, value in rendering.items()}, old)

    def counters(self, apps: Sequence[str]) -> Dict[Tuple[str, str], int]:
        return _added_up(haproxy_socket.sessions(self.place.socket), apps)

    def _verify_structure(self, rendering: Rendering) -> List[str]:
        """What the process has loaded. Raises VendorSilent."""
        path = self.place.socket
        wanted: Rendered = rendering[self.file]
        loaded = haproxy_socket.environment(path, GENERATION)
        if loaded != generation(wanted.structure):
            return ["HAProxy runs configuration %s of k4t's, not %s" % (loaded, generation(wanted.structure))]
        maps = haproxy_socket.maps(path, self.place.path("maps"))
        found = []
        for name, text in sorted(wanted.files.items()):
            if name.endswith(".map") and sorted(maps.get(name, [])) != sorted(text.splitlines()):
                found += ["%s: %s" % (os.path.basename(name), words) for words in _compare(text, maps.get(name))]
        return found

    def _verify_members(self, wanted: Rendered) -> List[str]:
        found = []
        served = {(one.backend, one.name): one for one in haproxy_socket.servers(self.place.socket)}
        for name, members in sorted(wanted.members.items()):
            for server, address in sorted(members.servers.items()):
                one = served.get((name, server))
                if one is None or one.maintenance or one.draining:
                    words = "not served" if one is None else "in maintenance" if one.maintenance else "drained"
                    found.append("%s: %s is %s" % (name, address, words))
                elif one.address != address:
                    found.append("%s: %s leads to %s" % (name, server, one.address))
        for (name, server), one in sorted(served.items()):
            if name in wanted.members and server not in wanted.members[name].servers and one.ready:
                found.append("%s: %s is served but not published" % (name, one.address))
        return found


def _added_up(found: Mapping[Tuple[str, str], int], apps: Sequence[str]) -> Dict[Tuple[str, str], int]:
    """Over all backends of an app: our servers are called by their address (haproxy_render)."""
    totals: Dict[Tuple[str, str], int] = {}
    for (backend, server), number in found.items():
        app = backend.split(".", 1)[0]
        if app in apps and "." in backend:
            totals[app, server] = totals.get((app, server), 0) + number
    return totals


def _mode(path: str) -> int:
    return 0o600 if path.endswith(".pem") else 0o644


def _text(value: Any) -> str:
    return value.text if isinstance(value, Rendered) else str(value)


def _left(wanted: Rendered, key: Key) -> bool:
    """Its backend stays, with other servers."""
    return key[0] in wanted.members and bool(wanted.members[key[0]].servers)


def _compare(text: str, served: Optional[Sequence[str]]) -> List[str]:
    if served is None:
        return ["is not loaded"]
    wanted, now = set(text.splitlines()), set(served)
    found = ["%s is not served" % line for line in sorted(wanted - now)]
    return (found + ["%s is served but not published" % line for line in sorted(now - wanted)])[:5]


def _pem(certificate: Certificate, problems: List[str]) -> str:
    """Chain and key in one; "" (and a problem) when one can't be read."""
    parts = []
    for path in (certificate.chain_path, certificate.key_path):
        try:
            with open(path, encoding="ascii") as file:
                parts.append(file.read().rstrip("\n") + "\n")
        except (OSError, UnicodeDecodeError) as error:
            problems.append("certificate %s: can't read %s: %s" % (certificate.name, path, error))
    return "".join(parts) if len(parts) == 2 else ""
