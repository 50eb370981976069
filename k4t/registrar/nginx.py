"""nginx 1.22 or newer by files that it includes: `nginx -t` on a copy, rename, reload, and ask what it has loaded.

Our own nginx is two (see nginx_setup): the router, which has the routes, and a front before it, which has the clients'
connections and is loaded anew only when certificates or ports change. An operator's nginx includes the routes itself.
Each configuration carries a hash of itself, its generation, and the workers that run it answer with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tempfile
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from . import files, nginx_process, nginx_render, nginx_setup, nginx_stream, nginx_text
from .document import Document
from .errors import Damaged, Refused, VendorRefused, VendorSilent
from .nginx_text import Place
from .routing import Routing, routing
from .union import Union
from .vendor import Rendering, Vendor

STATUS = "127.0.0.1:9902"
USUAL_CONF = "/etc/nginx/nginx.conf"
SHOWN_LINES = 4
ONLY = "nginx"
NO_STREAM = "nginx has no stream module here: apt-get install libnginx-mod-stream, then k4t gateway install again"
Port = Tuple[int, str]


@dataclasses.dataclass(frozen=True)
class Instance:
    """One nginx: its main configuration, the files of ours that it includes (the first has its generation in it), and
    where it says which generation it runs."""

    name: str
    conf: str
    includes: Tuple[str, ...]
    status: str


class Nginx(Vendor):
    """config.json: binary, http, https (0: no listener of ours), ipv6, own (we start it); where we don't: conf (its
    main configuration), status (HOST:PORT where its generation is asked for)."""

    kind = "gateway"

    def __init__(self, root: str, config: Mapping[str, Any]) -> None:
        super().__init__(root, config)
        self.above = root.rstrip("/")
        self.own = bool(config.get("own", True))
        self.binary = str(config.get("binary") or "nginx")
        self.run = os.path.join(root, "run/k4t/nginx")
        self.place = Place(
            self.run,
            int(config.get("http") or 0),
            int(config.get("https") or 0),
            bool(config.get("ipv6", True)),
            self.own,
            str(config.get("status") or STATUS),
        )
        directory = os.path.join(root, "var/lib/k4t/nginx")
        self.http, self.stream, self.front = (
            os.path.join(directory, name) for name in ("http.conf", "stream.conf", "front.conf")
        )
        self.checked: Dict[str, List[str]] = {}
        self._module: Optional[str] = None

    @property
    def instances(self) -> Tuple[Instance, ...]:
        """In the order in which they are to be loaded anew: what is led to, then what leads there."""
        routes = (self.http, self.stream)
        if not self.own:
            return (Instance(ONLY, str(self.config.get("conf") or USUAL_CONF), routes, self.place.status),)
        router = Instance("router", self.above + nginx_setup.ROUTER, routes, self.place.socket("router"))
        front = Instance("front", self.above + nginx_setup.FRONT, (self.front,), self.place.socket("front"))
        return (router, front)

    @property
    def module(self) -> str:
        """The stream module's file, "built-in", or "" where there is none."""
        if self._module is None:
            self._module = nginx_process.stream_module(self.binary)
        return self._module

    def _streams(self) -> bool:
        if not self.own:
            return bool(self.module)
        return "\nstream {" in (files.read(self.above + nginx_setup.ROUTER) or "")

    # --- set up ----------------------------------------------------------------------------------------------

    def setup_files(self) -> Dict[str, str]:
        empty = self.render(Union())
        made = {path: text for path, text in empty.items() if not os.path.exists(path)}
        if self.own:
            made.update({instance.conf: self._main(instance, self.run) for instance in self.instances})
            units = nginx_setup.units(self.binary, self.run)
            made.update({self.above + path: text for path, text in units.items()})
        return made

    def _main(self, instance: Instance, run: str, directory: str = "") -> str:
        """`directory`: where copies of what it includes stand."""
        includes = [
            os.path.join(directory, os.path.basename(path)) if directory else path for path in instance.includes
        ]
        if instance.name == "front":
            return nginx_setup.front(run, includes[0])
        return nginx_setup.router(run, includes[0], includes[1], self.module)

    # --- candidates --------------------------------------------------------------------------------------------

    def supports(self, document: Document) -> None:
        doors = {self.place.http: "http", self.place.https: "https"}
        for route in document.routes:
            if route.upstream == "h2c" and not route.listen:
                raise VendorRefused('a route of app %s: nginx has no upstream="h2c"' % route.app)
            if route.listen in doors and route.listen and route.protocol == "tcp":
                said = (route.app, route.listen, doors[route.listen])
                raise VendorRefused("a route of app %s: port %d is the gateway's %s port" % said)
            if route.listen and not self._streams():
                raise VendorRefused("a route of app %s (listen %d): %s" % (route.app, route.listen, NO_STREAM))

    def render(self, union: Union) -> Rendering:
        made = routing(union, self.root)
        return self._texts(made, self.place)

    def _texts(self, made: Routing, place: Place) -> Rendering:
        http, stream = nginx_render.http(made, place), nginx_stream.stream(made, place)
        said = nginx_text.generation("\n".join(http), "\n".join(stream))
        status = place.socket("router") if place.own else place.status
        texts = {
            self.http: nginx_text.text_of([*http, *nginx_text.status_server(status, said)]),
            self.stream: nginx_text.text_of(stream),
        }
        if place.own:
            front = nginx_render.front(made, place)
            said = nginx_text.generation("\n".join(front))
            texts[self.front] = nginx_text.text_of([*front, *nginx_text.status_server(place.socket("front"), said)])
        return texts

    def check(self, rendering: Rendering) -> None:
        """Free ports, and `nginx -t` on a copy (about 20 ms), unless only members differ from what stands there."""
        for instance in self.instances:
            wanted, there = _part(rendering, instance), self._on_disk(instance)
            structure = [nginx_text.structure(text) for text in wanted.values()]
            stands = [nginx_text.structure(there[path] or "") for path in wanted]
            if structure not in (stands, self.checked.get(instance.name)):
                self._check_ports(wanted, instance)
                self._test(wanted, instance)
                self.checked[instance.name] = structure

    def _check_ports(self, wanted: Mapping[str, str], instance: Instance) -> None:
        """nginx finds out only when it is too late. An operator's nginx may share ports with what else it has."""
        if not self.own:
            return
        had = set() if self._running(instance) is None else _ports(self._on_disk(instance))
        new = _ports(wanted) - had
        taken = sorted(new & nginx_process.ports_open()) if new else []
        if taken:
            raise VendorRefused("port %d/%s of this host is in use by another program" % taken[0])

    def _test(self, wanted: Mapping[str, str], instance: Instance) -> None:
        with tempfile.TemporaryDirectory(prefix="k4t-nginx-") as directory:
            texts = {os.path.join(directory, "nginx.conf"): self._main(instance, directory, directory)}
            for path, text in wanted.items():
                texts[os.path.join(directory, os.path.basename(path))] = text.replace(self.run, directory)
            for path, text in texts.items():
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
            said = nginx_process.test(self.binary, os.path.join(directory, "nginx.conf"))
            if said:
                raise VendorRefused("nginx refuses it: " + said.replace(directory + "/", ""))

    # --- in step -----------------------------------------------------------------------------------------------

    def install(self, rendering: Rendering) -> str:
        pending = ""
        for instance in self.instances:
            pending = self._bring(_part(rendering, instance), instance) or pending
        return pending

    def _bring(self, wanted: Dict[str, str], instance: Instance) -> str:
        """Write what differs; load it where it matters to nginx, or where that has loaded something else."""
        old = self._on_disk(instance)
        running = self._running(instance)
        said = _said(wanted, instance)
        same = all(nginx_text.matter(old[path] or "") == nginx_text.matter(text) for path, text in wanted.items())
        try:
            for path, text in wanted.items():
                if old[path] != text:
                    files.write(path, text)
            return "" if running == said and same else self._load(instance, said)
        except Refused:
            with contextlib.suppress(Refused):
                self._restore(old, instance)
            raise

    def _load(self, instance: Instance, said: str) -> str:
        pid = nginx_process.master(instance.conf, USUAL_CONF)
        if not pid:
            return self._asleep(instance)
        if not self.own:  # together with the operator's own
            words = nginx_process.test(self.binary, instance.conf)
            if words:
                raise VendorRefused("nginx refuses it: " + words)
        try:
            nginx_process.reload(pid, instance.status, said, lambda: nginx_process.test(self.binary, instance.conf))
        except VendorSilent as silent:
            if nginx_process.master(instance.conf, USUAL_CONF) != pid:
                return self._asleep(instance)
            raise VendorRefused("%s; %s" % (silent, self._include(instance))) from silent
        return ""

    def _restore(self, old: Mapping[str, Optional[str]], instance: Instance) -> None:
        for path, text in old.items():
            if text is None:
                files.remove(path)
            elif files.read(path) != text:
                files.write(path, text)
        pid = nginx_process.master(instance.conf, USUAL_CONF)
        said = _said({path: text or "" for path, text in old.items()}, instance)
        if pid and said and self._running(instance) not in (None, said):
            nginx_process.reload(pid, instance.status, said, str)

    def _on_disk(self, instance: Instance) -> Dict[str, Optional[str]]:
        return {path: _read(path) for path in instance.includes}

    def _running(self, instance: Instance) -> Optional[str]:
        try:
            return nginx_process.ask(instance.status)
        except VendorSilent:
            return None

    def _asleep(self, instance: Instance) -> str:
        name = "nginx" if instance.name == ONLY else "nginx (%s)" % instance.name
        return "%s doesn't answer at %s; its files are in place and are read when it starts" % (name, instance.status)

    def _include(self, instance: Instance) -> str:
        if self.own:
            return "see its log"
        return "%s must include k4t's files (k4t gateway install says how)" % instance.conf

    # --- read back ---------------------------------------------------------------------------------------------

    def verify(self, rendering: Rendering) -> List[str]:
        found: List[str] = []
        for instance in self.instances:
            wanted = _part(rendering, instance)
            disk = self._on_disk(instance)
            edited = [_difference(path, disk[path], wanted[path]) for path in wanted if disk[path] != wanted[path]]
            running, said = self._running(instance), _said(wanted, instance)
            if running is None:
                found.append(self._asleep(instance))
            elif running != said:
                found.append("nginx (%s) runs configuration %s of k4t's, not %s" % (instance.name, running, said))
            elif not self.own and _ports(wanted):  # it may include one of our files and not the other
                closed = sorted(_ports(wanted) - nginx_process.ports_open())
                found += ["port %d/%s is not open; %s" % (*port, self._include(instance)) for port in closed]
            found += edited
        return found


def _read(path: str) -> Optional[str]:
    """None for a file that is missing; "" for one that is no text."""
    try:
        return files.read(path)
    except Damaged:
        return ""


def _part(rendering: Rendering, instance: Instance) -> Dict[str, str]:
    return {path: rendering[path] for path in instance.includes}


def _said(wanted: Mapping[str, str], instance: Instance) -> str:
    """The generation, as the status server at the end of the first file says it."""
    found = re.findall(r"return 200 ([0-9a-f]{16});", wanted[instance.includes[0]])
    return str(found[-1]) if found else ""


def _ports(texts: Mapping[str, Optional[str]]) -> Set[Port]:
    """What these files have nginx listen on, in the form that we write."""
    lines = [line.split() for text in texts.values() for line in (text or "").splitlines()]
    said = [line for line in lines if line[:1] == ["listen"] and line[1].rstrip(";").isdigit()]
    return {(int(words[1].rstrip(";")), "udp" if "udp" in words else "tcp") for words in said}


def _difference(path: str, there: Optional[str], wanted: str) -> str:
    """In words: the first lines of a diff."""
    if there is None:
        return "%s is missing" % path
    import difflib  # late: only when somebody was here

    changed = [
        line[0] + " " + " ".join(line[1:].split())
        for line in difflib.unified_diff(wanted.splitlines(), there.splitlines(), n=0, lineterm="")
        if line[0] in "+-" and not line.startswith(("+++", "---"))
    ]
    more = " (and %d more lines)" % (len(changed) - SHOWN_LINES) if len(changed) > SHOWN_LINES else ""
    return "%s is not what k4t wrote: %s%s" % (path, "; ".join(changed[:SHOWN_LINES]) or "white space", more)
