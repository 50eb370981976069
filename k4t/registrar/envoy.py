"""Envoy by files. Each writing carries a version of its own, which is awaited in Envoy's statistics.

New things come in the order EDS, CDS, routes and listeners, and go in the reverse one, so that nothing ever leads to
a cluster that isn't there. The other chapters: envoy_render and envoy_listen (what the files say), envoy_files (where
they stand), envoy_taken (whether Envoy has read them), envoy_compare (what it serves otherwise), envoy_admin (how it
is asked).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from . import envoy_admin, envoy_compare, envoy_listen, envoy_render, envoy_taken, files
from .checks import POLL_S, SLOWEST_POLL_S, failing, patience_s
from .document import Document, Route
from .envoy_files import KINDS, Files, digest, envelope, pairs, resources, with_leaving
from .errors import VendorRefused, VendorSilent
from .routing import Certificate, routing
from .union import Union
from .vendor import Rendering, Vendor

AWAIT_S = 5.0
VALIDATE_S = 20.0
BOOTSTRAP = "/etc/k4t/envoy/bootstrap.json"
UNIT = "/etc/systemd/system/k4t-envoy.service"


class Envoy(Vendor):
    """config.json: name, binary, admin [address, port], http, https (0: no such port of ours), ipv6, own (we start
    it; else the operator does, who includes our files, and has a listener of http of their own)."""

    kind = "gateway"

    def __init__(self, root: str, config: Mapping[str, Any]) -> None:
        super().__init__(root, config)
        host, port = config.get("admin") or ("127.0.0.1", 9901)
        self.admin = (str(host), int(port))
        self.files = Files(os.path.join(root, "var/lib/k4t/envoy"))
        self.own = bool(config.get("own", True))
        self.http, self.https = int(config.get("http") or 0), int(config.get("https") or 0)
        self.checked = ""

    # --- set up ----------------------------------------------------------------------------------------------

    def setup_files(self) -> Dict[str, str]:
        empty = self.render(Union())
        made = {path: envelope(empty[path]) for path in empty if not os.path.exists(path)}
        if not self.own:
            return made
        boot = envoy_listen.bootstrap(
            str(self.config.get("name", "k4t")), self.admin, self._source("lds"), self._source("cds")
        )
        made[self.root.rstrip("/") + BOOTSTRAP] = json.dumps(boot, indent=1) + "\n"
        made[self.root.rstrip("/") + UNIT] = _unit(str(self.config.get("binary", "envoy")))
        return made

    def _source(self, kind: str) -> Dict[str, Any]:
        return envoy_listen.source(self.files.path(kind), self.files.folder(kind))

    def _secret_source(self, certificate: Certificate) -> Dict[str, Any]:
        return envoy_listen.source(self.files.sds(certificate.name), self.files.folder("sds"))

    # --- candidates --------------------------------------------------------------------------------------------

    def supports(self, document: Document) -> None:
        for route in document.routes:
            if wrong := self._wrong(route):
                raise VendorRefused("a route of app %s: %s" % (route.app, wrong))

    def _wrong(self, route: Route) -> str:
        if route.listen and route.tls and route.protocol == "udp":
            return "the envoy driver has no tls for UDP"
        if route.tls and not route.listen and not self.https:
            return "this gateway has no https port (set https in the tree, then k4t gateway install)"
        ours = {self.http: "http", self.https: "https", self.admin[1]: "Envoy's admin page"}
        if route.listen and route.protocol == "tcp" and route.listen in ours:
            return "port %d is taken by %s" % (route.listen, ours[route.listen])
        return ""

    def render(self, union: Union) -> Rendering:
        made = routing(union, self.root)
        clusters = envoy_render.clusters(made.backends, self.files.eds("%s"))
        ports = (self.http if self.own else 0, self.https)
        sources = (self._source("rds"), self._source("rds_https"))
        plain = self.https == 443 and self.http in (0, 80)
        rendering: Rendering = {
            self.files.path("cds"): clusters,
            self.files.path("rds"): [
                envoy_render.route_config(envoy_render.HTTP, made.http, 0 if plain else self.https)
            ],
            self.files.path("rds_https"): [envoy_render.route_config(envoy_render.HTTPS, made.https)],
            self.files.path("lds"): envoy_listen.listeners(
                made, ports, sources, self._secret_source, bool(self.config.get("ipv6", True))
            ),
        }
        for name, secret in envoy_listen.secrets(made.certificates).items():
            rendering[self.files.sds(name)] = [secret]
        for name, assignment in envoy_render.assignments(made.backends).items():
            rendering[self.files.eds(name)] = [assignment]
        return rendering

    def check(self, rendering: Rendering) -> None:
        """`envoy --mode validate` (about 60 ms), unless only endpoints differ from what Envoy already took."""
        found = [path for path in rendering if os.path.dirname(path) != self.files.folder("eds")]
        candidate = {path: rendering[path] for path in found}
        if digest(candidate) == self.checked or {path: resources(path) for path in found} == candidate:
            return
        self._validate(candidate)
        self.checked = digest(candidate)

    def _validate(self, rendering: Rendering) -> None:
        clusters, http, https, listeners = (rendering.get(self.files.path(kind)) or [] for kind in KINDS)
        secrets = {one[0]["name"]: one[0] for path, one in rendering.items() if self._is_secret(path)}
        candidate = envoy_listen.validation(clusters, [*http, *https], listeners, secrets)
        binary = str(self.config.get("binary") or "envoy")
        with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="k4t-envoy-") as file:
            json.dump(candidate, file)
            file.flush()
            command = [binary, "--mode", "validate", "--log-level", "error", "-c", file.name]
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, capture_output=True, timeout=VALIDATE_S, check=False
                )
            except OSError as error:
                raise VendorRefused("can't run %s --mode validate: %s" % (binary, error)) from error
            except subprocess.TimeoutExpired as error:
                raise VendorRefused("envoy --mode validate took longer than %g s" % VALIDATE_S) from error
        if done.returncode:
            raise VendorRefused("Envoy refuses it: " + _words(done.stderr or done.stdout))

    # --- in step -----------------------------------------------------------------------------------------------

    def install(self, rendering: Rendering) -> str:
        old = self.files.on_disk()
        changed = [path for path in rendering if old.get(path) != rendering[path]]
        gone = [path for path in old if path not in rendering]
        if not changed and not gone:
            changed = list(rendering) if self.verify(rendering) else []
        if not changed and not gone:
            return ""
        before = self._counters()
        try:
            if before is not None:
                self._overlap(rendering, old, before)
            self._bring(rendering, old, changed, gone, before)
        except VendorRefused:
            self.files.restore(old, rendering)
            raise
        try:
            return self._asleep() if before is None else self._prove(rendering, old)
        except VendorSilent:  # it went away meanwhile
            return self._asleep()

    def _prove(self, rendering: Rendering, old: Rendering) -> str:
        """Wait for the first health check of what is new: only then does Envoy send to it, and an older one may go.

        In words, what fails it; "" when nothing does.
        """
        added: Set[str] = set()
        checks: Dict[str, str] = {}
        for cluster in rendering[self.files.path("cds")]:
            path = self.files.eds(cluster["name"])
            new = set(pairs(rendering[path])) - set(pairs(old.get(path)))
            if new and "health_checks" in cluster:
                checks[cluster["name"]] = cluster["health_checks"][0]["timeout"]
                added |= {"%s: %s:%d" % (cluster["name"], ip, port) for ip, port in new}
        deadline = time.monotonic() + patience_s(float(text[:-1]) for text in checks.values())
        waiting = set(added)
        pause_s = POLL_S
        while waiting and time.monotonic() < deadline:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, SLOWEST_POLL_S)
            waiting = envoy_admin.failing(self.admin, sorted(checks)) & added
        return failing("Envoy", waiting)

    def _overlap(self, rendering: Rendering, old: Rendering, before: Dict[str, str]) -> None:
        """Where all endpoints are others than before (this host was away for a while), the old ones stay until the
        new ones have passed Envoy's check: between them there would be none to send to."""
        cds = self.files.path("cds")
        swapped: List[Any] = []
        both: Rendering = {cds: swapped}
        for cluster in rendering[cds]:
            path = self.files.eds(cluster["name"])
            now, then = set(pairs(rendering[path])), set(pairs(old.get(path)))
            if "health_checks" in cluster and now and then and not now & then:
                swapped.append(cluster)
                assignment = rendering[path][0]
                both[path] = [dict(assignment, endpoints=[*assignment["endpoints"], *old[path][0]["endpoints"]])]
        if swapped:
            self._await({path: self.files.write(path, both[path]) for path in both if path != cds}, before)
            self._prove(both, old)

    def _bring(
        self,
        rendering: Rendering,
        old: Rendering,
        changed: Sequence[str],
        gone: Sequence[str],
        before: Optional[Dict[str, str]],
    ) -> None:
        """EDS, CDS (with what is still led to), routes and listeners; then CDS without it, and its EDS files away."""
        cds = self.files.path("cds")
        above = [self.files.path(kind) for kind in ("rds", "rds_https", "lds")]
        assignments = [path for path in changed if path != cds and path not in above]
        versions = {path: self.files.write(path, rendering[path]) for path in assignments}
        versions = {path: version for path, version in versions.items() if not self._is_secret(path)}
        both = with_leaving(old.get(cds), rendering[cds])
        if both != (old.get(cds) or []) or (cds in changed and both == rendering[cds]):
            versions[cds] = self.files.write(cds, both)
        self._await(versions, before, _warming_s(rendering[cds]))
        written = {path: self.files.write(path, rendering[path]) for path in above if path in changed}
        read = {path: version for path, version in written.items() if self._read(path, rendering, before or {})}
        self._await(read, before)
        if both != rendering[cds]:
            self._await({cds: self.files.write(cds, rendering[cds])}, before)
        for path in gone:
            files.remove(path)

    def _is_secret(self, path: str) -> bool:
        """Read by listeners, which warm until they have theirs."""
        return os.path.dirname(path) == self.files.folder("sds")

    def _read(self, path: str, rendering: Rendering, before: Mapping[str, str]) -> bool:
        """Whether Envoy will read this file of routes or listeners."""
        listeners = rendering[self.files.path("lds")]
        if path == self.files.path("rds"):
            return bool(self.http) or not self.own
        if path == self.files.path("rds_https"):
            return _has_https(listeners)
        return self.own or bool(listeners) or envoy_taken.subscribed(before, path)

    def _counters(self) -> Optional[Dict[str, str]]:
        try:
            return envoy_admin.counters(self.admin)
        except VendorSilent:
            return None

    def _await(self, versions: Mapping[str, str], before: Optional[Dict[str, str]], warming_s: float = AWAIT_S) -> None:
        """Until Envoy says it has taken these versions and no cluster is warming. Raises VendorRefused."""
        if before is None or not versions:
            return
        began = time.monotonic()
        while True:
            now = self._counters()
            if now is None:
                return  # it went away: all files are written, and read when it starts
            for path in versions:
                if envoy_taken.rejections(now, path) > envoy_taken.rejections(before, path):
                    raise VendorRefused("Envoy refuses %s: %s" % (path, self._reason()))
            waiting = [path for path, version in versions.items() if not envoy_taken.taken(now, path, version)]
            if not waiting and not envoy_taken.warming(now):
                return
            waited_s = time.monotonic() - began
            if not waiting and waited_s >= warming_s:
                return  # verify says so if it stays so
            if waiting and waited_s >= AWAIT_S:
                raise VendorRefused("Envoy has not read %s in %g s; %s" % (waiting[-1], AWAIT_S, self._include()))
            time.sleep(POLL_S)

    def _reason(self) -> str:
        """Its dump names the errors of listeners; its own validation finds words for the rest."""
        try:
            if errors := envoy_admin.Dump(self.admin).errors:
                return "; ".join(errors)[:1000]
            self._validate({path: found for path, found in self.files.on_disk().items() if found})
        except VendorSilent:
            return "it went away"
        except VendorRefused as refusal:
            return str(refusal)
        return "see Envoy's log"

    def _include(self) -> str:
        if self.config.get("own", True):
            return "see its log, and restart it with %s" % BOOTSTRAP
        return "its configuration must include k4t's files (k4t gateway install says how)"

    def _asleep(self) -> str:
        return "Envoy doesn't answer at %s:%d; its files are in place and are read when it starts" % self.admin

    # --- read back ---------------------------------------------------------------------------------------------

    def verify(self, rendering: Rendering) -> List[str]:
        found = self._verify_files(rendering)
        try:
            dump = envoy_admin.Dump(self.admin)
            if envoy_taken.starting(envoy_admin.counters(self.admin)):
                found.append("Envoy is starting: it does not listen yet")
        except VendorSilent:
            return [self._asleep(), *found]
        clusters, http, https, listeners = (rendering[self.files.path(kind)] for kind in KINDS)
        found += envoy_compare.clusters(clusters, dump.clusters)
        found += envoy_compare.listeners(listeners, dump.listeners)
        if self.http or not self.own:
            found += envoy_compare.routes(http[0], dump.routes.get(envoy_render.HTTP))
        if _has_https(listeners):
            found += envoy_compare.routes(https[0], dump.routes.get(envoy_render.HTTPS))
        for name in sorted({cluster["name"] for cluster in clusters} & set(dump.clusters)):
            published = envoy_admin.pairs(rendering[self.files.eds(name)][0])
            found += envoy_compare.endpoints(name, published, dump.endpoints.get(name, []))
        return found

    def _verify_files(self, rendering: Rendering) -> List[str]:
        return files.edited(rendering, self.files.on_disk())

    def counters(self, apps: Sequence[str]) -> Dict[Tuple[str, str], int]:
        return envoy_admin.requests(self.admin, apps)


def _warming_s(clusters: Sequence[Any]) -> float:
    """How long new clusters may warm before routes lead to them: as long as a first health check takes."""
    checked = [cluster for cluster in clusters if "health_checks" in cluster]
    return patience_s((float(cluster["health_checks"][0]["timeout"][:-1]) for cluster in checked), AWAIT_S)


def _has_https(listeners: Sequence[Any]) -> bool:
    return any(str(listener["name"]).startswith("k4t_https_") for listener in listeners)


def _words(output: bytes) -> str:
    """What its log says, without time, place, the name of our temporary file and the whole configuration again."""
    text = re.sub(r"goo\.gle/debug.*?\n: ", "", output.decode("utf-8", "replace"), flags=re.DOTALL)
    text = " ".join(text.split())
    text = re.sub(r"\[[^\]]*\]\[\d+\]\[[a-z]+\]\[[a-z]+\] \[[^\]]*\] ", "", text)
    return re.sub(r"error initializing configuration '[^']*': ", "", text)[:1000] or "no reason given"


def _unit(binary: str) -> str:
    return """\
[Unit]
Description=Envoy, kept in step by k4t
After=network-online.target
Wants=network-online.target

[Service]
ExecStart=%s -c %s --log-level warning --disable-hot-restart
Restart=always
RestartSec=1
LimitNOFILE=1048576

[Install]
WantedBy=multi-user.target
""" % (binary, BOOTSTRAP)
