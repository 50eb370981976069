"""The tree, read: bytes → elements → checked items → the model. The only user of lxml.

No DTD (hence no entities), nothing external, no XInclude, UTF-8, bounded size, depth, elements and attributes.
All findings of all files are told at once.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from lxml import etree

from k4t.errors import Finding, InvalidTree, Usage
from k4t.model.app import App
from k4t.model.publish import Certificate
from k4t.model.shared import Where
from k4t.model.snapshot import Recovery
from k4t.model.spec import SecretRef, Tree
from k4t.tree import build, build_app, scan
from k4t.tree.attached import Attached
from k4t.tree.check import Checker, Item, Node, cut
from k4t.tree.defaults import merge
from k4t.tree.files import XML_MAX_BYTES, Changed, Snapshot, read_files
from k4t.tree.schema import DEFAULTS_APP, DEFAULTS_NODE, DIRECTORIES, FILES
from k4t.tree.semantics import Reading, check_tree
from k4t.tree.semantics_app import check_app
from k4t.tree.semantics_ports import check_ports
from k4t.tree.table import Element
from k4t.tree.values import NAME, NAME_MAX
from k4t.tree.variables import expand_node

DEPTH_MAX = 16
ELEMENTS_MAX = 10_000
ATTRIBUTES_MAX = 64
ATTEMPTS = 5
MESSAGE_MAX = 400
_Built = TypeVar("_Built")


class Refused(Exception):
    """The file can't be read as XML as we want it."""

    def __init__(self, line: int, code: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.line, self.code, self.message, self.remedy = line, code, message, remedy


REMARKS = frozenset({"no-surge", "no-group", "certificate-domain", "backup-in-the-clear", "policy-idle", "no-fence"})
"""Codes of findings that are no errors."""


def read_tree(directory: Path) -> Tree:
    """One consistent reading of the whole tree.

    Raises InvalidTree with everything that is wrong; Usage when there is no tree, when its directory can't be read,
    and when it changes faster than it can be read.
    """
    with _no_collection():
        for attempt in range(ATTEMPTS):
            try:
                snapshot = read_files(directory)
                tree, findings = _Reader(snapshot).read()
                snapshot.verify()
            except Changed:
                time.sleep(0.05 * (attempt + 1))
                continue
            if tree is None or findings:
                raise InvalidTree(dict.fromkeys(_presentable(finding) for finding in findings))
            return tree
    raise Usage(f"the tree at {directory} changes while it is read ({ATTEMPTS} attempts)", "try again when it is quiet")


def read_recovery(directory: Path) -> Recovery | None:
    """recovery.xml alone, of whatever directory; None when there is none. Raises InvalidTree."""
    name = "recovery.xml"
    try:
        descriptor = os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            snapshot = Snapshot(directory, texts={name: file.read(XML_MAX_BYTES + 1)})
    except FileNotFoundError:
        return None
    except OSError as error:
        remedy = "look at its owner and mode"
        raise InvalidTree([Finding(name, 0, "unreadable", f"can't be read: {error.strerror}", remedy)]) from None
    reader = _Reader(snapshot)
    found = reader.recovery()
    if reader.findings:
        raise InvalidTree(dict.fromkeys(_presentable(finding) for finding in reader.findings))
    return found


@contextmanager
def _no_collection() -> Iterator[None]:
    """Nothing here makes cycles; the collector would walk all of a large tree again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _presentable(finding: Finding) -> Finding:
    """Whatever a file holds, a message can neither fill a terminal nor drive it."""
    message, remedy = cut(finding.message, MESSAGE_MAX), cut(finding.remedy, MESSAGE_MAX)
    return replace(finding, message=message, remedy=remedy)


class _Reader:
    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.findings = list(snapshot.findings)
        self.no_effect: list[str] = []
        self.reading = Reading()
        self.variables: Mapping[str, str] | None = None
        self.default_app: Node | None = None
        self.default_node: Node | None = None

    def read(self) -> tuple[Tree | None, list[Finding]]:
        reading, names = self.reading, self.reading.names
        names.update({kind: set(self._names(kind)) for kind in (*DIRECTORIES, "apps")})
        names["secrets"] |= self._aged()
        self._cluster()
        self._apps()
        reading.nodes = self._hosts("nodes", build.node)
        reading.gateways = self._hosts("gateways", build.gateway)
        reading.dns = self._hosts("dns", build.dns)
        reading.certificates = self._with_chains(self._hosts("certificates", build.certificate))
        reading.secrets |= self._hosts("secrets", build.secret)
        self._monitor()
        reading.recovery = self.recovery()
        names["gateway group"] = self._groups("gateways", {g.group for g in reading.gateways.values()})
        names["dns group"] = self._groups("dns", {d.group for d in reading.dns.values()})
        self.findings += check_tree(reading)
        if len(reading.nodes) == len(names["nodes"]):
            self.findings += check_ports(reading.apps, reading.nodes)
        self._remark()
        return self._tree(), self.findings

    def _remark(self) -> None:
        """What can be applied as it stands, though not all that it says: plans say so, nothing is refused."""
        self.no_effect += (str(finding) for finding in self.findings if finding.code in REMARKS)
        self.findings[:] = [finding for finding in self.findings if finding.code not in REMARKS]

    def _tree(self) -> Tree | None:
        reading = self.reading
        if reading.cluster is None or self.findings:
            return None
        return Tree(
            reading.cluster,
            reading.nodes,
            reading.apps,
            reading.gateways,
            reading.dns,
            reading.certificates,
            reading.secrets,
            self.snapshot.sha256(),
            self.snapshot.app_sha256(),
            tuple(dict.fromkeys(self.no_effect)),
            reading.recovery,
            reading.monitor,
            reading.gone,
        )

    def _groups(self, kind: str, found: set[str]) -> set[str]:
        """Where a file is wrong, its group isn't known: nothing is said about groups that only it may have."""
        built = len(self.reading.gateways) if kind == "gateways" else len(self.reading.dns)
        if built == len(self.reading.names[kind]):
            return found
        wanted = "gateway group" if kind == "gateways" else "dns group"
        return found | {"default"} | {r.name for r in self.reading.references if r.kind == wanted}

    def _names(self, kind: str) -> Iterator[str]:
        for path in self.snapshot.texts:
            if path.startswith(f"{kind}/"):
                yield path.split("/")[1].removesuffix(".xml")

    def _aged(self) -> set[str]:
        found = set()
        for path in self.snapshot.digests:
            if path.startswith("secrets/") and path.endswith(".age"):
                name = path[8:-4]
                found.add(name)
                if name in self.reading.names["secrets"]:
                    self._add(path, 0, "duplicate-secret", f"secrets/{name}.xml is there too", "keep one of them")
                self.reading.secrets[name] = SecretRef(name, "age", path, Where(path))
        names = self.reading.names
        names["certificates"] &= set(self._names("certificates"))
        self.reading.certificate_files = {
            path[13:]
            for path in self.snapshot.digests
            if path.startswith("certificates/") and not path.endswith(".xml")
        }
        return found

    def _with_chains(self, certificates: dict[str, Certificate]) -> dict[str, Certificate]:
        return {name: self._with_chain(certificate) for name, certificate in certificates.items()}

    def _with_chain(self, certificate: Certificate) -> Certificate:
        """What documents and plans say of it; a chain that isn't there is told elsewhere."""
        path = f"certificates/{certificate.chain}"
        if path not in self.snapshot.digests:
            return certificate
        from k4t.tree import x509

        try:
            leaf = x509.first(self.snapshot.content(path))
        except ValueError as error:
            where, message = certificate.where, f"chain {certificate.chain} {error}"
            self._add(
                where.file, where.line, "certificate", message, "put the chain there, the certificate itself first"
            )
            return certificate
        return replace(certificate, sha256=self.snapshot.digests[path], expires=leaf.expires, domains=leaf.domains)

    def _cluster(self) -> None:
        node = self._parse("cluster.xml", FILES["cluster.xml"])
        if node is None:
            return
        defaults = next((child for child in node.children if child.tag == "defaults"), None)
        node.children = [child for child in node.children if child is not defaults]
        before = len(self.findings)
        checker = Checker(self.findings, self.no_effect)
        item = checker.check(node, FILES["cluster.xml"])
        self.reading.references += checker.references
        self.variables = build.variables(item)
        if (second := item.one("defaults")) is not None:
            self._add(node.file, second.where.line, "repeated", "<defaults> stands twice", "keep one of them")
        if len(self.findings) == before:
            self.reading.cluster = build.cluster(item)
        if defaults is not None:
            self._defaults(defaults)

    def _defaults(self, node: Node) -> None:
        """Checked by themselves, so that what is wrong with them is told once; then merged as they stand."""
        app, host = ([c for c in node.children if c.tag == tag] for tag in ("app", "node"))
        before = len(self.findings)
        for one in app:
            expand_node(one, self.variables or {}, self.findings)
        checker = Checker(self.findings, [], partial=True, unexpanded=len(self.findings) > before)
        item = checker.check(node, FILES["cluster.xml"].by_child["defaults"])
        self.reading.references += checker.references
        if len(self.findings) == before:
            self.default_app = app[0] if app else None
            self.default_node = host[0] if host else None
            self.reading.gone = build_app.gone(item.one("app"))

    def _apps(self) -> None:
        row = FILES["apps/NAME/app.xml"]
        for name in self._names("apps"):
            node = self._parse(f"apps/{name}/app.xml", row)
            if node is None or (self.variables is None and b"${" in self.snapshot.texts[node.file]):
                continue
            before = len(self.findings)
            expand_node(node, self.variables or {}, self.findings)
            if self.default_app is not None:
                merge(node, self.default_app, DEFAULTS_APP)
            if (app := self._app(name, node, row, before)) is not None:
                self.reading.apps[name] = app

    def _app(self, name: str, node: Node, row: Element, before: int) -> App | None:
        checker = Checker(self.findings, self.no_effect, unexpanded=len(self.findings) > before)
        self._own_name(node, name)
        item = checker.check(node, row)
        self.reading.references += checker.references
        if len(self.findings) > before:
            return None
        app = build_app.app(name, item)
        self.findings += check_app(app, item, checker.references)
        if len(self.findings) > before:
            return app
        return Attached(self.snapshot, name, self.variables or {}, self.findings).attach(app, item)

    def _hosts(self, kind: str, make: Callable[[str, Item], _Built]) -> dict[str, _Built]:
        row, built = DIRECTORIES[kind], {}
        for name in self._names(kind):
            node = self._parse(f"{kind}/{name}.xml", row)
            if node is None:
                continue
            if kind == "nodes" and self.default_node is not None:
                merge(node, self.default_node, DEFAULTS_NODE)
            before = len(self.findings)
            self._own_name(node, name)
            item = self._checked(node, row)
            if item is not None and len(self.findings) == before:
                built[name] = make(name, item)
        return built

    def _monitor(self) -> None:
        node = self._parse("monitor.xml", FILES["monitor.xml"])
        item = self._checked(node, FILES["monitor.xml"]) if node else None
        if item is None:
            return
        from k4t.tree.semantics_monitor import check_monitor, monitor  # late: few trees have one
        from k4t.tree.semantics_policies import check_policies

        self.reading.monitor = monitor(item, self.findings)
        backups = self.reading.cluster.backups if self.reading.cluster else ()
        self.findings += check_monitor(self.reading.monitor, backups)
        if len(self.reading.nodes) == len(self.reading.names["nodes"]):
            self.findings += check_policies(self.reading.monitor, self.reading.nodes)

    def recovery(self) -> Recovery | None:
        node = self._parse("recovery.xml", FILES["recovery.xml"])
        item = self._checked(node, FILES["recovery.xml"]) if node else None
        return build.recovery(item) if item else None

    def _checked(self, node: Node, row: Element) -> Item | None:
        before = len(self.findings)
        checker = Checker(self.findings, self.no_effect)
        item = checker.check(node, row)
        self.reading.references += checker.references
        return item if len(self.findings) == before else None

    def _own_name(self, node: Node, name: str) -> None:
        if (given := node.attributes.get("name", name)) != name and NAME.fullmatch(given) and len(given) <= NAME_MAX:
            message = f"its name is {name}, by its place, but name says {given!r}"
            self._add(node.file, node.line, "name-mismatch", message, "remove the attribute, or rename")

    def _parse(self, path: str, row: Element) -> Node | None:
        data = self.snapshot.texts.get(path)
        if data is None:
            return None
        try:
            node = parse(data, path)
        except Refused as error:
            self._add(path, error.line, error.code, error.message, error.remedy)
            return None
        if node.tag != row.name:
            message = f"the root element is <{node.tag[:60]}>, not <{row.name}>"
            self._add(path, node.line, "root", message, f"write <{row.name}>")
            return None
        return node

    def _add(self, path: str, line: int, code: str, message: str, remedy: str) -> None:
        self.findings.append(Finding(path, line, code, message, remedy))


# --- XML ---------------------------------------------------------------------------------------------------


def parse(data: bytes, path: str) -> Node:
    """The elements of one file. Raises Refused."""
    _acceptable(data)
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        words = (error.msg or "not XML").split("\n")[0]
        raise Refused(error.lineno or 0, "not-xml", f"is not XML: {words}", "correct it") from None
    if root.getroottree().docinfo.internalDTD is not None:
        raise Refused(1, "dtd", "has a DTD", "remove <!DOCTYPE …>; entities are not for trees")
    for target, line in scan.instructions(data):
        if target != "xml-model":
            raise Refused(line, "instruction", f"has a processing instruction <?{target[:40]}?>", "remove it")
    return _Convert(path, scan.start_lines(data)).element(root, 1)


def _acceptable(data: bytes) -> None:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4]:
        raise Refused(1, "encoding", "is not UTF-8 but UTF-16 or UTF-32", "save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        raise Refused(1, "encoding", "begins with a byte order mark", "save it as UTF-8 without one")
    if (at := data.find(b"\0")) >= 0:
        raise Refused(data.count(b"\n", 0, at) + 1, "nul", "holds a NUL byte", "remove it; is this a text file?")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Refused(line, "encoding", "is not UTF-8", "save it as UTF-8") from None
    if (named := scan.encoding(data)) and named.lower() not in ("utf-8", "utf8"):
        raise Refused(1, "encoding", f"says it is {named[:40]!r}", "save it as UTF-8 and say so")
    if line := scan.doctype_line(data):
        raise Refused(line, "dtd", "has a DTD", "remove <!DOCTYPE …>; entities are not for trees")
    if line := scan.crowded_line(data, 10 * ATTRIBUTES_MAX):  # libxml2 alone takes half a second for 100,000
        message = f"has an element with far more than the {ATTRIBUTES_MAX} attributes that are allowed"
        raise Refused(line, "too-many", message, "no element has so many")


class _Convert:
    """lxml's elements → ours, counting before walking: `attrib.items()` takes time that grows with its square."""

    def __init__(self, path: str, lines: list[int]) -> None:
        self.path = path
        self.lines = lines
        self.count = 0

    def element(self, element: etree._Element, depth: int) -> Node:
        line = self.lines[self.count] if self.count < len(self.lines) else 0
        self.count += 1
        if self.count > ELEMENTS_MAX:
            raise Refused(line, "too-many", f"has more than {ELEMENTS_MAX} elements", "split it")
        if depth > DEPTH_MAX:
            raise Refused(line, "too-deep", f"is more than {DEPTH_MAX} elements deep", "no element goes so deep")
        if (count := len(element.attrib)) > ATTRIBUTES_MAX:
            message = f"has an element with {count} attributes; at most {ATTRIBUTES_MAX} are allowed"
            raise Refused(line, "too-many", message, "no element has so many")
        text = element.text or ""
        children: list[Node] = []
        for child in element:
            if not isinstance(child.tag, str):
                raise Refused(line, "entity", "refers to an entity", "write the character itself")
            children.append(self.element(child, depth + 1))
            if child.tail and not child.tail.isspace():
                text += child.tail
        attributes = {str(name): str(value) for name, value in element.attrib.items()} if count else {}
        return Node(str(element.tag), attributes, text, children, self.path, line)
