"""Envoy by files: one directory a kind, EDS one file a cluster. Files are written outside and renamed in.

Envoy reads a file again when it is renamed into place; each writing carries a version of its own, which is awaited
in Envoy's statistics. New things come in the order EDS, CDS, RDS and go in the reverse one, so that no route ever
leads to a cluster that isn't there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
import time
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from . import envoy_admin, envoy_render, files
from .document import Document
from .errors import VendorRefused, VendorSilent
from .union import Union
from .vendor import Rendering, Vendor

AWAIT_S = 5.0
FIRST_CHECK_S = 2.0
LONGEST_CHECK_S = 20.0
SLOWEST_POLL_S = 0.1
POLL_S = 0.002
VALIDATE_S = 20.0
BOOTSTRAP = "/etc/k4t/envoy/bootstrap.json"
UNIT = "/etc/systemd/system/k4t-envoy.service"


class Envoy(Vendor):
    """config.json: name, binary, admin [address, port], http (0: no listener of ours), ipv6, own (we start it)."""

    kind = "gateway"

    def __init__(self, root: str, config: Mapping[str, Any]) -> None:
        super().__init__(root, config)
        host, port = config.get("admin") or ("127.0.0.1", 9901)
        self.admin = (str(host), int(port))
        self.directory = os.path.join(root, "var/lib/k4t/envoy")
        self.staging = self._path("staging")
        self.checked = ""

    def _path(self, *parts: str) -> str:
        return os.path.join(self.directory, *parts)

    # --- set up ----------------------------------------------------------------------------------------------

    def setup_files(self) -> Dict[str, str]:
        kinds = {
            kind: envoy_render.source(self._path(kind, kind + ".json"), self._path(kind)) for kind in ("lds", "cds")
        }
        empty = {
            self._path("cds", "cds.json"): _envelope([]),
            self._path("rds", "rds.json"): _envelope([envoy_render.route_config(Union())]),
        }
        made = {path: text for path, text in empty.items() if not os.path.exists(path)}
        if not self.config.get("own", True):
            return made
        rds = envoy_render.source(self._path("rds", "rds.json"), self._path("rds"))
        port = int(self.config.get("http") or 0)
        made[self._path("lds", "lds.json")] = _envelope(
            [envoy_render.listener(port, rds, bool(self.config.get("ipv6", True)))] if port else [], "install"
        )
        boot = envoy_render.bootstrap(str(self.config.get("name", "k4t")), self.admin, kinds["lds"], kinds["cds"])
        made[self.root.rstrip("/") + BOOTSTRAP] = json.dumps(boot, indent=1) + "\n"
        made[self.root.rstrip("/") + UNIT] = _unit(str(self.config.get("binary", "envoy")))
        return made

    @property
    def _listens(self) -> bool:
        """Our own Envoy with http="0" has no listener, so nobody reads the routes."""
        return bool(self.config.get("http")) or not self.config.get("own", True)

    # --- candidates --------------------------------------------------------------------------------------------

    def supports(self, document: Document) -> None:
        for route in document.routes:
            for said, word in (
                (route.listen, "listen (L4)"),
                (route.tls, "tls"),
                (route.redirect, "redirect"),
                (route.weight != -1, "weight"),
                (route.affinity != "none", "affinity"),
                (route.upstream != "http1", "upstream"),
            ):
                if said:
                    raise VendorRefused("a route of app %s: the envoy driver has no %s yet" % (route.app, word))

    def render(self, union: Union) -> Rendering:
        clusters = envoy_render.clusters(union, self._path("eds", "%s.json"))
        made: Rendering = {
            self._path("cds", "cds.json"): clusters,
            self._path("rds", "rds.json"): [envoy_render.route_config(union)],
        }
        names = [cluster["name"] for cluster in clusters]
        for name, assignment in envoy_render.assignments(union, names).items():
            made[self._path("eds", name + ".json")] = [assignment]
        return made

    def check(self, rendering: Rendering) -> None:
        """`envoy --mode validate` (about 60 ms), unless only endpoints differ from what Envoy already took."""
        clusters, routes = (rendering[self._path(kind, kind + ".json")] for kind in ("cds", "rds"))
        digest = hashlib.sha256(json.dumps([clusters, routes], sort_keys=True).encode()).hexdigest()
        current = [_resources(self._path(kind, kind + ".json")) for kind in ("cds", "rds")]
        if digest == self.checked or current == [clusters, routes]:
            return
        self._validate(envoy_render.validation(clusters, routes[0]))
        self.checked = digest

    def _validate(self, candidate: Mapping[str, Any]) -> None:
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
        old = self._on_disk()
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
            self._restore(old, rendering)
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
        for cluster in rendering[self._path("cds", "cds.json")]:
            path = self._path("eds", cluster["name"] + ".json")
            new = set(_pairs(rendering[path])) - set(_pairs(old.get(path)))
            if new and "health_checks" in cluster:
                checks[cluster["name"]] = cluster["health_checks"][0]["timeout"]
                added |= {"%s: %s:%d" % (cluster["name"], ip, port) for ip, port in new}
        patience_s = max([FIRST_CHECK_S, *(float(text[:-1]) + 1 for text in checks.values())])
        deadline = time.monotonic() + min(patience_s, LONGEST_CHECK_S)
        waiting = set(added)
        pause_s = POLL_S
        while waiting and time.monotonic() < deadline:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, SLOWEST_POLL_S)
            waiting = envoy_admin.failing(self.admin, sorted(checks)) & added
        wrong = sorted(waiting)
        more = " (and %d more)" % (len(wrong) - 5) if len(wrong) > 5 else ""
        return "; ".join("%s fails Envoy's health check" % name for name in wrong[:5]) + more

    def _overlap(self, rendering: Rendering, old: Rendering, before: Dict[str, str]) -> None:
        """Where all endpoints are others than before (this host was away for a while), the old ones stay until the
        new ones have passed Envoy's check: between them there would be none to send to."""
        cds = self._path("cds", "cds.json")
        swapped: List[Any] = []
        both: Rendering = {cds: swapped}
        for cluster in rendering[cds]:
            path = self._path("eds", cluster["name"] + ".json")
            now, then = set(_pairs(rendering[path])), set(_pairs(old.get(path)))
            if "health_checks" in cluster and now and then and not now & then:
                swapped.append(cluster)
                assignment = rendering[path][0]
                both[path] = [dict(assignment, endpoints=[*assignment["endpoints"], *old[path][0]["endpoints"]])]
        if swapped:
            files.make_directory(self.staging)
            self._await({path: self._write(path, both[path]) for path in both if path != cds}, before)
            self._prove(both, old)

    def _bring(
        self,
        rendering: Rendering,
        old: Rendering,
        changed: Sequence[str],
        gone: Sequence[str],
        before: Optional[Dict[str, str]],
    ) -> None:
        """EDS, CDS (with what is still routed to), RDS; then CDS without it, and its EDS files away."""
        cds, rds = self._path("cds", "cds.json"), self._path("rds", "rds.json")
        files.make_directory(self.staging)
        assignments = [path for path in changed if path not in (cds, rds)]
        versions = {path: self._write(path, rendering[path]) for path in assignments}
        both = _both(old.get(cds), rendering[cds])
        if both != (old.get(cds) or []) or (cds in changed and both == rendering[cds]):
            versions[cds] = self._write(cds, both)
        self._await(versions, before)
        if rds in changed:
            version = self._write(rds, rendering[rds])
            self._await({rds: version} if self._listens else {}, before)
        if both != rendering[cds]:
            self._await({cds: self._write(cds, rendering[cds])}, before)
        for path in gone:
            files.remove(path)

    def _write(self, path: str, resources: Sequence[Any]) -> str:
        version = "%s-%s" % (_digest(resources)[:12], os.urandom(4).hex())
        files.write(path, _envelope(resources, version), staging=self.staging)
        return version

    def _restore(self, old: Rendering, new: Rendering) -> None:
        for path, resources in old.items():
            if resources is not None and _resources(path) != resources:
                self._write(path, resources)
        for path in new:
            if old.get(path) is None and os.path.basename(os.path.dirname(path)) == "eds":
                files.remove(path)

    def _on_disk(self) -> Rendering:
        """Path to resources of every file of ours; None for one that can't be read as such."""
        paths = [self._path(kind, kind + ".json") for kind in ("cds", "rds")]
        if os.path.isdir(self._path("eds")):
            paths += [self._path("eds", name) for name in sorted(os.listdir(self._path("eds")))]
        return {path: _resources(path) for path in paths}

    def _counters(self) -> Optional[Dict[str, str]]:
        try:
            return envoy_admin.counters(self.admin)
        except VendorSilent:
            return None

    def _await(self, versions: Mapping[str, str], before: Optional[Dict[str, str]]) -> None:
        """Until Envoy says it has taken these versions and no cluster is warming. Raises VendorRefused."""
        if before is None or not versions:
            return
        deadline = time.monotonic() + AWAIT_S
        while True:
            now = self._counters()
            if now is None:
                return  # it went away: all files are written, and read when it starts
            for path in versions:
                prefix = _subscription(path)
                if _rejections(now, prefix) > _rejections(before, prefix):
                    raise VendorRefused("Envoy refuses %s: %s" % (path, self._reason()))
            waiting = [path for path, version in versions.items() if not _taken(now, _subscription(path), version)]
            if not waiting and now.get("cluster_manager.warming_clusters", "0") == "0":
                return
            if time.monotonic() >= deadline:
                if not waiting:
                    return  # warming: its first health checks take longer; verify says so if it stays so
                raise VendorRefused("Envoy has not read %s in %g s; %s" % (waiting[0], AWAIT_S, self._include()))
            time.sleep(POLL_S)

    def _reason(self) -> str:
        """Its dump names the error of some kinds; its own validation finds words for the rest."""
        clusters, routes = (_resources(self._path(kind, kind + ".json")) for kind in ("cds", "rds"))
        try:
            self._validate(envoy_render.validation(clusters or [], (routes or [{}])[0]))
        except VendorRefused as refusal:
            return str(refusal)
        return "see Envoy's log"

    def _include(self) -> str:
        if self.config.get("own", True):
            return "see its log, and restart it with %s" % BOOTSTRAP
        return "its configuration must include k4t's CDS and RDS (k4t gateway install says how)"

    def _asleep(self) -> str:
        return "Envoy doesn't answer at %s:%d; its files are in place and are read when it starts" % self.admin

    # --- read back ---------------------------------------------------------------------------------------------

    def verify(self, rendering: Rendering) -> List[str]:
        found = self._verify_files(rendering)
        try:
            dump = envoy_admin.Dump(self.admin)
        except VendorSilent:
            return [self._asleep(), *found]
        wanted = {cluster["name"]: cluster for cluster in rendering[self._path("cds", "cds.json")]}
        found += _compare("cluster", wanted, dump.clusters)
        routes = rendering[self._path("rds", "rds.json")][0]
        if self._listens:
            found += _compare_routes(routes, dump.routes.get(envoy_render.ROUTE_CONFIG))
        for name in sorted(set(wanted) & set(dump.clusters)):
            published = envoy_admin.pairs(rendering[self._path("eds", name + ".json")][0])
            found += _compare_endpoints(name, published, dump.endpoints.get(name, []))
        return found

    def _verify_files(self, rendering: Rendering) -> List[str]:
        old = self._on_disk()
        found = ["%s is not what k4t wrote" % path for path in sorted(rendering) if old.get(path) != rendering[path]]
        return found + ["%s is not k4t's" % path for path in sorted(old) if path not in rendering]


def _both(old: Optional[List[Any]], new: List[Any]) -> List[Any]:
    """The new clusters, and those of the old ones that are on their way out."""
    names = {cluster["name"] for cluster in new}
    leaving = [cluster for cluster in old or [] if isinstance(cluster, dict) and cluster.get("name") not in names]
    return sorted(new + leaving, key=lambda cluster: str(cluster.get("name"))) if leaving else new


def _compare(what: str, wanted: Mapping[str, Any], served: Mapping[str, Any]) -> List[str]:
    found = ["%s %s is not served" % (what, name) for name in sorted(set(wanted) - set(served))]
    found += ["%s %s is served but not published" % (what, name) for name in sorted(set(served) - set(wanted))]
    for name in sorted(set(wanted) & set(served)):
        if wanted[name] != served[name]:
            keys = sorted(k for k in {*wanted[name], *served[name]} if wanted[name].get(k) != served[name].get(k))
            found.append("%s %s is served with another %s" % (what, name, ", ".join(keys)))
    return found


def _compare_routes(wanted: Mapping[str, Any], served: Optional[Mapping[str, Any]]) -> List[str]:
    if served is None:
        return ["no listener of Envoy reads k4t's routes"]
    hosts = [{host["name"]: host for host in side.get("virtual_hosts", ())} for side in (wanted, served)]
    found = _compare("routes of domain", *hosts)
    return found or ([] if dict(wanted) == dict(served) else ["the route configuration is served otherwise"])


def _compare_endpoints(name: str, wanted: List[Tuple[str, int]], served: List[Tuple[str, int]]) -> List[str]:
    found = ["%s: %s:%d is not served" % (name, ip, port) for ip, port in sorted(set(wanted) - set(served))]
    extra = sorted(set(served) - set(wanted))
    return found + ["%s: %s:%d is served but not published" % (name, ip, port) for ip, port in extra]


def _subscription(path: str) -> str:
    """What the statistics of the subscription to a file are named by."""
    kind, name = os.path.basename(os.path.dirname(path)), os.path.basename(path)[: -len(".json")]
    if kind == "eds":
        return "cluster.%s." % name
    return "cluster_manager.cds." if kind == "cds" else ".rds.%s." % envoy_render.ROUTE_CONFIG


def _taken(counters: Mapping[str, str], prefix: str, version: str) -> bool:
    if prefix.startswith("."):  # routes: under every listener's own prefix
        return any(name.endswith(prefix + "version_text") and text == version for name, text in counters.items())
    return counters.get(prefix + "version_text") == version


def _rejections(counters: Mapping[str, str], prefix: str) -> int:
    names = [name for name in counters if name.endswith(prefix + "update_rejected")]
    return sum(int(counters[name]) for name in names if prefix.startswith(".") or name == prefix + "update_rejected")


def _pairs(assignments: Any) -> List[Tuple[str, int]]:
    """(ip, port) of a file that holds one load assignment; none of one that doesn't."""
    try:
        return envoy_admin.pairs(assignments[0]) if assignments else []
    except (KeyError, TypeError, ValueError):
        return []


def _envelope(resources: Sequence[Any], version: str = "0") -> str:
    return json.dumps({"version_info": version, "resources": resources}, indent=1) + "\n"


def _digest(resources: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()


def _resources(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)["resources"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
