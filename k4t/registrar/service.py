"""The registrar's operations. Each is one request, done under the host's lock, and can be done twice.

Fence and order: an epoch is accepted when it is at least the cluster's fence, and raises it. A document is staged when
its parent (or what its writer says it saw live) is what is live, and it is newer than that.
"""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from . import files, vendors
from .document import MAX_BYTES, WORD, BadDocument, Document, Endpoint, Epoch, canonical, clashes, from_json, to_json
from .document import check as check_document
from .errors import BadRequest, Clash, Damaged, NotInstalled, Overtaken, Refused
from .store import CLUSTER, Holding, Store, Withdrawal
from .union import Union, unite
from .vendor import Rendering, Vendor

Request = Mapping[str, Any]
Answer = Dict[str, Any]
HEAD_MAX_BYTES = 4 * 1024 * 1024
MANUAL = "manual"


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

    def _accept(self, cluster: str, epoch: Epoch) -> None:
        """Raises Overtaken for less than the fence; raises the fence to more."""
        fence = self.store.epoch(cluster)
        if epoch < fence:
            raise Overtaken(
                "run %s (epoch %d) was overtaken by run %s (epoch %d)"
                % (epoch.run, epoch.number, fence.run, fence.number)
            )
        if epoch > fence:
            self.store.raise_fence(cluster, epoch)

    def _live_or_damaged(self, cluster: str) -> Tuple[Optional[Holding], str]:
        try:
            return self.store.live(cluster), ""
        except Damaged as damage:
            return None, str(damage)

    # --- operations --------------------------------------------------------------------------------------------

    def observe(self, request: Request) -> Answer:
        cluster = _cluster(request)
        live, damage = self._live_or_damaged(cluster)
        staged = self.store.staged(cluster)
        epoch = self.store.epoch(cluster)
        problem = self.store.problem()
        return {
            "id": self.store.id(),
            "epoch": [epoch.number, epoch.run],
            "document": to_json(live.document) if live else None,
            "staged": staged.transaction if staged else "",
            "others": [to_json(other.document) for other in self._held(but=cluster)],
            "rendered": not problem,
            "problem": problem,
            "differences": [damage] if damage else self.vendor.verify(self._rendering()),
            "head": self._head(cluster, str(request.get("head", ""))),
        }

    def _head(self, cluster: str, name: str) -> Optional[str]:
        if not re.match(r"[a-z][a-z.]{0,20}\Z", name):
            return None
        path = os.path.join(self.store.home, cluster, name)
        return files.read(path) if os.path.isfile(path) and os.path.getsize(path) <= HEAD_MAX_BYTES else None

    def fence(self, request: Request) -> Answer:
        cluster, epoch = _cluster(request), _epoch(request)
        self._accept(cluster, epoch)
        staged = self.store.staged(cluster)
        if staged is not None and staged.document.epoch < epoch:
            self.store.unstage(cluster)  # an older run's staging is void
        live, _ = self._live_or_damaged(cluster)
        return {"live": live.document.sha256 if live else ""}

    def prepare(self, request: Request) -> Answer:
        cluster, transaction = _cluster(request), _transaction(request)
        holding = Holding(_document(request, cluster), transaction, _zone(request))
        document = holding.document
        vendor_ = self.vendor
        if document.kind != vendor_.kind:
            raise BadRequest("a %s takes no %s document" % (vendor_.kind, document.kind))
        live, _ = self._live_or_damaged(cluster)
        if live is not None and live.transaction == transaction and live.document == document:
            return {}  # committed already
        if document.epoch < self.store.epoch(cluster):
            self._accept(cluster, document.epoch)
        self._check_parent(document, live, str(request.get("seen", "")))
        held = self._held(but=cluster)
        self._check_clashes(holding, held)
        vendor_.supports(document)
        vendor_.check(vendor_.render(self._union([*held, holding])))
        self._accept(cluster, document.epoch)
        self.store.stage(cluster, holding)
        return {}

    def _check_parent(self, document: Document, live: Optional[Holding], seen: str) -> None:
        sha256 = live.document.sha256 if live else ""
        if sha256 not in (document.parent, seen):
            raise Overtaken(
                "what is live is not what this run saw: %s, not %s"
                % (sha256[:12] or "nothing", (seen or document.parent)[:12] or "nothing")
            )
        if live and document.version <= live.document.version:
            raise Overtaken(
                "document %d.%d is not newer than the live %d.%d"
                % (document.epoch.number, document.seq, live.document.epoch.number, live.document.seq)
            )

    def _check_clashes(self, holding: Holding, held: List[Holding]) -> None:
        mine = holding.document
        others = [cluster for cluster in self.store.clusters() if cluster != mine.cluster]
        staged = [found for found in (self.store.staged(cluster) for cluster in others) if found is not None]
        rivals = [*held, *staged]
        found = clashes(mine, [rival.document for rival in rivals]) + self.vendor.clashes(holding, rivals)
        if found:
            shown = list(dict.fromkeys(found))
            more = "; and %d more" % (len(shown) - 5) if len(shown) > 5 else ""
            raise Clash("; ".join(shown[:5]) + more)

    def commit(self, request: Request) -> Answer:
        cluster, transaction, epoch = _cluster(request), _transaction(request), _epoch(request)
        staged = self.store.staged(cluster)
        live, _ = self._live_or_damaged(cluster)
        if staged is not None and staged.transaction == transaction:
            self._accept(cluster, epoch)
            self.store.make_live(cluster)
            self._end_withdrawals(staged.document)
        elif live is None or live.transaction != transaction:
            self._accept(cluster, epoch)  # overtaken says more than what follows
            raise BadRequest("transaction %s was never prepared here, or was aborted" % transaction)
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

    def _end_withdrawals(self, document: Document) -> None:
        named = {endpoint.container for endpoint in document.endpoints}
        old = self.store.withdrawals()
        left = [out for out in old if out.cluster != document.cluster or out.container in named]
        if len(left) != len(old):
            self.store.set_withdrawals(left)

    def abort(self, request: Request) -> Answer:
        cluster, transaction = _cluster(request), _transaction(request)
        staged = self.store.staged(cluster)
        if staged is not None and staged.transaction == transaction:
            self.store.unstage(cluster)
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
        return {"differences": differences + self.vendor.verify(self._rendering())}

    # --- by hand, and set up -----------------------------------------------------------------------------------

    def manual(self, request: Request) -> Answer:
        """add and remove: an entry of nobody's; withdraw: an endpoint of a cluster, until its next document."""
        verb, entry = str(request.get("verb")), _entry(request)
        entries = [kept for kept in self.store.manual() if kept != entry]
        if verb == "add":
            self._check_manual(entry)
            self.store.set_manual([*entries, entry])
        elif verb == "remove":
            if entry not in self.store.manual():
                raise BadRequest("there is no manual entry %s %s:%d" % (entry.app, entry.ip, entry.port))
            self.store.set_manual(entries)
        elif verb == "withdraw":
            self._withdraw(entry, str(request.get("by", "")), str(request.get("why", "")))
        else:
            raise BadRequest("no such verb: %r" % verb[:40])
        return self._install()

    def _check_manual(self, entry: Endpoint) -> None:
        mine = Document(MANUAL, MANUAL, self.vendor.kind, "default", endpoints=(entry,))
        try:
            check_document(mine)
        except BadDocument as error:
            raise BadRequest(str(error)) from error
        found = clashes(mine, [held.document for held in self._held()])
        if found:
            raise Clash(found[0])

    def _withdraw(self, entry: Endpoint, by: str, why: str) -> None:
        found = [
            Withdrawal(held.document.cluster, listed.ip, listed.port, listed.container, by, why)
            for held in self._held()
            for listed in held.document.endpoints
            if (listed.app, listed.ip, listed.port) == (entry.app, entry.ip, entry.port)
        ]
        if not found:
            raise BadRequest("no cluster publishes %s %s:%d" % (entry.app, entry.ip, entry.port))
        self.store.set_withdrawals(list(dict.fromkeys([*self.store.withdrawals(), *found])))

    def list(self, _: Request) -> Answer:
        held = self._held()
        rows = [
            dict(dataclasses.asdict(endpoint), cluster=holding.document.cluster, owner=holding.document.name)
            for holding in held
            for endpoint in holding.document.endpoints
        ]
        rows += [dict(dataclasses.asdict(entry), cluster="", owner=MANUAL) for entry in self.store.manual()]
        withdrawn = [dataclasses.asdict(entry) for entry in self.store.withdrawals()]
        return {"endpoints": rows, "withdrawals": withdrawn}

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
    "manual": Service.manual,
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
    if len(canonical(to_json(document))) > MAX_BYTES:
        raise BadRequest("the document is larger than %d bytes" % MAX_BYTES)
    if not WORD.match(document.epoch.run):
        raise BadRequest("epoch must be [number, run id]")
    return document


def _entry(request: Request) -> Endpoint:
    app, ip, port = request.get("cname"), request.get("ip"), request.get("port")
    if not (isinstance(app, str) and isinstance(ip, str) and isinstance(port, int)):
        raise BadRequest("cname, ip and port are needed")
    return Endpoint(app=app, ip=ip, port=port, port_name=str(request.get("port_name") or "main"))
