"""The registrar's operations. Each is one request, done under the host's lock, and can be done twice.

What a message makes of what is kept is decided in `protocol`; here it is persisted, and the vendor is told.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from . import byhand, certificates, files, protocol, vendors
from .document import MAX_BYTES, WORD, BadDocument, Document, Epoch, clashes, from_json, to_json
from .errors import BadRequest, Damaged, NotInstalled, Refused
from .store import CLUSTER, Holding, Store
from .union import Union, unite
from .vendor import Rendering, Vendor

Request = Mapping[str, Any]
Answer = Dict[str, Any]
HEAD_MAX_BYTES = 4 * 1024 * 1024
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")


class Service:
    """One driver on this host. `only` is the one cluster that may ask (a restricted key); "" for any."""

    def __init__(self, root: str, driver: str, only: str = "") -> None:
        self.store = Store(root, driver)
        self.root = root
        self.driver = driver
        self.only = only
        self._vendor: Optional[Tuple[Dict[str, Any], Vendor]] = None

    def answer(self, request: Request) -> Answer:
        """Raises Refused."""
        operation = OPERATIONS.get(str(request.get("op")))
        if operation is None:
            raise BadRequest("no such operation: %r" % str(request.get("op"))[:40])
        if self.only and request.get("cluster") != self.only:
            raise BadRequest("this key may speak for cluster %s only" % self.only)
        if self.only and operation in (Service.install, Service.render):
            raise BadRequest("this key may not change how the host is set up")
        with self.store.locked():
            return operation(self, request)

    @property
    def vendor(self) -> Vendor:
        """As config.json says now; kept between requests for what it has already checked."""
        config = self.store.config()
        if config is None:
            raise NotInstalled("the %s driver is not set up on this host" % self.driver)
        if self._vendor is None or self._vendor[0] != config:
            self._vendor = (config, vendors.make(self.driver, self.root, config))
        return self._vendor[1]

    # --- what every operation needs --------------------------------------------------------------------------

    def _held(self, but: str = "") -> List[Holding]:
        """Every live document but one cluster's. Raises Damaged: a union without it would withdraw what it holds."""
        held = [self.store.live(cluster) for cluster in self.store.clusters() if cluster != but]
        return [holding for holding in held if holding is not None]

    def _union(self, holdings: List[Holding]) -> Union:
        zones = (self.store.config() or {}).get("zones") or [""]
        return unite(holdings, self.store.manual(), self.store.withdrawals(), zones[0])

    def _rendering(self) -> Rendering:
        return self.vendor.render(self._union(self._held()))

    def _live_or_damaged(self, cluster: str) -> Tuple[Optional[Holding], str]:
        try:
            return self.store.live(cluster), ""
        except Damaged as damage:
            return None, str(damage)

    # --- operations --------------------------------------------------------------------------------------------

    def observe(self, request: Request) -> Answer:
        cluster = _cluster(request)
        live, damage = self._live_or_damaged(cluster)
        kept = self.store.kept(cluster)
        problem = self.store.problem()
        return {
            "id": self.store.id(),
            "epoch": [kept.fence.number, kept.fence.run],
            "document": to_json(live.document) if live else None,
            "ancestors": live.ancestors if live else [],
            "staged": kept.staged.transaction if kept.staged else "",
            "others": [to_json(other.document) for other in self._held(but=cluster)],
            "rendered": not problem,
            "problem": problem,
            "differences": [damage] if damage else self._differences(live),
            "manual": [dataclasses.asdict(entry) for entry in self.store.manual()],
            "withdrawals": [dataclasses.asdict(out) for out in self.store.withdrawals()],
            "head": self._head(cluster, str(request.get("head", ""))),
        }

    def _head(self, cluster: str, name: str) -> Optional[str]:
        if not re.match(r"[a-z][a-z.]{0,20}\Z", name):
            return None
        path = os.path.join(self.store.home, cluster, name)
        return files.read(path) if os.path.isfile(path) and os.path.getsize(path) <= HEAD_MAX_BYTES else None

    def fence(self, request: Request) -> Answer:
        cluster, epoch = _cluster(request), _epoch(request)
        kept = self.store.kept(cluster)
        new = protocol.fence(kept, epoch)
        self.store.persist(cluster, kept, new)
        return {"live": new.live.sha256 if new.live else ""}

    def prepare(self, request: Request) -> Answer:
        cluster, transaction = _cluster(request), _transaction(request)
        document = _document(request, cluster)
        holding = Holding(document, transaction, _zone(request), str(request["sha256"]))
        vendor_ = self.vendor
        if document.kind != vendor_.kind:
            raise BadRequest("a %s takes no %s document" % (vendor_.kind, document.kind))
        kept = self.store.kept(cluster)
        held = self._held(but=cluster)
        seen = str(request.get("seen", ""))
        new = protocol.prepare(kept, holding.stamp, seen, self._clashes(holding, held))
        if kept.live is not None and protocol.is_same(kept.live, holding.stamp):
            return {}  # committed already
        vendor_.supports(document)
        certificates.need(self.root, cluster, document.certificates)
        vendor_.check(vendor_.render(self._union([*held, holding])))
        self.store.persist(cluster, kept, new, holding)
        return {}

    def _clashes(self, holding: Holding, held: List[Holding]) -> List[str]:
        """With what other clusters have live or staged (protocol.rivals)."""
        mine = holding.document
        others = [cluster for cluster in self.store.clusters() if cluster != mine.cluster]
        staged = [found for found in map(self.store.staged, others) if found is not None]
        rivals = [*held, *staged]
        return clashes(mine, [rival.document for rival in rivals]) + self.vendor.clashes(holding, rivals)

    def commit(self, request: Request) -> Answer:
        cluster, transaction, epoch = _cluster(request), _transaction(request), _epoch(request)
        kept = self.store.kept(cluster)
        new = protocol.commit(kept, transaction, epoch)
        self.store.persist(cluster, kept, new)
        self._end_withdrawals(cluster)
        return self._install()

    def _install(self) -> Answer:
        """Rendered and checked again under the lock. A refusal is remembered; the last good rendering stays."""
        pending = problem = ""
        vendor_ = self.vendor
        try:
            rendering = self._rendering()
            vendor_.check(rendering)
            pending = vendor_.install(rendering)
        except Refused as refusal:
            problem = str(refusal)
        self.store.set_problem(problem)
        return {"rendered": not problem, "problem": problem, "pending": pending}

    def render(self, _request: Request) -> Answer:
        """Everything held, rendered anew: another version of the registrar may write other files for the same."""
        return self._install()

    def _end_withdrawals(self, cluster: str) -> None:
        old = self.store.withdrawals()
        live = self.store.live(cluster) if any(out.cluster == cluster for out in old) else None
        if live is None:
            return
        left = protocol.withdrawals_left(old, cluster, {endpoint.container for endpoint in live.document.endpoints})
        if len(left) != len(old):
            self.store.set_withdrawals(left)

    def abort(self, request: Request) -> Answer:
        cluster, transaction = _cluster(request), _transaction(request)
        kept = self.store.kept(cluster)
        self.store.persist(cluster, kept, protocol.abort(kept, transaction))
        return {}

    def verify(self, request: Request) -> Answer:
        cluster, sha256 = _cluster(request), str(request.get("sha256", ""))
        live = self.store.live(cluster)
        held = live.document.sha256 if live else ""
        if held != sha256:
            words = "holds document %s, not %s" % (held[:12] or "none", sha256[:12] or "none")
            return {"differences": [words], "rendered": True, "problem": ""}
        problem = self.store.problem()
        differences = ["not rendered: " + problem] if problem else []
        return {"differences": differences + self._differences(live)}

    def _differences(self, live: Optional[Holding]) -> List[str]:
        """Of what this host serves, and of the certificates that this cluster needs for it."""
        mine = live.document if live else None
        lost = certificates.wrong(self.root, mine.cluster, mine.certificates) if mine else []
        return lost + self.vendor.verify(self._rendering())

    def counters(self, request: Request) -> Answer:
        """`apps`: names. Rows [app, ip:port, number] of this cluster's own endpoints: an app that several clusters
        share has others too."""
        asked = request.get("apps")
        if not isinstance(asked, list) or not all(isinstance(app, str) and NAME.match(app) for app in asked):
            raise BadRequest("apps must be a list of names")
        live = self.store.live(_cluster(request))
        listed = live.document.endpoints if live else ()
        mine = {(one.app, "%s:%d" % (one.ip, one.port)) for one in listed if one.app in asked}
        found = self.vendor.counters(sorted({app for app, _ in mine})) if mine else {}
        return {"counters": [[app, place, found[app, place]] for app, place in sorted(mine & set(found))]}

    def certificates(self, request: Request) -> Answer:
        """`put`: [{"sha256", "chain", "key"}] (PEM); `want`: hashes. Those of `want` that are missing afterwards."""
        return {"missing": certificates.answer(self.root, _cluster(request), self.store.home, request)}

    # --- by hand, and set up -----------------------------------------------------------------------------------

    def manual(self, request: Request) -> Answer:
        """By hand: see byhand.VERBS. With a restricted key, only what is its cluster's."""
        byhand.change(self.store, self.vendor.kind, self._held(), request, self.only)
        return self._install()

    def several(self, request: Request) -> Answer:
        """Endpoints of one cluster taken out, or given back, in one go (byhand.several): one dead node has many."""
        changed, left = byhand.several(self.store, self._held(), request, _cluster(request))
        answer: Answer = {"rendered": True, "problem": "", "pending": ""}
        if changed or self.store.problem():
            answer = self._install()
        return dict(answer, changed=changed, left=left)

    def list(self, _: Request) -> Answer:
        endpoints, withdrawals = byhand.rows(self.store, self._held())
        return {"endpoints": endpoints, "withdrawals": withdrawals}

    def check(self, _: Request) -> Answer:
        problem = self.store.problem()
        return {
            "differences": (["not rendered: " + problem] if problem else []) + self.vendor.verify(self._rendering())
        }

    def install(self, request: Request) -> Answer:
        """Write config.json and the vendor's set-up files; which ones changed. `dry`: only say so."""
        config = request.get("config")
        if not isinstance(config, dict):
            raise BadRequest("config must be an object")
        old = self.store.config() or {}
        zones = [zone for zone in config.get("zones", ()) if zone not in old.get("zones", ())]
        if "zones" in config:
            config = dict(config, zones=[*old.get("zones", ()), *zones])
        wanted = vendors.make(self.driver, self.root, config).setup_files()
        changed = [path for path, text in sorted(wanted.items()) if files.read(path) != text]
        if dict(config, format=1) != old:
            changed.append(os.path.join(self.store.directory, "config.json"))
        if not request.get("dry"):
            self.store.make_id()
            os.chmod(self.store.home, 0o755)  # noqa: S103 - vendors run as somebody else; what is private is 0700
            for path in changed[:]:
                if path in wanted:
                    files.write(path, wanted[path])
            self.store.write("config.json", config)
        return {"changed": changed, "id": self.store.id()}


OPERATIONS: Dict[str, Callable[[Service, Request], Answer]] = {
    "observe": Service.observe,
    "fence": Service.fence,
    "prepare": Service.prepare,
    "commit": Service.commit,
    "abort": Service.abort,
    "verify": Service.verify,
    "counters": Service.counters,
    "certificates": Service.certificates,
    "manual": Service.manual,
    "several": Service.several,
    "list": Service.list,
    "check": Service.check,
    "install": Service.install,
    "render": Service.render,
}


# --- what requests hold --------------------------------------------------------------------------------------


def _cluster(request: Request) -> str:
    cluster = request.get("cluster")
    if not isinstance(cluster, str) or not CLUSTER.match(cluster):
        raise BadRequest("no cluster id: %r" % str(cluster)[:80])
    return cluster


def _transaction(request: Request) -> str:
    transaction = request.get("transaction")
    if not isinstance(transaction, str) or not WORD.match(transaction):
        raise BadRequest("no transaction id: %r" % str(transaction)[:80])
    return transaction


def _epoch(request: Request) -> Epoch:
    epoch = request.get("epoch")
    if not (isinstance(epoch, list) and len(epoch) == 2 and isinstance(epoch[1], str)):
        raise BadRequest("epoch must be [number, run id]")
    number, run = epoch
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 2**53 or not WORD.match(run):
        raise BadRequest("epoch must be [number, run id]")
    return Epoch(number, run)


def _zone(request: Request) -> str:
    zone = request.get("zone", "")
    if not isinstance(zone, str) or not re.match(r"([a-z0-9_]([a-z0-9_.-]{0,250}[a-z0-9])?)?\Z", zone):
        raise BadRequest("no zone: %r" % str(zone)[:80])
    return zone


def _document(request: Request, cluster: str) -> Document:
    try:
        document = from_json(request.get("document"))
    except BadDocument as error:
        raise BadRequest("document: %s" % error) from error
    if document.cluster != cluster:
        raise BadRequest("a document of cluster %s in a request of cluster %s" % (document.cluster, cluster))
    if document.sha256 != request.get("sha256"):
        raise BadRequest("the document's checksum is wrong")
    if len(document.encoded) > MAX_BYTES:
        raise BadRequest("the document is larger than %d bytes" % MAX_BYTES)
    if not WORD.match(document.epoch.run):
        raise BadRequest("epoch must be [number, run id]")
    return document
